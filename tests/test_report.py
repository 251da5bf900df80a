"""The report: one self-contained page with everything escaped, worst cases rebuilt bit for bit, what applies said."""

import base64
import contextlib
import hashlib
import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import graphs
import numpy as np
import pytest
from PIL import Image
from runs import call, flip, measure, write_images

from analyzer import compare, open_run, perturbations, plots, report, store, summary
from analyzer.analyses.bound import bound
from analyzer.cli import reporting, summarised
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.report import caveats, load, tables, worst
from analyzer.report.html import Html, escaped, items, printable, tag
from analyzer.store import checksums
from analyzer.summary import summarise

pytest.importorskip("matplotlib")
assert reporting.report  # registers the command


class Page(HTMLParser):
    """What a browser would make of a page: elements with attributes, and the text outside style sheets."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text, self.headings, self.goes_on = [], [], [], [], False
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        self.goes_on = name == "wbr"
        if name not in ("img", "meta", "wbr"):
            self.open.append(name)

    def handle_endtag(self, name):
        self.goes_on = False
        assert self.open.pop() == name

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(self.text.pop() + data if self.goes_on else data)
            self.goes_on = False
            if self.open and re.fullmatch("h[1-6]", self.open[-1]):
                self.headings.append((int(self.open[-1][1]), data))

    def all(self, name):
        return [attributes for element, attributes in self.elements if element == name]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def written(*runs, out):
    return Page(report.write(list(runs), out).read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, four images and a finished run of them; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    write_images(folder / "images", 4)
    measure(graphs.convnet(folder / "model")[0], folder / "images", folder / "run")
    return folder


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of model, images and run, which points at its own files."""
    for name in ("model", "images", "run"):
        shutil.copytree(folder / name, tmp_path / name)
    edit(tmp_path / "run", lambda m: m["context"].update(images=str(tmp_path / "images"), card=str(card_of(tmp_path))))
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """One picture instead of all, and empty files for the pictures beside the page."""

    def pictures(runs):
        strip = plots.image_strip([(run.label, np.zeros((4, 4))) for run in runs])
        says = tuple(run.label for run in runs)
        yield plots.Picture("only", "The only <one>", "Look & see.", says, "in 'words'", strip)

    monkeypatch.setattr(plots, "pictures", pictures)
    monkeypatch.setattr(report, "_save", lambda figure, figures, name: (figures / f"{name}.png").touch())


def card_of(folder):
    return next((folder / "model").glob("*.json"))


def edit(run, change):
    """Change a run's manifest; its results are then made anew from the units, as of a partial run."""
    file = run / "manifest.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(checksums.sealed(document)))
    (run / "results.nc").unlink(missing_ok=True)
    (run / "summary.json").unlink(missing_ok=True)


# The page


@pytest.fixture(scope="module")
def full(folder):
    """The report of the run with all its pictures."""
    return report.write([folder / "run"], folder / "out")


