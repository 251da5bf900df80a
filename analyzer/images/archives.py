"""Image sets that are no folder: a tar, a zip, or a list of files. Nothing is unpacked to disk."""

import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from analyzer.errors import InputError
from analyzer.images.files import MAX_BYTES, identifier, regular_bytes
from analyzer.images.walk import SUFFIXES, LeftOut, Walk

ARCHIVES = (".tar", ".zip")
LISTS = (".txt", ".lst")
_MOST = 5 * 10**6  # members
_CLASS = ".cls"  # WebDataset: the class index of the sample of that name
_TABLE = ".csv"
_LONGEST_CLASS = 20  # bytes
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError)


class Member(NamedTuple):
    """A file inside an archive: its name there, and its size in bytes."""

    name: str
    size: int


class _Entry(NamedTuple):
    name: str
    size: int
    regular: bool


def within(path: Path) -> Walk:
    """The images of an archive. Raises InputError where it cannot be read as one."""
    seen = Walk({}, [], LeftOut())
    classes: dict[str, str] = {}
    try:
        for number, entry in enumerate(_entries(path)):
            if number == _MOST:
                raise InputError(f"{path}: more than {_MOST} files in an archive; use smaller ones")
            _sort(entry, path, seen, classes)
        texts = {stem: _content(path, name, _LONGEST_CLASS) for stem, name in classes.items()}
    except (*_DAMAGED, OSError) as e:
        raise InputError(f"{path}: cannot be read as {path.suffix.lower()[1:]}: {' '.join(str(e).split()):.200}") from e
    for key in seen.images:
        text = texts.get(_stem(key), b"").strip()
        if text.isdigit():
            seen.classes[key] = int(text)
    return seen


def _sort(entry: _Entry, path: Path, seen: Walk, classes: dict[str, str]) -> None:
    """Put one file of an archive where it belongs; `classes`: of WebDataset's samples, by what they are called."""
    plain = posixpath.normpath(entry.name.replace("\\", "/"))
    parts = plain.split("/")
    name, suffix = "/".join(map(identifier, parts)), Path(parts[-1]).suffix.lower()
    if any(part.startswith(".") for part in parts) or plain.startswith("/"):
        if suffix in SUFFIXES:
            odd = ".." in parts or plain.startswith("/")
            (seen.left_out.irregular if odd else seen.left_out.hidden_images).append(name)
    elif suffix == _CLASS and entry.regular:
        classes[_stem(name)] = entry.name
    elif suffix not in SUFFIXES:
        (seen.left_out.tables if suffix == _TABLE else seen.left_out.others).append(name)
    elif not entry.regular:
        seen.left_out.irregular.append(name)
    else:
        seen.images[name] = path
        seen.members[name] = Member(entry.name, entry.size)


def _stem(name: str) -> str:
    """What the files of a WebDataset sample share: all up to the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def listed_in(path: Path) -> Walk:
    """The images that a text file names, one a line, relative to its folder.

    Raises InputError where one is not there, or the file is no UTF-8 text.
    """
    seen = Walk({}, [], LeftOut())
    try:
        lines = regular_bytes(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: cannot be read as a list of images: {e}") from e
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        file = path.parent / line.strip()
        try:
            there = file.is_file()
        except (OSError, ValueError):
            there = False
        if not there:
            raise InputError(f"{path}, line {number}: no such file: {line.strip():.200}")
        key = "/".join(map(identifier, Path(posixpath.normpath(line.strip())).parts)).replace("//", "/")
        seen.images[key] = file
    return seen


def content(path: Path, member: Member) -> bytes:
    """The bytes of a file inside an archive, of at most `MAX_BYTES`. Raises OSError for whatever is wrong with it."""
    if member.size > MAX_BYTES:
        raise OSError(f"{member.size} bytes, above the limit of {MAX_BYTES}")
    try:
        data = _content(path, member.name, MAX_BYTES + 1)
    except (*_DAMAGED, KeyError) as e:
        raise OSError(f"damaged inside its archive: {' '.join(str(e).split()):.150}") from e
    if len(data) > MAX_BYTES:  # more than it says, as a bomb has
        raise OSError(f"above the limit of {MAX_BYTES} bytes")
    return data


def _content(path: Path, name: str, most: int) -> bytes:
    archive = _opened(path)
    if isinstance(archive, zipfile.ZipFile):
        with archive.open(name) as file:
            return file.read(most)
    found = archive.extractfile(name)
    if found is None:
        raise OSError("not a regular file")
    with found:
        return found.read(most)


def _entries(path: Path) -> Iterator[_Entry]:
    archive = _opened(path)
    if isinstance(archive, zipfile.ZipFile):
        for info in archive.infolist():
            if not info.is_dir():
                yield _Entry(info.filename, info.file_size, (info.external_attr >> 28) in (0, 8))
    else:
        for member in archive:
            if not member.isdir():
                yield _Entry(member.name, member.size, member.isreg())


_open: dict[tuple[str, int], tarfile.TarFile | zipfile.ZipFile] = {}
_MOST_OPEN = 4


def _opened(path: Path) -> tarfile.TarFile | zipfile.ZipFile:
    """An archive, open as long as it is the same file and few others are used after it."""
    key = (str(path), path.stat().st_mtime_ns)
    if key not in _open:
        while len(_open) >= _MOST_OPEN:
            _open.pop(next(iter(_open))).close()
        is_zip = path.suffix.lower() == ".zip"
        # A tar without compression only: any member can be gone to.
        _open[key] = zipfile.ZipFile(path) if is_zip else tarfile.open(path, "r:")  # noqa: SIM115 - kept open
    return _open[key]
