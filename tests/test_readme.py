"""What the README says exists, and what exists is in the README."""

import re
import shlex
from pathlib import Path

import pytest

from analyzer.cli.commands import app
from analyzer.measures import REGISTRY
from analyzer.store import schema

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = {command.callback.__name__: command for command in app.registered_commands}


def options(command):
    """The command line's own names: `--help` of it, rendered."""
    from typer.main import get_command

    found = get_command(app).commands[command]
    return {name for parameter in found.params for name in parameter.opts}


def lines():
    """Every `analyzer ...` command line of the README's shell blocks and tables."""
    for block in re.findall(r"```sh\n(.*?)```", README, flags=re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if "analyzer " in line:
                yield "analyzer " + line.split("#")[0].rsplit("analyzer ", 1)[1]
    for code in re.findall(r"^\| `(analyzer [^`]*)`", README, flags=re.M):
        yield re.sub(r"[\[\]|]", " ", code)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_a_row(name):
    assert f"| `analyzer {name}" in README


@pytest.mark.parametrize("line", list(lines()))
def test_every_command_line_names_real_commands_and_options(line):
    _, command, *rest = shlex.split(line)
    assert command in COMMANDS
    asked = {part.split("=")[0] for word in rest for part in word.split("/") if part.startswith("--")}
    assert asked <= options(command)


@pytest.mark.parametrize("name", [v.name for v in (*schema.VARIABLES, schema.LIPSCHITZ)])
def test_every_variable_is_listed(name):
    assert f"`{name}`" in README


@pytest.mark.parametrize("name", REGISTRY)
def test_every_measure_is_explained(name):
    assert f"| **{'Lipschitz' if name == 'lipschitz' else name}** |" in README


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\| `((?:analyzer|exporters|models)/[^`]*)`", README))))
def test_every_place_exists(path):
    assert (ROOT / path).exists()


def test_the_python_block_on_arrays_runs(capsys):
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", README, flags=re.S) if "topology.mantel(" in b]
    exec(compile(block, "README.md", "exec"), {})
    r, p, linear = map(float, re.findall(r"-?\d\.\d+(?:e-?\d+)?", capsys.readouterr().out)[:3])
    assert -1 <= r <= 1
    assert 0 < p <= 1
    assert 0 < linear < 1
