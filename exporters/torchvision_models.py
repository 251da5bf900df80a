# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "convnet-analyzer[cpu]",
#   "torch>=2.6",
#   "torchvision>=0.21",
#   "onnx>=1.17",
#   "onnxscript>=0.5",
#   "safetensors>=0.4",
#   "numpy>=1.26",
# ]
# [tool.uv.sources]
# convnet-analyzer = { path = "..", editable = true }
# ///
"""Exports a network of torchvision with its trained weights: torchvision_NAME.onnx and its card.

    python exporters/torchvision_models.py alexnet
    python exporters/torchvision_models.py resnet50 --weights IMAGENET1K_V2
    python exporters/torchvision_models.py vgg16 --weights vgg16-397923af.pth       a file you have, no connection
    python exporters/torchvision_models.py resnet152 --weights none                 random weights

The default weights are torchvision's first ones, IMAGENET1K_V1: the later ones of the ResNets were trained with
softened labels and hardly ever reach the confidence of 0.99 that the paper's protocol asks for.
The export is checked against PyTorch and is not written when they differ.
"""

import argparse
import functools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _common import RANDOM, RESIDUAL, SCENES, arguments, batches, distinct, known, no_weights, publish, target
from _common import main as run_main
from _torch import Tapped, classes, exported, fill, outputs, settle, state_dict, torchvision
from torch import nn

from analyzer.errors import UsageError

tv = torchvision()
FIRST = "IMAGENET1K_V1"


class Head(NamedTuple):
    classifier: str  # the last layer; what enters it is the feature
    feature: str


_FULLY_CONNECTED, _POOLED = Head("classifier.6", "fc2"), Head("fc", "pool")
NETWORKS = {
    **dict.fromkeys(("alexnet", "vgg11", "vgg13", "vgg16", "vgg19"), _FULLY_CONNECTED),
    **dict.fromkeys(("googlenet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), _POOLED),
}


class Built(NamedTuple):
    network: nn.Module
    preset: Any  # torchvision's weights entry whose preprocessing and class names apply
    weights: str
    labels: bool


def presets(name: str) -> dict[str, Any]:
    """torchvision's trained weights of a network, those that classify, by name."""
    return {w.name: w for w in tv.models.get_model_weights(name) if w.meta.get("categories")}


def build(name: str, weights: str) -> Built:
    """The network with the weights that --weights asks for. Raises UsageError, InputError."""
    trained = presets(name)
    if weights == "none":
        return Built(_empty(name, 1000), trained[FIRST], RANDOM, True)
    if weights in trained:
        preset = trained[weights]
        try:
            state = preset.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as e:  # no connection; a file whose hash is not the published one
            raise no_weights(preset.url, e) from e
        path = Path(preset.url.rsplit("/", 1)[-1])
        said = f"{preset} from {preset.url}"
    else:
        if re.fullmatch(r"[A-Z0-9_]+", weights) and not Path(weights).exists():
            raise UsageError(f"--weights {weights}: {name} has {', '.join(trained)}; or give none or a file")
        preset, path = trained[FIRST], Path(weights)
        state = state_dict(path)
        said = f"file {path.name}"
    count = classes(state, NETWORKS[name].classifier, 1000)
    network = _empty(name, count)
    fill(network, state, path, ignored=r"aux[12]\.")
    return Built(network, preset, said, count == 1000)


def _empty(name: str, count: int) -> nn.Module:
    """The architecture with random weights, as torchvision's own trained weights need it."""
    options: dict[str, Any] = {"num_classes": count}
    if name == "googlenet":
        # Its trained weights expect another scale of the input, to which it converts ImageNet's by itself.
        options |= {"aux_logits": False, "init_weights": True, "transform_input": True}
    network = tv.models.get_model(name, weights=None, **options).eval()
    for block in network.modules():
        # Random residual branches as strong as what they are added to would amplify rounding in every block.
        if isinstance(block, tv.models.resnet.Bottleneck):
            nn.init.constant_(block.bn3.weight, RESIDUAL)
        elif isinstance(block, tv.models.resnet.BasicBlock):
            nn.init.constant_(block.bn2.weight, RESIDUAL)
    return network


def card(name: str, built: Built) -> dict[str, Any]:
    """The card's document, but for what `publish` fills in: the preprocessing is the weights' own."""
    head, steps = NETWORKS[name], built.preset.transforms()
    (side,), (size,) = steps.resize_size, steps.crop_size
    return {
        "schema": 1,
        "input": {
            "name": "input",
            "layout": "NCHW",
            "size": [size, size],
            "channels": "RGB",
            "resize": {"shorter_side": side, "crop": "centre", "interpolation": steps.interpolation.value},
            "mean": [round(255 * m, 6) for m in steps.mean],
            "std": [round(255 * s, 6) for s in steps.std],
        },
        "output": {
            "name": "logits",
            "kind": "logits",
            **({"labels": distinct(built.preset.meta["categories"])} if built.labels else {}),
        },
        "feature": {"name": head.feature},
        "source": {
            "framework": f"torchvision {tv.__version__}, torch {torch.__version__}",
            "architecture": name,
            "weights": built.weights,
            "licence": "BSD-3-Clause (code); the weights carry the terms of what they were trained on",
        },
    }


def run(given: argparse.Namespace) -> tuple[Path, float]:
    name = known(given.network, NETWORKS)
    path = target("torchvision", name, given)
    torch.manual_seed(given.seed)
    built = build(name, given.weights)
    document, head = card(name, built), NETWORKS[name]
    inputs = batches(document, seed=given.seed, photos=given.photos)
    if given.weights == "none":
        settle(built.network, inputs[SCENES]["input"])
    tapped = Tapped(built.network, head.classifier)
    model = exported(tapped, (3, *document["input"]["size"]), feature=head.feature)
    expected = functools.partial(outputs, tapped, head.feature)
    return path, publish(model, document, path, batches=inputs, expected=expected)


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(
        f"Export one of torchvision's networks: {', '.join(NETWORKS)}.",
        weights=f"an entry of torchvision ({FIRST} by default, downloaded), a file, or none for random ones",
        default=FIRST,
    )
    return run_main(parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
