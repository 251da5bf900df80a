"""Operators left in training mode: what they compute then depends on the whole batch."""

from pathlib import Path

from onnx import ModelProto, NodeProto

from analyzer.errors import InputError
from analyzer.graph import walk

_HAS_MODE = 14  # the opset since which an attribute says it; before, more than one output did


def to_inference(model: ModelProto, path: Path) -> tuple[str, ...]:
    """Bring every BatchNormalization of `model` (local functions inlined) to inference form, in place; returns notes.

    It then uses the mean and variance that are stored. Raises InputError where something reads the batch's own.
    """
    version = walk.opset(model)
    readers = {name for node in walk.nodes(model) for name in walk.reads(node)}
    readers.update(output.name for output in model.graph.output)
    changed = []
    for node in walk.nodes(model):
        if node.op_type != "BatchNormalization" or not _is_training(node, version):
            continue
        others = sorted(readers & set(filter(None, node.output[1:])))
        if others:
            raise InputError(
                f"{path}: BatchNormalization {node.output[0]!r:.80} is in training mode and its batch statistics "
                f"{others[0]!r:.80} are read; export the network in evaluation mode"
            )
        del node.output[1:]
        kept = [a for a in node.attribute if a.name not in ("training_mode", "is_test")]
        del node.attribute[:]
        node.attribute.extend(kept)
        changed.append(node.output[0])
    if not changed:
        return ()
    return (
        f"{len(changed)} BatchNormalization in training mode ({', '.join(changed[:3])}{', ...' * (len(changed) > 3)}), "
        "where one image's answer depends on its batch: run in inference form, with the mean and variance that are "
        "stored. Export the network in evaluation mode.",
    )


def _is_training(node: NodeProto, version: int) -> bool:
    if version >= _HAS_MODE:
        return walk.attribute(node, "training_mode", 0) != 0
    return any(node.output[1:])
