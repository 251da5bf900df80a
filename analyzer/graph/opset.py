"""Lowering the opset for providers that lag behind."""

from onnx import ModelProto, TensorProto, version_converter

from analyzer.graph import walk
from analyzer.graph.index import large_constant, skeleton

CUDA_OPSET = 21
# At opset 22 these got new versions for which the CUDA provider has no kernel.
_WITHOUT_CUDA_KERNEL = frozenset({"MaxPool", "InstanceNormalization", "Dropout", "Elu", "Selu", "ThresholdedRelu"})


def lower_for_cuda(model: ModelProto) -> tuple[str, ...]:
    """Bring `model` (local functions already inlined) to opset 21 in place where it is newer; returns notes.

    Where an operator has no older form the graph stays as it is, and the note says which operators run on the CPU.
    External data is not loaded.
    """
    version = walk.opset(model)
    if version <= CUDA_OPSET:
        return ()
    try:
        lowered = version_converter.convert_version(skeleton(model), CUDA_OPSET)
    except (version_converter.ConvertError, RuntimeError, ValueError) as e:
        left = sorted({node.op_type for node in walk.nodes(model)} & _WITHOUT_CUDA_KERNEL)
        operators = f"; without a CUDA kernel there, so on the CPU: {', '.join(left)}" if left else ""
        reason = " ".join(str(e).split()).rsplit(": ", 1)[-1] or type(e).__name__
        return (f"Opset {version} could not be lowered to {CUDA_OPSET} for CUDA ({reason:.200}){operators}.",)
    weights = [node for node in model.graph.node if large_constant(node) is not None]
    stored = {t.name for t in model.graph.initializer}
    added: list[TensorProto] = [t for t in lowered.graph.initializer if t.name not in stored]
    nodes = [*weights, *lowered.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(added)
    del model.graph.value_info[:]
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = CUDA_OPSET
    return (f"Opset {version} lowered to {CUDA_OPSET} for CUDA.",)
