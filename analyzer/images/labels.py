"""Labels of an image set as class indices, from a CSV, from GTSRB's tables, or from one folder per class."""

import contextlib
import csv
import io
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from analyzer.card import Card
from analyzer.errors import InputError
from analyzer.images.files import identifier, regular_bytes

Roi = tuple[int, int, int, int]

_ROI = ("Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2")
_INDEX = re.compile("[0-9]{1,9}")
_COLUMNS = ("file", "label")
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


def from_csv(path: Path, images: Collection[str], *, card: Card) -> dict[str, int]:
    """Class index of every image that a table with the columns ``file`` and ``label`` lists.

    Cells are separated by commas, semicolons or tabs, whichever the header has; its words are in any case, in any
    order, and other columns mean nothing. A path may have backslashes where its folders are separated.

    path: the table. images: the ids that exist. Raises InputError naming the line at fault.
    """
    text = _text(path)
    delimiter = _delimiter(text)
    rows = _rows(text, path, delimiter=delimiter)
    header = next(rows, (1, []))[1]
    columns = [cell.strip().lower() for cell in header]
    if any(columns.count(name) != 1 for name in _COLUMNS):
        raise InputError(
            f"{path}: the first line must be a header with one column file and one column label, such as file,label; "
            f"got {delimiter.join(header)!r:.80}"
        )
    places = [columns.index(name) for name in _COLUMNS]
    names = _names(card)
    labels: dict[str, int] = {}
    listing = list(rows)
    indices = _are_indices({cells[places[1]] for _, cells in listing if len(cells) == len(columns)}, names, path)
    for line, cells in listing:
        where = f"{path}, line {line}"
        if len(cells) != len(columns):
            raise InputError(
                f"{where}: expected {len(columns)} cells, {delimiter.join(columns):.80}; got {len(cells)} "
                f"(quote a name that has a {_SEPARATORS[delimiter]})"
            )
        file, label_cell = (cells[place] for place in places)
        key = _listed(file, "", images, where)
        known = {} if indices else names
        label = _class(_escaped(label_cell), known, card=card, where=where, indices=indices is not False)
        if labels.setdefault(key, label) != label:
            raise InputError(f"{where}: {key!r:.200} has class {label} here and class {labels[key]} above")
    return labels


def _are_indices(cells: Collection[str], names: Mapping[str, list[int]], path: Path) -> bool | None:
    """Whether the labels of a table are class indices (True) or names (False), where a name of the card is a number.

    None where no cell can be both, so that each says by itself what it is. Raises InputError where all can be both, and
    mean other classes as the one than as the other.
    """
    count = sum(map(len, names.values()))
    read = [(names.get(_folded(_escaped(cell.strip())), []), cell.strip()) for cell in sorted(cells)]
    indices = [int(cell) if _INDEX.fullmatch(cell) and int(cell) < count else None for _, cell in read]
    both = [cell for (found, cell), index in zip(read, indices, strict=True) if found and index not in (None, *found)]
    if not both:
        return None
    as_indices, as_names = None not in indices, all(found for found, _ in read)
    if as_indices == as_names:
        raise InputError(
            f"{path}: label {both[0]!r:.80} is both the index of class {int(both[0])} and the card's name of class "
            f"{names[_folded(both[0])][0]}\nmake the names in the card's output.labels other than bare numbers"
        )
    return as_indices


def from_gtsrb(
    tables: Sequence[tuple[str, Path]], images: Collection[str], *, card: Card
) -> dict[str, tuple[int | None, Roi]]:
    """Class index and region of every image in GTSRB's tables, given as (id of their folder, path).

    A table without ClassId (the test set as first published) gives None, until another table knows the class.
    """
    listed: dict[str, tuple[int | None, Roi]] = {}
    for prefix, path in tables:
        rows = _rows(_text(path), path, delimiter=";")
        header = [cell.strip() for cell in next(rows, (1, []))[1]]
        missing = [name for name in ("Filename", *_ROI) if name not in header]
        if missing:
            raise InputError(f"{path}: no column {', '.join(missing)}; expected GTSRB's own table, with semicolons")
        for line, cells in rows:
            where = f"{path}, line {line}"
            if len(cells) != len(header):
                raise InputError(f"{where}: expected {len(header)} cells, got {len(cells)}")
            row = dict(zip(header, cells, strict=True))
            key = _listed(row["Filename"], prefix, images, where)
            x1, y1, x2, y2 = (_integer(row[name], name, where) for name in _ROI)
            label = None
            if "ClassId" in row:
                label = _in_range(_integer(row["ClassId"], "ClassId", where), card=card, where=where)
            before, roi = listed.setdefault(key, (label, (x1, y1, x2, y2)))
            if roi != (x1, y1, x2, y2) or (before != label and None not in (before, label)):
                raise InputError(f"{where}: {key!r:.200} is listed above with another class or region")
            listed[key] = (label if before is None else before, roi)
    return listed


