"""What runs on a worker: a network is received and opened once, and measures image after image.

`call` answers with a value whatever happens: for an exception that it cannot load, the other side would wait for ever.
"""

import dataclasses
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from analyzer import graph
from analyzer.errors import AnalyzerError, InputError
from analyzer.images import ImageFile
from analyzer.session import Backend, Feed, Runner
from analyzer.store.documents import Checks, SelectedImage
from analyzer.study import engine, looking, parallel, provenance
from analyzer.study.embedded import Means
from analyzer.study.engine import Arrays, Job
from analyzer.study.looking import Seen
from analyzer.study.model import Model
from analyzer.study.protocol import Protocol

_MOST = 2  # networks that a worker keeps open: those of the runs that ask it


@dataclasses.dataclass(frozen=True)
class Failed:
    """An exception, as text. error: the name of its class where it is one of ours. worker: its address."""

    reason: str
    error: str
    worker: str


@dataclasses.dataclass(frozen=True)
class NotReady:
    """This worker has not opened the network."""

    worker: str


class About(NamedTuple):
    """versions: of everything that takes part in a number. cores: that the process may use. opened: the network is."""

    versions: dict[str, str]
    cores: int
    opened: bool


class Answer(NamedTuple):
    """An opened network, as it is told to the other side: without its weights, and with a session that cannot run."""

    model: Model
    protocol: Protocol
    checks: Checks
    host: str


class Measurement(NamedTuple):
    """One image: its arrays, what measured it, and what the session has noted meanwhile."""

    arrays: Arrays
    host: str
    notes: tuple[str, ...]


@dataclasses.dataclass
class Told:
    """What a session of a worker says of itself, see `Runner`. notes: grows by what workers note later."""

    provider: str
    backend: Backend
    settings: dict[str, Any]
    device: str
    precision: str
    notes: list[str]
    pixel_shape: tuple[int, int, int]
    batch_size: int
    classes: int
    feature_sizes: tuple[int, ...]
    composes: bool
    reduces: bool
    independent: bool

    @classmethod
    def of(cls, session: Runner) -> "Told":
        """Of a session in this process."""
        told = {field.name: getattr(session, field.name) for field in dataclasses.fields(cls)}
        return cls(**{**told, "notes": list(session.notes)})

    def run(self, batch: Feed, /) -> Any:
        """Nothing runs here."""
        raise NotImplementedError("the session is a worker's")

    def close(self) -> None:
        """Nothing is open here."""


@dataclasses.dataclass
class _Network:
    """A network that this process has open."""

    answer: Answer
    model: Model


_networks: dict[str, _Network] = {}
"""By token, the one that was used last at the end."""


def dask_setup(worker: Any) -> None:
    """Of a worker that the coordinator started itself: Ctrl-C is for that one alone, though a terminal sends it to all.

    Dask calls it by this name.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def call(name: str, *arguments: Any, **options: Any) -> Any:
    """One of the functions below, or `Failed`."""
    try:
        return _FUNCTIONS[name](*arguments, **options)
    except AnalyzerError as e:
        return Failed(str(e), type(e).__name__, address())
    except Exception as e:  # whatever it is, the run goes on without this answer
        logging.getLogger(__name__).exception("%s failed", name)
        return Failed(f"{type(e).__name__}: {e}", "", address())


def address() -> str:
    """Of this worker."""
    return str(_dask_worker().address)


def _dask_worker() -> Any:
    from distributed import get_worker

    return get_worker()


def about(token: str) -> About:
    """What this worker is."""
    return About(provenance.versions(), parallel.available(), token in _networks)


def receive(token: str, name: str, data: bytes, *, first: bool) -> None:
    """Append a part to a file of the network; `first` begins it. Raises InputError for a name that leads out."""
    file = _file(token, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb" if first else "ab") as out:
        out.write(data)


def _file(token: str, name: str) -> Path:
    folder = _folder(token)
    file = Path(os.path.normpath(folder / name))
    if not file.is_relative_to(folder) or file == folder:
        raise InputError(f"{name}: not beside the model")
    return file


def _folder(token: str) -> Path:
    return (
        Path(_dask_worker().local_directory or tempfile.gettempdir()).resolve() / f"analyzer-{token[:32]}-{os.getpid()}"
    )


def open_network(token: str, job: Job, name: str, digest: str, *, sent: bool) -> Answer:
    """Open a network, whose file was sent under `name` or lies at the job's path.

    digest: its SHA-256 where it comes from. Raises InputError where it is another here, and what `engine.opened` does,
    with paths as they are on the other side.
    """
    if token in _networks:
        _networks[token] = _networks.pop(token)
        return _networks[token].answer
    try:
        return _opened(token, job, name, digest, sent=sent)
    except BaseException:
        shutil.rmtree(_folder(token), ignore_errors=True)
        raise


def _opened(token: str, job: Job, name: str, digest: str, *, sent: bool) -> Answer:
    path = _file(token, name) if sent else job.model
    if graph.sha256(path) != digest:
        raise InputError(
            f"{job.model}: another file on worker {address()}, whose SHA-256 is not that of the run's model"
        )
    if job.backend.threads is not None:
        parallel.limit(job.backend.threads)
    while len(_networks) >= _MOST:
        forget(next(iter(_networks)))
    try:
        model, protocol, checks = engine.opened(dataclasses.replace(job, model=path))
    except AnalyzerError as e:
        raise type(e)(str(e).replace(str(path), str(job.model))) from e
    prepared = dataclasses.replace(model.prepared, model=b"", folder=Path(), source=str(job.model))
    told = Model(prepared, Told.of(model.session), model.card, model.reduces)
    answer = Answer(told, protocol, checks, engine.host_of(model))
    _networks[token] = _Network(answer, model)
    return answer


def look(token: str, images: Sequence[ImageFile]) -> list[Seen] | NotReady:
    """See `looking.look`."""
    network = _networks.get(token)
    if network is not None and network.model.session.reduces:  # whole layers are wanted, and it is reduced by now
        forget(token)
        network = None
    return NotReady(address()) if network is None else looking.look(network.model, images)


def judge_by(token: str, means: Means) -> None:
    """See `Engine`; without effect where the network is not open."""
    if (network := _networks.get(token)) is not None:
        network.model = dataclasses.replace(network.model, means=means)


def measure(token: str, record: SelectedImage, file: ImageFile | None, judged: bool) -> Measurement | NotReady:
    """See `engine.measure`. judged: whether class means have to be there."""
    network = _networks.get(token)
    if network is None or (judged and network.model.means is None):
        return NotReady(address())
    protocol = network.answer.protocol
    if network.model.reduces and not network.model.session.reduces:
        network.model = network.model.reduced(protocol)
    session = network.model.session
    noted = len(session.notes)
    arrays = engine.measure(network.model, file, record, protocol)
    return Measurement(arrays, network.answer.host, tuple(session.notes[noted:]))


def forget(token: str) -> None:
    """Close a network and remove its files; without effect where it is not open."""
    network = _networks.pop(token, None)
    if network is not None:
        network.model.session.close()
    shutil.rmtree(_folder(token), ignore_errors=True)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "about": about,
    "receive": receive,
    "open": open_network,
    "judge_by": judge_by,
    "look": look,
    "measure": measure,
    "forget": forget,
}
