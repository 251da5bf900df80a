"""Host work on all cores, between forward passes; numpy lets go of the interpreter's lock in its loops."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


_limit: list[int] = []


def cores() -> int:
    """Cores this process uses: all that it may, unless there is a `limit`."""
    return _limit[0] if _limit else available()


def available() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit(count: int) -> None:
    """Use so many cores from now on: other processes share the machine."""
    _limit[:] = [count]
    _pool.cache_clear()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="analyzer")


def one_blas_thread() -> AbstractContextManager[Any]:
    """Keep numpy's and scipy's BLAS to the calling thread.

    Its own threads keep spinning for a while after each product, and take the cores from the next forward pass.
    """
    limits: AbstractContextManager[Any] = threadpool_limits(limits=1, user_api="blas")
    return limits


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`function` of every item, in order; on this thread alone where there is one item or one core."""
    if len(items) == 1 or cores() == 1:
        return map(function, items)
    return _pool().map(function, items)
