"""Element types of tensors, under numpy's names."""

from onnx import TensorProto

FLOATS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.BFLOAT16: "bfloat16",
}


def type_name(elem_type: int) -> str:
    """numpy's word for a TensorProto data type, e.g. "float32"."""
    if elem_type not in TensorProto.DataType.values():
        return f"an unknown type ({elem_type})"
    return FLOATS.get(elem_type) or str(TensorProto.DataType.Name(elem_type)).lower()
