"""Faults 45 to 51: processes that end, disks that are full or lie, two writers. One test a fault, by its number."""

import errno
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from command_line import Case, apart, call, environment, flip, refused, words, worked

from analyzer import study
from analyzer.store import checksums, verify


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("measured")).measured()


@pytest.fixture
def measured(once, tmp_path):
    """A complete run of its own for each test."""
    return once.copied(tmp_path)


def started(command, **more):
    return subprocess.Popen(
        words(*command), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def units(case):
    return list(case.out.glob("units/*.npz"))


def wait_for(process, there):
    deadline = time.monotonic() + 60
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_45_killed_while_it_measures(tmp_path):
    """Two kills; test_kill_loop.py has 200, over the whole life of the process."""
    case = Case(tmp_path, count=10)
    command = case.command("--trials", "40")
    for aim in (1, 4):
        with started(command) as process:
            wait_for(process, lambda aim=aim: len(units(case)) >= aim)
            before = {unit: unit.read_bytes() for unit in units(case)}
            process.send_signal(signal.SIGKILL)
        assert all(unit.read_bytes() == data for unit, data in before.items())
    worked(call(*command))
    worked(call("verify", case.out))
    undisturbed = Case(tmp_path / "undisturbed", count=10, model=case.model)
    worked(undisturbed.run("--trials", "40"))
    one, two = ({unit.name: unit.read_bytes() for unit in units(each)} for each in (case, undisturbed))
    assert one == two


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_46_a_signal_stops_cleanly_and_says_how_to_go_on(tmp_path, number):
    case = Case(tmp_path, count=12)
    with started(case.command("--trials", "200")) as process:
        wait_for(process, lambda: units(case))
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.splitlines()[-1].startswith("stopped; to continue: analyzer run ")
    assert "Traceback" not in said
    assert not list(case.out.rglob("*.tmp"))


def test_46_a_second_signal_stops_at_once():
    """The first one is held back, as by a call into the runtime that does not return."""
    code = (
        "import signal, time\nfrom analyzer import cli\nsignal.signal(signal.SIGINT, lambda *_: None)\n"
        "cli._leave_on_second_signal()\nprint('ready', flush=True)\nwhile True: time.sleep(1)\n"
    )
    command = [words()[0], "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


def test_46_a_signal_while_the_runtime_is_imported(case):
    """A module written in C that is interrupted says that it could not be imported."""
    (case.folder / "onnxruntime.py").write_text(
        "import os, signal, time\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(5)\n"
        "except BaseException as e:\n    raise ImportError('initialization failed') from e\n"
    )
    done = apart(*case.command(), env=environment(case.folder))
    assert done.code == 130, done
    assert "stopped; to continue: analyzer run" in done.err


def test_47_a_full_disk_leaves_no_part_of_a_file(tmp_path):
    """Files may not grow beyond a size that a unit fits into and the results do not; then there is room again."""
    case = Case(tmp_path, count=8)
    done = apart(*case.command(), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, -1)))
    assert done.code == 5, done
    assert "cannot be written" in done.err and "free some space, then run the same command again" in done.err
    assert not list(case.out.rglob("*.tmp"))
    assert not (case.out / "results.nc").exists()
    before = {unit: unit.stat().st_mtime_ns for unit in units(case)}
    worked(case.run())
    assert {unit: unit.stat().st_mtime_ns for unit in before} == before
    worked(call("verify", case.out))


