"""The tables of a report: numbers over the radii, the protocol, what it ran on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from analyzer.card import EMBEDDING
from analyzer.estimate import ABOVE, BELOW
from analyzer.measures import NUMBERS, Number, Table, tables_of
from analyzer.measures.scores import in_words_of
from analyzer.report.html import Html, joined, table, tag
from analyzer.statistics import Estimate
from analyzer.store.manifest import differences
from analyzer.summary import by_radius, end_of, estimates, kind_of, last_suffix, layer_suffixes, radius_text
from analyzer.text import short as short

_OUTSIDE = {BELOW: "below the smallest radius", ABOVE: "above the largest radius"}
MOST_LAYERS = 8  # with a table of all radii for each; beyond, one line a layer
_PROTOCOL = {
    "radii": "radii, grey levels",
    "trials": "perturbations per radius and family",
    "norm": "norm of length radius",
    "clip": "perturbed pixels kept inside 0..255",
    "round": "perturbed pixels on whole grey levels",
    "limit": "images at most",
    "min_confidence": "confidence an image needs",
    "measures": "measures",
    "permutations": "permutations of the Mantel test",
    "linearity_trials": "trials answered at x - a/2 too",
    "seed": "seed",
    "labels": "labels file, SHA-256",
    "layers": "feature layers",
}
_OWN = ("layers", "backend")  # another network has other layers, another machine other settings: the same protocol
_CONTEXT = {
    "images": "image folder",
    "card": "card",
    "device": "device",
    "provider": "provider",
    "precision": "precision",
    "batch_size": "batch size",
    "threads": "threads",
    "classes": "classes, or numbers of an embedding",
    "pixel_shape": "pixels: channels, height, width",
    "platform": "platform",
}
_BACKEND = {
    "optimizations": "graph optimisations",
    "options": "provider options",
    "instructions": "instructions for integers",
}


def glance(labels: Sequence[str], documents: Sequence[Mapping[str, Any]]) -> Html:
    """A few numbers of every run side by side, at its smallest and largest radius; of the last of several layers."""
    numbers = [estimates(dict(document)) for document in documents]
    ends = [last_suffix(document) for document in documents]
    lines: list[Sequence[object]] = [
        ["images measured", *(document["run"]["images"]["measured"] for document in documents)],
        ["radii, grey levels", *(" … ".join(map(radius_text, _ends(document))) for document in documents)],
    ]
    for number in (number for number in NUMBERS.values() if number.glance):
        cells = []
        for document, rows, end in zip(documents, numbers, ends, strict=True):
            at = by_radius(rows, number.name) or by_radius(rows, number.name, end)
            shown = [at.get(radius) for radius in _ends(document)] if number.by_radius else [rows.get(number.name)]
            cells.append(joined(*_between(number, shown)))
        if any(cells):
            lines.append([in_words_of(map(kind_of, documents), number.glance), *cells])
    return table("At a glance: at the smallest and the largest radius", ["", *labels], lines)


def _ends(document: Mapping[str, Any]) -> list[float]:
    radii = document["run"]["protocol"]["radii"]
    return list(dict.fromkeys([radii[0], radii[-1]]))


def _between(number: Number, estimates: Sequence[Estimate | None]) -> list[object]:
    cells = [_cell(replace(number, interval=False), estimate) for estimate in estimates if estimate is not None]
    return [part for k, cell in enumerate(cells) for part in ([" … ", cell] if k else [cell])]


def of_run(document: Mapping[str, Any]) -> Html:
    """Every table of one summary document."""
    rows = estimates(dict(document))
    suffixes, kind = layer_suffixes(dict(document)), kind_of(document)
    parts = []
    for one in tables_of(document["run"]["protocol"]["measures"]):
        if not one.layered:
            parts.append(_by_radius(one, rows, "", kind))
        elif len(suffixes) <= MOST_LAYERS:
            parts += [_by_radius(one, rows, suffix, kind) for suffix in suffixes]
        else:
            parts.append(_by_layer(one, rows, suffixes))
    return joined(*parts)


def _by_radius(of: Table, rows: Mapping[str, Estimate], suffix: str, kind: str) -> Html:
    """One line a radius, and one over all radii where there is such a number; nothing where there is no number."""
    columns = [(number, at) for number in of.columns if (at := by_radius(rows, number.name, end_of(number, suffix)))]
    if not columns:
        return Html("")
    lines: list[Sequence[object]] = [
        [radius_text(radius), *(_cell(number, at.get(radius)) for number, at in columns)]
        for radius in sorted({radius for _, at in columns for radius in at})
    ]
    overall = [rows.get(number.name + end_of(number, suffix)) for number, _ in columns]
    if any(overall):
        lines.append(["all", *(_cell(number, e) for (number, _), e in zip(columns, overall, strict=True))])
    title = in_words_of([kind], of.title)
    caption = f"{title} — {suffix[1:]}" if suffix else title
    return table(caption, ["radius", *(number.heading for number, _ in columns)], lines)


def _by_layer(of: Table, rows: Mapping[str, Estimate], suffixes: Sequence[str]) -> Html:
    """One line a layer, over all radii; the numbers of each radius are in summary.json."""
    columns = [
        number for number in of.columns if any(number.name + end_of(number, suffix) in rows for suffix in suffixes)
    ]
    if not columns:
        return Html("")
    lines: list[Sequence[object]] = [
        [suffix[1:], *(_cell(number, rows.get(number.name + end_of(number, suffix))) for number in columns)]
        for suffix in suffixes
    ]
    return table(f"{of.title}; over all radii", ["layer", *(number.heading for number in columns)], lines)


def _cell(number: Number, estimate: Estimate | None) -> Html:
    if estimate is None:
        return Html("")
    if math.isinf(estimate.value):
        return joined(_OUTSIDE[ABOVE if estimate.value > 0 else BELOW])
    if not math.isfinite(estimate.value):
        return tag("span", "undefined", class_="soft")
    value = joined(short(estimate.value, number.form))
    if number.interval and math.isfinite(estimate.low) and math.isfinite(estimate.high):
        low, high = (short(bound, number.form) for bound in (estimate.low, estimate.high))
        value = joined(value, tag("small", f"{low} – {high}"))
    return value


def protocol(labels: Sequence[str], documents: Sequence[Mapping[str, Any]]) -> Html:
    """The protocol: one column where it is the same for all, else one a run, with a note that names what differs."""
    protocols = [document["run"]["protocol"] for document in documents]
    embedded = all(kind_of(document) == EMBEDDING for document in documents)
    changed = differing(protocols)
    several = any(p != protocols[0] for p in protocols)
    head: list[object] = ["", *(labels if several else [labels[0] if len(labels) == 1 else "all runs"])]
    shown = protocols if several else protocols[:1]
    lines: list[Sequence[object]] = [
        [tag("strong", name, " (differs)") if key in changed else name, *(_setting(key, p.get(key)) for p in shown)]
        for key, name in _PROTOCOL.items()
        if not (key == "min_confidence" and embedded)
    ]
    words = ", ".join(_PROTOCOL.get(key, key) for key in changed)
    note = (
        tag(
            "p",
            f"These runs follow different protocols: {words}. Compare their numbers with that in mind.",
            class_="alert",
        )
        if changed
        else Html("")
    )
    return joined(note, tag("div", table("Protocol", head, lines), class_="words"))


def differing(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys in which the protocols differ, but for those that another network must change."""
    keys = {key for p in protocols for key in differences(dict(protocols[0]), dict(p))}
    return sorted(keys - set(_OWN), key=lambda key: list(_PROTOCOL).index(key) if key in _PROTOCOL else len(_PROTOCOL))


