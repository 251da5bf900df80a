"""Hugging Face: `preprocessor_config.json` of an image processor, `config.json` of a model."""

from collections.abc import Mapping
from typing import Any

from analyzer.drafting.found import Found, normalise, resampling, rounded


def of_processor(document: Mapping[str, Any], origin: str) -> Found:
    """`preprocessor_config.json` of an image processor: pixels times rescale_factor, minus image_mean, by image_std."""
    found = Found(origin)
    factor = float(document.get("rescale_factor", 1 / 255)) if document.get("do_rescale", True) else 1.0
    if document.get("do_normalize", True) and "image_mean" in document:
        normalise(found, document["image_mean"], document["image_std"], 1 / factor)
    else:
        found.input |= {"mean": [0.0] * 3, "std": [rounded(1 / factor)] * 3}
    found.input["channels"] = "BGR" if document.get("do_flip_channel_order") else "RGB"
    if document.get("do_resize", True):
        _resize(found, document)
    elif (size := height_width(document.get("size"))) is not None:
        found.input |= {"size": size, "resize": {"none": True}}
    return found


def _resize(found: Found, document: Mapping[str, Any]) -> None:
    interpolation = resampling(found, document.get("resample", 2))
    size, crop = document.get("size"), height_width(document.get("crop_size"))
    shortest = size.get("shortest_edge") if isinstance(size, dict) else None
    cropped = document.get("do_center_crop", False)
    if "ConvNext" in str(document.get("image_processor_type", document.get("feature_extractor_type", ""))):
        edge = int(shortest or (size if isinstance(size, int) else 0))
        if 0 < edge < 384:
            resize = {"crop_pct": float(document.get("crop_pct", 224 / 256)), "crop": "centre"}
        else:
            resize = {"stretch": True}
        found.input |= {"size": [edge, edge], "resize": {**resize, **interpolation}}
    elif cropped and crop is not None and (shortest or isinstance(size, int)):
        side = int(shortest or size)  # type: ignore[arg-type]
        found.input |= {"size": crop, "resize": {"shorter_side": side, "crop": "centre", **interpolation}}
    elif cropped and crop is not None and (through := height_width(size)) is not None:
        stretch: dict[str, Any] = {"stretch": True} if through == crop else {"stretch": through, "crop": "centre"}
        found.input |= {"size": crop, "resize": {**stretch, **interpolation}}
    elif (whole := height_width(size)) is not None:
        found.input |= {"size": whole, "resize": {"stretch": True, **interpolation}}
    else:
        found.notes.append(f"size {str(size)[:60]} is not understood: set input.size and input.resize")


def height_width(size: object) -> list[int] | None:
    """[height, width] of a whole number or of an object with both; else None."""
    if isinstance(size, int) and not isinstance(size, bool):
        return [size, size]
    if isinstance(size, Mapping) and {"height", "width"} <= size.keys():
        return [int(size["height"]), int(size["width"])]
    return None


def labels(id2label: object) -> list[str] | None:
    """Class names in the order of their indices; None where there are none, or only placeholders."""
    if not isinstance(id2label, Mapping) or not id2label:
        return None
    try:
        ordered = [str(id2label[key]) for key in sorted(id2label, key=int)]
    except (TypeError, ValueError):
        return None
    whole = sorted(map(int, id2label)) == list(range(len(id2label)))
    placeholders = all(label == f"LABEL_{k}" for k, label in enumerate(ordered))
    return ordered if whole and not placeholders and len(set(ordered)) == len(ordered) else None
