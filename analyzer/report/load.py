"""Runs as a report needs them: opened, summed up, and named."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from analyzer import store
from analyzer.compare.runs import state
from analyzer.errors import IncompleteError
from analyzer.summary import estimates, summarise


class Loaded(NamedTuple):
    """One run: its name among the others, its data set and summary (NaN for undefined), and what is missing, if any."""

    label: str
    path: Path
    dataset: Any
    summary: dict[str, Any]
    missing: str = ""

    @property
    def manifest(self) -> dict[str, Any]:
        """What manifest.json held when the results were written."""
        document: dict[str, Any] = json.loads(self.dataset.attrs["manifest"])
        return document

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each finished image's file by its id."""
        selected = {image.id: image.sha256 for image in store.selection(json.loads(self.dataset.attrs["calibration"]))}
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
            found = state(path)
            if not found.written and not found.finished:
                raise IncompleteError(f"{path}: no image is finished yet; run the same command again to continue")
            dataset = stack.enter_context(store.reading(path))
            if found.written:
                document = store.read_summary(path)
                document |= {name: estimate._asdict() for name, estimate in estimates(document).items()}
                if found.lost:
                    document["warnings"].append(f"{found.lost}.")
            else:
                document = summarise(dataset)
            loaded.append(Loaded("", path, dataset, document, "" if found.lost else found.missing))
        names = _labels([(Path(run.summary["run"]["model"]).stem, run.path.absolute().name) for run in loaded])
        yield [run._replace(label=name) for run, name in zip(loaded, names, strict=True)]


def _labels(names: Sequence[tuple[str, str]]) -> list[str]:
    """A name a run: the model's; with the run folder's where two have it, and a number where that is not enough."""
    models = [model for model, _ in names]
    once = [model if models.count(model) == 1 else f"{model} ({folder})" for model, folder in names]
    return [name if once.count(name) == 1 else f"{name} {once[: k + 1].count(name)}" for k, name in enumerate(once)]
