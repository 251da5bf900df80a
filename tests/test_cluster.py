"""A run on a Dask cluster: real schedulers and workers; the numbers are those of one process, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import graphs
import numpy as np
import pytest
import runs

pytest.importorskip("distributed", reason="needs the extra [cluster]")

from clusters import Dask, free_port

from analyzer import graph, open_run, study
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.store import ImageStatus, Run
from analyzer.study.cluster import check_address

SLOWER = {"trials": 40, "radii": (0.5, 2.0, 4.0)}
"""Of a protocol: long enough for something to happen in the middle of an image."""
LONG = {"trials": 100, "radii": (0.5, 1.0, 2.0, 4.0), "permutations": 999}
"""Of a protocol: long enough for a worker to join."""


@pytest.fixture
def material(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 8)
    return model, images


@pytest.fixture
def dask(tmp_path):
    with Dask(tmp_path) as cluster:
        yield cluster


def measure(model, folder, out, *, address=None, **changed):
    """Run on a cluster, with one thread a worker; the dataset, loaded."""
    keys = ("shared", "mixed", "cluster_timeout", "progress", "until", "provider", "threads", "batch_size")
    options = {"threads": 1, "provider": "cpu", "batch_size": 8, "cluster_timeout": 60.0}
    options |= {key: changed.pop(key) for key in keys if key in changed}
    study.run(model, folder, out, protocol=runs.protocol(**changed), cluster=address, **options)
    with open_run(out) as dataset:
        return dataset.load()


def alone(model, folder, out, **changed):
    return measure(model, folder, out, **changed)


def assert_same_bits(one, other):
    assert list(one.variables) == list(other.variables)
    for name in one.variables:
        if name != "measured_on":
            assert np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f"), name


def once(action, *, after=1):
    """A progress callback that does something when so many images are measured."""
    done = []

    def progress(seen):
        if seen.stage == "measuring" and seen.done >= after and not done:
            done.append(True)
            action()

    return progress


# the same numbers -----------------------------------------------------------------------------------------------------


def test_a_cluster_gives_what_one_process_gives(tmp_path, material, dask):
    model, folder = material
    (folder / "broken.png").write_bytes(b"no image")
    shutil.copy(folder / "image_000.png", folder / "same.png")
    dask.worker(), dask.worker()
    seen = []
    found = measure(model, folder, tmp_path / "run", address=dask.address, progress=seen.append)
    assert_same_bits(found, alone(model, folder, tmp_path / "alone"))
    one, two = (json.loads((tmp_path / name / "calibration.json").read_text()) for name in ("run", "alone"))
    assert one == two
    assert max(progress.workers for progress in seen) in (1, 2)
    assert seen[-1].done == seen[-1].total == 8
    assert seen[-1].passes == seen[-1].expected > 0
    assert len(Run(tmp_path / "run").manifest["hosts"]) == 1  # two workers of one machine
    assert set(found["measured_on"].values) == {0}


def test_a_scheduler_file_serves_as_an_address(tmp_path, material, dask):
    model, folder = material
    dask.worker()
    measure(model, folder, tmp_path / "run", address=str(dask.file), limit=2)
    assert Run(tmp_path / "run").is_complete


def test_a_run_begun_alone_goes_on_here_and_there(tmp_path, material, dask):
    model, folder = material
    dask.worker()
    alone(model, folder, tmp_path / "run", limit=2)
    measure(model, folder, tmp_path / "run", address=dask.address, limit=5)
    found = alone(model, folder, tmp_path / "run")
    assert_same_bits(found, alone(model, folder, tmp_path / "alone"))
    with pytest.raises(UsageError, match="seed 0 -> 1"):
        measure(model, folder, tmp_path / "run", address=dask.address, seed=1)


def test_external_data_travels_too(tmp_path, images, dask, monkeypatch):
    monkeypatch.setattr("analyzer.study.cluster.workers._PART", 1000)  # a file in many parts
    model, _ = graphs.convnet(tmp_path, external_data=True)
    assert len(graph.files_of(model)) > 1
    runs.write_images(images, 3)
    worker = dask.worker()
    found = measure(model, images, tmp_path / "run", address=dask.address)
    assert_same_bits(found, alone(model, images, tmp_path / "alone"))
    deadline = time.monotonic() + 30
    while list(dask.folder.glob("*/**/*.onnx")):  # forgotten once the run is over
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert worker.poll() is None


def test_shared_paths_are_read_where_workers_are(tmp_path, material, dask, monkeypatch):
    model, folder = material
    monkeypatch.setattr("analyzer.study.cluster.sending.load", lambda image: pytest.fail("sent"))
    dask.worker()
    found = measure(model, folder, tmp_path / "run", address=dask.address, shared=True)
    assert_same_bits(found, alone(model, folder, tmp_path / "alone"))


def test_layers_reduced_on_a_worker(tmp_path, material, dask, monkeypatch):
    model, folder = material
    many = {"layers": ("all",), "trials": 12}
    dask.worker(preload="from analyzer.study import model\nmodel._HELD_FEATURES = 1")
    found = measure(model, folder, tmp_path / "run", address=dask.address, **many)
    monkeypatch.setattr("analyzer.study.model._HELD_FEATURES", 1)
    assert_same_bits(found, alone(model, folder, tmp_path / "alone", **many))
    assert found.sizes["layer"] > 2


def test_until_stops_at_the_same_image(tmp_path, images, dask):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 40)
    dask.worker(), dask.worker()
    asked = {"until": "isotropy_log_odds_range_median@4=±35%", "trials": 10, "measures": ("isotropy",)}
    found = measure(model, images, tmp_path / "run", address=dask.address, **asked)
    expected = alone(model, images, tmp_path / "alone", **asked)
    assert 0 < expected.sizes["image"] < 40
    assert_same_bits(found, expected)
    # What was measured ahead of its turn is gone.
    assert len(list((tmp_path / "run/units").glob("*.npz"))) == expected.sizes["image"]


def test_an_image_that_goes_in_the_middle_is_left_out_as_alone(tmp_path, material, dask):
    model, folder = material
    dask.worker()
    gone = sorted(folder.glob("*.png"))

    def remove():
        for path in gone:
            path.unlink(missing_ok=True)

    found = measure(model, folder, tmp_path / "run", address=dask.address, progress=once(remove))
    assert ImageStatus.UNREADABLE_OR_CHANGED_SINCE_SELECTION in found["image_status"].values


def test_workers_of_this_machine(tmp_path, material, capsys):
    model, folder = material
    asked = ["run", model, "--images", folder, *runs.SMALL, "--threads", "1"]
    code, out, err = runs.call(capsys, *asked, "--out", tmp_path / "run", "--cluster", "local:2")
    assert code in (None, 0), err
    runs.call(capsys, *asked, "--out", tmp_path / "alone")
    with open_run(tmp_path / "run") as one, open_run(tmp_path / "alone") as other:
        assert_same_bits(one.load(), other.load())
    assert f"Run: {tmp_path / 'run'}" in out.replace("\n", "")


# what goes wrong ------------------------------------------------------------------------------------------------------


def test_a_worker_killed_in_mid_image(tmp_path, material, dask):
    model, folder = material
    victim, _ = dask.worker(), dask.worker()
    found = measure(
        model, folder, tmp_path / "run", address=dask.address, **SLOWER, progress=once(lambda: dask.kill(victim))
    )
    assert victim.poll() is not None
    assert_same_bits(found, alone(model, folder, tmp_path / "alone", **SLOWER))


def test_the_only_worker_killed_and_another_one_joins(tmp_path, material, dask):
    model, folder = material
    victim = dask.worker()

    def replace():
        dask.kill(victim)
        threading.Timer(1.0, dask.worker, kwargs={"wait": False}).start()

    found = measure(model, folder, tmp_path / "run", address=dask.address, **SLOWER, progress=once(replace))
    assert_same_bits(found, alone(model, folder, tmp_path / "alone", **SLOWER))


def test_a_worker_that_joins_later_takes_part(tmp_path, images, dask):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 60)
    dask.worker()
    most = []
    join = once(lambda: dask.worker())

    def progress(seen):
        most.append(seen.workers)
        join(seen)

    measure(model, images, tmp_path / "run", address=dask.address, **LONG, progress=progress)
    assert max(most) == 2


@pytest.mark.slow
def test_nothing_is_lost_in_50_random_kills(tmp_path, images, dask):
    """Whenever an image comes in, one of two workers is killed, and another one started."""
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 60)
    chance, kills = random.Random(0), []
    dask.worker(), dask.worker()

    def progress(seen):
        living = [process for process in dask.processes if process.poll() is None]
        if seen.stage == "measuring" and len(kills) < 50 and seen.done > len(kills) and len(living) > 1:
            time.sleep(chance.random() * 0.5)  # anywhere in an image
            dask.kill(chance.choice(living))
            kills.append(seen.done)
            dask.worker()

    slow = {"trials": 60, "radii": (0.5, 1.0, 2.0, 4.0)}
    found = measure(model, images, tmp_path / "run", address=dask.address, **slow, progress=progress)
    assert len(kills) == 50
    assert set(found["image_status"].values) == {ImageStatus.MEASURED}
    assert_same_bits(found, alone(model, images, tmp_path / "alone", **slow))


def command(model, folder, out, address):
    options = [
        "--radii",
        "0.5,2,4",
        "--trials",
        "40",
        "--min-confidence",
        "0",
        "--permutations",
        "19",
        "--threads",
        "1",
    ]
    options += ["--provider", "cpu", "--batch-size", "8", "--cluster", address, "--out", str(out)]
    return [sys.executable, "-m", "analyzer", "run", str(model), "--images", str(folder), *options]


def wait_for_units(process, out, count):
    deadline = time.monotonic() + 120
    while len(list(out.glob("units/*.npz"))) < count:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_the_coordinator_killed_and_the_same_command_again(tmp_path, images, dask):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 12)
    dask.worker()
    arguments = command(model, images, tmp_path / "run", dask.address)
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for_units(process, tmp_path / "run", 2)
        process.kill()
    assert len(list((tmp_path / "run").glob("units/*.npz"))) < 12
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    with open_run(tmp_path / "run") as dataset:
        expected = alone(model, images, tmp_path / "alone", trials=40, radii=(0.5, 2.0, 4.0))
        assert_same_bits(dataset.load(), expected)


def test_ctrl_c_says_how_to_go_on_and_leaves_workers_clean(tmp_path, images, dask):
    from distributed import Client

    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 30)
    dask.worker()
    arguments = command(model, images, tmp_path / "run", dask.address)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for_units(process, tmp_path / "run", 2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; to continue: analyzer run " in said
    assert f"--cluster {dask.address}" in said
    assert "Traceback" not in said
    with Client(dask.address, set_as_default=False) as client:
        deadline = time.monotonic() + 60
        open_ones = "len(__import__('sys').modules['analyzer.study.cluster.worker']._networks)"
        while any(client.run(eval, open_ones).values()) or any(client.processing().values()):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_ctrl_c_ends_workers_of_this_machine(tmp_path, images):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 30)
    arguments = command(model, images, tmp_path / "run", "local:2")
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_for_units(process, tmp_path / "run", 2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to all of them
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "stopped; to continue: analyzer run " in said
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.1)


def test_an_image_over_which_workers_die_is_given_up_though_others_are_free():
    """Without a cluster: workers come and go by themselves, and one image ends each that gets it."""
    from types import SimpleNamespace

    from analyzer.study.cluster import engine

    class Future:
        def __init__(self, answer):
            self.status, self.answer = ("pending" if answer is None else "finished"), answer

        def add_done_callback(self, call):
            if self.answer is not None:
                call(self)

        def result(self, timeout):
            return self.answer

    class Workers:
        def __init__(self):
            self.ready, self.ended, self.token, self.born = {"a", "b", "c"}, set(), "t", 0

        known = property(lambda self: self.ready)

        def look(self):
            for address in sorted(victims):  # a nanny starts another one
                self.ready.discard(address)
                self.ended.add(address)
                self.born += 1
                self.ready.add(f"n{self.born}")
            victims.clear()

    victims, sent = set(), []

    def submit(call, name, token, number, *, workers, pure):
        sent.append(number)
        if number == 1:
            victims.update(workers)
        return Future(None if number == 1 else number)

    cluster = engine.Cluster.__new__(engine.Cluster)
    cluster._workers, cluster._answers = Workers(), engine.queue.SimpleQueue()
    cluster._connection = SimpleNamespace(client=SimpleNamespace(submit=submit, cancel=lambda *a, **k: None))
    tasks = [engine._Task(number, lambda number=number: ("look", number)) for number in range(6)]
    answers = dict(cluster._each(tasks))
    assert sent.count(1) == engine.DEATHS
    assert answers.pop(1).reason == "4 workers ended over it"
    assert answers == {number: number for number in (0, 2, 3, 4, 5)}


def test_no_worker_is_waited_for_and_then_said(tmp_path, material, dask, capsys):
    model, folder = material
    asked = ["run", model, "--images", folder, "--out", tmp_path / "run", *runs.SMALL]
    code, _, err = runs.call(capsys, *asked, "--cluster", dask.address, "--cluster-timeout", "1")
    assert code == 5
    assert f"--cluster {dask.address}: no worker for 1 s" in err
    assert "run the same command again" in err


def test_all_workers_gone_in_the_middle(tmp_path, material, dask):
    model, folder = material
    victim = dask.worker()
    kill = once(lambda: dask.kill(victim))
    with pytest.raises(IncompleteError, match="no worker for 2 s"):
        measure(model, folder, tmp_path / "run", address=dask.address, **SLOWER, progress=kill, cluster_timeout=2)
    dask.worker()
    found = measure(model, folder, tmp_path / "run", address=dask.address, **SLOWER)
    assert_same_bits(found, alone(model, folder, tmp_path / "alone", **SLOWER))


def test_the_scheduler_restarted(tmp_path, material, dask):
    model, folder = material
    dask.worker()

    def restart():
        dask.kill(dask.scheduler)
        dask.start_scheduler()
        dask.worker(wait=False)  # without a scheduler, the first one ends

    found = measure(model, folder, tmp_path / "run", address=dask.address, **SLOWER, progress=once(restart))
    assert_same_bits(found, alone(model, folder, tmp_path / "alone", **SLOWER))


FAILS = """
from analyzer.study import engine

