"""The bundled networks on the bundled images, by a protocol that takes seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from analyzer import bundled
from analyzer.study import Progress, Protocol, run

PROTOCOL = Protocol(radii=(0.5, 1.0, 5.0, 10.0, 20.0), trials=40, limit=12, permutations=199)


def demo(network: str, out: Path, *, progress: Callable[[Progress], None] = lambda _: None) -> dict[str, Any]:
    """Run one of `bundled.NETWORKS` into the run directory `out`, and return its summary. Raises what `run` does."""
    folder = bundled.folder()
    images = folder / "demo"
    model = folder / f"{network}.onnx"
    return run(model, images, out, protocol=PROTOCOL, labels=images / "labels.csv", progress=progress)
