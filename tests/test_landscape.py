"""The plane through an image: networks whose score on it is known in closed form, the picture, and Fig. 5's page."""

import dataclasses
import doctest
import json
from pathlib import Path

import graphs
import numpy as np
import onnx
import pytest
import runs
from runs import call

import analyzer.cli.drawing  # noqa: F401
from analyzer import card as cards
from analyzer import images
from analyzer.analyses import landscape
from analyzer.errors import InputError, UsageError
from analyzer.measures import lipschitz
from analyzer.perturbations import deltas
from analyzer.plots import landscape as drawing

PAGE = Path(__file__).parent.parent / "docs" / "local_lipschitz.md"


@pytest.fixture
def image(tmp_path):
    return runs.write_images(tmp_path / "images", 1, size=8)[0]


def pixels_of(image, card):
    pixels = images.read(images.ImageFile(image.name, image, None), card=card)
    return pixels.values.astype(np.float64), pixels.sha256


def directions(image, card, *, radius=10.0, seed=0, norm="linf"):
    _, sha256 = pixels_of(image, card)
    keyed = {"seed": seed, "sha256": sha256, "shape": card.pixel_shape, "family": "permutation"}
    return deltas(**keyed, radius=radius, trials=2, norm=norm).astype(np.float64)


def test_a_symmetric_network_gives_both_reorderings_the_same_score(tmp_path, image):
    path, card = graphs.pixel_mean(tmp_path)
    plane = landscape.landscape(path, image, provider="cpu", size=7, seed=3)
    x, _ = pixels_of(image, card)
    u, v = directions(image, card, seed=3)
    assert u.mean() == pytest.approx(v.mean()) and not np.array_equal(u, v)
    a, b = np.meshgrid(plane.a, plane.b)
    expected = 0.1 * (x.mean() + a * u.mean() + b * v.mean())
    np.testing.assert_allclose(plane.log_odds, expected, rtol=1e-5)
    np.testing.assert_allclose(plane.margin, expected, rtol=1e-5)
    np.testing.assert_allclose(plane.score, 1 / (1 + np.exp(-expected)), rtol=1e-6)
    assert plane.marked_log_odds[1] == pytest.approx(plane.marked_log_odds[2], rel=1e-6)
    assert not plane.crossed and plane.nearest == np.inf
    assert "all of it lies inside the class" in landscape.sentence(plane)


def test_axes_and_marked_points_are_where_they_are_said_to_be(tmp_path, image):
    """A linear network that reads off a, and one that reads off b."""
    _, card = graphs.pixel_mean(tmp_path)
    u, v = directions(image, card, radius=4.0, norm="l2")
    dual = np.linalg.pinv(np.stack([u.ravel(), v.ravel()]).T)
    path, card = graphs.linear(tmp_path, dual)
    plane = landscape.landscape(path, image, provider="cpu", size=5, radius=4.0, norm="l2", label=0)
    x, _ = pixels_of(image, card)
    start = dual[0] @ x.ravel() - dual[1] @ x.ravel()
    a, b = np.meshgrid(np.linspace(-1.5, 1.5, 5), np.linspace(-1.5, 1.5, 5))
    np.testing.assert_allclose(plane.margin, start + a - b, atol=2e-3)
    np.testing.assert_allclose(plane.marked_log_odds - plane.marked_log_odds[0], [0, 1, -1], atol=2e-3)
    np.testing.assert_allclose(plane.images[1] - plane.images[0], u, atol=1e-4)
    np.testing.assert_allclose(plane.images[2] - plane.images[0], v, atol=1e-4)
    assert plane.cosine == pytest.approx(np.sum(u * v) / np.linalg.norm(u) / np.linalg.norm(v))
    assert np.linalg.norm(u) == pytest.approx(4, rel=1e-5)


def boundary_at(folder, image, place):
    """A linear network whose decision boundary is the line a = place."""
    _, card = graphs.pixel_mean(folder)
    x, _ = pixels_of(image, card)
    u, v = directions(image, card)
    rows = np.stack([x.ravel(), u.ravel(), v.ravel()])
    weights = np.linalg.pinv(rows) @ np.array([1.0, -1 / place, 0.0])
    return graphs.linear(folder, np.stack([weights, 0 * weights]))


