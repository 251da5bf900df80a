"""One image: its perturbations through the session, and what the measures make of the answers.

The path of one image: clean row, then for each radius the noise family and the permutation family, then copies of the
clean row that differ in the last bits and show the noise floor. They are packed into one reused batch (`packing`);
every full batch goes through the session; its scores are reduced at once to those of the true class, and its features
to distances and a Gram matrix as soon as a radius is complete (`answers`).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.perturbations import Perturbations
from analyzer.study.answers import Answers, LabelledImage
from analyzer.study.model import FLOOR_ROWS, Model
from analyzer.study.packing import Piece, run_rows
from analyzer.study.parallel import one_blas_thread
from analyzer.study.protocol import Protocol
from analyzer.study.rows import Clean, LastBits, Perturbed, Source


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
            yield Perturbed(
                perturbations, k, pixels=image.pixels, clean=clean, prepare=model.preprocessing, protocol=protocol
            )
    yield LastBits(model.preprocessing.last_bit_copies(clean, FLOOR_ROWS))
