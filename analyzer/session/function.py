"""A graph as a plain function of one array."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import AnalyzerError, InputError
from analyzer.graph import Prepared
from analyzer.session import core, placement, providers, runtime
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
