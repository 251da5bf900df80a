"""HTML from plain functions: whatever is not `Html` already is escaped, so that forgetting to is harmless."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Final

from analyzer.text import safe

_VOID: Final = {"img", "meta", "wbr"}


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def printable(text: object) -> str:
    """`text` on one line, with control, format (bidi) and surrogate characters as U+FFFD."""
    return safe(str(text).replace("\n", " "))


def escaped(value: object) -> Html:
    """`value` as HTML text, fit for an attribute too; `Html` unchanged."""
    return value if isinstance(value, Html) else Html(html.escape(printable(value), quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. Children that are not `Html`, and all attributes, are escaped; None and False attributes left out.

    Attribute names are written as Python takes them: class_, http_equiv.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    start = f"<{name}{given}>"
    return Html(start if name in _VOID else f"{start}{joined(*children)}</{name}>")


def joined(*parts: object) -> Html:
    """Parts one after another, escaped where they are not `Html`."""
    return Html("".join(escaped(part) for part in parts))


def items(entries: Iterable[object]) -> Html:
    """An unordered list; nothing where there are no entries."""
    lines = [tag("li", entry) for entry in entries]
    return tag("ul", *lines) if lines else Html("")


def breakable(name: object) -> Html:
    """A name that a narrow place breaks after what joins its words, before it breaks a word."""
    if isinstance(name, Html):
        return name
    return Html(tag("wbr").join(map(escaped, re.split(r"(?<=[_/])(?=.)", printable(name)))))


def table(caption: str, head: Sequence[object], rows: Sequence[Sequence[object]]) -> Html:
    """A table in a box of its own that scrolls sideways; the first cell of each row is its heading."""
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption),
            tag(
                "thead",
                tag(
                    "tr",
                    *(tag("th", breakable(cell), scope="col") for cell in head),
                ),
            ),
            tag(
                "tbody",
                *(tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows),
            ),
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label=caption,
    )
