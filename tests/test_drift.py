"""Drift: two builds of one network, row by row, against what is known in closed form or computed independently."""

import dataclasses
import itertools
import json
import shutil
import types
from pathlib import Path

import graphs
import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import runs
import scipy.stats
from graphs import node, tensor, value
from PIL import Image
from runs import call
from scipy.special import logsumexp

from analyzer import card as cards
from analyzer import plots, store, study
from analyzer.card import Resize
from analyzer.errors import InputError, UsageError
from analyzer.perturbations import deltas
from analyzer.sketch import STANDARD_ERROR
from analyzer.store import files, schema
from analyzer.verdicts import gate
from analyzer.verdicts.drift import drift, layers, numbers, responses

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
    assert found["verdict"].startswith(
        "equal up to rounding (0 of 12 clean images, below 24 % with 95 %; 0 of 576 perturbed "
    )
    for name, number in values(found).items():
        if not any(word in name for word in ("equivalent", "resolved", "floor", "response")):
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
    p = scipy.stats.binomtest(int(worse), int(worse + better)).pvalue
    assert found["mcnemar"] == {"negative": worse, "positive": better, "p": pytest.approx(p)}
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
        f"from {found['drift_resolved_radius_median']['value']:.3g} on no more, this build answers with its rounding"
        in (found["verdict"])
    )
    assert found["drift_resolved_feature_radius_median"]["value"] in (12.0, 13.5, 15.0)
    assert found["drift_clean_flip_share"]["n"] == 40


def test_a_gate_on_a_radius_outside_the_measured_ones(tmp_path, images):
    """A build whose drift is larger than any response at the radii of the run, and the reference against itself."""
    a, _ = two_classes(tmp_path / "a model")
    b, _ = two_classes(tmp_path / "b model", bias=30.0)
    runs.write_images(images, 40, 8)
    measure(tmp_path, {"a": a, "same": a, "b": b}, images, radii=(1.0, 2.0), trials=20)
    name = "drift_equivalent_noise_median"
    for run, bound, status in (
        ("b", 1.5, "fails"),
        ("b", 30, "undecided"),
        ("same", 1.5, "passes"),
        ("same", 0.1, "undecided"),
    ):
        judged = gate.gate(tmp_path / run, max={name: bound}, baseline=tmp_path / "a")
        (verdict,) = judged["verdicts"]
        assert (verdict["status"], verdict["passed"]) == (status, status == "passes"), (run, bound, verdict)
        side = "above the largest radius, 2" if run == "b" else "below the smallest radius, 1"
        assert f"known only to lie {side}" in verdict["explanation"]


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


# bad input ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs `a` and `b` of two builds, 6 images each."""
    folder = tmp_path_factory.mktemp("drift")
    runs.write_images(folder / "images", 6)
    for name, seed in (("a", 0), ("b", 1)):
        model, _ = graphs.convnet(folder / f"{name} model", seed=seed)
        runs.measure(model, folder / "images", folder / name, permutations=0)
    return folder


def test_other_protocols_and_shapes_are_refused_with_what_differs(folder, tmp_path):
    model, _ = graphs.convnet(tmp_path / "model")
    runs.measure(model, folder / "images", tmp_path / "seed", seed=1, permutations=0)
    with pytest.raises(UsageError, match=r"a and seed were measured by different protocols: seed 0 and 1"):
        drift(folder / "a", [tmp_path / "seed"])
    large, card = graphs.convnet(tmp_path / "large", size=24)
    cards.write(dataclasses.replace(card, resize=Resize("stretch")), cards.beside(large))
    runs.measure(large, folder / "images", tmp_path / "shape", permutations=0)
    with pytest.raises(UsageError, match=r"differ in pixel_shape: \[3, 16, 16\] and \[3, 24, 24\]"):
        drift(folder / "a", [tmp_path / "shape"])
    seven, _ = graphs.convnet(tmp_path / "seven", classes=7)
    runs.measure(seven, folder / "images", tmp_path / "classes", permutations=0)
    with pytest.raises(UsageError, match="differ in classes: 5 and 7"):
        drift(folder / "a", [tmp_path / "classes"])


