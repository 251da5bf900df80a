"""What a cluster costs and brings: rate with one and two workers, overhead, bytes and memory.

    python benchmarks/cluster.py [--repeats 3]

Real schedulers and workers on this machine, each a process, a worker of one thread. Images a second are those between
the moment at which all workers measure and the last image but two; ratios are medians over repeats that alternate.
`cluster.py memory N ADDRESS` is the child that measures its own memory.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import graphs
import runs
from clusters import Dask

from analyzer import bundled, study

NETWORKS = ("gtsrb_ciresan2012", "gtsrb_aghdam2015")
IMAGES = 43  # all that are bundled
SIDE = 16


def rate(progress: list[tuple[float, study.Progress]], workers: int) -> float:
    """Images a second once all workers measure, without the end, where some have nothing to do."""
    during = [(at, seen.done) for at, seen in progress if seen.stage == "measuring" and seen.workers == workers]
    (began, first), (ended, last) = during[0], next(each for each in during if each[1] == during[-1][1] - workers)
    return (last - first) / (ended - began)


def study_of(network: str, out: Path, address: str | None, threads: int) -> list[tuple[float, study.Progress]]:
    protocol = study.Protocol(radii=(1.0, 10.0), limit=IMAGES, min_confidence=0.0)
    seen: list[tuple[float, study.Progress]] = []
    study.run(
        bundled.folder() / f"{network}.onnx",
        bundled.folder() / "demo",
        out,
        protocol=protocol,
        provider="cpu",
        threads=threads,
        batch_size=32,
        cluster=address,
        progress=lambda progress: seen.append((time.perf_counter(), progress)),
    )
    return seen


def scaling(folder: Path, repeats: int) -> None:
    """One worker, two workers, one process of two threads."""
    print("| network | two workers / one | two workers / one process of two threads | images/s, one worker |")
    print("|---|---|---|---|")
    for network in NETWORKS:
        rates: dict[str, list[float]] = {"one": [], "two": [], "alone": []}
        for repeat in range(repeats):
            for name, workers in (("one", 1), ("two", 2), ("alone", 0)):
                out = folder / f"{network}-{name}-{repeat}"
                if workers:
                    place = folder / f"dask-{network}-{name}-{repeat}"
                    place.mkdir()
                    with Dask(place) as dask:
                        for _ in range(workers):
                            dask.worker()
                        seen = study_of(network, out, dask.address, 1)
                else:
                    seen = study_of(network, out, None, 2)
                rates[name].append(rate(seen, workers))
        two = [b / a for a, b in zip(rates["one"], rates["two"], strict=True)]
        here = [b / a for a, b in zip(rates["alone"], rates["two"], strict=True)]
        print(
            f"| {network} | {statistics.median(two):.2f} ({min(two):.2f} to {max(two):.2f}) | "
            f"{statistics.median(here):.2f} | {statistics.median(rates['one']):.3g} |",
            flush=True,
        )


def toy(folder: Path, images: int) -> tuple[Path, Path]:
    """A linear network and its images."""
    matrix = np.random.default_rng(0).standard_normal((8, 3 * SIDE * SIDE)) / 1e4
    model, _ = graphs.linear(folder, matrix, size=(SIDE, SIDE))
    if not (folder / "images").exists():
        runs.write_images(folder / "images", images, size=SIDE)
    return model, folder / "images"


def toy_seconds(folder: Path, out: str, images: int, address: str | None) -> float:
    """Seconds of measuring, of a protocol that takes hardly any time itself."""
    model, pictures = toy(folder, images)
    seen: list[tuple[float, study.Progress]] = []
    study.run(
        model,
        pictures,
        folder / out,
        protocol=runs.protocol(radii=(1.0,), trials=3, permutations=0, limit=images),
        provider="cpu",
        threads=1,
        batch_size=16,
        cluster=address,
        progress=lambda progress: seen.append((time.perf_counter(), progress)),
    )
    measuring = [at for at, progress in seen if progress.stage == "measuring"]
    return measuring[-1] - measuring[0]


def overhead(folder: Path, repeats: int, images: int = 300) -> None:
    """Milliseconds and bytes of an image that are the cluster's, one worker."""
    (folder / "toy").mkdir()
    extra, moved = [], []
    for repeat in range(repeats):
        alone = toy_seconds(folder / "toy", f"alone-{repeat}", images, None)
        place = folder / f"dask-toy-{repeat}"
        place.mkdir()
        with Dask(place) as dask:
            dask.worker()
            before = loopback_bytes()
            there = toy_seconds(folder / "toy", f"there-{repeat}", images, dask.address)
            moved.append((loopback_bytes() - before) / images)
        extra.append(1000 * (there - alone) / images)
    unit = next((folder / "toy" / "there-0" / "units").glob("*.npz")).stat().st_size
    picture = next((folder / "toy" / "images").iterdir()).stat().st_size
    print(f"\noverhead: {statistics.median(extra):.1f} ms an image (median of {repeats}; {images} images, one worker)")
    print(
        f"loopback: {statistics.median(moved):,.0f} bytes an image, of {picture:,} of its file and {unit:,} of its unit"
    )


def loopback_bytes() -> int:
    """What has been received over the loopback device."""
    lines = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()
    return int(next(line.split(":")[1].split()[0] for line in lines if line.strip().startswith("lo:")))


def memory(folder: Path) -> None:
    """Peak memory of the coordinator at 20 and 2,000 images, and of a process that measures them alone."""
    print("\n| peak memory, MiB | 20 images | 2,000 images | more |\n|---|---|---|---|")
    for name in ("coordinator", "one process alone"):
        peaks = []
        for images in (20, 2000):
            place = folder / f"memory-{name}-{images}"
            place.mkdir()
            with Dask(place) as dask:
                dask.worker()
                address = dask.address if name == "coordinator" else ""
                command = [sys.executable, __file__, "memory", str(images), address]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(int(done.stdout.split()[-1]) / 1024)
        print(f"| {name} | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[1] - peaks[0]:.0f} |", flush=True)


def child(images: int, address: str | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        toy_seconds(Path(name), "run", images, address)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    folder = Path(tempfile.mkdtemp())
    try:
        scaling(folder, repeats)
        overhead(folder, repeats)
        memory(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    child(int(sys.argv[2]), sys.argv[3] or None) if sys.argv[1:2] == ["memory"] else main()
