"""The exporter of timm's networks: the card from pretrained_cfg, refusals, and a run of what it exports."""

import pytest
from exporting import check_export, check_run, command, loaded, write_pictures

from analyzer.errors import InputError


@pytest.fixture(scope="module")
def exporter():
    yield from loaded("timm_models", "torch", "torchvision", "timm", "safetensors")


@pytest.mark.parametrize(
    ("name", "side", "units"),
    [
        ("test_resnet", 160, 96),
        pytest.param("mobilenetv3_small_100", 224, 1024, marks=pytest.mark.slow),
        pytest.param("convnext_atto", 224, 320, marks=pytest.mark.slow),
        pytest.param("resnet50", 224, 2048, marks=pytest.mark.slow),
        pytest.param("densenet121", 224, 1024, marks=pytest.mark.slow),
        pytest.param("regnety_002", 224, 368, marks=pytest.mark.slow),
    ],
)
def test_export_is_verified_and_runs(exporter, name, side, units, tmp_path, capsys):
    code, _, err = command(exporter, capsys, name, "--weights", "none", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    model = tmp_path / "out" / f"timm_{name}.onnx"
    card = check_export(model, feature="feature", units=units)
    config = exporter.timm.create_model(name).pretrained_cfg
    assert card.size == (side, side)
    assert card.mean == pytest.approx([255 * m for m in config["mean"]])
    assert card.std == pytest.approx([255 * s for s in config["std"]])
    assert card.resize.side == int(side / config["crop_pct"])
    assert (len(card.labels), card.labels[0]) == (1000, "tench, Tinca tinca")
    check_run(model, write_pictures(tmp_path / "images", 2), tmp_path / "run")


def test_the_resize_is_timms_own(exporter):
    """Against the transforms that timm builds for evaluation."""
    for name in ("resnet18", "test_resnet", "efficientnet_b0", "convnext_tiny", "resnet50.a1_in1k"):
        config = exporter.timm.create_model(name).pretrained_cfg
        ours = exporter.resize(name, config)
        steps = exporter.timm.data.create_transform(**exporter.timm.data.resolve_data_config(pretrained_cfg=config))
        scale, crop = steps.transforms[:2]
        assert (ours["shorter_side"], ours["interpolation"]) == (scale.size, scale.interpolation.value)
        assert tuple(crop.size) == tuple(config["input_size"][1:])


def test_a_resize_that_a_card_cannot_say_is_refused(exporter):
    config = {"input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash"}
    assert exporter.resize("x", config) == {"stretch": True, "interpolation": "bicubic"}
    for changed in ({"crop_pct": 0.9}, {"crop_mode": "border"}, {"interpolation": "hamming"}):
        with pytest.raises(InputError, match="which a card cannot say"):
            exporter.resize("x", {**config, **changed})
    with pytest.raises(InputError, match="200 x 224"):
        exporter.resize("x", {**config, "crop_mode": "center", "input_size": (3, 200, 224)})


def test_a_checkpoint_is_read_and_never_unpickled(exporter, tmp_path):
    torch = exporter.torch
    state = exporter.timm.create_model("test_resnet", num_classes=4).state_dict()
    torch.save(state, tmp_path / "mine.pth")
    built = exporter.build("test_resnet", str(tmp_path / "mine.pth"))
    torch.testing.assert_close(built.network.state_dict(), state, rtol=0, atol=0)
    assert (built.labels, built.weights) == (None, "file mine.pth")
    torch.save({"fc.weight": open}, tmp_path / "code.pth")
    with pytest.raises(InputError, match="weights only"):
        exporter.build("test_resnet", str(tmp_path / "code.pth"))
    assert exporter.os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"


def test_no_connection_is_one_line_that_names_the_way_out(exporter, tmp_path, capsys, monkeypatch):
    create = exporter.timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("no\nconnection")
        return create(name, **options)

    monkeypatch.setattr(exporter.timm, "create_model", offline)
    code, _, err = command(exporter, capsys, "test_resnet", "--out", tmp_path / "out")
    assert code == 2
    assert len(err.splitlines()) == 1 and "--weights PATH" in err and "no connection" in err
    assert not (tmp_path / "out").exists()


def test_refusals(exporter, capsys):
    code, _, err = command(exporter, capsys, "resnet19")
    assert code == 2 and "near it: resnet18" in err
    code, _, err = command(exporter, capsys, "resnet18.tv_in2k")
    assert code == 2 and "resnet18.tv_in1k" in err
    code, _, err = command(exporter, capsys, "deit_tiny_distilled_patch16_224", "--weights", "none")
    assert code == 2 and "no single classifier" in err
