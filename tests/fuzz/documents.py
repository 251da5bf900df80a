"""Hypothesis strategies for what a person or another program writes: JSON documents, label tables, command lines."""

import json
from typing import Any

from hypothesis import strategies as st

AWKWARD = [
    "",
    "\0",
    "\x1b[31m",
    "\x1c1",
    "\u202e",
    "\ud800",
    "../../x",
    "=1+1",
    "CON",
    "[/x]",
    "ä",
    "a\nb",
    "1e999",
    "NaN",
]
NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 3, 10**6, -(2**63), 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")]
)
TEXT = st.sampled_from(AWKWARD) | st.text(max_size=8)
SCALAR = st.none() | st.booleans() | NUMBERS | TEXT
VALUES = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5
)


def places(document: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything in a document, itself included."""
    found = [here]
    entries = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in entries:
        found += places(value, (*here, key))
    return found


def changed(document: Any, place: tuple[Any, ...], how: str, value: Any) -> Any:
    """A copy of `document` in which what is at `place` is replaced, removed, wrapped, doubled or renamed."""
    document = json.loads(json.dumps(document))
    if not place:
        return value
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    last, old = place[-1], parent[place[-1]]
    if how == "remove":
        del parent[last]
    elif how == "wrap":
        parent[last] = [old]
    elif how == "double" and isinstance(parent, list):
        parent.insert(last, old)
    elif how == "add" and isinstance(parent, dict):
        parent[str(value)] = old
    else:
        parent[last] = value
    return document


@st.composite
def mutated(draw: Any, document: Any) -> bytes:
    """The text of `document` after a few changes, and sometimes with its text damaged too."""
    for _ in range(draw(st.integers(1, 3))):
        found = places(document)
        # Near the root as often as among the many leaves.
        depth = draw(st.integers(0, max(map(len, found))))
        there = [place for place in found if len(place) == depth] or found
        how = draw(st.sampled_from(["replace", "replace", "remove", "wrap", "double", "add"]))
        document = changed(document, draw(st.sampled_from(there)), how, draw(VALUES))
    text = json.dumps(document).encode("utf-8", "surrogatepass")
    return draw(damaged(text)) if draw(st.integers(0, 4)) == 0 else text


@st.composite
def damaged(draw: Any, data: bytes, most: int = 4) -> bytes:
    """`data` with a few bytes changed, cut short, or with a part of it repeated."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, most))):
        if changed:
            place = draw(st.integers(0, len(changed) - 1))
            changed[place] = draw(st.integers(0, 255))
    kept = draw(st.sampled_from([1.0, 1.0, 0.0, 0.5, 0.9, 0.999]))
    changed = changed[: round(kept * len(changed))]
    if draw(st.integers(0, 9)) == 0:
        changed += changed[len(changed) // 2 :]
    return bytes(changed)


CELL = (
    st.sampled_from(["a.png", "b/c.png", "A.PNG", "0", "1", "7", "99", "-1", "1.0", "file", "label", *AWKWARD]) | TEXT
)


@st.composite
def table(draw: Any, header: list[str], delimiter: str) -> bytes:
    """A table of labels: a good header more often than not, cells that are right, quoted, wrong or missing."""
    head = header if draw(st.integers(0, 3)) else draw(st.lists(CELL, max_size=len(header) + 1))
    rows = [head]
    for _ in range(draw(st.integers(0, 4))):
        good = ["a.png", *("0" for _ in header[1:])]
        row = [cell if draw(st.integers(0, 3)) else draw(CELL) for cell in good]
        rows.append(row[: draw(st.sampled_from([len(row)] * 4 + [len(row) - 1]))])
    quote = draw(st.sampled_from(["", "", '"']))
    line = draw(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"]))
    text = line.join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)
    mark = draw(st.sampled_from(["", "\ufeff", "\ufeff\ufeff"]))
    data = (mark + text).encode(draw(st.sampled_from(["utf-8"] * 4 + ["utf-16", "latin-1"])), "ignore")
    return draw(damaged(data)) if draw(st.integers(0, 4)) == 0 else data


OPTIONS = {
    "run": "--images --out --card --labels --limit --min-confidence --radii --trials --norm --clip --round --seed "
    "--measures --layers --permutations --batch-size --provider --threads --json",
    "inspect": "--json",
    "summary": "--json",
    "verify": "--json",
    "gate": "--max --min --baseline --max-regression --strict --junit --markdown --json",
    "compare": "--json",
    "claims": "--model --json",
    "bound": "--run --layers --json",
    "frequency": "--card --seed --json",
    "export": "--to --out",
}
VALUES_OF = [
    "1",
    "0.5,1:20",
    "1:x",
    "l2",
    "linf",
    "all",
    "isotropy",
    "fc2",
    "cpu",
    "auto",
    "lipschitz_q95=1",
    "=",
    "csv",
]
VALUES_OF += [
    "lipschitz_q95@1=nan",
    "nan",
    "inf",
    "-1",
    "1e400",
    "0",
    "1,,2",
    "9" * 400,
    "RUN",
    "MODEL",
    "IMAGES",
    "NEW",
]


@st.composite
def command_line(draw: Any) -> list[str]:
    """A command and options of it with values that fit or do not. RUN, MODEL, IMAGES, NEW stand for paths."""
    name = draw(st.sampled_from([*OPTIONS, "nothing"]))
    value = st.sampled_from(VALUES_OF) | TEXT.filter(lambda text: "\0" not in text)
    first = {"run": ["MODEL", "--images", "IMAGES", "--out", "NEW"], "bound": ["MODEL"], "frequency": ["MODEL"]}
    words = [name, *first.get(name, ["MODEL"] if name == "inspect" else ["RUN"])]
    if draw(st.integers(0, 5)) == 0:
        words = [name]
    for _ in range(draw(st.integers(0, 3))):
        option = draw(
            st.sampled_from(OPTIONS.get(name, "--json").split()) | st.sampled_from(["--help", "--nothing", "-"])
        )
        words.append(option)
        if option not in ("--json", "--clip", "--round", "--strict", "--help"):
            words.append(draw(value))
    return words
