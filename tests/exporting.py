"""Helpers of the exporters' tests: an exporter as a module, pictures, and a small run of the analyzer."""

import hashlib
import importlib
import importlib.util
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import runs
from PIL import Image

from analyzer import card as cards

ROOT = Path(__file__).parents[1]
RADII = (1.0, 4.0)


def loaded(name: str, *packages: str):
    """Yields the script exporters/`name`.py as a module, on one thread; skips where one of `packages` is missing."""
    for package in ("onnxruntime", *packages):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"exporters/{name}.py needs the package {package}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "exporters"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's packages while they are imported
            module = importlib.import_module(name)
        torch = sys.modules.get("torch")
        threads = torch.get_num_threads() if torch else 0
        if torch:
            torch.set_num_threads(1)
        yield module
        if torch:
            torch.set_num_threads(threads)


def write_pictures(folder: Path, count: int, size: tuple[int, int] = (240, 256)) -> Path:
    """`count` scene-like PNG files of size (height, width), by the exporters' own function."""
    picture = importlib.import_module("_common").picture
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    for i in range(count):
        pixels = picture(rng, (3, *size)).transpose(1, 2, 0)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"scene_{i}.png")
    return folder


def command(module, capsys, *arguments) -> tuple[int, str, str]:
    """Run an exporter's command: (exit code, stdout, stderr)."""
    capsys.readouterr()
    code = module.main([str(a) for a in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def check_export(model: Path, *, feature: str, units: int, layout: str = "NCHW") -> cards.Card:
    """The export is one complete, checked graph, and its card says what was verified; returns the card."""
    card = cards.read(cards.beside(model))
    assert (card.input_name, card.output_name, card.feature_name) == ("input", "logits", feature)
    assert (card.layout, card.kind) == (layout, "logits")
    assert card.source["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    verification = card.source["verification"]
    assert verification["batch_sizes"] == [1, 5]
    assert 0 <= verification["largest_relative_difference"] <= 1e-4
    proto = onnx.load(model, load_external_data=False)
    assert [v.name for v in proto.graph.input] == ["input"]
    assert [v.name for v in proto.graph.output] == ["logits", feature]
    for value in [*proto.graph.input, *proto.graph.output]:
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert proto.graph.output[1].type.tensor_type.shape.dim[1].dim_value == units
    assert not [t.name for t in proto.graph.initializer if t.external_data]
    assert str(ROOT).encode() not in proto.SerializeToString()
    assert sorted(p.name for p in model.parent.iterdir() if p.name.startswith(".")) == []
    return card


def check_run(model: Path, images: Path, out: Path):
    """`analyzer run` by a small protocol completes, with numbers everywhere; returns the dataset."""
    found = runs.measure(model, images, out, radii=RADII, trials=5, batch_size=5, permutations=19, threads=1)
    assert found.sizes["image"] == len(list(images.iterdir()))
    assert (found.sizes["radius"], found.sizes["trial"]) == (2, 5)
    for name in ("isotropy_log_odds", "symmetry_log_odds", "feature_distance", "lipschitz"):
        assert np.isfinite(found[name].values).all(), name
    # The network is not a constant: what a perturbation does stands above the noise floor, and grows with it.
    distance = found["feature_distance"].values
    assert (distance.mean(2)[..., 0] > 2 * found["feature_noise_floor"].values).all()
    assert (distance[:, 1].mean(1) > distance[:, 0].mean(1)).all()
    return found
