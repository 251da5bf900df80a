# /// script
# requires-python = ">=3.11"
# dependencies = ["convnet-analyzer[cpu]", "onnx>=1.17", "numpy>=1.26", "sympy>=1.12", "onnxconverter-common>=1.14"]
# [tool.uv.sources]
# convnet-analyzer = { path = "..", editable = true }
# ///
"""Makes builds of an ONNX network: half precision, and INT8 in three forms, each with a card, for `analyzer drift`.

    python exporters/variants.py models/gtsrb_ciresan2012.onnx --images models/demo --fp16 --int8 qdq

ONNX Runtime's own tools quantise, onnxconverter-common makes half precision. The images calibrate static INT8, brought
to the network's input as the card says. How far each build's scores are from the original's is printed and put into its
card; no difference is too large to be written: to judge it is what `analyzer drift` is for.
"""

import argparse
import contextlib
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from _common import normalised, refuse_existing, sha256
from onnxruntime import quantization

from analyzer import card as cards
from analyzer import graph, images
from analyzer.errors import AnalyzerError, InputError, UsageError

FORMS = ("qdq", "qoperator", "dynamic")
METHODS = {
    "minmax": quantization.CalibrationMethod.MinMax,
    "entropy": quantization.CalibrationMethod.Entropy,
    "percentile": quantization.CalibrationMethod.Percentile,
}


class Photographs(quantization.CalibrationDataReader):
    """One image after the other, as the tools want them."""

    def __init__(self, name: str, rows: np.ndarray) -> None:
        self.name, self.rows = name, rows
        self.left: Iterator[dict[str, np.ndarray]] = iter(())
        self.rewind()

    def rewind(self) -> None:
        """Begin anew."""
        self.left = iter([{self.name: row[None]} for row in self.rows])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next image; None at the end."""
        return next(self.left, None)


def rows_of(folder: Path, card: cards.Card, count: int, seed: int) -> np.ndarray:
    """The first `count` readable images in seeded order as network input. Raises InputError where none is readable."""
    found: list[np.ndarray] = []
    unlabelled = cards.parse({**cards.to_document(card), "output": {"kind": card.kind}})
    for file in images.seeded_order(images.find(folder, card=unlabelled), seed=seed):
        with contextlib.suppress(images.ImageError):
            found.append(images.read(file, card=card).values)
        if len(found) == count:
            break
    if not found:
        raise InputError(f"{folder}: no image can be read")
    return normalised(np.stack(found), card)


def half(model: Path, target: Path) -> None:
    """Half precision inside, behind a cast of the float32 input, so that the card holds; outputs are half precision."""
    from onnxconverter_common import float16

    # Its own keeping of the ends fails where an output is read inside too.
    made = float16.convert_float_to_float16(onnx.load(model))
    for value in made.graph.input:
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            inside = f"{value.name}_half"
            for node in made.graph.node:
                node.input[:] = [inside if name == value.name else name for name in node.input]
            cast = onnx.helper.make_node("Cast", [value.name], [inside], name=inside, to=onnx.TensorProto.FLOAT16)
            made.graph.node.insert(0, cast)
    onnx.save_model(made, target)


def integers(form: str, reader: Photographs, *, per_channel: bool, method: str) -> Callable[[Path, Path], None]:
    """What makes INT8 in one of FORMS."""

    def made(model: Path, target: Path) -> None:
        if form == "dynamic":
            # The CPU's integer convolution takes unsigned weights only.
            quantization.quantize_dynamic(
                model, target, per_channel=per_channel, weight_type=quantization.QuantType.QUInt8
            )
            return
        reader.rewind()
        quantization.quantize_static(
            model,
            target,
            reader,
            quant_format=quantization.QuantFormat.QDQ if form == "qdq" else quantization.QuantFormat.QOperator,
            per_channel=per_channel,
            calibrate_method=METHODS[method],
        )

    return made


def compared(model: Path, other: Path, card: cards.Card, rows: np.ndarray) -> tuple[float, int]:
    """Largest difference of the scores relative to the largest score, and on how many images the class is the same."""
    name = input_name(model, card)
    sessions = [onnxruntime.InferenceSession(str(p), providers=["CPUExecutionProvider"]) for p in (model, other)]
    there = {output.name for session in sessions for output in session.get_outputs()}
    wanted = [card.output_name] if card.output_name in there else None
    apart, scale, same = 0.0, 0.0, 0
    for row in rows:
        a, b = (session.run(wanted, {name: row[None]})[0].astype(np.float64) for session in sessions)
        apart, scale = max(apart, float(np.abs(a - b).max())), max(scale, float(np.abs(a).max()))
        same += int(a.argmax() == b.argmax())
    return apart / scale if scale else apart, same


def publish(
    make: Callable[[Path, Path], None],
    model: Path,
    card: cards.Card,
    target: Path,
    rows: np.ndarray,
    how: dict[str, Any],
) -> str:
    """Make a build and its card; returns what is to be said of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}-") as folder:
        # The tools write beside what they read, and read external data from there.
        draft = Path(folder, target.name)
        with _quiet():
            make(model, draft)
        differs, same = compared(model, draft, card, rows)
        document = cards.to_document(card)
        document["source"] = {
            "build_of": {"file": model.name, "sha256": graph.sha256(model)},
            "made": how,
            "verification": {
                "against": f"the original, on onnxruntime {onnxruntime.__version__}",
                "largest_relative_difference": float(f"{differs:.2g}"),
                "same_class": f"{same} of {len(rows)} images",
            },
            "sha256": sha256(draft),
        }
        made = cards.parse(document, where=str(cards.beside(target)))
        if made.feature_name is not None and not _has_layer(draft, made):
            del document["feature"]
            made = cards.parse(document)
        cards.write(made, cards.beside(draft))
        cards.beside(draft).replace(cards.beside(target))
        shutil.move(draft, target)
    return f"{target}: differs by {differs:.1e} relative; same class on {same} of {len(rows)} images"


