"""What a person sees: text made safe, tables, a progress bar or a line now and then."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from analyzer.store.files import to_json
from analyzer.text import safe as safe

if TYPE_CHECKING:
    from collections.abc import Callable

    from analyzer.doctor import Examination
    from analyzer.store import State
    from analyzer.study import Progress

LINE_EVERY = 30.0
_SIZE = 16  # letters of a dimension


def console(*, stderr: bool = False) -> Console:
    """A console for text that is already safe: no markup, no emoji codes, no guessing at highlights."""
    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = 100  # in a file or a pipe there is no width to ask for
    return made


def say(text: object, *, style: str | None = None) -> None:
    """One safe paragraph on stdout: wrapped on a terminal, one line for whatever else reads it."""
    target = console()
    target.print(Text(safe(text), style=style or ""), soft_wrap=not target.is_terminal)


def say_partial(state: "State") -> None:
    """How many images of a run are finished, where that is not all."""
    if not state.written:
        say(f"partial: {state.finished} of {state.selected} images", style="bold yellow")


def print_json(document: Any) -> None:
    """JSON on stdout; NaN and infinities become null."""
    sys.stdout.write(to_json(document, indent=1) + "\n")


def print_description(name: str, description: dict[str, Any]) -> None:
    """What `graph.describe` found, for `analyzer inspect`."""
    say(name, style="bold")
    say(f"opset {description['opset']}, {description['parameters']:,} parameters, by {description['producer'] or '?'}")
    for tensor, kind, shape in description["inputs"]:
        say(f"input {tensor}: {kind} {_shape(shape)}")
    for (tensor, kind, shape), look in zip(description["outputs"], description["seems"], strict=True):
        say(f"output {tensor}: {kind} {_shape(shape)}; {look}")
    table = Table(title=Text("Candidate feature layers, likeliest first"), title_justify="left")
    for heading in ("tensor", "made by", "shape"):
        table.add_column(heading)
    for tensor, shape, operator in description["features"]:
        table.add_row(*(Text(safe(v)) for v in (tensor, operator, _shape(shape))))
    console().print(table)
    for note in description["notes"]:
        say(f"! {note}", style="yellow")


def print_doctor(report: "Examination") -> None:
    """What `doctor.examine` found."""
    say(", ".join(f"{name} {version}" for name, version in report["versions"].items()))
    for wheel in report["runtimes"]:
        cuda = f", built for CUDA {wheel['cuda']}" if wheel["cuda"] else ""
        say(f"{'✗' if wheel['note'] else '✓'} {wheel['package']} {wheel['version']}{cuda}{_after(wheel['note'])}")
    if len(report["runtimes"]) > 1:
        names = " ".join(wheel["package"] for wheel in report["runtimes"])
        say(f"  These bring one module and break each other: `pip uninstall {names}`, then install one extra again.")
    for provider in report["providers"]:
        works = "works" if provider["works"] else f"not usable: {provider['reason']}"
        mark = "✓" if provider["works"] else "✗" if provider["compiled"] else "-"
        say(f"{mark} {provider['name']}: {works}")
    for check in report["checks"]:
        say(f"{'✓' if check['passed'] else '✗'} {check['name']}: {check['detail']}")


def _after(note: str) -> str:
    return f": {note}" if note else ""


def _shape(shape: Any) -> str:
    if shape is None:
        return "?"
    # A size that is computed from others is named by a whole formula.
    return " x ".join("?" if n is None or len(str(n)) > _SIZE else str(n) for n in shape) or "scalar"


@contextmanager
def progress_shown() -> Iterator[Any]:
    """A callback for `study.run`: a bar on a terminal's stderr, elsewhere a line every 30 s."""
    target = console(stderr=True)
    if not target.is_terminal:
        yield _Lines(target)
        return
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[images]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        console=target,
        transient=True,
        speed_estimate_period=300,  # seconds: two steps of a slow network have to fit in
    )
    with bar:
        yield _Bar(bar)


def counting(shown: "Callable[[Progress], None]", stage: str) -> "Callable[[int, int], None]":
    """A callback (done, total) for work that is counted in passes alone."""
    from analyzer.study import Progress

    return lambda done, total: shown(Progress(stage, done, total, done, total))


class _Rate:
    """Forward passes per second since a stage began."""

    def __init__(self) -> None:
        self.stage, self.start, self.first = "", time.monotonic(), 0

    def __call__(self, progress: "Progress") -> float:
        if progress.stage != self.stage:
            self.stage, self.start, self.first = progress.stage, time.monotonic(), progress.passes
        return (progress.passes - self.first) / max(time.monotonic() - self.start, 1e-9)


class _Bar:
    def __init__(self, bar: Bar) -> None:
        self.bar, self.rate = bar, _Rate()
        self.stage, self.task = "", bar.add_task("", visible=False, images="", rate="")

    def __call__(self, progress: "Progress") -> None:
        if progress.stage != self.stage:
            self.bar.remove_task(self.task)
            self.stage, self.task = progress.stage, self.bar.add_task(progress.stage, images="", rate="")
        passes = progress.expected > 0
        self.bar.update(
            self.task,
            completed=progress.passes if passes else progress.done,
            total=progress.expected if passes else progress.total,
            images=f"{progress.done} of {progress.total} images",
            rate=f"{self.rate(progress):,.0f} passes/s{_workers(progress)}",
        )


class _Lines:
    def __init__(self, target: Console) -> None:
        self.target, self.rate, self.last = target, _Rate(), time.monotonic()

    def __call__(self, progress: "Progress") -> None:
        rate = self.rate(progress)
        if time.monotonic() - self.last < LINE_EVERY:
            return
        self.last = time.monotonic()
        of = f" of {progress.expected:,}" if progress.expected else ""
        left = max(progress.expected - progress.passes, 0) / rate if rate > 0 else 0.0
        eta = ("less than a minute" if left < 60 else f"about {left / 60:.0f} min") if left else ""
        self.target.print(
            f"{progress.stage}: {progress.done} of {progress.total} images, {progress.passes:,}{of} passes, "
            f"{rate:.3g}/s{_workers(progress)}" + (f", {eta} left" if eta else "")
        )


def _workers(progress: "Progress") -> str:
    """How many workers measure, where these are not this process."""
    return f", {progress.workers} worker{'s' * (progress.workers != 1)}" if progress.workers else ""
