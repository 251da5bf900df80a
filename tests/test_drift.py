"""Drift: two builds of one network, row by row, against what is known in closed form or computed independently."""

import itertools
import shutil

import graphs
import numpy as np
import onnx
import onnxruntime
import pytest
import runs
from graphs import node, tensor, value
from PIL import Image
from scipy.special import logsumexp

from analyzer import store
from analyzer.perturbations import deltas
from analyzer.sketch import STANDARD_ERROR
from analyzer.verdicts.drift import drift

SIZE = 3 * 8 * 8


def noise_images(folder, count):
    """Images of independent pixels: nothing in them lines up with a quantiser."""
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


def two_classes(folder, *, bias=0.0, step=None, gain=0.02, seed=0):
    """logits = [w x + bias, 0] of 192 pixels, behind a quantiser of that step; feature "f" is w x, before it "x_in"."""
    weight = gain * np.random.default_rng(seed).standard_normal((SIZE, 1))
    first = [node("Flatten", "x", "x_in")]
    if step is not None:
        first = [node("Flatten", "x", "flat"), node("Div", "flat step", "scaled"), node("Round", "scaled", "rounded")]
        first.append(node("Mul", "rounded step", "x_in"))
    nodes = [*first, node("MatMul", "x_in w", "f"), node("Mul", "f readout", "product"), node("Add", "product b", "y")]
    weights = [tensor("w", weight), tensor("readout", [[1.0, 0.0]]), tensor("b", [[bias, 0.0]])]
    weights += [] if step is None else [tensor("step", np.float32(step))]
    ends = [value("x", ["N", 3, 8, 8])], [value("y", ["N", 2])]
    model, _ = graphs.save(folder, "two", nodes, *ends, weights, graphs.make_card(feature="f"))
    return model, weight[:, 0]


def measure(tmp_path, models, images, **changed):
    """A run of each model, by name: their directories."""
    changed = {"permutations": 0, "trials": 12, **changed}
    for name, model in models.items():
        runs.measure(model, images, tmp_path / name, **changed)
    return [tmp_path / name for name in models]


def the(document):
    (candidate,) = document["candidates"]
    return candidate


def values(candidate):
    return {name: each for name, each in candidate.items() if isinstance(each, dict)}


def test_the_same_build_is_equal_up_to_rounding(tmp_path):
    model, _ = graphs.convnet(tmp_path / "model")
    runs.write_images(tmp_path / "images", 12)
    found = the(drift(*_pair(measure(tmp_path, {"a": model, "b": model}, tmp_path / "images"))))
    assert found["verdict"].startswith("equal up to rounding (0 of 576 rows of 12 images; below 24 % with 95 %)")
    for name, number in values(found).items():
        if not name.startswith(("drift_equivalent", "drift_resolved")) and "floor" not in name:
            assert number["value"] == 0, name
        if name.startswith(("drift_equivalent", "drift_resolved")):
            assert number["censored"] == "below" and np.isnan(number["value"]), name
    assert found["images"] == found["clean_images"] == 12


def _pair(paths):
    return paths[0], paths[1:]


