"""What a flipped bit, a lost file or a half-written one does to a run: the right file is named, and comes back."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import graphs
import h5py
import pytest
import runs
from runs import call

import analyzer
from analyzer import store, study, summary
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.store import checksums, lock

DOCUMENTS = ("manifest.json", "calibration.json", "summary.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a model, images and a complete run; what it holds must not change."""
    folder = tmp_path_factory.mktemp("made")
    graphs.convnet(folder / "model")
    runs.write_images(folder / "images", 4)
    again(folder / "run", folder)
    return folder


def again(out: Path, folder: Path) -> dict:
    """The same command again, in this process."""
    model = next((folder / "model").glob("*.onnx"))
    return study.run(model, folder / "images", out, protocol=runs.protocol(), batch_size=8, provider="cpu", threads=1)


@pytest.fixture
def run(made, tmp_path):
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def contents(run: Path) -> dict[str, bytes]:
    return {str(f.relative_to(run)): f.read_bytes() for f in run.rglob("*") if f.is_file() and f.name != ".lock"}


def edit(file: Path, change, *, seal: bool | None) -> None:
    """Change a document; seal: give it the right checksum; False: leave the old one; None: take it away."""
    document = json.loads(file.read_text())
    change(document)
    if seal is None:
        document.pop("checksum", None)
    file.write_text(json.dumps(checksums.sealed(document) if seal else document))


def named(problems) -> list[str]:
    return [Path(problem.file).name for problem in problems]


def test_every_document_has_a_checksum_and_readers_do_not_see_it(run):
    for name in DOCUMENTS:
        document = json.loads((run / name).read_text())
        assert document["checksum"] == checksums.of_document(document)
        assert checksums.fault(document) == ""
    assert json.loads((run / "summary.json").read_text())["results"] == {
        "checksum": checksums.of_file(run / "results.nc")
    }
    reader = store.Run(run)
    for document in (reader.manifest, reader.calibration, reader.read_summary()):
        assert not {"checksum", "results"} & document.keys()
    with store.open_run(run) as dataset:
        for name in ("manifest", "calibration"):
            assert json.loads(dataset.attrs[name]) == json.loads((run / f"{name}.json").read_text())


def test_a_changed_calibration_is_blamed_and_comes_back(run, made):
    """It once put the blame on the good results.nc, and the mend it gave changed the results."""
    before = contents(run)
    lipschitz = store.Run(run).read_summary()["lipschitz_median"]
    file = run / "calibration.json"
    edit(file, lambda d: d.update(input_range=d["input_range"] + 32), seal=False)
    (problem,) = analyzer.verify(run)
    assert (problem.file, problem.what) == (str(file), "damaged: its content does not match its checksum")
    assert "results.nc" not in problem.what
    with pytest.raises(IncompleteError, match=r"calibration\.json: damaged: its content does not match its checksum"):
        summary.of_run(store.Run(run))
    assert again(run, made)["lipschitz_median"] == lipschitz
    assert contents(run) == before
    assert analyzer.verify(run) == []


