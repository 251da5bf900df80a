"""Each heavy package is known in one place only, and the layers import downwards."""

import ast
import itertools
from pathlib import Path

import pytest

import analyzer

ROOT = Path(analyzer.__file__).parent
PLACES = {
    "onnx": "graph",
    "onnx_ad": "graph",
    "onnxruntime": "session",
    "skbio": "statistics",
    "matplotlib": "plots",
    "typer": "cli",
    "rich": "cli",
    "h5netcdf": "store",
    "h5py": "store",
    "PIL": "images",
    "distributed": "study",
}
ABSENT = {"torch", "tensorflow", "keras", "jax"}
ORDER = ["errors", "text", "system", "document", "resize", "estimate"]
ORDER += [
    "card",
    "bundled",
    "graph",
    "drafting",
    "session",
    "images",
    "perturbations",
    "sketch",
    "statistics",
    "sequential",
    "measures",
    "store",
    "summary",
]
ORDER += ["study", "analyses", "demo", "doctor"]
ORDER += ["verdicts", "export", "plots", "report", "cli"]
MODULES = sorted(ROOT.rglob("*.py"))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_packages_stay_in_their_place(path):
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & ABSENT
    assert {package for package in tops & PLACES.keys() if PLACES[package] != part(path)} == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nothing_imports_upwards(path):
    mine = part(path)
    if mine in ("__init__", "__main__"):
        return
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("analyzer.")}
    ours = (ours & set(ORDER)) - {mine}
    assert mine in ORDER
    assert [name for name in ours if ORDER.index(name) > ORDER.index(mine)] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) <= 300


def test_the_table_is_complete():
    used = set(itertools.chain.from_iterable({n.split(".")[0] for n in imported(p)} for p in MODULES))
    # onnxruntime is imported by name where it is needed, so that a missing one is one clear message.
    assert PLACES.keys() - {"matplotlib", "onnxruntime"} <= used
