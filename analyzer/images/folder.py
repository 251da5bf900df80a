"""Which images a folder holds, under which ids and labels, and in which order a run takes them."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analyzer.card import Card
from analyzer.errors import InputError
from analyzer.images import labels as labelling
from analyzer.images.files import identifier

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ImageFile:
    """One image of the set, not yet read.

    id: its name in results, unique in the set: the POSIX path relative to the folder, as `files.identifier` writes it.
    label: class index, None where the set has no labels. roi: region of interest (x1, y1, x2, y2) in pixels, both
    corners inside; None for the whole image.
    """

    id: str
    path: Path
    label: int | None
    roi: tuple[int, int, int, int] | None = None


def find(folder: Path, *, card: Card, labels: Path | None = None) -> list[ImageFile]:
    """The images of a folder and of its sub-folders, sorted by id; no image is opened.

    An image is a regular file (or a link to one) with one of `SUFFIXES`, in any case. Hidden files and folders,
    linked folders, FIFOs, devices and sockets are left out. Labels come from the first of these that applies:

    1. `labels`: a UTF-8 CSV with the header ``file,label``, paths relative to `folder`. A label is a name from the
       card, else a class index. Images that are not in it are left out.
    2. GTSRB's own tables, ``GT-*.csv``, beside the images: region and class (no label where ClassId is missing).
       Images that are not in one are left out.
    3. Every image lies in a sub-folder: the first part of its path names the class, by the card's label, or by the
       class index where the card has no labels.
    4. None: `label` is None.

    Args:
        folder: Where the images are.
        card: The model's card, for the names of the classes.
        labels: The CSV, None where there is none.

    Raises:
        InputError: The folder is missing, unreadable or without images. Or a line of a table names an image that is not
            there, contradicts an earlier line, or has a label that stands for no class or for two.

    >>> import tempfile
    >>> from analyzer.card import Resize
    >>> card = Card("NCHW", (32, 48), "L", Resize("none"), (0.0,), (255.0,), "logits", labels=("cat", "dog"))
    >>> with tempfile.TemporaryDirectory() as made:
    ...     (Path(made) / "dog").mkdir()
    ...     (Path(made) / "dog" / "rex.png").touch()
    ...     [(image.id, image.label) for image in find(Path(made), card=card)]
    [('dog/rex.png', 1)]
    """
    images, tables = _walk(folder)
    if not images:
        raise InputError(
            f"{folder}: no image in this folder; expected files ending in {' '.join(SUFFIXES)}\n"
            "(hidden files and linked folders are left out)"
        )
    chosen: Mapping[str, tuple[int | None, labelling.Roi | None]]
    if labels is not None:
        chosen = {key: (label, None) for key, label in labelling.from_csv(labels, images, card=card).items()}
    elif tables:
        chosen = labelling.from_gtsrb(tables, images, card=card)
    elif all("/" in key for key in images):
        chosen = {key: (label, None) for key, label in labelling.from_folders(images, card=card, where=folder).items()}
    else:
        chosen = dict.fromkeys(images, (None, None))
    if not chosen:
        source = labels if labels is not None else " and ".join(str(path) for _, path in tables[:3])
        raise InputError(f"{source}: lists no image; expected one row for each image of {folder}")
    return [ImageFile(key, images[key], *chosen[key]) for key in sorted(chosen)]


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


def _walk(folder: Path) -> tuple[dict[str, Path], list[tuple[str, Path]]]:
    """Images by id, and GTSRB tables as (id of their folder, "" or ending in "/"; path), sorted."""
    try:
        exists = folder.is_dir()
    except OSError as e:
        raise InputError(f"{folder}: cannot be searched for images: {e.strerror}") from e
    if not exists:
        raise InputError(f"{folder}: no such folder; expected a folder of images")
    images: dict[str, Path] = {}
    tables: list[tuple[str, Path]] = []
    # A list instead of recursion: nesting can be deeper than the interpreter's stack.
    left = [("", folder)]
    while left:
        prefix, here = left.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    path = here / entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        left.append((f"{prefix}{identifier(entry.name)}/", path))
                    elif path.suffix.lower() in SUFFIXES and path.is_file():
                        images[prefix + identifier(entry.name)] = path
                    elif entry.name.startswith("GT-") and entry.name.endswith(".csv") and path.is_file():
                        tables.append((prefix, path))
        except OSError as e:
            raise InputError(f"{here}: cannot be searched for images: {e.strerror}") from e
    return images, sorted(tables)