def test_runs_of_other_images_or_no_candidate_are_refused(folder, tmp_path):
    runs.write_images(tmp_path / "images", 3, seed=9)
    model, _ = graphs.convnet(tmp_path / "model")
    runs.measure(model, tmp_path / "images", tmp_path / "other", permutations=0)
    with pytest.raises(InputError, match="no measured image is common"):
        drift(folder / "a", [tmp_path / "other"])
    for candidates in ([], [folder / "a"], [folder / "b", folder / "b"]):
        with pytest.raises(UsageError, match="a reference and other runs"):
            drift(folder / "a", candidates)
    with pytest.raises(InputError, match="no run here"):
        drift(folder / "a", [tmp_path])


def test_without_a_common_layer_there_are_scores_only(folder, tmp_path):
    model, _ = graphs.convnet(tmp_path / "model", seed=1)
    runs.measure(model, folder / "images", tmp_path / "relus", permutations=0, layers=("relu1", "relu2"))
    found = the(drift(folder / "a", [tmp_path / "relus"]))
    assert found["layers"] == [] and not [name for name in found if "feature" in name]
    assert "drift_log_odds_median@4" in found
    assert any("No layer of a (fc2) is one of relus (relu1, relu2)" in sentence for sentence in found["sentences"])
    asked = the(drift(folder / "a", [tmp_path / "relus"], match=["fc2=relu2"]))
    assert not asked["layers"] and any("different numbers of features" in s for s in asked["sentences"])
    with pytest.raises(UsageError, match=r"`match` 'fc2=nothing': a has the layers fc2; relus has relu1, relu2"):
        drift(folder / "a", [tmp_path / "relus"], match=["fc2=nothing"])
    with pytest.raises(UsageError, match="expected REFERENCE=CANDIDATE"):
        drift(folder / "a", [tmp_path / "relus"], match=["fc2"])


def test_a_partial_run_is_compared_on_what_is_finished(folder, tmp_path):
    shutil.copytree(folder / "b", tmp_path / "b")
    for name in ("results.nc", "summary.json"):
        (tmp_path / "b" / name).unlink()
    for unit in sorted((tmp_path / "b" / "units").iterdir())[:2]:
        unit.unlink()
    document = drift(folder / "a", [tmp_path / "b"])
    assert the(document)["images"] == document["images"] == 4
    assert the(document)["clean_images"] == 6
    said = " ".join(document["notes"])
    assert "b is partial: 4 of 6 images" in said and "4 images are common to a (of 6) and b (of 4)" in said


def test_a_run_made_before_sketches_has_everything_but_layers(folder, tmp_path, monkeypatch):
    model, _ = graphs.convnet(tmp_path / "model", seed=1)
    known = study.provenance.variable_names
    with monkeypatch.context() as earlier:
        earlier.setattr(study.provenance, "variable_names", lambda p: [n for n in known(p) if n not in schema.LATER])
        runs.measure(model, folder / "images", tmp_path / "old", permutations=0)
    new, old = the(drift(folder / "a", [folder / "b"])), the(drift(folder / "a", [tmp_path / "old"]))
    assert {name for name in new if name not in old} == {name for name in new if "feature" in name}
    assert any("no sketches of its features (it was made by an earlier version)" in s for s in old["sentences"])


def test_without_labels_nothing_is_better_or_worse(folder):
    """And a clean image whose class differs has no log-odds to be compared: they are of two classes."""
    document = drift(folder / "a", [folder / "b"])
    found = the(document)
    assert "drift_clean_negative_flip_share" not in found and "drift_negative_flip_share@4" not in found
    assert any("nothing is said of better or worse" in note for note in document["notes"])
    with store.open_run(folder / "a") as a, store.open_run(folder / "b") as b:
        differ = int((a.clean_predicted.values != b.clean_predicted.values).sum())
    assert differ > 0 and found["drift_clean_flip_share"]["value"] == pytest.approx(differ / 6)
    assert any(note.startswith(f"{differ} common image(s) have another label in b") for note in document["notes"])
    assert found["drift_log_odds_median@4"]["n"] == 6 - differ


