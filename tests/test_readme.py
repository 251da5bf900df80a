"""What README.md and docs/ say exists, and what exists is in them; the examples run as they stand."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from analyzer.cli.commands import app
from analyzer.measures import REGISTRY
from analyzer.store import schema

ROOT = Path(__file__).resolve().parent.parent
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [*DOCS, ROOT / "CONTRIBUTING.md", ROOT / "exporters" / "README.md"]
}
COMMANDS = {command.name or command.callback.__name__: command for command in app.registered_commands}

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", flags=re.M | re.S)
MARKER = re.compile(r"<!-- (not run|slow): *(.*?) *-->\n *$")


class Block(NamedTuple):
    """A fenced block: its language, its text, and the marker right above it with the reason that it gives."""

    language: str
    text: str
    marker: str | None
    reason: str


def blocks(page):
    for fence in FENCE.finditer(PAGES[page]):
        marker = MARKER.search(PAGES[page][: fence.start()])
        text = re.sub(f"^{fence[1]}", "", fence[3], flags=re.M)
        yield Block(fence[2], text, *(marker.groups() if marker else (None, "")))


def runnable(page, *, slow=False):
    """The page's blocks to be run: shell, and Python that is no doctest (tests/test_landscape.py runs that)."""
    return [
        block
        for block in blocks(page)
        if block.language in ("sh", "python")
        and not block.text.startswith(">>>")
        and block.marker in ((None, "slow") if slow else (None,))
    ]


# The examples.


@pytest.fixture
def folder(tmp_path):
    """What a checkout offers an example: the bundled networks and images, and the command."""
    shutil.copytree(ROOT / "models", tmp_path / "models")
    command = tmp_path / ".bin" / "analyzer"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m analyzer "$@"\n')
    command.chmod(0o755)
    return tmp_path


def run(page, block, folder):
    words = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
    paths = {
        "PATH": f"{folder / '.bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    done = subprocess.run(
        [*words, block.text], cwd=folder, env=os.environ | paths, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, f"{page}\n{block.text}\n{done.stderr}"
    return done.stdout


shell = pytest.mark.skipif(shutil.which("bash") is None, reason="the examples are for a POSIX shell")


@shell
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)])
def test_the_examples_run(page, folder):
    """A page's blocks in its order, in one folder: later ones may use the runs of earlier ones."""
    for block in runnable(page):
        run(page, block, folder)


@shell
@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if len(runnable(page, slow=True)) > len(runnable(page))])
def test_the_long_examples_run(page, folder):
    for block in runnable(page, slow=True):
        run(page, block, folder)


@shell
def test_the_block_on_arrays_prints_what_it_says(folder):
    page = "docs/results.md"
    (block,) = [block for block in runnable(page) if "topology.mantel(" in block.text]
    r, p, linear = map(float, run(page, block, folder).split())
    assert -1 <= r <= 1
    assert 0 < p <= 1
    assert 0 < linear < 1


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_says_why(page):
    marked = [block for block in blocks(page) if block.marker]
    assert all(len(block.reason.split()) > 1 and block.language in ("sh", "python") for block in marked)
    # A marker that is not right above a block would exempt nothing.
    assert len(re.findall(r"^ *<!-- (?:not run|slow)\b", PAGES[page], flags=re.M)) == len(marked)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_language(page):
    """A block without one would be neither run nor exempted."""
    assert all(block.language in ("sh", "python", "json", "text") for block in blocks(page))


# Commands and options.


def options(command):
    """The command line's own names: `--help` of it, rendered."""
    from typer.main import get_command

    found = get_command(app).commands[command]
    return {name for parameter in found.params for name in parameter.opts}


def lines():
    """Every `analyzer ...` command line of the shell blocks, run or not, and of the tables."""
    for page, text in PAGES.items():
        for block in blocks(page):
            for line in block.text.replace("\\\n", " ").splitlines() if block.language == "sh" else []:
                found = re.search(r"(?:^|&& |do )\s*(analyzer .*)", line)
                if found:
                    yield re.split(r"#|\|\||;", found[1])[0]
        for code in re.findall(r"^\|(?:.* \|)? `(analyzer [^`]*)`", text, flags=re.M):
            yield re.sub(r"[\[\]|]", " ", code)


@pytest.mark.parametrize("line", sorted(set(lines())))
def test_every_command_line_names_real_commands_and_options(line):
    _, command, *rest = shlex.split(line)
    if command == "COMMAND":
        return
    assert command in COMMANDS
    asked = {part.split("=")[0] for word in rest for part in word.split("/") if part.startswith("--")}
    assert asked <= options(command)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_a_row(name):
    assert f"| `analyzer {name}" in PAGES["docs/commands.md"]


def test_every_option_of_run_has_a_row():
    rows = " ".join(re.findall(r"^\| (`--.*?) \|", PAGES["docs/run.md"], flags=re.M))
    named = set(re.findall(r"--[a-z][a-z-]+", rows))
    assert named == {name for name in options("run") if name.startswith("--")} - {"--images", "--out", "--help"}


# Variables, measures, places, links.


@pytest.mark.parametrize("name", [v.name for v in (*schema.VARIABLES, *schema.DERIVED)])
def test_every_variable_is_listed(name):
    assert re.search(rf"^\| .*`{name}`.* \|$", PAGES["docs/results.md"], flags=re.M)


@pytest.mark.parametrize("name", [name for name, measure in REGISTRY.items() if measure.default])
def test_every_measure_is_explained(name):
    assert f"| **{'Lipschitz' if name == 'lipschitz' else name}** |" in PAGES["README.md"]


def test_the_map_is_the_tree():
    """Every file and folder of the package has its place in the README's map, and the map names no other."""
    (block,) = re.findall(r"<!-- map -->\n```text\n(.*?)```", PAGES["README.md"], flags=re.S)
    package, others = re.fullmatch(r"analyzer/ .*\n((?:  .*\n)*)((?:\S.*\n)*)", block).groups()
    # Names stand before the first gap of three spaces, two spaces apart.
    named = [name for line in package.splitlines() for name in re.split(r" {3,}", line.strip())[0].split()]
    there = [
        path.name + "/" * path.is_dir()
        for path in (ROOT / "analyzer").iterdir()
        if path.name not in ("__init__.py", "__main__.py", "__pycache__", "py.typed")
    ]
    assert sorted(named) == sorted(there)
    for name in [name for line in others.splitlines() for name in re.split(r" {3,}", line)[0].split()]:
        assert (ROOT / name).is_dir(), name


@pytest.mark.parametrize("page", PAGES)
def test_every_place_exists(page):
    places = set(re.findall(r"`((?:analyzer|exporters|models|tests|benchmarks|docs)/[\w./]*)`", PAGES[page]))
    assert [place for place in sorted(places) if not (ROOT / place).exists()] == []


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(FENCE, "", text), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", PAGES[page]):
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), anchor


def test_every_page_is_in_the_readme():
    linked = set(re.findall(r"\]\(([^)#]*)\)", PAGES["README.md"]))
    assert set(PAGES) - {"README.md"} <= linked
