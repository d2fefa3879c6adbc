"""faults.md names tests that exist, for each of the 182 faults or "not yet"."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
ROW = re.compile(r"^\| ([A-J]\d+) \| .* \| ([^|]*) \|$", re.MULTILINE)
ROWS = dict(ROW.findall((HERE / "faults.md").read_text(encoding="utf-8")))
# what is answered for: images, training, weights, serving (but for the soak of a day), the command line
PROMISED = "A1-36 C1-27 D1-20 E1-11 I1-37 J1-8"


def test_all_182_are_listed() -> None:
    counts = {"A": 36, "B": 9, "C": 27, "D": 20, "E": 11, "F": 14, "G": 9, "H": 10, "I": 38, "J": 8}
    assert list(ROWS) == [f"{letter}{n}" for letter, count in counts.items() for n in range(1, count + 1)]


def test_the_tests_named_exist() -> None:
    for fault, cell in ROWS.items():
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", cell)
        assert named or re.match("not yet(:|$)", cell.strip()), fault
        for file, test in named:
            assert f"def {test}(" in (HERE / file).read_text(encoding="utf-8"), f"{fault}: {file}::{test}"


def test_what_is_promised_is_tested() -> None:
    for part in PROMISED.split():
        first, _, last = part[1:].partition("-")
        for number in range(int(first), int(last or first) + 1):
            assert not ROWS[f"{part[0]}{number}"].strip().startswith("not yet"), f"{part[0]}{number}"
