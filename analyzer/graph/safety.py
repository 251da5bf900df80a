"""Refusing models that are not safe to run: foreign operators, malformed tensors, and tensors larger than memory."""

from pathlib import Path

from onnx import ModelProto, TensorProto

from analyzer.errors import InputError
from analyzer.graph import external, walk
from analyzer.graph.external import Located
from analyzer.graph.index import Index
from analyzer.system import physical_memory

# The operators that the runtime has. Others would need a library that comes with the model.
_DOMAINS = walk.DOMAINS | {"com.microsoft"}
_LOADS_FILES = frozenset({"EPContext"})
LARGEST_CONSTANT = 4 * 2**30  # bytes that a tensor computed from constants may take


def inspect(model: ModelProto, path: Path) -> Located:
    """Raise InputError where the stored model is not safe to run; return its external files."""
    _refuse_foreign_operators(model, path)
    _refuse_malformed_tensors(model, path)
    return external.locate(model, path)


def refuse_huge_results(index: Index, path: Path) -> None:
    """Refuse a graph in which one tensor, for one image, is known to be larger than memory (constants: 4 GiB)."""
    memory = physical_memory()
    for name, (elem_type, shape) in index.types.items():
        if elem_type is None or shape is None or name not in index.producer:
            continue
        size = walk.size_of(elem_type, [d for d in shape if d is not None])
        limit = memory if name in index.live else min(LARGEST_CONSTANT, memory)
        if size > limit:
            raise InputError(
                f"{path}: {index.producer[name].op_type} makes tensor {name!r:.80} of {size / 2**30:.0f} GiB, more "
                f"than the {limit / 2**30:.0f} GiB allowed; export a smaller graph"
            )


def _refuse_foreign_operators(model: ModelProto, path: Path) -> None:
    local = {(function.domain, function.name) for function in model.functions}
    for node in walk.nodes(model):
        name = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
        if node.op_type in _LOADS_FILES:
            raise InputError(f"{path}: operator {name:.120} loads compiled code; export the plain ONNX graph instead")
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in local:
            raise InputError(
                f"{path}: custom operator {name:.120} is not part of ONNX and no library is ever loaded for it; "
                "export the network with standard operators"
            )


def _refuse_malformed_tensors(model: ModelProto, path: Path) -> None:
    total = 0
    for tensor in walk.tensors(model):
        if any(d < 0 for d in tensor.dims):
            raise InputError(f"{path}: tensor {tensor.name!r:.80} has a negative dimension; export the model again")
        declared = walk.size_of(tensor.data_type, tensor.dims)
        total += declared
        if tensor.data_location != TensorProto.EXTERNAL and tensor.HasField("raw_data"):
            if len(tensor.raw_data) != declared:
                raise InputError(
                    f"{path}: tensor {tensor.name!r:.80} holds {len(tensor.raw_data)} bytes where its shape needs "
                    f"{declared}; damaged, export it again"
                )
        elif tensor.data_location != TensorProto.EXTERNAL:
            held, needed = sum(len(getattr(tensor, field)) for field in _FIELDS), walk.entries_of(tensor)
            if held != needed:
                raise InputError(
                    f"{path}: tensor {tensor.name!r:.80} holds {held} values where its shape needs {needed}; damaged, "
                    "export it again"
                )
    if total > physical_memory():
        raise InputError(
            f"{path}: its tensors take {total / 2**30:.0f} GiB, more than this machine's "
            f"{physical_memory() / 2**30:.0f} GiB of memory; use a machine with more, or a smaller network"
        )


_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
