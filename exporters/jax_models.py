# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "convnet-analyzer[cpu]",
#   "jax>=0.7",
#   "flax>=0.11",
#   "jax2onnx>=0.12",
#   "onnx>=1.17",
#   "safetensors>=0.4",
#   "numpy>=1.26",
# ]
# [tool.uv.sources]
# convnet-analyzer = { path = "..", editable = true }
# ///
"""Exports a residual network written in Flax (NNX), channels last, through jax2onnx: jax_NAME.onnx and its card.

    python exporters/jax_models.py resnet18                                random weights
    python exporters/jax_models.py resnet50 --weights mine.safetensors     named as `names` below lists them

`export` does the same for any NNX module that returns (logits, feature). jax2onnx 0.17 replaces functions while it
traces: call nnx.max_pool with keyword arguments, and pad before it, not in it. The export is checked against JAX and
is not written when they differ.
"""

import argparse
import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax2onnx
import numpy as np
import onnx
from _common import RANDOM, RESIDUAL, SCENES, arguments, batches, forget_origin, free_batch, known, publish, target
from _common import main as run_main
from flax import nnx

from analyzer.errors import InputError

OPSET = 21
SIDE = 224


class Unit(nnx.Module):
    """Convolution without bias, then batch normalisation."""

    def __init__(self, channels: int, maps: int, side: int, stride: int, rngs: nnx.Rngs, scale: float = 1.0) -> None:
        pad = ((side // 2, side // 2),) * 2
        self.conv = nnx.Conv(
            channels, maps, (side, side), strides=(stride, stride), padding=pad, use_bias=False, rngs=rngs
        )
        init = nnx.initializers.constant(scale)
        self.norm = nnx.BatchNorm(maps, momentum=0.9, epsilon=1e-5, scale_init=init, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(self.conv(x))


class Block(nnx.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3 and 1x1 where `widen` is 4."""

    def __init__(self, channels: int, maps: int, stride: int, widen: int, rngs: nnx.Rngs) -> None:
        wide = maps * widen
        if widen == 1:
            shapes = [(channels, maps, 3, stride), (maps, maps, 3, 1)]
        else:
            shapes = [(channels, maps, 1, 1), (maps, maps, 3, stride), (maps, wide, 1, 1)]
        # Random residual branches as strong as what they are added to would amplify rounding in every block.
        *inner, last = shapes
        self.units = nnx.List([*(Unit(*shape, rngs) for shape in inner), Unit(*last, rngs, scale=RESIDUAL)])
        same = stride == 1 and channels == wide
        self.shortcut = nnx.List([] if same else [Unit(channels, wide, 1, stride, rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for unit in self.units[:-1]:
            y = nnx.relu(unit(y))
        y = self.units[-1](y)
        for unit in self.shortcut:
            x = unit(x)
        return nnx.relu(x + y)


class ResNet(nnx.Module):
    """He et al., CVPR 2016, table 1. (image, height, width, 3) -> (image, classes), (image, features)."""

    def __init__(self, depths: Sequence[int], widen: int, rngs: nnx.Rngs, classes: int = 1000) -> None:
        self.stem = Unit(3, 64, 7, 2, rngs)
        blocks, channels = [], 64
        for stage, depth in enumerate(depths):
            for i in range(depth):
                maps, stride = 64 * 2**stage, 2 if stage and not i else 1
                blocks.append(Block(channels, maps, stride, widen, rngs))
                channels = maps * widen
        self.blocks = nnx.List(blocks)
        self.fc = nnx.Linear(channels, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = nnx.relu(self.stem(x))
        # jax2onnx 0.17 forgets a pooling's explicit padding; zeros do, since nothing is below them here.
        x = jax.numpy.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = nnx.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding="VALID")
        for block in self.blocks:
            x = block(x)
        feature = x.mean(axis=(1, 2))
        return self.fc(feature), feature


NETWORKS = {
    "resnet18": ((2, 2, 2, 2), 1),
    "resnet34": ((3, 4, 6, 3), 1),
    "resnet50": ((3, 4, 6, 3), 4),
    "resnet101": ((3, 4, 23, 3), 4),
    "resnet152": ((3, 8, 36, 3), 4),
}


def names(network: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Every array of a network by its dotted name, e.g. blocks.0.units.1.conv.kernel, with its shape."""
    state = nnx.state(network, (nnx.Param, nnx.BatchStat))
    return {".".join(map(str, path)): tuple(leaf.shape) for path, leaf in nnx.to_flat_state(state)}


def fill(network: nnx.Module, path: Path) -> None:
    """Set every array from a safetensors file with the names and shapes of `names`. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; --weights takes none or a .safetensors file")
    try:
        from safetensors.numpy import load_file

        found = load_file(path)
    except Exception as e:  # damaged bytes make it raise nearly anything
        said = " ".join(str(e).split())
        raise InputError(f"{path}: cannot be read as safetensors ({said:.120})") from e
    wanted = names(network)
    for name, shape in wanted.items():
        if name not in found or found[name].shape != shape:
            there = f"with shape {found[name].shape}" if name in found else "not at all"
            raise InputError(f"{path}: expected {name} with shape {shape}, which it has {there}")
    state = nnx.state(network, (nnx.Param, nnx.BatchStat))
    filled = [
        (p, leaf.replace(jax.numpy.asarray(found[".".join(map(str, p))]))) for p, leaf in nnx.to_flat_state(state)
    ]
    nnx.update(network, nnx.from_flat_state(filled))


def settle(network: nnx.Module, batch: np.ndarray) -> None:
    """Set the batch statistics of a network with random weights to those of `batch`, as training would."""
    norms = [m for _, m in nnx.iter_modules(network) if isinstance(m, nnx.BatchNorm)]
    before = [norm.momentum for norm in norms]
    network.train()
    for norm in norms:
        norm.momentum = 0.0
    network(jax.numpy.asarray(batch))
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    network.eval()


def exported(network: nnx.Module, shape: Sequence[int], *, feature: str) -> onnx.ModelProto:
    """The ONNX graph in evaluation: `input` (batch, *shape) -> `logits`, `feature`; any batch, weights inside."""
    network.eval()
    model: onnx.ModelProto = jax2onnx.to_onnx(
        network, [("batch", *shape)], opset=OPSET, input_names=["input"], output_names=["logits", feature]
    )
    # It moves transposes about and leaves the shapes of before; they follow from the operators anyway.
    del model.graph.value_info[:]
    free_batch(model)
    forget_origin(model)
    return model


def outputs(network: nnx.Module, feature: str, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What JAX answers to `batch`, by the names of the exported graph."""
    network.eval()
    logits, entered = network(jax.numpy.asarray(batch["input"]))
    return {"logits": np.asarray(logits), feature: np.asarray(entered)}


def export(
    network: nnx.Module, document: dict[str, Any], path: Path, *, seed: int, photos: Path | None = None
) -> float:
    """Export, verify and write an NNX module that returns (logits, feature); returns the difference."""
    feature = document["feature"]["name"]
    return publish(
        exported(network, (*document["input"]["size"], 3), feature=feature),
        document,
        path,
        batches=batches(document, seed=seed, photos=photos),
        expected=lambda batch: outputs(network, feature, batch),
    )


def card(name: str, weights: str) -> dict[str, Any]:
    """The card's document, but for what `publish` fills in."""
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("flax", "jax", "jax2onnx"))
    return {
        "schema": 1,
        "input": {
            "name": "input",
            "layout": "NHWC",
            "size": [SIDE, SIDE],
            "channels": "RGB",
            "resize": {"shorter_side": 256, "crop": "centre", "interpolation": "bilinear"},
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
        },
        "output": {"name": "logits", "kind": "logits"},
        "feature": {"name": "pool"},
        "source": {"framework": versions, "architecture": name, "weights": weights, "licence": "MIT"},
    }


def run(given: argparse.Namespace) -> tuple[Path, float]:
    name = known(given.network, NETWORKS)
    path = target("jax", name, given)
    network = ResNet(*NETWORKS[name], nnx.Rngs(given.seed))
    if given.weights == "none":
        document = card(name, RANDOM)
        settle(network, batches(document, seed=given.seed)[SCENES]["input"])
    else:
        document = card(name, f"file {Path(given.weights).name}")
        fill(network, Path(given.weights))
    return path, export(network, document, path, seed=given.seed, photos=given.photos)


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(
        f"Export a residual network in Flax: {', '.join(NETWORKS)}.",
        weights="a .safetensors file, or none for random ones (the default)",
        default="none",
    )
    return run_main(parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
