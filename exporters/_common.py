"""What every exporter does with its ONNX graph: name it, prove it equal to the framework, write it and its card."""

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from analyzer import card as model_card
from analyzer.errors import AnalyzerError, InputError, UsageError

LARGEST_DIFFERENCE = 1e-4

Outputs = Mapping[str, np.ndarray]


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
    # Stack traces with the paths of the machine that exported.
    for part in [model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


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
            worst = max(worst, float(np.abs(a - b).max()) / float(np.abs(b).max()))
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
