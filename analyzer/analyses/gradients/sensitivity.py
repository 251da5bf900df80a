"""Gradients around the first images of a run, beside what its random noise found: RUN/sensitivity.json."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer import card as cards
from analyzer import graph, images, store
from analyzer.analyses.gradients import check, image
from analyzer.analyses.gradients.differentiable import DifferentiableNetwork
from analyzer.analyses.gradients.noise import beside_noise, noise_around
from analyzer.analyses.gradients.sentences import sentences, warnings
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.graph.derivative import GradientsUnavailable
from analyzer.session import Session, device_of
from analyzer.statistics import quantile_over_images
from analyzer.store.files import plain, to_json, write

SCHEMA = 1
FILE = "sensitivity.json"
GRAPH_HESSIAN = "forward over reverse, by the graph"
DIFFERENCE_HESSIAN = f"central differences of gradients over +-{check.HESSIAN_STEP:g} grey level"
POWER_ITERATION = "power iteration with forward and reverse products"
LOWER_BOUND = "finite differences along random directions, a lower bound"


def sensitivity(
    run: Path,
    *,
    model: Path | None = None,
    card: Path | None = None,
    folder: Path | None = None,
    limit: int = 10,
    clip: bool = False,
    provider: str = "auto",
    threads: int | None = None,
    progress: Callable[[int, int, int], None] = lambda done, total, passes: None,
) -> dict[str, Any]:
    """Differentiate a run's model around its first `limit` measured images; write and return the document.

    model, card, folder: where the run's own are now, if not where the manifest says; contents are held against the
    run's hashes. progress is called with images done, in all, and passes. Raises UsageError for a limit below 1,
    InputError for a model, card or folder that is missing or another than the run's, IncompleteError where no image is
    measured.
    """
    if limit < 1:
        raise UsageError(f"--images-limit {limit}: must be at least 1")
    manifest = store.read_manifest(run)
    the_card, model_path = _card_and_model(manifest, model, card)
    folder = folder or Path(manifest["context"]["images"])
    chosen = _chosen(run, manifest, limit)
    layer = manifest["identity"]["layers"][-1]
    prepared = graph.prepare(model_path, card=the_card, layers=[layer], device=device_of(provider))
    session = Session(prepared, pixel_shape=the_card.pixel_shape, provider=provider, threads=threads)
    order = -1 if the_card.channels == "BGR" else 1
    network = DifferentiableNetwork(
        prepared, session, mean=the_card.mean[::order], std=the_card.std[::order], threads=threads
    )
    files = _files(folder, chosen, the_card, given=manifest["identity"]["labels"] is not None)

    rows: list[dict[str, Any]] = []
    method: dict[str, Any] = {}
    options = image.Options(clip=clip)
    for done, record in enumerate(chosen):
        progress(done, len(chosen), network.passes)
        pixels = _pixels(files.get(record.id), record, the_card, folder)
        if prepared.input_type == "uint8":
            pixels = np.clip(pixels, image.STEP, 255 - image.STEP)
        if not method:
            method = _method(network, pixels, record.label)
            options = options._replace(exact_hessian=method["hessian"] == GRAPH_HESSIAN)
        measure = image.by_gradients if network.differentiable else image.by_differences
        rows.append(
            {"id": record.id, "label": record.label, **measure(network, pixels, label=record.label, options=options)}
        )
    progress(len(chosen), len(chosen), network.passes)

    with store.open_run(run) as dataset:
        for row in rows:
            row |= beside_noise(row, noise_around(dataset, row["id"], row["label"], layer), manifest, pixels.size)
    medians = dict(_medians(rows))
    document = {
        "schema": SCHEMA,
        "run": {
            "model": model_path.name,
            "layer": layer,
            "images": len(rows),
            "norm": manifest["identity"]["norm"],
            "radii": manifest["identity"]["radii"],
            "trials": manifest["identity"]["trials"],
            "clip": clip,
            "device": session.device,
        },
        "method": method,
        "sentences": list(
            sentences(medians, rows, manifest["identity"], method, dimension=int(np.prod(network.shape)))
        ),
        "warnings": list(warnings(rows, method)),
        **medians,
        "images": rows,
    }
    result: dict[str, Any] = plain(document)
    write(run / FILE, (to_json(result, indent=1) + "\n").encode())
    return result


def _method(network: DifferentiableNetwork, pixels: NDArray[np.float64], label: int) -> dict[str, Any]:
    """How derivatives are had for this model, decided by self-checks on its first image, with what they measured."""
    found: dict[str, Any] = {"gradients": None, "hessian": None, "sigma": LOWER_BOUND, "step": image.STEP}
    if network.differentiable:
        try:
            tried = check.self_check(network, pixels, label=label)
            found |= {"gradients": network.differentiable, "self_check": tried._asdict(), "sigma": POWER_ITERATION}
            found["hessian"] = DIFFERENCE_HESSIAN
        except GradientsUnavailable as e:
            network.give_up(str(e))
    if not network.differentiable:
        return found | {"unavailable": network.unavailable}
    try:
        found["hessian_graph_error"] = check.hessian_error(network, pixels, label=label)
        if found["hessian_graph_error"] <= check.HESSIAN_TOLERANCE:
            found["hessian"] = GRAPH_HESSIAN
    except GradientsUnavailable as e:
        found["hessian_graph_unavailable"] = str(e)
    return found


def _card_and_model(manifest: dict[str, Any], model: Path | None, card: Path | None) -> tuple[cards.Card, Path]:
    context, identity = manifest["context"], manifest["identity"]
    recorded = Path(context["card"])
    model = model or recorded.parent / context["model"]
    if not model.is_file():
        raise InputError(f"{model}: the run's model {context['model']} is not there\ngive it with --model")
    if graph.sha256(model) != identity["model"]:
        raise InputError(f"{model}: not the model the run was made with (another SHA-256)\ngive that one with --model")
    graph.check(model)
    path = card or (recorded if recorded.is_file() else cards.beside(model))
    the_card = cards.read(path)
    document = json.dumps(cards.to_document(the_card), sort_keys=True).encode()
    if hashlib.sha256(document).hexdigest() != identity["card"]:
        raise InputError(f"{path}: not the card the run was made with\ngive that one with --card")
    return the_card, model


def _chosen(run: Path, manifest: dict[str, Any], limit: int) -> list[store.Image]:
    selected = store.selection(store.read_calibration(run, manifest["coordinates"]))
    with store.open_run(run) as dataset:
        measured = set(map(str, dataset["image"].values[dataset["image_status"].values == 0]))
    chosen = [record for record in selected if record.id in measured][:limit]
    if not chosen:
        raise IncompleteError(f"{run}: no image is measured yet; run the same command again to continue")
    return chosen


def _files(folder: Path, chosen: list[store.Image], card: cards.Card, *, given: bool) -> dict[str, images.ImageFile]:
    """The chosen images by id. `given`: the labels were in a CSV, which names paths below the folder and no regions."""
    if given:
        return {record.id: images.ImageFile(record.id, folder / record.id, record.label) for record in chosen}
    return {found.id: found for found in images.find(folder, card=card)}


def _pixels(file: images.ImageFile | None, record: store.Image, card: cards.Card, folder: Path) -> NDArray[np.float64]:
    try:
        pixels = images.read(file, card=card) if file is not None else None
    except images.ImageError:
        pixels = None
    if pixels is None or pixels.sha256 != record.sha256:
        raise InputError(
            f"{folder}: {record.id} is not there, or not the image the run was made with\ngive its folder with --images"
        )
    return pixels.values.astype(np.float64)


def _medians(rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """`<quantity>_median` of every number, infinite ones (no boundary found) left out and not counted in n.

    That of the noise radius also has lower_bound: whether noise changed the class of too few images to know more.
    """
    names = dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, float))
    for name in names:
        values = np.array([row.get(name, np.nan) for row in rows], np.float64)
        median: dict[str, Any] = quantile_over_images(values, 0.5)._asdict()
        if name == "noise_radius":  # where noise changed no class, this is only the largest radius tried
            beyond = [np.inf if row.get("noise_found") is False else row.get(name, np.nan) for row in rows]
            median["lower_bound"] = bool(np.isinf(np.nanmedian(beyond)))
        yield f"{name}_median", median
