"""Runs as a report needs them: opened, summed up, and named."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from analyzer.store import Run
from analyzer.summary import estimates, kind_of, of_run


class Loaded(NamedTuple):
    """One run: its name among the others, its data set and summary (NaN for undefined), and what is missing, if any."""

    label: str
    run: Run
    dataset: Any
    summary: dict[str, Any]
    missing: str = ""

    @property
    def kind(self) -> str:
        """Of the scores."""
        return kind_of(self.summary)

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each finished image's file by its id."""
        selected = self.run.hashes
        return {image: selected[image] for image in map(str, self.dataset["image"].values) if image in selected}


@contextmanager
def opened(paths: Sequence[Path]) -> Iterator[list[Loaded]]:
    """The runs in `paths`, complete or not, closed when the block ends.

    Raises InputError for a path that is no run, IncompleteError for a run without a finished image or with damaged
    results.
    """
    with ExitStack() as stack:
        loaded = []
        for path in paths:
            run = Run(path)
            document, state = of_run(run), run.state
            document |= {name: estimate._asdict() for name, estimate in estimates(document).items()}
            dataset = stack.enter_context(run.open())
            loaded.append(Loaded("", run, dataset, document, "" if state.lost else state.missing))
        names = _labels([(Path(one.summary["run"]["model"]).stem, one.run.path.absolute().name) for one in loaded])
        yield [one._replace(label=name) for one, name in zip(loaded, names, strict=True)]


def _labels(names: Sequence[tuple[str, str]]) -> list[str]:
    """A name a run: the model's; with the run folder's where two have it, and a number where that is not enough."""
    models = [model for model, _ in names]
    once = [model if models.count(model) == 1 else f"{model} ({folder})" for model, folder in names]
    return [name if once.count(name) == 1 else f"{name} {once[: k + 1].count(name)}" for k, name in enumerate(once)]
