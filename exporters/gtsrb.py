# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "convnet-analyzer[cpu]",
#   "torch>=2.6",
#   "onnx>=1.17",
#   "onnxscript>=0.5",
#   "numpy>=1.26",
#   "pillow>=10.3",
# ]
# [tool.uv.sources]
# convnet-analyzer = { path = "..", editable = true }
# ///
"""Trains one of the paper's two traffic-sign networks and exports it: NAME.onnx and its card NAME.json.

    python exporters/gtsrb.py ciresan2012                      on rendered signs, no download
    python exporters/gtsrb.py aghdam2015 --data GTSRB          on the real benchmark, from its official archives

The shipped models were made with `ciresan2012 --bf16 --out models` and `aghdam2015 --bf16 --epochs 4 --out models`.
With --data the folder holds Final_Training/Images/000xx/GT-000xx.csv and Final_Test/Images/GT-final_test.csv
beside their .ppm pictures. The export is checked against PyTorch and is not written when they differ.
"""

import argparse
import concurrent.futures
import csv
import dataclasses
import logging
import math
import multiprocessing
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import signs
import torch
from _common import publish, refuse_existing, rename
from PIL import Image
from torch import nn

from analyzer.errors import AnalyzerError, InputError

CHANNEL_MEANS = (88.35, 83.70, 91.26)  # blue, green, red
SCALE = 256.0
CLASSES = len(signs.GTSRB_LABELS)
OPSET = 20

Pixels = np.ndarray  # uint8 (image, 48, 48, 3), RGB
Labels = np.ndarray  # int64 (image,)


# The networks: Ciresan et al. 2012 (one column) and Aghdam et al. 2015, as the paper's authors defined them.


def ciresan2012() -> nn.Sequential:
    """1,543,443 parameters. (image, 3, 48, 48) -> (image, 43)."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 100, 7),
            conv1_tanh=nn.Tanh(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(100, 150, 4),
            conv2_tanh=nn.Tanh(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(150, 250, 4),
            conv3_tanh=nn.Tanh(),
            pool3=nn.MaxPool2d(2),
            flat=nn.Flatten(),
            fc300=nn.Linear(250 * 3 * 3, 300),
            feature=nn.Tanh(),
            logits=nn.Linear(300, CLASSES),
        )
    )


def aghdam2015() -> nn.Sequential:
    """1,123,449 parameters. (image, 3, 48, 48) -> (image, 43)."""
    return nn.Sequential(
        OrderedDict(
            pre=nn.Conv2d(3, 3, 1, groups=3),
            conv1=nn.Conv2d(3, 100, 7),
            conv1_relu=nn.LeakyReLU(0.01),
            pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
            conv2=nn.Conv2d(100, 150, 4, groups=2),
            conv2_relu=nn.LeakyReLU(0.01),
            pool2=nn.MaxPool2d(3, 2, ceil_mode=True),
            conv3=nn.Conv2d(150, 250, 4, groups=2),
            conv3_relu=nn.LeakyReLU(0.01),
            pool3=nn.MaxPool2d(3, 2, ceil_mode=True),
            flat=nn.Flatten(),
            fc300=nn.Linear(250 * 3 * 3, 300),
            feature=nn.LeakyReLU(0.01),
            dropout=nn.Dropout(0.5),
            logits=nn.Linear(300, CLASSES),
        )
    )


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {"ciresan2012": ciresan2012, "aghdam2015": aghdam2015}


def initialise(network: nn.Sequential) -> None:
    """Glorot's uniform weights and zero biases; the 1x1 colour layer starts as the identity."""
    for name, layer in network.named_children():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if name == "pre":
                nn.init.ones_(layer.weight)
            else:
                nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


