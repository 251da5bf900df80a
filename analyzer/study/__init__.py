"""The loop: which images, through which session, to which measures, into the store."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from analyzer import store
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.images import ImageFile
from analyzer.measures.quantities import lacking
from analyzer.session import Backend
from analyzer.store.documents import Calibration, Checks
from analyzer.study import provenance, selection, shards
from analyzer.study.answers import LabelledImage
from analyzer.study.asked import asked, refuse_labels_beyond
from analyzer.study.cluster import Cluster, check_address
from analyzer.study.embedded import means_of
from analyzer.study.engine import Engine, Here
from analyzer.study.foreseeing import foresee
from analyzer.study.measuring import Progress, Watch, measure_all
from analyzer.study.model import Model, open_model
from analyzer.study.observing import observe
from analyzer.study.protocol import Protocol, parse_names, parse_radii, parse_sigma
from analyzer.study.shards import Shard, merge
from analyzer.summary import Summary, summarise, verify
from analyzer.summary.target import Target, watch
from analyzer.summary.target import parse as parse_target

__all__ = [
    "LabelledImage",
    "Model",
    "Progress",
    "Protocol",
    "foresee",
    "merge",
    "observe",
    "open_model",
    "parse_names",
    "parse_radii",
    "parse_sigma",
    "run",
]


def run(
    model: Path,
    images: Path,
    out: Path,
    *,
    protocol: Protocol | None = None,
    card: Path | None = None,
    labels: Path | None = None,
    provider: str = "auto",
    threads: int | None = None,
    provider_options: Mapping[str, str] | None = None,
    optimizations: str = "all",
    provider_share: float = 0.5,
    batch_size: int | None = None,
    until: str | None = None,
    shard: str | None = None,
    cluster: str | None = None,
    cluster_timeout: float = 300.0,
    shared: bool = False,
    mixed: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure one model on one image set, or continue a run that stopped. Prints nothing.

    The same arguments again continue, or do nothing on a complete run.

    Args:
        model: the .onnx file.
        images: folder of images, or of one sub-folder a class.
        out: the run directory, made if need be.
        protocol: radii (grey levels), trials, images and so on; the paper's by default.
        card: the model card, if not the one beside the model.
        labels: CSV with the columns file,label.
        provider: "auto" (the best that really works), "cpu", "cuda", ...; never a silent fallback.
        threads: of the CPU provider; the runtime's choice by default.
        provider_options: the provider's own, such as {"use_tf32": "1"}; part of what may not change on resume.
        optimizations: how far the runtime may rewrite the graph: "all", "extended", "basic" or "off"; likewise.
        provider_share: the least part of the multiply-adds that the named provider must run.
        batch_size: rows of a forward pass; a few are measured by default. Changes no perturbation.
        until: NAME=±10% of its value, or ±a number: stop after the image from which on the interval of this number of
            the summary is so narrow, by a confidence sequence, which may be looked at after every image. The run is
            then one of the images that are measured.
        shard: I/N: measure only the I-th of N parts, into a folder of its own inside `out`; `merge` joins them.
        cluster: where workers measure: a Dask scheduler's address, a scheduler file, "local:N" for N workers here, or
            "local:gpus" for one on each GPU. The numbers and the run directory are the same.
        cluster_timeout: seconds without any worker after which it gives up.
        shared: model and images lie under the same paths on the workers, and are read there instead of sent.
        mixed: workers may differ in versions, provider or precision; noted.
        progress: called now and then, see `Progress`.

    Returns:
        The summary, as summary.json holds it, and as a notebook shows it in short:
        {"<quantity>_<statistic>[@radius][/layer]": {"value", "low", "high", "n"}}, and "run", "sentences", "warnings".
        Undefined numbers are None.

    Raises:
        UsageError: a provider that cannot be had, a refused resume, an output that cannot be written, no scheduler, or
            a worker that is unlike the others.
        InputError: a model, card, layer, label or image set that cannot be used.
        IncompleteError: the disk is full, or no worker is there; the same call continues.

    Example:
        >>> import tempfile
        >>> from analyzer import Protocol, bundled, run
        >>> protocol = Protocol(radii=(1.0,), trials=3, limit=2, measures=("isotropy",))
        >>> folder = bundled.folder()
        >>> with tempfile.TemporaryDirectory() as out:
        ...     summary = run(folder / "gtsrb_ciresan2012.onnx", folder / "demo", Path(out), protocol=protocol)
        >>> summary["isotropy_log_odds_range_median@1"]["n"]
        2
    """
    protocol = protocol or Protocol()
    part = None if shard is None else shards.parse(shard)
    if cluster is not None:
        check_address(cluster)
        if not 0 < cluster_timeout < math.inf:
            raise UsageError(f"`cluster_timeout` {cluster_timeout:g}: must be a number of seconds above 0")
    elif shared or mixed:
        raise UsageError(f"`{'shared' if shared else 'mixed'}` is for `cluster`")
    target = None if until is None else parse_target(until, parameter="until")
    if part is not None:
        if target is not None:
            raise UsageError("`until` needs all images in one run; leave out `shard`")
        out = part.folder(out)
    if target is not None:
        protocol = _as_it_stopped(out, protocol, target)
    backend = Backend(provider, threads, provider_options or {}, optimizations, provider_share)
    card_path, image_set, candidates, job = asked(
        model, images, protocol=protocol, card=card, labels=labels, backend=backend, batch_size=batch_size
    )
    store.check_writable(out)
    job = dataclasses.replace(job, checks=_checks_of_a_finished_run(out, protocol.limit))
    with contextlib.ExitStack() as held:
        engine = held.enter_context(
            contextlib.closing(
                Here(job)
                if cluster is None
                else Cluster(job, cluster, shared=shared, mixed=mixed, timeout=cluster_timeout)
            )
        )
        opened, protocol, checks = engine.opened
        refuse_labels_beyond(candidates, opened)
        if target is not None:
            watch(
                target,
                radii=protocol.radii,
                layers=opened.layers,
                variables=provenance.variable_names(protocol),
                lacks=lacking(opened.prepared.kind, labelled=any(image.label is not None for image in candidates)),
            )
        context = functools.partial(
            provenance.context, opened, protocol, file=model, folder=images, card=card_path, checks=checks
        )
        noted = len(opened.session.notes)
        writer = held.enter_context(
            store.open_store(
                out,
                identity=provenance.identity(opened, model, labels, protocol, None if part is None else part.text),
                context=context(),
                coordinates=provenance.coordinates(protocol, opened.layers),
            )
        )
        _refuse_other_images(writer, candidates, images, out)
        if _was_asked(out, target) and (finished := _finished(out)) is not None:
            return Summary(finished)
        calibration = _selection(writer, candidates, engine, images, image_set.notes, progress, part)
        if (means := means_of(calibration)) is not None:
            engine.judge_by(means)
        watching = None if target is None else Watch(target, writer, calibration)
        pace = measure_all(writer, engine, calibration, candidates, progress, watching)
        if pace["passes"]:
            writer.record_pace(pace)
        if watching or len(opened.session.notes) > noted:  # of a batch that had to become smaller, of workers
            reached = {} if watching is None else {"until": watching.document}
            writer.record({**context(), **reached})
        return Summary(writer.finish(summarise))