def test_the_boundary_is_found_and_drawn(tmp_path, image):
    path, card = boundary_at(tmp_path, image, 0.525)
    plane = landscape.landscape(path, image, provider="cpu")
    assert plane.label == 0 and plane.crossed
    assert plane.marked_predicted.tolist() == [0, 1, 0]
    assert landscape.document(plane)["misclassified_share"] == pytest.approx(20 / 61)
    u, v = directions(image, card)
    along = 0.55 * (u - np.sum(u * v) / np.sum(v * v) * v)
    assert plane.nearest == pytest.approx(np.linalg.norm(along) / np.linalg.norm(u), rel=2e-3)
    picture = drawing.draw(plane, name="a.png", label="0", says="words")
    for ax in picture.figure.subfigs[0].axes[:2]:
        (contour,) = [c for c in ax.collections if hasattr(c, "levels")]
        line = np.concatenate([path.vertices for path in contour.get_paths()])
        np.testing.assert_allclose(line[:, 0], 0.525, atol=1e-3)
        np.testing.assert_allclose([m.get_xydata()[0] for m in ax.lines], [(0, 0), (1, 0), (0, 1)])
    shown = {round(n, 3): picture.figure.subfigs[0].axes[n].images[0].get_array() for n in (0, 1)}
    np.testing.assert_array_equal(shown[0], plane.score)
    np.testing.assert_array_equal(shown[1], plane.log_odds)
    legend = [t.get_text() for t in picture.figure.subfigs[0].legends[0].get_texts()]
    assert legend[-1] == "decision boundary"


def test_without_a_boundary_the_picture_says_so(tmp_path, image):
    path, _ = boundary_at(tmp_path, image, 5.0)
    plane = landscape.landscape(path, image, provider="cpu", size=5)
    assert not plane.crossed
    above = drawing.draw(plane, name="$x$", label="<b>", says="words").figure.subfigs[0]
    assert not [c for ax in above.axes for c in ax.collections if hasattr(c, "levels")]
    assert above.legends[0].get_texts()[-1].get_text() == "no decision boundary in the window"


def test_another_label_than_the_prediction(tmp_path, image):
    path, _ = boundary_at(tmp_path, image, 5.0)
    plane = landscape.landscape(path, image, provider="cpu", size=5, label=1)
    assert plane.label == 1 and (plane.score < 0.5).all()
    assert "all of it lies outside the class" in landscape.sentence(plane)
    with pytest.raises(UsageError, match=r"`label` 2: .* has classes 0\.\.1"):
        landscape.landscape(path, image, provider="cpu", size=5, label=2)


def test_the_marked_points_are_those_of_a_run(tmp_path, image):
    path, _ = graphs.convnet(tmp_path, size=8)
    measured = runs.measure(path, image.parent, tmp_path / "run", radii=(7.0,), measures=("symmetry",))
    plane = landscape.landscape(path, image, provider="cpu", size=3, radius=7.0)
    np.testing.assert_allclose(plane.marked_log_odds[0], measured.clean_log_odds[0], rtol=1e-4)
    np.testing.assert_allclose(plane.marked_log_odds[1:], measured.symmetry_log_odds[0, 0, :2], rtol=1e-4)
    assert plane.label == measured.label[0]


def test_clip_and_round_make_real_images(tmp_path, image):
    path, _ = graphs.convnet(tmp_path, size=8, input_type="uint8")
    with pytest.raises(InputError, match=r"clip.*round"):
        landscape.landscape(path, image, provider="cpu", size=3)
    plane = landscape.landscape(path, image, provider="cpu", size=3, radius=200, clip=True, round=True)
    assert plane.images.min() == 0 and plane.images.max() == 255
    assert (plane.images == plane.images.round()).all()
    assert np.isfinite(plane.log_odds).all()


