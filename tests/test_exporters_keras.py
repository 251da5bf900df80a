"""The exporter of keras.applications: cards read off preprocess_input, and the same network from two frameworks."""

import importlib

import numpy as np
import pytest
import runs
from exporting import RADII, check_export, check_run, command, loaded, write_pictures

# Keras on PyTorch hands its tensors to numpy in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CAFFE, IMAGENET = (103.939, 116.779, 123.68), (123.675, 116.28, 103.53)


@pytest.fixture(scope="module")
def exporter():
    yield from loaded("keras_models", "torch", "keras", "onnxscript")


@pytest.mark.parametrize(
    ("name", "feature", "side", "units"),
    [
        ("MobileNetV3Small", "pool", 224, 1024),
        pytest.param("MobileNetV2", "pool", 224, 1280, marks=pytest.mark.slow),
        pytest.param("ResNet50", "pool", 224, 2048, marks=pytest.mark.slow),
        pytest.param("VGG16", "fc2", 224, 4096, marks=pytest.mark.slow),
        pytest.param("DenseNet121", "pool", 224, 1024, marks=pytest.mark.slow),
        pytest.param("EfficientNetB0", "pool", 224, 1280, marks=pytest.mark.slow),
    ],
)
def test_export_is_verified_and_runs(exporter, name, feature, side, units, tmp_path, capsys):
    code, _, err = command(exporter, capsys, name.lower(), "--weights", "none", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    model = tmp_path / "out" / f"keras_{name}.onnx"
    card = check_export(model, feature=feature, units=units, layout="NHWC")
    assert card.size == (side, side)
    images = write_pictures(tmp_path / "images", 2, (350, 360))
    check_run(model, images, tmp_path / "run")


@pytest.mark.parametrize(
    ("module", "channels", "mean", "std"),
    [
        ("resnet50", "BGR", CAFFE, (1, 1, 1)),
        ("vgg16", "BGR", CAFFE, (1, 1, 1)),
        ("mobilenet_v2", "RGB", (127.5,) * 3, (127.5,) * 3),
        ("densenet", "RGB", IMAGENET, (58.395, 57.12, 57.375)),
        ("efficientnet", "RGB", (0, 0, 0), (1, 1, 1)),  # scales inside the graph
    ],
)
def test_the_card_is_read_off_preprocess_input(exporter, module, channels, mean, std):
    preprocess = getattr(exporter.keras.applications, module).preprocess_input
    found = exporter.preparation(preprocess)
    assert found["channels"] == channels
    assert found["mean"] == pytest.approx(mean, abs=1e-3)
    assert found["std"] == pytest.approx(std, abs=1e-3)


def test_a_preprocess_input_that_is_not_affine_is_refused(exporter):
    with pytest.raises(exporter.InputError, match="all a card can say"):
        exporter.preparation(lambda pixels: np.sqrt(pixels))


def test_no_connection_is_one_line_that_names_the_way_out(exporter, tmp_path, capsys, monkeypatch):
    real = exporter.NETWORKS["MobileNetV3Small"]

    def offline(weights, **options):
        if weights == "imagenet":
            raise Exception("URL fetch failure on https://example.org: None -- no route")
        return real(weights=weights, **options)

    monkeypatch.setitem(exporter.NETWORKS, "MobileNetV3Small", offline)
    code, _, err = command(exporter, capsys, "MobileNetV3Small", "--out", tmp_path / "out")
    assert code == 2
    assert len(err.splitlines()) == 1 and "--weights PATH" in err and "URL fetch failure" in err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_is_read_or_named(exporter, tmp_path, capsys):
    exporter.keras.utils.set_random_seed(3)
    trained = exporter.NETWORKS["MobileNetV3Small"](weights=None, classifier_activation=None)
    trained.save_weights(tmp_path / "mine.weights.h5")
    network, said = exporter.build("MobileNetV3Small", str(tmp_path / "mine.weights.h5"))
    assert said == "file mine.weights.h5"
    for a, b in zip(network.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    (tmp_path / "text.h5").write_text("no HDF5")
    for path in ("text.h5", "absent.weights.h5", "mine.pkl"):
        (tmp_path / "mine.pkl").write_bytes(b"")
        options = ["--weights", tmp_path / path, "--out", tmp_path / "out"]
        code, _, err = command(exporter, capsys, "MobileNetV3Small", *options)
        assert code == 4 and path in err, path


def test_a_network_that_keras_cannot_export_is_one_line(exporter, tmp_path, capsys, monkeypatch):
    def cannot(*_, **__):
        raise RuntimeError("not\nconstant")

    monkeypatch.setattr(exporter.keras.Model, "export", cannot)
    code, _, err = command(exporter, capsys, "MobileNetV3Small", "--weights", "none", "--out", tmp_path / "out")
    assert code == 4
    assert len(err.splitlines()) == 1 and "MobileNetV3Small: Keras cannot export" in err
    assert not (tmp_path / "out").exists()


def test_refusals(exporter, tmp_path, capsys):
    code, _, err = command(exporter, capsys, "ResNet51")
    assert code == 2 and "ResNet50" in err
    (tmp_path / "keras_VGG16.onnx").write_bytes(b"mine")
    code, _, err = command(exporter, capsys, "vgg16", "--weights", "none", "--out", tmp_path)
    assert code == 2 and "--force" in err
    assert (tmp_path / "keras_VGG16.onnx").read_bytes() == b"mine"


# The same network from two frameworks.

MAPS, CLASSES, SIDE = (16, 32), 7, 32


def in_keras(keras):
    """Two convolutions, batch normalisation, pooling, a hidden layer: channels last."""
    layers = keras.layers
    x = given = keras.Input((SIDE, SIDE, 3))
    for maps in MAPS:
        x = layers.Conv2D(maps, 3, padding="same")(x)
        x = layers.BatchNormalization(epsilon=1e-5)(x)
        x = layers.MaxPooling2D()(layers.ReLU()(x))
    x = layers.Dense(24, activation="relu")(layers.Flatten()(x))
    return keras.Model(given, layers.Dense(CLASSES)(x))


def in_torch(torch):
    """The same, channels first."""
    nn, layers, channels = torch.nn, [], 3
    for maps in MAPS:
        layers += [nn.Conv2d(channels, maps, 3, padding=1), nn.BatchNorm2d(maps), nn.ReLU(), nn.MaxPool2d(2)]
        channels = maps
    layers += [nn.Flatten(), nn.Linear(channels * (SIDE // 4) ** 2, 24), nn.ReLU(), nn.Linear(24, CLASSES)]
    return nn.Sequential(*layers).eval()


def copy_weights(network, keras_network):
    """From PyTorch to Keras: kernels transposed, and the columns of the first dense layer reordered."""
    weighted = [layer for layer in keras_network.layers if layer.weights]
    sources = [layer for layer in network if list(layer.parameters())]
    for layer, source in zip(weighted, sources, strict=True):
        tensors = {name: tensor.detach().numpy() for name, tensor in source.state_dict().items()}
        weight, bias = tensors["weight"], tensors["bias"]
        if weight.ndim == 4:
            layer.set_weights([weight.transpose(2, 3, 1, 0), bias])
        elif weight.ndim == 1:
            layer.set_weights([weight, bias, tensors["running_mean"], tensors["running_var"]])
        else:
            if weight.shape[1] == MAPS[-1] * (SIDE // 4) ** 2:
                folded = weight.reshape(-1, MAPS[-1], SIDE // 4, SIDE // 4)
                weight = folded.transpose(0, 2, 3, 1).reshape(len(weight), -1)
            layer.set_weights([weight.T, bias])


def document(layout):
    pixels = {"name": "input", "layout": layout, "size": [SIDE, SIDE], "channels": "RGB", "resize": {"none": True}}
    return {
        "schema": 1,
        "input": {**pixels, "mean": [120, 115, 100], "std": [60, 58, 57]},
        "output": {"name": "logits", "kind": "logits"},
        "feature": {"name": "fc1"},
        "source": {"weights": "random"},
    }


def test_the_same_network_from_pytorch_and_from_keras_gives_the_same_results(exporter, tmp_path):
    torch, keras = exporter.torch, exporter.keras
    common, in_common = importlib.import_module("_common"), importlib.import_module("_torch")
    torch.manual_seed(4)
    network = in_torch(torch)
    inputs = common.batches(document("NCHW"), seed=4)
    in_common.settle(network, inputs[common.SCENES]["input"])
    tapped = in_common.Tapped(network, str(len(network) - 1))
    first, second = tmp_path / "torch.onnx", tmp_path / "keras.onnx"
    common.publish(
        in_common.exported(tapped, (3, SIDE, SIDE), feature="fc1"),
        document("NCHW"),
        first,
        batches=inputs,
        expected=lambda batch: in_common.outputs(tapped, "fc1", batch),
    )
    twin = in_keras(keras)
    copy_weights(network, twin)
    exporter.export(twin, document("NHWC"), second, seed=4)

    images = write_pictures(tmp_path / "images", 4, (SIDE, SIDE))
    options = {"radii": (0.5, *RADII), "trials": 8, "permutations": 19, "threads": 1}
    a, b = (runs.measure(path, images, tmp_path / f"run_{path.stem}", **options) for path in (first, second))
    assert a["isotropy_log_odds"].shape == (4, 3, 8)
    floors = {
        "log_odds": max(a["log_odds_noise_floor"].max(), b["log_odds_noise_floor"].max()).item(),
        "distance": max(a["feature_noise_floor"].max(), b["feature_noise_floor"].max()).item(),
    }
    for name in ("isotropy_log_odds", "symmetry_log_odds", "feature_distance"):
        floor = floors["distance" if name == "feature_distance" else "log_odds"]
        np.testing.assert_allclose(a[name].values, b[name].values, rtol=1e-3, atol=floor, err_msg=name)
    # The changes too, of which the log-odds themselves would hide a wrong one.
    for name in ("isotropy_log_odds", "symmetry_log_odds"):
        changes = [(d[name] - d["clean_log_odds"]).values for d in (a, b)]
        assert np.abs(changes[0]).max() > 0.01
        np.testing.assert_allclose(*changes, rtol=1e-3, atol=1e-3 * np.abs(changes[0]).max(), err_msg=name)
    np.testing.assert_array_equal(a["clean_predicted"], b["clean_predicted"])
    assert a.attrs["manifest"] != b.attrs["manifest"]
