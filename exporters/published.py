# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "convnet-analyzer[cpu]",
#   "torch>=2.6",
#   "onnx>=1.17",
#   "onnxscript>=0.5",
#   "safetensors>=0.4",
#   "numpy>=1.26",
# ]
# [tool.uv.sources]
# convnet-analyzer = { path = "..", editable = true }
# ///
"""Exports AlexNet and GoogLeNet as their papers define them, with local response normalisation: published_NAME.onnx.

    python exporters/published.py alexnet2012                          random weights
    python exporters/published.py googlenet2014 --weights mine.pth     a state_dict of the module below

alexnet2012   Krizhevsky, Sutskever, Hinton, NIPS 2012: two groups in conv2, conv4 and conv5, 60,965,224 parameters
googlenet2014 Szegedy et al., CVPR 2015, table 1, without the two side classifiers: 6,998,552 parameters

Nobody publishes weights of these in a format that can be read without running code, so the default is random ones.
Trained ones are in the ONNX Model Zoo's bvlcalexnet and googlenet, whose cards are in models/zoo.
The export is checked against PyTorch and is not written when they differ.
"""

import argparse
import functools
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _common import RANDOM, arguments, batches, known, publish, target
from _common import main as run_main
from _torch import Tapped, classes, exported, fill, outputs, state_dict
from onnxscript import opset20 as op
from torch import nn

MEAN = (122.7, 116.7, 104.0)  # of ImageNet's training pixels, red, green, blue


# Local response normalisation, as one operator of the exported graph instead of PyTorch's dozen.


@torch.library.custom_op("convnet_exporters::lrn", mutates_args=())
def lrn(tensor: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
    """x / (k + alpha * mean of x^2 over `size` channels)^beta: ONNX's LRN, with bias = k."""
    return nn.functional.local_response_norm(tensor, size, alpha, beta, k)


@lrn.register_fake
def _(tensor: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
    return torch.empty_like(tensor)


def _onnx_lrn(tensor: Any, size: int, alpha: float, beta: float, k: float) -> Any:
    return op.LRN(tensor, alpha=alpha, beta=beta, bias=k, size=size)


TRANSLATIONS = {torch.ops.convnet_exporters.lrn.default: _onnx_lrn}


class LocalResponseNorm(nn.Module):
    """Section 3.3 of the AlexNet paper: x / (2 + 1e-4 * sum of x^2 over 5 neighbouring channels)^0.75."""

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        # The paper's alpha multiplies the sum, the operator's the mean.
        normalised: torch.Tensor = lrn(tensor, 5, 5 * 1e-4, 0.75, 2.0)
        return normalised


# The networks.


def alexnet2012(classes: int = 1000) -> nn.Sequential:
    """(image, 3, 227, 227) -> (image, classes). The paper writes 224, which its own 55 x 55 maps contradict."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 96, 11, stride=4),
            relu1=nn.ReLU(),
            norm1=LocalResponseNorm(),
            pool1=nn.MaxPool2d(3, 2),
            conv2=nn.Conv2d(96, 256, 5, padding=2, groups=2),
            relu2=nn.ReLU(),
            norm2=LocalResponseNorm(),
            pool2=nn.MaxPool2d(3, 2),
            conv3=nn.Conv2d(256, 384, 3, padding=1),
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(384, 384, 3, padding=1, groups=2),
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(384, 256, 3, padding=1, groups=2),
            relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(3, 2),
            flat=nn.Flatten(),
            fc6=nn.Linear(256 * 6 * 6, 4096),
            relu6=nn.ReLU(),
            drop6=nn.Dropout(0.5),
            fc7=nn.Linear(4096, 4096),
            relu7=nn.ReLU(),
            drop7=nn.Dropout(0.5),
            fc8=nn.Linear(4096, classes),
        )
    )


def _convolution(channels: int, maps: int, side: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(channels, maps, side, padding=side // 2), relu=nn.ReLU()))


class Inception(nn.Module):
    """One row of table 1: maps of 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5, and of the projection after pooling."""

    def __init__(
        self, channels: int, one: int, reduce3: int, three: int, reduce5: int, five: int, project: int
    ) -> None:
        super().__init__()
        self.one = _convolution(channels, one, 1)
        self.three = nn.Sequential(
            OrderedDict(reduce=_convolution(channels, reduce3, 1), wide=_convolution(reduce3, three, 3))
        )
        self.five = nn.Sequential(
            OrderedDict(reduce=_convolution(channels, reduce5, 1), wide=_convolution(reduce5, five, 5))
        )
        self.pooled = nn.Sequential(
            OrderedDict(pool=nn.MaxPool2d(3, 1, padding=1), project=_convolution(channels, project, 1))
        )

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(tensor), self.three(tensor), self.five(tensor), self.pooled(tensor)], 1)


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def googlenet2014(classes: int = 1000) -> nn.Sequential:
    """(image, 3, 224, 224) -> (image, classes)."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 64, 7, stride=2, padding=3),
            relu1=nn.ReLU(),
            pool1=_pool(),
            norm1=LocalResponseNorm(),
            conv2_reduce=_convolution(64, 64, 1),
            conv2=_convolution(64, 192, 3),
            norm2=LocalResponseNorm(),
            pool2=_pool(),
            inception_3a=Inception(192, 64, 96, 128, 16, 32, 32),
            inception_3b=Inception(256, 128, 128, 192, 32, 96, 64),
            pool3=_pool(),
            inception_4a=Inception(480, 192, 96, 208, 16, 48, 64),
            inception_4b=Inception(512, 160, 112, 224, 24, 64, 64),
            inception_4c=Inception(512, 128, 128, 256, 24, 64, 64),
            inception_4d=Inception(512, 112, 144, 288, 32, 64, 64),
            inception_4e=Inception(528, 256, 160, 320, 32, 128, 128),
            pool4=_pool(),
            inception_5a=Inception(832, 256, 160, 320, 32, 128, 128),
            inception_5b=Inception(832, 384, 192, 384, 48, 128, 128),
            pool=nn.AvgPool2d(7),
            flat=nn.Flatten(),
            drop=nn.Dropout(0.4),
            classifier=nn.Linear(1024, classes),
        )
    )


