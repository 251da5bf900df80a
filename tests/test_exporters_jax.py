"""The exporter of Flax networks through jax2onnx."""

import numpy as np
import pytest
from exporting import check_export, check_run, command, loaded, write_pictures

from analyzer.errors import InputError

PARAMETERS = {"resnet18": 11_689_512, "resnet50": 25_557_032}  # as torchvision counts the same networks

# What jax2onnx itself does while it is imported and while it traces.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def exporter():
    yield from loaded("jax_models", "jax", "flax", "jax2onnx", "safetensors")


@pytest.fixture
def small(exporter, monkeypatch):
    """The first network of the table, with one block a stage and small pictures."""
    monkeypatch.setitem(exporter.NETWORKS, "small", ((1, 1), 1))
    monkeypatch.setattr(exporter, "SIDE", 32)
    return exporter


def size(exporter, network):
    params = exporter.jax.tree_util.tree_leaves(exporter.nnx.state(network, exporter.nnx.Param))
    return sum(int(np.prod(p.shape)) for p in params)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_networks_have_the_papers_parameters(exporter, name):
    network = exporter.nnx.eval_shape(lambda: exporter.ResNet(*exporter.NETWORKS[name], exporter.nnx.Rngs(0)))
    assert size(exporter, network) == PARAMETERS[name]


def test_export_is_verified_and_runs(small, tmp_path, capsys):
    code, _, err = command(small, capsys, "small", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    model = tmp_path / "out" / "jax_small.onnx"
    card = check_export(model, feature="pool", units=128, layout="NHWC")
    assert card.size == (32, 32) and card.source["weights"].startswith("random")
    assert "jax2onnx" in card.source["framework"]
    check_run(model, write_pictures(tmp_path / "images", 2, (256, 260)), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "units"), [("resnet18", 512), ("resnet50", 2048)])
def test_full_size_export_is_verified_and_runs(exporter, name, units, tmp_path, capsys):
    code, _, err = command(exporter, capsys, name, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    model = tmp_path / "out" / f"jax_{name}.onnx"
    check_export(model, feature="pool", units=units, layout="NHWC")
    check_run(model, write_pictures(tmp_path / "images", 2, (256, 260)), tmp_path / "run")


def test_a_checkpoint_is_read_or_named(small, tmp_path, capsys):
    from safetensors.numpy import save_file

    network = small.ResNet((1, 1), 1, small.nnx.Rngs(0))
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in small.names(network).items()}
    assert "blocks.1.units.1.conv.kernel" in arrays
    save_file(arrays, tmp_path / "mine.safetensors")
    small.fill(network, tmp_path / "mine.safetensors")
    np.testing.assert_array_equal(network.fc.kernel[...], arrays["fc.kernel"])
    np.testing.assert_array_equal(network.stem.norm.mean[...], arrays["stem.norm.mean"])
    save_file({"fc.kernel": arrays["fc.kernel"][:3]}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors: expected .* with shape"):
        small.fill(network, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("nothing of the kind")
    code, _, err = command(
        small, capsys, "small", "--weights", tmp_path / "text.safetensors", "--out", tmp_path / "out"
    )
    assert code == 4 and "cannot be read as safetensors" in err
    assert not (tmp_path / "out").exists()


def test_refusals(exporter, tmp_path, capsys):
    code, _, err = command(exporter, capsys, "resnet19", "--out", tmp_path)
    assert code == 2 and "near it: resnet18" in err
