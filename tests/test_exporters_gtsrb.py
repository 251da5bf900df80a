"""The sign renderer and the exporter of the two GTSRB networks, and what they shipped in models/."""

import csv
import dataclasses
import hashlib
import importlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from analyzer import card as model_card
from analyzer.errors import AnalyzerError, InputError, UsageError

ROOT = Path(__file__).parents[1]
PARAMETERS = {"ciresan2012": 1_543_443, "aghdam2015": 1_123_449}


@pytest.fixture
def signs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "exporters"))
    return importlib.import_module("signs")


@pytest.fixture
def common(monkeypatch):
    pytest.importorskip("onnxruntime", reason="the exporters check their graphs with ONNX Runtime")
    monkeypatch.syspath_prepend(str(ROOT / "exporters"))
    return importlib.import_module("_common")


@pytest.fixture
def gtsrb(monkeypatch, common):
    torch = pytest.importorskip("torch", reason="training and export need the gtsrb extra")
    importlib.import_module("gtsrb")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module("gtsrb")
    torch.set_num_threads(threads)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image, dtype=int)


# The renderer.


def test_labels_are_43_distinct_names_that_can_be_folders(signs):
    assert len(signs.GTSRB_LABELS) == len(set(signs.GTSRB_LABELS)) == 43
    assert not [name for name in signs.GTSRB_LABELS if set(name) & set('/\\:*?"<>|')]
    assert signs.GTSRB_LABELS[14] == "stop"
    assert signs.GTSRB_LABELS[7] == "speed limit 100"


def test_picture_depends_on_seed_split_and_index_only(signs):
    forward = [signs.sample(3, "train", i)[0] for i in range(6)]
    backward = [signs.sample(3, "train", i)[0] for i in reversed(range(6))][::-1]
    np.testing.assert_array_equal(forward, backward)
    pixels, labels = signs.block(3, "train", 2, 6)
    np.testing.assert_array_equal(pixels, forward[2:])
    assert labels.tolist() == [2, 3, 4, 5]
    for other in [(4, "train", 0), (3, "heldout", 0), (3, "demo", 0), (3, "train", 43)]:
        assert (signs.sample(*other)[0] != forward[0]).mean() > 0.5


@pytest.mark.parametrize("size", [40, 48, 96])
def test_every_class_renders_at_any_size(signs, size):
    for index in range(43):
        pixels, label = signs.sample(0, "heldout", index, size=size)
        assert (pixels.shape, pixels.dtype, label) == ((size, size, 3), np.uint8, index)
        assert pixels.std() > 2


def test_clean_signs_differ_between_classes(signs):
    flat = np.stack([np.asarray(signs.template(i).resize((48, 48)), dtype=float).ravel() for i in range(43)])
    apart = np.stack([np.abs(flat - one).mean(-1) for one in flat])
    assert apart[~np.eye(43, dtype=bool)].min() > 1


@pytest.mark.parametrize(("left", "right"), [(19, 20), (34, 33), (37, 36), (39, 38)])
def test_left_signs_mirror_right_signs(signs, left, right):
    mirrored = np.asarray(signs.template(left), dtype=float)[:, ::-1]
    assert np.abs(mirrored - np.asarray(signs.template(right), dtype=float)).mean() < 1.5


def test_without_strength_the_sign_keeps_its_colours(signs):
    def centre(label):
        return np.mean(
            [signs.sample(0, "train", label + 43 * i, strength=0.0)[0][22:26, 22:26] for i in range(4)], (0, 1, 2)
        )

    assert np.abs(centre(15) - signs.WHITE).max() < 15  # no vehicles: an empty white disc
    assert np.abs(centre(12) - signs.YELLOW).max() < 15  # priority road