def test_points_without_an_answer_stay_undefined(tmp_path, image):
    _, card = graphs.pixel_mean(tmp_path)
    x, _ = pixels_of(image, card)
    shift = abs(directions(image, card)[0].mean())
    path, _ = graphs.nan(tmp_path, threshold=x.mean() + shift)
    plane = landscape.landscape(path, image, provider="cpu", size=7)
    undefined = np.isnan(plane.score)
    assert undefined.any() and not undefined.all()
    assert (undefined == (plane.predicted < 0)).all() and (undefined == np.isnan(plane.margin)).all()
    assert landscape.document(plane)["undefined_points"] == undefined.sum()
    assert drawing.draw(plane, name="n", label="0", says="").figure is not None
    path, _ = graphs.nan(tmp_path, threshold=x.mean() - 1)
    with pytest.raises(InputError, match="not finite"):
        landscape.landscape(path, image, provider="cpu", size=7)


def test_probabilities_that_rounded_to_one_have_no_log_odds(tmp_path, image):
    constant = np.zeros((2, 192))
    constant[0, 0] = 1e3
    path, card = graphs.linear(tmp_path, constant)
    model = onnx.load(path)
    model.graph.node.append(graphs.node("HardSigmoid", "logits", "scores"))
    model.graph.output[0].name = "scores"
    onnx.save(model, path)
    named = tmp_path / "probabilities.json"
    cards.write(dataclasses.replace(card, kind="probabilities"), named)
    plane = landscape.landscape(path, image, card=named, provider="cpu", size=3, radius=1e-3)
    assert np.isnan(plane.log_odds).all()
    assert landscape.document(plane)["sentence"].startswith("The score is")
    assert drawing.draw(plane, name="flat", label="0", says="").figure is not None


@pytest.mark.parametrize(
    ("margin", "predicted", "says"),
    [
        ([[1.0, 0.0]], [[0, 0]], "no point of the window is of another class"),
        ([[np.nan, np.nan]], [[-1, -1]], "no boundary can be said"),
        ([[1.0, -1.0]], [[0, 1]], "Another class is predicted on 50%"),
    ],
)
def test_no_number_that_is_not_finite_is_said(margin, predicted, says):
    marked = np.array([0.9, np.nan, 0.8])
    plane = landscape.Landscape(
        a=np.array([0.0, 1.0]),
        b=np.array([0.0]),
        score=np.array([[0.9, 0.5]]),
        log_odds=np.array([[2.0, np.nan]]),
        margin=np.array(margin),
        predicted=np.array(predicted, np.int32),
        marked_score=marked,
        marked_log_odds=marked,
        marked_predicted=np.zeros(3, np.int32),
        images=np.zeros((3, 3, 2, 2), np.float32),
        label=0,
        radius=1.0,
        norm="linf",
        cosine=0.0,
    )
    sentence = landscape.sentence(plane)
    assert says in sentence and "undefined" in sentence
    assert "nan" not in sentence.split() and "inf" not in sentence


def test_a_probability_is_told_from_one():
    shown = {1.0: "1", 1 - 2.34e-6: "1 - 2.3e-6", 0.98: "0.98", np.nan: "undefined", 0.0: "0"}
    assert {value: landscape.probability_text(value) for value in shown} == shown


def test_a_score_that_does_not_change_is_drawn(tmp_path, image):
    path, _ = graphs.constant(tmp_path, logits=(200.0, 0.0))
    plane = landscape.landscape(path, image, provider="cpu", size=3)
    assert (plane.score == 1).all() and (plane.log_odds == 200).all()
    assert drawing.draw(plane, name="flat", label="0", says="").figure is not None


@pytest.mark.parametrize("size", [2, 1002])
def test_sizes_out_of_range(tmp_path, image, size):
    path, _ = graphs.pixel_mean(tmp_path)
    with pytest.raises(UsageError, match="`size`"):
        landscape.landscape(path, image, provider="cpu", size=size)


