"""Operators left in training mode: what they compute then depends on the whole batch."""

from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from analyzer.errors import InputError
from analyzer.graph import walk

_HAS_MODE = 14  # the opset since which an attribute says it; before, more than one output did


def to_inference(model: ModelProto, path: Path) -> tuple[str, ...]:
    """Bring every BatchNormalization and Dropout of `model` (local functions inlined) to inference form, in place.

    The one then uses the mean and variance that are stored, the other leaves out nothing. Returns notes. Raises
    InputError where something reads the batch's statistics, or what was left out.
    """
    return (*_normalisation(model, path), *_dropout(model, path))


def _dropout(model: ModelProto, path: Path) -> tuple[str, ...]:
    """Every Dropout that drops becomes one that does not."""
    read = _read(model)
    dropping = [node for node in walk.nodes(model) if node.op_type == "Dropout" and len(node.input) > 2]
    wanted = {node.input[2] for node in dropping}
    switches = {t.name: t for t in model.graph.initializer if t.name in wanted}
    switches |= {
        node.output[0]: node.attribute[0].t
        for node in walk.nodes(model)
        if node.op_type == "Constant" and node.output[0] in wanted and node.attribute[0].name == "value"
    }
    changed = []
    for node in dropping:
        if not node.input[2] or _is_false(switches.get(node.input[2])):
            continue
        if len(node.output) > 1 and node.output[1] in read:
            raise InputError(
                f"{path}: Dropout {node.output[0]!r:.80} is in training mode and its mask {node.output[1]!r:.80} is "
                "read; export the network in evaluation mode"
            )
        del node.input[1:]
        changed.append(node.output[0])
    if not changed:
        return ()
    return (
        f"{_few(changed, 'Dropout')} in training mode, where every pass draws at random what is left out: run in "
        "inference form, which leaves out nothing. Export the network in evaluation mode.",
    )


def _is_false(switch: TensorProto | None) -> bool:
    """Whether a switch is known, and off."""
    if switch is None or switch.data_location == TensorProto.EXTERNAL:
        return False
    return not numpy_helper.to_array(switch).any()


def _read(model: ModelProto) -> set[str]:
    """Names of the tensors that something reads."""
    readers = {name for node in walk.nodes(model) for name in walk.reads(node)}
    return readers | {output.name for output in model.graph.output}


def _few(changed: list[str], operator: str) -> str:
    return f"{len(changed)} {operator} ({', '.join(changed[:3])}{', ...' * (len(changed) > 3)})"


def _normalisation(model: ModelProto, path: Path) -> tuple[str, ...]:
    version, readers = walk.opset(model), _read(model)
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
        f"{_few(changed, 'BatchNormalization')} in training mode, where one image's answer depends on its batch: run "
        "in inference form, with the mean and variance that are stored. Export the network in evaluation mode.",
    )


def _is_training(node: NodeProto, version: int) -> bool:
    if version >= _HAS_MODE:
        return walk.attribute(node, "training_mode", 0) != 0
    return any(node.output[1:])
