"""Helpers that make small image folders and small runs."""

from pathlib import Path

import h5netcdf
import numpy as np
from PIL import Image

from analyzer import open_run, study
from analyzer.cli import main

SMALL = ["--radii", "1,4", "--trials", "5", "--min-confidence", "0", "--permutations", "19"]
SMALL += ["--provider", "cpu", "--batch-size", "8"]
"""Options of `analyzer run` for a small protocol that takes every image."""


def write_images(folder: Path, count: int, size: int | tuple[int, int] = 16, seed: int = 0) -> list[Path]:
    """`count` PNG files of smooth random colours, so that different images give different answers."""
    height, width = (size, size) if isinstance(size, int) else size
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        corners = Image.fromarray(rng.integers(40, 215, (3, 3, 3), dtype=np.uint8))
        path = folder / f"image_{number:03d}.png"
        corners.resize((width, height), Image.Resampling.BILINEAR).save(path)
        paths.append(path)
    return paths


def protocol(**changed) -> study.Protocol:
    """A small protocol that takes every image."""
    small = {"radii": (0.5, 4.0), "trials": 6, "limit": 100, "min_confidence": 0.0, "permutations": 19}
    return study.Protocol(**{**small, **changed})


def measure(model: Path, images: Path, out: Path, *, batch_size: int | None = 8, provider: str = "cpu", **changed):
    """Run and open: the dataset, loaded."""
    options = {k: changed.pop(k) for k in ("card", "labels", "threads", "progress") if k in changed}
    study.run(model, images, out, protocol=protocol(**changed), batch_size=batch_size, provider=provider, **options)
    with open_run(out) as dataset:
        return dataset.load()


def flip(run: Path, variable: str) -> None:
    """Flip one bit of a variable in a run's results.nc, in the chunk of its first image."""
    file = run / "results.nc"
    with h5netcdf.File(file, "r") as stored:
        chunk = stored.variables[variable]._h5ds.id.get_chunk_info(0)
    data = bytearray(file.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 4
    file.write_bytes(data)


def call(capsys, *arguments):
    """Exit code, stdout, stderr of one command, in this process; the code is None where it does not exit."""
    code = None
    try:
        main([str(a) for a in arguments])
    except SystemExit as stopped:
        code = stopped.code or 0
    return code, *capsys.readouterr()
