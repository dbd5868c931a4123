// A shopping cart.

export class Cart {
  constructor() {
    this.items = [];
  }

  add(name, price, quantity = 1) {
    if (quantity <= 0) {
      throw new RangeError(`quantity must be positive, not ${quantity}`);
    }
    this.items.push({ name, price, quantity });
  }

  total() {
    let sum = 0;
    for (const item of this.items) {
      
    }
    return sum;
  }

  isEmpty() {
    return this.items.length === 0;
  }
}