def test_a_constant_on_one_logit(tmp_path):
    """The log-odds of two classes move by the constant in every row, and a decision flips where they lie in between."""
    constant, radii, count = 15.0, (1.0, 60.0), 30
    images = noise_images(tmp_path / "images", count)
    lines, clean, label = ["file,label"], [], np.arange(count) % 2
    a, weight = two_classes(tmp_path / "a model")
    b, _ = two_classes(tmp_path / "b model", bias=constant)
    lines += [f"{k:03d}.png,{label[k]}" for k in range(count)]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    paths = measure(tmp_path, {"a": a, "b": b}, images, radii=radii, labels=tmp_path / "labels.csv", limit=100)
    found = the(drift(*_pair(paths)))

    odds = {}  # by image: of class 0, clean and of every row; computed here from the perturbations alone
    for image in store.Run(paths[0]).images + store.Run(paths[1]).images:
        pixels = np.asarray(Image.open(images / image.id), np.float64).transpose(2, 0, 1)
        rows = []
        for radius in radii:
            for family in ("noise", "permutation"):
                drawn = deltas(seed=0, sha256=image.sha256, shape=(3, 8, 8), family=family, radius=radius, trials=12)
                rows.append((pixels + drawn).reshape(12, -1) @ weight)
        odds[image.id] = (pixels.ravel() @ weight, np.reshape(rows, (2, 2, 12)))
    every = {
        f"{k:03d}.png": np.asarray(Image.open(images / f"{k:03d}.png"), np.float64).transpose(2, 0, 1).ravel() @ weight
        for k in range(count)
    }
    clean = np.array(list(every.values()))
    first, second = np.where(clean > 0, 0, 1), np.where(clean + constant > 0, 0, 1)
    assert found["clean_images"] == count
    flipped = first != second
    assert 0 < flipped.sum() < count
    expected = {
        "flip": flipped,
        "negative_flip": (first == label) & (second != label),
        "positive_flip": (first != label) & (second == label),
        "both_wrong": (first != label) & (second != label) & flipped,
    }
    for name, flags in expected.items():
        assert found[f"drift_clean_{name}_share"]["value"] == pytest.approx(flags.mean()), name
        assert found[f"drift_clean_{name}_share"]["n"] == count

    # Both measured the images that both classify correctly.
    common = {f"{k:03d}.png" for k in range(count) if first[k] == label[k] and second[k] == label[k]}
    assert found["images"] == len(common)
    for k, radius in enumerate(radii):
        for j, prefix in enumerate(("", "permutation_")):
            shares = [
                np.mean((odds[name][1][k, j] > 0) != (odds[name][1][k, j] + constant > 0)) for name in sorted(common)
            ]
            assert found[f"drift_{prefix}flip_share@{radius:g}"]["value"] == pytest.approx(np.mean(shares))
    for name in ("drift_clean_log_odds_median", "drift_log_odds_median@1", "drift_log_odds_q95@60"):
        assert found[name]["value"] == pytest.approx(constant, rel=1e-4), name
    assert found["drift_log_odds_largest"]["value"] == pytest.approx(constant, rel=1e-4)
    # A constant changes no response.
    assert found["drift_resolved_radius_median"]["censored"] == "below"
    worse, better = expected["negative_flip"].sum(), expected["positive_flip"].sum()
    assert f"{worse} right decision(s) become wrong and {better} wrong one(s) right" in " ".join(found["sentences"])
    assert f"of decisions ({flipped.sum()} of {count} images)" in found["verdict"]


def chain(folder, factor=1.0):
    """x -> l1 = A x -> l2 = factor * B l1 -> l3 = C l2 -> logits; linear, no activations."""
    rng = np.random.default_rng(5)
    nodes = [
        node("Flatten", "x", "flat"),
        *(node("MatMul", f"{source} w{k}", f"l{k}") for k, source in ((1, "flat"), (2, "l1"), (3, "l2"))),
        node("MatMul", "l3 w4", "y"),
    ]
    sizes = (SIZE, 100, 80, 60, 3)
    scales = (0.01, 0.1 * factor, 0.1, 0.1)
    weights = [
        tensor(f"w{k + 1}", scale * rng.standard_normal(shape))
        for k, (scale, shape) in enumerate(zip(scales, itertools.pairwise(sizes), strict=True))
    ]
    ends = [value("x", ["N", 3, 8, 8])], [value("y", ["N", 3])]
    return graphs.save(folder, "chain", nodes, *ends, weights, graphs.make_card(feature="l3"))[0]


def test_features_scaled_from_one_layer_on(tmp_path):
    images = noise_images(tmp_path / "images", 10)
    models = {"a": chain(tmp_path / "a model"), "b": chain(tmp_path / "b model", factor=1.01)}
    found = the(drift(*_pair(measure(tmp_path, models, images, layers=("l1", "l2", "l3")))))
    assert found["drift_clean_feature_relative_median/l1"]["value"] == 0
    for layer in ("l2", "l3"):
        clean = found[f"drift_clean_feature_relative_median/{layer}"]["value"]
        assert clean == pytest.approx(0.01, rel=1e-3)  # fewer features than buckets: exact
        for radius in ("0.5", "4"):
            assert found[f"drift_feature_relative_median@{radius}/{layer}"]["value"] == pytest.approx(
                0.01, rel=3 * STANDARD_ERROR / 2
            )
            assert found[f"drift_feature_to_signal_median@{radius}/{layer}"]["value"] > 0.01
    assert "look first at layer l2 (1 % off, 0 % before it)" in found["verdict"]


