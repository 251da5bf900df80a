"""How time and peak memory of a run grow with images, radii, trials, image size and feature size.

    python benchmarks/growth.py

Each row is a run in a process of its own, results and summary included, on a linear network, so that the time is
mostly the analyzer's own. `growth.py JSON` is the child: it runs one and prints seconds and KiB.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import graphs
import runs

from analyzer import study

BASE = {"images": 20, "radii": 21, "trials": 100, "side": 16, "features": 64}
CHANGED = [{}, {"images": 200}, {"radii": 42}, {"trials": 200}, {"side": 32}, {"features": 256}]


def measured(**changed: int) -> tuple[float, int]:
    """Seconds and peak resident KiB of one run, in a process of its own."""
    command = [sys.executable, __file__, json.dumps({**BASE, **changed})]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.split()
    return float(seconds), int(peak)


def child(images: int, radii: int, trials: int, side: int, features: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        matrix = np.random.default_rng(0).standard_normal((features, 3 * side * side)) / 1e4
        model, _ = graphs.linear(folder, matrix, size=(side, side))
        runs.write_images(folder / "images", images, size=side)
        protocol = runs.protocol(
            radii=tuple(map(float, range(1, radii + 1))), trials=trials, permutations=999, limit=images
        )
        start = time.perf_counter()
        study.run(model, folder / "images", folder / "run", protocol=protocol, batch_size=64, provider="cpu")
        seconds = time.perf_counter() - start
        # Not ru_maxrss, which a process has from its parent. VmHWM: its own peak, in KiB.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        print(seconds, next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    first_seconds, first_peak = 0.0, 0
    print("| changed | seconds | ratio | peak memory, MiB | ratio |\n|---|---|---|---|---|")
    for changed in CHANGED:
        seconds, peak = measured(**changed)
        first_seconds, first_peak = first_seconds or seconds, first_peak or peak
        what = ", ".join(f"{name} {BASE[name]} -> {value}" for name, value in changed.items())
        what = what or "nothing: " + ", ".join(f"{name} {value}" for name, value in BASE.items())
        print(
            f"| {what} | {seconds:.1f} | {seconds / first_seconds:.2f} | {peak / 1024:.0f} | {peak / first_peak:.2f} |"
        )


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else child(**json.loads(sys.argv[1]))
