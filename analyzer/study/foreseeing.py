"""What a run would do and how long it would take, without measuring or writing anything."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import numpy as np

from analyzer.session import Backend
from analyzer.study.asked import asked
from analyzer.study.engine import Here, passes_of
from analyzer.study.protocol import Protocol
from analyzer.study.selection import CALIBRATION_IMAGES

_TIMED = 3  # passes


class Foreseen(TypedDict):
    """images: found. measured: at most so many of them. selecting, measuring: forward passes at most. opening: seconds
    that it took to open and check the network here. seconds: of that and of all these passes at the pace of a few; the
    analyzer's own work comes to it. notes: sentences for the user."""

    model: str
    images: int
    measured: int
    passes_an_image: int
    selecting: int
    measuring: int
    opening: float
    seconds: float
    provider: str
    device: str
    batch_size: int
    layers: list[str]
    notes: list[str]


def foresee(
    model: Path,
    images: Path,
    *,
    protocol: Protocol,
    card: Path | None = None,
    labels: Path | None = None,
    backend: Backend | None = None,
    batch_size: int | None = None,
) -> Foreseen:
    """Open the network as a run would, and time a few forward passes. Raises what `run` raises before it measures."""
    _, image_set, candidates, job = asked(
        model,
        images,
        protocol=protocol,
        card=card,
        labels=labels,
        backend=backend or Backend(),
        batch_size=batch_size,
    )
    began = time.perf_counter()
    opened, protocol, _ = Here(job).opened
    opening = time.perf_counter() - began
    session, size = opened.session, opened.session.batch_size
    rows = np.zeros((size, *opened.shape), np.float32)
    for row, pixels in zip(rows, job.examples, strict=False):
        row[...] = opened.preprocessing.apply(pixels).reshape(opened.shape)
    session.run(rows)  # the first one allocates
    pace = statistics.median(_seconds(lambda: session.run(rows)) for _ in range(_TIMED)) / size
    measured, each = min(protocol.limit, len(candidates)), passes_of(opened, protocol)
    selecting = -(-min(len(candidates), max(CALIBRATION_IMAGES, measured)) // size) * size
    return {
        "model": model.name,
        "images": len(candidates),
        "measured": measured,
        "passes_an_image": each,
        "selecting": selecting,
        "measuring": measured * each,
        "opening": opening,
        "seconds": opening + pace * (selecting + measured * each),
        "provider": session.provider,
        "device": session.device,
        "batch_size": size,
        "layers": list(opened.layers),
        "notes": [*image_set.notes, *opened.prepared.notes, *session.notes],
    }


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
