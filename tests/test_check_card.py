"""`analyzer check-card`: which field of a card is wrong."""

import dataclasses
import json

import graphs
import numpy as np
import pytest
import runs
from PIL import Image

from analyzer import bundled, card, check_card
from analyzer.card import Resize
from analyzer.errors import InputError, UsageError
from analyzer.images import recompressed
from analyzer.verdicts import check_card as checking
from analyzer.verdicts.check_card.variants import CHANNELS, INTERPOLATION, LAYOUT, NORMALISATION, RESIZE, variants
from analyzer.verdicts.drift.numbers import upper

FOLDER = bundled.folder()
DEMO, LABELS = FOLDER / "demo", FOLDER / "demo" / "labels.csv"


def spoiled(right):
    """A card with each field wrong in turn: the field, and the wrong card."""
    count = len(right.mean)
    replace = dataclasses.replace
    yield CHANNELS, replace(right, channels="RGB" if right.channels == "BGR" else "BGR")
    yield NORMALISATION, replace(right, mean=(0.0,) * count, std=(1.0,) * count)
    yield NORMALISATION, replace(right, mean=(127.5,) * count, std=(127.5,) * count)
    yield NORMALISATION, replace(right, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    yield NORMALISATION, replace(right, std=(1.0,) * count)
    yield RESIZE, replace(right, resize=Resize("crop_pct", crop_pct=0.6))
    yield RESIZE, replace(right, resize=Resize("letterbox", pad=(255.0,)))
    yield INTERPOLATION, replace(right, resize=replace(right.resize, interpolation="nearest"))


@pytest.mark.parametrize("network", bundled.NETWORKS)
def test_the_right_card_is_the_best(network):
    found = check_card(FOLDER / f"{network}.onnx", DEMO, labels=LABELS, limit=43, provider="cpu")
    assert found["field"] == ""
    assert found["sentence"].startswith(("The card is the best of", "None of "))
    own = next(row for row in found["rows"] if not row["field"])
    assert own["accuracy"]["value"] == 1.0
    assert own["agreement"] == 1.0
    assert {row["field"] for row in found["rows"]} == {"", CHANNELS, NORMALISATION, RESIZE, INTERPOLATION}
    assert found["unusable"] == ["NHWC"]


@pytest.mark.parametrize("network", ["gtsrb_ciresan2012", pytest.param("gtsrb_aghdam2015", marks=pytest.mark.slow)])
def test_the_spoiled_field_is_named_first(network, tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "differences", lambda *a, **k: [])
    model = FOLDER / f"{network}.onnx"
    right = card.read(FOLDER / f"{network}.json")
    seen = []
    for field, wrong in spoiled(right):
        card.write(wrong, tmp_path / "card.json")
        found = check_card(model, DEMO, card=tmp_path / "card.json", labels=LABELS, limit=43, provider="cpu")
        seen.append((field, found["field"], found["sentence"]))
        # Nothing else is ever blamed; what these images cannot tell, such as the scale to networks that classify all of
        # them correctly at any, is said and named.
        assert found["field"] in ("", field), seen[-1]
        assert found["field"] or field in found["sentence"], seen[-1]
    named = [field for field, blamed, _ in seen if blamed]
    assert {CHANNELS, RESIZE} <= {*named}, seen
    if network == "gtsrb_ciresan2012":  # all images are right at any scale, and yet
        assert named.count(NORMALISATION) >= 3, seen


def test_how_far_the_right_class_stands_out():
    from analyzer.verdicts.check_card.asking import _standing

    scores = np.array([[1.0, 2.0, 6.0], [1.0, 2.0, 6.0], [4.0, 4.0, 4.0], [np.nan, 1.0, 2.0]])
    labels = np.array([2, 0, 1, 2])
    found = _standing(scores, labels, "logits")
    assert found == pytest.approx([3 / np.sqrt(14 / 3), -2 / np.sqrt(14 / 3), 0, 0])
    assert _standing(7 * scores + 3, labels, "logits") == pytest.approx(found)
    # Probabilities of easy images are rounded: what scales up the most would stand out the most.
    assert np.isnan(_standing(np.exp(scores), labels, "probabilities")).all()
    assert np.isnan(_standing(scores, np.full(4, -1), "logits")).all()
    assert np.isnan(_standing(scores, labels, "sigmoid_logits")).all()
    assert np.isnan(_standing(scores[:, 1:], np.zeros(4, int), "logits")).all()


def judged(*cards):
    """check-card's order of cards (name, log-probability, standing), and which are alike the first of them."""
    from analyzer.verdicts.check_card.asking import Answers
    from analyzer.verdicts.check_card.variants import Variant

    few = np.zeros(12)
    answers = [Answers(few.astype(int), few, few, few + right, few + standing, 0.0) for _, right, standing in cards]
    tried = [(Variant(name, name, None), each) for (name, *_), each in zip(cards, answers, strict=True)]
    ranked = checking._ranked(tried, 12, margin=0.03)
    better = {variant.name: checking._better(each, answers[0], margin=0.03) for variant, each in ranked}
    alike = [variant.name for variant, each in ranked if checking._alike(each, answers[0], margin=0.03)]
    return [variant.name for variant, _ in ranked], alike, better


def test_the_right_class_has_to_be_as_probable_before_it_may_stand_out():
    itself = ("", -0.1, 3.0)
    order, alike, better = judged(
        itself, ("bold", -0.5, 9.0), ("alike", -0.1, 3.02), ("more", -0.1, 3.2), ("w", -2, 1.0)
    )
    assert order == ["more", "", "alike", "bold", "w"] and alike == ["more", "", "alike"]
    assert better["more"] < 0.01 and better["alike"] == better["w"] == 1
    assert judged(itself, ("alike", -0.1, 3.02))[0] == ["", "alike"]
    # Of a close second with flat others the label stands out, and yet is wrong.
    order, alike, better = judged(("", -2.2, 0.35), ("second", -0.8, 1.99), ("right", 0.0, 1.55))
    assert order == ["right", "second", ""] and better["right"] < 0.01
    # Without a standing, by the log-probability.
    order, alike, better = judged(("", -0.1, np.nan), ("more", -0.05, np.nan), ("alike", -0.09, np.nan))
    assert order == ["more", "", "alike"] and better["more"] < 0.01 and better["alike"] == 1


def test_it_says_what_to_check_and_mends_it_when_asked(tmp_path, capsys):
    wrong = tmp_path / "card.json"
    right = card.read(FOLDER / "gtsrb_ciresan2012.json")
    card.write(dataclasses.replace(right, channels="RGB"), wrong)
    before = wrong.read_text()
    asked = ["check-card", FOLDER / "gtsrb_ciresan2012.onnx", "--images", DEMO, "--labels", LABELS, "--card", wrong]
    code, out, _ = runs.call(capsys, *asked, "--provider", "cpu")
    assert code in (None, 0)
    assert "where the card gives" in " ".join(out.split())
    assert f"check {CHANNELS}" in " ".join(out.split())
    assert wrong.read_text() == before
    code, out, _ = runs.call(capsys, *asked, "--provider", "cpu", "--fix", "--json")
    document = json.loads(out)
    assert document["fixed"]
    mended = card.read(wrong)
    assert mended.channels == "BGR"
    assert check_card(asked[1], DEMO, card=wrong, labels=LABELS, provider="cpu")["field"] == ""
    assert mended.labels == right.labels
    (said,) = mended.source["fill_in"]  # of mean and std both orders do, which hardly differ
    assert "input.channels was chosen by check-card on 43 images, where 1 others did as well" in said
    assert {**mended.source, "fill_in": []} == {**right.source, "fill_in": []}


def test_without_labels_nothing_is_called_right(tmp_path):
    found = check_card(FOLDER / "gtsrb_ciresan2012.onnx", DEMO, card=None, limit=20, provider="cpu", fix=True)
    # The bundled folder has a table of labels, but it was not given.
    assert found["labelled"] == 0
    assert "Without labels no card can be called right" in found["sentence"]
    assert not found["fixed"]
    assert np.isnan(found["rows"][0]["accuracy"]["value"])
    assert found["rows"][0]["information"] > 1


def test_both_layouts_where_both_fit(tmp_path, images):
    """A network whose input has no fixed size takes either; the wrong one gives other answers."""
    model, own = graphs.convnet(tmp_path, layout="NHWC")
    runs.write_images(images, 6)
    found = check_card(model, images, provider="cpu")
    assert LAYOUT in {row["field"] for row in found["rows"]} or "NCHW" in found["unusable"]
    assert own.layout == "NHWC"


def test_whole_numbers_leave_mean_and_std_to_the_graph(tmp_path, images):
    model, own = graphs.convnet(tmp_path, input_type="uint8")
    runs.write_images(images, 4)
    found = check_card(model, images, provider="cpu")
    assert (own.mean, own.std) == ((0.0,) * 3, (1.0,) * 3)
    assert NORMALISATION not in {row["field"] for row in found["rows"]}
    assert found["differences"] == []


def test_an_equivalent_radius_is_that_of_noise(tmp_path, images):
    """The network sees the mean of the pixels alone: JPEG hardly moves it, and noise does not either."""
    model, _ = graphs.pixel_mean(tmp_path, size=(32, 32))
    runs.write_images(images, 8, size=32)
    found = check_card(model, images, provider="cpu")
    names = [each["name"] for each in found["differences"]]
    assert names == ["JPEG of quality 95, at the card's size", "JPEG of quality 75, at the card's size"]
    assert all(each["images"] == 8 for each in found["differences"])
    values = [each["equivalent"] for each in found["differences"]]
    assert all(np.isfinite(value["value"]) or "censored" in value for value in values)


def test_what_is_changed_by_a_resize_is_counted(tmp_path):
    found = check_card(FOLDER / "gtsrb_aghdam2015.onnx", DEMO, labels=LABELS, limit=20, provider="cpu")
    names = {each["name"]: each for each in found["differences"]}
    assert "resize: nearest" in names
    assert "resize: bilinear without low-pass (OpenCV)" in names
    harsh, mild = (upper(names[f"resize: {kind}"]["equivalent"]) for kind in ("nearest", "lanczos"))
    assert harsh >= mild


def test_recompressed_pixels():
    pixels = np.full((3, 16, 16), 128.0, np.float32)
    assert np.abs(recompressed(pixels, quality=95) - pixels).max() <= 1
    noisy = np.random.default_rng(0).integers(0, 256, (1, 16, 16)).astype(np.float32)
    assert recompressed(noisy, quality=50).shape == (1, 16, 16)
    assert (
        np.abs(recompressed(noisy, quality=50) - noisy).mean() > np.abs(recompressed(noisy, quality=95) - noisy).mean()
    )


def test_variants_differ_from_the_card_and_from_each_other():
    for network in bundled.NETWORKS:
        own = card.read(FOLDER / f"{network}.json")
        found = variants(own, resized=True)
        documents = [json.dumps(card.to_document(each.card), sort_keys=True) for each in found]
        assert len(set(documents)) == len(documents)
        assert json.dumps(card.to_document(own), sort_keys=True) not in documents
        for each in found:
            assert card.parse(card.to_document(each.card)) == each.card


@pytest.mark.parametrize("limit", [0, 1])
def test_too_few_images(limit):
    with pytest.raises(UsageError, match="`limit`"):
        check_card(FOLDER / "gtsrb_ciresan2012.onnx", DEMO, limit=limit)


def test_a_folder_of_no_pictures(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    images.mkdir()
    (images / "a.png").write_bytes(b"no picture")
    (images / "b.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="none of 2 images can be read"):
        check_card(model, images)


def test_one_unreadable_image_is_counted(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 4)
    Image.new("RGB", (16, 16)).save(images / "black.png")
    (images / "broken.png").write_bytes(b"no picture")
    found = check_card(model, images, provider="cpu")
    assert (found["images"], found["unreadable"]) == (5, 1)