@pytest.mark.parametrize(
    ("mine", "theirs", "pairs"),
    [
        (["a", "b"], ["a", "b"], ["a=a", "b=b"]),
        (["conv"], ["other"], ["conv=other"]),  # the only one of each
        (["a", "b"], ["b_DequantizeLinear_Output", "a_quantized"], ["a=a_quantized", "b=b_DequantizeLinear_Output"]),
        (["a", "a_quantized"], ["a_dequantized"], []),  # which of the two is meant?
        (["a", "b"], ["a_quantized", "a_dequantized"], []),
        (["a", "b"], ["c"], []),
        (["graph/relu"], ["x", "graph/relu_cast_to_float16"], ["graph/relu=graph/relu_cast_to_float16"]),
    ],
)  # fmt: skip
def test_layers_belong_together_by_name(mine, theirs, pairs):
    reference, candidate = (types.SimpleNamespace(layers=names, name="r") for names in (mine, theirs))
    found = layers.matched(reference, candidate, [])
    assert [f"{pair.name}={pair.other}" for pair in found] == pairs
    assert [(mine[pair.reference], theirs[pair.candidate]) for pair in found] == [
        (pair.name, pair.other) for pair in found
    ]


def test_asked_for_pairs_come_first_and_names_may_hold_an_equals_sign():
    reference, candidate = (types.SimpleNamespace(layers=n, name="r") for n in (["a=b", "c"], ["c", "d=e"]))
    found = layers.matched(reference, candidate, ["a=b=d=e"])
    assert [(pair.name, pair.other) for pair in found] == [("a=b", "d=e"), ("c", "c")]


# numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("radii", "value", "censored"),
    [
        ([2.0, 3.0, 5.0], 3.0, None),
        ([-np.inf, 3.0, np.inf], 3.0, None),
        ([-np.inf, -np.inf, 3.0], np.nan, "below"),
        ([np.inf, np.inf, 3.0], np.nan, "above"),
        ([np.nan, 3.0, 4.0], 3.5, None),
        ([-np.inf, 4.0], np.nan, "below"),
        ([4.0, np.inf], np.nan, "above"),
        ([np.nan], np.nan, None),
    ],
)
def test_medians_of_radii_that_may_lie_outside(radii, value, censored):
    found = numbers.censored_median(np.array(radii))
    assert found["value"] == pytest.approx(value, nan_ok=True)
    assert found.get("censored") == censored
    assert found["n"] == np.sum(~np.isnan(radii))


def test_ends_of_an_interval_outside_the_radii_are_undefined():
    radii = np.array([-np.inf] * 4 + [5.0] * 12 + [np.inf] * 4)
    assert numbers.censored_median(radii) == {"value": 5.0, "low": 5.0, "high": 5.0, "n": 20}
    radii = np.array([-np.inf] * 9 + [5.0, 6.0] + [np.inf] * 9)
    found = numbers.censored_median(radii)
    assert found["value"] == 5.5 and np.isnan(found["low"]) and np.isnan(found["high"])


def test_steps_and_slopes():
    radii, rng = [1.0, 2.0, 4.0, 8.0], np.random.default_rng(0)
    slope = rng.standard_normal((5, 4, 30)) * np.array(radii)[:, None]
    flat, silent = rng.standard_normal((5, 4, 30)), slope * (np.array(radii) > 1)[:, None]
    for candidate, steps in ((slope, False), (2 * slope, False), (flat, True), (silent, True)):
        assert responses.answers_in_steps(slope, candidate, radii, resolved=8.0) == steps
    assert not responses.answers_in_steps(slope, flat, radii, resolved=1.0)  # resolved everywhere
    assert not responses.answers_in_steps(slope, flat, radii, resolved=np.nan)


# the command ----------------------------------------------------------------------------------------------------------


