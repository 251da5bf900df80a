"""A graph as a plain function of one array, on the CPU."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import AnalyzerError, InputError
from analyzer.graph import Prepared
from analyzer.session import core, providers, runtime


def as_function(
    prepared: Prepared, *, threads: int | None = None
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The first output of `prepared` as a function of its input. Raises InputError where it cannot be loaded or run."""
    try:
        session = providers.open_session(prepared, providers.CPU, threads=threads)
    except AnalyzerError:
        raise
    except Exception as e:  # the runtime's exceptions have no common base
        raise runtime.load_error(e, prepared.source, on_cpu=True) from e

    def function(values: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            output: NDArray[np.float32] = core.call(session, prepared, values)[0]
        except Exception as e:  # the runtime's exceptions have no common base
            raise InputError(f"{prepared.source}: onnxruntime failed on it: {runtime.brief(e)}") from e
        return output

    return function
