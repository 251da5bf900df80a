"""Faults 35 to 44: text that reaches a screen or a file. One test a fault, named by its number.

One run has file names, class labels, a layer and a folder that are trouble wherever they are shown; each test looks at
one place where they are.
"""

import csv
import json
import os
import re
import unicodedata
from html.parser import HTMLParser
from xml.etree import ElementTree

import graphs
import pytest
import runs
from command_line import SMALL, Case, apart, call, contents, environment, refused, worked
from test_report_browser import BROWSER, tab

from analyzer import card as cards
from analyzer import export
from analyzer.store import Run

pytest.importorskip("matplotlib")

SCRIPT = "<script>window.hacked = 1<\\script>"  # a slash would make a folder of it
NAMES = [
    f"{SCRIPT}.png",
    "'\"><img src=x onerror=window.hacked=1>.png",
    "[x] [bold red] [\\x].png",
    "esc\x1b[2J\x1b]0;title\x07\x9b31m.png",
    "bidi\u202egnp.\u2066exe.png",
    "=cmd|' !A0.png",
    "+1.png",
    "-1.png",
    "@SUM(1).png",
    " =1+1.png",
    "\uff1d1+1.png",
    "$x_1$ a_b^c.png",
    "javascript:window.hacked=1.png",
    "CON.png",
    "w" * 240 + ".png",
]
BYTES = b"\xff\xfe\x80.png"
LAYER = "fc[/x]</td><script>window.hacked=1</script>$a_1$\x1b]0;t\x07\u202e\"'&|`"
LABELS = [
    "javascript:window.hacked=1",
    "</title><script>window.hacked=1</script>",
    "[/x]$a_1$",
    "=1+1\x1b[31m\x00",
    "../../x",
]
CONTROL = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def harmless(text):
    """Whether nothing in `text` commands a terminal."""
    return {c for c in text if unicodedata.category(c) in CONTROL} <= {"\n"}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The folder of the run, which is in out/ and has its report."""
    folder = tmp_path_factory.mktemp("hostile")
    model, card = graphs.convnet(folder / "model")

    def rename(graph):
        for node in graph.graph.node:
            for names in (node.input, node.output):
                names[:] = [LAYER if name == "fc2" else name for name in names]

    graphs.edit(model, rename)
    document = cards.to_document(card)
    document["output"]["labels"] = LABELS
    cards.beside(model).write_text(json.dumps(document))
    for name, path in zip(NAMES, runs.write_images(folder / "images", len(NAMES) + 1), strict=False):
        path.rename(path.with_name(name))
    last = folder / "images" / f"image_{len(NAMES):03d}.png"
    last.rename(last.with_name(os.fsdecode(BYTES)))
    (folder / "images" / "[x]\x1b[31m.jpg").write_bytes(b"no image \x1b[31m")
    return folder


@pytest.fixture(scope="module")
def run(hostile):
    return hostile / "runs" / "out<b>\x1b[31m&[x]$a_1$"


@pytest.fixture(scope="module")
def said(hostile, run):
    """What every command said that shows a name."""
    found = [
        worked(call("run", hostile / "model" / "convnet.onnx", "--images", hostile / "images", "--out", run, *SMALL))
    ]
    found += [worked(call(*command)) for command in (["summary", run], ["inspect", hostile / "model" / "convnet.onnx"])]
    found.append(worked(call("report", run)))
    found.append(call("gate", run, "--max", "lipschitz_q95=0", "--junit", hostile / "gate.xml"))
    found.append(worked(call("claims", run)))
    return "\n".join(done.out + done.err for done in found)


@pytest.fixture(scope="module")
def page(said, run):
    """The report, which is there once everything has been said."""
    return run / "report.html"


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    if BROWSER is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    with tab(tmp_path_factory.mktemp("profile")) as opened:
        opened.show(page, width=1440)
        yield opened


def test_35_markup_is_shown_as_it_is(said, hostile):
    unwrapped = re.sub(r"\s+", "", said)
    assert "fc[/x]</td>" in unwrapped
    refused(call("verify", hostile / "[/x]"), 4, "[/x]")


def test_36_what_commands_a_terminal_is_replaced(said, hostile, tmp_path):
    assert harmless(said)
    assert "\N{REPLACEMENT CHARACTER}" in said
    done = apart("summary", tmp_path / "\x1b]0;t\x07\u202e")
    refused(done, 4, "no run here")
    assert harmless(done.err)


def test_36_a_control_character_in_a_cell_of_gtsrbs_table(tmp_path):
    case = Case(tmp_path)
    table = case.images / "GT-final.csv"
    table.write_text("Filename;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\nimage_000.png;0;0;9;9;1\x1c\n")
    refused(case.run(), 4, table, "line 2", "ClassId")


def test_37_a_file_name_that_cannot_be_decoded(hostile, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / os.fsdecode(BYTES)).hardlink_to(hostile / "images" / os.fsdecode(BYTES))
    for locale in ("C", "C.UTF-8"):
        out = tmp_path / locale
        command = ["run", hostile / "model" / "convnet.onnx", "--images", folder, "--out", out, *SMALL]
        worked(apart(*command, env=environment(LC_ALL=locale, PYTHONUTF8="0")))
        assert [image.id for image in Run(out).images] == ["\\xff\\xfe\\x80.png"]


class Tags(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words += data


def test_38_a_page_shows_markup_and_runs_none(page):
    found = Tags(page.read_text(encoding="utf-8"))
    assert not {"script", "iframe", "object", "form", "base"} & {tag for tag, _ in found.elements}
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    (policy,) = [a["content"] for t, a in found.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "<script>window.hacked=1</script>" in found.words
    assert harmless(found.words.replace("\t", ""))


def test_38_nothing_runs_in_a_browser(browser):
    assert browser.value("typeof window.hacked") == "undefined"
    assert browser.value("document.scripts.length") == 0
    assert "<script>window.hacked=1</script>" in browser.value("document.body.textContent")
    assert browser.value("document.querySelectorAll('b, td td').length") == 0
    assert browser.seen("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
    asked = [request["request"]["url"].split(":")[0] for request in browser.seen("Network.requestWillBeSent")]
    assert asked.count("file") == 1
    assert set(asked) <= {"file", "data"}


def test_39_no_link_leads_anywhere_else(page):
    found = Tags(page.read_text(encoding="utf-8"))
    assert all(a["href"].startswith("#") for _, a in found.elements if "href" in a)
    assert all(a["src"].startswith("data:image/") for _, a in found.elements if "src" in a)


def test_39_no_link_leads_anywhere_else_in_a_browser(browser):
    links = browser.value("[...document.querySelectorAll('[href]')].map(link => link.getAttribute('href'))")
    assert all(link.startswith("#") for link in links)


def cells(run, tmp_path):
    done = export.export(run, to="csv", out=tmp_path / "tables")
    for file in sorted(done.target.glob("*.csv")):
        with file.open(encoding="utf-8", newline="") as stream:
            yield from (cell for row in csv.reader(stream) for cell in row)


def is_number(cell):
    return re.fullmatch(r"-?(\d+(\.\d*)?(e[+-]?\d+)?|inf)", cell) is not None


def test_40_no_cell_is_a_formula(said, run, tmp_path):
    found = list(cells(run, tmp_path))
    assert not [cell for cell in found if cell[:1] in tuple("=+-@\t\r") and not is_number(cell)]
    assert {"'=cmd|' !A0.png", "'+1.png", "'-1.png", "'@SUM(1).png"} <= set(found)
    assert all(map(harmless, found))


@pytest.mark.parametrize("name", [" =1+1.png", "\uff1d1+1.png"])
def test_40_nor_after_a_space_or_in_full_width(said, run, tmp_path, name):
    assert name not in set(cells(run, tmp_path))


def test_41_junit_is_xml(said, hostile):
    text = (hostile / "gate.xml").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.find("testsuite").get("name") == "out<b>\N{REPLACEMENT CHARACTER}[31m&[x]$a_1$"
    assert "\x1b" not in text


def test_42_dollar_and_underscore_in_a_plot_are_letters(said, run):
    from matplotlib.text import Text

    from analyzer import plots
    from analyzer.plots import DrawnRun

    reader = Run(run)
    with reader.open() as dataset:
        drawn = [DrawnRun("$a_1$ [x]", dataset, reader.read_summary())] * 2
        figures = [picture.figure for picture in plots.pictures(drawn)]
        texts = [text for figure in figures for text in figure.findobj(Text) if "$" in text.get_text()]
    assert texts
    assert not [text.get_text() for text in texts if text.get_parse_math()]


def test_43_an_undefined_number_is_null(tmp_path):
    case = Case(tmp_path, size=8, model=graphs.constant(tmp_path / "model")[0]).measured()

    def refuse(word):
        raise AssertionError(word)

    shown = [worked(call(command, case.out, "--json")).out for command in ("summary", "verify", "claims")]
    for text in (*shown, *((case.out / f"{name}.json").read_text() for name in ("manifest", "calibration", "summary"))):
        json.loads(text, parse_constant=refuse)
    assert json.loads(shown[0])["lipschitz_median"]["value"] is None


def test_44_a_name_never_becomes_a_path(said, run, hostile, tmp_path):
    made = set(contents(run))
    assert all(re.fullmatch(r"[\w.]+(/[\w.]+)?", name, re.ASCII) and len(name) < 100 for name in made), made
    assert {path.name for path in hostile.iterdir()} == {"model", "images", "runs", "gate.xml"}
    assert {path.name for path in (hostile / "runs").iterdir()} == {run.name}
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n../../x.png,0\n")
    case = Case(tmp_path)
    refused(case.run("--labels", table), 4, table, "line 2", "leaves the folder")
