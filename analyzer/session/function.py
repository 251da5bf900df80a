"""A graph as a plain function of one array."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.card import Card
from analyzer.errors import AnalyzerError, InputError
from analyzer.graph import Prepared
from analyzer.session import batching, core, placement, providers, runtime
from analyzer.session.backend import Backend


def as_function(prepared: Prepared) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The first output of `prepared`, on the CPU, as a function of its input.

    Raises InputError where it cannot be loaded or run.
    """
    every = all_outputs(prepared, Backend(placement.CPU))

    def function(values: NDArray[np.float32]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = every(values)[0]
        return output

    return function


def as_deployed(
    model: Path, prepared: Prepared, backend: Backend, *, card: Card
) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """The file `model` by itself: its own output that `prepared` names, (n, ...), of canonical rows (n, C, H, W).

    One image at a time, or as many as the file declares. Raises InputError where it cannot be loaded or run.
    """
    try:
        session = providers.open_file(model, prepared, backend)
        entries = [given.name for given in session.get_inputs()]
    except Exception as e:  # the runtime's exceptions have no common base
        raise InputError(runtime.brief(e)) from e
    if len(entries) > 1:
        raise InputError(f"besides the image it needs further inputs ({', '.join(entries):.200})")
    size = prepared.declared_batch or 1

    def function(rows: NDArray[np.float32]) -> NDArray[Any]:
        given = (rows[:, ::-1] if card.channels == "BGR" else rows).astype(prepared.input_type)
        given = given.transpose(0, 2, 3, 1) if card.layout == "NHWC" else given
        try:
            parts = [
                session.run([prepared.own], {entries[0]: batching.fit(given[k : k + size], size)})[0]
                for k in range(0, len(given), size)
            ]
            return np.concatenate(parts)[: len(rows)]
        except Exception as e:  # the runtime's exceptions have no common base
            raise InputError(runtime.brief(e)) from e

    return function


def all_outputs(prepared: Prepared, backend: Backend) -> Callable[[NDArray[np.float32]], list[NDArray[Any]]]:
    """All outputs of `prepared` on a provider of full name, as a function of its input.

    Raises InputError as `as_function` does.
    """
    try:
        session = providers.open_session(prepared, backend)
    except AnalyzerError:
        raise
    except Exception as e:  # the runtime's exceptions have no common base
        raise runtime.load_error(e, prepared.source, on_cpu=True) from e

    def function(values: NDArray[np.float32]) -> list[NDArray[Any]]:
        try:
            return core.call(session, prepared, values)
        except Exception as e:  # the runtime's exceptions have no common base
            raise InputError(f"{prepared.source}: onnxruntime failed on it: {runtime.brief(e)}") from e

    return function
