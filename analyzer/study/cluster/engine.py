"""An engine whose images are looked at and measured on a cluster: images out, answers in, whatever ends meanwhile."""

import collections
import contextlib
import dataclasses
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from analyzer.errors import IncompleteError
from analyzer.images import ImageError, ImageFile
from analyzer.store import ImageStatus
from analyzer.study import looking
from analyzer.study.cluster import worker
from analyzer.study.cluster.connection import Connection
from analyzer.study.cluster.sending import as_sent, refuse_unshared
from analyzer.study.cluster.worker import Failed, Measurement, NotReady
from analyzer.study.cluster.workers import LOST, Workers, error_of
from analyzer.study.embedded import Means
from analyzer.study.engine import Done, Job, Opened, Work, passes_of, without_answer
from analyzer.study.looking import Seen

ATTEMPTS = 2
"""How often an image may fail; on workers that differ, where there are others."""
DEATHS = 4
"""How many workers may end over an image: some are taken away for other reasons."""
_AHEAD = 2  # tasks for a worker: one that runs, one that waits
_WAIT = 0.5  # seconds, for an answer
_FETCH = 1.0  # seconds, for an answer that is there, before its worker is looked for
_SHOWN = 5


@dataclasses.dataclass(eq=False)
class _Task:
    """Something to be asked of any worker. arguments: made when it is sent, so that they are not held before.

    place: the worker that is asked. failed: what workers answered. deaths: those that ended over it.
    """

    what: Any
    arguments: Callable[[], tuple[Any, ...]]
    place: str = ""
    failed: list[Failed] = dataclasses.field(default_factory=list)
    deaths: list[str] = dataclasses.field(default_factory=list)

    @property
    def failures(self) -> set[str]:
        """The workers that failed over it."""
        return {each.worker for each in self.failed}


