"""What other tools write about preprocessing, as fields of a card: pixels are 0..255 here, whatever they are there."""

import ast
import math
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from analyzer.drafting import huggingface
from analyzer.drafting.found import Found, normalise, numbers, resampling
from analyzer.errors import InputError

FILES = ("preprocessor_config.json", "config.json", "transforms.json")
"""Beside a model, in the order in which they are asked."""
KERAS = ("caffe", "tf", "torch")
_IMAGENET = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def of_document(document: Mapping[str, Any], origin: str) -> Found | None:
    """What a JSON document says: a card, or one of Hugging Face, timm or torchvision; None where it is neither."""
    if document.get("schema") == 1 and isinstance(document.get("input"), dict):
        return _card(document, origin)
    if {"image_mean", "do_resize", "do_normalize", "image_processor_type"} & document.keys():
        return huggingface.of_processor(document, origin)
    if isinstance(document.get("pretrained_cfg"), dict) or {"input_size", "crop_pct"} <= document.keys():
        return _timm(document, origin)
    if {"resize_size", "crop_size"} & document.keys() and "mean" in document:
        return _torchvision(document, origin)
    labels = huggingface.labels(document.get("id2label"))
    return Found(origin, output={"labels": labels}) if labels else None


def _card(document: Mapping[str, Any], origin: str) -> Found:
    inside = {k: v for k, v in document["input"].items() if k != "name"}
    labels = document.get("output", {}).get("labels")
    return Found(origin, inside, {} if labels is None else {"labels": labels})


# --- timm, torchvision, Keras -----------------------------------------------------------------------------------------


def _timm(document: Mapping[str, Any], origin: str) -> Found:
    """timm's `config.json` (or its pretrained_cfg alone): mean and std in 0..1, resize to size / crop_pct, then cut."""
    settings = document.get("pretrained_cfg")
    settings = settings if isinstance(settings, dict) else document
    found = Found(origin)
    if "mean" in settings and "std" in settings:
        normalise(found, settings["mean"], settings["std"], 255.0)
    channels, height, width = (*settings.get("input_size", ()), 0, 0, 0)[:3]
    if channels in (1, 3) and height and width:
        found.input |= {"size": [height, width], "channels": "L" if channels == 1 else "RGB"}
    interpolation = resampling(found, settings.get("interpolation", "bicubic"))
    kept, mode = float(settings.get("crop_pct") or 0.875), settings.get("crop_mode") or "center"
    if mode == "center":
        found.input["resize"] = {"crop_pct": kept, "crop": "centre", **interpolation}
    elif mode == "squash" and height and width:
        through = [math.floor(height / kept), math.floor(width / kept)]
        stretch: dict[str, Any] = {"stretch": through, "crop": "centre"} if kept < 1 else {"stretch": True}
        found.input["resize"] = {**stretch, **interpolation}
    else:
        found.notes.append(f"crop_mode {mode!r:.40} is not known here: set input.resize")
    labels = document.get("label_names")
    if isinstance(labels, list) and len(set(map(str, labels))) == len(labels):
        found.output["labels"] = [str(label) for label in labels]
    return found


def _torchvision(document: Mapping[str, Any], origin: str) -> Found:
    """torchvision's ImageClassification as JSON: resize_size, crop_size, mean, std, interpolation."""
    found = Found(origin)
    normalise(found, document["mean"], document["std"], 255.0)
    interpolation = resampling(found, str(document.get("interpolation", "bilinear")).rpartition(".")[2].lower())
    crop, side = (_sides(document.get(key)) for key in ("crop_size", "resize_size"))
    found.input["channels"] = "RGB"
    if crop is not None:
        found.input["size"] = crop
    if side is not None:
        one = side[0] if side[0] == side[1] else None
        resize = {"shorter_side": one} if one is not None else {"stretch": side}
        found.input["resize"] = {**resize, "crop": "centre", **interpolation}
    if document.get("antialias") is False and interpolation == {"interpolation": "bilinear"}:
        found.input.get("resize", {})["antialias"] = False
    return found


def _sides(value: object) -> list[int] | None:
    if isinstance(value, list) and value and all(isinstance(v, int) for v in value):
        return [value[0], value[-1]]
    return huggingface.height_width(value)


def of_keras(mode: str) -> Found:
    """`keras.applications.imagenet_utils.preprocess_input` of one mode."""
    found = Found(f"Keras mode {mode}", notes=["resize and its interpolation are not part of the mode"])
    if mode == "caffe":
        found.input |= {"channels": "BGR", "mean": [103.939, 116.779, 123.68], "std": [1.0] * 3}
    elif mode == "tf":
        found.input |= {"channels": "RGB", "mean": [127.5] * 3, "std": [127.5] * 3}
    else:
        found.input |= {"channels": "RGB", "mean": _IMAGENET[0], "std": _IMAGENET[1]}
    return found