class FeatureAndLogits(nn.Module):
    """The network with its feature tensor as a second output."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        for name, layer in network.named_children():  # kept flat, so that parameters export as conv1.weight
            self.add_module(name, layer)

    def forward(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        feature = tensor
        for name, layer in self.named_children():
            tensor = layer(tensor)
            if name == "feature":
                feature = tensor
        return tensor, feature


# Data.


@dataclasses.dataclass(frozen=True)
class Data:
    train: tuple[Pixels, Labels]
    heldout: tuple[Pixels, Labels]
    card: Mapping[str, str]  # what the card says of the weights and of the data


def rendered(seed: int, split: str, count: int, workers: int) -> tuple[Pixels, Labels]:
    """The first `count` rendered pictures of a split; the same whatever the number of workers."""
    step = 10 * CLASSES
    starts = range(0, count, step)
    jobs = ([seed] * len(starts), [split] * len(starts), starts, [min(s + step, count) for s in starts])
    if workers <= 1 or len(starts) == 1:
        blocks = list(map(signs.block, *jobs))
    else:
        # Forking a process in which torch has started threads can hang.
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn) as pool:
            blocks = list(pool.map(signs.block, *jobs))
    return np.concatenate([x for x, _ in blocks]), np.concatenate([y for _, y in blocks])


def rendered_data(seed: int, per_class: int, heldout_per_class: int, workers: int) -> Data:
    return Data(
        train=rendered(seed, "train", per_class * CLASSES, workers),
        heldout=rendered(seed, "heldout", heldout_per_class * CLASSES, workers),
        card={
            "weights": f"trained on rendered signs by exporters/gtsrb.py, seed {seed}",
            "data": (
                "rendered signs only: no photograph was seen; training and held-out pictures differ in seed but "
                "share the same 43 drawings, so nothing is claimed for real photographs"
            ),
        },
    )


def annotated(table: Path) -> tuple[Pixels, Labels]:
    """The pictures one official CSV table lists: cut to the sign, stretched to 48x48. Raises InputError."""
    pixels, labels = [], []
    try:
        with table.open(newline="", encoding="utf-8") as f:
            for row in csv.DictReader(f, delimiter=";"):
                corners = tuple(int(row[key]) for key in ("Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2"))
                label = int(row["ClassId"])
                if not 0 <= label < CLASSES:
                    raise ValueError(f"ClassId {label} is not in 0..{CLASSES - 1}")
                with Image.open(table.parent / row["Filename"], formats=["PPM"]) as image:
                    sign = image.convert("RGB").crop((corners[0], corners[1], corners[2] + 1, corners[3] + 1))
                pixels.append(np.asarray(sign.resize((signs.SIZE, signs.SIZE), Image.Resampling.BILINEAR)))
                labels.append(label)
    except KeyError as e:
        wanted = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
        raise InputError(f"{table}: no column {e}; expected the benchmark's {wanted}") from e
    except (OSError, ValueError) as e:
        raise InputError(f"{table}: cannot be read as a table of the benchmark: {e}") from e
    if not pixels:
        raise InputError(f"{table}: lists no pictures")
    return np.stack(pixels), np.array(labels, dtype=np.int64)


def benchmark_data(folder: Path, seed: int) -> Data:
    """The German Traffic Sign Recognition Benchmark from its official layout. Raises InputError."""
    tables = sorted(folder.glob("Final_Training/Images/*/GT-*.csv"))
    if not tables:
        raise InputError(
            f"{folder}: no Final_Training/Images/000xx/GT-000xx.csv; give the folder that holds both archives"
        )
    parts = [annotated(table) for table in tables]
    return Data(
        train=(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])),
        heldout=annotated(folder / "Final_Test" / "Images" / "GT-final_test.csv"),
        card={
            "weights": f"trained on the GTSRB training set by exporters/gtsrb.py, seed {seed}",
            "data": "German Traffic Sign Recognition Benchmark; held out is its official test set",
        },
    )


def normalised(pixels: Pixels) -> torch.Tensor:
    """RGB pixels as the network's input: (pixel - mean) / 256, blue first, float32 (image, 3, 48, 48)."""
    bgr = torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1])).permute(0, 3, 1, 2).float()
    return (bgr - torch.tensor(CHANNEL_MEANS).view(1, 3, 1, 1)) / SCALE


# Training.


@dataclasses.dataclass(frozen=True)
class Settings:
    epochs: int = 6
    batch: int = 50
    rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-5
    bf16: bool = False  # forward and backward in bfloat16 (weights stay float32): twice as fast where the CPU has it


