"""Gradients around the first images of a run, beside what its random noise found: RUN/sensitivity.json."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from analyzer import card as cards
from analyzer import graph
from analyzer import images as pictures
from analyzer.analyses.gradients import check, image
from analyzer.analyses.gradients.differentiable import DifferentiableNetwork
from analyzer.analyses.gradients.documents import ImageRow, Median, Method, SensitivityDocument
from analyzer.analyses.gradients.noise import beside_noise, noise_around
from analyzer.analyses.gradients.sentences import sentences, warnings
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.graph.derivative import GradientsUnavailable
from analyzer.session import Backend
from analyzer.statistics import quantile_over_images
from analyzer.store import Image, Run
from analyzer.store.files import check_asked_for, plain, to_json, write_asked_for
from analyzer.study import Model
from analyzer.study.consistency import EXAMPLES, open_proved
from analyzer.study.preprocessing import Preprocessing
from analyzer.summary import measured_images

SCHEMA = 1
FILE = "sensitivity.json"
_COPY = "copy the run to where it can be written"
GRAPH_HESSIAN = "forward over reverse, by the graph"
DIFFERENCE_HESSIAN = f"central differences of gradients over +-{check.HESSIAN_STEP:g} grey level"
LANCZOS = "Lanczos iteration (ARPACK) with forward and reverse products"
LOWER_BOUND = "finite differences along random directions, a lower bound"


def sensitivity(
    run: Path,
    *,
    model: Path | None = None,
    card: Path | None = None,
    images: Path | None = None,
    images_limit: int = 10,
    clip: bool = False,
    provider: str = "auto",
    threads: int | None = None,
    progress: Callable[[int, int, int], None] = lambda done, total, passes: None,
) -> SensitivityDocument:
    """Differentiate a run's model around its first measured images, and write RUN/sensitivity.json.

    Args:
        run: a run directory, complete or not.
        model: the run's model, if it is not beside its card.
        card: the run's card, if it has moved.
        images: the run's image folder, if it has moved.
        images_limit: how many images.
        clip: keep attacked pixels inside 0..255.
        provider: "auto", "cpu", "cuda", ...
        threads: of the CPU provider.
        progress: called with the images done, all images, and the forward passes so far.

    Returns:
        What was written: the method, figures of each image, their medians, sentences, warnings. Figures of scores are
        in nat per grey level, those of features in feature units per grey level, distances in grey levels.

    Raises:
        UsageError: `images_limit` is below 1, the provider is not to be had, or the run cannot be written to.
        InputError: the model, the card or an image is missing, or is not the one that the run was made with.
        IncompleteError: no image is measured yet.
    """
    if images_limit < 1:
        raise UsageError(f"`images_limit` {images_limit}: must be at least 1")
    reader = Run(run)
    check_asked_for(run / FILE, parameter="run", mend=_COPY)
    model_path = model or reader.recorded_model
    reader.check_model(model_path)
    graph.check(model_path)
    the_card = reader.read_card(card or _card_of(reader, model_path))
    if the_card.kind == cards.EMBEDDING:
        raise InputError(f"{model_path}: its output is an embedding, and gradients are taken of the scores of classes")
    folder = images or Path(reader.context["images"])
    chosen = _chosen(reader, images_limit)
    layer = reader.identity["layers"][-1]
    files = _files(folder, chosen, the_card, given=reader.identity["labels"] is not None)
    examples = [_pixels(files.get(record.id), record, the_card, folder) for record in chosen[:EXAMPLES]]
    prepared, session = open_proved(
        model_path, card=the_card, layers=[layer], backend=Backend(provider, threads), examples=examples
    )
    network = DifferentiableNetwork(Model(prepared, session, the_card))

    rows: list[ImageRow] = []
    method: Method | None = None
    options = image.Options(clip=clip)
    for done, record in enumerate(chosen):
        progress(done, len(chosen), network.passes)
        pixels = _pixels(files.get(record.id), record, the_card, folder)
        if prepared.input_type == "uint8":
            pixels = np.clip(pixels, image.STEP, 255 - image.STEP)
        if method is None:
            method = _method(network, pixels, record.label)
            if prepared.input_grid is not None:
                method["input_step"] = Preprocessing(the_card).grid(pixels, prepared.input_grid)[0]
            options = options._replace(exact_hessian=method["hessian"] == GRAPH_HESSIAN)
        measure = image.by_gradients if network.differentiable else image.by_differences
        rows.append(
            {"id": record.id, "label": record.label, **measure(network, pixels, label=record.label, options=options)}
        )
    assert method is not None  # there is at least one image
    progress(len(chosen), len(chosen), network.passes)

    with reader.open() as dataset:
        noise = [noise_around(dataset, row["id"], row["label"], layer) for row in rows]
    rows = [
        {**row, **beside_noise(row, around, reader.identity, pixels.size)}
        for row, around in zip(rows, noise, strict=True)
    ]
    medians = dict(_medians(rows))
    document = {
        "schema": SCHEMA,
        "run": {
            "model": model_path.name,
            "layer": layer,
            "images": len(rows),
            "norm": reader.identity["norm"],
            "radii": reader.identity["radii"],
            "trials": reader.identity["trials"],
            "clip": clip,
            "device": session.device,
        },
        "method": method,
        "sentences": list(sentences(medians, rows, reader.identity, method, dimension=int(np.prod(network.shape)))),
        "warnings": list(warnings(rows, method)),
        **medians,
        "images": rows,
    }
    result = cast(SensitivityDocument, plain(document))
    text = to_json(result, indent=1) + "\n"
    write_asked_for(run / FILE, text.encode(), parameter="run", mend=_COPY)
    return result


def _method(network: DifferentiableNetwork, pixels: NDArray[np.float64], label: int) -> Method:
    """How derivatives are had for this model, decided by self-checks on its first image, with what they measured."""
    method: Method = {"gradients": None, "hessian": None, "sigma": LOWER_BOUND, "step": image.STEP}
    if network.differentiable:
        try:
            errors = check.self_check(network, pixels, label=label)
            method["gradients"], method["hessian"] = network.differentiable, DIFFERENCE_HESSIAN
            method["sigma"] = LANCZOS
            method["self_check"] = {
                "jacobian": errors.jacobian,
                "gradient": errors.gradient,
                "adjoint": errors.adjoint,
            }
        except GradientsUnavailable as e:
            network.give_up(str(e))
    if not network.differentiable:
        method["unavailable"] = network.unavailable
        return method
    try:
        error = check.hessian_error(network, pixels, label=label)
        method["hessian_graph_error"] = error
        if error <= check.HESSIAN_TOLERANCE:
            method["hessian"] = GRAPH_HESSIAN
    except GradientsUnavailable as e:
        method["hessian_graph_unavailable"] = str(e)
    return method


def _card_of(reader: Run, model: Path) -> Path:
    recorded = Path(reader.context["card"])
    return recorded if recorded.is_file() else cards.beside(model)


def _chosen(reader: Run, limit: int) -> list[Image]:
    with reader.open(derive=False) as dataset:
        measured = set(map(str, measured_images(dataset)["image"].values))
    chosen = [image for image in reader.images if image.id in measured][:limit]
    if not chosen:
        raise IncompleteError(f"{reader.path}: no image is measured yet; run the same command again to continue")
    return chosen


def _files(folder: Path, chosen: list[Image], card: cards.Card, *, given: bool) -> dict[str, pictures.ImageFile]:
    """The chosen images by id. `given`: the labels were in a CSV, which names paths below the folder and no regions."""
    if given and folder.is_dir():
        return {record.id: pictures.ImageFile(record.id, folder / record.id, record.label) for record in chosen}
    return {file.id: file for file in pictures.find(folder, card=card)}


def _pixels(file: pictures.ImageFile | None, record: Image, card: cards.Card, folder: Path) -> NDArray[np.float64]:
    try:
        pixels = pictures.read(file, card=card) if file is not None else None
    except pictures.ImageError:
        pixels = None
    if pixels is None or pixels.sha256 != record.sha256:
        raise InputError(
            f"{folder}: {record.id} is not there, or not the image the run was made with\ngive its folder with `images`"
        )
    return pixels.values.astype(np.float64)


def _medians(rows: Sequence[ImageRow]) -> Iterator[tuple[str, Median]]:
    """`<quantity>_median` of every float. Infinite ones (no boundary found) are left out and not counted in n.

    That of the noise radius also has lower_bound: whether noise changed the class of less than half of the images.
    """
    of_images: Sequence[Mapping[str, Any]] = rows
    names = dict.fromkeys(name for figures in of_images for name, value in figures.items() if isinstance(value, float))
    for name in names:
        values = np.array([figures.get(name, np.nan) for figures in of_images], np.float64)
        estimate = quantile_over_images(values, 0.5)
        median: Median = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
        if name == "noise_radius":  # where noise changed no class, this is only the largest radius tried
            unchanged = np.array([figures.get("noise_found") is False for figures in of_images])
            median["lower_bound"] = bool(np.isinf(np.nanmedian(np.where(unchanged, np.inf, values))))
        yield f"{name}_median", median
