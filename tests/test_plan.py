"""Enough images and no more: confidence sequences, runs that stop by themselves, plans from a pilot."""

import json

import graphs
import numpy as np
import pytest
import runs
from test_flips import around_grey, classifier

from analyzer import plan, sequential, statistics, study
from analyzer.errors import UsageError
from analyzer.store import Run
from analyzer.study import engine
from analyzer.summary import target

NAME = "isotropy_log_odds_range_median@1"


# confidence sequences -------------------------------------------------------------------------------------------------


def ever_missed(rng, interval, draw, true, images=300, repetitions=300):
    """Share of streams of images whose interval misses the true value after any of its images from the 10th on."""
    missed = 0
    for _ in range(repetitions):
        values = draw(images)
        for n in range(10, images + 1, 5):
            found = interval(values[:n])
            if found.low > true or found.high < true:
                missed += 1
                break
    return missed / repetitions


@pytest.mark.parametrize("at", [0.5, 0.9])
def test_looking_at_a_quantile_again_and_again_misleads_no_more_often_than_said(rng, at):
    true = float(np.exp(1.5 * np.sqrt(2) * _erfinv(2 * at - 1)))

    def draw(n):
        return rng.lognormal(0.0, 1.5, n)

    assert ever_missed(rng, lambda v: sequential.quantile(v, at), draw, true) <= 0.05
    # The intervals of a fixed number of images do mislead.
    assert ever_missed(rng, lambda v: statistics.quantile_over_images(v, at), draw, true) > 0.12


def _erfinv(value):
    from scipy.special import erfinv

    return float(erfinv(value))


@pytest.mark.parametrize("shares", ["flags", "within images"])
def test_looking_at_a_share_again_and_again(rng, shares):
    def draw(n):
        return (rng.random(n) < 0.2).astype(float) if shares == "flags" else rng.beta(0.2, 0.8, n)

    assert ever_missed(rng, sequential.mean_share, draw, 0.2, repetitions=150) <= 0.05


def test_at_the_ends_and_without_images():
    assert sequential.mean_share(np.zeros(30))[:2] == (0.0, 0.0)
    assert sequential.mean_share(np.zeros(30)).high == pytest.approx(0.2, abs=0.05)
    assert sequential.mean_share(np.ones(30)).high == 1.0
    assert sequential.mean_share(np.array([np.nan])).n == 0
    assert np.isnan(sequential.quantile(np.arange(10.0), 0.5).low)
    assert np.isfinite(sequential.quantile(np.arange(11.0), 0.5).low)
    assert sequential.quantile(np.array([1.0] * 8 + [np.inf] * 20), 0.5, censored=True).high == np.inf


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.97])
def test_the_interval_is_where_the_evidence_begins(share):
    n = 200
    found = sequential.mean_share((np.arange(n) < share * n).astype(float))
    total = found.value * n
    for end in (found.low, found.high):
        if 0 < end < 1:
            assert sequential.log_evidence(total, n, end, 1.0, 1.0) == pytest.approx(np.log(20), rel=1e-6)


# targets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", ["±", "+-", "+/-", ""])
def test_a_target_is_read(sign):
    assert target.parse(f"{NAME}={sign}10%", parameter="to") == (NAME, 0.1, True)
    assert target.parse(f"a@1/b=c={sign}0.5", parameter="to") == ("a@1/b=c", 0.5, False)


@pytest.mark.parametrize("text", ["", NAME, f"{NAME}=", f"{NAME}=±0%", f"{NAME}=-5%", "=±5%", f"{NAME}=±nan"])
def test_what_is_no_target_is_refused(text):
    with pytest.raises(UsageError, match="expected NAME"):
        target.parse(text, parameter="to")


# runs that stop -------------------------------------------------------------------------------------------------------

SMALL = {"radii": (1.0, 4.0), "trials": 10, "measures": ("isotropy", "lipschitz", "linearity")}


def measure(model, folder, out, until, **changed):
    protocol = runs.protocol(**{**SMALL, **changed})
    return study.run(model, folder, out, protocol=protocol, provider="cpu", batch_size=8, until=until)