def test_a_quantised_input(tmp_path):
    """Steps of s on every pixel move w x by |w| s / sqrt(12), noise of radius r by |w| r / sqrt(3): equal at r = s / 2.

    The errors at x + nu are as if drawn anew, so two responses correlate by 1 / sqrt(1 + (s / 2r)^2): 0.9 at 1.03 s.
    """
    step, radii = 12.0, (1.0, 3.0, 6.0, 9.0, 12.0, 15.0, 24.0)
    images = noise_images(tmp_path / "images", 40)
    a, _ = two_classes(tmp_path / "a model")
    b, _ = two_classes(tmp_path / "b model", step=step)
    paths = measure(tmp_path, {"a": a, "b": b}, images, radii=radii, trials=60, measures=("isotropy", "lipschitz"))
    found = the(drift(*_pair(paths)))
    equivalent = found["drift_equivalent_noise_median"]
    assert equivalent["low"] <= step / 2 <= equivalent["high"]
    assert step / 4 < equivalent["value"] < step
    assert found["drift_resolved_radius_median"]["value"] in (12.0, 13.5, 15.0)
    assert (
        f"below radius {found['drift_resolved_radius_median']['value']:.3g} this build answers with its rounding steps"
        in (found["verdict"])
    )
    assert found["drift_resolved_feature_radius_median"]["value"] in (12.0, 13.5, 15.0)
    assert found["drift_clean_flip_share"]["n"] == 40


def test_an_independent_script_finds_the_same(tmp_path):
    """Plain onnxruntime on both models, the same rows: log-odds to rounding, features within the sketch's error."""
    model, _ = graphs.convnet(tmp_path / "a model")
    other = tmp_path / "b model" / model.name
    shutil.copytree(model.parent, other.parent)
    proto = onnx.load(other)
    rng = np.random.default_rng(0)
    for weight in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(weight)
        if array.ndim > 1:
            array = (array * (1 + 0.05 * rng.standard_normal(array.shape))).astype(np.float32)
            weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    onnx.save(proto, other)
    runs.write_images(tmp_path / "images", 8)
    paths = measure(tmp_path, {"a": model, "b": other}, tmp_path / "images", radii=(2.0, 8.0))
    found = the(drift(*_pair(paths)))

    both, apart, relative = store.Run(paths[0]), {2.0: [], 8.0: []}, {2.0: [], 8.0: []}
    sessions = []
    for path in (model, other):
        tapped = onnx.load(path)
        tapped.graph.output.append(onnx.helper.make_empty_tensor_value_info(both.layers[0]))
        sessions.append(onnxruntime.InferenceSession(tapped.SerializeToString(), providers=["CPUExecutionProvider"]))
    labels = {name: int(v) for name, v in zip(*_labels(paths[0]), strict=True)}
    for image in both.images:
        pixels = np.asarray(Image.open(tmp_path / "images" / image.id), np.float32)
        pixels = np.asarray(Image.fromarray(pixels.astype(np.uint8)), np.float32).transpose(2, 0, 1)
        for radius in apart:
            drawn = deltas(seed=0, sha256=image.sha256, shape=(3, 16, 16), family="noise", radius=radius, trials=12)
            batch = ((pixels + drawn - graphs.CONVNET_MEAN) / graphs.CONVNET_STD).astype(np.float32)
            answers = [session.run(None, {session.get_inputs()[0].name: batch}) for session in sessions]
            odds = []
            for scores, *_ in answers:
                k = labels[image.id]
                odds.append(scores[:, k] - logsumexp(np.delete(scores, k, axis=1).astype(np.float64), axis=1))
            apart[radius].append(np.median(np.abs(odds[0] - odds[1])))
            f = [answer[-1].reshape(12, -1).astype(np.float64) for answer in answers]
            relative[radius].append(np.median(np.linalg.norm(f[0] - f[1], axis=1) / np.linalg.norm(f[0], axis=1)))
    for radius in apart:
        assert found[f"drift_log_odds_median@{radius:g}"]["value"] == pytest.approx(np.median(apart[radius]), abs=1e-4)
        seen = found[f"drift_feature_relative_median@{radius:g}"]["value"]
        assert seen == pytest.approx(np.median(relative[radius]), rel=0.25)


def _labels(run):
    with store.open_run(run) as dataset:
        return list(map(str, dataset["image"].values)), list(dataset["label"].values)
