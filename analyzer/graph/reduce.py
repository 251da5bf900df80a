"""Features reduced inside the graph: of each layer comes back one Gram matrix of the batch."""

import dataclasses

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from analyzer.graph.compose import unused
from analyzer.graph.prepare import Prepared


def reduced(prepared: Prepared) -> Prepared:
    """`prepared` with each layer's output f, (n, ...), replaced by G = F F^T, F = flatten(f) - flatten(f)[0], (n, n).

    Row 0 of the batch must be the clean image. The features of perturbed images hardly differ from its features, so
    float32 products of the raw features would lose the differences; products of the differences keep them. The runtime
    frees a layer's features once their product is taken, so memory does not grow with layers x features.
    """
    model = ModelProto.FromString(prepared.model)
    scores, *layers = prepared.outputs
    prefix = unused(model, "analyzer_grams")
    first = f"{prefix}/first"
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), first))
    outputs = [value for value in model.graph.output if value.name == scores]
    made = []
    for number, layer in enumerate(layers):
        stem = f"{prefix}/{number}"
        flat, clean, centred, turned = (f"{stem}/{part}" for part in ("flat", "clean", "centred", "turned"))
        model.graph.node.extend(
            [
                helper.make_node("Flatten", [layer], [flat], name=flat, axis=1),
                helper.make_node("Gather", [flat, first], [clean], name=clean, axis=0),
                helper.make_node("Sub", [flat, clean], [centred], name=centred),
                helper.make_node("Transpose", [centred], [turned], name=turned, perm=[1, 0]),
                helper.make_node("MatMul", [centred, turned], [stem], name=stem),
            ]
        )
        outputs.append(helper.make_tensor_value_info(stem, TensorProto.FLOAT, [None, None]))
        made.append(stem)
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    content = model.SerializeToString()
    return dataclasses.replace(prepared, model=content, outputs=(scores, *made), reduced=True)
