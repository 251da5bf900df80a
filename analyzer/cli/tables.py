"""What the commands' tables have in common: their frame, safe cells, and numbers."""

import itertools
import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from analyzer.text import safe


def titled(title: str) -> Table:
    """A table without columns, its bold title at the left."""
    return Table(title=cell(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)


def plain() -> Table:
    """A table without title and frame: one line a row, as close together as can be."""
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")


def cell(value: object) -> Text:
    """Text that is shown as it is: no markup, and nothing that could command a terminal."""
    return Text(safe(value))


def number(value: float | None, form: str, *, absent: str = "undefined") -> str:
    """`value` in the format `form`; `absent` where it is None, NaN or infinite."""
    return absent if value is None or not math.isfinite(value) else format(value, form)


def without_common_start(first: str, names: Sequence[str]) -> dict[str, str]:
    """What to call `names` where room is scarce: each after the part that all begin with, `first` among them."""
    columns = zip(first, *names, strict=False)
    same = sum(1 for _ in itertools.takewhile(lambda letters: len(set(letters)) == 1, columns))
    start = first[:same]
    ends = [place + 1 for place, letter in enumerate(start) if letter in "_-. "]
    if same == len(first) and all(name[same : same + 1] in ("", *"_-. ") for name in names):
        ends.append(same)
    return {name: name[max(ends, default=0) :].lstrip("_-. ") or name for name in names}
