"""What every exporter does: read the command, name the graph, prove it equal to the framework, write it and a card."""

import argparse
import difflib
import hashlib
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from analyzer import card as model_card
from analyzer import images
from analyzer.errors import AnalyzerError, InputError, UsageError

LARGEST_DIFFERENCE = 1e-4
RANDOM = "random: not trained, for trying things out only"

RESIDUAL = 0.2  # scale of the last normalisation of a residual branch with random weights
SCENES = 3  # which of `batches` holds five scene-like pictures

Outputs = Mapping[str, np.ndarray]


# The command.


def arguments(description: str, *, weights: str, default: str) -> argparse.ArgumentParser:
    """The options all exporters of named networks share; `weights` is the help of --weights."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("network", metavar="NAME", help="an unknown one lists the near ones")
    parser.add_argument("--weights", default=default, help=weights)
    parser.add_argument("--out", type=Path, default=Path("exported"), help="folder; %(default)s by default")
    parser.add_argument("--photos", type=Path, help="folder of images on which the export is verified too")
    parser.add_argument("--seed", type=int, default=0, help="of random weights and of the verification's inputs")
    parser.add_argument("--force", action="store_true", help="replace an existing export")
    return parser


def main(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], tuple[Path, float]],
    argv: Sequence[str] | None,
) -> int:
    """Parse, run, print what was written or the error; returns the exit code, as the analyzer gives it."""
    given = parser.parse_args(argv)
    if not 0 <= given.seed < 2**32:
        parser.error(f"--seed must be between 0 and 2^32 - 1, not {given.seed}")
    try:
        written, found = run(given)
    except AnalyzerError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    print(f"{written}: verified, differs from the framework by {found:.1e} relative; card {model_card.beside(written)}")
    return 0


def target(prefix: str, name: str, given: argparse.Namespace) -> Path:
    """Where a network goes, PREFIX_NAME.onnx in --out. Raises UsageError when it is there already, without --force."""
    path: Path = given.out / f"{prefix}_{name.replace('/', '_')}.onnx"
    refuse_existing([path, model_card.beside(path)], force=given.force)
    return path


def known(name: str, names: Iterable[str]) -> str:
    """`name` when it is one of `names`, whatever its case. Raises UsageError with the near ones."""
    by_fold = {candidate.casefold(): candidate for candidate in names}
    if name.casefold() in by_fold:
        return by_fold[name.casefold()]
    near = [by_fold[n] for n in difflib.get_close_matches(name.casefold(), by_fold, n=6, cutoff=0.5)]
    listed = f"near it: {', '.join(near)}" if near else f"there are: {', '.join(sorted(by_fold.values())[:40])}"
    raise UsageError(f"no network {name!r:.80}; {listed}")


def no_weights(what: str, reason: object) -> UsageError:
    """The error for weights that cannot be downloaded."""
    said = " ".join(str(reason).split())
    return UsageError(
        f"{what}: the weights could not be downloaded ({said:.160}); "
        "give --weights PATH to a file you have, or --weights none for random ones"
    )


# The inputs of the verification.


def distinct(labels: Sequence[str]) -> list[str]:
    """The labels, with the class index behind each that several classes share: "crane" is a bird and a machine."""
    counts = Counter(labels)
    return [f"{label} ({index})" if counts[label] > 1 else label for index, label in enumerate(labels)]


def picture(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """A scene-like image: float32 (C, H, W) in 0..255 with a photograph's 1/f spectrum and correlated channels."""
    channels, height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width) * width)
    spectrum = np.fft.rfft2(rng.standard_normal((1 + channels, height, width))) / np.maximum(frequency, 1)
    light, *colour = np.fft.irfft2(spectrum, s=(height, width))
    values = light / light.std() + 0.4 * np.stack(colour) / np.std(colour)
    return np.clip(120 + 55 * values, 0, 255).astype(np.float32)


def photographs(folder: Path, card: model_card.Card, count: int) -> list[np.ndarray]:
    """The first `count` readable images below `folder` as the card's resize wants them. Raises InputError."""
    found: list[np.ndarray] = []
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in images.SUFFIXES)
    for path in paths:
        try:
            found.append(images.read(images.ImageFile(path.name, path, None), card=card).values)
        except images.ImageError:
            continue
        if len(found) == count:
            return found
    raise InputError(f"{folder}: --photos needs {count} readable images, found {len(found)}")


def batches(document: Mapping[str, Any], *, seed: int, photos: Path | None = None) -> list[dict[str, np.ndarray]]:
    """What the verification runs, for batches of 1 and of 5: white noise, scene-like pictures and any photos.

    All are pixels in 0..255 brought to the network's input as the card `document` says.
    """
    card = model_card.parse({**document, "source": {}})
    rng = np.random.default_rng(seed)
    sets = []
    for size in (1, 5):
        sets.append(rng.uniform(0, 255, (size, *card.pixel_shape)).astype(np.float32))
        sets.append(np.stack([picture(rng, card.pixel_shape) for _ in range(size)]))
    if photos is not None:
        real = np.stack(photographs(photos, card, 5))
        sets += [real[:1], real]
    return [{card.input_name or "input": normalised(pixels, card)} for pixels in sets]


