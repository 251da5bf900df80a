"""What the commands' tables have in common: their frame, safe cells, and numbers."""

import math

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from analyzer.text import safe


def titled(title: str) -> Table:
    """A table without columns, its bold title at the left."""
    return Table(title=cell(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)


def cell(value: object) -> Text:
    """Text that is shown as it is: no markup, and nothing that could command a terminal."""
    return Text(safe(value))


def number(value: float | None, form: str, *, absent: str = "undefined") -> str:
    """`value` in the format `form`; `absent` where it is None, NaN or infinite."""
    return absent if value is None or not math.isfinite(value) else format(value, form)