def written(run):
    return {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.fixture
def material(tmp_path):
    model, _ = graphs.convnet(tmp_path / "model")
    runs.write_images(tmp_path / "images", 60)
    return model, tmp_path / "images"


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        (NAME, "±30%"),
        ("lipschitz_image_q95_median", "±30%"),
        ("linearity_median@4", "±30%"),
        ("margin_noise_units_median@4", "±40%"),
        ("misclassified_share@1", "±0.15"),
        ("flip_probability_mean@1", "±0.15"),
    ],
)
def test_a_run_stops_after_the_first_image_that_makes_it_enough(tmp_path, material, name, bound):
    model, folder = material
    stopped = measure(model, folder, tmp_path / "stopped", f"{name}={bound}")
    whole = measure(model, folder, tmp_path / "whole", None)
    run, count = Run(tmp_path / "stopped"), stopped["run"]["images"]["measured"]
    assert run.is_complete and run.identity["limit"] == count < 60
    until = run.context["until"]
    aim = target.parse(f"{name}={bound}", parameter="until")
    assert until["reached"] and (stopped[name]["low"], stopped[name]["high"]) == (until["low"], until["high"])
    assert aim.reached(statistics.Estimate(stopped[name]["value"], until["low"], until["high"], count))
    # One image fewer was not enough, and the value is that of a plain run of as many images.
    first = measure(model, folder, tmp_path / "plain", None, limit=count)
    assert first[name]["value"] == stopped[name]["value"]
    assert first[name]["high"] - first[name]["low"] <= stopped[name]["high"] - stopped[name]["low"]
    with run.open() as dataset:
        part = dataset.isel(image=slice(0, count - 1)).load()
    watched = target.watch(aim, radii=(1.0, 4.0), layers=run.layers, variables=list(part))
    arrays = [{v: part[v].isel(image=k).values for v in watched.reads} for k in range(count - 1)]
    assert not aim.reached(watched.estimate([watched.contribution(each, run.scales) for each in arrays]))
    assert f"Stopped after {count} images, since {name} is known" in " ".join(stopped["sentences"])
    assert whole["run"]["images"]["measured"] == 60 and "until" not in Run(tmp_path / "whole").context


def test_the_same_command_does_nothing_and_a_larger_limit_goes_on(tmp_path, material, monkeypatch):
    model, folder = material
    stopped = measure(model, folder, tmp_path / "run", f"{NAME}=±30%")
    before = written(tmp_path / "run")
    with monkeypatch.context() as untouched:
        untouched.setattr(engine, "observe", lambda *a: pytest.fail("measured again"))
        assert measure(model, folder, tmp_path / "run", f"{NAME}=±30%") == stopped
    assert before == written(tmp_path / "run")
    grown = measure(model, folder, tmp_path / "run", None)
    assert grown["run"]["images"]["measured"] == 60 and "until" not in Run(tmp_path / "run").context
    assert grown == {**measure(model, folder, tmp_path / "whole", None), "run": grown["run"]}


def test_an_interrupted_run_stops_at_the_same_image(tmp_path, material, monkeypatch):
    model, folder = material
    stopped = measure(model, folder, tmp_path / "run", f"{NAME}=±30%")
    real, seen = engine.observe, []

    def dies(*arguments):
        seen.append(1)
        if len(seen) > 7:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(engine, "observe", dies)
        measure(model, folder, tmp_path / "again", f"{NAME}=±30%")
    again = measure(model, folder, tmp_path / "again", f"{NAME}=±30%")
    assert again[NAME] == stopped[NAME]
    assert again["run"]["images"] == stopped["run"]["images"]


