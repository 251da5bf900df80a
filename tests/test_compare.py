"""Comparing runs: the sign test, Holm, matching by content, differences known in closed form, verdicts."""

import copy
import dataclasses
import itertools
import json
import shutil

import graphs
import numpy as np
import pytest
import runs
from runs import call

import analyzer.cli.deciding  # noqa: F401
from analyzer import card as cards
from analyzer import store, study
from analyzer.card import Resize
from analyzer.cli import tables
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.measures import NUMBERS, TABLES
from analyzer.statistics import Estimate
from analyzer.store import checksums
from analyzer.verdicts.compare import FAINT, compare, compare_opened, paired
from analyzer.verdicts.compare.sentences import sentence
from analyzer.verdicts.pairing import OTHER_RANGES, opened

IMAGES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`once` and `twice` differ in the scale of their logits only; `large` takes inputs of another size."""
    folder = tmp_path_factory.mktemp("runs")
    runs.write_images(folder / "images", IMAGES, size=8)
    for name, scale in (("once", 0.05), ("twice", 0.1)):
        model, _ = graphs.pixel_mean(folder / f"{name} model", weights=(scale, -scale))
        runs.measure(model, folder / "images", folder / name, permutations=0)
    model, card = graphs.pixel_mean(folder / "large model", weights=(0.05, -0.05), size=(16, 16))
    cards.write(dataclasses.replace(card, resize=Resize("stretch")), cards.beside(model))
    runs.measure(model, folder / "images", folder / "large", permutations=0)
    return folder


def changed(source, target, **identity):
    """A copy of a run that says it was made by another protocol."""
    shutil.copytree(source, target)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["identity"] |= identity
    follows = {axis: identity[key] for key, axis in (("radii", "radius"), ("trials", "trial")) if key in identity}
    manifest["coordinates"] |= follows
    (target / "manifest.json").write_text(json.dumps(checksums.sealed(manifest)))
    document = json.loads((target / "summary.json").read_text())
    document["run"]["protocol"] |= identity
    (target / "summary.json").write_text(json.dumps(checksums.sealed(document)))
    return target


# statistics -----------------------------------------------------------------------------------------------------------


def test_the_sign_test_counts_every_pattern():
    signs = np.array(list(itertools.product((1, -1), repeat=9))).sum(axis=1)
    for above in range(10):
        expected = np.mean(np.abs(signs) >= abs(2 * above - 9))
        assert paired.sign_test_p(above, 9 - above) == pytest.approx(expected)
    assert paired.sign_test_p(0, 0) == 1


@pytest.mark.parametrize("images", [10, 12, 40])
def test_skewed_differences_without_a_direction_are_rarely_told_apart(rng, images):
    """Half of the differences are above 0, although their mean is not 0."""
    values = rng.lognormal(0, 1.5, (images, 2000)) - 1.0
    told = [paired.distinguishable(d.estimate, d.p) for d in paired.differences(np.zeros_like(values), values)]
    assert np.mean(told) < 0.06


def test_paired_differences_are_medians_and_of_shares_means():
    first, second = np.zeros((12, 2)), np.stack([np.r_[np.arange(1.0, 12), np.nan], np.r_[np.ones(3), np.zeros(9)]], 1)
    value, share = (paired.differences(first, second, shares=shares)[k] for k, shares in ((0, False), (1, True)))
    assert value.estimate == Estimate(6.0, 2.0, 10.0, 11)
    assert (value.above, value.below, value.p) == (11, 0, 2 / 2**11)
    assert share.estimate[::3] == (0.25, 12)
    assert np.isnan(share.estimate.low)
    assert (share.above, share.below, share.p) == (3, 0, 0.25)
    (nothing,) = paired.differences(np.full((3, 1), np.nan), np.zeros((3, 1)))
    assert nothing.estimate.n == 0
    assert np.isnan(nothing.p)


def test_holm():
    assert paired.holm([0.01, 0.04, 0.03, np.nan]) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)
    assert paired.holm([0.5, 0.9]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("estimate", "p", "expected"),
    [
        (Estimate(1, 0.5, 1.5, 12), 0.01, True),
        (Estimate(1, -0.5, 1.5, 12), 0.01, False),
        (Estimate(1, 0.5, 1.5, 12), 0.06, False),
        (Estimate(1, np.nan, np.nan, 12), 0.01, True),
        (Estimate(0, np.nan, np.nan, 12), 1.0, False),
        (Estimate(1, 0.5, 1.5, 9), 0.01, None),
        (Estimate(np.nan, np.nan, np.nan, 0), np.nan, None),
    ],
)
def test_distinguishable(estimate, p, expected):
    assert paired.distinguishable(estimate, p) is expected


# runs -----------------------------------------------------------------------------------------------------------------


def test_doubled_logits_double_the_log_odds_range_and_nothing_else(folder):
    document = compare([folder / "once", folder / "twice"])
    assert (document["images"], document["pairing"]) == (IMAGES, "perturbation")
    assert document["properties"].keys() == {
        q.name for table in TABLES if getattr(table, "default", True) for q in table.compared
    }
    isotropy = document["properties"]["isotropy_log_odds_range"]
    for entry in [*isotropy["radii"].values(), isotropy["overall"]]:
        once, twice = entry["values"]["once"], entry["values"]["twice"]
        (pair,) = entry["pairs"]
        assert twice == pytest.approx(2 * once, rel=1e-4)
        assert pair["difference"] == pytest.approx(once, rel=1e-4)
        assert pair["low"] < pair["difference"] < pair["high"]
        assert pair["p"] == pair["p_holm"] == 2 / 2**IMAGES
        assert pair["distinguishable"] is True
    assert [r["name"] for r in isotropy["ranking"]] == ["once", "twice"]
    assert [r["more_robust_than"] for r in isotropy["ranking"]] == [["twice"], []]
    assert "once is more robust on more images (twice minus once: " in isotropy["sentence"]
    assert "above 0 on 12 of 12 images, below on 0; p = 0.00049" in isotropy["sentence"]
    same = document["properties"]["lipschitz_mean"]
    assert same["overall"]["pairs"][0]["difference"] == 0
    assert same["overall"]["pairs"][0]["distinguishable"] is False
    assert "not distinguishable" in same["sentence"]


def test_the_order_of_the_runs_turns_the_sign_only(folder):
    one, other = (compare([folder / a, folder / b]) for a, b in (("once", "twice"), ("twice", "once")))
    a, b = (d["properties"]["isotropy_log_odds_range"] for d in (one, other))
    assert a["overall"]["pairs"][0]["difference"] == -b["overall"]["pairs"][0]["difference"]
    assert a["ranking"] == b["ranking"]


def test_mantel_r_is_not_ranked(folder):
    document = compare([folder / "once", folder / "large"])
    found = document["properties"]["mantel_r"]
    assert found["ranking"] is None
    assert found["more_robust"] is None
    assert "more robust" not in found["sentence"]
    assert document["pairing"] == "image"
    assert any("paired by image" in note for note in document["notes"])


def test_several_runs_are_compared_pair_by_pair_with_holm(folder):
    document = compare([folder / name for name in ("once", "twice", "large")])
    found = document["properties"]["isotropy_log_odds_range"]
    pairs = found["overall"]["pairs"]
    assert [(p["first"], p["second"]) for p in pairs] == [("once", "twice"), ("once", "large"), ("twice", "large")]
    assert all(p["p_holm"] >= p["p"] for p in pairs)
    assert pairs[0]["p_holm"] > pairs[0]["p"]
    assert found["sentence"].count("most robust first") == 1
    values = [r["value"] for r in found["ranking"]]
    assert values == sorted(values)


def test_values_are_those_of_the_summary(folder):
    document, summary = compare([folder / "once", folder / "twice"]), store.Run(folder / "once").read_summary()
    for name, row in (("misclassified", "misclassified_share@4"), ("mantel_r", "mantel_r_median@4")):
        assert document["properties"][name]["radii"]["4"]["values"]["once"] == pytest.approx(summary[row]["value"])
    overall = document["properties"]["misclassified"]["overall"]["values"]["once"]
    each = [entry["values"]["once"] for entry in document["properties"]["misclassified"]["radii"].values()]
    assert overall == pytest.approx(np.mean(each))


def test_only_common_images_count_whatever_their_names(folder, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(folder / "images", images)
    (images / "image_000.png").unlink()
    (images / "image_001.png").rename(images / "zebra.png")
    model, _ = graphs.pixel_mean(tmp_path / "model", weights=(0.1, -0.1))
    runs.measure(model, images, tmp_path / "fewer", permutations=0)
    document = compare([folder / "once", tmp_path / "fewer"])
    assert document["images"] == IMAGES - 1
    assert any(note.startswith("11 images are common") for note in document["notes"])
    pair = document["properties"]["isotropy_log_odds_range"]["radii"]["4"]["pairs"][0]
    values = document["properties"]["isotropy_log_odds_range"]["radii"]["4"]["values"]
    assert values["fewer"] == pytest.approx(2 * values["once"], rel=1e-4)
    assert pair["n"] == IMAGES - 1


def test_few_images_cannot_tell(folder, tmp_path):
    for name, source in (("a", "once"), ("b", "twice")):
        shutil.copytree(folder / source, tmp_path / name)
        for unit in sorted((tmp_path / name / "units").glob("*.npz"))[5:]:
            unit.unlink()
        (tmp_path / name / "summary.json").unlink()
    found = compare([tmp_path / "a", tmp_path / "b"])["properties"]["isotropy_log_odds_range"]
    assert found["overall"]["pairs"][0]["distinguishable"] is None
    assert found["sentence"].endswith("5 image(s) cannot tell; 10 are needed.")
    assert [r["more_robust_than"] for r in found["ranking"]] == [[], []]


def test_partial_runs_and_measures_that_one_lacks_are_said(folder, tmp_path):
    model, _ = graphs.pixel_mean(tmp_path / "model", weights=(0.1, -0.1))
    runs.measure(model, folder / "images", tmp_path / "part", measures=("isotropy",), permutations=0)
    next((tmp_path / "part" / "units").glob("*.npz")).unlink()
    (tmp_path / "part" / "summary.json").unlink()
    document = compare([folder / "once", tmp_path / "part"])
    assert f"part is partial: {IMAGES - 1} of {IMAGES} images." in document["notes"]
    assert any(note.startswith("part did not measure") and "mantel_r" in note for note in document["notes"])
    assert document["properties"].keys() == {
        "margin_noise_units",
        "flip_radius",
        "isotropy_log_odds_range",
        "misclassified",
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("radii", [1, 2]),
        ("trials", 7),
        ("norm", "l2"),
        ("clip", True),
        ("round", True),
        ("seed", 1),
        ("min_confidence", 0.5),
    ],
)
def test_other_protocols_are_refused_by_key(folder, tmp_path, key, value):
    other = changed(folder / "twice", tmp_path / "other", **{key: value})
    with pytest.raises(UsageError, match=f"once and other .* different protocols: {key} "):
        compare([folder / "once", other])


def test_limit_and_permutations_may_differ(folder, tmp_path):
    assert compare([folder / "once", changed(folder / "twice", tmp_path / "o", limit=99, permutations=999)])["images"]


def test_what_cannot_be_compared(folder, tmp_path):
    for paths in ([], [folder / "once"], [folder / "once", folder / "images" / ".." / "once"]):
        with pytest.raises(UsageError, match="two or more different runs"):
            compare(paths)
    with pytest.raises(InputError, match="no run here"):
        compare([folder / "once", tmp_path])
    runs.write_images(tmp_path / "others", 3, size=8, seed=1)
    model, _ = graphs.pixel_mean(tmp_path / "model")
    study.run(model, tmp_path / "others", tmp_path / "o", protocol=runs.protocol(permutations=0), provider="cpu")
    with pytest.raises(InputError, match=r"no measured image is common to all runs \(once has 12, o has 3\)"):
        compare([folder / "once", tmp_path / "o"])
    for unit in (tmp_path / "o" / "units").glob("*.npz"):
        unit.unlink()
    (tmp_path / "o" / "summary.json").unlink()
    with pytest.raises(IncompleteError, match="partial, 0 of 3"):
        compare([folder / "once", tmp_path / "o"])


def test_runs_without_a_common_measure_are_refused(folder, tmp_path):
    runs.measure(
        next((folder / "once model").glob("*.onnx")), folder / "images", tmp_path / "l", measures=("lipschitz",)
    )
    runs.measure(
        next((folder / "twice model").glob("*.onnx")), folder / "images", tmp_path / "i", measures=("isotropy",)
    )
    with pytest.raises(InputError, match="no measure is common to l and i"):
        compare([tmp_path / "l", tmp_path / "i"])


def test_damage_that_shows_late_names_the_run(capsys, folder, tmp_path):
    shutil.copytree(folder / "once", tmp_path / "bad")
    runs.flip(tmp_path / "bad", "isotropy_log_odds")
    for pair in ([tmp_path / "bad", folder / "twice"], [folder / "twice", tmp_path / "bad"]):
        code, _, err = call(capsys, "compare", *pair)
        assert code == 5
        assert f"{tmp_path / 'bad' / 'results.nc'}: damaged" in err


def test_partial_runs_are_counted_as_they_are_read(folder, tmp_path):
    lost, grown = tmp_path / "lost", changed(folder / "twice", tmp_path / "grown", limit=1000)
    shutil.copytree(folder / "once", lost)
    for unit in (lost / "units").glob("*.npz"):
        unit.unlink()
    for name in ("results.nc", "summary.json"):
        (grown / name).unlink()
    document = compare([lost, grown])
    assert [(run["finished"], run["complete"]) for run in document["runs"]] == [(IMAGES, False)] * 2
    assert document["notes"][:2] == [
        f"lost: {IMAGES} units are damaged or missing; see `analyzer verify`.",
        "grown is partial: the images of its new limit are not selected yet.",
    ]


@pytest.mark.parametrize(("floor", "silent"), [(0.49, False), (0.51, True)])
def test_ranges_below_the_noise_floor_crown_nobody(folder, floor, silent):
    with opened(store.Run(folder / "once")) as once, opened(store.Run(folder / "twice")) as twice:
        median = float(np.median(np.ptp(once.dataset["isotropy_log_odds"].sel(radius=4).values, axis=-1)))
        found = []
        for run in (once, twice):
            dataset = run.dataset.copy()
            dataset["log_odds_noise_floor"] = 0 * dataset["log_odds_noise_floor"] + floor * median
            found.append(dataclasses.replace(run, dataset=dataset))
        document = compare_opened(found)
    isotropy = document["properties"]["isotropy_log_odds_range"]
    (pair,) = isotropy["radii"]["4"]["pairs"]
    assert (pair["distinguishable"], pair["reason"]) == ((False, FAINT) if silent else (True, None))
    (pair,) = isotropy["radii"]["0.5"]["pairs"]  # an eighth of the range
    assert (pair["distinguishable"], pair["reason"]) == (False, FAINT)
    assert f"no verdict, {FAINT}" in isotropy["sentence"]  # the mean of the two radii is below in either case
    assert not any(entry["more_robust_than"] for entry in isotropy["ranking"])
    assert document["properties"]["misclassified"]["overall"]["pairs"][0]["reason"] is None


def other_ranges(run):
    """The run, as if its ranges came from one image more."""
    more = [*run.run.calibration["candidates"], {"outcome": "good", "sha256": "0" * 64}]
    other = copy.copy(run.run)
    other.calibration = {**run.run.calibration, "candidates": more}
    return dataclasses.replace(run, run=other)


def test_ratios_by_ranges_of_other_images_have_no_verdict(folder):
    with opened(store.Run(folder / "once")) as once, opened(store.Run(folder / "large")) as large:
        document = compare_opened([once, other_ranges(large)])
    for name in ("lipschitz_mean", "jacobian_normalised"):
        found = document["properties"][name]
        pairs = [pair for entry in (*found["radii"].values(), found["overall"]) for pair in entry["pairs"]]
        assert all((p["distinguishable"], p["reason"]) == (None, OTHER_RANGES) for p in pairs)
        assert f"no verdict, {OTHER_RANGES}" in found["sentence"]
        assert not any(entry["more_robust_than"] for entry in found["ranking"])
    assert document["properties"]["isotropy_log_odds_range"]["overall"]["pairs"][0]["reason"] is None
    assert any(OTHER_RANGES in note for note in document["notes"])


def test_the_last_note_says_what_p_is_not_corrected_for(folder):
    note = compare([folder / "once", folder / "twice"])["notes"][-1]
    assert note.endswith("p is not corrected for the number of radii, properties and layers.")


def test_several_pairs_say_which_have_no_verdict():
    def pair(first, second, distinguishable, reason):
        return {"first": first, "second": second, "distinguishable": distinguishable, "reason": reason}

    pairs = [pair("a", "b", True, None), pair("a", "c", False, None), pair("b", "c", False, FAINT)]
    overall = {"n": 12, "values": {"a": 1.0, "b": 2.0, "c": 1.5}, "pairs": pairs}
    said = sentence("T", overall, "lower")
    assert said == f"T: most robust first: a, c, b; not distinguishable: a and c; no verdict on b and c ({FAINT})."
    said = sentence("T", {**overall, "pairs": pairs[2:] * 2}, "lower")
    assert said.startswith("T: no verdict; no verdict on")


def test_every_quantity_reads_known_variables(folder):
    with opened(store.Run(folder / "once")) as run:
        for quantity in {number.quantity for number in NUMBERS.values()}:
            assert quantity.measured_in(run.dataset) is not quantity.name.startswith("certified")


def test_runs_are_called_as_they_are_asked_to_be(folder):
    found = compare([folder / "once", folder / "twice"], names=["first", "second"])
    assert [run["name"] for run in found["runs"]] == ["first", "second"]


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["run", "runs"], ["run", "runs"]),
        (["net_v1", "net_v10"], ["v1", "v10"]),
        (["net", "net_int8"], ["net", "int8"]),
        (["gtsrb_a", "gtsrb_b"], ["a", "b"]),
    ],
)
def test_names_lose_only_whole_words_that_all_begin_with(names, short):
    assert list(tables.without_common_start(names[0], names).values()) == short


# command line ---------------------------------------------------------------------------------------------------------


def test_command_prints_tables_and_verdicts(capsys, folder):
    code, out, err = call(capsys, "compare", folder / "once", folder / "twice", "--tables")
    assert (code, err) == (0, "")
    assert "once and twice on 12 images" in out
    assert "Every run saw the same perturbations" in out
    assert "lower is more robust" in out
    assert "once is more robust" in out
    code, out, _ = call(capsys, "compare", folder / "once", folder / "twice", folder / "large", "--tables")
    assert code == 0
    assert "Paired by image" in out
    assert "p after Holm" in out


def test_command_fits_a_screen(capsys, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = call(capsys, "compare", folder / "once", folder / "twice")
    assert (code, err) == (0, "")
    document = compare([folder / "once", folder / "twice"])
    assert sum(-(-max(len(line), 1) // 80) for line in out.splitlines()) <= 40
    (line,) = (line for line in out.splitlines() if line.startswith("• once is more robust on more images: "))
    more_robust = {
        name
        for name, each in document["properties"].items()
        if each["overall"]["pairs"][0]["distinguishable"] and each["ranking"][0]["name"] == "once"
    }
    assert more_robust and line.count(";") == len(more_robust) - 1
    (row,) = (line for line in out.splitlines() if line.startswith("Isotropy, nat"))
    pair = document["properties"]["isotropy_log_odds_range"]["overall"]["pairs"][0]
    assert f"{pair['p']:.2g}"[:3] in row
    code, out, _ = call(capsys, "compare", folder / "once", folder / "twice", folder / "large")
    assert code == 0 and "first: once" in out


def test_command_json_is_the_document(capsys, folder):
    code, out, err = call(capsys, "compare", folder / "once", folder / "twice", "--json")
    assert (code, err) == (0, "")
    found, expected = json.loads(out), compare([folder / "once", folder / "twice"])
    assert found["properties"].keys() == expected["properties"].keys()
    assert found["properties"]["misclassified"]["overall"]["pairs"][0]["low"] is None
    assert "NaN" not in out


def test_command_refuses_in_two_lines(capsys, folder, tmp_path):
    code, out, err = call(capsys, "compare", folder / "once", changed(folder / "twice", tmp_path / "o", seed=3))
    assert (code, out) == (2, "")
    assert "seed 0 and 3" in err
    assert len(err.splitlines()) <= 2


def test_hostile_names_are_shown_literally(capsys, folder, tmp_path):
    shutil.copytree(folder / "once", tmp_path / "[red]x[bold]\x1b[31m")
    code, out, _ = call(capsys, "compare", tmp_path / "[red]x[bold]\x1b[31m", folder / "twice")
    assert code == 0
    assert "[red]x[bold]" in out
    assert "\x1b" not in out
