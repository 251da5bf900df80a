"""The files of a folder and of its sub-folders: images, GTSRB's tables, and what is left out."""

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyzer.errors import InputError
from analyzer.images.files import identifier

SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
_TABLES = ".csv"
_RUN = {"manifest.json", "units"}
"""What a run directory has; the pictures in one are those of its report."""
_NAMED = 3  # of those that a note counts


@dataclass
class LeftOut:
    """What a walk passed by, as ids; CSV tables are not counted, they stand beside images of right.

    runs, hidden_folders, linked_folders: run directories and such, none was looked into. hidden_images: hidden files
    with an image's suffix. irregular: devices, FIFOs, links that lead nowhere, with an image's suffix. tables:
    CSV files inside an archive. others: files of another suffix.
    """

    runs: list[str] = field(default_factory=list)
    hidden_folders: list[str] = field(default_factory=list)
    hidden_images: list[str] = field(default_factory=list)
    linked_folders: list[str] = field(default_factory=list)
    irregular: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def notes(self) -> Iterator[str]:
        """One sentence for each kind, without its full stop."""
        if self.others:
            suffixes = Counter(Path(name).suffix.lower()[:12] or "no suffix" for name in self.others)
            kinds = ", ".join(
                f"{count} {suffix}" for suffix, count in sorted(suffixes.items(), key=_most_first)[:_NAMED]
            )
            more = " and others" if len(suffixes) > _NAMED else ""
            yield f"{counted(len(self.others), 'file')} left out: not images by their suffix ({kinds}{more})"
        for names, what in (
            (self.runs, "run directory"),
            (self.hidden_folders, "hidden folder"),
            (self.linked_folders, "linked folder"),
            (self.hidden_images, "hidden image"),
        ):
            if names:
                yield f"{counted(len(names), what)} left out: {listed(names)}"
        if self.tables:
            yield f"{counted(len(self.tables), 'table')} inside not read: labels come from one outside the archive"
        if self.irregular:
            yield f"{counted(len(self.irregular), 'image')} left out: not a regular file ({listed(self.irregular)})"


@dataclass(frozen=True)
class Walk:
    """images: path by id. tables: GTSRB's, (id of their folder, "" or ending in "/"; path), sorted.

    members, classes: of an archive, by id: the image's place inside it, and its class index where it has one.
    """

    images: dict[str, Path]
    tables: list[tuple[str, Path]]
    left_out: LeftOut
    members: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)


def walk(folder: Path) -> Walk:
    """All files of a folder. Raises InputError for a folder, or one in it, that is missing or cannot be searched."""
    try:
        exists = folder.is_dir()
    except OSError as e:
        raise InputError(f"{folder}: cannot be searched for images: {e.strerror}") from e
    if not exists:
        raise InputError(f"{folder}: no such folder; expected a folder of images")
    seen = Walk({}, [], LeftOut())
    # A list instead of recursion: nesting can be deeper than the interpreter's stack.
    left = [("", folder)]
    while left:
        prefix, here = left.pop()
        try:
            with os.scandir(here) as listing:
                entries = list(listing)
                if prefix and {entry.name for entry in entries} >= _RUN:
                    seen.left_out.runs.append(prefix[:-1])
                    continue
                for entry in entries:
                    if _sort(entry, prefix, here / entry.name, seen):
                        left.append((f"{prefix}{identifier(entry.name)}/", here / entry.name))
        except OSError as e:
            raise InputError(f"{here}: cannot be searched for images: {e.strerror}") from e
    seen.tables.sort()
    return seen


def _sort(entry: "os.DirEntry[str]", prefix: str, path: Path, seen: Walk) -> bool:
    """Put one entry where it belongs; whether it is a folder to be walked."""
    name, left_out = prefix + identifier(entry.name), seen.left_out
    is_folder, is_image = entry.is_dir(follow_symlinks=False), path.suffix.lower() in SUFFIXES
    if entry.name.startswith("."):
        if is_folder:
            left_out.hidden_folders.append(name)
        elif is_image:
            left_out.hidden_images.append(name)
    elif is_folder:
        return True
    elif entry.is_symlink() and path.is_dir():
        left_out.linked_folders.append(name)
    elif is_image and path.is_file():
        seen.images[name] = path
    elif is_image:
        left_out.irregular.append(name)
    elif entry.name.startswith("GT-") and entry.name.endswith(_TABLES) and path.is_file():
        seen.tables.append((prefix, path))
    elif path.suffix.lower() != _TABLES and path.is_file():
        left_out.others.append(name)
    return False


def counted(count: int, what: str) -> str:
    """ "1 file", "2 files", "2 directories"."""
    if count == 1:
        return f"1 {what}"
    return f"{count} {what.removesuffix('y')}ies" if what.endswith("y") else f"{count} {what}s"


def listed(names: Collection[str]) -> str:
    """The first names in their order, and that there are more."""
    shown = ", ".join(f"{name:.200}" for name in sorted(names)[:_NAMED])
    return shown + (", ..." if len(names) > _NAMED else "")


def _most_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