def test_47_a_disk_that_is_full_from_the_start(case, monkeypatch):
    """The manifest is the first file that has to be there."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refused(case.run(), 5, case.out, "free some space")
    monkeypatch.undo()
    worked(case.run())


@pytest.mark.parametrize("where", ["a file", "below a file", "a folder that is closed"])
def test_48_an_output_that_cannot_be_written(case, monkeypatch, where):
    """The last by a system that says so, since the tests may run as one who can write anywhere."""

    def never(*_, **__):
        raise AssertionError("the model was opened")

    monkeypatch.setattr(study, "open_model", never)
    taken = case.folder / "taken"
    taken.write_text("x")
    out = {"a file": taken, "below a file": taken / "run"}.get(where, case.folder / "closed" / "run")
    if where == "a folder that is closed":
        asked = os.access
        monkeypatch.setattr(os, "access", lambda path, mode, **more: not mode & os.W_OK and asked(path, mode, **more))
    refused(case.run("--out", out), 2, out, "another --out")
    assert taken.read_text() == "x"


def test_49_a_unit_of_no_length_is_measured_again(measured):
    before = measured.contents()
    unit = units(measured)[0]
    unit.write_bytes(b"")
    assert unit.name in call("verify", measured.out).out
    worked(measured.run())
    assert measured.contents() == before


def test_50_a_flipped_bit_in_a_unit_is_found_and_mended(measured):
    before = measured.contents()
    unit = units(measured)[1]
    flip(unit, len(unit.read_bytes()) // 2)
    done = call("verify", measured.out)
    assert done.code == 5
    assert unit.name in done.out and "does not match its checksum" in done.out
    worked(measured.run())
    assert measured.contents() == before


def test_50_a_changed_digit_in_the_calibration_is_found_where_it_is(measured):
    before = measured.contents()
    file = measured.out / "calibration.json"
    file.write_bytes(before[file.name].replace(b'"input_range": 1', b'"input_range": 2').replace(b'": 0.1', b'": 0.2'))
    assert file.read_bytes() != before[file.name]
    done = call("verify", measured.out)
    assert done.code == 5
    assert f"{file}: " in done.out
    assert f"{measured.out / 'results.nc'}: " not in done.out
    assert call(*measured.command()).code == 0
    assert measured.contents() == before


def test_50_results_that_cannot_be_opened_leave_no_traceback(measured, monkeypatch):
    """Not even that of a file object that was made by half, which complains when it is collected."""
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    file, whole = measured.out / "results.nc", (measured.out / "results.nc").read_bytes()
    for place in range(0, 2000, 125):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        verify(measured.out)
        gc.collect()
    assert ignored == []


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("manifest.json", "identity", {}),
        ("manifest.json", "context", {}),
        ("calibration.json", "counts", {}),
        ("calibration.json", "candidates", [5]),
        ("calibration.json", "calibration_images", "x"),
    ],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_50_a_document_with_values_of_wrong_types(measured, name, key, value, sealed):
    """Of a run without results, whose summary is made from these; `sealed`: with a checksum that agrees."""
    file = measured.out / name
    document = {**json.loads(file.read_text()), key: value}
    file.write_text(json.dumps(checksums.sealed(document) if sealed else document))
    for gone in ("results.nc", "summary.json"):
        (measured.out / gone).unlink()
    done = call("summary", measured.out)
    assert done.code in (4, 5), done
    assert str(file) in done.err


DAMAGES = ("empty", "zeroed", "halved", "digit")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in ("results.nc", "summary.json") for damage in DAMAGES),
    ],
)
def test_50_damaged_results_are_found_and_written_anew(measured, name, damage):
    before = measured.contents()
    whole = before[name]
    if damage == "digit" and name == "summary.json":
        at = whole.index(b'"value": ') + len(b'"value": 0.')
        damaged = whole[:at] + (b"1" if whole[at : at + 1] != b"1" else b"2") + whole[at + 1 :]
    else:
        middle = len(whole) // 2
        damaged = {
            "empty": b"",
            "zeroed": bytes(len(whole)),
            "halved": whole[:middle],
            "digit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        }[damage]
    (measured.out / name).write_bytes(damaged)
    assert call("summary", measured.out).code == 5
    worked(measured.run())
    assert measured.contents() == before


@pytest.mark.parametrize("what", ["fifo", "device", "folder"])
@pytest.mark.parametrize("name", ["manifest.json", "calibration.json", "results.nc", "summary.json", "unit"])
def test_50_a_special_file_in_a_run_is_not_waited_on(measured, name, what):
    """As in a run directory that came from elsewhere; each command by itself, for at most two minutes."""
    file = next((measured.out / "units").iterdir()) if name == "unit" else measured.out / name
    file.unlink()
    if what == "fifo":
        os.mkfifo(file)
    elif what == "device":
        file.symlink_to("/dev/zero")
    else:
        file.mkdir()
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    for command in ("summary", "verify", "claims"):
        signal.alarm(20)
        done = call(command, measured.out)
        signal.alarm(0)
        # The results are there, and the claims are not judged by the summary.
        whole = (command, name) in (("summary", "unit"), ("claims", "unit"), ("claims", "summary.json"))
        assert done.code in ((0,) if whole else (4, 5)), (command, done)
        assert whole or str(file) in done.out + done.err
    signal.alarm(30)
    done = measured.run()
    signal.alarm(0)
    assert done.code in (0, 4, 5), done


def test_51_two_writers(measured):
    for name in ("results.nc", "summary.json"):  # a complete run needs no writer
        (measured.out / name).unlink()
    code = (
        "import sys, time, pathlib\nfrom analyzer.store import lock\n"
        "lock.acquire(pathlib.Path(sys.argv[1]))\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    command = [words()[0], "-c", code, str(measured.out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as holder:
        try:
            holder.stdout.readline()
            refused(measured.run(), 2, measured.out, f"process {holder.pid}", "another --out")
            (measured.out / ".lock").write_text("999999999 " + os.uname().nodename)
            refused(measured.run(), 2, "is gone, yet its lock is still held", "fuser")
            worked(call("summary", measured.out))
        finally:
            holder.kill()
    worked(measured.run())


def test_51_a_lock_that_was_deleted_by_hand(tmp_path):
    case = Case(tmp_path, count=8)
    with started(case.command("--trials", "20")) as first:
        try:
            wait_for(first, lambda: units(case))
            first.send_signal(signal.SIGSTOP)
            (case.out / ".lock").unlink()
            second = call(*case.command("--trials", "20"))
        finally:
            first.kill()
    refused(second, 2, case.out)