# --- metadata inside the file -----------------------------------------------------------------------------------------


def of_metadata(properties: Mapping[str, str]) -> Iterator[Found]:
    """What an ONNX file's metadata_props say."""
    if _of_ultralytics(properties):
        yield _ultralytics(properties)
    if any(key.startswith("Image.") for key in properties):
        yield _image_metadata(properties)
    if any(key.startswith("model_info") for key in properties):
        yield _model_info({key.split()[-1]: value for key, value in properties.items()}, "metadata of the ONNX file")


def classifies(properties: Mapping[str, str]) -> bool:
    """Whether a file's metadata leave it open that it is a classifier."""
    return not _of_ultralytics(properties) or properties["task"] == "classify"


def _of_ultralytics(properties: Mapping[str, str]) -> bool:
    return "task" in properties and ("imgsz" in properties or "names" in properties)


def _ultralytics(properties: Mapping[str, str]) -> Found:
    task = properties["task"]
    found = Found("Ultralytics metadata of the ONNX file")
    if task != "classify":
        found.notes.append(f"its task is {task!r:.40}: it has no class scores of an image")
    found.input |= {"channels": "RGB", "mean": [0.0] * 3, "std": [255.0] * 3}
    size = _sides(_literal(properties.get("imgsz", "")))
    if size is not None:
        resize = {"shorter_side": size[0], "crop": "centre"} if size[0] == size[1] else {"stretch": True}
        found.input |= {"size": size, "resize": {**resize, "interpolation": "bilinear"}}
    labels = huggingface.labels(_literal(properties.get("names", "")))
    if labels and task == "classify":
        found.output["labels"] = labels
    return found


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


_RANGES = {
    "NominalRange_0_255": (0.0, 1.0),
    "Normalized_0_1": (0.0, 255.0),
    "Normalized_1_1": (127.5, 127.5),
}
_FORMATS = {"Bgr8": "BGR", "Rgb8": "RGB", "Gray8": "L"}


def _image_metadata(properties: Mapping[str, str]) -> Found:
    """ONNX's own image metadata: pixel format, nominal range."""
    found = Found("image metadata of the ONNX file")
    given, nominal = properties.get("Image.BitmapPixelFormat"), properties.get("Image.NominalPixelRange")
    if given in _FORMATS:
        found.input["channels"] = _FORMATS[given]
    elif given is not None:
        found.notes.append(f"Image.BitmapPixelFormat {given!r:.40} is not known here: set input.channels")
    if nominal in _RANGES:
        count = 1 if given == "Gray8" else 3
        found.input |= {"mean": [_RANGES[nominal][0]] * count, "std": [_RANGES[nominal][1]] * count}
    elif nominal is not None:
        found.notes.append(f"Image.NominalPixelRange {nominal!r:.40} is not known here: set input.mean and input.std")
    return found


def of_openvino(text: str, origin: str) -> list[Found]:
    """The rt_info of an OpenVINO model; empty where it has none. No entity of the document is resolved."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(f"{origin}: an XML document that declares entities is not read")
    try:
        info = ElementTree.fromstring(text).find("rt_info/model_info")
    except ElementTree.ParseError as e:
        raise InputError(f"{origin}: cannot be read as XML: {e}") from e
    if info is None:
        return []
    return [_model_info({item.tag: item.get("value", "") for item in info}, f"rt_info of {origin}")]


def _model_info(values: Mapping[str, str], origin: str) -> Found:
    """OpenVINO's Model API: mean_values, scale_values, reverse_input_channels, resize_type, labels."""
    found = Found(origin)
    mean, scale = (numbers(values.get(key, "")) for key in ("mean_values", "scale_values"))
    if mean or scale:
        count = len(mean or scale)
        found.input |= {"mean": mean or [0.0] * count, "std": scale or [1.0] * count}
    reverse = values.get("reverse_input_channels", "").lower()
    if reverse in ("true", "yes", "1", "false", "no", "0"):
        # The Model API reads images as BGR.
        found.input["channels"] = "RGB" if reverse in ("true", "yes", "1") else "BGR"
    kind = values.get("resize_type", "")
    known: dict[str, dict[str, Any]] = {
        "standard": {"stretch": True, "interpolation": "bilinear", "antialias": False},
        "crop": {"crop_pct": 1.0, "crop": "centre", "interpolation": "bilinear", "antialias": False},
        "fit_to_window_letterbox": {
            "letterbox": True,
            "pad": float((numbers(values.get("pad_value", "0")) or [0.0])[0]),
            "interpolation": "bilinear",
            "antialias": False,
        },
    }
    if kind in known:
        found.input["resize"] = known[kind]
    elif kind:
        found.notes.append(f"resize_type {kind!r:.40} is not known here: set input.resize")
    labels = values.get("labels", "").split()
    if labels and len(set(labels)) == len(labels):
        found.output["labels"] = labels
    return found
