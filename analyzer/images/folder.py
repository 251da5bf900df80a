"""Which images a folder holds, under which ids and labels, and in which order a run takes them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analyzer.card import Card
from analyzer.errors import InputError
from analyzer.images import archives
from analyzer.images import labels as labelling
from analyzer.images.archives import Member
from analyzer.images.walk import SUFFIXES, Walk, counted, listed, walk


@dataclass(frozen=True)
class ImageFile:
    """One image of the set, not yet read.

    id: its name in results, unique in the set: the POSIX path relative to the folder, as `files.identifier` writes it.
    label: class index, None where the set has no labels. roi: region of interest (x1, y1, x2, y2) in pixels, both
    corners inside; None for the whole image. member: its place in the archive that `path` is, if it is one. data: the
    file's bytes, where they were read elsewhere; else None.
    """

    id: str
    path: Path
    label: int | None
    roi: tuple[int, int, int, int] | None = None
    member: Member | None = None
    data: bytes | None = None

    @property
    def bytes(self) -> int:
        """Size of the file; 0 where it is not there."""
        if self.data is not None:
            return len(self.data)
        if self.member is not None:
            return self.member.size
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


@dataclass(frozen=True)
class ImageSet:
    """images: sorted by id. notes: sentences about what lies in the folder and is not among them."""

    images: list[ImageFile]
    notes: tuple[str, ...]


def find(folder: Path, *, card: Card, labels: Path | None = None) -> list[ImageFile]:
    """The images of a folder and of its sub-folders, sorted by id; no image is opened.

    An image is a regular file (or a link to one) with one of `SUFFIXES`, in any case. Hidden files and folders,
    linked folders, FIFOs, devices and sockets are left out. Labels come from the first of these that applies:

    1. `labels`: a UTF-8 CSV with the columns ``file`` and ``label``, see `labels.from_csv`; paths are relative to
       `folder`. A label is a name from the card, else a class index. Images that are not in it are left out.
    2. GTSRB's own tables, ``GT-*.csv``, beside the images: region and class (no label where ClassId is missing).
       Images that are not in one are left out.
    3. A sub-folder with images is named as a class is: then all have to be. The first part of a path names the class,
       by the card's label, or by the class index where the card has no labels. Images beside the sub-folders are left
       out. Where all images lie in sub-folders, these have to be named so.
    4. The members ``NAME.cls`` of an archive hold class indices, as WebDataset has them.
    5. None: `label` is None.

    In place of a folder: a .tar without compression or a .zip, of which nothing is unpacked to disk, or a .txt or .lst
    that names an image a line, relative to its own folder.

    Args:
        folder: Where the images are: a folder, an archive or a list.
        card: The model's card, for the names of the classes.
        labels: The CSV, None where there is none.

    Raises:
        InputError: The folder is missing, unreadable or without images. Or a line of a table names an image that is not
            there, contradicts an earlier line, or has a label that stands for no class or for two. Or most images lie
            beside the class folders.

    >>> import tempfile
    >>> from analyzer.card import Resize
    >>> card = Card("NCHW", (32, 48), "L", Resize("none"), (0.0,), (255.0,), "logits", labels=("cat", "dog"))
    >>> with tempfile.TemporaryDirectory() as made:
    ...     (Path(made) / "dog").mkdir()
    ...     (Path(made) / "dog" / "rex.png").touch()
    ...     [(image.id, image.label) for image in find(Path(made), card=card)]
    [('dog/rex.png', 1)]
    """
    return find_set(folder, card=card, labels=labels).images


def find_set(folder: Path, *, card: Card, labels: Path | None = None) -> ImageSet:
    """`find`, with notes about what was left out."""
    seen = _searched(folder)
    images, notes = seen.images, list(seen.left_out.notes())
    if not images:
        left_out = f"\n({'; '.join(notes)})" if notes else ""
        raise InputError(f"{folder}: no image in this folder; expected files ending in {' '.join(SUFFIXES)}{left_out}")
    chosen: Mapping[str, tuple[int | None, labelling.Roi | None]]
    if labels is not None:
        chosen = {key: (label, None) for key, label in labelling.from_csv(labels, images, card=card).items()}
        source = str(labels)
    elif seen.tables:
        chosen = labelling.from_gtsrb(seen.tables, images, card=card)
        source = " and ".join(str(path) for _, path in seen.tables[:3])
    elif seen.classes:
        chosen, source = {key: (label, None) for key, label in seen.classes.items()}, str(folder)
    else:
        chosen, source = _by_folder(seen, folder, card, notes), ""
    if not chosen:
        raise InputError(f"{source}: lists no image; expected one row for each image of {folder}")
    if source and len(chosen) < len(images):
        unlisted = [key for key in images if key not in chosen]
        notes.append(
            f"{counted(len(unlisted), 'image')} left out: without a row in the table of labels ({listed(unlisted)})"
        )
    return ImageSet(
        [ImageFile(key, images[key], *chosen[key], seen.members.get(key)) for key in sorted(chosen)],
        tuple(f"{n}." for n in notes),
    )


def _searched(folder: Path) -> Walk:
    """What a folder, an archive or a list of files holds."""
    if folder.suffix.lower() in (*archives.ARCHIVES, *archives.LISTS) and folder.is_file():
        return archives.within(folder) if folder.suffix.lower() in archives.ARCHIVES else archives.listed_in(folder)
    return walk(folder)


def _by_folder(seen: Walk, folder: Path, card: Card, notes: list[str]) -> dict[str, tuple[int | None, None]]:
    """Labels from the names of sub-folders; none where no sub-folder is named as a class is. Adds to `notes`."""
    inside = [key for key in seen.images if "/" in key]
    beside = [key for key in seen.images if "/" not in key]
    if not inside:
        return dict.fromkeys(seen.images, (None, None))
    few = card.labels is None or len(beside) >= len(inside)  # else the folders are classes, misspelt
    if beside and few and not labelling.any_class(inside, card=card):
        others = listed({key.partition("/")[0] for key in inside})
        notes.append(f"No label is taken from sub-folders, as none is named as a class is: {others}")
        return dict.fromkeys(seen.images, (None, None))
    if len(beside) > len(inside):
        raise InputError(
            f"{folder}: {counted(len(inside), 'image')} in folders named as classes are, but {len(beside)} beside "
            f"them, such as {min(beside):.200}\ngive `labels` a CSV, or move one or the other into a folder of its own"
        )
    if beside:
        notes.append(f"{counted(len(beside), 'image')} left out: beside the class folders ({listed(beside)})")
    return {key: (label, None) for key, label in labelling.from_folders(inside, card=card, where=folder).items()}


def seeded_order(images: Sequence[ImageFile], *, seed: int) -> list[ImageFile]:
    """The images in the order of SHA-256(seed, id).

    Whether one image comes before another depends on these two only, not on the rest of the set, the file system or the
    locale.

    Args:
        images: In any order.
        seed: Of the whole run; another seed gives another order.

    >>> images = [ImageFile(name, Path(name), label=None) for name in ("a.png", "b.png", "c.png")]
    >>> [image.id for image in seeded_order(images, seed=0)]
    ['c.png', 'b.png', 'a.png']
    """

    def key(image: ImageFile) -> tuple[bytes, str]:
        return hashlib.sha256(f"{seed}/{image.id}".encode()).digest(), image.id

    return sorted(images, key=key)
