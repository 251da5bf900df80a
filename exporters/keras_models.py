# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "convnet-analyzer[cpu]",
#   "torch>=2.6",
#   "keras>=3.12",
#   "onnx>=1.17",
#   "onnxscript>=0.5",
#   "numpy>=1.26",
# ]
# [tool.uv.sources]
# convnet-analyzer = { path = "..", editable = true }
# ///
"""Exports a network of keras.applications, channels last: keras_NAME.onnx and its card.

    python exporters/keras_models.py MobileNetV2
    python exporters/keras_models.py VGG16 --weights vgg16.weights.h5
    python exporters/keras_models.py ResNet50 --weights none

Keras 3 on its PyTorch backend. The card's mean, std and channel order are read off the network's own
preprocess_input. The export is checked against Keras and is not written when they differ.
"""

import argparse
import contextlib
import inspect
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"  # whose exporter it is; has to be said before Keras is imported

import keras
import numpy as np
import onnx
import torch
from _common import (
    RANDOM,
    RESIDUAL,
    SCENES,
    arguments,
    batches,
    forget_origin,
    free_batch,
    known,
    no_weights,
    publish,
    rename_tensors,
    target,
)
from _common import main as run_main

from analyzer.errors import InputError

OPSET = 20
NETWORKS: dict[str, Callable[..., keras.Model]] = {
    name: build for name, build in vars(keras.applications).items() if name[0].isupper() and inspect.isfunction(build)
}


def build(name: str, weights: str) -> tuple[keras.Model, str]:
    """The network, whose output are logits, and what the card says of its weights. Raises UsageError, InputError."""
    plain = NETWORKS[name](weights=None, classifier_activation=None)
    options: dict[str, Any] = {"classifier_activation": None}
    if None in plain.input_shape[1:]:  # takes pictures of any size, and was trained on this one
        options["input_shape"] = (224, 224, 3)
        plain = NETWORKS[name](weights=None, **options)
    if weights == "none":
        return plain, RANDOM
    if weights == "imagenet":
        try:
            return NETWORKS[name](weights="imagenet", **options), "imagenet, of keras.applications"
        except Exception as e:  # Keras raises a plain Exception where a download fails
            raise no_weights(name, e) from e
    path = Path(weights)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; --weights takes imagenet, none or a .h5 file of weights")
    if path.suffix != ".h5":
        raise InputError(f"{path}: expected a .weights.h5 file, as model.save_weights writes: numbers only")
    try:
        plain.load_weights(path)
    except Exception as e:  # damaged bytes, or another network's: h5py and Keras raise nearly anything
        raise InputError(f"{path}: does not hold the weights of {name} ({' '.join(str(e).split()):.120})") from e
    return plain, f"file {path.name}"


def with_feature(network: keras.Model) -> keras.Model:
    """The network with a second output: what enters its last layer with weights, (batch, features)."""
    last = next(layer for layer in reversed(network.layers) if layer.weights)
    feature = last.input
    if len(feature.shape) > 2:
        feature = keras.layers.Flatten()(feature)
    return keras.Model(network.input, [network.output, feature], name=network.name)


def settle(network: keras.Model, batch: np.ndarray) -> None:
    """Set the batch statistics of a network with random weights to those of `batch`, as training would.

    Random residual branches as strong as what they are added to would amplify rounding in every block: those that
    end in a normalisation start weaker.
    """
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    made_by = {id(norm.output): norm for norm in norms}
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dropout) and id(layer.input) in made_by:
            made_by[id(layer.output)] = made_by[id(layer.input)]
        if isinstance(layer, keras.layers.Add):
            branches = [made_by[id(tensor)] for tensor in layer.input if id(tensor) in made_by]
            if len(branches) == 1 and branches[0].scale:
                branches[0].gamma.assign(keras.ops.full_like(branches[0].gamma, RESIDUAL))
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    with torch.no_grad():
        network(batch, training=True)
    for layer, momentum in zip(norms, before, strict=True):
        layer.momentum = momentum


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing on stdout: where PyTorch's exporter fails, its compiled part prints the graph there, 2,000 lines."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 (a device, not a path)
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def exported(tapped: keras.Model, *, feature: str) -> onnx.ModelProto:
    """The ONNX graph: `input` (batch, height, width, channels) -> `logits`, `feature`; any batch, weights inside."""
    outputs(tapped, feature, {"input": np.zeros((1, *tapped.input_shape[1:]), np.float32)})  # Keras wants it called
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch says of the exporter that Keras uses that there is a newer one
        path = Path(folder, "model.onnx")
        try:
            with silent():
                tapped.export(path, format="onnx", verbose=False, opset_version=OPSET)
        except Exception as e:  # what PyTorch's exporter does not know, it says in many ways
            said = " ".join(str(e).split())
            raise InputError(
                f"{tapped.name}: Keras cannot export this network ({type(e).__name__}: {said:.120})"
            ) from e
        model = onnx.load_model(path)
    names = [*(value.name for value in model.graph.input), *(value.name for value in model.graph.output)]
    rename_tensors(model, dict(zip(names, ("input", "logits", feature), strict=True)))
    free_batch(model)
    forget_origin(model)
    return model


