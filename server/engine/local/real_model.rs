//! The real model for some tests, and sample code as input.

pub(crate) use crate::testing::real_model as path;

/// More than 200 tokens of code.
pub(crate) const SAMPLE_CODE: &str = r#"
import argparse
import json
from pathlib import Path


class Ledger:
    """A list of bookings, oldest first, and what they add up to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bookings: list[dict] = []
        if path.exists():
            self.bookings = json.loads(path.read_text(encoding="utf-8"))

    def book(self, account: str, amount: int, note: str = "") -> None:
        if amount == 0:
            raise ValueError("a booking of nothing")
        self.bookings.append({"account": account, "amount": amount, "note": note})

    def balance(self, account: str) -> int:
        return sum(b["amount"] for b in self.bookings if b["account"] == account)

    def save(self) -> None:
        text = json.dumps(self.bookings, indent=2, ensure_ascii=False)
        self.path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep a ledger in a JSON file.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--account", default="cash")
    arguments = parser.parse_args()
    ledger = Ledger(arguments.path)
    print(f"{arguments.account}: {ledger.balance(arguments.account)}")
"#;