def train(network: nn.Sequential, data: tuple[Pixels, Labels], settings: Settings, seed: int) -> None:
    """Stochastic gradient descent; the rate falls from `rate` to 0 along half a cosine. Reports on stderr."""
    pixels, labels = data
    rng = np.random.default_rng(seed)
    network.to(memory_format=torch.channels_last)
    network.train()
    optimiser = torch.optim.SGD(
        network.parameters(), settings.rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    per_epoch = math.ceil(len(labels) / settings.batch)
    steps, step, began = settings.epochs * per_epoch, 0, time.monotonic()
    for epoch in range(settings.epochs):
        order, total = rng.permutation(len(labels)), 0.0
        for rows in np.array_split(order, per_epoch):
            for group in optimiser.param_groups:
                group["lr"] = settings.rate * (1 + math.cos(math.pi * step / steps)) / 2
            x = normalised(pixels[rows]).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bf16):
                logits = network(x)
            loss = nn.functional.cross_entropy(logits.float(), torch.from_numpy(labels[rows]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total, step = total + loss.item(), step + 1
            if step % 200 == 0:
                said = f"step {step}/{steps}, loss {loss.item():.4f}, {time.monotonic() - began:.0f} s"
                print(said, file=sys.stderr, flush=True)
        print(f"epoch {epoch + 1}: mean loss {total / per_epoch:.4f}", file=sys.stderr, flush=True)
    network.to(memory_format=torch.contiguous_format)
    network.eval()


def evaluate(network: nn.Sequential, data: tuple[Pixels, Labels]) -> dict[str, Any]:
    """Accuracy, and the share that is correct with a probability above 0.99, in float32."""
    pixels, labels = data
    right = confident = 0
    with torch.inference_mode():
        for start in range(0, len(labels), 500):
            rows = slice(start, start + 500)
            top, predicted = network(normalised(pixels[rows])).double().softmax(1).max(1)
            hit = predicted.numpy() == labels[rows]
            right, confident = right + int(hit.sum()), confident + int((hit & (top.numpy() > 0.99)).sum())
    count = len(labels)
    return {
        "images": count,
        "accuracy": round(right / count, 4),
        "correct_above_0.99": round(confident / count, 4),
    }


# Export.


def exported(network: nn.Sequential) -> onnx.ModelProto:
    """The ONNX graph of the network in evaluation: `input` -> `logits`, `feature`; any batch; weights inside."""
    # It logs which torchvision operators it lacks; these networks use none.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        FeatureAndLogits(network).eval(),
        (torch.zeros(2, 3, signs.SIZE, signs.SIZE),),
        dynamo=True,
        dynamic_shapes=({0: batch},),
        input_names=["input"],
        output_names=["logits", "feature"],
        opset_version=OPSET,
        verbose=False,
    )
    model: onnx.ModelProto = program.model_proto
    rename(model, [layer for layer, _ in network.named_children() if layer != "dropout"])
    return model


def card(name: str, data: Data, settings: Settings, heldout: Mapping[str, Any]) -> dict[str, Any]:
    """The card's document, but for what `publish` fills in."""
    return {
        "schema": 1,
        "input": {
            "name": "input",
            "layout": "NCHW",
            "size": [signs.SIZE, signs.SIZE],
            "channels": "BGR",
            "resize": {"stretch": True, "interpolation": "bilinear"},
            "mean": list(CHANNEL_MEANS),
            "std": [SCALE] * 3,
        },
        "output": {"name": "logits", "kind": "logits", "labels": list(signs.GTSRB_LABELS)},
        "feature": {"name": "feature"},
        "source": {
            "framework": f"torch {torch.__version__}",
            "architecture": name,
            **data.card,
            "training": {"images": len(data.train[1]), **dataclasses.asdict(settings)},
            "heldout": dict(heldout),
            "licence": "MIT",
        },
    }


def export(
    name: str, network: nn.Sequential, data: Data, settings: Settings, *, out: Path, seed: int
) -> tuple[Path, dict[str, Any], float]:
    """Evaluate, export, verify and write; returns the model's path, the held-out figures and the difference."""
    heldout = evaluate(network, data.heldout)
    model = exported(network)
    whole = FeatureAndLogits(network).eval()

    def expected(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            logits, feature = whole(torch.from_numpy(batch["input"]))
        return {"logits": logits.numpy(), "feature": feature.numpy()}

    rng = np.random.default_rng(seed)
    pixels = data.heldout[0]
    batches = []
    for size in (1, 5):
        noise = rng.standard_normal((size, 3, signs.SIZE, signs.SIZE), dtype=np.float32)
        batches += [{"input": noise}, {"input": normalised(pixels[:size]).numpy()}]
    target, document = path(name, out), card(name, data, settings, heldout)
    return target, heldout, publish(model, document, target, batches=batches, expected=expected)


def path(name: str, out: Path) -> Path:
    return out / f"gtsrb_{name}.onnx"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train one of the two GTSRB networks and export it with its card.")
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("--data", type=Path, help="the official GTSRB folder; rendered signs without it")
    parser.add_argument("--out", type=Path, default=Path("exported"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force", action="store_true", help="replace an existing export")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--per-class", type=int, default=860, help="rendered training signs of each class")
    parser.add_argument("--heldout-per-class", type=int, default=200, help="rendered held-out signs of each class")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that render")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16: faster on CPUs that have it")
    given = parser.parse_args(argv)
    for option in ("epochs", "per_class", "heldout_per_class"):
        if getattr(given, option) < 1:
            parser.error(f"--{option.replace('_', '-')} must be 1 or more")
    if given.seed < 0:
        parser.error(f"--seed must be 0 or more, not {given.seed}")
    try:
        return run(given)
    except AnalyzerError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code


def run(given: argparse.Namespace) -> int:
    target = path(given.network, given.out)
    refuse_existing([target, target.with_suffix(".json")], force=given.force)
    if given.data is not None:
        data = benchmark_data(given.data, given.seed)
    else:
        data = rendered_data(given.seed, given.per_class, given.heldout_per_class, given.workers)
    print(f"{len(data.train[1])} signs to train on, {len(data.heldout[1])} held out", file=sys.stderr, flush=True)
    torch.manual_seed(given.seed)
    network = NETWORKS[given.network]()
    initialise(network)
    settings = Settings(epochs=given.epochs, bf16=given.bf16)
    torch.set_flush_denormal(True)
    try:
        train(network, data.train, settings, given.seed)
    finally:
        torch.set_flush_denormal(False)
    written, heldout, difference = export(given.network, network, data, settings, out=given.out, seed=given.seed)
    print(f"{written}: held-out accuracy {heldout['accuracy']:.2%} of {heldout['images']} images, ", end="")
    print(f"{heldout['correct_above_0.99']:.2%} correct above 0.99; differs from PyTorch by {difference:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