def test_demo_writes_one_picture_a_class_and_their_labels(signs, tmp_path):
    assert signs.main(["--out", str(tmp_path)]) == 0
    with (tmp_path / "labels.csv").open(encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert [row["label"] for row in rows] == list(signs.GTSRB_LABELS)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == [row["file"] for row in rows]
    assert rows[7]["file"] == "07_speed_limit_100.png"
    sizes = {pixels(tmp_path / row["file"]).shape for row in rows}
    assert sizes == {(side, side, 3) for side in range(40, 97, 4)}


def test_signs_needs_something_to_write(signs, capsys):
    with pytest.raises(SystemExit) as stop:
        signs.main([])
    assert stop.value.code == 2
    assert "--out" in capsys.readouterr().err


# What was shipped.


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_shipped_model_matches_its_card(signs, name):
    model = ROOT / "models" / f"gtsrb_{name}.onnx"
    card = model_card.read(model_card.beside(model))
    assert card.labels == signs.GTSRB_LABELS
    assert (card.channels, card.size, card.resize.kind, card.kind) == ("BGR", (48, 48), "stretch", "logits")
    assert card.mean == (88.35, 83.70, 91.26)
    assert card.source["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert card.source["heldout"]["accuracy"] >= 0.98
    assert card.source["heldout"]["images"] >= 4300
    assert card.source["verification"]["largest_relative_difference"] <= 1e-4


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_shipped_graph_is_one_file_with_the_networks_parameters(name):
    model = onnx.load(ROOT / "models" / f"gtsrb_{name}.onnx", load_external_data=False)
    onnx.checker.check_model(model)
    weights = [t for t in model.graph.initializer if t.name.endswith((".weight", ".bias"))]
    assert sum(int(np.prod(t.dims)) for t in weights) == PARAMETERS[name]
    assert not [t.name for t in model.graph.initializer if t.external_data]
    assert [v.name for v in model.graph.input] == ["input"]
    assert [v.name for v in model.graph.output] == ["logits", "feature"]
    for value in [*model.graph.input, *model.graph.output]:
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {"conv1", "pool1", "conv2", "pool2", "conv3", "pool3", "fc300", "feature", "logits"} <= {
        node.output[0] for node in model.graph.node
    }
    assert not [node.name for node in model.graph.node if node.metadata_props or node.doc_string]


def test_shipped_demo_is_what_the_command_writes(signs, tmp_path):
    signs.write_demo(tmp_path, seed=0)
    shipped = ROOT / "models" / "demo"
    assert (shipped / "labels.csv").read_text() == (tmp_path / "labels.csv").read_text()
    assert sorted(p.name for p in shipped.iterdir()) == sorted(p.name for p in tmp_path.iterdir())
    for path in tmp_path.glob("*.png"):
        # Another Pillow may round a resize or a compression differently.
        assert np.abs(pixels(path) - pixels(shipped / path.name)).mean() < 2, path.name


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_shipped_model_knows_the_demo(common, signs, name):
    runtime = pytest.importorskip("onnxruntime")
    model = ROOT / "models" / f"gtsrb_{name}.onnx"
    card = model_card.read(model_card.beside(model))
    session = runtime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    right = 0
    for label in range(43):
        with Image.open(ROOT / "models" / "demo" / signs.file_name(label)) as image:
            pixels = np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR), dtype=np.float32)[..., ::-1]
        x = ((pixels - np.float32(card.mean)) / np.float32(card.std)).transpose(2, 0, 1)[None]
        (logits,) = session.run(["logits"], {"input": np.ascontiguousarray(x)})
        right += int(logits.argmax()) == label
    assert right >= 41


# Export in general.


def scale_graph(factor):
    """input (n, 2) -> output = factor * input."""
    weight = onnx.numpy_helper.from_array(np.float32([factor]), "scale.weight")
    shape = ["n", 2]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Mul", ["input", "scale.weight"], ["output"], name="anything")],
        "scale",
        [value("input", onnx.TensorProto.FLOAT, shape)],
        [value("output", onnx.TensorProto.FLOAT, shape)],
        [weight],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


DOCUMENT = {
    "schema": 1,
    "input": {
        "layout": "NCHW",
        "size": [1, 2],
        "channels": "L",
        "resize": {"none": True},
        "mean": [0],
        "std": [1],
    },
    "output": {"kind": "logits"},
    "source": {"licence": "MIT"},
}
BATCH = {"input": np.float32([[1, -4]])}


