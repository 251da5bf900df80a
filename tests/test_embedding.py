"""Networks without classes: the score is the cosine to the clean embedding, classes are those of class means."""

import dataclasses
import json
import re

import graphs
import numpy as np
import pytest
import runs
from clusters import Dask
from graphs import node, tensor, value

from analyzer import card as cards
from analyzer import claims, compare, open_run, study
from analyzer.errors import InputError, UsageError
from analyzer.images import find_set, read
from analyzer.measures.scores import class_means, similarity, unit
from analyzer.perturbations import Perturbations
from analyzer.store import LogOddsStatus
from analyzer.verdicts.check_card import check_card
from analyzer.verdicts.drift import drift

D = 3 * 8 * 8


def embedder(folder, matrix, *, name="embedder", shape=None, kind="embedding", mean=128.0, **card):
    """x -> matrix @ flatten(x), (N, F), reshaped to `shape` where it is given."""
    matrix = np.asarray(matrix, np.float32)
    nodes = [node("Flatten", "x", "flat"), node("MatMul", "flat M", "e")]
    constants = [tensor("M", matrix.T)]
    if shape:
        nodes.append(node("Reshape", "e s", "map"))
        constants.append(tensor("s", np.array([-1, *shape]), np.int64))
    output = value("map" if shape else "e", ["N", *(shape or [len(matrix)])])
    made = graphs.make_card(mean=mean, std=64.0, kind=kind, **card)
    return graphs.save(folder, name, nodes, [value("x", ["N", 3, 8, 8])], [output], constants, made)


@pytest.fixture
def matrix():
    return np.random.default_rng(3).standard_normal((6, D)) / 10


@pytest.fixture
def images(tmp_path):
    runs.write_images(tmp_path / "images", 6, size=8)
    return tmp_path / "images"


# arithmetic -----------------------------------------------------------------------------------------------------------


def test_cosines_do_not_depend_on_length_and_keep_their_digits():
    clean = np.array([3.0, 4.0])
    for factor in (1e-200, 1.0, 1e200):
        seen = similarity(np.array([[4.0, -3.0], [6.0, 8.0], [3.0, 4.0 + 1e-9]]) * factor, clean)
        assert seen.score == pytest.approx([0.0, 1.0, 1.0], abs=1e-15)
        assert (seen.predicted == -1).all() and np.isnan(seen.log_odds).all() and np.isnan(seen.runner_up).all()


