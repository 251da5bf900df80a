"""Summary, figures and worst cases of one or several runs as one self-contained HTML file.

    write(runs, out)    out/report.html, and every picture as out/figures/NAME.png and NAME.svg

The page holds no script, fetches nothing and has no link but its own anchors. The same runs give the same bytes.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analyzer import plots
from analyzer.card import EMBEDDING, Card
from analyzer.errors import UsageError
from analyzer.measures import isotropy
from analyzer.measures.scores import in_words_of
from analyzer.report import beside, page, worst
from analyzer.report.load import Loaded, opened
from analyzer.store import files
from analyzer.summary import radius_text
from analyzer.text import short
from analyzer.verdicts import drift as drifting
from analyzer.verdicts.claims import judge
from analyzer.verdicts.drift import Document

__all__ = ["write"]

PAGE = "report.html"
EMBEDDED = 300_000  # bytes of one figure in the page; the file beside it has the full resolution
_RESOLUTIONS = (130, 100, 80, 60)
STRIP = 4.5  # inches: small, so that its captions can be read on a phone
STRIP_RESOLUTION = 180


def write(runs: Sequence[Path], out: Path, *, drift: bool = False) -> Path:
    """Write the report of `runs`, complete or not, into the folder `out` and return the path of report.html.

    drift: whether the first run is the reference that all others are builds of, for a section on how far they are from
    it (see `analyzer.drift`).

    Each file takes its place whole; report.html is the last. Raises UsageError where `out` cannot be written or
    matplotlib is missing, InputError for a path that is no run, IncompleteError for a run without a finished image,
    with damaged results, or where the disk is full.
    """
    if not runs:
        raise UsageError("no run given; expected one run directory or more")
    target, figures = Path(out) / PAGE, Path(out) / "figures"
    with opened([Path(run) for run in runs]) as loaded:
        for wanted in (target, figures / "worst.png"):  # before minutes of drawing
            files.check_asked_for(wanted, parameter="out")
        found = drifting.drift(runs[0], runs[1:], names=[run.label for run in loaded]) if drift else None
        pictures = list(_pictures(loaded, figures))
        cases = [(run, list(_worst(run, number, figures))) for number, run in enumerate(loaded, 1)]
        judged = [judge(run.dataset, no_bound="is shown by `analyzer claims` with the model") for run in loaded]
        drawn = [] if found is None else list(_drift_pictures(found, [run.label for run in loaded], figures))
        text = page.document(
            loaded, pictures, cases, judged, drift=found, drift_pictures=drawn, beside=beside.found(loaded, drift=drift)
        )
    files.write_asked_for(target, text.encode(), parameter="out")
    return target


def _pictures(loaded: Sequence[Loaded], figures: Path) -> Iterator[page.Shown]:
    runs = [plots.DrawnRun(run.label, run.dataset, run.summary) for run in loaded]
    yield from (_shown(picture, figures) for picture in plots.pictures(runs))


def _drift_pictures(found: Document, labels: Sequence[str], figures: Path) -> Iterator[page.Shown]:
    yield from (_shown(picture, figures) for picture in plots.drift_pictures(found, labels))


def _shown(picture: plots.Picture, figures: Path) -> page.Shown:
    _save(picture.figure, figures, picture.name)
    data = _embedded(picture.figure)
    return page.Shown(
        picture.name, picture.title, (picture.how, *picture.says), picture.alt, data, "image/png", wide=True
    )


def _save(figure: Any, figures: Path, name: str) -> None:
    files.write_asked_for(figures / f"{name}.png", plots.to_png(figure), parameter="out")
    files.write_asked_for(figures / f"{name}.svg", plots.to_svg(figure), parameter="out")


def _embedded(figure: Any) -> bytes:
    """The figure as PNG at the best resolution that keeps the page small."""
    for dpi in _RESOLUTIONS:
        data = plots.to_png(figure, dpi=dpi)
        if len(data) <= EMBEDDED:
            break
    return data


def _photograph(figure: Any) -> bytes:
    """The figure as JPEG: noise does not compress without loss, and six runs have twelve of these."""
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", dpi=STRIP_RESOLUTION, pil_kwargs={"quality": 85})
    return file.getvalue()


def _worst(run: Loaded, number: int, figures: Path) -> Iterator[page.Worst]:
    """The worst cases of one run, each with its picture where image and card are still there."""
    card: Card | None
    try:
        card, missing = worst.read_card(run.run), ""
    except worst.Gone as e:
        card, missing = None, str(e)
    for case in worst.cases(run.dataset):
        title, facts = _facts(run, case, card)
        picture = None
        if card is not None:
            try:
                picture = _strip(run, case, card, figures, f"worst_{number}_{case.kind}")
                missing = ""
            except worst.Gone as e:
                missing = str(e)
        yield page.Worst(title, facts, picture, missing)


def _strip(run: Loaded, case: worst.Case, card: Card, figures: Path, name: str) -> page.Shown:
    image = str(run.dataset["image"].values[case.image])
    radius = float(run.dataset["radius"].values[case.radius])
    sha256 = run.hashes.get(image, "")
    rebuilt = worst.rebuild(run.run, card, image=image, sha256=sha256, radius=radius, trial=case.trial)
    panels = worst.panels(rebuilt)
    figure = plots.image_strip(panels, width=STRIP)
    _save(figure, figures, name)
    alt = (
        f"{image}: the clean image; the same with noise of {radius_text(radius)} grey levels; and their difference "
        f"magnified {worst.magnification(rebuilt.added)} times."
    )
    return page.Shown(name, image, (), alt, _photograph(figure), "image/jpeg")


def _facts(run: Loaded, case: worst.Case, card: Card | None) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What the case is, and where: file, radius, trial, scores, classes."""
    here = run.dataset.isel(image=case.image)
    there = here.isel(radius=case.radius, trial=case.trial)
    embedded = run.kind == EMBEDDING
    facts = [
        ("image", str(here["image"].values)),
        ("radius", f"{radius_text(float(there['radius'].values))} grey levels"),
        ("trial", str(int(there["trial"].values))),
    ]
    if (label := int(here["label"].values)) >= 0:
        facts.append(("true class", _class(label, card)))
    if not embedded:  # of an embedding it is 1
        facts.append(("clean score", _score(here["clean_score"], here["clean_log_odds"])))
    scores = isotropy.SCORES
    if scores.score in there:
        what = "cosine to the clean embedding" if embedded else "perturbed score"
        facts.append((what, _score(there[scores.score], there[scores.log_odds])))
        if (predicted := int(there[scores.predicted].values)) >= 0:
            facts.append(("perturbed prediction", _class(predicted, card)))
    if case.kind == "range":
        what = in_words_of([run.kind], "range of the true-class score")
        return f"Largest {what}: {short(case.value, '.3g')}, here its lowest", tuple(facts)
    facts.append(("layer", str(there["layer"].values[case.layer])))
    what = "Largest normalised Lipschitz ratio" if case.normalised else "Largest Lipschitz ratio, not normalised"
    return f"{what}: {short(case.value, '.3g')}", tuple(facts)


def _score(probability: Any, log_odds: Any) -> str:
    """A probability, and beside it the log-odds, which still tell 0.999999 from 1."""
    has_log_odds = bool(np.isfinite(log_odds.values))
    return f"{float(probability.values):.6g}" + (
        f" (log-odds {float(log_odds.values):.4g} nat)" if has_log_odds else ""
    )


def _class(index: int, card: Card | None) -> str:
    """A class by its label where the card has one."""
    if card is not None and card.labels is not None and 0 <= index < len(card.labels):
        return f"{card.labels[index]} ({index})"
    return f"class {index}"
