"""The exporter of torchvision's networks: cards from the weights, checkpoints, refusals, runs of what it exports."""

import pickle
import urllib.error

import numpy as np
import pytest
from exporting import check_export, check_run, command, loaded, write_pictures

SLOW = ("alexnet", "vgg16", "vgg19", "resnet50", "resnet101", "resnet152")
FEATURES = {"fc2": 4096, "googlenet": 1024, "resnet18": 512, "resnet50": 2048, "resnet101": 2048, "resnet152": 2048}


@pytest.fixture(scope="module")
def exporter():
    yield from loaded("torchvision_models", "torch", "torchvision", "safetensors")


@pytest.fixture
def torch(exporter):
    return exporter.torch


def test_every_network_has_its_head(exporter):
    for name, head in exporter.NETWORKS.items():
        with exporter.torch.device("meta"):
            network = exporter._empty(name, 1000)
        assert next(iter(exporter.presets(name))) == exporter.FIRST
        last = network.get_submodule(head.classifier)
        assert last.out_features == 1000
        assert last.in_features == FEATURES.get(name, FEATURES.get(head.feature, 512))


@pytest.mark.parametrize("name", ["googlenet", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_export_is_verified_and_runs(exporter, name, tmp_path, capsys):
    code, out, err = command(exporter, capsys, name, "--weights", "none", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    model = tmp_path / "out" / f"torchvision_{name}.onnx"
    assert str(model) in out
    feature = exporter.NETWORKS[name].feature
    card = check_export(model, feature=feature, units=FEATURES.get(name, FEATURES.get(feature)))
    assert (card.size, card.resize.side, card.resize.interpolation) == ((224, 224), 256, "bilinear")
    np.testing.assert_allclose(card.mean, (123.675, 116.28, 103.53))
    np.testing.assert_allclose(card.std, (58.395, 57.12, 57.375))
    assert (len(card.labels), card.labels[0], card.labels[999]) == (1000, "tench", "toilet tissue")
    assert card.source["weights"].startswith("random")
    check_run(model, write_pictures(tmp_path / "images", 2), tmp_path / "run")


def test_trained_weights_are_torchvisions_first_and_bring_their_preprocessing(exporter, torch, monkeypatch):
    asked = []

    def download(url, **options):
        asked.append((url, options))
        return exporter.tv.models.resnet50(weights=None).state_dict()

    from torchvision.models import _api

    monkeypatch.setattr(_api, "load_state_dict_from_url", download)
    built = exporter.build("resnet50", exporter.FIRST)
    assert "resnet50-0676ba61" in asked[0][0]
    assert asked[0][1]["weights_only"] is True and asked[0][1]["check_hash"] is True
    assert exporter.card("resnet50", built)["input"]["resize"]["shorter_side"] == 256
    later = exporter.build("resnet50", "IMAGENET1K_V2")
    assert exporter.card("resnet50", later)["input"]["resize"]["shorter_side"] == 232
    assert "IMAGENET1K_V2" in later.weights and later.labels


def test_no_connection_is_one_line_that_names_the_way_out(exporter, tmp_path, capsys, monkeypatch):
    from torchvision.models import _api

    def download(url, **options):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(_api, "load_state_dict_from_url", download)
    code, out, err = command(exporter, capsys, "resnet18", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "--weights PATH" in err and "--weights none" in err and "resnet18" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_is_read(exporter, torch, tmp_path, suffix):
    torch.manual_seed(1)
    state = exporter.tv.models.resnet18(weights=None, num_classes=7).state_dict()
    path = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    built = exporter.build("resnet18", str(path))
    for name, tensor in built.network.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)
    assert (built.labels, built.weights) == (False, f"file {path.name}")
    assert "labels" not in exporter.card("resnet18", built)["output"]


def test_googlenet_takes_torchvisions_file_with_its_side_classifiers(exporter, torch, tmp_path):
    state = exporter.tv.models.googlenet(weights=None, init_weights=False, aux_logits=True).state_dict()
    torch.save(state, tmp_path / "googlenet.pth")
    built = exporter.build("googlenet", str(tmp_path / "googlenet.pth"))
    assert built.network.transform_input and not built.network.aux_logits
    torch.testing.assert_close(built.network.fc.weight, state["fc.weight"])


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_checkpoint_is_never_unpickled(exporter, torch, tmp_path, capsys):
    for i, save in enumerate((torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing)))):
        path = tmp_path / f"bomb{i}.pth"
        save({"conv1.weight": Bomb(tmp_path / "written")}, path)
        code, _, err = command(exporter, capsys, "resnet18", "--weights", path, "--out", tmp_path / "out")
        assert code == 4
        assert str(path) in err and "weights only" in err
        assert not (tmp_path / "written").exists()


def test_checkpoints_that_do_not_fit_are_named(exporter, torch, tmp_path, capsys):
    state = exporter.tv.models.resnet18(weights=None).state_dict()
    spoilt = {
        "lacks": {k: v for k, v in state.items() if k != "bn1.weight"},
        "unlike": {**state, "more.weight": torch.zeros(3)},
        "shape": {**state, "bn1.weight": torch.zeros(3)},
        "no dictionary": {"conv1": 3},
        "tensors saved": None,
        "no such": None,
    }
    for said, thing in spoilt.items():
        path = tmp_path / f"{said}.pth"
        if thing is not None:
            torch.save(thing, path)
        elif said != "no such":
            path.write_bytes(b"nothing of the kind")
        code, _, err = command(exporter, capsys, "resnet18", "--weights", path, "--out", tmp_path / "out")
        assert code == 4, said
        assert said in err and len(err.splitlines()) <= 2
    assert not (tmp_path / "out").exists()


def test_refusals(exporter, tmp_path, capsys):
    code, _, err = command(exporter, capsys, "resnet51")
    assert (code, err.startswith("error: no network 'resnet51'; near it: resnet50, ")) == (2, True)
    code, _, err = command(exporter, capsys, "resnet18", "--weights", "IMAGENET1K_V7", "--out", tmp_path)
    assert code == 2 and "IMAGENET1K_V1" in err
    (tmp_path / "torchvision_resnet18.json").write_text("mine")
    code, _, err = command(exporter, capsys, "resnet18", "--weights", "none", "--out", tmp_path)
    assert code == 2 and "--force" in err and "torchvision_resnet18.json" in err
    assert [p.name for p in tmp_path.iterdir()] == ["torchvision_resnet18.json"]
    with pytest.raises(SystemExit) as stop:
        exporter.main(["resnet18", "--seed", "-1"])
    assert stop.value.code == 2


def test_torchvision_beside_a_torch_without_its_operators(exporter):
    """Its own import fails then; classification works either way."""
    network = exporter.tv.models.resnet18(weights=None).eval()
    assert network(exporter.torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