def test_rows_without_a_direction_are_undefined():
    seen = similarity(np.array([[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [1.0, 0.0]]), np.ones(2), means=np.eye(2))
    assert np.isnan(seen.score[:3]).all() and seen.predicted.tolist() == [-1, -1, -1, 0]


def test_the_nearest_mean_is_that_of_unit_vectors():
    rows = np.array([[10.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    means = class_means(rows, np.array([0, 0, 2]))
    assert unit(means[0]) == pytest.approx([np.sqrt(0.5)] * 2)  # a long vector counts no more than a short one
    assert np.isnan(means[1]).all()
    assert similarity(np.array([[1.0, 3.0], [1.0, 0.4]]), rows[0], means=unit(means)).predicted.tolist() == [2, 0]


# runs -----------------------------------------------------------------------------------------------------------------


def test_an_embedding_is_measured_like_a_feature(tmp_path, images, matrix):
    model, _ = embedder(tmp_path, matrix)
    dataset = runs.measure(model, images, tmp_path / "run", min_confidence=0.99)
    assert dataset.sizes["image"] == 6 and dataset.layer.values.tolist() == ["e"]  # all count, whatever the confidence
    assert (dataset.label == -1).all() and (dataset.clean_predicted == -1).all()
    assert (dataset.log_odds_status == LogOddsStatus.EMBEDDING).all()
    assert dataset.clean_score.values == pytest.approx(1, abs=1e-15) and np.isnan(dataset.isotropy_log_odds).all()
    # Cosines from the stored distances: |e + d|, by the law of cosines, needs e . d; so by the network itself.
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["isotropy_range_median@4"]["n"] == 6 and "isotropy_log_odds_range_median@4" not in summary
    assert summary["linearity_median@4"]["value"] < 1e-3  # the map is affine
    assert "misclassified_share@4" not in summary
    text = " ".join(summary["sentences"])
    assert "cosine to the clean embedding spreads" in text
    assert "class" not in text and "probability" not in text and "Flips" not in text
    assert "in a number of the embedding" in text or "gives exactly" in text


def test_the_score_is_the_cosine_that_the_network_gives(tmp_path, images, matrix):
    model, card = embedder(tmp_path, matrix)
    dataset = runs.measure(model, images, tmp_path / "run", radii=(20.0,), trials=5)
    for image in find_set(images, card=card, labels=None).images:
        pixels = read(image, card=card)
        drawn = Perturbations(seed=0, sha256=pixels.sha256, shape=(3, 8, 8), family="noise", radius=20.0, trials=5)
        words = drawn.words(range(5))
        rows = pixels.values.reshape(1, -1) + words * drawn.scales(words)[:, None]
        embedded = ((np.vstack([pixels.values.reshape(1, -1), rows]) - 128) / 64) @ matrix.T
        expected = [e @ embedded[0] / np.linalg.norm(e) / np.linalg.norm(embedded[0]) for e in embedded[1:]]
        assert dataset.isotropy_score.sel(image=image.id).values[0] == pytest.approx(expected, abs=1e-6)


def test_an_output_of_any_shape_is_an_embedding(tmp_path, images, matrix):
    model, card = embedder(tmp_path, matrix, shape=[2, 1, 3])
    flat, _ = embedder(tmp_path, matrix, name="flat")
    a, b = (runs.measure(path, images, tmp_path / path.stem) for path in (model, flat))
    assert np.array_equal(a.isotropy_score, b.isotropy_score) and a.layer.values.tolist() == ["map"]
    cards.write(dataclasses.replace(card, output_name="e"), cards.beside(model))  # an inner tensor serves too
    inner = runs.measure(model, images, tmp_path / "inner")
    assert np.array_equal(inner.isotropy_score, b.isotropy_score)


def test_an_embedding_without_a_direction_is_left_out(tmp_path, images):
    model, _ = embedder(tmp_path, np.zeros((3, D)))
    with pytest.raises(InputError, match="no image counts: the scores of 6 images are not finite"):
        runs.measure(model, images, tmp_path / "run")


def test_reduced_graphs_give_the_same_cosines(tmp_path, images, matrix, monkeypatch):
    from analyzer.study import model as models

    path, _ = embedder(tmp_path, matrix)
    whole = runs.measure(path, images, tmp_path / "whole", batch_size=None)
    monkeypatch.setattr(models, "_HELD_FEATURES", 0)
    monkeypatch.setattr(models, "_is_reduced", lambda *_: True)
    reduced = runs.measure(path, images, tmp_path / "reduced", batch_size=None)
    np.testing.assert_allclose(reduced.isotropy_score, whole.isotropy_score, atol=1e-6)


# labels ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(tmp_path):
    """Three classes of colours: two red images, two green ones, one blue one, and one blue one that is labelled red."""
    from PIL import Image

    folder = tmp_path / "labelled"
    colours = {"0/a": (220, 40, 30), "0/b": (200, 60, 50), "1/c": (40, 220, 30), "1/d": (60, 200, 50)}
    colours |= {"2/e": (40, 30, 220), "2/f": (50, 45, 200), "0/g": (30, 40, 210)}
    rng = np.random.default_rng(0)
    for name, colour in colours.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(-15, 16, (8, 8, 3))
        Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(path)
    return folder


def channel_means():
    return np.kron(np.eye(3), np.ones((1, 64))) / 64


def test_with_labels_the_class_is_that_of_the_nearest_mean(tmp_path, labelled):
    model, _ = embedder(tmp_path, channel_means())
    dataset = runs.measure(model, labelled, tmp_path / "run", radii=(1.0, 400.0))
    assert sorted(dataset.image.values) == ["0/a.png", "0/b.png", "1/c.png", "1/d.png", "2/e.png", "2/f.png"]
    assert np.array_equal(dataset.clean_predicted, dataset.label)
    assert (dataset.isotropy_predicted[:, 0] == dataset.label).all() and dataset.isotropy_predicted.min() >= 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["run"]["images"]["wrong"] == 1  # the blue one that is labelled red
    assert summary["misclassified_share@1"]["value"] == 0
    means = study.embedded.means_of(json.loads((tmp_path / "run" / "calibration.json").read_text()))
    assert means.sums.shape == (3, 3) and means.sums[1].argmax() == 1 and len(means.members) == 7


def test_an_image_alone_in_its_class_is_no_evidence_for_it(tmp_path, labelled):
    (labelled / "2" / "f.png").unlink()
    model, _ = embedder(tmp_path, channel_means())
    dataset = runs.measure(model, labelled, tmp_path / "run")
    assert "2/e.png" not in dataset.image.values


def test_a_larger_limit_keeps_the_means(tmp_path, labelled):
    model, _ = embedder(tmp_path, channel_means())
    runs.measure(model, labelled, tmp_path / "run", limit=2)
    first = json.loads((tmp_path / "run" / "calibration.json").read_text())["class_means"]
    dataset = runs.measure(model, labelled, tmp_path / "run", limit=100)
    assert dataset.sizes["image"] == 6
    assert json.loads((tmp_path / "run" / "calibration.json").read_text())["class_means"] == first


def test_a_wrong_set_of_labels_says_what_a_class_takes(tmp_path, labelled):
    for name in ("0/b.png", "0/g.png", "1/d.png", "2/f.png"):
        (labelled / name).unlink()
    model, _ = embedder(tmp_path, channel_means())
    with pytest.raises(InputError, match="takes two images or more"):
        runs.measure(model, labelled, tmp_path / "run")


def test_too_many_class_means_are_refused(tmp_path, labelled, monkeypatch):
    from analyzer.study import embedded

    monkeypatch.setattr(embedded, "_MOST", 8)
    model, _ = embedder(tmp_path, channel_means())
    with pytest.raises(InputError, match="leave the labels out"):
        runs.measure(model, labelled, tmp_path / "run")


def test_workers_know_the_class_means(tmp_path, labelled):
    model, _ = embedder(tmp_path, channel_means())
    alone = runs.measure(model, labelled, tmp_path / "alone", radii=(1.0, 400.0))
    protocol = runs.protocol(radii=(1.0, 400.0))
    options = {"protocol": protocol, "provider": "cpu", "batch_size": 8, "cluster_timeout": 60.0}
    with Dask(tmp_path) as dask:
        dask.worker()
        dask.worker()
        study.run(model, labelled, tmp_path / "shared", cluster=dask.address, **options)
    with open_run(tmp_path / "shared") as shared:
        for name in ("isotropy_predicted", "isotropy_score", "clean_predicted", "feature_distance"):
            assert np.array_equal(alone[name], shared[name]), name


# what else is asked of it ---------------------------------------------------------------------------------------------


def test_what_needs_classes_is_refused(tmp_path, images, matrix):
    from analyzer.analyses import landscape

    model, _ = embedder(tmp_path, matrix)
    with pytest.raises(UsageError, match="no classes to be certified"):
        runs.measure(model, images, tmp_path / "run", measures=("certified",))
    with pytest.raises(UsageError, match="will have no such number"):
        study.run(model, images, tmp_path / "run", protocol=runs.protocol(), until="flip_radius_median=0.1")
    with pytest.raises(InputError, match="embedding"):
        landscape.landscape(model, next(images.iterdir()), provider="cpu", size=3)


def test_drift_of_embeddings_is_told_by_their_features(tmp_path, images, matrix):
    moved = matrix.copy()
    moved[0] += 0.05 * matrix[1]
    for name, values in (("a", matrix), ("same", matrix), ("b", moved)):
        model, _ = embedder(tmp_path, values, name=name)
        runs.measure(model, images, tmp_path / "runs" / name, radii=(0.5, 2.0, 8.0, 32.0), trials=12)
    found = drift(tmp_path / "runs" / "a", [tmp_path / "runs" / "same", tmp_path / "runs" / "b"])
    same, other = found["candidates"]
    assert same["verdict"].startswith("equal up to rounding")
    noise = other["drift_equivalent_feature_noise_median"]["value"]
    assert 0.5 < noise < 32 and f"as much as noise of {noise:.3g} grey levels" in other["verdict"]
    assert "by the features of e" in other["verdict"] and "decision" not in other["verdict"]


def test_check_card_judges_an_embedding_by_its_class_means(tmp_path, labelled):
    (labelled / "0" / "g.png").unlink()
    model, card = embedder(tmp_path, channel_means())
    cards.write(dataclasses.replace(card, mean=(0.0,) * 3, std=(1e4,) * 3), tmp_path / "other.json")
    found = check_card(model, labelled)
    assert found["rows"][0]["accuracy"]["value"] == 1 and found["labelled"] == 6 and not found["field"]
    assert not found["differences"]
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in labelled.rglob("*.png"):
        (flat / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="takes a label for each image"):
        check_card(model, flat)


def test_the_screen_says_what_it_is(tmp_path, images, matrix, capsys):
    model, _ = embedder(tmp_path, matrix)
    code, out, _ = runs.call(capsys, "run", model, "--images", images, "--out", tmp_path / "run", *runs.SMALL)
    assert code == 0 and "no labels, so no classes" in out and "isotropy, cosine" in out and "symmetry, cosine" in out
    code, out, _ = runs.call(capsys, "summary", tmp_path / "run", "--tables")
    assert code == 0
    code, _, err = runs.call(capsys, "report", tmp_path / "run")
    assert code == 0, err


def test_images_without_a_label_among_others_are_not_misclassified():
    from analyzer.measures.ranges import misclassified

    assert np.isnan(misclassified(np.array([[1, 1], [2, 2]]), np.array([-1, 2]))).tolist() == [True, False]


def test_an_embedding_is_no_build_of_a_classifier(tmp_path, images, matrix):
    for name, kind in (("a", "embedding"), ("b", "logits")):
        model, _ = embedder(tmp_path, matrix, name=name, kind=kind, feature="flat")
        runs.measure(model, images, tmp_path / "runs" / name)
    with pytest.raises(UsageError, match="a and b differ in embedding: True and False"):
        drift(tmp_path / "runs" / "a", [tmp_path / "runs" / "b"])


def test_noise_is_judged_by_means_without_the_image_itself(tmp_path):
    """In many dimensions an image is the nearest to a mean that it is half of; without it, it is not."""
    from PIL import Image

    rng, images = np.random.default_rng(1), tmp_path / "images"
    for label in range(3):
        (images / str(label)).mkdir(parents=True)
        base = rng.integers(60, 196, (8, 8, 3))
        for k in range(3):
            pixels = np.clip(base + rng.normal(0, 60, base.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(images / str(label) / f"{k}.png")
    model, card = embedder(tmp_path, np.eye(D))
    seen = runs.measure(model, images, tmp_path / "run", radii=(200.0,), trials=6, measures=("isotropy",))
    found = {image.id: (image, read(image, card=card)) for image in find_set(images, card=card).images}

    def embedded(pixels):
        return unit((pixels.reshape(-1, D) - 128) / 64)

    units = {name: embedded(pixels.values)[0] for name, (_, pixels) in found.items()}
    for name in seen.image.values:
        own, pixels = found[name]
        others = [
            unit(sum(units[other] for other, (image, _) in found.items() if image.label == label and other != name))
            for label in range(3)
        ]
        drawn = Perturbations(seed=0, sha256=pixels.sha256, shape=(3, 8, 8), family="noise", radius=200.0, trials=6)
        words = drawn.words(range(6))
        rows = embedded(pixels.values.reshape(1, -1) + words * drawn.scales(words)[:, None])
        expected = (rows @ np.array(others).T).argmax(axis=1)
        assert seen.isotropy_predicted.sel(image=name).values[0].tolist() == expected.tolist(), own.id
    assert seen.sizes["image"] > 3


# its words ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def embedded(tmp_path, images, matrix):
    """Runs of two embeddings, and of the first as a classifier, on 12 images."""
    runs.write_images(images, 12, size=8)
    for name, values, kind in (("a", matrix, "embedding"), ("b", matrix[::2], "embedding"), ("c", matrix, "logits")):
        model, _ = embedder(tmp_path, values, name=name, kind=kind, feature="flat")
        runs.measure(model, images, tmp_path / "runs" / name, radii=(0.5, 2.0, 8.0), trials=8)
    return tmp_path / "runs"


def test_a_summary_has_no_number_of_what_there_is_not(embedded, tmp_path, labelled):
    names = json.loads((embedded / "a" / "summary.json").read_text()).keys()
    assert not [name for name in names if "log_odds" in name or "flip" in name or "misclassified" in name]
    assert {"isotropy_range_median@2", "symmetry_relative_excess_mean", "lipschitz_median"} <= names
    model, _ = embedder(tmp_path, channel_means(), name="labelled")
    runs.measure(model, labelled, tmp_path / "run")
    names = json.loads((tmp_path / "run" / "summary.json").read_text()).keys()
    assert [name for name in names if "misclassified" in name] and not [name for name in names if "log_odds" in name]


def test_symmetry_is_held_against_fresh_noise_by_cosines(embedded):
    summary = json.loads((embedded / "a" / "summary.json").read_text())
    with open_run(embedded / "a") as seen:
        permuted, fresh = (np.ptp(seen[f"{name}_score"].values, axis=-1) for name in ("symmetry", "isotropy"))
    expected = (2 * (permuted - fresh) / (permuted + fresh)).mean()
    assert summary["symmetry_relative_excess_mean"]["value"] == pytest.approx(expected, rel=1e-12)
    (said,) = (sentence for sentence in summary["sentences"] if sentence.startswith("Symmetry"))
    assert "the cosine to the clean embedding spreads" in said and "was not measured" not in said


def test_embeddings_are_compared_by_their_cosines(embedded):
    found = compare([embedded / "a", embedded / "b"])
    of = found["properties"]
    assert {"isotropy_range", "symmetry_range"} <= of.keys() and not [name for name in of if "log_odds" in name]
    assert of["isotropy_range"]["title"] == "Isotropy: range of the cosine to the clean embedding"
    with open_run(embedded / "a") as a, open_run(embedded / "b") as b:
        ranges = [np.ptp(seen["isotropy_score"].values, axis=-1).mean(axis=-1) for seen in (a, b)]
    (pair,) = of["isotropy_range"]["overall"]["pairs"]
    assert pair["difference"] == pytest.approx(np.median(ranges[1] - ranges[0]), rel=1e-12)
    assert any("own scale" in note for note in found["notes"])


def test_of_an_embedding_and_a_classifier_only_features_are_compared(embedded):
    found = compare([embedded / "a", embedded / "c"])
    assert found["properties"].keys() and not [name for name in found["properties"] if "range" in name]
    (said,) = (note for note in found["notes"] if "embedding" in note)
    assert said.startswith("a is an embedding, without what these need: ") and "isotropy_log_odds_range" in said


def test_the_claims_about_scores_cannot_be_told(embedded):
    first, second, *others = claims(embedded / "a")["claims"]
    assert {claim["verdict"] for claim in (first, second)} == {"cannot be told"}
    assert "an embedding has none" in first["reason"] and not first["figures"]
    assert not any("an embedding" in claim["reason"] for claim in others)


@pytest.mark.parametrize("others", [(), ("b",), ("c",)])
def test_a_report_speaks_of_cosines(embedded, others):
    pytest.importorskip("matplotlib")
    from analyzer.report import write

    text = write([embedded / name for name in ("a", *others)], embedded / "report").read_text()
    shown = re.sub(r"<style.*?</style>|data:image[^\"]*", "", text, flags=re.DOTALL)
    figures = {path.stem for path in (embedded / "report" / "figures").glob("*.png")}
    if "c" in others:
        assert {"flips", "log_odds_ranges", "misclassified"} <= figures
        assert "an embedding has no log-odds" in shown and "range of the score" in shown
        assert "No labels, so no classes." in shown and "the clean prediction counts as right" in shown
        return
    assert {"fig1_isotropy", "fig3_symmetry"} <= figures and not {"flips", "log_odds_ranges", "misclassified"} & figures
    assert "range of the cosine to the clean embedding" in shown and "A cosine near 1" in shown
    shown = re.sub(r"\(2\) not symmetric: reordering moves the log-odds|score of the true class, and an", "", shown)
    assert not re.findall(r"[^>]*(?:probabilit|true.class|log-odds|clean score|undefined|misclassif)[^<]*", shown)


def test_an_axis_of_figures_has_the_words_too(embedded):
    pytest.importorskip("matplotlib")
    from analyzer.plots import DrawnRun, pictures
    from analyzer.store import Run
    from analyzer.summary import of_run

    for name, label, key in (
        ("a", "range of the cosine to the clean embedding", "one image"),
        ("c", "range of the true-class score", "never misclassified"),
    ):
        with open_run(embedded / name) as seen:
            drawn = DrawnRun(name, seen, of_run(Run(embedded / name)))
            first = next(pictures([drawn])).figure
        assert first.axes[0].get_ylabel().replace("\n", " ") == label
        assert key in [text.get_text() for legend in first.legends for text in legend.get_texts()]


def test_an_image_that_is_the_only_one_of_its_class_is_said(tmp_path, labelled):
    (labelled / "2" / "f.png").unlink()
    model, _ = embedder(tmp_path, channel_means())
    runs.measure(model, labelled, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "1 images left out: the only one of their class, whose mean takes two or more." in summary["warnings"]
    assert summary["run"]["images"]["wrong"] == 2  # and the blue one that is labelled red


def test_cosines_of_an_embedding_that_is_rounding_are_said(tmp_path, images, matrix):
    """Rows that add up to 0 answer a grey image with what rounding leaves."""
    from PIL import Image

    Image.new("RGB", (8, 8), (90, 90, 90)).save(images / "grey.png")
    model, _ = embedder(tmp_path, matrix - matrix.mean(axis=1, keepdims=True))
    runs.measure(model, images, tmp_path / "run", radii=(0.001, 4.0))
    (said,) = (w for w in json.loads((tmp_path / "run" / "summary.json").read_text())["warnings"] if "rounding" in w)
    assert said.startswith("The embeddings of 1 images, which are nearly zero, change by more than 1% (up to ")
    pytest.importorskip("matplotlib")
    from analyzer.measures.isotropy import SCORES
    from analyzer.plots import DrawnRun
    from analyzer.plots.model import cloud
    from analyzer.store import Run
    from analyzer.summary import of_run

    with open_run(tmp_path / "run") as seen:
        drawn = cloud(DrawnRun("run", seen, of_run(Run(tmp_path / "run"))), SCORES)
        grey = seen.image.values.tolist().index("grey.png")
    assert (drawn.spread[grey] > 1e-3).all() and not drawn.resolved[grey].any()
    assert drawn.resolved[np.arange(7) != grey, 1].all()


def test_an_embedding_of_zeros_is_said(tmp_path, images, capsys):
    from PIL import Image

    Image.new("RGB", (8, 8), (128, 128, 128)).save(images / "grey.png")
    model, _ = embedder(tmp_path, channel_means())
    code, out, _ = runs.call(capsys, "run", model, "--images", images, "--out", tmp_path / "run", *runs.SMALL)
    assert code == 0 and "1 with outputs that are all zeros, or not finite" in out


def test_features_of_another_layer_are_said(tmp_path, images, matrix):
    model, _ = embedder(tmp_path, matrix, feature="flat")
    runs.measure(model, images, tmp_path / "run")
    assert "Features are those of flat, not of the embedding e." in runs_warnings(tmp_path / "run")


def runs_warnings(run):
    return json.loads((run / "summary.json").read_text())["warnings"]
