"""What is compared of runs, and what a reader of a comparison has to know besides."""

from collections.abc import Iterator, Sequence

from analyzer.card import EMBEDDING
from analyzer.measures import TABLES, Measure, Quantity
from analyzer.measures.quantities import Array
from analyzer.statistics import FEW_IMAGES
from analyzer.summary import measured_images, reach
from analyzer.verdicts.pairing import OpenRun


def quantities(runs: Sequence[OpenRun]) -> Iterator[Quantity]:
    """What is compared, of embeddings the range of the cosine too: they have no log-odds to have one."""
    embeddings = all(run.run.kind == EMBEDDING for run in runs)
    for table in TABLES:
        scores = table.scores if isinstance(table, Measure) else None
        yield from (scores.range,) if embeddings and scores else ()
        yield from table.compared


def missing(runs: Sequence[OpenRun]) -> Iterator[str]:
    """What a run lacks that another has, and what cosines are."""
    for run in runs:
        known = [q for q in quantities(runs) if any(other.has(q) for other in runs)]
        absent = [quantity for quantity in known if not run.has(quantity)]
        for why, those in (
            ("is an embedding, without what these need:", [q for q in absent if q.measured_in(run.dataset)]),
            ("did not measure what these need:", [q for q in absent if not q.measured_in(run.dataset)]),
        ):
            if those:
                yield f"{run.name} {why} {', '.join(quantity.name for quantity in those)}."
    if all(run.run.kind == EMBEDDING for run in runs):
        yield (
            "A cosine is in its network's own scale: where all its embeddings point about the same way, noise changes "
            "it less."
        )


def in_steps(runs: Sequence[OpenRun]) -> Iterator[str]:
    """Up to which radius a quantised network answers with its steps."""
    for run in runs:
        if stepping := reach.steps(measured_images(run.dataset)):
            yield (
                f"Below about radius {stepping:.2g} {run.name} answers with its rounding steps: what is compared there "
                "are these, not slopes."
            )


def restricted(quantity: Quantity, runs: Sequence[OpenRun], values: Sequence[Array]) -> Iterator[str]:
    """On how many images a radius lies outside those of the run. values: (image, 1) of each run."""
    for run, of_run in zip(runs, values, strict=True):
        least, most = run.reach
        for limit, side in ((least, "below"), (most, "above")):
            if outside := int((of_run == limit).sum()):
                images = f"{outside} image{'s' * (outside > 1)}"
                yield f"{quantity.name} of {run.name} lies {side} {limit:g} on {images}, and counts as {limit:g}."


def few(images: int) -> Iterator[str]:
    """How far so many common images tell runs apart."""
    if images < FEW_IMAGES:
        yield f"{images} common image(s) cannot tell runs apart: {FEW_IMAGES} are needed for a verdict."
    else:
        yield (
            "Not distinguishable is no proof of equality; p is not corrected for the number of radii, properties and "
            "layers."
        )