def test_the_command_draws_and_says_what_it_drew(capsys, tmp_path, image):
    path, _ = boundary_at(tmp_path, image, 0.525)
    code, out, _ = call(
        capsys, "landscape", path, image, "--size", "11", "--out", tmp_path / "l.png", "--provider", "cpu"
    )
    assert code == 0
    assert "image + u" in out and "(1, 0)" in out
    assert "Another class is predicted on" in out
    assert (tmp_path / "l.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "l.svg").read_bytes()


@pytest.mark.parametrize(("name", "drawn"), [("photo.png", "photo"), ("-a\x1b]0; b\udcff.png", "a_0_b_")])
def test_without_out_the_picture_is_named_after_the_image(capsys, tmp_path, image, monkeypatch, name, drawn):
    path, _ = graphs.pixel_mean(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "landscape", path, image.rename(tmp_path / name), "--size", "3", "--provider", "cpu")
    assert code == 0, err
    assert f"Wrote {drawn}_landscape.png and {drawn}_landscape.svg" in out
    assert Path(f"{drawn}_landscape.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in Path(f"{drawn}_landscape.svg").read_bytes()


def test_without_matplotlib_only_json(capsys, tmp_path, image, monkeypatch):
    path, _ = graphs.pixel_mean(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with monkeypatch.context() as patched:
        patched.setattr(landscape, "landscape", lambda *_, **__: pytest.fail("computed before the refusal"))
        code, out, err = call(capsys, "landscape", path, image, "--provider", "cpu")
    assert (code, out) == (2, "")
    assert "[report]" in err and "--json" in err
    code, out, err = call(capsys, "landscape", path, image, "--size", "3", "--json", "--provider", "cpu")
    assert code == 0, err
    assert json.loads(out)["size"] == 3
    assert not list(tmp_path.glob("*_landscape.*"))


def test_the_command_as_json(capsys, tmp_path, image):
    path, _ = graphs.convnet(tmp_path, size=8)
    named = tmp_path / "named.json"
    cards.write(graphs.make_card((8, 8), mean=127.5, std=64.0, labels=tuple("abcde")), named)
    arguments = ("--size", "5", "--radius", "3", "--label", "2", "--card", named, "--json")
    code, out, _ = call(capsys, "landscape", path, image, *arguments, "--provider", "cpu")
    document = json.loads(out)
    plane = landscape.landscape(path, image, provider="cpu", size=5, radius=3, label=2)
    assert code == 0
    assert (document["label"], document["label_name"], document["size"]) == (2, "c", 5)
    assert [point["score"] for point in document["marked"].values()] == pytest.approx(plane.marked_score.tolist())
    assert document["log_odds_range"] == pytest.approx([plane.log_odds.min(), plane.log_odds.max()])
    assert document["boundary_crossed"] is plane.crossed


def test_bad_files_are_named(capsys, tmp_path, image):
    path, _ = graphs.pixel_mean(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"no image")
    for arguments, code, words in (
        ((path, tmp_path / "bad.png"), 4, "bad.png"),
        ((path, tmp_path / "none.png"), 4, "none.png"),
        ((tmp_path / "none.onnx", image), 4, "none.onnx"),
        ((path, image, "--radius", "0"), 2, "--radius 0:"),
        ((path, image, "--norm", "l7"), 2, "--norm l7"),
        ((path, image, "--out", tmp_path), 2, ".png"),
    ):
        exit_code, out, err = call(capsys, "landscape", *arguments, "--provider", "cpu")
        assert (exit_code, out) == (code, ""), err
        assert words in err


def test_fig5_page_runs():
    failed, attempted = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert (failed, attempted > 5) == (0, True)


def test_fig5_local_ratios_are_those_of_the_closed_form(rng):
    """sin moves by sin|nu| around 0 and 3 pi; its slow twin by sin(|nu| / 3) around 3 pi."""

    def slow(x):
        return np.where(np.abs(x) <= 1.5 * np.pi, np.sin(x), -np.sign(x) * np.cos((np.abs(x) - 1.5 * np.pi) / 3))

    noise = rng.uniform(-1, 1, 500)
    for function, centre, pace in ((np.sin, 0, 1), (slow, 0, 1), (np.sin, 3 * np.pi, 1), (slow, 3 * np.pi, 1 / 3)):
        moved = np.abs(function(centre + noise) - function(centre))
        expected = np.sin(np.abs(noise) * pace) / np.abs(noise)
        np.testing.assert_allclose(lipschitz.ratio(moved, np.abs(noise)), expected, rtol=1e-9)
    x = np.linspace(-20, 20, 100_001)
    for function in (np.sin, slow):
        assert lipschitz.ratio(np.abs(np.diff(function(x))), np.diff(x)).max() == pytest.approx(1, abs=1e-6)
