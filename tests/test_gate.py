"""The gate: verdicts on made-up numbers, changes known in closed form, JUnit XML, Markdown, exit codes."""

import dataclasses
import json
import math
import shutil
from xml.etree import ElementTree

import graphs
import numpy as np
import pytest
import runs
import scipy.stats
from test_compare import call, changed, other_ranges

from analyzer import store, summary
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.statistics import Estimate
from analyzer.verdicts import gate
from analyzer.verdicts.gate import MAX, MIN, REGRESSION, Change, Condition
from analyzer.verdicts.gate.changes import change, paired_number
from analyzer.verdicts.gate.documents import code
from analyzer.verdicts.pairing import OTHER_RANGES, matched, opened

NAN = math.nan
NUMBERS = {
    "below": Estimate(0.5, 0.4, 0.6, 20),
    "around": Estimate(0.9, 0.8, 1.1, 20),
    "above": Estimate(1.5, 1.2, 1.8, 20),
    "on": Estimate(1.0, 1.0, 1.0, 20),
    "few": Estimate(0.5, NAN, NAN, 3),
    "undefined": Estimate(NAN, NAN, NAN, 0),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`once` and `twice` differ in the scale of their logits only, so that log-odds ranges double."""
    folder = tmp_path_factory.mktemp("runs")
    runs.write_images(folder / "images", 12, size=8)
    for name, scale in (("once", 0.05), ("twice", 0.1)):
        model, _ = graphs.pixel_mean(folder / f"{name} model", weights=(scale, -scale))
        runs.measure(model, folder / "images", folder / name, permutations=19)
    return folder


def conditions(*texts, kind=MAX):
    return [gate.parse(kind, text) for text in texts]


# judging --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "status", "passed", "strictly"),
    [
        (MAX, "below", "passes", True, True),
        (MAX, "above", "fails", False, False),
        (MAX, "around", "undecided", True, False),
        (MAX, "on", "passes", True, True),
        (MAX, "few", "undecided", True, False),
        (MAX, "undefined", "undefined", False, False),
        (MIN, "below", "fails", False, False),
        (MIN, "above", "passes", True, True),
        (MIN, "around", "undecided", False, False),
        (MIN, "on", "passes", True, True),
        (MIN, "few", "undecided", False, False),
        (MIN, "undefined", "undefined", False, False),
    ],
)
def test_verdicts(kind, name, status, passed, strictly):
    (verdict,) = gate.judge(NUMBERS, conditions(f"{name}=1", kind=kind))
    assert (verdict.status, verdict.passed) == (status, passed)
    assert gate.judge(NUMBERS, conditions(f"{name}=1", kind=kind), strict=True)[0].passed is strictly
    if status == "undecided":
        assert f"undecided (value {'passes' if passed else 'fails'})" in verdict.text


@pytest.mark.parametrize(
    ("name", "estimate", "status"),
    [
        ("isotropy_range_median@1", Estimate(0.05, 0.01, 0.09, 20), "passes"),
        ("isotropy_range_median@1", Estimate(0.05, 0.01, 0.11, 20), "undecided"),
        ("isotropy_range_median@1", Estimate(-0.5, -0.6, -0.4, 20), "passes"),
        ("isotropy_score_mean@1", Estimate(-0.5, -0.6, -0.4, 20), "fails"),
        ("isotropy_score_mean@1", Estimate(0.5, 0.4, 0.6, 20), "passes"),
        ("mantel_r_mean", Estimate(-0.5, -0.6, -0.4, 20), "fails"),
        ("mantel_r_mean", Estimate(-0.01, -0.2, 0.05, 20), "undecided"),
        ("mantel_r_mean", Estimate(-0.01, -0.02, 0.05, 20), "passes"),
        ("isotropy_range_median@1", Estimate(math.inf, NAN, NAN, 20), "fails"),
    ],
)
def test_a_regression_is_a_change_for_the_worse(name, estimate, status):
    (condition,) = conditions(f"{name}=10%", kind=REGRESSION)
    changes = {condition: Change(estimate, 1.0, 1.0)}
    (verdict,) = gate.judge({name: NUMBERS["on"]}, [condition], changes=changes)
    assert verdict.status == status


def test_unknown_names_list_the_near_ones_and_all():
    known = {"lipschitz_q95": NUMBERS["on"], "mantel_r_mean@0.5/a/b": NUMBERS["on"], "x@1": NUMBERS["on"]}
    with pytest.raises(UsageError) as raised:
        gate.judge(known, conditions("lipschitz_q59=1"))
    first, second = str(raised.value).splitlines()
    assert first.endswith("nearest: lipschitz_q95")
    assert second == "there are: lipschitz_q95, mantel_r_mean@R/LAYER, x@R; R one of 0.5, 1; LAYER one of a/b"


def test_parsing():
    assert gate.parse(MAX, "a@0.5/x=y=1e-3") == Condition(MAX, "a@0.5/x=y", 1e-3)
    assert gate.parse(REGRESSION, "a=10%") == Condition(REGRESSION, "a", 0.1, True)
    assert gate.parse(REGRESSION, "a=0.5") == Condition(REGRESSION, "a", 0.5, False)
    wrong = [(MAX, "a"), (MAX, "=1"), (MAX, "a=b"), (MAX, "a=nan"), (MIN, "a=inf"), (MAX, "a=5%")]
    for kind, text in [*wrong, (REGRESSION, "a=-1%"), (REGRESSION, "a=%")]:
        with pytest.raises(UsageError, match=f"`{kind.replace('-', '_')}` "):
            gate.parse(kind, text)


def test_conditions_need_something_to_judge_and_a_baseline():
    with pytest.raises(UsageError, match="nothing to judge"):
        gate.conditions_of([], [], [], baseline=False)
    with pytest.raises(UsageError, match="`baseline` RUN is missing"):
        gate.conditions_of([], [], ["a=1%"], baseline=False)
    with pytest.raises(UsageError, match="`max_regression` NAME=10% or `max` drift_"):
        gate.conditions_of(["a=1"], [], [], baseline=True)
    assert len(gate.conditions_of(["a=1"], ["b=1"], ["c=1"], baseline=True)) == 3


# changes --------------------------------------------------------------------------------------------------------------


def test_changes_of_doubled_logits(folder):
    names = ("isotropy_log_odds_range_median@4=10%", "lipschitz_image_q95_median=1%", "mantel_r_mean=0.1")
    given = conditions(*names, kind=REGRESSION)
    document = gate.examine(folder / "twice", given, baseline=folder / "once")
    doubled, same, mantel = document["verdicts"]
    assert doubled["judged"] == pytest.approx(1, rel=1e-3)
    assert doubled["low"] == pytest.approx(1, rel=1e-3)  # paired: every image doubles
    assert doubled["high"] == pytest.approx(1, rel=1e-3)
    assert (doubled["status"], doubled["n"]) == ("fails", 12)
    assert (same["judged"], same["status"]) == (0, "passes")
    assert mantel["status"] == "passes"
    assert document["passed"] is False
    back = gate.examine(folder / "once", given[:1], baseline=folder / "twice")
    assert back["verdicts"][0]["judged"] == pytest.approx(-0.5, rel=1e-3)
    assert back["passed"] is True


def test_values_of_changes_are_those_of_the_summary(folder):
    numbers = summary.estimates(store.Run(folder / "once").read_summary())
    with opened(store.Run(folder / "once")) as run:
        (places, _) = matched([run, run])
        checked = 0
        for name, estimate in numbers.items():
            if paired_number(name) is None:
                continue
            found = change(gate.parse(REGRESSION, f"{name}=1"), (run, run), (places, places), (estimate, estimate))
            value = min(estimate.value, run.reach[1]) if "radius_" in name else estimate.value
            assert found.value == pytest.approx(value, rel=1e-5, abs=1e-12, nan_ok=True), name
            assert found.estimate.value == 0 or math.isnan(found.estimate.value)
            checked += 1
    assert checked > 0.7 * len(numbers)


@pytest.mark.parametrize("bound", ["1", "1%"])
def test_the_interval_of_a_change_of_means_is_paired(folder, rng, bound):
    (condition,) = conditions(f"mantel_r_mean@4={bound}", kind=REGRESSION)
    whole = (Estimate(NAN, NAN, NAN, 0),) * 2
    with opened(store.Run(folder / "twice")) as run, opened(store.Run(folder / "once")) as baseline:
        places = matched([run, baseline])
        values = []
        for opened_run, mean in ((run, 0.5), (baseline, 0.4)):
            changed_r = opened_run.dataset["mantel_r"]
            changed_r[...] = mean + 0.05 * rng.standard_normal(changed_r.shape)
            values.append(changed_r.sel(radius=4).values[:, 0])
        found = change(condition, (run, baseline), places, whole)
    first, second = (of_run[where] for of_run, where in zip(values, places, strict=True))
    added = first - second if bound == "1" else (first - first.mean() / second.mean() * second) / second.mean()
    half = scipy.stats.t.ppf(0.975, 11) * scipy.stats.sem(added)
    unit = 1 if bound == "1" else second.mean()
    assert found.estimate.value == pytest.approx((first.mean() - second.mean()) / unit)
    assert found.estimate.high - found.estimate.low == pytest.approx(2 * half)


def test_changes_of_what_may_have_a_tail_need_many_images(folder):
    with opened(store.Run(folder / "twice")) as run, opened(store.Run(folder / "once")) as baseline:
        for name in ("isotropy_score_mean@4", "lipschitz_raw_q95"):
            (condition,) = conditions(f"{name}=1", kind=REGRESSION)
            found = change(condition, (run, baseline), matched([run, baseline]), (Estimate(NAN, NAN, NAN, 0),) * 2)
            assert np.isnan(found.estimate.low)


def test_a_baseline_of_zero_has_no_percentage(folder):
    (condition,) = conditions("isotropy_range_median@4=10%", kind=REGRESSION)
    with opened(store.Run(folder / "twice")) as run, opened(store.Run(folder / "once")) as baseline:
        baseline.dataset["isotropy_score"] = 0 * baseline.dataset["isotropy_score"]
        whole = (Estimate(NAN, NAN, NAN, 0),) * 2
        found = change(condition, (run, baseline), matched([run, baseline]), whole)
    assert found.estimate.value == math.inf
    assert "an absolute number" in found.note


def test_other_images_are_compared_by_summaries_without_an_interval(folder, tmp_path):
    runs.write_images(tmp_path / "images", 12, size=8, seed=1)
    model, _ = graphs.pixel_mean(tmp_path / "model")
    runs.measure(model, tmp_path / "images", tmp_path / "other", permutations=19)
    given = conditions("isotropy_log_odds_range_median@4=1000%", kind=REGRESSION)
    document = gate.examine(folder / "once", given, baseline=tmp_path / "other")
    (verdict,) = document["verdicts"]
    assert (verdict["status"], verdict["passed"]) == ("undecided", True)
    assert "no image is shared" in verdict["explanation"]
    assert not gate.examine(folder / "once", given, baseline=tmp_path / "other", strict=True)["passed"]


def test_the_run_itself_is_no_baseline(folder):
    given = conditions("lipschitz_q95=1%", kind=REGRESSION)
    with pytest.raises(UsageError, match="that is the run itself"):
        gate.examine(folder / "once", given, baseline=folder / "images" / ".." / "once")


def test_equal_differences_of_a_share_are_no_interval(folder):
    given = conditions("misclassified_share@0.5=0", kind=REGRESSION)
    (verdict,) = gate.examine(folder / "twice", given, baseline=folder / "once", strict=True)["verdicts"]
    assert (verdict["judged"], verdict["status"], verdict["passed"]) == (0, "undecided", False)
    assert math.isnan(verdict["low"])
    assert "all paired differences are equal" in verdict["explanation"]


def test_numbers_of_the_whole_run_have_no_paired_interval(folder):
    given = conditions("flip_probability_bound@4=1", kind=REGRESSION)
    (verdict,) = gate.examine(folder / "twice", given, baseline=folder / "once")["verdicts"]
    assert verdict["status"] == "undecided"
    assert verdict["explanation"].endswith("no paired interval for this number")


def test_ratios_by_ranges_of_other_images_are_undecided(folder):
    whole = (Estimate(2.0, 1.9, 2.1, 12), Estimate(1.0, 0.9, 1.1, 12))
    with opened(store.Run(folder / "twice")) as run, opened(store.Run(folder / "once")) as baseline:
        given, places = (run, other_ranges(baseline)), matched([run, baseline])
        for name in ("lipschitz_q95", "lipschitz_median@4", "lipschitz_below_one_share"):
            (condition,) = conditions(f"{name}=1%", kind=REGRESSION)
            found = change(condition, given, places, whole)
            assert found.note == OTHER_RANGES
            (verdict,) = gate.judge({name: whole[0]}, [condition], changes={condition: found})
            assert verdict.status == "undecided"
            assert OTHER_RANGES in verdict.text
        for name in ("lipschitz_raw_median@4", "jacobian_rms_mean@4", "lipschitz_growth_median"):
            (condition,) = conditions(f"{name}=1%", kind=REGRESSION)
            assert change(condition, given, places, whole).note != OTHER_RANGES


def test_results_that_lack_what_the_summary_has_are_damaged(folder):
    (condition,) = conditions("isotropy_score_mean@4=1", kind=REGRESSION)
    with opened(store.Run(folder / "twice")) as run, opened(store.Run(folder / "once")) as baseline:
        less = dataclasses.replace(run, dataset=run.dataset.drop_vars("isotropy_score"))
        with pytest.raises(IncompleteError, match="damaged: its summary has isotropy_score"):
            change(condition, (less, baseline), matched([run, baseline]), (NUMBERS["on"],) * 2)


def test_a_damaged_baseline_is_said(capsys, folder, tmp_path):
    shutil.copytree(folder / "once", tmp_path / "bad")
    runs.flip(tmp_path / "bad", "isotropy_score")
    arguments = ["--baseline", tmp_path / "bad", "--max-regression", "isotropy_score_mean@4=1"]
    code, _, err = call(capsys, "gate", folder / "twice", *arguments)
    assert code == 5
    assert f"{tmp_path / 'bad' / 'results.nc'}: damaged" in err


def test_notes_on_a_baseline_are_said_everywhere(capsys, folder, tmp_path):
    runs.measure(next((folder / "once model").glob("*.onnx")), folder / "images", tmp_path / "few", limit=11)
    arguments = ["gate", folder / "twice", "--baseline", tmp_path / "few", "--max-regression", "lipschitz_q95=1%"]
    code, out, _ = call(capsys, *arguments, "--markdown", tmp_path / "x.md")
    assert code == 0
    assert "! 11 images are common to all (of 12 of twice, 11 of few)" in " ".join(out.split())
    assert "**Note**: <code>11 images are common to all" in (tmp_path / "x.md").read_text()
    (note,) = json.loads(call(capsys, *arguments, "--json")[1])["notes"]
    assert note.startswith("11 images are common to all")
    assert gate.examine(folder / "twice", conditions("lipschitz_q95=100"))["notes"] == []


def test_a_grown_limit_is_said(folder, tmp_path):
    other = changed(folder / "once", tmp_path / "grown", limit=1000)
    (other / "summary.json").unlink()
    found = gate.partial(gate.examine(other, conditions("lipschitz_q95=100")))
    assert found == ["grown is partial: the images of its new limit are not selected yet"]


def test_other_protocols_are_refused(folder, tmp_path):
    other = changed(folder / "once", tmp_path / "other", trials=9, permutations=99)
    given = conditions("lipschitz_q95=1%", kind=REGRESSION)
    with pytest.raises(UsageError, match="trials 6 and 9"):
        gate.examine(folder / "twice", given, baseline=other)
    other = changed(folder / "once", tmp_path / "more", permutations=99)
    assert gate.examine(folder / "twice", given, baseline=other)["passed"]
    with pytest.raises(UsageError, match="permutations 19 and 99"):
        gate.examine(
            folder / "twice", conditions("mantel_p_below_05_share=1%", kind=REGRESSION), baseline=other, strict=True
        )


# documents ------------------------------------------------------------------------------------------------------------

HOSTILE = 'fc|`<img src=x onerror=alert(1)>"&\x1b[31m\x00\ud800@all\n'


def document(folder, *texts, strict=False, run="once"):
    return gate.examine(folder / run, conditions(*texts), strict=strict)


def test_junit_has_a_case_a_condition(folder):
    text = gate.junit(document(folder, "lipschitz_image_q95_median=100", "lipschitz_image_q95_median=0"))
    root = ElementTree.fromstring(text.encode())
    assert (root.get("tests"), root.get("failures")) == ("3", "1")
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert cases.keys() == {"complete", "lipschitz_image_q95_median <= 100", "lipschitz_image_q95_median <= 0"}
    assert cases["lipschitz_image_q95_median <= 100"].find("failure") is None
    failure = cases["lipschitz_image_q95_median <= 0"].find("failure")
    assert failure.get("type") == "fails"
    assert "95 % interval" in failure.get("message")


def test_what_is_undecided_is_seen_where_it_passes(folder):
    given = document(folder, "misclassified_share@4=0.01")
    (verdict,) = given["verdicts"]
    assert (verdict["status"], verdict["passed"], gate.sign(verdict)) == ("undecided", True, "?")
    root = ElementTree.fromstring(gate.junit(given).encode())
    said = root.findall(".//testcase/system-out")
    assert [out.text.startswith("undecided (value passes)") for out in said] == [True]
    assert "❔ undecided" in gate.markdown(given)


def test_documents_show_hostile_names_literally(folder):
    given = document(folder, "lipschitz_q95=100")
    given["run"]["name"] = given["verdicts"][0]["condition"] = HOSTILE
    given["verdicts"][0] |= {"passed": False}
    root = ElementTree.fromstring(gate.junit(given).encode())
    seen = root.find("testsuite").get("name")
    assert 'fc|`<img src=x onerror=alert(1)>"&\ufffd[31m\ufffd\ufffd@all' in seen
    text = gate.markdown(given)
    assert text.isprintable() or {c for c in text if not c.isprintable()} == {"\n"}
    row = text.splitlines()[-1]
    assert row.count("|") == 7
    assert "<img" not in text
    assert "`" not in row
    assert "@" not in row
    assert code("lipschitz_q95@1/fc <= 2") == "`lipschitz_q95@1/fc <= 2`"


def test_markdown_is_one_table(folder):
    text = gate.markdown(document(folder, "lipschitz_image_q95_median=100", "lipschitz_image_q95_median=0"))
    lines = text.splitlines()
    assert lines[0] == "### Gate did not pass: `once`"
    assert {line.count("|") for line in lines[2:]} == {7}
    assert lines[4].startswith("| `lipschitz_image_q95_median <= 100` |")


# command line ---------------------------------------------------------------------------------------------------------


def test_a_gate_that_passes(capsys, folder, tmp_path):
    report, table = tmp_path / "new" / "gate.xml", tmp_path / "gate.md"
    table.write_text("old")
    written = ["--junit", report, "--markdown", table]
    code, out, err = call(capsys, "gate", folder / "once", "--max", "lipschitz_q95=100", "--min", "x=0", *written)
    assert (code, out) == (2, "")
    assert not report.exists()
    code, out, err = call(capsys, "gate", folder / "once", "--max", "lipschitz_q95=100", *written)
    assert (code, err) == (0, "")
    assert "once passes" in out
    assert ElementTree.parse(report).getroot().get("failures") == "0"
    assert table.read_text().startswith("### Gate passed")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gate.md", "new"]


def test_a_gate_that_fails_prints_its_table_first(capsys, folder, tmp_path):
    arguments = ["gate", folder / "once", "--max", "lipschitz_image_q95_median=0", "--junit", tmp_path / "x.xml"]
    code, out, err = call(capsys, *arguments)
    assert code == 3
    assert "lipschitz_image_q95_median <= 0" in out
    assert err.startswith("error: gate: 1 of 1 conditions do not pass: lipschitz_image_q95_median <= 0 (fails)")
    assert (tmp_path / "x.xml").exists()
    code, out, err = call(capsys, *arguments, "--json")
    assert code == 3
    assert json.loads(out)["passed"] is False


def test_strict_fails_what_is_undecided(capsys, monkeypatch, folder):
    monkeypatch.setenv("COLUMNS", "250")
    value = store.Run(folder / "once").read_summary()["isotropy_log_odds_range_median@4"]["value"]
    arguments = ["gate", folder / "once", "--max", f"isotropy_log_odds_range_median@4={value * 1.001}"]
    code, out, _ = call(capsys, *arguments)
    assert code == 0
    assert "undecided (value passes)" in out
    code, _, err = call(capsys, *arguments, "--strict")
    assert code == 3
    assert "--strict" in err


@pytest.mark.parametrize("left", [11, 0])
def test_a_partial_run_does_not_pass(capsys, folder, tmp_path, left):
    shutil.copytree(folder / "once", tmp_path / "part")
    for unit in sorted((tmp_path / "part" / "units").glob("*.npz"))[left:]:
        unit.unlink()
    (tmp_path / "part" / "summary.json").unlink()
    arguments = ["gate", tmp_path / "part", "--max", "lipschitz_q95=100", "--junit", tmp_path / "x.xml"]
    code, out, err = call(capsys, *arguments, "--markdown", tmp_path / "x.md")
    assert code == 3
    assert f"partial: {left} of 12 images" in err
    assert f"partial: {left} of 12 images" in out
    assert ElementTree.parse(tmp_path / "x.xml").getroot().get("failures") == "1"
    assert f"partial: {left} of 12 images" in (tmp_path / "x.md").read_text()


def test_a_partial_baseline_does_not_pass_either(folder, tmp_path):
    shutil.copytree(folder / "once", tmp_path / "part")
    next((tmp_path / "part" / "units").glob("*.npz")).unlink()
    given = conditions("lipschitz_q95=1%", kind=REGRESSION)
    document = gate.examine(folder / "once", given, baseline=tmp_path / "part")
    assert document["passed"] is False
    assert document["verdicts"][0]["passed"] is True
    assert gate.partial(document) == ["part is partial: 11 of 12 images"]


def test_targets_that_are_refused(capsys, folder, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    arguments = ["gate", folder / "once", "--max", "lipschitz_q95=100"]
    before = (folder / "once" / "summary.json").read_bytes()
    targets = [tmp_path, tmp_path / "link", tmp_path / "file" / "x.xml", folder / "once" / "summary.json", "/dev/null"]
    targets.append(folder / "once" / "units" / "x.xml")
    for target in targets:
        code, _, err = call(capsys, *arguments, "--junit", target)
        assert code == 2, target
        assert err.startswith(f"error: --junit {target}: ")
    assert (folder / "once" / "summary.json").read_bytes() == before
    assert (tmp_path / "file").read_text() == "x"
    assert call(capsys, *arguments, "--junit", tmp_path / "a", "--markdown", tmp_path / "a")[0] == 2


def test_no_run(tmp_path):
    with pytest.raises(InputError, match="no run here"):
        gate.examine(tmp_path, conditions("a=1"))


def test_the_page_of_a_github_job_gets_the_table(tmp_path, capsys, monkeypatch, folder):
    page = tmp_path / "summary.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    call(capsys, "gate", folder / "once", "--max", "misclassified_share@4=1")
    text = page.read_text()
    assert text.startswith("before\n")
    assert "misclassified_share@4" in text
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "folder.md"))
    code, _, err = call(capsys, "gate", folder / "once", "--max", "misclassified_share@4=1")
    assert code in (None, 0)
    assert "GITHUB_STEP_SUMMARY: cannot be written" in err