def test_what_is_not_reached_is_said(tmp_path, material):
    model, folder = material
    found = measure(model, folder, tmp_path / "run", f"{NAME}=±1%")
    assert found["run"]["images"]["measured"] == 60
    (sentence,) = (s for s in found["sentences"] if s.startswith("Not reached"))
    assert f"{NAME} within ±1 %; 60 images leave ±" in sentence
    assert not Run(tmp_path / "run").context["until"]["reached"]
    # As many images as were asked for, whatever they said: the interval of a fixed number holds.
    assert found[NAME] == measure(model, folder, tmp_path / "plain", None)[NAME]
    other = measure(model, folder, tmp_path / "run", f"{NAME}=±2%")
    assert any(f"{NAME} within ±2 %" in s for s in other["sentences"])
    reached = measure(model, folder, tmp_path / "plain", f"{NAME}=±60%")
    assert any(s.startswith("Stopped after 60 images") for s in reached["sentences"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("isotropy_log_odds_range_median", "the radii of this run are 1, 4"),
        ("isotropy_log_odds_range_median@2", "the radii of this run are 1, 4"),
        ("flip_radius_median@1", "the radii of this run are 1, 4"),
        ("isotropy_score_mean@1", "only medians"),
        ("lipschitz_q95", "only medians"),
        ("flip_probability_bound@1", "only medians"),
        ("symmetry_range_median@1", "no such number"),
        ("nothing_at_all", "no such number"),
        ("linearity_median@1/fc9", "give one of the layers"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_anything_is_measured(tmp_path, material, name, said, monkeypatch):
    model, folder = material
    monkeypatch.setattr(engine, "observe", lambda *a: pytest.fail("measured"))
    with pytest.raises(UsageError, match=said):
        measure(model, folder, tmp_path / "run", f"{name}=±10%")


def test_from_the_command_line(tmp_path, capsys, material):
    model, folder = material
    asked = [*runs.SMALL, "--until", f"{NAME}=±40%", "--measures", "isotropy"]
    _, out, _ = runs.call(capsys, "run", model, "--images", folder, "--out", tmp_path / "run", *asked)
    assert "Stopped after" in out
    assert runs.call(capsys, "verify", tmp_path / "run")[0] in (None, 0)


# plans ----------------------------------------------------------------------------------------------------------------


def test_a_plan_is_kept(tmp_path, material):
    """Of the pilot's 20 images follows how many are needed; as many of the 60 do come out about so."""
    model, folder = material
    measure(model, folder, tmp_path / "pilot", None, limit=20)
    width = target.parse(f"{NAME}=±1%", parameter="to")
    found = plan(tmp_path / "pilot", f"{NAME}=±25%")
    fewest, paper = found["allocations"]
    assert fewest["width"] <= 0.25
    assert (fewest["radii"], fewest["measures"], fewest["trials"]) == ([1.0], ["isotropy"], 10)
    assert fewest["passes"] == fewest["images"] * fewest["passes_per_image"]
    assert fewest["passes_per_image"] == 24  # 1 + 10 + 8 rows, in batches of 8
    assert (paper["images"], paper["trials"], len(paper["radii"]), paper["passes_per_image"]) == (300, 100, 21, 4632)
    assert fewest["seconds"] > 0 and paper["seconds"] / fewest["seconds"] == pytest.approx(
        paper["passes"] / fewest["passes"]
    )
    assert fewest["until"] > fewest["images"]
    done = measure(model, folder, tmp_path / "done", None, limit=min(fewest["images"], 60))
    entry = done[NAME]
    assert 0.1 < width.width(statistics.Estimate(*(entry[k] for k in ("value", "low", "high", "n")))) < 0.6
    assert f"--limit {fewest['images']} --radii 1 --trials 10 --measures isotropy" in found["command"]


def test_the_images_that_are_planned_are_those_that_a_simulation_needs(tmp_path, material, rng, monkeypatch):
    """An image's value is lognormal(0.5): the median of many simulated runs of the planned size is as wide as asked."""
    model, folder = material
    measure(model, folder, tmp_path / "pilot", None)
    from analyzer.verdicts.plan import pilot

    planned = []
    for _ in range(5):
        values = rng.lognormal(0.0, 0.5, 60)
        made = pilot.Pilot(
            target.parse(f"{NAME}=±10%", parameter="to"), target.NUMBERS[NAME.split("@")[0]], values, 1.0, False
        )
        planned.append(made.images(0.1, made.estimate))
    simulated = [made.target.width(made.estimate(rng.lognormal(0.0, 0.5, int(np.median(planned))))) for _ in range(200)]
    assert np.median(simulated) == pytest.approx(0.1, rel=0.25)


def test_fewer_trials_where_the_number_does_not_depend_on_them(tmp_path):
    """Between images the margin differs much, within one it is known well: a tenth of the trials will do."""
    model, *_ = classifier(tmp_path, margin=2.0)
    folder = tmp_path / "images"
    around_grey(folder, count=40)
    pilot = {"radii": (4.0,), "trials": 100, "measures": ("isotropy",)}
    measure(model, folder, tmp_path / "run", None, **pilot)
    few = plan(tmp_path / "run", "isotropy_score_mean@4=±0.05")
    assert few["allocations"][0]["trials"] < 100
    for name in ("misclassified_share@4", "flip_probability_mean@4"):  # none flipped: nothing is known of fewer
        assert plan(tmp_path / "run", f"{name}=±0.1")["allocations"][0]["trials"] == 100
    many = plan(tmp_path / "run", "isotropy_log_odds_range_median@4=±5%")
    assert many["allocations"][0]["trials"] == 100  # a range grows with the trials
    assert many["allocations"][0]["images"] is not None


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("isotropy_log_odds_range_median@7=±10%", "has it at the radii 1, 4"),
        ("nonsense=±10%", "no such number"),
        ("flip_probability_bound@1=±10%", "no interval over images"),
        ("input_linf_median@1=±0", "expected NAME"),
    ],
)
def test_what_cannot_be_planned_is_refused(tmp_path, material, to, said):
    model, folder = material
    measure(model, folder, tmp_path / "run", None, limit=12)
    with pytest.raises(UsageError, match=said):
        plan(tmp_path / "run", to)


def test_the_command_shows_both_allocations(tmp_path, capsys, material):
    model, folder = material
    measure(model, folder, tmp_path / "run", None, limit=20)
    code, out, _ = runs.call(capsys, "plan", tmp_path / "run", "--to", f"{NAME}=±10%")
    assert code in (None, 0)
    assert "fewest passes" in out and "the paper's protocol" in out and "analyzer run MODEL" in out
    assert max(map(len, out.split("•")[0].splitlines())) <= 80
    _, out, _ = runs.call(capsys, "plan", tmp_path / "run", "--to", f"{NAME}=±10%", "--json")
    assert json.loads(out)["allocations"][0]["name"] == "fewest passes"