def test_a_report_is_one_file_that_needs_nothing_else(folder, full):
    assert full == folder / "out" / "report.html"
    page = Page(full.read_text())
    assert page.all("html") == [{"lang": "en"}]
    assert {"script", "link", "iframe", "object", "form", "base"} & {name for name, _ in page.elements} == set()
    assert all(image["src"].startswith("data:image/") and image["alt"].strip() for image in page.all("img"))
    assert len(page.all("img")) >= 6 + 2
    assert "http" not in re.sub("http-equiv", "", full.read_text())
    anchors, ids = [a["href"] for a in page.all("a")], [a["id"] for _, a in page.elements if "id" in a]
    assert anchors == [f"#{name}" for name in ids]
    assert len(set(ids)) == len(ids) == 8
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_the_policy_allows_this_style_sheet_and_data_images_only(folder, quick, tmp_path):
    text = report.write([folder / "run"], tmp_path).read_text()
    (policy,) = [m["content"] for m in Page(text).all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    style = re.search("<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert not re.search(r'\sstyle="', text)


def test_pictures_lie_beside_it_and_the_same_run_gives_the_same_bytes(folder, full, tmp_path):
    report.write([folder / "run"], tmp_path)
    files = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()}
    stems = {path.stem for path in files}
    assert {"fig1_isotropy", "fig4_mantel", "worst_1_range", "worst_1_ratio"} <= stems
    for path in files:
        assert (tmp_path / path).read_bytes() == (full.parent / path).read_bytes()
        assert path.name == "report.html" or (path.with_suffix(".png") in files and path.with_suffix(".svg") in files)


def test_the_page_says_what_ran_and_holds_all_tables(folder, quick, tmp_path):
    page = written(folder / "run", out=tmp_path)
    with open_run(folder / "run") as run:
        model, version = (json.loads(run.attrs["manifest"])["context"][k] for k in ("model", "versions"))
    document = json.loads((folder / "run" / "summary.json").read_text())
    assert f"{model} on " in page.words and "4 images measured" in page.words
    for sentence in document["sentences"] + document["warnings"]:
        assert sentence in page.words
    for title in ("Added to the pixels", "Isotropy: range", "Symmetry: range", "Topology: Mantel", "Lipschitz: norm"):
        assert title in page.words
    median = document["isotropy_log_odds_range_median@4"]["value"]
    assert tables.short(median, ".2g") in page.words
    assert version["numpy"] in page.words and "confidence an image needs 0.0" in page.words
    assert "Look & see." in page.words and "The only <one>" in page.words


def test_a_partial_run_is_called_partial_first(copied, quick):
    next((copied / "run" / "units").glob("*.npz")).unlink()
    (copied / "run" / "results.nc").unlink(missing_ok=True)
    page = written(copied / "run", out=copied / "out")
    assert "partial: 3 of 4 images" in page.words
    assert page.words.index("partial: 3 of 4 images") < page.words.index("What ran, and what it says")
    assert "3 images measured" in page.words
    for unit in (copied / "run" / "units").glob("*.npz"):
        unit.unlink()
    with pytest.raises(IncompleteError, match="no image is finished"):
        report.write([copied / "run"], copied / "out")


def test_a_complete_run_with_a_damaged_unit_says_so(folder, quick, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    next((tmp_path / "run" / "units").glob("*.npz")).write_bytes(b"")
    page = written(tmp_path / "run", out=tmp_path / "out")
    assert "1 unit is damaged or missing" in page.words and "4 images measured" in page.words
    assert "partial" not in page.words


def test_several_runs_stand_side_by_side(folder, quick, tmp_path):
    measure(folder / "model" / card_of(folder).with_suffix(".onnx").name, folder / "images", tmp_path / "run2", seed=1)
    page = written(folder / "run", tmp_path / "run2", out=tmp_path / "out")
    model = card_of(folder).stem
    assert f"{model} (run), {model} (run2)" in page.words
    assert "These runs follow different protocols: seed." in page.words and "seed (differs)" in page.words
    same = written(folder / "run", folder / "run", out=tmp_path / "same")
    assert "(differs)" not in same.words and "different protocols" not in same.words and "all runs" in same.words
    assert f"{model} (run) 1, {model} (run) 2" in same.words


def test_several_runs_are_compared_and_builds_are_not(folder, copied, quick, tmp_path):
    pair = [folder / "run", copied / "run"]
    page = Page(report.write(pair, tmp_path / "out").read_text())
    said = next(iter(compare(pair)["properties"].values()))["title"]
    assert (2, "Comparison") in page.headings and f"{said}: 4 image(s) cannot tell" in page.words
    page = Page(report.write(pair, tmp_path / "drift", drift=True).read_text())
    assert (2, "Comparison") not in page.headings and (2, "Drift from the first run") in page.headings


def test_what_other_commands_left_in_a_run_has_a_section(copied, quick, tmp_path):
    run = copied / "run"
    page = Page(report.write([run], tmp_path / "before").read_text())
    assert not {(2, "Global bound"), (2, "Gradients")} & set(page.headings)
    document = bound(next((copied / "model").glob("*.onnx")), run=run, iterations=0)
    first = document["bounds"][0]["bound"]
    assert json.loads((run / "bound.json").read_text())["bounds"][0]["bound"] == first
    (run / "sensitivity.json").write_text("{")
    page = Page(report.write([run], tmp_path / "after").read_text())
    assert {(2, "Global bound"), (2, "Gradients")} <= set(page.headings)
    assert f"at most {first:.4g} per unit of the normalised input" in page.words
    assert "sensitivity.json cannot be read" in page.words


def test_a_notebook_shows_a_summary_in_short(folder):
    document = summary.of_run(store.Run(folder / "run"))
    assert isinstance(document, dict) and json.loads(json.dumps(document)) == document
    document["run"]["model"] = "<script>.onnx"
    page = Page(document._repr_html_())
    assert "script" not in [name for name, _ in page.elements] and "<script>.onnx" in page.words
    assert len(page.all("tr")) > 4 and document["sentences"][0] in page.words
    assert "isotropy, nat" in page.words


def test_other_images_are_said(folder, quick, tmp_path):
    write_images(tmp_path / "others", 5, seed=0)
    (tmp_path / "others" / "image_000.png").unlink()
    measure(card_of(folder).with_suffix(".onnx"), tmp_path / "others", tmp_path / "run2")
    page = written(folder / "run", tmp_path / "run2", out=tmp_path / "out")
    assert "did not measure the same images: 3 are common to all" in page.words


def test_many_layers_have_a_line_each():
    layers = [f"layer{k}" for k in range(tables.MOST_LAYERS + 1)]
    numbers = {f"mantel_r_mean{at}/{layer}": estimate(0.25) for layer in layers for at in ("", "@1")}
    run = {"protocol": {"measures": ["topology"], "layers": layers, "radii": [1.0]}}
    page = Page(tables.of_run({"run": run, **numbers}))
    assert len(page.all("table")) == 1 and "over all radii" in page.words
    assert [f"{layer} +0.250" in page.words for layer in layers] == [True] * len(layers)


def estimate(value):
    return {"value": value, "low": float("nan"), "high": float("nan"), "n": 12}


@pytest.mark.parametrize("form", [".2g", ".3g", "+.2g", ".4g", ".1%", "+.3f"])
def test_numbers_read_as_on_the_terminal(form):
    for value in (0.0, 1.4e-6, -3.21e-4, 0.00099999, 0.5, 1.0, 123456.0):
        if form != ".4g" or abs(value) >= 1e-3 or value == 0:
            assert tables.short(value, form) == summarised._short(value, form)
    assert tables.short(0.000123456, ".4g") == "1.235e-4"


# Escaping


def test_everything_that_is_not_markup_is_escaped():
    assert escaped("<b a='1' b=\"2\">&") == "&lt;b a=&#x27;1&#x27; b=&quot;2&quot;&gt;&amp;"
    assert escaped(Html("<b>")) == "<b>"
    assert tag("p", "<i>", tag("b", "&"), class_='a"b', hidden=None) == '<p class="a&quot;b">&lt;i&gt;<b>&amp;</b></p>'
    assert tag("img", alt="'x'") == '<img alt="&#x27;x&#x27;">'
    assert items(["<a>"]) == "<ul><li>&lt;a&gt;</li></ul>" and items([]) == ""
    assert (
        printable("a\x1b[31mb\u202ec\x9bd\u2028e\ud800f\ng$x_1$") == "a\ufffd[31mb\ufffdc\ufffdd\ufffde\ufffdf g$x_1$"
    )


HOSTILE = [
    "<script>alert(1)<.png",
    "\"'><img src=x onerror=alert(1)>.png",
    "$x_1$ & `y`.png",
    "a\u202egnp.exe\x1b[2J.png",
]


def test_hostile_names_are_shown_literally(quick, tmp_path):
    write_images(tmp_path / "images", 4)
    for path, name in zip(sorted((tmp_path / "images").iterdir()), HOSTILE, strict=True):
        path.rename(path.with_name(name))
    plain, _ = graphs.convnet(tmp_path / "model")
    document = json.loads(plain.with_suffix(".json").read_text())
    document["output"]["labels"] = [f"</style><script>{k}</script>\u202e" for k in range(5)]
    model = plain.rename(plain.with_name("<i onload=x>&quot;.onnx"))
    model.with_suffix(".json").write_text(json.dumps(document))
    measure(model, tmp_path / "images", tmp_path / "run")
    page = written(tmp_path / "run", out=tmp_path / "run")
    text = (tmp_path / "run" / "report.html").read_text()
    assert {"script", "i"} & {name for name, _ in page.elements} == set()
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    assert len(page.all("style")) == 1
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert "<i onload=x>&quot;" in page.words
    assert re.search(r"</style><script>\d</script>\ufffd \(\d\)", page.words)
    shown = [name for name in HOSTILE[:3] if name in page.words]
    with open_run(tmp_path / "run") as run:
        wanted = {str(run["image"].values[case.image]) for case in worst.cases(run)}
    assert set(shown) == wanted & set(HOSTILE[:3])
    assert all(re.fullmatch("[a-z0-9_]+[.](png|svg)", p.name) for p in (tmp_path / "run" / "figures").iterdir())


# Worst cases


def test_worst_cases_are_the_extremes_of_the_data(folder):
    with open_run(folder / "run") as run:
        wide, steep = worst.cases(run)
        ranges = run.isotropy_score.max("trial") - run.isotropy_score.min("trial")
        assert (wide.kind, wide.value) == ("range", ranges.max().item())
        assert wide.value == ranges.values[wide.image, wide.radius]
        assert wide.trial == run.isotropy_score.values[wide.image, wide.radius].argmin()
        assert (steep.kind, steep.normalised) == ("ratio", True)
        assert steep.value == pytest.approx(run.lipschitz.max().item(), rel=1e-12)
        there = run.lipschitz.values[steep.image, steep.radius, steep.trial, steep.layer]
        assert steep.value == pytest.approx(there, rel=1e-12)


def test_the_ratio_is_raw_where_no_range_is_known_and_undefined_cases_are_left_out(folder):
    with open_run(folder / "run") as opened:
        run = opened.load()
    calibration = json.loads(run.attrs["calibration"])
    calibration["feature_range"] = dict.fromkeys(calibration["feature_range"], 0.0)
    run.attrs["calibration"] = json.dumps(calibration)
    raw = (run.feature_distance / run.input_distance_l2).max().item()
    _, steep = worst.cases(run)
    assert not steep.normalised and steep.value == pytest.approx(raw, rel=1e-12)
    run["isotropy_score"][:] = 1.0
    run["feature_distance"][:] = 0.0
    assert worst.cases(run) == []
    run["image_status"][:] = 1
    assert worst.cases(run) == []
    assert worst.cases(run.drop_vars(["isotropy_score", "feature_distance"])) == []


def test_images_that_were_not_measured_do_not_count(folder):
    with open_run(folder / "run") as opened:
        run = opened.load()
    run["isotropy_score"][0] = np.nan
    run["image_status"][0] = 1
    run["isotropy_score"][2, 1, 3] = -1.0
    case = worst.cases(run)[0]
    assert (case.image, case.radius, case.trial) == (2, 1, 3)


@pytest.mark.parametrize("changed", [{}, {"clip": True, "round": True}, {"norm": "l2"}], ids=["plain", "8 bit", "l2"])
def test_a_perturbation_is_rebuilt_bit_for_bit(folder, tmp_path, changed):
    run = measure(card_of(folder).with_suffix(".onnx"), folder / "images", tmp_path / "run", **changed)
    reader = store.Run(tmp_path / "run")
    card = worst.read_card(reader)
    image, sha256 = (json.loads(run.attrs["calibration"])["selected"][0][k] for k in ("id", "sha256"))
    drawing = {"seed": 0, "sha256": sha256, "shape": (3, 16, 16), "family": "noise", "trials": 6}
    for radius in (0, 1):
        level = float(run.radius[radius])
        rebuilt = worst.rebuild(reader, card, image=image, sha256=sha256, radius=level, trial=5)
        drawn = perturbations.deltas(**drawing, radius=level, norm=changed.get("norm", "linf"))[5]
        clean = np.asarray(Image.open(folder / "images" / image), dtype=np.float32).transpose(2, 0, 1)
        assert (rebuilt.clean == clean).all()
        if "clip" in changed:
            drawn = np.rint(np.clip(clean + drawn, 0, 255)) - clean
        assert (rebuilt.added == drawn).all()
        l2 = run.input_distance_l2.sel(image=image).values[radius, 5]
        assert np.linalg.norm(rebuilt.added.astype(float)) == pytest.approx(l2, rel=1e-6)


def test_images_under_a_labels_file_are_found_whatever_their_folders_are_called(folder, tmp_path):
    write_images(tmp_path / "images", 1)
    write_images(tmp_path / "images" / "no class" / "deep\\er", 2, seed=1)
    model = graphs.convnet(tmp_path / "model")[0]
    run = measure(model, tmp_path / "images", tmp_path / "unlabelled")
    predicted = zip(run.image.values, run.clean_predicted.values, strict=True)
    rows = [f"{image},{label}" for image, label in predicted if "/" in image]  # the model is right about all of them
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    (tmp_path / "images" / "image_000.png").unlink()  # now the folders would be taken for classes
    run = measure(model, tmp_path / "images", tmp_path / "run", labels=tmp_path / "labels.csv")
    reader = store.Run(tmp_path / "run")
    (record, *_) = json.loads(run.attrs["calibration"])["selected"]
    asked = {"sha256": record["sha256"], "radius": 4.0, "trial": 0}
    rebuilt = worst.rebuild(reader, worst.read_card(reader), image=record["id"], **asked)
    assert rebuilt.clean.shape == (3, 16, 16)
    for away in ("../labels.csv", "no class", "no class/x.png", "/etc/passwd"):
        with pytest.raises(worst.Gone):
            worst.rebuild(reader, worst.read_card(reader), image=away, **asked)


def grow_the_image(folder):
    for path in (folder / "images").iterdir():
        path.write_bytes(path.read_bytes() + b" ")


def change_the_mean(folder):
    document = json.loads(card_of(folder).read_text())
    document["input"]["mean"][0] += 1
    card_of(folder).write_text(json.dumps(document))


FAULTS = {
    "has changed since the run": grow_the_image,
    "is no longer in": lambda folder: [p.rename(p.with_suffix(".bmp")) for p in (folder / "images").iterdir()],
    "the image folder": lambda folder: shutil.rmtree(folder / "images"),
    "cannot be used": lambda folder: [p.rename(p.with_suffix(".txt")) for p in (folder / "images").iterdir()],
    "is not to be found from here": lambda folder: card_of(folder).unlink(),
    "the card cannot be used": lambda folder: card_of(folder).write_text("{"),
    ".json has changed since the run": change_the_mean,
}


@pytest.mark.parametrize("words", FAULTS)
def test_what_is_gone_or_changed_is_said_instead_of_shown(copied, quick, words):
    FAULTS[words](copied)
    page = written(copied / "run", out=copied / "out")
    assert page.words.count("Not shown: ") == 2 and words in page.words
    assert "Largest range of the true-class score" in page.words and len(page.all("img")) == 1


def test_differences_are_magnified_by_the_factor_that_is_said():
    added = np.zeros((3, 4, 5), np.float32)
    added[0, 1, 2] = -20.0
    clean = np.full((3, 4, 5), 10.0, np.float32)
    shown = worst.panels(worst.Rebuilt(clean, added))
    assert [title for title, _ in shown] == ["clean", "perturbed", "difference × 6"]
    assert [image.shape for _, image in shown] == [(4, 5, 3)] * 3
    assert shown[1][1][1, 2].tolist() == [0, 10, 10]
    assert shown[2][1][1, 2].tolist() == [8, 128, 128]  # 127.5 - 6 * 20 = 7.5
    assert worst.panels(worst.Rebuilt(clean[:1, :1], added[:1, :1]))[0][1].shape == (1, 5)
    assert worst.magnification(added * 0) == 1 and worst.magnification(added * 100) == 1


# Caveats


def document(*measures, trials=100, **numbers):
    protocol = {"measures": list(measures), "trials": trials, "layers": ["feature"], "radii": [1.0]}
    images = {"measured": 12, "calibration": 200}
    return {"run": {"protocol": protocol, "images": images, "context": {"precision": "float32"}}, **numbers}


def test_caveats_follow_what_was_measured():
    def titles(*documents):
        return " / ".join(c.title for c in caveats.caveats([f"n{k}" for k in range(len(documents))], documents))

    assert titles(document("isotropy")) == ""
    assert "Permuting" in titles(document("isotropy", "symmetry"))
    assert "Mantel" in titles(document("topology")) and "alpha" in titles(document("topology"))
    assert titles(document("lipschitz")).startswith("Random noise sees a lower bound")
    assert "different numbers" in titles(document("isotropy"), document("isotropy", trials=10))
    tiny = document("isotropy", **{"isotropy_range_median@1": estimate(1e-9)})
    assert "Near probability 1" in titles(tiny)
    few = document("isotropy")
    few["run"]["images"]["measured"] = 3
    assert "Few images" in titles(few)


def test_caveats_give_the_figures():
    numbers = {"mantel_r_mean": estimate(0.03), "mantel_r_linear_mean": estimate(0.04)}
    (mantel, _) = caveats.caveats(["net"], [document("topology", **numbers)])
    assert mantel.lines == ("net: r +0.030, a linear map +0.040",)


# Writing


def test_a_picture_too_large_for_the_page_is_made_smaller(monkeypatch):
    asked = []

    def to_png(figure, *, dpi=192):
        asked.append(dpi)
        return bytes(dpi * report.EMBEDDED // 100)

    monkeypatch.setattr(plots, "to_png", to_png)
    assert len(report._embedded(None)) == report.EMBEDDED
    assert asked == [130, 100]


@pytest.mark.slow
def test_six_full_runs_fit_into_five_megabytes(folder, monkeypatch, tmp_path):
    """300 images, 21 radii, 100 trials: one run's page, its points spread as real ones are, less than a sixth."""
    rng = np.random.default_rng(0)
    radii = [0.5, *map(float, range(1, 21))]
    with open_run(folder / "run") as small:
        run = small.load().isel(image=np.arange(300) % 4, radius=[0] + [1] * 20, trial=np.arange(100) % 6)
    run = run.assign_coords(radius=radii)
    for name in ("isotropy_score", "symmetry_score", "feature_distance", "lipschitz", "mantel_r"):
        shape = (300, 21) + (1,) * (run[name].ndim - 2)
        run[name] = (run[name].dims, run[name].values * np.exp(rng.normal(-2, 1, shape)))
    manifest = json.loads(run.attrs["manifest"])
    manifest["identity"] |= {"radii": radii, "trials": 100}
    run.attrs["manifest"] = json.dumps(manifest)
    loaded = load.Loaded("net", store.Run(folder / "run"), run, summarise(run))
    monkeypatch.setattr(report, "opened", lambda paths: contextlib.nullcontext([loaded]))
    assert report.write([folder / "run"], tmp_path).stat().st_size < 5e6 / 6


def test_what_cannot_be_reported_is_refused(folder, quick, tmp_path):
    with pytest.raises(UsageError, match="no run given"):
        report.write([], tmp_path)
    with pytest.raises(InputError, match="no run here"):
        report.write([tmp_path / "nothing"], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        report.write([folder / "run"], tmp_path / "file")


def test_a_run_that_cannot_be_reported_leaves_nothing_behind(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "bad")
    (tmp_path / "bad" / "summary.json").write_text("{")
    for run, error in ((tmp_path / "nothing", InputError), (tmp_path / "bad", IncompleteError)):
        with pytest.raises(error):
            report.write([run], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_refused_before_drawing(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(report, "_pictures", lambda *_: pytest.fail("drawn"))
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"`out` .*report\.html: no regular file"):
        report.write([folder / "run"], tmp_path / "taken")
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "figures").write_text("")
    with pytest.raises(UsageError, match=r"`out` .*figures.*: cannot be written"):
        report.write([folder / "run"], tmp_path / "file")
    real = Path.open

    def read_only(path, mode="r", *rest, **more):
        if "x" in mode and path.parent.name == "figures":
            raise PermissionError(13, "Permission denied")
        return real(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", read_only)
    with pytest.raises(UsageError, match=r"figures.*cannot be written: Permission denied"):
        report.write([folder / "run"], tmp_path / "out")


def test_a_run_whose_limit_grew_is_partial(folder, quick, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    edit(tmp_path / "run", lambda m: m["identity"].update(limit=1000))
    page = written(tmp_path / "run", out=tmp_path / "out")
    assert "partial: the images of its new limit are not selected yet" in page.words


def test_damage_that_shows_late_is_said(folder, capsys, monkeypatch, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    flip(tmp_path / "run", "isotropy_score")
    code, _, err = call(capsys, "report", tmp_path / "run", "--out", tmp_path / "out")
    assert code == 5 and "results.nc: damaged" in err and "verify with --mend" in err


def test_labels_tell_runs_apart():
    assert load._labels([("a", "x"), ("b", "x")]) == ["a", "b"]
    assert load._labels([("a", "x"), ("a", "y"), ("b", "x")]) == ["a (x)", "a (y)", "b"]
    assert load._labels([("a", "x"), ("a", "x")]) == ["a (x) 1", "a (x) 2"]


def test_the_command(copied, quick, capsys, tmp_path):
    code, out, err = call(capsys, "report", copied / "run")
    assert (code, err) == (0, "") and out.split() == ["Report:", str(copied / "run" / "report.html")]
    assert Path(out.split()[1]).is_file()
    assert call(capsys, "report", copied / "run", copied / "run", "--out", tmp_path / "both")[0] == 0
    code, _, err = call(capsys, "report", copied / "run", copied / "run")
    assert code == 2 and "--out" in err
    code, _, err = call(capsys, "report", tmp_path / "nothing")
    assert code == 4 and "no run here" in err and "Traceback" not in err


def test_a_run_with_a_report_is_still_a_whole_run(copied, quick, capsys):
    shutil.rmtree(copied / "run")
    measure(card_of(copied).with_suffix(".onnx"), copied / "images", copied / "run")
    report.write([copied / "run"], copied / "run")
    assert call(capsys, "verify", copied / "run")[0] == 0


def test_numbers_that_no_layer_has_are_in_the_tables_of_every_layer(tmp_path):
    model, _ = graphs.convnet(tmp_path)
    write_images(tmp_path / "images", 3)
    measure(model, tmp_path / "images", tmp_path / "run", layers=("relu1", "fc2"))
    page = report.write([tmp_path / "run"], tmp_path / "out").read_text()
    assert page.count("N, log-odds") >= page.count("N, features") >= 1
