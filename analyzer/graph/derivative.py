"""Derivative graphs of a prepared graph, emitted by onnx-ad (the optional extra `gradients`) with the batch fixed to 1.

They are ordinary ONNX graphs that the session runs like any other: no training framework takes part.
"""

import dataclasses
from functools import cached_property
from importlib.metadata import version
from types import ModuleType

import onnx
from numpy.typing import DTypeLike
from onnx import ModelProto, TensorProto, helper, version_converter

from analyzer.errors import InputError
from analyzer.graph import walk
from analyzer.graph.prepare import Prepared

OLDEST, NEWEST = 16, 21
"""Opsets that onnx-ad's rules are used with; a copy of any other graph is converted."""
_STAIRCASE = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
    | {"Round", "Floor", "Ceil", "Sign", "MatMulNBits", "QGemm"}
)


class GradientsUnavailable(InputError):
    """A model has no derivative graphs here; the message says why."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A derivative graph, to be opened like any `Prepared`, and the names of what is fed besides the image.

    Seeds are shaped like what they belong to, with the number of seeds as a last axis.
    """

    graph: Prepared
    seeds: tuple[str, ...]


class Derivatives:
    """Forward, reverse and forward-over-reverse graphs of one prepared graph.

    forward: seed dx (1, C, H, W, n) -> J dx of each output, (1, ..., n).
    reverse: a seed for each output, (1, ..., n) -> J^T of them, (1, C, H, W, n).
    second: the seeds of `reverse`, then dx (1, C, H, W, m), then a change of each of the seeds of `reverse`
    (1, ..., n, m) -> the change of what `reverse` gives, (1, C, H, W, n, m).

    types: element type of each output; shapes: its shape for one image.
    """

    def __init__(self, prepared: Prepared) -> None:
        """Raises GradientsUnavailable without onnx-ad, or where an operator or a shape has no derivative."""
        self._prepared, self._source = prepared, prepared.source
        self._library = _library(prepared.source)
        self.version = f"onnx-ad {version('onnx-ad')}"
        self._model = self._static()
        names = [stored.name for stored in (*self._model.graph.input, *self._model.graph.initializer)]
        names += [name for node in walk.nodes(self._model) for name in node.output]
        self._forward, self._reverse = "fwd_", "adj_"
        while any(name.startswith((self._forward, self._reverse)) for name in names):
            self._forward, self._reverse = "d" + self._forward, "d" + self._reverse
        outputs = self._model.graph.output
        self.types: tuple[DTypeLike, ...] = tuple(
            helper.tensor_dtype_to_np_dtype(output.type.tensor_type.elem_type) for output in outputs
        )
        self.shapes = tuple(tuple(d.dim_value for d in output.type.tensor_type.shape.dim) for output in outputs)
        if any(not shape or 0 in shape for shape in self.shapes):
            raise self._refusal("the shape of its outputs is not known before it runs")
        self.forward = self._of_forward()
        self._adjoint = self._emit("reverse", self._model, prefix=self._reverse, dim="reverse_seeds")
        self.reverse = self._of_reverse()

    def _of_forward(self) -> Program:
        model = self._emit("forward", self._model, prefix=self._forward, dim="forward_seeds")
        image, outputs = self._prepared.input, self._prepared.outputs
        return self._program(model, [self._forward + image], [self._forward + name for name in outputs])

    def _of_reverse(self) -> Program:
        seeds = [self._reverse + name for name in self._prepared.outputs]
        return self._program(self._adjoint, seeds, [self._reverse + self._prepared.input])

    @cached_property
    def second(self) -> Program:
        """Derivatives of vector-Jacobian products along directions; several times as large, so made on first use."""
        image, seeds = self._prepared.input, [self._reverse + name for name in self._prepared.outputs]
        inputs, output = [image, *seeds], self._reverse + image
        model = self._emit(
            "forward",
            self._adjoint,
            prefix=self._forward,
            dim="second_seeds",
            inputs=inputs,
            outputs=[output],
        )
        return self._program(model, [*seeds, *(self._forward + name for name in inputs)], [self._forward + output])

    def _emit(self, mode: str, model: ModelProto, **options: object) -> ModelProto:
        try:
            emitted: ModelProto = getattr(self._library, mode)(model, layout="onnx", **options)
        except Exception as e:  # UnsupportedOperator, or anything else that an unusual graph raises
            raise self._refusal(f"{_brief(e)} ({mode} mode of {self.version})") from e
        return emitted

    def _program(self, model: ModelProto, seeds: list[str], outputs: list[str]) -> Program:
        try:
            content = model.SerializeToString()
        except ValueError as e:  # protobuf's 2 GiB limit
            raise self._refusal("its derivative graph is too large") from e
        return Program(dataclasses.replace(self._prepared, model=content, outputs=tuple(outputs)), tuple(seeds))

    def _static(self) -> ModelProto:
        """The graph for one image, all weights inside, every shape known, at an opset that has rules."""
        try:
            model = onnx.load_from_string(self._prepared.model)
            onnx.load_external_data_for_model(model, str(self._prepared.folder))
            if staircases := sorted({node.op_type for node in walk.nodes(model)} & _STAIRCASE):
                raise self._refusal(f"the derivative of {', '.join(staircases)} is 0 or undefined everywhere")
            if self._prepared.input_type == "uint8":
                raise self._refusal("its input is uint8, and whole numbers have no derivative")
            opset = walk.opset(model)
            if not OLDEST <= opset <= NEWEST:
                model = version_converter.convert_version(model, OLDEST if opset < OLDEST else NEWEST)
            (image,) = (value for value in model.graph.input if value.name == self._prepared.input)
            image.type.tensor_type.shape.dim[0].Clear()
            image.type.tensor_type.shape.dim[0].dim_value = 1
            for output in model.graph.output:
                output.type.tensor_type.ClearField("shape")
            del model.graph.value_info[:]
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except GradientsUnavailable:
            raise
        except Exception as e:  # the converter's and the inference's exceptions have no common base
            raise self._refusal(_brief(e)) from e
        if any(
            v.type.tensor_type.elem_type not in (TensorProto.FLOAT, TensorProto.DOUBLE) for v in inferred.graph.output
        ):
            raise self._refusal("its outputs are not floats")
        return inferred

    def _refusal(self, why: str) -> GradientsUnavailable:
        return GradientsUnavailable(f"{self._source}: gradients unavailable: {why}")


def _library(source: str) -> ModuleType:
    try:
        import onnx_ad
    except ImportError:
        raise GradientsUnavailable(
            f"{source}: gradients unavailable: onnx-ad is not installed; install the extra [gradients] of "
            "convnet-analyzer"
        ) from None
    module: ModuleType = onnx_ad
    return module


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
