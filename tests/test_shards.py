"""Shards: parts of a run that are measured apart and joined; the numbers are those of one run, bit for bit."""

import json
import shutil

import graphs
import numpy as np
import pytest
import runs

from analyzer import open_run, study
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.store import Run
from analyzer.study import shards
from analyzer.study.shards import Shard, merge, parse
from analyzer.summary import verify


@pytest.fixture
def material(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 7)
    return model, images


def measure(model, folder, out, shard=None, **changed):
    options = {"threads": 1, "provider": "cpu", "batch_size": 8}
    options |= {key: changed.pop(key) for key in ("until",) if key in changed}
    return study.run(model, folder, out, protocol=runs.protocol(**changed), shard=shard, **options)


def opened(run):
    with open_run(run) as dataset:
        return dataset.load()


def assert_same_bits(one, other):
    assert list(one.variables) == list(other.variables)
    for name in one.variables:
        assert np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f"), name


def test_three_shards_joined_are_one_run(tmp_path, material):
    model, folder = material
    (folder / "broken.png").write_bytes(b"no image")
    for number in (3, 1, 2):
        measure(model, folder, tmp_path / "run", f"{number}/3")
    summary = merge(tmp_path / "run")
    expected = measure(model, folder, tmp_path / "alone")
    assert_same_bits(opened(tmp_path / "run"), opened(tmp_path / "alone"))
    assert {k: v for k, v in summary.items() if k != "run"} == {k: v for k, v in expected.items() if k != "run"}
    assert summary["run"]["images"] == expected["run"]["images"]
    one, two = (json.loads((tmp_path / name / "calibration.json").read_text()) for name in ("run", "alone"))
    assert one == two
    assert verify(tmp_path / "run") == []
    # As one run, it goes on like any other.
    assert measure(model, folder, tmp_path / "run") == summary


def test_shards_share_the_images_out(tmp_path, material):
    model, folder = material
    ids = []
    for number in (1, 2):
        measure(model, folder, tmp_path / "run", f"{number}/2")
        run = Run(Shard(number, 2).folder(tmp_path / "run"))
        assert run.is_complete
        assert run.identity["shard"] == f"{number}/2"
        ids.append([image.id for image in run.images])
    assert [len(part) for part in ids] == [4, 3]
    assert not {*ids[0]} & {*ids[1]}


def test_shards_in_folders_of_their_own(tmp_path, material):
    model, folder = material
    places = [tmp_path / "a", tmp_path / "b"]
    for number, place in enumerate(places, 1):
        measure(model, folder, place, f"{number}/2")
    merge(tmp_path / "run", [Shard(number, 2).folder(place) for number, place in enumerate(places, 1)])
    measure(model, folder, tmp_path / "alone")
    assert_same_bits(opened(tmp_path / "run"), opened(tmp_path / "alone"))


def test_a_larger_limit_measures_only_what_is_new(tmp_path, material, monkeypatch):
    model, folder = material
    for number in (1, 2):
        measure(model, folder, tmp_path / "run", f"{number}/2", limit=4)
    assert merge(tmp_path / "run")["run"]["images"]["measured"] == 4
    measured = []
    from analyzer.study import engine

    real = engine.observe
    monkeypatch.setattr(engine, "observe", lambda *a: measured.append(1) or real(*a))
    for number in (1, 2):
        measure(model, folder, tmp_path / "run", f"{number}/2")
    assert len(measured) == 3
    merge(tmp_path / "run")
    measure(model, folder, tmp_path / "alone")
    assert_same_bits(opened(tmp_path / "run"), opened(tmp_path / "alone"))


def test_what_measured_an_image_is_kept(tmp_path, material, monkeypatch):
    model, folder = material
    from analyzer.study import engine

    for number in (1, 2):
        monkeypatch.setattr(engine.socket, "gethostname", lambda number=number: f"node-{number}")
        measure(model, folder, tmp_path / "run", f"{number}/2")
    summary = merge(tmp_path / "run")
    (said,) = (w for w in summary["warnings"] if "hosts" in w)
    assert said.startswith("Images were measured on 2 hosts: 4 on node-1: ")
    hosts = Run(tmp_path / "run").manifest["hosts"]
    names = [hosts[place].partition(":")[0] for place in opened(tmp_path / "run")["measured_on"].values]
    assert names == ["node-1", "node-2"] * 3 + ["node-1"]