def from_folders(images: Collection[str], *, card: Card, where: Path) -> dict[str, int]:
    """Class index of every image from the first part of its id."""
    names = _names(card)
    folders = sorted({key.partition("/")[0] for key in images})
    mend = "give `labels` a CSV, or put the images directly into the folder"
    classes: dict[str, int] = {}
    for folder in folders:
        try:
            classes[folder] = _class(folder, names, card=card, where=str(where / folder), indices=card.labels is None)
        except InputError as e:
            raise InputError(f"{e}\n{mend}") from None
    return {key: classes[key.partition("/")[0]] for key in images}


def any_class(images: Collection[str], *, card: Card) -> bool:
    """Whether the first part of any id names a class of the card, or stands for two of them."""
    names = _names(card)
    folders = {key.partition("/")[0] for key in images}
    if card.labels is None:
        return any(_INDEX.fullmatch(folder.strip()) for folder in folders)
    return any(_folded(folder) in names or _folded(folder.strip()) in names for folder in folders)


def _names(card: Card) -> dict[str, list[int]]:
    """Class indices by label; a label can stand for two classes, as "crane" does in ImageNet.

    Keys are written as ids are, composed (NFC): some file systems decompose the letters of a folder's name.
    """
    names: dict[str, list[int]] = {}
    for index, label in enumerate(card.labels or ()):
        names.setdefault(_folded(_escaped(label)), []).append(index)
    return names


def _class(name: str, names: Mapping[str, list[int]], *, card: Card, where: str, indices: bool) -> int:
    """Class index of a name as `_names` writes names, or where `indices` allows it, of an index in digits."""
    hits = names.get(_folded(name)) or names.get(_folded(name.strip()), [])
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise InputError(f"{where}: label {name!r:.80} stands for classes {' and '.join(map(str, hits))} of the card")
    if indices and _INDEX.fullmatch(name.strip()):
        return _in_range(int(name.strip()), card=card, where=where)
    expected = "one of the card's labels"
    if card.labels is None:
        expected = "a class index, or that the card's output.labels lists the names of the classes in their order"
    raise InputError(f"{where}: label {name!r:.80} is unknown; expected {expected}")


def _in_range(index: int, *, card: Card, where: str) -> int:
    if card.labels is not None and index >= len(card.labels):
        raise InputError(f"{where}: class {index} is out of range; the card has {len(card.labels)} labels")
    return index


def _listed(cell: str, prefix: str, images: Collection[str], where: str) -> str:
    """The id of the image that a table's cell means: a path, or an id as results show it."""
    posix, windows = PurePosixPath(cell), PureWindowsPath(cell)
    if posix.is_absolute() or windows.is_absolute() or ".." in (*posix.parts, *windows.parts):
        raise InputError(f"{where}: {cell!r:.200} leaves the folder; expected a relative path without ..")
    for key in (prefix + _escaped(str(posix)), prefix + str(posix), prefix + _escaped(windows.as_posix())):
        if key in images:
            return key
    raise InputError(f"{where}: no image {cell!r:.200}; expected a path relative to the folder of images")


def _delimiter(text: str) -> str:
    """The separator with which the first line names both columns; else the one it has most of, the comma if none."""
    first = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    for separator in _SEPARATORS:
        with contextlib.suppress(csv.Error):
            cells = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=separator), [])]
            if set(_COLUMNS) <= set(cells):
                return separator
    return max(_SEPARATORS, key=first.count)


def _text(path: Path) -> str:
    """A UTF-8 table, with or without a byte order mark."""
    try:
        return regular_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise InputError(f"{path}: not UTF-8 ({e.reason} at byte {e.start}); save the table as UTF-8") from None
    except OSError as e:
        raise InputError(f"{path}: cannot be read: {e.strerror or e}") from e


def _rows(text: str, path: Path, *, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of a table; empty lines are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as e:
        raise InputError(f"{path}, line {reader.line_num}: not a CSV table: {e}") from None


def _integer(cell: str, name: str, where: str) -> int:
    number = cell.strip(" \t")  # no more: all white space would take the control characters U+001C to U+001F along
    if not _INDEX.fullmatch(number):
        raise InputError(f"{where}: {name} must be an integer from 0, not {cell!r:.80}")
    return int(number)


def _escaped(name: str) -> str:
    return identifier(name.encode("utf-8", "surrogatepass"))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name)
