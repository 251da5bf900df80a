"""A run directory: opened by its one writer, filled unit by unit, continued after any kind of stop."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from analyzer.errors import IncompleteError
from analyzer.store import checksums, files, lock, results, schema, units
from analyzer.store import manifest as manifests
from analyzer.store.documents import Calibration, Manifest, Pace, SelectedImage
from analyzer.store.manifest import CALIBRATION, MANIFEST, PACE, RESULTS, SUMMARY, has_results
from analyzer.store.validation import check_calibration

if TYPE_CHECKING:
    import xarray


class Store:
    """The writer of one run; a context manager that gives the run's lock back at its end.

    path is the run directory, manifest what manifest.json holds, resumed whether the run was there before.
    """

    def __init__(self, path: Path, manifest: Manifest, *, resumed: bool, handles: tuple[int, ...]) -> None:
        self.path, self.manifest, self.resumed = path, manifest, resumed
        self._handles = handles

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back; a second time does nothing."""
        lock.release(self._handles)
        self._handles = ()

    def calibration(self) -> Calibration | None:
        """What `write_calibration` wrote; None when absent or damaged."""
        try:
            return manifests.read_calibration(self.path, self.manifest["coordinates"])
        except IncompleteError:
            return None

    def write_calibration(self, document: Mapping[str, Any]) -> None:
        """Write calibration.json.

        Raises ValueError when ranges or selection do not fit (see `manifest.check_calibration`), IncompleteError
        when it cannot be written.
        """
        document = json.loads(files.to_json(document))
        check_calibration(document, self.manifest["coordinates"])
        self._drop_results()
        files.write(self.path / CALIBRATION, text_of(document))

    def has(self, key: str) -> bool:
        """Whether the unit is there and whole; a damaged or empty one counts as absent."""
        return self.read_unit(key) is not None

    def write_unit(self, key: str, arrays: Mapping[str, Any], *, host: str = "") -> None:
        """Write one image's arrays: every variable of the run, without its image axis; see also `schema.LATER`.

        host: what measured it, for `measured_on`.

        After this returns they survive SIGKILL and loss of power; before, nothing of them is there. Results of the
        whole run that were there are removed as stale. Raises ValueError when a variable does not fit the schema,
        IncompleteError when the unit cannot be written.
        """
        held = {variable.name for variable in schema.variables(self.manifest["coordinates"])}
        placed = {**arrays, "measured_on": self._place_of(host)} if host else {"measured_on": -1, **arrays}
        kept = {name: array for name, array in placed.items() if name in held or name not in schema.LATER}
        data = units.pack(key, schema.checked(kept, self.manifest["coordinates"]))
        self._drop_results()
        files.write(units.unit_path(self.path, key), data)

    def _place_of(self, host: str) -> int:
        """Of a host among those in the manifest, which takes up a new one."""
        hosts = self.manifest.get("hosts", [])
        if host not in hosts:
            self.manifest = cast(Manifest, {**self.manifest, "hosts": [*hosts, host]})
            files.write(self.path / MANIFEST, text_of(self.manifest))
        return self.manifest["hosts"].index(host)

    def read_unit(self, key: str) -> dict[str, schema.Array] | None:
        """One image's arrays as `write_unit` took them; None when absent or damaged."""
        return units.read_if_whole(self.path, key, self.manifest["coordinates"])

    def record(self, context: Mapping[str, Any]) -> None:
        """Take over what the run has turned out to run on, and note in its history what that changes.

        Raises IncompleteError when manifest.json cannot be written.
        """
        wanted = {**self.manifest, "context": json.loads(files.to_json(context))}
        went_on = manifests.continued(self.manifest, wanted, self.path, manifests.now())
        self.manifest = cast(Manifest, {**went_on, "context": wanted["context"]})
        files.write(self.path / MANIFEST, text_of(self.manifest))

    def record_pace(self, pace: Pace) -> None:
        """Keep how quickly images were measured, in a file of its own: two runs of one command differ in nothing else.

        Raises IncompleteError when it cannot be written.
        """
        files.write(self.path / PACE, (files.to_json(pace) + "\n").encode())

    def keep(self, selected: Sequence[SelectedImage]) -> None:
        """Take the run to be one of these images, the first that were selected: its limit is their number.

        What was measured of others, ahead of their turn, is removed. Raises IncompleteError when a file cannot be
        written.
        """
        calibration = self.calibration()
        assert calibration is not None  # images were measured
        # Stopped in between, the limits differ, and the selection is made anew from the same candidates.
        self.write_calibration({**calibration, "selected": list(selected), "limit": len(selected)})
        identity = {**self.manifest["identity"], "limit": len(selected)}
        changes = {"limit": [self.manifest["identity"]["limit"], len(selected)]}
        history = [*self.manifest["history"], {"time": manifests.now(), "changes": changes}]
        self.manifest = cast(Manifest, {**self.manifest, "identity": identity, "history": history})
        files.write(self.path / MANIFEST, text_of(self.manifest))
        for record in calibration["selected"][len(selected) :]:
            self._remove(units.unit_path(self.path, record["key"]))

    def finish(self, summarise: Callable[["xarray.Dataset"], Mapping[str, Any]]) -> dict[str, Any]:
        """Write results.nc from the units, a few at a time, and summary.json from what `summarise` makes of it.

        Returns the summary as `read_summary` gives it, with None for NaN. Raises IncompleteError when a selected
        image has no unit, or when a file cannot be written.
        """
        calibration = self.calibration()
        if calibration is None:
            raise IncompleteError(f"{self.path / CALIBRATION}: missing or damaged\nrun the same command again")
        self._drop_results()
        target = self.path / RESULTS
        results.write_results(target, manifest=self.manifest, calibration=calibration, read_unit=self.read_unit)
        with results.open_results(target, derive=False) as dataset:
            summary: dict[str, Any] = files.plain(summarise(dataset))
        try:
            recorded = {checksums.RESULTS: {checksums.CHECKSUM: checksums.of_file(target)}}
        except OSError as e:
            raise IncompleteError(f"{target}: cannot be read: {e.strerror}\nrun the same command again") from e
        files.write(self.path / SUMMARY, text_of({**summary, **recorded}))
        return summary

    def _drop_results(self) -> None:
        # They no longer stand for the units that are about to change. On a complete run they also kept a changed
        # context from being recorded: nothing had been measured with it yet.
        if has_results(self.path):
            files.write(self.path / MANIFEST, text_of(self.manifest))
        for name in (SUMMARY, RESULTS):
            self._remove(self.path / name)

    def _remove(self, file: Path) -> None:
        try:
            file.unlink(missing_ok=True)
        except OSError as e:
            raise IncompleteError(
                f"{file}: cannot be removed: {e.strerror}\nremove it, then run the same command again: it continues"
            ) from e


def text_of(document: Mapping[str, Any]) -> bytes:
    """A document of a run as its file holds it, with its checksum."""
    return (files.to_json(checksums.sealed(files.plain(document)), indent=1) + "\n").encode()