def test_what_is_missing_is_named(tmp_path, material):
    model, folder = material
    measure(model, folder, tmp_path / "run", "1/2")
    with pytest.raises(IncompleteError, match=r"3 of 7 images are not measured yet, first .*there are shards 1/2 of 2"):
        merge(tmp_path / "run")
    assert not (tmp_path / "run/manifest.json").exists()
    measure(model, folder, tmp_path / "run", "2/2")
    unit = next(Shard(2, 2).folder(tmp_path / "run").glob("units/*.npz"))
    unit.write_bytes(unit.read_bytes()[:-5])
    with pytest.raises(IncompleteError, match="1 of 7 images"):
        merge(tmp_path / "run")


def test_unlike_shards_are_refused(tmp_path, material):
    model, folder = material
    measure(model, folder, tmp_path / "a", "1/2")
    measure(model, folder, tmp_path / "b", "2/2", seed=1)
    places = [Shard(1, 2).folder(tmp_path / "a"), Shard(2, 2).folder(tmp_path / "b")]
    with pytest.raises(UsageError, match=r"made with other settings than .*: seed"):
        merge(tmp_path / "run", places)
    shutil.copytree(folder, tmp_path / "others")
    (tmp_path / "others/image_000.png").unlink()
    measure(model, tmp_path / "others", tmp_path / "c", "2/2")
    with pytest.raises(InputError, match="has selected other images"):
        merge(tmp_path / "run", [places[0], Shard(2, 2).folder(tmp_path / "c")])


def test_a_whole_run_is_no_shard(tmp_path, material):
    model, folder = material
    measure(model, folder, tmp_path / "run", limit=2)
    with pytest.raises(UsageError, match="no shard"):
        merge(tmp_path / "joined", [tmp_path / "run"])
    with pytest.raises(UsageError, match="no shards here"):
        merge(tmp_path / "run")


def test_more_shards_than_images(tmp_path, material):
    model, folder = material
    with pytest.raises(InputError, match="shard 9/9: only 7 images are selected"):
        measure(model, folder, tmp_path / "run", "9/9")
    for number in range(1, 8):
        measure(model, folder, tmp_path / "run", f"{number}/9")
    assert merge(tmp_path / "run")["run"]["images"]["measured"] == 7


def test_a_shard_cannot_stop_early(tmp_path, material):
    model, folder = material
    with pytest.raises(UsageError, match="`until` needs all images"):
        measure(model, folder, tmp_path / "run", "1/2", until="isotropy_log_odds_range_median@4=±10%")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/b", "1/2/3", "-1/2", "1/1000000"])
def test_what_is_no_shard(text):
    with pytest.raises(UsageError, match="`shard`"):
        parse(text)


def test_one_lock_a_shard(tmp_path, material):
    from analyzer.store import lock

    model, folder = material
    measure(model, folder, tmp_path / "run", "1/2")
    handles = lock.acquire(Shard(1, 2).folder(tmp_path / "run"))
    try:
        with pytest.raises(UsageError, match="is writing this run"):
            measure(model, folder, tmp_path / "run", "1/2")
        measure(model, folder, tmp_path / "run", "2/2")
    finally:
        lock.release(handles)


def test_from_the_command_line(tmp_path, material, capsys):
    model, folder = material
    asked = ["run", model, "--images", folder, "--out", tmp_path / "run", *runs.SMALL]
    for number in (1, 2):
        code, out, err = runs.call(capsys, *asked, "--shard", f"{number}/2")
        assert code in (None, 0), err
        assert f"Shard {number}/2 of {tmp_path / 'run'}" in out
    code, _, err = runs.call(capsys, "summary", tmp_path / "run")
    assert code == 4
    assert "`analyzer merge` does that" in err
    code, out, _ = runs.call(capsys, "merge", tmp_path / "run")
    assert code in (None, 0)
    assert f"Run: {tmp_path / 'run'}" in out
    code, out, _ = runs.call(capsys, "merge", tmp_path / "run", "--json")
    assert json.loads(out)["run"]["images"]["measured"] == 7
    assert shards.merge is merge