def outputs(tapped: keras.Model, feature: str, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What Keras answers to `batch`, by the names of the exported graph."""
    with torch.inference_mode():
        logits, entered = tapped(batch["input"], training=False)
    return {"logits": logits.cpu().numpy(), feature: entered.cpu().numpy()}


def preparation(preprocess: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """The card's channels, mean and std of a `preprocess_input`, which is affine: its answers to black and red.

    Raises InputError where it is no per-channel scaling of RGB or BGR.
    """
    probes = np.zeros((5, 1, 1, 3), np.float64)
    probes[1, ..., 0] = 255.0  # red
    probes[2] = 255.0
    probes[3:] = np.random.default_rng(0).uniform(0, 255, (2, 1, 1, 3))
    pixels, answers = probes[:, 0, 0], np.asarray(preprocess(probes.copy()), np.float64)[:, 0, 0]
    channels = "RGB" if answers[1, 0] != answers[0, 0] else "BGR"
    ordered = pixels if channels == "RGB" else pixels[:, ::-1]
    std = 255.0 / (answers[2] - answers[0])
    mean = -answers[0] * std
    if not np.allclose((ordered - mean) / std, answers, atol=1e-4):
        raise InputError("its preprocess_input is not (pixel - mean) / std of RGB or BGR, which is all a card can say")
    return {
        "channels": channels,
        "mean": [round(float(m), 4) + 0.0 for m in mean],
        "std": [round(float(s), 4) for s in std],
    }


def card(name: str, network: keras.Model, weights: str, feature: str) -> dict[str, Any]:
    """The card's document, but for what `publish` fills in."""
    module = sys.modules[NETWORKS[name].__module__]  # where its preprocess_input is too
    _, height, width, _ = network.input_shape
    return {
        "schema": 1,
        "input": {
            "name": "input",
            "layout": "NHWC",
            "size": [height, width],
            "resize": {"shorter_side": round(height / 0.875), "crop": "centre", "interpolation": "bilinear"},
            **preparation(module.preprocess_input),
        },
        "output": {"name": "logits", "kind": "logits"},
        "feature": {"name": feature},
        "source": {
            "framework": f"keras {keras.__version__} on torch {torch.__version__}",
            "architecture": name,
            "weights": weights,
            "licence": "Apache-2.0 (code); the weights carry the terms of what they were trained on",
        },
    }


def export(
    network: keras.Model, document: dict[str, Any], path: Path, *, seed: int, photos: Path | None = None
) -> float:
    """Export, verify and write a Keras classifier that gives logits; returns the difference."""
    tapped, feature = with_feature(network), document["feature"]["name"]
    return publish(
        exported(tapped, feature=feature),
        document,
        path,
        batches=batches(document, seed=seed, photos=photos),
        expected=lambda batch: outputs(tapped, feature, batch),
    )


def run(given: argparse.Namespace) -> tuple[Path, float]:
    name = known(given.network, NETWORKS)
    path = target("keras", name, given)
    keras.utils.set_random_seed(given.seed)
    network, said = build(name, given.weights)
    document = card(name, network, said, "fc2" if name.startswith("VGG") else "pool")
    if given.weights == "none":
        settle(network, batches(document, seed=given.seed)[SCENES]["input"])
    return path, export(network, document, path, seed=given.seed, photos=given.photos)


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments(
        "Export a network of keras.applications, by its name there: ResNet50, MobileNetV2, ...",
        weights="imagenet (the default: Keras' own, downloaded), a .weights.h5 file, or none for random ones",
        default="imagenet",
    )
    return run_main(parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