def test_publish_writes_a_verified_model_and_card(common, tmp_path):
    target = tmp_path / "new" / "scale.onnx"
    found = common.publish(
        scale_graph(2), DOCUMENT, target, batches=[BATCH], expected=lambda b: {"output": 2 * b["input"]}
    )
    assert found == 0
    source = model_card.read(target.with_suffix(".json")).source
    assert source["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert source["verification"]["batch_sizes"] == [1]
    assert sorted(p.name for p in target.parent.iterdir()) == ["scale.json", "scale.onnx"]


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (lambda b: {"output": 2.001 * b["input"]}, "0.0005"),
        (lambda b: {"output": 2 * b["input"][:, :1]}, "inf"),
        (lambda b: {"output": np.nan * b["input"]}, "inf"),
    ],
    ids=["values", "shape", "nan"],
)
def test_publish_leaves_what_was_there_when_the_framework_disagrees(common, tmp_path, expected, said):
    target = tmp_path / "scale.onnx"
    target.write_bytes(b"earlier")
    with pytest.raises(AnalyzerError, match=said):
        common.publish(scale_graph(2), DOCUMENT, target, batches=[BATCH], expected=expected)
    assert [p.name for p in tmp_path.iterdir()] == ["scale.onnx"]
    assert target.read_bytes() == b"earlier"


def test_publish_refuses_a_wrong_card(common, tmp_path):
    target = tmp_path / "scale.onnx"
    with pytest.raises(InputError, match="colour"):
        common.publish(
            scale_graph(2),
            {**DOCUMENT, "colour": 1},
            target,
            batches=[BATCH],
            expected=lambda b: {"output": 2 * b["input"]},
        )
    assert not list(tmp_path.iterdir())


def test_refuse_existing_names_the_file(common, tmp_path):
    present, absent = tmp_path / "a.onnx", tmp_path / "b.onnx"
    present.touch()
    common.refuse_existing([absent], force=False)
    common.refuse_existing([present], force=True)
    with pytest.raises(UsageError, match=r"a\.onnx.*--force"):
        common.refuse_existing([present, absent], force=False)


def test_rename_wants_one_name_a_node(common):
    model = scale_graph(2)
    common.rename(model, ["scaled"])
    assert model.graph.node[0].output[0] == model.graph.output[0].name == model.graph.node[0].name == "scaled"
    with pytest.raises(InputError, match="1 nodes where 2"):
        common.rename(model, ["scaled", "more"])


# The two networks; these need torch.


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_parameter_count_and_shapes(gtsrb, name):
    torch = importlib.import_module("torch")
    network = gtsrb.NETWORKS[name]()
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]
    sizes = {}
    for layer, module in network.named_children():
        module.register_forward_hook(lambda _m, _i, out, layer=layer: sizes.update({layer: tuple(out.shape[1:])}))
    with torch.inference_mode():
        network(torch.zeros(1, 3, 48, 48))
    assert sizes["conv1"] == (100, 42, 42)
    assert (sizes["pool1"], sizes["pool2"], sizes["pool3"]) == ((100, 21, 21), (150, 9, 9), (250, 3, 3))
    assert (sizes["feature"], sizes["logits"]) == ((300,), (43,))


def test_normalised_is_blue_first(gtsrb):
    pixels = np.zeros((1, 48, 48, 3), np.uint8)
    pixels[..., 0] = 255  # red
    x = gtsrb.normalised(pixels).numpy()
    np.testing.assert_allclose(x[0, :, 0, 0], [-88.35 / 256, -83.70 / 256, (255 - 91.26) / 256], rtol=1e-6)


def test_rendered_is_the_same_for_any_number_of_workers(gtsrb):
    alone, labels = gtsrb.rendered(0, "train", 500, workers=1)
    shared, _ = gtsrb.rendered(0, "train", 500, workers=2)
    np.testing.assert_array_equal(alone, shared)
    assert Counter(labels.tolist()).most_common(1)[0][1] == 12


def trained(gtsrb, data, epochs):
    importlib.import_module("torch").manual_seed(0)
    network = gtsrb.ciresan2012()
    gtsrb.initialise(network)
    gtsrb.train(network, data, gtsrb.Settings(epochs=epochs, batch=5), seed=0)
    return network