real = engine.observe


def fails(model, image, *rest):
    if image.sha256 in open({file!r}).read():
        {deed}
    return real(model, image, *rest)


engine.observe = fails
"""


@pytest.mark.parametrize(
    "deed",
    ["raise RuntimeError('bad luck')", pytest.param("import os; os._exit(1)", marks=pytest.mark.slow)],
    ids=["raises", "kills its worker"],
)
def test_an_image_that_fails_is_left_out_and_tried_again_later(tmp_path, material, dask, deed):
    model, folder = material
    expected = alone(model, folder, tmp_path / "alone")
    bad = Run(tmp_path / "alone").images[1].sha256
    listed = tmp_path / "bad"
    listed.write_text(bad)
    preload = FAILS.format(file=str(listed), deed=deed)
    kills = "exit" in deed
    dask.worker(preload=preload)
    running = True

    def revive():
        while running:
            if all(process.poll() is not None for process in dask.processes):
                dask.worker(preload=preload)
            time.sleep(0.1)

    reviver = threading.Thread(target=revive)
    if kills:
        reviver.start()
    try:
        found = measure(model, folder, tmp_path / "run", address=dask.address)
    finally:
        running = False
    assert (found["image_status"].values == ImageStatus.FAILED_ON_WORKERS).tolist() == [False, True] + [False] * 6
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["run"]["images"]["failed"] == 1
    assert any(w.startswith("1 images left out: every worker") for w in summary["warnings"])
    why = "4 workers ended over it" if kills else "RuntimeError: bad luck"
    assert any(why in w and "failed on" in w for w in summary["warnings"])
    if kills:
        reviver.join()
    listed.write_text("")
    for process in dask.processes:
        if process.poll() is None:
            dask.kill(process)
    dask.worker()
    assert_same_bits(measure(model, folder, tmp_path / "run", address=dask.address), expected)


def test_an_image_that_fails_on_one_worker_is_measured_by_another(tmp_path, material, dask):
    model, folder = material
    expected = alone(model, folder, tmp_path / "alone")
    listed = tmp_path / "bad"
    listed.write_text(" ".join(image.sha256 for image in Run(tmp_path / "alone").images))
    dask.worker(), dask.worker(preload=FAILS.format(file=str(listed), deed="raise RuntimeError('bad host')"))
    found = measure(model, folder, tmp_path / "run", address=dask.address)
    assert_same_bits(found, expected)


def test_where_every_image_fails_it_is_not_for_the_images(tmp_path, material, dask):
    model, folder = material
    alone(model, folder, tmp_path / "alone")
    listed = tmp_path / "bad"
    listed.write_text(" ".join(image.sha256 for image in Run(tmp_path / "alone").images))
    dask.worker(preload=FAILS.format(file=str(listed), deed="raise RuntimeError('no luck at all')"))
    with pytest.raises(InputError, match="no luck at all"):
        measure(model, folder, tmp_path / "run", address=dask.address)


def test_a_worker_with_too_little_memory_takes_smaller_batches(tmp_path, material, dask):
    model, folder = material
    dask.worker(
        preload="""
