"""What a run says of itself: what decides its numbers, what it ran on, what it holds."""

import contextlib
import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer import card as cards
from analyzer import graph
from analyzer.study.neighbourhood import reduced_batch
from analyzer.study.protocol import Protocol

if TYPE_CHECKING:
    from analyzer.study import Network


def variable_names(protocol: Protocol) -> list[str]:
    """The variables a run of this protocol stores."""
    from analyzer.measures import REGISTRY
    from analyzer.store.schema import COMMON

    names = [
        v.name
        for v in COMMON
        if v.needs in (None, *protocol.families) or (v.needs == "features" and protocol.needs_features)
    ]
    return names + [v.name for name in protocol.measures for v in REGISTRY[name].VARIABLES]


def coordinates(protocol: Protocol, prepared: graph.Prepared) -> dict[str, Any]:
    """The axes of a run's results, and the variables it stores."""
    return {
        "radius": list(protocol.radii),
        "trial": protocol.trials,
        "layer": list(prepared.layers),
        "variables": variable_names(protocol),
    }


def identity(
    model: Path, card: Path, labels: Path | None, protocol: Protocol, prepared: graph.Prepared
) -> dict[str, Any]:
    """What decides a number: a run is continued only where all of it is equal (`limit` may grow)."""
    return {
        "model": graph.sha256(model),
        "card": cards.digest(cards.read(card)),
        "labels": None if labels is None else hashlib.sha256(labels.read_bytes()).hexdigest(),
        **protocol.identity(),
        "layers": list(prepared.layers),
    }


def context(
    model: Path,
    folder: Path,
    card_path: Path,
    card: cards.Card,
    protocol: Protocol,
    threads: int | None,
    network: "Network",
) -> dict[str, Any]:
    """What a run ran on."""
    prepared, session, reduces = network
    draft = "; ".join(map(str, card.source.get("fill_in", [])))
    todo = [f"The card is still a draft, see its source.fill_in: {draft}."] if draft else []
    return {
        "model": model.name,
        "images": str(folder),
        "card": str(card_path),
        "provider": session.provider,
        "device": session.device,
        "precision": session.precision,
        "batch_size": reduced_batch(protocol) if reduces else session.batch_size,
        "feature": prepared.feature,
        "threads": threads,
        "classes": session.classes,
        "pixel_shape": list(session.pixel_shape),
        "notes": [*todo, *prepared.notes, *session.notes],
        "versions": versions(),
        "platform": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Versions of everything that takes part in a number."""
    found = {"python": platform.python_version()}
    for name in (
        "convnet-analyzer",
        "onnxruntime",
        "onnxruntime-gpu",
        "onnx",
        "numpy",
        "scipy",
        "scikit-bio",
        "pillow",
        "h5netcdf",
        "h5py",
        "xarray",
    ):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
