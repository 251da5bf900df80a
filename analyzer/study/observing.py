"""One image: its perturbations through the session, and what the measures make of the answers.

The path of one image: clean row, then for each radius the noise family, halves of its first perturbations, and the
permutation family, then copies of the
clean row that differ in the last bits and show the noise floor. They are packed into one reused batch;
every full batch goes through the session; its scores are reduced at once to those of the true class, and its features
to distances and a Gram matrix as soon as a radius is complete (`answers`).
"""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.perturbations import Perturbations
from analyzer.session import Feed, Runner
from analyzer.statistics import FLOOR_COPIES
from analyzer.study.answers import Answers, LabelledImage
from analyzer.study.model import Model
from analyzer.study.parallel import one_blas_thread
from analyzer.study.protocol import Protocol
from analyzer.study.rows import Batch, Clean, Halved, LastBits, Perturbed, Piece, Source


def observe(
    model: Model, image: LabelledImage, protocol: Protocol, tick: Callable[[int], None] = lambda rows: None
) -> dict[str, NDArray[Any]]:
    """Everything a run stores about one image, by variable name, without the image axis.

    tick is called with the number of rows after each forward pass.
    """
    clean = model.preprocessing.apply(image.pixels).reshape(model.shape)
    answers = Answers(model, image, protocol)

    def take(pieces: list[Piece], scores: NDArray[Any], features: list[NDArray[np.float32]]) -> None:
        answers.take(pieces, scores, features)
        tick(len(scores))

    with one_blas_thread():
        sources = _sources(model, image, protocol, clean)
        run_rows(model.session, sources, clean=clean, take=take, finished=protocol.clip or protocol.round)
        return answers.variables()


def _sources(model: Model, image: LabelledImage, protocol: Protocol, clean: NDArray[np.float32]) -> Iterator[Source]:
    """What an image's rows come from, in their order."""
    if not model.session.reduces:  # there each batch has it
        yield Clean(1)
    for k, radius in enumerate(protocol.radii):
        for family in protocol.families:
            perturbations = Perturbations(
                seed=protocol.seed,
                sha256=image.sha256,
                shape=model.shape,
                family=family,
                radius=radius,
                trials=protocol.trials,
                norm=protocol.norm,
            )
            rows = Perturbed(
                perturbations, k, pixels=image.pixels, clean=clean, prepare=model.preprocessing, protocol=protocol
            )
            yield rows
            if family == "noise" and protocol.halved:
                yield Halved(rows, protocol.halved)
    yield LastBits(model.preprocessing.last_bit_copies(clean, FLOOR_COPIES))


def run_rows(
    session: Runner,
    sources: Iterator[Source],
    *,
    clean: NDArray[np.float32],
    take: Callable[..., None],
    finished: bool = False,
) -> None:
    """Pack the rows of all sources into batches of the session's one shape; hand pieces and answers to `take`.

    The last batch is padded with clean rows: at other places of the batch, they widen the noise floor's sample. On a
    CPU the rows are made between passes, on all cores; where the session composes them, during the pass before.
    finished: whether rows are made on the host in any case, since clipping or rounding finishes them.
    """
    composed = session.composes and not finished
    buffers = [Batch(session.batch_size, clean, composed=composed) for _ in range(1 + session.composes)]

    def filled() -> Iterator[tuple[list[Piece], Feed]]:
        packed = (_around_clean if session.reduces else _packed)(sources, session.batch_size)
        for pieces, batch in zip(packed, itertools.cycle(buffers), strict=False):
            start = 0
            for source, trials in pieces:
                source.write(trials, batch, start)
                start += len(trials)
            yield pieces, batch.feed()

    for pieces, answers in (_one_ahead if session.composes else _in_turn)(session, filled()):
        take(pieces, *answers)


def _packed(sources: Iterator[Source], size: int) -> Iterator[list[Piece]]:
    """The pieces of each batch of `size` rows."""
    pieces: list[Piece] = []
    room = size
    for source in sources:
        done = 0
        while done < source.count:
            trials = range(done, min(source.count, done + room))
            pieces.append(Piece(source, trials))
            room, done = room - len(trials), trials.stop
            if not room:
                yield pieces
                pieces, room = [], size
    if pieces:
        yield [*pieces, Piece(Clean(room), range(room))]


def _around_clean(sources: Iterator[Source], size: int) -> Iterator[list[Piece]]:
    """A batch for each source, with the clean row first: what a reduced graph relates to it and to each other.

    Halves stand behind the perturbations that they are halves of.
    """
    pieces: list[Piece] = []

    def filled() -> list[Piece]:
        room = size - sum(len(piece.trials) for piece in pieces)
        return [*pieces, Piece(Clean(room), range(room))] if room else pieces

    for source in sources:
        if pieces and not isinstance(source, Halved):
            yield filled()
            pieces = []
        pieces = pieces or [Piece(Clean(1), range(1))]
        pieces.append(Piece(source, range(source.count)))
    if pieces:
        yield filled()


def _in_turn(session: Runner, feeds: Iterator[tuple[list[Piece], Feed]]) -> Iterator[tuple[list[Piece], Any]]:
    for pieces, feed in feeds:
        yield pieces, session.run(feed)


def _one_ahead(session: Runner, feeds: Iterator[tuple[list[Piece], Feed]]) -> Iterator[tuple[list[Piece], Any]]:
    """The next batch is made while the device computes; its pass is queued before the last one's answers are used."""
    with ThreadPoolExecutor(1, thread_name_prefix="pass") as device:
        running: tuple[list[Piece], Future[Any]] | None = None
        for pieces, feed in feeds:
            queued = pieces, device.submit(session.run, feed)
            if running is not None:
                yield running[0], running[1].result()
            running = queued
        if running is not None:
            yield running[0], running[1].result()
