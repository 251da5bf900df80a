"""Memory stays flat in the number of images, the writing of results.nc and summary.json included."""

import subprocess
import sys

import graphs
import pytest
import runs

CODE = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import runs
from analyzer import study
protocol = runs.protocol(trials=100, radii=tuple(float(r) for r in range(1, 22)), limit={limit})
study.run(Path({model!r}), Path({images!r}), Path({out!r}), protocol=protocol, batch_size=32, provider="cpu")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_peak_memory_at_200_images_is_that_at_20(tmp_path):
    model, _ = graphs.convnet(tmp_path)
    images = tmp_path / "images"
    runs.write_images(images, 200)
    peak = {}
    for limit in (20, 200):
        code = CODE.format(
            tests=str(runs.__file__).rsplit("/", 1)[0],
            limit=limit,
            model=str(model),
            images=str(images),
            out=str(tmp_path / str(limit)),
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        peak[limit] = int(done.stdout.split()[-1])
    print(f"peak resident memory, KiB: {peak}")  # noqa: T201
    assert peak[200] < 1.05 * peak[20], peak