def _finished(out: Path) -> dict[str, Any] | None:
    """The summary of a complete run with nothing left to try again; None where there is something to do."""
    run = store.Run(out)
    try:
        if not run.is_complete:
            return None
        run.check_results()
        summary = run.read_summary()
        if not run.is_sealed and verify(run.path):  # nothing else tells what an earlier version wrote from damage
            return None
    except IncompleteError:  # what is damaged is written anew from the units
        return None
    counts = summary["run"]["images"]
    return None if counts["unreadable"] or counts.get("failed") else summary


def _checks_of_a_finished_run(out: Path, limit: int) -> Checks | None:
    """What was checked of a run that is complete, and measured by one graph: there is nothing left to be proved."""
    try:
        run = store.Run(out)
        finished = run.identity["limit"] == limit and _finished(out) is not None
        checks = run.context.get("checks") if finished else None
    except (InputError, IncompleteError):  # no run yet, or a damaged one
        return None
    return None if checks is None or checks["fidelity"]["separate"] else checks


def _was_asked(out: Path, target: Target | None) -> bool:
    """Whether a run was to stop for this target; always without one."""
    until = store.Run(out).context.get("until")
    return target is None or (until is not None and (until["name"], until["bound"], until["relative"]) == target)


def _as_it_stopped(out: Path, protocol: Protocol, target: Target) -> Protocol:
    """The protocol with the limit of a run that stopped for this target: it goes no further."""
    try:
        run = store.Run(out)
        until = run.context.get("until")
        enough = run.is_complete and until is not None and until["reached"]
    except (InputError, IncompleteError):  # no run yet, or a damaged one
        return protocol
    limit = run.identity["limit"]
    if not enough or until is None or limit is None:
        return protocol
    if (until["name"], until["bound"], until["relative"]) != target:
        return protocol
    return dataclasses.replace(protocol, limit=min(protocol.limit, limit))


def _refuse_other_images(writer: store.Store, candidates: list[ImageFile], folder: Path, out: Path) -> None:
    """A folder that has lost more than half of a run's images is another folder."""
    calibration, there = writer.calibration(), {image.id for image in candidates}
    selected = calibration["selected"] if calibration else []
    missing = [record["id"] for record in selected if record["id"] not in there]
    if len(missing) * 2 > len(selected):
        raise UsageError(
            f"{folder}: {len(missing)} of the {len(selected)} images of {out} are not there, first {missing[0]}\n"
            "give the folder the run was made with, or another `out`"
        )


def _selection(
    writer: store.Store,
    candidates: list[ImageFile],
    engine: Engine,
    folder: Path,
    notes: tuple[str, ...],
    progress: Callable[[Progress], None],
    part: Shard | None,
) -> Calibration:
    """The calibration that there is, where it covers the limit; else that of a selection pass."""
    calibration, (model, protocol, _) = writer.calibration(), engine.opened
    if calibration is not None and calibration["limit"] >= protocol.limit:
        return calibration
    passes = 0

    def tick(done: int, rows: int) -> None:
        nonlocal passes
        passes += rows
        progress(Progress("selecting", done, len(candidates), passes))

    try:
        calibration = selection.select(candidates, model, protocol, engine.looked_at, earlier=calibration, tick=tick)
    except InputError as e:
        raise InputError(f"{folder}: {e}") from e
    if notes:
        calibration["notes"] = list(notes)
    if part is not None:
        calibration = part.cut(calibration)
    writer.write_calibration(calibration)
    return calibration