from analyzer.session import core, feeding

real = core.call


def small(session, prepared, batch):
    if feeding.rows_of(batch) > 4:
        raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
    return real(session, prepared, batch)


core.call = small
"""
    )
    found = measure(model, folder, tmp_path / "run", address=dask.address)
    expected = alone(model, folder, tmp_path / "alone")
    for name in ("isotropy_log_odds", "feature_distance"):
        assert np.allclose(found[name], expected[name], rtol=1e-4, atol=1e-6)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert any("batch size halved to 4" in warning for warning in summary["warnings"])


def test_three_failed_images_do_not_end_a_run_that_holds_others(tmp_path, material, dask):
    model, folder = material
    alone(model, folder, tmp_path / "alone")
    listed = tmp_path / "bad"
    listed.write_text(" ".join(image.sha256 for image in Run(tmp_path / "alone").images[3:6]))
    dask.worker(preload=FAILS.format(file=str(listed), deed="raise RuntimeError('bad luck')"))
    for _ in range(2):  # the second time, only those three are tried
        found = measure(model, folder, tmp_path / "run", address=dask.address)
        assert (found["image_status"].values == ImageStatus.FAILED_ON_WORKERS).sum() == 3
        assert Run(tmp_path / "run").is_complete


# what is refused ------------------------------------------------------------------------------------------------------

OTHER = """
from analyzer.study import provenance