class Entry(NamedTuple):
    build: Callable[[int], nn.Sequential]
    side: int
    classifier: str
    feature: str
    paper: str


NETWORKS = {
    "alexnet2012": Entry(alexnet2012, 227, "fc8", "fc2", "Krizhevsky, Sutskever, Hinton, NIPS 2012"),
    "googlenet2014": Entry(googlenet2014, 224, "classifier", "pool", "Szegedy et al., CVPR 2015, arXiv 1409.4842"),
}


def initialise(network: nn.Module) -> None:
    """He's normal weights and zero biases, which keep a signal's size from layer to layer; a hundredth of the input's.

    The papers' own, Gaussians of one width, leave next to nothing of the image in the outputs until trained.
    """
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in convolutions:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    with torch.no_grad():
        convolutions[0].weight.div_(100)  # pixels reach 150 and more; activations near 1 suit the normalisation


def card(name: str, weights: str) -> dict[str, Any]:
    """The card's document, but for what `publish` fills in."""
    entry = NETWORKS[name]
    return {
        "schema": 1,
        "input": {
            "name": "input",
            "layout": "NCHW",
            "size": [entry.side, entry.side],
            "channels": "RGB",
            "resize": {"shorter_side": 256, "crop": "centre", "interpolation": "bilinear"},
            "mean": list(MEAN),
            "std": [1.0, 1.0, 1.0],
        },
        "output": {"name": "logits", "kind": "logits"},
        "feature": {"name": entry.feature},
        "source": {
            "framework": f"torch {torch.__version__}",
            "architecture": f"{name}: {entry.paper}",
            "weights": weights,
            "licence": "MIT",
        },
    }


def run(given: argparse.Namespace) -> tuple[Path, float]:
    name = known(given.network, NETWORKS)
    entry, path = NETWORKS[name], target("published", name, given)
    torch.manual_seed(given.seed)
    if given.weights == "none":
        network, said = entry.build(1000), RANDOM
        initialise(network)
    else:
        source = Path(given.weights)
        state, said = state_dict(source), f"file {source.name}"
        network = entry.build(classes(state, entry.classifier, 1000))
        fill(network, state, source)
    document = card(name, said)
    tapped = Tapped(network, entry.classifier)
    shape = (3, entry.side, entry.side)
    model = exported(tapped, shape, feature=entry.feature, custom_translation_table=TRANSLATIONS)
    inputs = batches(document, seed=given.seed, photos=given.photos)
    return path, publish(
        model, document, path, batches=inputs, expected=functools.partial(outputs, tapped, entry.feature)
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(
        "Export AlexNet (alexnet2012) or GoogLeNet (googlenet2014) as published, with their normalisation.",
        weights="a file with the weights of this script's module, or none for random ones (the default)",
        default="none",
    )
    return run_main(parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
