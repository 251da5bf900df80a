"""AlexNet and GoogLeNet as published: their layers, their normalisation, and runs of what is exported."""

import numpy as np
import onnx
import pytest
from exporting import check_export, check_run, command, loaded, write_pictures

PARAMETERS = {"alexnet2012": 60_965_224, "googlenet2014": 6_998_552}
FEATURES = {"alexnet2012": 4096, "googlenet2014": 1024}


@pytest.fixture(scope="module")
def exporter():
    yield from loaded("published", "torch", "onnxscript")


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_parameters_are_the_papers(exporter, name):
    with exporter.torch.device("meta"):
        network = exporter.NETWORKS[name].build(1000)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


def sizes(exporter, name):
    """(channels, height, width) after every layer of the top level."""
    torch, found = exporter.torch, {}
    entry = exporter.NETWORKS[name]
    network = entry.build(10).eval()
    for layer, module in network.named_children():
        module.register_forward_hook(lambda _m, _i, out, layer=layer: found.update({layer: tuple(out.shape[1:])}))
    with torch.inference_mode():
        network(torch.zeros(1, 3, entry.side, entry.side))
    return found


def test_alexnet_has_the_papers_maps_and_groups(exporter):
    found = sizes(exporter, "alexnet2012")
    assert (found["conv1"], found["conv2"]) == ((96, 55, 55), (256, 27, 27))
    assert (found["conv3"], found["conv4"], found["conv5"]) == ((384, 13, 13), (384, 13, 13), (256, 13, 13))
    assert (found["pool5"], found["fc7"], found["fc8"]) == ((256, 6, 6), (4096,), (10,))
    network = exporter.alexnet2012(10)
    assert [getattr(network, f"conv{i}").groups for i in range(1, 6)] == [1, 2, 1, 2, 2]


def test_googlenet_has_the_maps_of_table_1(exporter):
    found = sizes(exporter, "googlenet2014")
    assert (found["conv1"], found["conv2"], found["pool2"]) == ((64, 112, 112), (192, 56, 56), (192, 28, 28))
    assert (found["inception_3a"], found["inception_3b"]) == ((256, 28, 28), (480, 28, 28))
    assert (found["inception_4a"], found["inception_4e"]) == ((512, 14, 14), (832, 14, 14))
    assert (found["inception_5b"], found["pool"]) == ((1024, 7, 7), (1024, 1, 1))


def test_normalisation_is_the_papers_formula(exporter):
    """Section 3.3: b_i = a_i / (k + alpha * sum of a_j^2 over n neighbouring maps)^beta; k, n, alpha, beta below."""
    k, n, alpha, beta = 2, 5, 1e-4, 0.75
    a = np.random.default_rng(0).normal(0, 40, (2, 9, 3, 3))
    expected = np.empty_like(a)
    for i in range(9):
        near = a[:, max(0, i - n // 2) : i + n // 2 + 1]
        expected[:, i] = a[:, i] / (k + alpha * (near**2).sum(1)) ** beta
    found = exporter.LocalResponseNorm()(exporter.torch.from_numpy(a)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["googlenet2014", pytest.param("alexnet2012", marks=pytest.mark.slow)])
def test_export_is_verified_and_runs(exporter, name, tmp_path, capsys):
    images = write_pictures(tmp_path / "images", 5)
    options = ["--out", tmp_path / "out", "--photos", images]
    code, out, err = command(exporter, capsys, name, *options)
    assert (code, err) == (0, "")
    assert "verified" in out
    model = tmp_path / "out" / f"published_{name}.onnx"
    card = check_export(model, feature=exporter.NETWORKS[name].feature, units=FEATURES[name])
    assert (card.size, card.std) == ((exporter.NETWORKS[name].side,) * 2, (1.0, 1.0, 1.0))
    nodes = onnx.load(model).graph.node
    first, _ = [node for node in nodes if node.op_type == "LRN"]
    values = {a.name: onnx.helper.get_attribute_value(a) for a in first.attribute}
    assert values == pytest.approx({"alpha": 5e-4, "beta": 0.75, "bias": 2.0, "size": 5})
    for image in sorted(images.iterdir())[2:]:
        image.unlink()
    check_run(model, images, tmp_path / "run")


def test_an_export_that_differs_leaves_no_file(exporter, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(exporter.NETWORKS, "small", small(exporter))

    right = exporter.outputs

    def expected(tapped, feature, batch):
        found = right(tapped, feature, batch)
        return {**found, feature: found[feature] * (1 + 3e-4)}

    for answers, wanted in ((expected, 1), (right, 0)):
        monkeypatch.setattr(exporter, "outputs", answers)
        code, _, err = command(exporter, capsys, "small", "--out", tmp_path / "out")
        assert code == wanted
        if code:
            assert "not written" in err and "relative" in err
            assert list((tmp_path / "out").iterdir()) == []
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["published_small.json", "published_small.onnx"]


def small(exporter):
    """A network of the table with three layers."""
    nn = exporter.nn

    def build(classes):
        pooled = {"conv1": nn.Conv2d(3, 4, 3), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
        return nn.Sequential(exporter.OrderedDict(pooled, fc=nn.Linear(4, classes)))

    return exporter.Entry(build, 16, "fc", "pool", "none")


def test_a_checkpoint_of_another_number_of_classes(exporter, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(exporter.NETWORKS, "small", small(exporter))
    exporter.torch.save(exporter.NETWORKS["small"].build(5).state_dict(), tmp_path / "five.pth")
    options = ["--weights", tmp_path / "five.pth", "--out", tmp_path / "out"]
    assert command(exporter, capsys, "SMALL", *options)[0] == 0
    model = tmp_path / "out" / "published_small.onnx"
    assert onnx.load(model).graph.output[0].type.tensor_type.shape.dim[1].dim_value == 5
    assert check_export(model, feature="pool", units=4).source["weights"] == "file five.pth"
    code, _, err = command(exporter, capsys, "small", *options)
    assert code == 2 and "--force" in err
    assert command(exporter, capsys, "small", *options, "--force")[0] == 0


def test_refusals(exporter, tmp_path, capsys):
    code, _, err = command(exporter, capsys, "alexnet", "--out", tmp_path)
    assert code == 2 and "near it: alexnet2012" in err
    code, _, err = command(exporter, capsys, "alexnet2012", "--weights", tmp_path / "none.pth", "--out", tmp_path)
    assert code == 4 and "none.pth" in err
    assert not list(tmp_path.iterdir())