def _has_layer(model: Path, card: cards.Card) -> bool:
    try:
        graph.prepare(model, card=card)
    except InputError:
        return False
    return True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the tools' advice, which they log to the root logger, and their warnings of rounded weights."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def input_name(model: Path, card: cards.Card) -> str:
    """The name of the image input."""
    return card.input_name or onnxruntime.InferenceSession(str(model)).get_inputs()[0].name


def run(given: argparse.Namespace) -> list[str]:
    """Make all builds that are asked for; returns a line for each."""
    forms = list(dict.fromkeys(given.int8 or []))
    if not (given.fp16 or forms):
        raise UsageError("nothing to make; give --fp16, or --int8 qdq, qoperator or dynamic")
    card_path = cards.locate(given.model, given.card)
    graph.check(given.model)
    card = cards.read(card_path)
    more = "_per_channel" * given.per_channel + f"_{given.calibration}" * (given.calibration != "minmax")
    targets = {form: given.out / f"{given.model.stem}_int8_{form}{more}.onnx" for form in forms}
    if given.fp16:
        targets["fp16"] = given.out / f"{given.model.stem}_fp16.onnx"
    refuse_existing([p for target in targets.values() for p in (target, cards.beside(target))], force=given.force)
    rows = rows_of(given.images, card, given.calibration_images, given.seed)
    reader = Photographs(input_name(given.model, card), rows)
    said = []
    for form, target in targets.items():
        how: dict[str, Any] = {"form": form, "onnxruntime": onnxruntime.__version__}
        make = half
        if form != "fp16":
            make = integers(form, reader, per_channel=given.per_channel, method=given.calibration)
            how |= {"per_channel": given.per_channel}
            how |= {"calibration": given.calibration, "images": len(rows)} if form != "dynamic" else {}
        try:
            said.append(publish(make, given.model, card, target, rows, how))
        except AnalyzerError:
            raise
        except Exception as e:  # the tools raise anything
            raise InputError(f"{given.model}: {form} cannot be made of it: {' '.join(str(e).split()):.200}") from e
    return said


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Make half precision and INT8 builds of an ONNX network.")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--images", type=Path, required=True, help="folder of images that calibrate and compare")
    parser.add_argument("--card", type=Path, help="the model's card, if not the one beside it")
    parser.add_argument("--fp16", action="store_true", help="half precision")
    parser.add_argument("--int8", action="append", choices=FORMS, help="INT8 in this form; may be repeated")
    parser.add_argument("--per-channel", action="store_true", help="a scale for each channel of the weights")
    parser.add_argument("--calibration", choices=tuple(METHODS), default="minmax", help="%(default)s by default")
    parser.add_argument("--calibration-images", type=int, default=100, metavar="N", help="%(default)s by default")
    parser.add_argument("--out", type=Path, default=Path("exported"), help="folder; %(default)s by default")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the images")
    parser.add_argument("--force", action="store_true", help="replace existing builds")
    given = parser.parse_args(argv)
    if given.calibration_images < 1:
        parser.error("--calibration-images must be at least 1")
    try:
        for line in run(given):
            print(line)
    except AnalyzerError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