@pytest.mark.parametrize("name", ["manifest.json", "calibration.json"])
@pytest.mark.parametrize("damage", ["flipped", "empty", "half", "gone", "zeroed"])
@pytest.mark.parametrize("how", ["run", "mend"])
def test_a_document_comes_back_from_the_results(run, made, name, damage, how):
    before = contents(run)
    file, good = run / name, before[name]
    if damage == "gone":
        file.unlink()
    else:
        flipped = bytearray(good)
        flipped[good.index(b'"image') + 3 if b'"image' in good else good.index(b'"input_range') + 3] ^= 1
        bad = {"flipped": bytes(flipped), "empty": b"", "half": good[: len(good) // 2], "zeroed": bytes(len(good))}
        file.write_bytes(bad[damage])
    (problem,) = analyzer.verify(run)
    assert problem.file == str(file)
    assert ("missing" if damage == "gone" else "damaged") in problem.what
    assert "`mend`" in problem.mend
    if how == "run":
        again(run, made)
    else:
        (mended,) = analyzer.verify(run, mend=True)
        assert (mended.file, mended.mended) == (str(file), True)
    assert contents(run) == before
    assert analyzer.verify(run) == []


def test_every_flipped_bit_of_a_document_is_found_or_changes_nothing(run, rng):
    for name in ("manifest.json", "calibration.json"):
        file = run / name
        good = file.read_bytes()
        whole = store.Run(run).manifest if name == "manifest.json" else store.Run(run).calibration
        for place in rng.permutation(8 * len(good))[:60]:
            bad = bytearray(good)
            bad[place // 8] ^= 1 << (place % 8)
            file.write_bytes(bad)
            try:
                reader = store.Run(run)
                document = reader.manifest if name == "manifest.json" else reader.calibration
            except (IncompleteError, InputError):
                continue
            assert {key: document[key] for key in whole} == whole
        file.write_bytes(good)


DAMAGES = {
    "empty": lambda data: b"",
    "zeroed": lambda data: bytes(len(data)),
    "half": lambda data: data[: len(data) // 2],
}


@pytest.mark.parametrize("name", ["results.nc", "summary.json"])
@pytest.mark.parametrize("damage", [*DAMAGES, "digit"])
@pytest.mark.parametrize("how", ["run", "mend"])
def test_damaged_results_are_said_by_summary_and_rebuilt(run, made, capsys, name, damage, how):
    before = contents(run)
    file = run / name
    if damage == "digit" and name == "results.nc":
        runs.flip(run, "mantel_r")
    elif damage == "digit":
        text = file.read_text()
        place = text.index('"value": 0.') + len('"value": 0.')
        file.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
    else:
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    for command in (["summary", run], ["gate", run, "--max", "lipschitz_q95=1000"]):
        code, _, err = call(capsys, *command)
        assert code == 5
        assert f"{file}: damaged" in err and "run the same command again" in err
    assert named(analyzer.verify(run)) == [name]
    if how == "run":
        again(run, made)
    else:
        assert [problem.mended for problem in analyzer.verify(run, mend=True)] == [True]
    assert {k: v for k, v in contents(run).items() if k != "results.nc"}.keys() == before.keys() - {"results.nc"}
    assert store.Run(run).read_summary() == checksums.opened(json.loads(before["summary.json"]))
    assert analyzer.verify(run) == []


def test_units_come_back_from_the_results(run):
    before = contents(run)
    first, second, *_ = sorted((run / "units").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    assert all("results.nc" in problem.mend for problem in analyzer.verify(run))
    assert [problem.mended for problem in analyzer.verify(run, mend=True)] == [True, True]
    assert contents(run) == before


def test_a_folder_of_units_that_is_gone_comes_back_from_the_results(run):
    before = contents(run)
    shutil.rmtree(run / "units")
    assert all(problem.mended for problem in analyzer.verify(run, mend=True))
    assert contents(run) == before


@pytest.mark.parametrize("command", [["compare"], ["claims"], ["drift"], ["export", "--to", "csv"]])
def test_an_axis_changed_in_the_results_is_noticed_by_whoever_reads_them(run, made, capsys, command):
    with h5py.File(run / "results.nc", "r+") as file:
        file["radius"][-1] = 7.0
    others = [made / "run"] if command[0] in ("compare", "drift") else []
    code, out, err = call(capsys, command[0], *others, run, *command[1:])
    assert (code, out) == (5, "") and f"{run / 'results.nc'}: damaged" in err


def test_a_complete_run_without_checksums_is_written_anew_where_something_is_wrong(run, made, monkeypatch):
    for name in ("manifest.json", "calibration.json", "summary.json"):
        edit(run / name, lambda d: d.pop("results", None), seal=None)
    sound = contents(run)
    again(run, made)
    assert contents(run) == sound  # nothing to do
    edit(run / "summary.json", lambda d: d["lipschitz_median"].update(value=3.0), seal=None)
    assert named(analyzer.verify(run)) == ["summary.json"]
    again(run, made)
    assert analyzer.verify(run) == []


def test_units_do_not_come_back_from_damaged_results(run):
    first, *_ = sorted((run / "units").iterdir())
    first.unlink()
    runs.flip(run, "mantel_r")
    before = contents(run)
    problems = analyzer.verify(run, mend=True)
    assert [problem.mended for problem in problems] == [False, False]
    assert contents(run) == before


def test_what_is_there_once_stays_damaged(run):
    for name in ("results.nc", "summary.json"):
        (run / name).unlink()
    edit(run / "calibration.json", lambda d: d.update(input_range=1.0), seal=False)
    problems = analyzer.verify(run, mend=True)
    assert [(Path(p.file).name, p.mended) for p in problems] == [("calibration.json", False)]
    (run / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="bring it back from a copy"):
        store.Run(run)


def test_a_document_of_an_earlier_version_is_read_and_gets_its_checksum_when_it_is_written(run, made):
    for name in DOCUMENTS:
        edit(run / name, lambda d: d.pop("results", None), seal=None)
    assert analyzer.verify(run) == []
    assert again(run, made) == store.Run(run).read_summary()
    assert not any("checksum" in json.loads((run / name).read_text()) for name in DOCUMENTS)
    runs.flip(run, "mantel_r")  # found by reading it through
    with pytest.raises(IncompleteError, match=r"results\.nc: damaged"):
        summary.of_run(store.Run(run))
    again(run, made)
    assert "checksum" in json.loads((run / "summary.json").read_text())
    edit(run / "calibration.json", lambda d: d.update(input_range=1.0), seal=None)
    assert named(analyzer.verify(run)) == ["calibration.json"]  # what is inside results.nc has a checksum
    again(run, made)
    assert analyzer.verify(run) == []


def test_of_two_documents_without_checksum_neither_is_blamed_nor_deleted(run, monkeypatch):
    monkeypatch.setattr(checksums, "sealed", dict)
    with store.open_store(
        run, **{key: store.Run(run).manifest[key] for key in ("identity", "context", "coordinates")}
    ) as writer:
        writer.finish(lambda dataset: checksums.opened(summary.summarise(dataset)))
    monkeypatch.undo()
    edit(run / "summary.json", lambda d: None, seal=None)
    edit(run / "calibration.json", lambda d: d.update(input_range=1.0), seal=None)
    before = contents(run)
    problems = analyzer.verify(run, mend=True)
    assert named(problems) == ["calibration.json"]
    assert "one of the two is damaged" in problems[0].what and not problems[0].mended
    assert contents(run) == before


# keys and types -------------------------------------------------------------------------------------------------------

WRONG = {
    "manifest.json": [
        ("identity.trials", lambda d: d["identity"].update(trials="6")),
        ("identity.radii[0]", lambda d: d["identity"].update(radii=[None])),
        ("identity.measures", lambda d: d["identity"].update(measures=["nothing"])),
        ("identity.norm", lambda d: d["identity"].update(norm="l3")),
        ("identity.model", lambda d: d["identity"].update(model=[])),
        ("identity.seed", lambda d: d["identity"].update(seed=True)),
        ("identity.layers", lambda d: d["identity"].pop("layers")),
        ("context.model", lambda d: d["context"].update(model=3)),
        ("context.card", lambda d: d["context"].update(card="a\0b")),
        ("context.notes", lambda d: d["context"].update(notes="x")),
        ("context.pixel_shape[1]", lambda d: d["context"].update(pixel_shape=[3, "16", 16])),
        ("context.versions", lambda d: d["context"].update(versions=[])),
        ("context.batch_size", lambda d: d["context"].update(batch_size=10**400)),
        ("context.provider", lambda d: d["context"].pop("provider")),
        ("history", lambda d: d.update(history=[3])),
        ("history", lambda d: d.update(history=[{"time": "now", "changes": []}])),
        ("trial", lambda d: d["coordinates"].update(trial=10**12)),
    ],
    "calibration.json": [
        ("input_range", lambda d: d.update(input_range="255")),
        ("input_range", lambda d: d.update(input_range=10**400)),
        ("feature_range", lambda d: d.update(feature_range=[])),
        ("minimum", lambda d: d.update(minimum={"input": "0"})),
        ("counts.good", lambda d: d["counts"].update(good=None)),
        ("counts", lambda d: d["counts"].pop("duplicate")),
        ("candidates[0].outcome", lambda d: d["candidates"][0].pop("outcome")),
        ("outcome", lambda d: d["candidates"][0].update(outcome="excellent")),
        ("candidates[0].notes", lambda d: d["candidates"][0].update(notes=3)),
        ("reason", lambda d: d["candidates"][0].update(outcome="bad")),
        ("limit", lambda d: d.update(limit="4")),
        ("selected[0].label", lambda d: d["selected"][0].update(label=None)),
        ("label", lambda d: d["selected"][0].update(label=2**40)),
        ("selected[1]", lambda d: d["selected"].__setitem__(1, 7)),
        ("calibration_images", lambda d: d.pop("calibration_images")),
        ("unlabelled", lambda d: d.update(unlabelled=[])),
    ],
}


@pytest.mark.parametrize(("name", "key", "change"), [(n, k, c) for n, rows in WRONG.items() for k, c in rows])
@pytest.mark.parametrize("partial", [False, True])
def test_a_wrong_type_is_damage_that_names_the_key(run, capsys, name, key, change, partial):
    """With its checksum taken away, as by one who does not know of it."""
    edit(run / name, change, seal=None)
    if partial:
        for lost in ("results.nc", "summary.json"):
            (run / lost).unlink()
    for command in (["summary", run], ["gate", run, "--max", "lipschitz_q95=1000"], ["verify", run], ["claims", run]):
        code, out, err = call(capsys, *command)
        assert code in (4, 5), (command, out, err)
        assert key in out + err, (command, out, err)
        assert len(err.splitlines()) <= 2


@pytest.mark.parametrize("change", [WRONG["manifest.json"][6][1], WRONG["manifest.json"][13][1]])
def test_a_missing_key_is_never_a_bug_even_under_a_right_checksum(run, capsys, change):
    edit(run / "manifest.json", change, seal=True)
    for command in (["summary", run], ["gate", run, "--max", "lipschitz_q95=1000"], ["claims", run]):
        assert call(capsys, *command)[0] in (0, 4, 5)


def test_a_folder_in_the_place_of_a_file(run, made, capsys):
    (run / "summary.json").unlink()
    (run / "summary.json").mkdir()
    code, _, err = call(capsys, "summary", run)
    assert (code, f"{run / 'summary.json'}: damaged: Is a directory" in err) == (5, True)
    assert named(analyzer.verify(run)) == ["summary.json"]
    with pytest.raises(IncompleteError, match=r"summary\.json: cannot be removed: .*\nremove it, then run"):
        again(run, made)
    (run / "summary.json").rmdir()
    again(run, made)
    assert analyzer.verify(run) == []


# the command ----------------------------------------------------------------------------------------------------------


def test_verify_mend_says_what_it_did(run, capsys):
    (run / "manifest.json").unlink()
    code, out, _ = call(capsys, "verify", run)
    assert code == 5
    mend = "run the same command again, or verify with --mend: it is rebuilt from results.nc"
    assert out == f"{run / 'manifest.json'}: missing; {mend}\n"
    code, out, err = call(capsys, "verify", run, "--mend")
    assert (code, err) == (0, "")
    assert out == f"{run / 'manifest.json'}: missing; mended\n{run}: 4 of 4 images, nothing wrong any more\n"
    (run / "results.nc").write_bytes(b"")
    document = json.loads(call(capsys, "verify", run, "--mend", "--json")[1])
    assert [problem["mended"] for problem in document["problems"]] == [True]
    assert call(capsys, "verify", run)[:2] == (0, f"{run}: 4 of 4 images, nothing wrong\n")


def test_mending_needs_the_lock(run):
    (run / "summary.json").write_text("{")
    handles = lock.acquire(run)
    try:
        with pytest.raises(UsageError, match="is writing this run"):
            analyzer.verify(run, mend=True)
        assert named(analyzer.verify(run)) == ["summary.json"]
    finally:
        lock.release(handles)


# one writer -----------------------------------------------------------------------------------------------------------


def test_deleting_the_lock_file_lets_no_second_writer_in(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    code = "import sys, pathlib, time\nfrom analyzer.store import lock\n"
    code += "lock.acquire(pathlib.Path(sys.argv[1])); print('ready', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "ready\n"
            with pytest.raises(UsageError, match=f"process {holder.pid} on .* is writing this run"):
                lock.acquire(run)
            (run / ".lock").unlink()
            with pytest.raises(UsageError, match="another process is writing this run"):
                lock.acquire(run)
            assert list(run.iterdir()) == []
        finally:
            holder.kill()
    lock.release(lock.acquire(run))


def test_a_writer_of_an_earlier_version_is_noticed(tmp_path):
    code = "import fcntl, sys, time\nfile = open(sys.argv[1], 'w')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
    code += "print('ready', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / ".lock"], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout.readline() == "ready\n"
            with pytest.raises(UsageError, match="another process is writing this run"):
                lock.acquire(tmp_path)
        finally:
            holder.kill()
    lock.release(lock.acquire(tmp_path))