def test_the_command(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = call(capsys, "drift", folder / "a", folder / "b")
    assert (code, err) == (0, "")
    assert sum(-(-max(len(line), 1) // 80) for line in out.splitlines()) <= 40
    assert "at radius" in out and "features off, fc2" in out and "by radius of the noise" not in out
    code, out, err = call(capsys, "drift", folder / "a", folder / "b", "--tables")
    assert (code, err) == (0, "")
    assert "Drift from a" in out and "b, by radius of the noise" in out and "layers from first to last" in out
    code, out, err = call(capsys, "drift", folder / "a", folder / "b", "--json")
    document = json.loads(out, parse_constant=pytest.fail)
    assert (code, err) == (0, "") and the(document)["name"] == "b"
    schema_file = Path(__file__).parent.parent / "docs" / "drift.schema.json"
    jsonschema.validate(document, json.loads(schema_file.read_text()))
    code, _, err = call(capsys, "drift", folder / "a", folder / "b", "--match", "fc2=nothing")
    assert code == 2 and "--match" in err and len(err.strip().splitlines()) <= 2
    assert call(capsys, "drift", folder / "a")[0] == 2


def test_a_gate_on_negative_flips(tmp_path, capsys):
    """A constant on one logit turns a known share of right decisions into wrong ones."""
    images = noise_images(tmp_path / "images", 30)
    a, weight = two_classes(tmp_path / "a model")
    b, _ = two_classes(tmp_path / "b model", bias=15.0)
    pixels = [np.asarray(Image.open(images / f"{k:03d}.png"), np.float64).transpose(2, 0, 1) for k in range(30)]
    odds = np.array([image.ravel() @ weight for image in pixels])
    label = np.where(odds > 0, 0, 1)  # the reference is always right
    share = np.mean((odds > 0) != (odds + 15 > 0))
    rows = "".join(f"{k:03d}.png,{label[k]}\n" for k in range(30))
    (tmp_path / "labels.csv").write_text(f"file,label\n{rows}")
    paths = measure(tmp_path, {"a": a, "b": b}, images, labels=tmp_path / "labels.csv", limit=100)
    assert 0.05 < share < 0.9
    name = "drift_clean_negative_flip_share"
    for bound, code in ((share + 0.3, 0), (share - 0.04, 3)):
        done = call(capsys, "gate", paths[1], "--baseline", paths[0], "--max", f"{name}={bound}", "--json")
        (verdict,) = json.loads(done[1])["verdicts"]
        assert (done[0], verdict["value"]) == (code, pytest.approx(share)), done
    bound = ["--max", "drift_equivalent_noise_median=20", "--max", "drift_resolved_radius_median=1"]
    assert call(capsys, "gate", paths[1], "--baseline", paths[0], *bound)[0] == 3  # 15 nat are beyond radius 4
    assert call(capsys, "gate", paths[1], "--baseline", paths[0], *bound[2:])[0] == 0  # resolved at all radii
    code, _, err = call(capsys, "gate", paths[1], "--max", f"{name}=0.1")
    assert code == 2 and "--baseline RUN is missing" in err
    code, _, err = call(capsys, "gate", paths[1], "--baseline", paths[0], "--max-regression", f"{name}=0.1")
    assert code == 2 and "a drift is a change already" in err


def test_the_report_draws_it_and_escapes_names(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    images = noise_images(tmp_path / "images", 3)
    models = {"a": chain(tmp_path / "a model"), "<b>&": chain(tmp_path / "b model", factor=1.1)}
    first, second = measure(tmp_path, models, images)
    code, _, err = call(capsys, "report", first, second, "--drift", "--out", tmp_path / "report")
    assert (code, err) == (0, ""), err
    text = (tmp_path / "report" / "report.html").read_text()
    assert "Drift from the first run" in text and "as much as noise of so many grey levels" in text
    assert "<b>&" not in text and "&lt;b&gt;&amp;" in text
    for name in ("drift_log_odds.png", "drift_log_odds.svg"):
        assert (tmp_path / "report" / "figures" / name).stat().st_size > 1000
    plain = call(capsys, "report", first, second, "--out", tmp_path / "plain")
    assert plain[0] == 0 and "Drift from the first run" not in (tmp_path / "plain" / "report.html").read_text()
    assert call(capsys, "report", first, "--drift", "--out", tmp_path / "one")[0] == 2


def test_the_figures_of_several_candidates_and_layers(tmp_path):
    """One line a candidate; a layer that one of them lacks leaves a gap."""
    images = noise_images(tmp_path / "images", 6)
    models = {"a": chain(tmp_path / "a model"), "b": chain(tmp_path / "b model", factor=1.01)}
    paths = measure(tmp_path, models, images, layers=("l1", "l2", "l3"))
    runs.measure(
        chain(tmp_path / "c model", factor=1.1), images, tmp_path / "c", permutations=0, trials=12, layers=("l3",)
    )
    document = drift(paths[0], [paths[1], tmp_path / "c"])
    drawn = {picture.name: picture for picture in plots.drift_pictures(document, ["a", "b", "c"])}
    assert drawn.keys() == {"drift_log_odds", "drift_layers"}
    ax = drawn["drift_layers"].figure.axes[0]
    heights = [line.get_ydata() for line in ax.get_lines()]
    np.testing.assert_allclose(heights[0], [np.nan, 0.01, 0.01], rtol=1e-2)  # 0 has no place on a logarithmic axis
    np.testing.assert_allclose(heights[1], [np.nan, np.nan, 0.1], rtol=1e-2)
    same = drift(paths[0], [_copied(paths[0], tmp_path / "same")])
    assert list(plots.drift_pictures(same, ["a", "same"])) == []  # nothing to draw


def _copied(run, target):
    shutil.copytree(run, target)
    return target


# making the runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def builds(tmp_path):
    """A folder of builds: the reference, one scaled by 1.01, and one that is no model; and images."""
    for name, factor in (("fp32", 1.0), ("int8", 1.01)):
        model = chain(tmp_path / name, factor=factor)
        for file in (model, cards.beside(model)):
            (tmp_path / "builds").mkdir(exist_ok=True)
            shutil.move(file, tmp_path / "builds" / f"{name}{file.suffix}")
    noise_images(tmp_path / "images", 4)
    return tmp_path / "builds"


def test_the_short_way_makes_the_runs_and_says_what_it_left_out(builds, tmp_path, capsys):
    (builds / "broken.onnx").write_bytes(b"no model")
    shutil.copy(builds / "fp32.json", builds / "broken.json")
    options = ["--run", "--images", tmp_path / "images", "--out", tmp_path / "runs", "--provider", "cpu"]
    code, out, err = call(capsys, "drift", builds / "fp32.onnx", builds, *options)
    assert code == 0, err
    assert "Reduced protocol: radii 0.5, 1, 2, 5, 10, 20" in out and "int8: " in out
    assert "broken.onnx is left out: " in out
    code, out, _ = call(capsys, "drift", builds / "fp32.onnx", builds / "int8.onnx", *options, "--json")
    document = json.loads(out)
    assert code == 0 and [each["name"] for each in document["candidates"]] == ["int8"]
    assert document["candidates"][0]["drift_clean_feature_relative_median"]["value"] == pytest.approx(0.01, rel=1e-3)
    by_hand = drift(tmp_path / "runs" / "fp32", [tmp_path / "runs" / "int8"])
    assert json.loads(files.to_json(by_hand)) == document


def test_the_short_way_refuses_what_it_cannot_compare(builds, tmp_path, capsys):
    options = ["--run", "--images", tmp_path / "images", "--out", tmp_path / "runs"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    shutil.copy(builds / "int8.onnx", tmp_path / "other" / "fp32.onnx")
    model = builds / "fp32.onnx"
    for arguments, code, said in (
        ([model, builds / "int8.onnx", "--images", tmp_path / "images"], 2, "--images goes with --run"),
        ([model, builds / "int8.onnx", "--run"], 2, "--run needs --images"),
        ([model, tmp_path / "empty", *options], 4, "no .onnx file in this folder"),
        ([model, model, *options], 2, "two models are called fp32.onnx"),
        ([model, tmp_path / "other" / "fp32.onnx", *options], 2, "two models are called fp32.onnx"),
        ([tmp_path / "none.onnx", builds / "int8.onnx", *options], 4, "none"),
    ):
        done = call(capsys, "drift", *arguments)
        assert done[0] == code and said in done[2], done
        assert len(done[2].strip().splitlines()) <= 2


def test_settings_of_the_backend_may_differ_and_are_said(tmp_path, images):
    """The same file without graph optimisations is a candidate like any other."""
    model, _ = graphs.convnet(tmp_path / "model")
    runs.write_images(images, 12)
    paths = [tmp_path / "all", tmp_path / "off"]
    for path in paths:
        study.run(model, images, path, protocol=runs.protocol(), provider="cpu", optimizations=path.name)
    document = drift(*_pair(paths))
    assert document["notes"][0] == "off ran with other settings than all: optimizations all -> off."
    assert the(document)["verdict"].startswith("equal up to rounding")
