"""What is fuzzed: a target has a strategy for its inputs and a function that feeds one of them to the analyzer.

A finding is anything but a result or an error that the analyzer raises on purpose with its exit code: another
exception, an exit code of 1, more than `SECONDS`, more than `MEMORY`, or a crash, which campaign.py sees from outside.
"""

import contextlib
import io
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

import documents  # noqa: E402
import graphs  # noqa: E402
import networks  # noqa: E402
import photographs  # noqa: E402
import pictures  # noqa: E402
import runs  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import analyzer.cli.commands  # noqa: E402
from analyzer import card as cards  # noqa: E402
from analyzer import graph, images, store, study, summary  # noqa: E402
from analyzer.card import Resize  # noqa: E402
from analyzer.errors import AnalyzerError, InputError  # noqa: E402
from analyzer.graph import child  # noqa: E402
from analyzer.session import Backend, Session  # noqa: E402
from analyzer.store import checksums  # noqa: E402
from analyzer.verdicts import gate  # noqa: E402

SECONDS = 20
MEMORY = 4 * 2**30
MEANT = (AnalyzerError, images.ImageError)
RUN_FILES = ("manifest.json", "calibration.json", "summary.json")


class Hang(BaseException):
    """An input that took more than `SECONDS`."""


class Target(NamedTuple):
    """name; strategy: of inputs; feed: one input, with a folder of its own for files."""

    name: str
    strategy: Callable[[], "st.SearchStrategy[Any]"]
    feed: Callable[[Any, Path], None]


def finding(target: Target, given: Any, folder: Path) -> str:
    """What is wrong with what `target` makes of an input: one line, "" for nothing."""

    def late(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        target.feed(given, folder)
    except MEANT as e:
        code = getattr(e, "exit_code", 4)
        return f"{type(e).__name__} has exit code {code}" if code not in (2, 3, 4, 5) else ""
    except Hang:
        return f"more than {SECONDS} s"
    except Exception as e:
        frames = [f for f in traceback.extract_tb(e.__traceback__) if "/analyzer/" in f.filename] or [None]
        where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames[-1] else ""
        return f"{type(e).__name__}{where}: {str(e).splitlines()[0][:120] if str(e) else ''}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return ""


def card(data: bytes, folder: Path) -> None:
    """A card that can be read is written and read as the same one."""
    path = folder / "net.json"
    path.write_bytes(data)
    read = cards.read(path)
    cards.write(read, path)
    assert cards.read(path) == read


@cache
def measured() -> Path:
    """A small run: its model, its images, and out/, all in one folder that lasts as long as this process."""
    import atexit
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model, _ = graphs.convnet(folder)
    runs.write_images(folder / "images", 2)
    runs.measure(model, folder / "images", folder / "out", trials=3, permutations=19)
    return folder


def run_files() -> "st.SearchStrategy[Any]":
    """(name of a file of a run, its new content, whether results and summary are gone, so that documents are used)."""
    import json

    whole = {name: json.loads((measured() / "out" / name).read_text()) for name in RUN_FILES}
    changed = [st.tuples(st.just(name), documents.mutated(whole[name])) for name in RUN_FILES]
    forged = [st.tuples(st.just(name), documents.mutated(whole[name]).map(resealed)) for name in RUN_FILES]
    binary = ["results.nc", *(f"units/{path.name}" for path in sorted((measured() / "out" / "units").iterdir()))]
    damaged = st.sampled_from(binary).flatmap(
        lambda name: st.tuples(st.just(name), documents.damaged((measured() / "out" / name).read_bytes()))
    )
    return st.tuples(st.one_of(*changed, *forged, damaged), st.booleans()).map(lambda pair: (*pair[0], pair[1]))


def resealed(text: bytes) -> bytes:
    """A document with a checksum that agrees with what it has become, so that what is behind the checksum is read."""
    import json

    try:
        return json.dumps(checksums.sealed(json.loads(text))).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, UnicodeError):
        return text


def run(given: tuple[str, bytes, bool], folder: Path) -> None:
    """A run with one strange file, under everything that reads one."""
    name, data, alone = given
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(measured() / "out", out)
    if alone:
        for file in ("results.nc", "summary.json"):
            (out / file).unlink()
    (out / name).write_bytes(data)

    def read() -> None:
        with store.open_run(out) as dataset:
            dataset.load()

    for use in (
        lambda: summary.of_run(store.Run(out)),
        lambda: summary.verify(out),
        lambda: store.Run(out).state,
        read,
        lambda: gate.examine(out, [gate.parse("max", "lipschitz_q95=1")]),
    ):
        with contextlib.suppress(*MEANT):
            use()
    for command in ("summary", "verify", "claims"):
        _call([command, str(out)])


