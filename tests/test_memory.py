"""Memory stays flat in the number of images, the writing of results.nc and summary.json included."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
import growth


@pytest.mark.slow
def test_peak_memory_at_200_images_is_that_at_20():
    peak = {images: growth.measured(images=images)[1] for images in (20, 200)}
    print(f"peak resident memory, KiB: {peak}")  # noqa: T201
    assert peak[200] < 1.05 * peak[20], peak
