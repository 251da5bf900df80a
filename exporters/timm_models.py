# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "convnet-analyzer[cpu]",
#   "torch>=2.6",
#   "torchvision>=0.21",
#   "timm>=1.0.20",
#   "onnx>=1.17",
#   "onnxscript>=0.5",
#   "safetensors>=0.4",
#   "numpy>=1.26",
# ]
# [tool.uv.sources]
# convnet-analyzer = { path = "..", editable = true }
# ///
"""Exports any image classifier of timm by its name: timm_NAME.onnx and its card, from the model's pretrained_cfg.

    python exporters/timm_models.py resnet18.tv_in1k
    python exporters/timm_models.py convnext_tiny --weights convnext_tiny.safetensors
    python exporters/timm_models.py mobilenetv3_small_100 --weights none

The feature is what enters the classifier. The export is checked against PyTorch and is not written when they differ.
"""

import argparse
import functools
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _common import RANDOM, SCENES, arguments, batches, distinct, known, no_weights, publish, target
from _common import main as run_main
from _torch import Tapped, classes, exported, fill, outputs, settle, state_dict, torchvision
from torch import nn

from analyzer.card import INTERPOLATIONS
from analyzer.errors import InputError, UsageError

os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # whatever timm asks torch.load for
torchvision()  # before timm imports it

import timm  # noqa: E402
import timm.data  # noqa: E402


class Built(NamedTuple):
    network: nn.Module
    config: Mapping[str, Any]
    classifier: str
    weights: str
    labels: list[str] | None


def build(name: str, weights: str) -> Built:
    """The network with the weights that --weights asks for. Raises UsageError, InputError."""
    plain = timm.create_model(name, pretrained=False)
    config = dict(plain.pretrained_cfg)
    classifier = config.get("classifier")
    if not isinstance(classifier, str) or not config.get("num_classes"):
        raise UsageError(f"{name}: has no single classifier layer, so no feature before it; take another of timm's")
    labels = _labels(plain)
    if weights == "none":
        return Built(plain, config, classifier, RANDOM, labels)
    if weights == "pretrained":
        try:
            trained = timm.create_model(name, pretrained=True)
        except Exception as e:  # the hub's client raises what its HTTP library does
            raise no_weights(name, e) from e
        place = config.get("hf_hub_id") or config.get("url")
        return Built(trained, config, classifier, f"{place}, tag {config.get('tag')}", labels)
    path = Path(weights)
    state = state_dict(path)
    count = classes(state, classifier, plain.num_classes)
    network = timm.create_model(name, pretrained=False, num_classes=count)
    fill(network, state, path)
    return Built(network, config, classifier, f"file {path.name}", labels if labels and len(labels) == count else None)


def _labels(network: nn.Module) -> list[str] | None:
    """The class names of a network for a set of classes that timm knows: ImageNet and its parts."""
    subset = timm.data.infer_imagenet_subset(network)
    if subset is None:
        return None
    info = timm.data.ImageNetInfo(subset)
    return [info.index_to_description(i) for i in range(info.num_classes())]


def resize(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """timm's preparation in evaluation as the card's. Raises InputError where the card has no words for it."""
    _, height, width = config["input_size"]
    interpolation, mode, share = (config.get(key) for key in ("interpolation", "crop_mode", "crop_pct"))
    share, words = share or timm.data.DEFAULT_CROP_PCT, {"interpolation": interpolation}
    if interpolation in INTERPOLATIONS:
        if mode == "squash" and share == 1:
            return {"stretch": True, **words}
        if mode in (None, "center") and height == width:
            return {"shorter_side": math.floor(height / share), "crop": "centre", **words}
    raise InputError(
        f"{name}: pretrained_cfg asks for input_size {height} x {width}, crop_mode {mode}, crop_pct {share}, "
        f"interpolation {interpolation}, which a card cannot say; take another of timm's networks"
    )


def card(name: str, built: Built) -> dict[str, Any]:
    """The card's document, but for what `publish` fills in."""
    config = built.config
    channels, height, width = config["input_size"]
    if channels not in (1, 3):
        raise InputError(f"{name}: takes {channels} channels; a card knows RGB and grey")
    return {
        "schema": 1,
        "input": {
            "name": "input",
            "layout": "NCHW",
            "size": [height, width],
            "channels": "RGB" if channels == 3 else "L",
            "resize": resize(name, config),
            "mean": [round(255 * m, 6) for m in config["mean"]],
            "std": [round(255 * s, 6) for s in config["std"]],
        },
        "output": {"name": "logits", "kind": "logits", **({"labels": distinct(built.labels)} if built.labels else {})},
        "feature": {"name": "feature"},
        "source": {
            "framework": f"timm {timm.__version__}, torch {torch.__version__}",
            "architecture": config.get("architecture", name),
            "weights": built.weights,
            "licence": str(config.get("license") or "not stated by timm"),
        },
    }


def checked(name: str) -> str:
    """The name with its tag, as timm writes them. Raises UsageError with the near ones."""
    base, dot, tag = name.partition(".")
    base = known(base, timm.list_models())
    if not dot:
        return base
    return known(f"{base}.{tag}", timm.list_pretrained(f"{base}.*"))


def run(given: argparse.Namespace) -> tuple[Path, float]:
    name = checked(given.network)
    path = target("timm", name, given)
    torch.manual_seed(given.seed)
    built = build(name, given.weights)
    document = card(name, built)
    inputs = batches(document, seed=given.seed, photos=given.photos)
    if given.weights == "none":
        settle(built.network.eval(), inputs[SCENES]["input"])
    tapped = Tapped(built.network, built.classifier)
    model = exported(tapped, built.config["input_size"], feature="feature")
    return path, publish(model, document, path, batches=inputs, expected=functools.partial(outputs, tapped, "feature"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(
        "Export a network of timm, with or without a tag: resnet18, resnet18.tv_in1k, ...",
        weights="pretrained (the default: timm's own, downloaded), a file, or none for random ones",
        default="pretrained",
    )
    return run_main(parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