def _setting(key: str, value: Any) -> str:
    if value is None:
        return "the runtime's choice" if key == "threads" else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "radii":
        return ", ".join(radius_text(radius) for radius in value)
    if key == "norm":
        return {"linf": "L-infinity", "l2": "L2"}.get(value, str(value))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def context(labels: Sequence[str], manifests: Sequence[Mapping[str, Any]]) -> Html:
    """What each run ran on, with all versions: one column a run."""
    contexts = [manifest["context"] for manifest in manifests]
    versions = list(dict.fromkeys(name for c in contexts for name in c.get("versions", {})))
    lines: list[Sequence[object]] = [
        ["model", *(c["model"] for c in contexts)],
        ["model, SHA-256", *(manifest["identity"]["model"] for manifest in manifests)],
        *([name, *(_setting(key, c.get(key)) for c in contexts)] for key, name in _CONTEXT.items()),
        *([name, *(_backend(manifest, key) for manifest in manifests)] for key, name in _BACKEND.items()),
        ["begun", *(manifest.get("created", "") for manifest in manifests)],
        ["changed on the way", *(_history(manifest) for manifest in manifests)],
        *([name, *(c.get("versions", {}).get(name, "") for c in contexts)] for name in versions),
    ]
    return tag("div", table("What it ran on", ["", *labels], lines), class_="words")


def _backend(manifest: Mapping[str, Any], key: str) -> str:
    """What was recorded of a run's provider; earlier versions recorded nothing."""
    value = manifest["identity"].get("backend", {}).get(key, "not recorded" if key == "optimizations" else None)
    return _setting(key, [f"{k}={v}" for k, v in value.items()] if isinstance(value, dict) else value)


def _history(manifest: Mapping[str, Any]) -> str:
    changes = dict.fromkeys(key for entry in manifest["history"] for key in entry.get("changes", {}))
    return ", ".join(changes) or "nothing"


def drift(candidates: Sequence[tuple[str, Mapping[str, Any]]]) -> Html:
    """How far each candidate is from the reference: decisions, log-odds, and how much noise does as much."""
    lines = [
        ("clean images of another class", "drift_clean_flip_share", _as_share),
        ("right becomes wrong", "drift_clean_negative_flip_share", _as_share),
        ("wrong becomes right", "drift_clean_positive_flip_share", _as_share),
        ("log-odds apart on clean images, nat", "drift_clean_log_odds_median", _as_number),
        ("largest difference of any row, nat", "drift_log_odds_largest", _as_number),
        ("as much as noise of so many grey levels", "drift_equivalent_noise_median", _as_radius),
        ("answers noise alike from radius", "drift_resolved_radius_median", _as_radius),
    ]
    rows = [
        [heading, *(form(one.get(name)) for _, one in candidates)]
        for heading, name, form in lines
        if any(name in one for _, one in candidates)
    ]
    return table("Drift from the reference", ["", *(label for label, _ in candidates)], rows)


def _as_share(entry: Mapping[str, Any] | None) -> str:
    if entry is None or not math.isfinite(entry["value"]):
        return "undefined"
    interval = f" ({entry['low']:.1%} to {entry['high']:.1%})" if math.isfinite(entry["low"]) else ""
    return f"{entry['value']:.1%}{interval}"


def _as_number(entry: Mapping[str, Any] | None) -> str:
    if entry is None or not math.isfinite(entry["value"]):
        return "undefined"
    interval = f" ({entry['low']:.2g} to {entry['high']:.2g})" if math.isfinite(entry["low"]) else ""
    return f"{entry['value']:.2g}{interval}"


def _as_radius(entry: Mapping[str, Any] | None) -> str:
    if entry is not None and "censored" in entry:
        return _OUTSIDE[entry["censored"]]
    return _as_number(entry)