real = provenance.versions
provenance.versions = lambda: {**real(), "onnxruntime": "0.0.1"}
"""
UNLIKE = """
from analyzer.session import core

core.Session.provider = property(lambda self: "OtherExecutionProvider")
"""


@pytest.mark.parametrize("preload", [OTHER, UNLIKE], ids=["version", "provider"])
def test_workers_unlike_the_others_are_refused_by_name(tmp_path, images, dask, preload):
    model, _ = graphs.convnet(tmp_path)
    folder = images
    runs.write_images(images, 60)
    dask.worker()
    what = "onnxruntime 0.0.1, here" if preload is OTHER else "provider OtherExecutionProvider, on the first"
    odd = once(lambda: dask.worker(preload=preload))
    with pytest.raises(UsageError, match=rf"worker \S+.*{what}(.|\n)*`mixed`"):
        measure(model, folder, tmp_path / "run", address=dask.address, **LONG, progress=odd)
    measure(model, folder, tmp_path / "mixed", address=dask.address, **LONG, mixed=True)
    warnings = json.loads((tmp_path / "mixed/summary.json").read_text())["warnings"]
    named = "onnxruntime 0.0.1" if preload is OTHER else "OtherExecutionProvider"
    assert any("unlike workers was allowed" in warning and named in warning for warning in warnings)


def test_a_worker_of_several_threads_is_refused(tmp_path, material, dask):
    model, folder = material
    dask.worker(nthreads=2)
    with pytest.raises(UsageError, match="has 2 threads; a session belongs to one"):
        measure(model, folder, tmp_path / "run", address=dask.address)


def test_another_file_under_the_shared_path_is_refused(tmp_path, material, dask):
    model, folder = material
    dask.worker(preload="from analyzer import graph\ngraph.sha256 = lambda path: 'other'")
    with pytest.raises(InputError, match="another file on worker"):
        measure(model, folder, tmp_path / "run", address=dask.address, shared=True)


def test_what_a_worker_cannot_open_is_said_with_paths_of_this_side(tmp_path, material, dask):
    model, folder = material
    dask.worker()
    with pytest.raises(InputError, match=rf"{model}: .*no_such_layer"):
        measure(model, folder, tmp_path / "run", address=dask.address, layers=("no_such_layer",))


def test_no_scheduler(tmp_path, material, monkeypatch):
    model, folder = material
    monkeypatch.setattr("analyzer.study.cluster.connection._CONNECT", 1.0)
    with pytest.raises(UsageError, match="no scheduler answers"):
        measure(model, folder, tmp_path / "run", address=f"tcp://127.0.0.1:{free_port()}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("address", ["local:0", "local:two", "nowhere", "no/such/file.json", "local:"])
def test_addresses_that_are_none(address):
    with pytest.raises(UsageError, match="`cluster`"):
        check_address(address)


def test_a_file_that_is_no_scheduler_file(tmp_path, material):
    model, folder = material
    (tmp_path / "scheduler.json").write_text("{")
    with pytest.raises(UsageError, match="no scheduler answers"):
        measure(model, folder, tmp_path / "run", address=str(tmp_path / "scheduler.json"))


def test_no_gpu_for_a_worker_each(tmp_path, material, monkeypatch):
    model, folder = material
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UsageError, match="no NVIDIA GPU here"):
        measure(model, folder, tmp_path / "run", address="local:gpus")


def test_one_worker_for_each_gpu(monkeypatch):
    from analyzer.study.cluster import connection

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8a1c")
    assert connection._gpus() == ["2", "GPU-8a1c"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    listed = "GPU 0: NVIDIA H100 (UUID: GPU-1)\nGPU 1: NVIDIA H100 (UUID: GPU-2)\n  MIG 1g.10gb Device 0\n"
    answer = subprocess.CompletedProcess([], 0, stdout=listed)
    monkeypatch.setattr(connection.subprocess, "run", lambda *a, **k: answer)
    assert connection._gpus() == ["0", "1"]


# several hosts --------------------------------------------------------------------------------------------------------


def _namespaces():
    """Why there are no network namespaces here; "" where there are."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
        return "needs root, `ip` and `unshare`"
    made = subprocess.run(["ip", "netns", "add", "cna-probe"], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", "cna-probe"], check=False)
    return ""


@pytest.fixture
def hosts():
    """Two network namespaces with host names of their own: command prefixes, and this machine's address for each."""
    if why := _namespaces():
        pytest.skip(why)
    made = []
    try:
        for number in (1, 2):
            name, net = f"cna-{os.getpid() % 1000}-{number}", f"10.213.{number}"
            for line in (
                f"ip netns add {name}",
                f"ip link add {name} type veth peer name eth0 netns {name}",
                f"ip addr add {net}.1/24 dev {name}",
                f"ip link set {name} up",
                f"ip -n {name} addr add {net}.2/24 dev eth0",
                f"ip -n {name} link set eth0 up",
                f"ip -n {name} link set lo up",
            ):
                subprocess.run(line.split(), check=True, capture_output=True)
            prefix = [
                "ip",
                "netns",
                "exec",
                name,
                "unshare",
                "--uts",
                "sh",
                "-c",
                f'hostname host-{number}; exec "$@"',
                "-",
            ]
            made.append((prefix, f"{net}.1"))
        yield made
    finally:
        for number in (1, 2):
            name = f"cna-{os.getpid() % 1000}-{number}"
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
            subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)