def test_training_learns_and_follows_the_seed(gtsrb):
    pixels, labels = gtsrb.rendered(0, "train", 430, workers=1)
    two = np.isin(labels, (12, 35))  # priority road, ahead only: yellow and blue
    data = (pixels[two], labels[two])
    assert gtsrb.evaluate(trained(gtsrb, data, epochs=4), data)["accuracy"] > 0.9
    once, again = (trained(gtsrb, data, epochs=1).logits.weight.detach() for _ in range(2))
    np.testing.assert_array_equal(once, again)


# torch's own exporter copies a deprecated class of torch.
@pytest.mark.filterwarnings("ignore:.*treespec.*:FutureWarning")
@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_command_trains_exports_and_refuses_to_replace(gtsrb, signs, name, tmp_path, capsys):
    command = [name, "--out", str(tmp_path), "--epochs", "1", "--per-class", "2", "--heldout-per-class", "1"]
    assert gtsrb.main([*command, "--workers", "1"]) == 0
    model = tmp_path / f"gtsrb_{name}.onnx"
    card = model_card.read(model.with_suffix(".json"))
    assert card.labels == signs.GTSRB_LABELS
    assert (card.input_name, card.output_name, card.feature_name) == ("input", "logits", "feature")
    assert card.source["heldout"]["images"] == 43
    assert card.source["training"]["images"] == 86
    assert card.source["verification"]["batch_sizes"] == [1, 5]
    assert str(ROOT).encode() not in model.read_bytes()
    assert "held-out accuracy" in capsys.readouterr().out

    before = model.read_bytes()
    assert gtsrb.main(command) == 2
    assert "--force" in capsys.readouterr().err
    assert model.read_bytes() == before


def benchmark(folder, signs):
    """A miniature of the official layout: two training pictures, one test picture."""
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    for place, name, label, count in [
        ("Final_Training/Images/00003", "GT-00003.csv", 3, 2),
        ("Final_Test/Images", "GT-final_test.csv", 14, 1),
    ]:
        inner = folder / place
        inner.mkdir(parents=True)
        rows = ""
        for i in range(count):
            frame = np.zeros((60, 70, 3), np.uint8)
            frame[5:53, 10:58] = signs.sample(0, "train", label + 43 * i)[0]
            Image.fromarray(frame).save(inner / f"{i:05d}.ppm")
            rows += f"{i:05d}.ppm;70;60;10;5;57;52;{label}\n"
        (inner / name).write_text(header + rows, encoding="utf-8")
    return folder


def test_benchmark_pictures_are_cut_to_the_sign(gtsrb, signs, tmp_path):
    data = gtsrb.benchmark_data(benchmark(tmp_path, signs), seed=0)
    pixels, labels = data.train
    assert labels.tolist() == [3, 3]
    np.testing.assert_array_equal(pixels[1], signs.sample(0, "train", 46)[0])
    assert data.heldout[1].tolist() == [14]
    assert "test set" in data.card["data"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "Final_Training/Images/00003/GT-00003.csv").unlink(), "Final_Training"),
        (lambda f: (f / "Final_Test/Images/GT-final_test.csv").unlink(), "GT-final_test"),
        (lambda f: (f / "Final_Test/Images/00000.ppm").write_bytes(b"P6"), "GT-final_test"),
        (lambda f: (f / "Final_Test/Images/GT-final_test.csv").write_text("Filename;Width\na;1\n"), r"Roi\.X1"),
        (lambda f: (f / "Final_Test/Images/GT-final_test.csv").write_text("Filename\n"), "no pictures"),
    ],
    ids=["no-training", "no-test-table", "broken-picture", "columns", "empty"],
)
def test_benchmark_that_cannot_be_read_is_named(gtsrb, signs, tmp_path, spoil, said):
    spoil(benchmark(tmp_path, signs))
    with pytest.raises(InputError, match=said):
        gtsrb.benchmark_data(tmp_path, seed=0)


def test_settings_are_the_documented_ones(gtsrb):
    settings = dataclasses.asdict(gtsrb.Settings())
    assert (settings["rate"], settings["momentum"], settings["weight_decay"], settings["batch"]) == (
        0.02,
        0.9,
        1e-5,
        50,
    )
    shipped = json.loads((ROOT / "models" / "gtsrb_ciresan2012.json").read_text(encoding="utf-8"))
    assert shipped["source"]["training"]["rate"] == settings["rate"]