def normalised(pixels: np.ndarray, card: model_card.Card) -> np.ndarray:
    """(N, C, H, W) pixels, RGB or L, as the network's input, float32."""
    ordered = pixels[:, ::-1] if card.channels == "BGR" else pixels
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (card.mean, card.std))
    scaled = (ordered - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 2, 3, 1) if card.layout == "NHWC" else scaled)


# The graph and the files.


def refuse_existing(paths: Sequence[Path], *, force: bool) -> None:
    """Raise UsageError when one of `paths` exists, unless `force`; asked before the work, not after it."""
    present = [str(path) for path in paths if path.exists()]
    if present and not force:
        raise UsageError(f"{', '.join(present)}: exists already; give --force to replace it, or another --out")


def sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def rename(model: onnx.ModelProto, outputs: Sequence[str]) -> None:
    """Name every node and its output, in graph order, and drop what the exporter notes about its own run.

    Constants without a dot in their name (no layer's parameters) are named after their node.
    Raises InputError when the graph has another number of nodes than `outputs` has names.
    """
    graph = model.graph
    if len(graph.node) != len(outputs):
        kinds = " ".join(node.op_type for node in graph.node)
        raise InputError(f"the exported graph has {len(graph.node)} nodes where {len(outputs)} were expected: {kinds}")
    new = {node.output[0]: name for node, name in zip(graph.node, outputs, strict=True)}
    constants = {tensor.name for tensor in graph.initializer if "." not in tensor.name}
    for node, name in zip(graph.node, outputs, strict=True):
        new |= {tensor: f"{name}.constant{i}" for i, tensor in enumerate(node.input) if tensor in constants}
    for node, name in zip(graph.node, outputs, strict=True):
        node.name = name
        node.input[:] = [new.get(tensor, tensor) for tensor in node.input]
        node.output[:] = [new.get(tensor, tensor) for tensor in node.output]
    for value in [*graph.output, *graph.value_info, *graph.initializer]:
        value.name = new.get(value.name, value.name)
    forget_origin(model)


def forget_origin(model: onnx.ModelProto) -> None:
    """Drop what exporters note about their own run: stack traces with the paths of the machine that exported."""
    graph = model.graph
    for part in [model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def rename_tensors(model: onnx.ModelProto, new: Mapping[str, str]) -> None:
    """Rename tensors everywhere in the main graph; `new` maps old names to new ones."""
    graph = model.graph
    for node in graph.node:
        node.input[:] = [new.get(tensor, tensor) for tensor in node.input]
        node.output[:] = [new.get(tensor, tensor) for tensor in node.output]
    for value in [*graph.input, *graph.output, *graph.value_info, *graph.initializer]:
        value.name = new.get(value.name, value.name)


def free_batch(model: onnx.ModelProto) -> None:
    """Call the first dimension of every input and output `batch`."""
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def difference(model: Path, batches: Sequence[Outputs], expected: Callable[[Outputs], Outputs]) -> float:
    """Largest max|a - b| / max|b| over batches and outputs; a from ONNX Runtime on the CPU, b from `expected`.

    Each batch maps input names to arrays; `expected` maps the same to the framework's outputs by name.
    A shape that differs, or a NaN on either side, counts as infinite.
    """
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in batches:
        wanted = expected(batch)
        got = dict(zip(wanted, session.run(list(wanted), dict(batch)), strict=True))
        for name, b in wanted.items():
            a = got[name]
            if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
                return float("inf")
            apart, scale = float(np.abs(a - b).max()), float(np.abs(b).max())
            if apart:
                worst = max(worst, apart / scale if scale else float("inf"))
    return worst


def publish(
    model: onnx.ModelProto,
    document: dict[str, Any],
    target: Path,
    *,
    batches: Sequence[Outputs],
    expected: Callable[[Outputs], Outputs],
) -> float:
    """Write `target` (.onnx, one file) and its card, if ONNX Runtime agrees with the framework; returns the difference.

    `document` is a card without source.sha256 and source.verification, which are filled in here. On a
    difference above LARGEST_DIFFERENCE raises AnalyzerError, and neither file is written or replaced.
    """
    onnx.checker.check_model(model, full_check=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}-") as folder:
        draft = Path(folder, target.name)
        onnx.save_model(model, draft)
        found = difference(draft, batches, expected)
        if not found <= LARGEST_DIFFERENCE:
            raise AnalyzerError(
                f"{target}: not written: ONNX Runtime differs from the framework by {found:.2g} relative, "
                f"above {LARGEST_DIFFERENCE:g}"
            )
        source = {
            **document["source"],
            "verification": {
                "against": f"onnxruntime {onnxruntime.__version__}",
                "largest_relative_difference": float(f"{found:.2g}"),
                "batch_sizes": sorted({len(array) for batch in batches for array in batch.values()}),
            },
            "sha256": sha256(draft),
        }
        card = model_card.parse({**document, "source": source}, where=str(model_card.beside(target)))
        model_card.write(card, model_card.beside(draft))
        model_card.beside(draft).replace(model_card.beside(target))
        draft.replace(target)
    return found