class Cluster:
    """An engine on the workers of a Dask scheduler."""

    def __init__(
        self, job: Job, address: str, *, shared: bool = False, mixed: bool = False, timeout: float = 300.0
    ) -> None:
        """Connect, and open the network on the first worker.

        Args:
            job: the network, whose files are sent.
            address: as `connection.check_address` takes it.
            shared: model and images lie under the same paths on all workers, and are read there.
            mixed: whether workers may differ in versions, provider or precision; noted.
            timeout: seconds without a worker after which it gives up.

        Raises:
            UsageError: no scheduler answers, or a worker cannot be used, see `Workers.look`.
            InputError: the network cannot be used.
            IncompleteError: no worker came.
        """
        self.address, self.shared, self.timeout = address, shared, timeout
        self._connection = Connection(address)
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._idle: float | None = None
        with contextlib.ExitStack() as opening:
            opening.callback(self._connection.close)
            self._workers = Workers(self._connection, job, uuid.uuid4().hex, shared=shared, mixed=mixed)
            opening.callback(self._workers.close)
            while self._workers.first is None:
                self._look_for_workers()
                time.sleep(0.02)
            model, protocol, checks, _ = self._workers.first
            opening.pop_all()
        # What workers note later is told in the same place.
        model.session.notes.extend(note for note in self._connection.notes if note not in model.session.notes)
        self._connection.notes = model.session.notes
        self.opened = Opened(model, protocol, checks)

    def judge_by(self, means: Means) -> None:
        """See `Engine`: workers are told before they measure."""
        self._workers.judge_by(means)

    def looked_at(self, images: Iterable[ImageFile]) -> Iterator[tuple[ImageFile, Seen]]:
        """See `Engine`."""
        parts = looking.parts(images, self.opened.model.session.batch_size)
        waiting: dict[int, Iterator[tuple[ImageFile, Seen]]] = {}
        turn = 0
        for (number, part, unread), answer in self._each(map(self._look_task, enumerate(parts))):
            if isinstance(answer, Failed):
                raise error_of(answer)
            if self.shared:
                refuse_unshared(part, answer, self.opened.model.card)
            seen = iter(answer)
            waiting[number] = iter([(image, unread.get(image.id) or next(seen)) for image in part])
            while turn in waiting:
                yield from waiting.pop(turn)
                turn += 1

    def measured(self, work: Iterable[Work], tick: Callable[[int, int], None]) -> Iterator[Done]:
        """See `Engine`. An image that fails again and again is left out, and a note says why."""
        (model, protocol, _), notes = self.opened, self.opened.model.session.notes
        passes, failed = passes_of(model, protocol), 0

        def task(each: Work) -> _Task:
            return _Task(each, lambda: ("measure", each.record, self._sent(each.file), self._workers.judged))

        for each, answer in self._each(map(task, work)):
            record = each.record
            if isinstance(answer, Failed):
                failed += 1
                if failed <= _SHOWN:
                    notes.append(f"{record['id']} failed on {answer.worker}: {answer.reason:.300}.")
                arrays = without_answer(record, model.layers, protocol, ImageStatus.FAILED_ON_WORKERS)
                yield Done(record, arrays, "")
                continue
            assert isinstance(answer, Measurement)
            notes.extend(note for note in answer.notes if note not in notes)
            tick(passes, len(self._workers.ready))
            yield Done(record, answer.arrays, answer.host)

    def close(self) -> None:
        """Let workers forget the network, and disconnect."""
        self._workers.close()
        self._connection.close()

    def _look_task(self, numbered: tuple[int, list[ImageFile]]) -> _Task:
        number, part = numbered
        unread: dict[str, Seen] = {}

        def arguments() -> tuple[Any, ...]:
            sent = []
            unread.clear()  # of an earlier attempt
            for image in part:
                try:
                    sent.append(as_sent(image, shared=self.shared))
                except ImageError as e:
                    unread[image.id] = Seen(reason=str(e))
            return "look", sent

        return _Task((number, part, unread), arguments)

    def _sent(self, image: ImageFile | None) -> ImageFile | None:
        """As a worker can read it; None where it cannot be read any more."""
        try:
            return None if image is None else as_sent(image, shared=self.shared)
        except ImageError:
            return None

    def _each(self, tasks: Iterable[_Task]) -> Iterator[tuple[Any, Any]]:
        """The answer of some worker to each task, as they come; `Failed` after `ATTEMPTS`, or `DEATHS` of workers.

        Every task is for one worker, the one with the fewest: of what becomes of a worker then follows what has to be
        asked again.
        """
        left, again = iter(tasks), collections.deque[_Task]()
        running: dict[Any, _Task] = {}
        more = True
        try:
            while more or again or running:
                self._look_for_workers()
                again.extend(self._orphans(running))
                for task in [task for task in again if len(task.deaths) >= DEATHS]:
                    again.remove(task)
                    yield task.what, Failed(f"{DEATHS} workers ended over it", "IncompleteError", task.deaths[-1])
                while more or again:
                    # What has to wait for a worker that has not failed over it holds up nothing else.
                    due = next((task for task in again if self._place_for(task, running)), None)
                    if due is not None:
                        again.remove(due)
                    elif not more or len(running) >= _AHEAD * len(self._workers.ready):
                        break
                    elif (due := next(left, None)) is None:
                        more = False
                        break
                    if (place := self._place_for(due, running)) is None:
                        again.append(due)
                        break
                    running[self._sent_out(due, place)] = due
                if not more and not again and (waiting := self._late(running)) is not None:
                    again.append(running.pop(waiting))
                    self._connection.client.cancel([waiting])
                    continue
                for future in self._finished(running):
                    task = running.pop(future)
                    answer = self._answer(future, task)
                    if answer is None:
                        again.append(task)
                    else:
                        yield task.what, answer
        finally:
            with contextlib.suppress(Exception):
                self._connection.client.cancel(list(running), force=True)

    def _loads(self, running: dict[Any, _Task]) -> dict[str, list[Any]]:
        """What each worker that is ready has to do, the first first."""
        loads: dict[str, list[Any]] = {address: [] for address in sorted(self._workers.ready)}
        for future, task in running.items():
            loads.setdefault(task.place, []).append(future)
        return loads

    def _orphans(self, running: dict[Any, _Task]) -> list[_Task]:
        """Takes from `running` what its worker has left behind by ending."""
        orphans = []
        for address, futures in self._loads(running).items():
            if address not in self._workers.ready:
                if address in self._workers.ended:
                    running[futures[0]].deaths.append(address)
                orphans += [running.pop(future) for future in futures]
                with contextlib.suppress(Exception):
                    self._connection.client.cancel(futures)
        self._workers.ended.clear()
        return orphans

    def _place_for(self, task: _Task, running: dict[Any, _Task]) -> str | None:
        """The worker with the least to do, one that has not failed over it where there is one; None for now."""
        loads = {address: len(futures) for address, futures in self._loads(running).items()}
        others = self._workers.known - task.failures
        allowed = self._workers.ready & others if others else self._workers.ready
        place = min(allowed, key=lambda address: (loads[address], address), default=None)
        return None if place is None or loads[place] >= _AHEAD else place

    def _late(self, running: dict[Any, _Task]) -> Any:
        """A task that waits behind another one while a worker that may take it has nothing to do; else None."""
        loads = self._loads(running)
        idle = {address for address, futures in loads.items() if not futures}
        waiting = (futures[-1] for futures in loads.values() if idle and len(futures) > 1)
        return next((future for future in waiting if idle - running[future].failures), None)

    def _sent_out(self, task: _Task, place: str) -> Any:
        name, *arguments = task.arguments()
        task.place = place
        future = self._connection.client.submit(
            worker.call, name, self._workers.token, *arguments, workers=[place], pure=False
        )
        future.add_done_callback(self._answers.put)
        return future

    def _finished(self, running: dict[Any, _Task]) -> list[Any]:
        """The tasks of `running` that have ended; waits a little for the first."""
        try:
            ended = [self._answers.get(timeout=_WAIT)]
            while not self._answers.empty():
                ended.append(self._answers.get())
        except queue.Empty:  # a lost task is not always told
            ended = [future for future in running if future.status != "pending"]
        return [future for future in dict.fromkeys(ended) if future in running]

    def _answer(self, future: Any, task: _Task) -> Any:
        """What a task answered; None where it is to be asked again."""
        try:
            while True:
                try:
                    answer = future.result(timeout=_FETCH)
                    break
                except TimeoutError:  # an answer is on its worker until it is fetched, and may go with it
                    if task.place not in (self._connection.workers() or ()):
                        return None
        except (*LOST, OSError):
            return None
        except Exception as e:  # such as that this package is not there
            answer = Failed(f"{type(e).__name__}: {e}", "", task.place)
        if isinstance(answer, NotReady):
            self._workers.lost(answer.worker)
            return None
        if isinstance(answer, Failed):
            task.failed.append(answer)
            tried = len(task.failures) >= ATTEMPTS or not self._workers.known - task.failures
            return answer if tried and len(task.failed) >= ATTEMPTS else None
        return answer

    def _look_for_workers(self) -> None:
        """Take workers in; raises IncompleteError where there was none for too long."""
        self._workers.look()
        if self._workers.known:
            self._idle = None
            return
        self._idle = time.monotonic() if self._idle is None else self._idle
        if time.monotonic() - self._idle > self.timeout:
            raise IncompleteError(
                f"`cluster` {self.address}: no worker for {self.timeout:g} s\nstart workers, then run the same command "
                "again: it continues"
            )