def test_two_hosts_that_share_nothing_but_a_network(tmp_path, images, hosts):
    model, _ = graphs.convnet(tmp_path)
    runs.write_images(images, 40)
    with Dask(tmp_path, host="0.0.0.0") as dask:
        for prefix, here in hosts:
            dask.worker(prefix=prefix, address=f"tcp://{here}:{dask.port}")
        found = measure(model, images, tmp_path / "run", address=f"tcp://{hosts[0][1]}:{dask.port}", **LONG)
    assert_same_bits(found, alone(model, images, tmp_path / "alone", **LONG))
    names = [host.partition(":")[0] for host in Run(tmp_path / "run").manifest["hosts"]]
    assert sorted(names) == ["host-1", "host-2"]
    warnings = json.loads((tmp_path / "run/summary.json").read_text())["warnings"]
    assert any(w.startswith("Images were measured on 2 hosts: ") and "on host-1" in w for w in warnings)
    assert any("is not encrypted" in warning for warning in warnings)


def test_tls(tmp_path, material):
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    model, folder = material
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    subprocess.run([*made, *subject], check=True, capture_output=True)
    files = ["--tls-ca-file", certificate, "--tls-cert", certificate, "--tls-key", key]
    settings = {
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(certificate),
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": str(certificate),
        "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY": str(key),
    }
    with Dask(tmp_path, protocol="tls", options=files) as dask:
        dask.worker()
        arguments = command(model, folder, tmp_path / "run", dask.address)
        subprocess.run(arguments, check=True, env={**os.environ, **settings}, stdout=subprocess.DEVNULL)
    assert Run(tmp_path / "run").is_complete
    assert not any("encrypted" in note for note in Run(tmp_path / "run").context["notes"])
