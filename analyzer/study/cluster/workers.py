"""The workers of a cluster: each is sent the network, opens it, and is held against the first that did."""

import contextlib
import dataclasses
import threading
import time
from asyncio import CancelledError as AsyncCancelled
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from analyzer import graph
from analyzer.errors import AnalyzerError, IncompleteError, InputError, UsageError
from analyzer.session.runtime import PACKAGES
from analyzer.study import provenance
from analyzer.study.cluster import worker
from analyzer.study.cluster.connection import Connection
from analyzer.study.cluster.worker import Answer, Failed
from analyzer.study.embedded import Means
from analyzer.study.engine import Job

LOST = (AsyncCancelled, CancelledError)
"""What becomes of a task when its scheduler, or its only worker, is gone."""
_PART = 2**26  # bytes of a file that are sent at once
_AT_ONCE = 4  # workers that are sent the network at the same time
_LOOK = 1.0  # seconds between two looks at which workers there are
_ERRORS = {error.__name__: error for error in (UsageError, InputError, IncompleteError)}


class Gone(Exception):
    """A worker that ended while it was asked."""


class Workers:
    """The workers of a connection that have opened a job's network; `ready` holds their addresses.

    ended: of those that were ready and are gone, until somebody has taken note.
    first: what the first of them answered, which the others must answer too, unless `mixed`.
    """

    def __init__(self, connection: Connection, job: Job, token: str, *, shared: bool, mixed: bool) -> None:
        self.connection, self.token = connection, token
        self.shared, self.mixed = shared, mixed
        self.job = dataclasses.replace(job, model=job.model.resolve()) if shared else job
        self.files, self.digest = graph.files_of(job.model), graph.sha256(job.model)
        self.means: Means | None = None
        self.ready: set[str] = set()
        self.ended: set[str] = set()
        self.first: Answer | None = None
        self._opening: dict[str, Future[Answer]] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="open")
        self._looked, self._closed = -_LOOK, threading.Event()
        self._reported: set[str] = set()
        self._asked: set[str] = set()

    def look(self) -> None:
        """Take in new workers, let go of those that have ended.

        Raises UsageError where a worker is not as the first one, or cannot open the network for its provider;
        InputError where the network cannot be used.
        """
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        known = self.connection.workers() if self.connection.again() else None
        workers = known or {}
        if known is not None:
            self.ended |= self.ready - workers.keys()
        self.ready &= workers.keys()
        for address, opening in list(self._opening.items()):
            if opening.done():
                del self._opening[address]
                with contextlib.suppress(Gone):
                    self._take(address, opening.result())
        # The first alone: what it answers, the batch size among it, is what the others are asked for.
        alone = self.first is None and bool(self._opening)
        for address, told in workers.items():
            if not alone and address not in self.ready and address not in self._opening:
                self._opening[address] = self._pool.submit(self._open, address, told, _neighbours(workers, told))
                alone = self.first is None

    def judge_by(self, means: Means) -> None:
        """Class means of an embedding, which a worker is given when it opens the network: so all open it again."""
        self.means = means
        self.ready.clear()
        self._looked = -_LOOK

    @property
    def judged(self) -> bool:
        """Whether there are class means."""
        return self.means is not None

    @property
    def known(self) -> set[str]:
        """Those that are ready or about to be."""
        return self.ready | self._opening.keys()

    def lost(self, address: str) -> None:
        """A worker that does not have the network open after all."""
        self.ready.discard(address)

    def close(self) -> None:
        """Stop asking, and let workers forget the network."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for address in self._asked:
            with contextlib.suppress(Exception):
                # Elsewhere it does nothing; a task for a worker that has ended would wait for ever.
                self.connection.dask.fire_and_forget(
                    self._submit(address, "forget", self.token, allow_other_workers=True)
                )
        self.ready.clear()

    def _open(self, address: str, told: dict[str, Any], neighbours: int) -> Answer:
        """Send the network to a worker and have it opened there."""
        if told["nthreads"] != 1:
            raise UsageError(
                f"worker {_name(told)}: has {told['nthreads']} threads; a session belongs to one: start workers with "
                "--nthreads 1, and more of them"
            )
        self._asked.add(address)
        about: worker.About = self._ask(address, "about", self.token)
        self._refuse_versions(about.versions, told)
        job = self.job
        if job.backend.threads is None:
            share = max(1, about.cores // neighbours)
            job = dataclasses.replace(job, backend=dataclasses.replace(job.backend, threads=share))
        if self.first is not None and job.batch_size is None:
            job = dataclasses.replace(job, batch_size=self.first.model.session.batch_size)
        if not self.shared and not about.opened:
            for name, path in self.files.items():
                for part, data in enumerate(_parts(path)):
                    self._ask(address, "receive", self.token, name, data, first=part == 0)
        given = (self.token, job, self.job.model.name, self.digest)
        answer: Answer = self._ask(address, "open", *given, sent=not self.shared)
        if self.means is not None:
            self._ask(address, "judge_by", self.token, self.means)
        return answer

    def _take(self, address: str, answer: Answer) -> None:
        """A worker that has opened the network."""
        if self.first is None:
            self.first = answer
        elif answer.model.layers != self.first.model.layers:
            raise UsageError(
                f"worker {address}: measures the layers {answer.model.layers}, others {self.first.model.layers}"
            )
        elif differing := _differences(self.first, answer):
            self._refuse(address, differing)
        self.ready.add(address)

    def _refuse_versions(self, versions: dict[str, str], told: dict[str, Any]) -> None:
        ours = provenance.versions()
        names = ("convnet-analyzer", *PACKAGES, "numpy", "pillow")  # the last decides pixels
        differing = [
            f"{name} {versions.get(name, 'absent')}, here {ours.get(name, 'absent')}"
            for name in names
            # No runtime at all is needed here, where nothing is measured.
            if versions.get(name) != ours.get(name) and (name in ours or name == "convnet-analyzer")
        ]
        if differing:
            self._refuse(_name(told), differing)

    def _refuse(self, name: str, differing: list[str]) -> None:
        text = f"worker {name}: {'; '.join(differing)}"
        if not self.mixed:
            raise UsageError(f"{text}\ngive it what the others have, end it, or allow it with `mixed`")
        if text not in self._reported:
            self._reported.add(text)
            self.connection.notes.append(f"A cluster of unlike workers was allowed: {text}.")

    def _ask(self, address: str, *arguments: Any, **options: Any) -> Any:
        """What one worker answers. Raises `Gone` where it ends meanwhile, and our errors as it raises them."""
        try:
            future = self._submit(address, *arguments, **options)
            while not self._closed.is_set():
                try:
                    answer = future.result(timeout=2)
                except TimeoutError:
                    if address not in (self.connection.workers() or ()):
                        future.cancel()
                        raise Gone(address) from None
                else:
                    if isinstance(answer, Failed):
                        raise error_of(answer)
                    return answer
        except LOST:
            raise Gone(address) from None
        except (AnalyzerError, Gone):
            raise
        except self.connection.dask.client.ClosedClientError:
            raise Gone(address) from None
        except Exception as e:  # such as that this package is not there, or another version
            raise UsageError(
                f"worker {address}: cannot be asked: {type(e).__name__}: {e}\ninstall this version of "
                "convnet-analyzer, with the extra [cluster], where workers run"
            ) from e
        raise Gone(address)

    def _submit(self, address: str, *arguments: Any, allow_other_workers: bool = False, **options: Any) -> Any:
        """A task for one worker, before those that measure."""
        return self.connection.client.submit(
            worker.call,
            *arguments,
            **options,
            workers=[address],
            allow_other_workers=allow_other_workers,
            pure=False,
            priority=10,
        )


def error_of(failed: Failed) -> AnalyzerError:
    """The error that a worker answered with."""
    if failed.error in _ERRORS:
        return _ERRORS[failed.error](failed.reason)
    return InputError(f"worker {failed.worker}: {failed.reason}")


def _name(told: dict[str, Any]) -> str:
    return f"{told.get('id', '?')} on {told.get('host', '?')}"


def _neighbours(workers: dict[str, dict[str, Any]], told: dict[str, Any]) -> int:
    """Workers of the same host."""
    return sum(each.get("host") == told.get("host") for each in workers.values())


def _parts(path: Path) -> Iterator[bytes]:
    """A file in parts, one at least."""
    with path.open("rb") as file:
        yield file.read(_PART)
        while part := file.read(_PART):
            yield part


def _differences(first: Answer, answer: Answer) -> list[str]:
    """What decides a number and is not as on the first worker."""
    one, other = first.model.session, answer.model.session
    pairs = {
        "provider": (one.provider, other.provider),
        "precision": (one.precision, other.precision),
        "settings": (one.settings, other.settings),
        "layers from graphs of their own": (
            first.checks["fidelity"]["separate"],
            answer.checks["fidelity"]["separate"],
        ),
    }
    return [f"{name} {theirs}, on the first worker {ours}" for name, (ours, theirs) in pairs.items() if ours != theirs]
