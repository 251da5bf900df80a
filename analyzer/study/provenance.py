"""What a run says of itself: what decides its numbers, what it ran on, what it holds."""

import contextlib
import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

from analyzer import card as cards
from analyzer import graph
from analyzer.measures import REGISTRY
from analyzer.session.runtime import PACKAGES
from analyzer.store import COMMON
from analyzer.store.documents import Checks, Context, Coordinates, Identity
from analyzer.study.model import Model, reduced_batch
from analyzer.study.protocol import Protocol


def variable_names(protocol: Protocol) -> list[str]:
    """The variables a run of this protocol stores."""
    names = [
        v.name
        for v in COMMON
        if v.needs in (None, *protocol.families) or (v.needs == "features" and protocol.needs_features)
    ]
    return names + [v.name for name in protocol.measures for v in REGISTRY[name].variables if v.derived is None]


def coordinates(protocol: Protocol, layers: Sequence[str]) -> Coordinates:
    """The axes of a run's results, and the variables it stores."""
    return {
        "radius": list(protocol.radii),
        "trial": protocol.trials,
        "layer": list(layers),
        "variables": variable_names(protocol),
    }


def identity(model: Model, file: Path, labels: Path | None, protocol: Protocol, shard: str | None = None) -> Identity:
    """What decides a number: a run is continued only where all of it is equal (`limit` may grow).

    file: the model's; labels: the CSV, where one was given; shard: I/N, of a part.
    """
    document = {
        "model": graph.sha256(file),
        "card": cards.digest(model.card),
        "labels": None if labels is None else hashlib.sha256(labels.read_bytes()).hexdigest(),
        **protocol.identity(),
        "layers": list(model.layers),
        "backend": model.session.settings,
        **({"quantised_layers": list(model.prepared.quantised)} if model.prepared.quantised else {}),
        **({} if shard is None else {"shard": shard}),
    }
    return cast(Identity, document)


def context(model: Model, protocol: Protocol, *, file: Path, folder: Path, card: Path, checks: Checks) -> Context:
    """What a run runs on. file, folder, card: paths as they were given."""
    prepared, session = model.prepared, model.session
    draft = "; ".join(map(str, model.card.source.get("fill_in", [])))
    todo = [f"The card is still a draft, see its source.fill_in: {draft}."] if draft else []
    return {
        "model": file.name,
        "images": str(folder),
        "card": str(card),
        "provider": session.provider,
        "device": session.device,
        "precision": session.precision,
        "batch_size": reduced_batch(protocol) if model.reduces else session.batch_size,
        "feature": prepared.feature,
        "feature_sizes": dict(zip(model.layers, session.feature_sizes, strict=True)),
        "threads": session.backend.threads,
        "classes": session.classes,
        "kind": prepared.kind,
        "pixel_shape": list(session.pixel_shape),
        "notes": [*todo, *prepared.notes, *session.notes],
        "versions": versions(),
        "platform": platform.platform(),
        "checks": checks,
    }


def versions() -> dict[str, str]:
    """Versions of everything that takes part in a number."""
    installed = {"python": platform.python_version()}
    for name in (
        "convnet-analyzer",
        *PACKAGES,
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
            installed[name] = version(name)
    return installed
