"""The page itself: sections from runs, figures and worst cases; takes everything ready, reads no file."""

import base64
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from analyzer import __version__
from analyzer.card import EMBEDDING
from analyzer.measures.scores import in_words_of
from analyzer.report import html, tables
from analyzer.report.beside import Beside
from analyzer.report.caveats import caveats
from analyzer.report.html import Html, items, joined, tag
from analyzer.report.load import Loaded
from analyzer.report.style import CSS
from analyzer.store.documents import ImageCounts
from analyzer.summary import is_labelled
from analyzer.verdicts.claims import Claim
from analyzer.verdicts.drift import Document

SENTENCES = 12  # shown of a run; with many layers there are two for each


class Shown(NamedTuple):
    """A picture with its words, as bytes of an image that the page carries."""

    name: str
    title: str
    words: tuple[str, ...]
    alt: str
    data: bytes
    kind: str
    """"image/png" or "image/jpeg"."""
    wide: bool = False


class Worst(NamedTuple):
    """One worst case of a run: its facts, and its picture or why there is none."""

    title: str
    facts: tuple[tuple[str, str], ...]
    picture: Shown | None
    missing: str = ""


def document(
    runs: Sequence[Loaded],
    pictures: Sequence[Shown],
    worst: Sequence[tuple[Loaded, Sequence[Worst]]],
    claims: Sequence[Sequence[Claim]],
    *,
    drift: Document | None = None,
    drift_pictures: Sequence[Shown] = (),
    beside: Sequence[Beside] = (),
) -> str:
    """The report as one HTML file without scripts, whose policy lets nothing be fetched.

    claims: those of each run. drift: how far the others are from the first run, where that is asked for. beside: what
    other commands have left in the runs.
    """
    style_hash = base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'; base-uri 'none'; form-action 'none'"
    title, names = "Neighbourhoods of images", ", ".join(_labels(runs))
    sections = [
        ("runs", "What ran, and what it says", _overview(runs)),
        ("drift", "Drift from the first run", _drift(_labels(runs), drift, drift_pictures)),
        ("claims", "The paper's claims", _claims(runs, claims)),
        *((key, title, _said(said)) for key, title, said in beside),
        ("figures", "Figures", joined(*(_figure(picture) for picture in pictures))),
        ("worst", "Worst cases", _worst(worst)),
        ("caveats", "What the numbers do not say", _caveats(runs)),
        ("tables", "Tables", joined(*(_tables(run) for run in runs))),
        ("protocol", "Protocol", _protocol(runs)),
        ("context", "Models, devices, versions", tables.context(_labels(runs), [run.run.manifest for run in runs])),
    ]
    sections = [section for section in sections if section[2]]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{title}: {names}"),
        tag("style", Html(CSS)),
    )
    body = tag(
        "body",
        tag("header", tag("h1", title, tag("small", names)), _intro(runs), *_partial(runs)),
        tag("nav", items([tag("a", name, href=f"#{key}") for key, name, _ in sections]), aria_label="Contents"),
        tag("main", *(tag("section", tag("h2", name), content, id=key) for key, name, content in sections)),
        tag("footer", tag("p", f"Written by convnet-analyzer {__version__}.", class_="soft")),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _labels(runs: Sequence[Loaded]) -> list[str]:
    return [run.label for run in runs]


def _intro(runs: Sequence[Loaded]) -> Html:
    text = (
        "How trained networks behave in the immediate neighbourhood of images: each image is perturbed at random by a "
        "few grey levels, and what that does to the true-class score and to the features is measured. "
        "Measures and figures follow Aghdam, Heravi and Puig, “Explaining Adversarial Examples by Local Properties of "
        "Convolutional Neural Networks”, VISAPP 2017."
    )
    return tag("p", in_words_of((run.kind for run in runs), text))


def _partial(runs: Sequence[Loaded]) -> list[Html]:
    return [
        tag(
            "p",
            tag("strong", f"partial: {run.missing}"),
            f"; {run.label} is not complete: the same `analyzer run` command continues it.",
            class_="alert",
        )
        for run in runs
        if run.missing
    ]


def _overview(runs: Sequence[Loaded]) -> Html:
    glance = tables.glance(_labels(runs), [run.summary for run in runs])
    return joined(glance, tag("div", *(_run(run) for run in runs), class_="runs"))


def _run(run: Loaded) -> Html:
    of, sentences = run.summary["run"], run.summary["sentences"]
    context = of["context"]
    more = len(sentences) - SENTENCES
    return tag(
        "article",
        tag("h3", run.label),
        tag(
            "p", f"{of['model']} on {context['device']}, {context['provider']}, {context['precision']}.", class_="soft"
        ),
        tag("p", _images(of["images"], run.kind), class_="soft"),
        items(sentences[:SENTENCES]),
        tag("p", f"... and {more} more sentences, in summary.json.", class_="soft") if more > 0 else "",
        tag("div", items(run.summary["warnings"]), class_="alert") if run.summary["warnings"] else "",
        class_="run",
    )


def _images(images: ImageCounts, kind: str) -> str:
    """How many images were found, read, left out and why, measured. kind: of the scores."""
    left_out = {
        "unreadable": images["bad"],
        "nearer to the mean of another class" if kind == EMBEDDING else "classified wrongly": images["wrong"],
        "below the confidence": images["below_confidence"],
        f"with outputs that are {'all zeros, or ' if kind == EMBEDDING else ''}not finite": images["non_finite"],
        "the same file as another": images["duplicate"],
    }
    reasons = ", ".join(f"{count} {what}" for what, count in left_out.items() if count)
    labels = " No labels: the clean prediction counts as right." if images["unlabelled"] else ""
    if kind == EMBEDDING:
        labels = "" if is_labelled(images) else " No labels, so no classes."
    return (
        f"{images['measured']} images measured (at most {images['asked']} asked for); {images['read']} of "
        f"{images['found']} were looked at{f': {reasons}' if reasons else ''}.{labels}"
    )


def _claims(runs: Sequence[Loaded], claims: Sequence[Sequence[Claim]]) -> Html:
    """Verdicts side by side, then why."""
    by_claim = list(zip(*claims, strict=True))
    rows = [[f"({of[0].number}) {of[0].claim}", *(claim.verdict for claim in of)] for of in by_claim]
    reasons = (
        joined(
            tag("h3", f"({of[0].number}) {of[0].claim}"),
            items([f"{run.label}: {claim.verdict}: {claim.reason}." for run, claim in zip(runs, of, strict=True)]),
        )
        for of in by_claim
    )
    return joined(tag("div", html.table("Verdicts", ["claim", *_labels(runs)], rows), class_="words"), *reasons)


def _drift(labels: Sequence[str], found: Document | None, pictures: Sequence[Shown]) -> Html:
    """Verdicts, the numbers behind them side by side, and the figures."""
    if found is None:
        return Html("")
    candidates = list(zip(labels[1:], found["candidates"], strict=True))
    verdicts = items([joined(tag("strong", label), f": {one['verdict']}.") for label, one in candidates])
    sentences = items([f"{label}: {sentence}" for label, one in candidates for sentence in one["sentences"]])
    notes = tag("div", items(found["notes"]), class_="alert") if found["notes"] else ""
    intro = tag("p", f"{labels[0]} is the reference; the others are held against it row by row.", class_="soft")
    return joined(intro, verdicts, tables.drift(candidates), sentences, notes, *map(_figure, pictures))


def _said(said: Sequence[tuple[str, Sequence[str], Sequence[str]]]) -> Html:
    """Of each run that has it: sentences, and warnings."""
    return joined(
        *(
            joined(
                tag("h3", label),
                items(sentences),
                tag("div", items(warnings), class_="alert") if warnings else "",
            )
            for label, sentences, warnings in said
        )
    )


def _figure(picture: Shown) -> Html:
    return tag(
        "figure",
        tag("h3", picture.title),
        _image(picture),
        tag("figcaption", tag("p", picture.words[0]), items(picture.words[1:]), _files(picture)),
    )


def _image(picture: Shown) -> Html:
    data = base64.b64encode(picture.data).decode()
    shown = tag("img", src=f"data:{picture.kind};base64,{data}", alt=picture.alt)
    # What scrolls must be reachable by the keyboard too.
    wide = {"tabindex": 0, "role": "region", "aria_label": picture.title} if picture.wide else {}
    return tag("div", shown, class_="picture wide" if picture.wide else "picture", **wide)


def _worst(worst: Sequence[tuple[Loaded, Sequence[Worst]]]) -> Html:
    if not any(cases for _, cases in worst):
        return Html("")
    note = (
        "Of each run, the image and perturbation with the largest range of the true-class score, and those with the "
        "largest Lipschitz ratio. The perturbed pixels are shown inside 0..255; in the difference mid-grey stands for "
        "no change. A magnified difference is what was added times the factor given above it."
    )
    shown = [
        joined(tag("h3", run.label), tag("div", *(_case(case) for case in cases), class_="runs"))
        for run, cases in worst
        if cases
    ]
    return joined(tag("p", in_words_of((run.kind for run, _ in worst), note)), *shown)


def _case(case: Worst) -> Html:
    facts = tag("dl", *(joined(tag("dt", name), tag("dd", value)) for name, value in case.facts))
    body = _image(case.picture) if case.picture else tag("p", f"Not shown: {case.missing}.", class_="alert")
    where = _files(case.picture) if case.picture else ""
    return tag("figure", body, tag("figcaption", tag("p", tag("strong", case.title)), facts, where))


def _files(picture: Shown) -> Html:
    return tag("p", f"As files: figures/{picture.name}.png and .svg", class_="soft")


def _caveats(runs: Sequence[Loaded]) -> Html:
    applying = caveats(_labels(runs), [run.summary for run in runs])
    return joined(*(joined(tag("h3", c.title), tag("p", c.text), items(c.lines)) for c in applying))


def _tables(run: Loaded) -> Html:
    return joined(
        tag("h3", run.label),
        tag("p", "Values over the images, with their 95 % interval where there is one.", class_="soft"),
        tables.of_run(run.summary),
    )


def _protocol(runs: Sequence[Loaded]) -> Html:
    note: object = ""
    if len(runs) > 1:
        sets = [set(run.hashes.values()) for run in runs]
        shared, fewest = len(set.intersection(*sets)), min(map(len, sets))
        if any(hashes != sets[0] for hashes in sets):
            note = tag(
                "p",
                f"The runs did not measure the same images: {shared} are common to all, of {fewest} or more each. What "
                "differs between them may be the images.",
                class_="alert",
            )
    return joined(note, tables.protocol(_labels(runs), [run.summary for run in runs]))
