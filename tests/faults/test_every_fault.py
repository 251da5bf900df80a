"""The numbers 1 to 60 are all there, and each has its line in docs/reliability.md."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reliability.md"
FAULTS = range(1, 61)


def numbered():
    """{number: names of its tests}."""
    found: dict[int, list[str]] = {}
    for file in sorted(HERE.glob("test_*.py")):
        for part in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(part, ast.FunctionDef) and (name := re.match(r"test_(\d\d)_", part.name)):
                found.setdefault(int(name[1]), []).append(part.name)
    return found


def test_every_fault_has_a_test():
    assert sorted(numbered()) == list(FAULTS)


def test_every_fault_has_a_line_in_the_page():
    rows = re.findall(r"^\| (\d+) \| .+ \| .+ \|$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    assert list(map(int, rows)) == list(FAULTS)
