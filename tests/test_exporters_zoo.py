"""The ready cards of the ONNX Model Zoo's files, on the same graphs as the onnx package carries them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from exporting import RADII, loaded, write_pictures
from onnx import numpy_helper

from analyzer import card as cards
from analyzer import drafting, graph

CARDS = Path(__file__).parents[1] / "models" / "zoo"
GRAPHS = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
# card -> graph of the package, units of the layer before the classification
FILES = {
    "bvlcalexnet": ("light_bvlc_alexnet", 4096),
    "googlenet": ("light_inception_v1", 1024),  # the package has no light copy; layers and names are the same
    "inception_v1": ("light_inception_v1", 1024),
    "vgg19": ("light_vgg19", 4096),
    "resnet50": ("light_resnet50", 2048),
}


@pytest.fixture(scope="module", autouse=True)
def common():
    yield from loaded("_common")


def refilled(name: str, scale: float, folder: Path) -> Path:
    """The package's graph, in which all weights are one constant, with random ones (He's, the first layer / scale)."""
    model = onnx.load(GRAPHS / f"{FILES[name][0]}.onnx")
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    rng, kept = np.random.default_rng(1), []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        weight = node.output[0]
        shape = [int(n) for n in shapes[node.input[0]]]
        if len(shape) > 1:
            values = rng.standard_normal(shape, dtype=np.float32) * np.sqrt(2 / np.prod(shape[1:]), dtype=np.float32)
        else:  # a scale and a variance of batch normalisation are 1, shifts, means and biases 0
            values = np.full(shape, weight.endswith(("_s_0", "_riv_0")), np.float32)
        if weight.endswith("branch2c_bn_s_0"):  # a residual branch that adds little, so that the sum does not grow
            values *= 0.25
        model.graph.initializer.append(numpy_helper.from_array(values, weight))
    first = next(n for n in kept if n.op_type == "Conv").input[1]
    for tensor in model.graph.initializer:
        if tensor.name == first:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / np.float32(scale), first))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    path = folder / f"{name}.onnx"
    onnx.save_model(model, path)
    return path


@pytest.mark.parametrize("name", sorted(FILES))
def test_card_names_the_tensors_of_the_graph(name):
    card = cards.read(CARDS / f"{name}.json")
    shown = graph.describe(GRAPHS / f"{FILES[name][0]}.onnx")
    assert [n for n, _, _ in shown.inputs] == [card.input_name]
    assert [n for n, _, _ in shown.outputs] == [card.output_name]
    assert shown.softmax and card.kind == "probabilities"
    assert shown.inputs[0][2][1:] == (3, *card.size)
    assert card.channels == "BGR" and list(card.mean) == sorted(card.mean)  # blue has the smallest mean


def test_every_card_is_tested():
    assert {p.stem for p in CARDS.glob("*.json")} == set(FILES)


@pytest.mark.parametrize(
    "name",
    ["inception_v1", *(pytest.param(n, marks=pytest.mark.slow) for n in FILES if n != "inception_v1")],
)
def test_a_file_of_the_zoo_runs_with_its_card(name, tmp_path):
    import runs

    card = CARDS / f"{name}.json"
    model = refilled(name, 1 if name == "resnet50" else 100, tmp_path)
    assert not cards.beside(model).exists()
    images = write_pictures(tmp_path / "images", 2)
    options = {"radii": RADII, "trials": 5, "batch_size": 5, "permutations": 19, "threads": 1, "card": card}
    found = runs.measure(model, images, tmp_path / "run", **options)
    assert found.sizes["image"] == 2
    for variable in ("isotropy_log_odds", "symmetry_log_odds", "feature_distance"):
        assert np.isfinite(found[variable].values).all(), variable
    distance = found["feature_distance"].values[..., 0].mean(2)
    assert (distance[:, 1] > 2 * distance[:, 0]).all()
    assert (distance > 2 * found["feature_noise_floor"].values).all()
    (shape,) = {tuple(s) for n, s, _ in graph.describe(model).features if n == found["layer"].item()}
    assert np.prod([n for n in shape[1:] if n]) == FILES[name][1]


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_card_is_drafted_from_that_of_the_zoo(name, tmp_path):
    drafted = drafting.draft(refilled(name, 1.0, tmp_path))
    card = cards.read(CARDS / f"{name}.json")
    assert (
        drafted.origins["input.mean"].startswith("the card ")
        and "of the ONNX Model Zoo" in drafted.origins["input.mean"]
    )
    pixels = drafted.document["input"]
    assert (pixels["mean"], pixels["std"], pixels["channels"]) == (list(card.mean), list(card.std), card.channels)
    assert any("trained otherwise" in item for item in drafted.document["source"]["fill_in"])