def table(given: tuple[str, bytes], folder: Path) -> None:
    """A table of labels, ours or GTSRB's, for a folder of three images."""
    here = folder / "photos"
    shutil.rmtree(here, ignore_errors=True)
    pictures.put(here, "a.png", "b/c.png", "A.PNG")
    ours = given[0] == "ours"
    path = folder / "labels.csv" if ours else here / "GT-x.csv"
    path.write_bytes(given[1])
    labels = [None, ("zero", "one", "1", "=1+1", "ä")][len(given[1]) % 2]
    images.find(here, card=pictures.card(labels=labels), labels=path if ours else None)


def tables() -> "st.SearchStrategy[Any]":
    gtsrb = ["Filename", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"]
    return st.one_of(
        st.tuples(st.just("ours"), documents.table(["file", "label"], ",")),
        st.tuples(st.just("gtsrb"), documents.table(gtsrb, ";")),
    )


def arguments(given: list[str], folder: Path) -> None:
    """A command line; what would measure for long stops where it would begin."""
    there = {"RUN": measured() / "out", "MODEL": measured() / "convnet.onnx", "IMAGES": measured() / "images"}
    there["NEW"] = folder / "new"
    shutil.rmtree(folder / "new", ignore_errors=True)

    def stop(*_: object, **__: object) -> None:
        raise InputError("stopped here")

    kept, study.run = study.run, stop  # type: ignore[assignment]
    try:
        with contextlib.chdir(folder):
            _call([str(there.get(word, word)) for word in given])
    finally:
        study.run = kept
    shutil.rmtree(measured() / "out" / "export_csv", ignore_errors=True)


def _call(words: list[str]) -> None:
    """One command in this process, which may not end with 1 or print a traceback."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            analyzer.cli.commands.call(words)
        except AnalyzerError as e:
            assert e.exit_code in (2, 3, 4, 5)
            assert len(str(e).splitlines()) <= 2, str(e)
        except SystemExit as e:
            assert e.code in (0, None), e.code
    assert "Traceback" not in err.getvalue()


def network(data: bytes, folder: Path) -> None:
    """A model file: checked, described, prepared with the card drafted for it, opened and run once."""
    path = folder / "net.onnx"
    path.write_bytes(data)
    try:
        child.inspect(path)
    except Exception:  # `graph.check` runs this in a child process, whose every end is an InputError
        return
    graph.describe(path)
    drafted = cards.parse(graph.draft_card(path))
    for kind in ("logits", "probabilities"):
        with contextlib.suppress(InputError):
            document = cards.to_document(drafted)
            document["output"]["kind"] = kind
            opened = cards.parse(document)
            prepared = graph.prepare(path, card=opened, layers=("all",))
            session = Session(prepared, pixel_shape=opened.pixel_shape, backend=Backend("cpu", 1), batch_size=2)
            session.close()


def photograph(data: bytes, folder: Path) -> None:
    """An image file, brought to a card's size."""
    path = folder / "x.png"
    path.write_bytes(data)
    for channels, resize in (("RGB", Resize("stretch")), ("L", Resize("shorter_side", 8))):
        with contextlib.suppress(images.ImageError):
            read = images.read(
                images.ImageFile("x.png", path, None), card=pictures.card(channels=channels, resize=resize)
            )
            assert 0 <= read.values.min() <= read.values.max() <= 255


def valid_card() -> "st.SearchStrategy[bytes]":
    document: Any = cards.to_document(pictures.card(resize=Resize("shorter_side", 8), labels=("a", "b")))
    document["input"]["name"], document["output"]["name"], document["feature"] = "x", "y", {"name": "z"}
    document["source"] = {"fill_in": ["mean"]}
    return documents.mutated(document)


TARGETS = {
    target.name: target
    for target in (
        Target("card", valid_card, card),
        Target("run", run_files, run),
        Target("table", tables, table),
        Target("arguments", documents.command_line, arguments),
        Target("network", networks.files, network),
        Target("photograph", photographs.files, photograph),
    )
}
