"""The worst cases of a run, their perturbations rebuilt from what the run recorded; no network is run.

A perturbation depends only on (seed, SHA-256 of the image file, pixel shape, family, radius, trial), so the file and
the card bring it back bit for bit. Where either is gone or changed, `Gone` says so.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer import card as cards
from analyzer import images
from analyzer.errors import InputError
from analyzer.images.files import identifier
from analyzer.measures import isotropy, lipschitz
from analyzer.measures.quantities import by_image
from analyzer.measures.ranges import score_range
from analyzer.perturbations import Perturbations
from analyzer.store import ImageStatus, Run, scales_of


class Case(NamedTuple):
    """One perturbation: where it stands in the data set, and the extreme that it shows."""

    kind: str
    """"range" or "ratio"."""
    image: int
    radius: int
    trial: int
    layer: int | None
    value: float
    normalised: bool = True


class Rebuilt(NamedTuple):
    """Grey levels of shape (C, H, W), float32, C RGB or L: the clean image, and what was added to it."""

    clean: NDArray[np.float32]
    added: NDArray[np.float32]


class Gone(Exception):
    """The image cannot be rebuilt; the text says what is missing or changed."""


def cases(dataset: Any) -> list[Case]:
    """The worst of a run's measured images: largest isotropy range, largest Lipschitz ratio; fewer where undefined."""
    kept = np.flatnonzero(dataset["image_status"].values == ImageStatus.MEASURED)
    if not kept.size:
        return []
    measured = dataset.isel(image=kept)
    worst = (largest_range(measured), largest_ratio(measured))
    return [case._replace(image=int(kept[case.image])) for case in worst if case is not None]


def largest_range(dataset: Any) -> Case | None:
    """The trial with the lowest true-class score where the score's range over fresh noise is largest."""
    if not isotropy.SCORES.range.measured_in(dataset):
        return None
    ranges, lowest = by_image(dataset, isotropy.SCORES.range.reads, lambda s: (score_range(s), np.argmin(s, axis=-1)))
    largest = np.nan_to_num(ranges).max()
    if largest == 0:
        return None
    image, radius = np.argwhere(ranges == largest)[0]
    return Case("range", int(image), int(radius), int(lowest[image, radius]), None, float(largest))


def largest_ratio(dataset: Any) -> Case | None:
    """The perturbation with the largest L_x over all layers; the raw ratio where no range is known."""
    if not lipschitz.RAW.measured_in(dataset):
        return None
    scales = scales_of(dataset)
    normalised = bool(np.isfinite(scales.ratio).any())
    widths: dict[str, Any] = {"input_range": scales.h, "feature_range": scales.g} if normalised else {}

    def largest(moved: Any, added: Any) -> tuple[NDArray[Any], ...]:
        ratios = lipschitz.ratio(moved, added[..., None], **widths).reshape(len(moved), -1)
        ratios = np.where(np.isfinite(ratios), ratios, 0.0)
        return ratios.max(axis=-1), ratios.argmax(axis=-1)

    most, where = by_image(dataset, lipschitz.RAW.reads, largest)
    image = int(most.argmax())
    if most[image] == 0:
        return None
    shape = tuple(dataset.sizes[axis] for axis in ("radius", "trial", "layer"))
    radius, trial, layer = (int(k) for k in np.unravel_index(where[image], shape))
    return Case("ratio", image, radius, trial, layer, float(most[image]), normalised)


def read_card(run: Run) -> cards.Card:
    """The card that the run was made with. Raises Gone where it is not there or not the same."""
    path = Path(str(run.context.get("card", "")))
    if not path.is_file():
        raise Gone(f"the card {path} is not to be found from here")
    try:
        card = cards.read(path)
    except InputError as e:
        raise Gone(f"the card cannot be used: {e}") from e
    if not run.is_made_with(card):
        raise Gone(f"the card {path} has changed since the run")
    return card


def rebuild(run: Run, card: cards.Card, *, image: str, sha256: str, radius: float, trial: int) -> Rebuilt:
    """The clean image and what one trial of the noise family really added to it, clipped and rounded as in the run.

    image is its id in the run. Raises Gone where the file is not there or not the same.
    """
    identity = run.identity
    folder = Path(str(run.context.get("images", "")))
    file = _find(folder, image, card, labelled=identity.get("labels") is not None)
    try:
        pixels = images.read(file, card=card)
    except images.ImageError as e:
        raise Gone(f"{image}: {e}") from e
    if pixels.sha256 != sha256:
        raise Gone(f"{image} has changed since the run")
    drawn = Perturbations(
        seed=identity["seed"],
        sha256=sha256,
        shape=card.pixel_shape,
        family="noise",
        radius=radius,
        trials=identity["trials"],
        norm=identity["norm"],
    )
    words = drawn.words(range(trial, trial + 1))
    added = (words * drawn.scales(words).astype(np.float32)[:, None]).reshape(pixels.values.shape)
    perturbed = pixels.values + added
    if identity["clip"]:
        perturbed = np.clip(perturbed, 0, 255)
    if identity["round"]:
        perturbed = np.rint(perturbed)
    return Rebuilt(pixels.values, perturbed - pixels.values if identity["clip"] or identity["round"] else added)


def _find(folder: Path, image: str, card: cards.Card, *, labelled: bool) -> images.ImageFile:
    """The file of an image id. With a labels file the folder's own tables and names meant nothing to the run."""
    if not folder.exists():
        raise Gone(f"the image folder {folder} is not to be found from here")
    if not labelled or not folder.is_dir():  # an archive or a list
        try:
            files = {file.id: file for file in images.find(folder, card=card)}
        except InputError as e:
            raise Gone(f"the image folder cannot be used: {e}") from e
        if image in files:
            return files[image]
        raise Gone(f"{image} is no longer in {folder}")
    here = folder
    for part in image.split("/"):
        entries = here.iterdir() if here.is_dir() else iter(())
        there = next((entry for entry in entries if identifier(entry.name) == part), None)
        if there is None:
            raise Gone(f"{image} is no longer in {folder}")
        here = there
    return images.ImageFile(image, here, None)


def magnification(added: NDArray[np.float32]) -> int:
    """The whole number by which a difference is shown so that it just fits 0..255 around mid-grey, at least 1."""
    largest = float(np.abs(added).max())
    return max(1, int(127 / largest)) if largest > 0 else 1


def panels(rebuilt: Rebuilt) -> list[tuple[str, NDArray[np.uint8]]]:
    """Clean, perturbed and difference, each (H, W, 3) or (H, W), 0..255, for `plots.image_strip`."""
    factor = magnification(rebuilt.added)
    shown = {
        "clean": rebuilt.clean,
        "perturbed": rebuilt.clean + rebuilt.added,
        f"difference × {factor}": 127.5 + factor * rebuilt.added,
    }
    return [(title, _displayed(values)) for title, values in shown.items()]


def _displayed(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    bytes_ = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return bytes_[0] if len(bytes_) == 1 else bytes_.transpose(1, 2, 0)
