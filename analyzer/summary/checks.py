"""What was checked of a network before it was measured, in sentences."""

from collections.abc import Iterator, Mapping
from typing import Any

from analyzer.card import EMBEDDING
from analyzer.text import short


def checked(checks: Mapping[str, Any], kind: str = "") -> Iterator[str]:
    """What is as it should be. kind: of the scores."""
    fidelity, batches = checks["fidelity"], checks["batches"]
    said = []
    if (apart := fidelity["largest"]) is not None:
        floor = fidelity["noise_floor"]
        beside = f" ({short(apart / floor, '.2g')} noise floors)" if floor else ""
        by = f"differs by {short(apart, '.2g')}{_unit(kind)}{beside} from" if apart else "gives exactly"
        said.append(f"the file by itself {by} what is measured")
    elif not fidelity["why_not"]:
        said.append("the file by itself, whose output is too coarse for more, predicts the same classes")
    if batches["sizes"] and not batches["faults"]:
        sizes = ", ".join(map(str, batches["sizes"]))
        said.append(f"every place of batches of {sizes} gives what the image alone gives")
    if said and not differs(checks):
        yield f"Checked on {_images(fidelity['images'])}: {'; '.join(said)}."


def faults(checks: Mapping[str, Any], batch_size: int, kind: str = "") -> Iterator[str]:
    """What is not, or could not be checked. batch_size: of the run. kind: of the scores."""
    fidelity, batches = checks["fidelity"], checks["batches"]
    if fidelity["why_not"]:
        yield f"Not compared with the file by itself: {fidelity['why_not']}."
    if differs(checks):
        apart, floor = fidelity["largest"], fidelity["noise_floor"]
        by = f"{short(apart, '.2g')}{_unit(kind)}" if apart is not None else "more than its output resolves"
        floors = f" ({short(apart / floor, '.2g')} noise floors)" if apart is not None and floor else ""
        other = f", and {_images(fidelity['other_class'])} get another class" if fidelity["other_class"] else ""
        yield (
            f"The file by itself differs from what is measured by {by}{floors} on {_images(fidelity['images'])}"
            f"{other}: these numbers are of the rebuilt graph, not quite of the deployed one."
        )
    if batches["faults"]:
        first, largest = batches["first"], batches["largest"]
        by = f", by up to {largest:.2g} of the largest value" if largest is not None and largest < 1e300 else ""
        number = "one" if batch_size == 1 else str(batch_size)
        yield (
            f"Batches: at {batches['faults']} of {batches['places']} places in batches of "
            f"{', '.join(map(str, batches['sizes']))} a row is not what its image alone gives{by}; first image "
            f"{first['image'] + 1} of those tried, at place {first['position'] + 1} of {first['size']}. Images were "
            f"measured {number} at a time; in other batches, a deployment gets other results."
        )
    if "stopped" in batches:
        yield f"Batches were not checked to the end: {batches['stopped']}."


def differs(checks: Mapping[str, Any]) -> bool:
    """Whether the file by itself is not what was measured."""
    return bool(checks["fidelity"]["differs"])


def _unit(kind: str) -> str:
    return " in a number of the embedding" if kind == EMBEDDING else " nat"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
