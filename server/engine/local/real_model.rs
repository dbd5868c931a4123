//! The real model that some tests ask for, and a piece of code to read with it.
//! It knows nothing of what is tested.

use std::path::PathBuf;

/// The file that `TAPER_TEST_MODEL` names. Without it a test passes over the real model loudly, except in CI,
/// where its absence is a failure.
pub(crate) fn path() -> Option<PathBuf> {
    match std::env::var_os("TAPER_TEST_MODEL") {
        Some(path) => Some(path.into()),
        None => {
            assert!(std::env::var_os("CI").is_none(), "TAPER_TEST_MODEL must name the real model's file in CI");
            #[expect(clippy::print_stderr, reason = "a test that is passed over says so")]
            {
                eprintln!("PASSED OVER: set TAPER_TEST_MODEL to the real model's file to run this test");
            }
            None
        }
    }
}

/// More than 200 tokens of code.
pub(crate) const CODE: &str = r#"
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
