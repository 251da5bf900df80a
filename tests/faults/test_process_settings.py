"""Faults 52 to 60: going on with a run, what surrounds the process, other readers. One test a fault, by its number."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
from command_line import Case, apart, call, environment, refused, words, worked

from analyzer import open_run
from analyzer.store import Run


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("measured")).measured()


@pytest.fixture
def case(once, tmp_path):
    """A complete run of its own for each test."""
    return once.copied(tmp_path)


def partial(case):
    """Back to a run of which one image is missing."""
    next(case.out.glob("units/*.npz")).unlink()
    (case.out / "summary.json").unlink()
    (case.out / "results.nc").unlink()


def test_52_other_settings(case):
    before = case.contents()
    refused(case.run("--seed", "1", "--norm", "l2"), 2, case.out, "seed 0 -> 1", 'norm "linf" -> "l2"', "another --out")
    assert case.contents() == before


def test_53_a_complete_run_is_left_alone(case):
    before = {path: path.stat().st_mtime_ns for path in case.out.rglob("*.*") if path.name != ".lock"}
    said = worked(case.run()).out
    assert "3 measured" in said
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_53_a_complete_run_that_is_read_only(case, monkeypatch):
    """By a system that refuses, since the tests may run as one who can write anywhere."""
    before = case.contents()
    asked, opened = os.access, os.open

    def access(path, mode, **more):
        return asked(path, mode, **more) and not (mode & os.W_OK and str(path).startswith(str(case.out)))

    def refusing(path, flags, *more, **named):
        if str(path).startswith(str(case.out)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(13, os.strerror(13), str(path))
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setattr(os, "open", refusing)
    worked(case.run())
    assert case.contents() == before


@pytest.mark.parametrize("changed", [["--batch-size", "3"], ["--threads", "2"]])
def test_54_another_batch_size_or_number_of_threads(case, tmp_path, changed):
    other = Case(tmp_path / "other", model=case.model)
    worked(other.run(*changed))
    partial(case)
    worked(case.run(*changed))
    with open_run(case.out) as one, open_run(other.out) as two:
        for name in one.data_vars:
            if one[name].dtype.kind == "f":
                np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert Run(case.out).manifest["history"]


@pytest.mark.parametrize(("schema", "said"), [(0, "older version"), (99, "newer version")])
def test_55_another_schema(case, schema, said):
    file = case.out / "manifest.json"
    document = json.loads(file.read_text())
    del document["checksum"]  # as that version would have written it, for all that is known
    file.write_text(json.dumps({**document, "schema": schema}))
    for command in (["summary", case.out], case.command(), ["report", case.out]):
        refused(call(*command), 4, file, said)


def test_56_an_archive_with_members_outside(case, tmp_path):
    """A run is a folder, so an archive of one is none; a unit is an archive, whose members' names lead nowhere."""
    archive = tmp_path / "run.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO())
    refused(call("summary", archive), 4, archive, "no run here")
    unit = next(case.out.glob("units/*.npz"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("../../escaped.npy", b"x")
        made.comment = b"0" * 64
    body = buffer.getvalue()[:-64]
    unit.write_bytes(body + hashlib.sha256(unit.stem.encode() + body).hexdigest().encode())
    done = call("verify", case.out)
    assert (done.code, unit.name in done.out) == (5, True)
    assert not list(tmp_path.rglob("escaped*"))
    worked(case.run())
    worked(call("verify", case.out))


def closed(*arguments):
    """Exit code and stderr of a command whose reader has gone before it says anything."""
    with subprocess.Popen(
        words(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        process.stdout.close()
        said = process.stderr.read()
    return process.returncode, said


def test_57_a_closed_pipe_is_quiet(case):
    assert closed("summary", case.out) == (0, "")
    assert closed("--help") == (0, "")


@pytest.mark.parametrize(("command", "code"), [("gate", 3), ("verify", 5)])
def test_57_a_closed_pipe_changes_no_verdict(case, command, code):
    if command == "verify":
        next(case.out.glob("units/*.npz")).write_bytes(b"")
    conditions = ["--max", "lipschitz_q95=0"] if command == "gate" else []
    assert closed(command, case.out, *conditions)[0] == code


def test_57_a_full_stderr_changes_no_code(case):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            words("summary", case.folder), stdout=subprocess.DEVNULL, stderr=full, env=environment(), check=False
        )
    assert done.returncode == 4


def test_58_a_locale_without_utf8(case):
    env = environment(LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert "Isotropy" in worked(apart(*case.command(), env=env)).out
    assert "Isotropy" in worked(apart("summary", case.out, env=env)).out


def test_59_a_report_and_a_gate_on_part_of_a_run(case):
    pytest.importorskip("matplotlib")
    partial(case)
    worked(call("report", case.out, "--out", case.folder / "report"))
    assert "2 of 3 images" in (case.folder / "report" / "report.html").read_text()
    done = call("gate", case.out, "--max", "lipschitz_q95=1000000")
    assert done.code == 3
    assert "partial: 2 of 3 images" in done.err
    assert worked(call("summary", case.out)).out.startswith("partial: 2 of 3 images")
    worked(case.run())
    assert call("gate", case.out, "--max", "lipschitz_q95=1000000").code == 0


def test_60_no_network_is_asked_for(tmp_path):
    """By an audit hook, which sees what Python does, also in the child processes; not what a library does by itself."""
    case = Case(tmp_path)
    (tmp_path / "hook").mkdir()
    log = str(tmp_path / "asked")
    (tmp_path / "hook" / "sitecustomize.py").write_text(
        "import sys\nasked = ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'urllib.Request')\n"
        "def hook(event, arguments):\n    if event in asked:\n"
        f"        open({log!r}, 'a').write(event + '\\n')\n        raise OSError(101, 'no network')\n"
        "sys.addaudithook(hook)\n"
    )
    env = environment(tmp_path / "hook")
    probe = [words()[0], "-c", "import socket\ntry: socket.getaddrinfo('localhost', 1)\nexcept OSError: print('seen')"]
    assert subprocess.run(probe, env=env, capture_output=True, check=True).stdout == b"seen\n"
    (tmp_path / "asked").unlink()
    for command in (case.command(), ["summary", case.out]):
        worked(apart(*command, env=env))
    assert not (tmp_path / "asked").exists()
