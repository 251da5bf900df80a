"""A prepared graph on one device, in batches of one shape."""

import dataclasses
import gc
import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import AnalyzerError, InputError, UsageError
from analyzer.graph import Prepared, composed
from analyzer.session import batching, feeding, guarded, placement, providers, proving, runtime
from analyzer.session.backend import Backend
from analyzer.session.feeding import Feed, Words
from analyzer.session.interface import InferenceSession

_ACTIVATIONS = 2**30  # bytes that one batch's activations should stay within
_HOPELESS = 4  # failures in a row, with the smallest batch and a fresh session


class Session:
    """Runs a `Prepared` graph. However many rows the caller gives, the runtime always gets `batch_size` of them.

    backend: with the full name of the provider in use. settings: what of it decides a number. device: its name for
    people. precision: element type of the scores. classes: K of the scores. feature_sizes: elements of each layer for
    one image. composes: whether rows are best given as `Words`: the device then computes them while the host makes the
    next ones. reduces: whether layers come back as Gram matrices (see `graph.reduced`); the batch size is then fixed.
    notes: sentences for the user.
    """

    backend: Backend
    settings: dict[str, Any]
    device: str
    precision: str
    batch_size: int
    classes: int
    feature_sizes: tuple[int, ...]
    composes: bool
    reduces: bool
    notes: list[str]

    def __init__(
        self,
        prepared: Prepared,
        *,
        pixel_shape: tuple[int, int, int],
        backend: Backend | None = None,
        batch_size: int | None = None,
        composes: bool | None = None,
        examples: NDArray[np.float32] | None = None,
    ) -> None:
        """Open the graph for images of canonical `pixel_shape` (C, H, W) and prove provider and batch behaviour.

        backend: where; by default the best that works. Without `batch_size` it is 16; `choose_batch_size` measures a
        better one. `composes`: whether perturbed rows are computed in the graph; None means on CUDA only. `examples`:
        normalised real images, (n, C, H, W), to be tried beside random ones. Raises UsageError where the named provider
        is not really used, InputError where the runtime cannot load or run the model.
        """
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch size {batch_size}: must be at least 1")
        self._given, self.pixel_shape, self.backend = prepared, pixel_shape, backend or Backend()
        self._composes = composes
        self._examples = np.zeros((0, *pixel_shape), np.float32) if examples is None else examples
        self._lean, self._failures = False, 0
        self.notes = []
        self.precision = prepared.precision
        if prepared.unbounded and not prepared.reduced:  # it passed before it was reduced
            guarded.attempt(prepared, pixel_shape)
        self._choose_provider()
        self.settings = providers.settings(self.backend, prepared)
        self.device = providers.device_name(self.provider)
        # Gram matrices relate the rows of a batch to each other, so the batch cannot be cut.
        self.reduces = prepared.reduced
        self._fixed: int | None = batch_size if prepared.reduced else None
        sizes = self._sizes_of(batch_size or 1) if prepared.reduced else self._sizes_of_independent_rows()
        if sizes is None:
            self._fixed = prepared.declared_batch or 1
            self.notes.append(f"Rows of a batch do not match single images; running {self._fixed} at a time.")
            sizes = self._sizes_of(self._fixed)
        if self._fixed is not None and batch_size not in (None, self._fixed):
            self.notes.append(f"Batch size {batch_size} asked for; the model allows {self._fixed} only.")
        self.batch_size = self._fixed or batch_size or max(1, min(batching.DEFAULT, self._limit()))
        self.classes, self.feature_sizes = sizes[0], sizes[1:]

    @property
    def provider(self) -> str:
        """Full name of the provider in use."""
        return self.backend.provider

    @property
    def independent(self) -> bool:
        """Whether the batch size is free: each row of a batch is what that image alone gives."""
        return self._fixed is None

    def run(self, batch: Feed) -> tuple[NDArray[np.floating], list[NDArray[np.float32]]]:
        """Scores (n, K) and one (n, F) float32 array for each layer, of normalised images (n, C, H, W) float32.

        Where the session `composes`, `Words` serve as well. Any n works; it is cut and padded to `batch_size`. Where
        memory runs out, `batch_size` is halved for good and noted. Raises UsageError where one image is too many,
        InputError where the runtime fails on the model.
        """
        values, count = (batch.base if isinstance(batch, Words) else batch), feeding.rows_of(batch)
        if values.ndim != 4 or count == 0 or values.shape[1:] != self.pixel_shape or values.dtype != np.float32:
            raise ValueError(f"expected float32 (n, {self.pixel_shape}), got {values.dtype} {values.shape}")
        parts: list[list[NDArray[Any]]] = []
        done = 0
        while done < count:
            size = self.batch_size
            try:
                outputs = self.forward(feeding.cut(batch, done, size))
            except MemoryError as e:
                self._back_off(e)
                continue
            self._failures = 0
            parts.append([output[: count - done] for output in outputs])
            done += size
        columns = parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]
        return columns[0], [column.reshape(count, -1) for column in columns[1:]]

    def run_alone(self) -> None:
        """From now on, one image at a time."""
        self.batch_size = self._fixed = 1
        self.notes.append("Rows of a batch do not match single images; running 1 at a time.")

    def choose_batch_size(self, rows: int | None = None) -> int:
        """Measure growing batch sizes, and keep the best for `rows` rows at a time (see `batching.best_size`)."""
        if self._fixed is not None:
            return self._fixed
        row = self._random_rows(1)
        exhausted = False

        def seconds(size: int) -> float:
            nonlocal exhausted
            batch = feeding.copies(row, size) if self.composes else batching.fit(row, size)
            began = time.perf_counter()
            try:
                self.forward(batch)
            except MemoryError:
                exhausted = True
                raise
            return time.perf_counter() - began

        self.batch_size = batching.best_size(batching.measure(seconds, self._limit()), rows)
        if exhausted:
            self._reopen()
        return self.batch_size

    def _choose_provider(self) -> None:
        asked, name = self.backend, proving.choose(self.backend.provider)
        if name == placement.CPU and asked.options:
            raise UsageError("provider 'cpu': takes no `provider_option`")
        self.backend = dataclasses.replace(asked, provider=name)
        try:
            self._open()
        except UsageError as e:
            if asked.provider != "auto" or name == placement.CPU:
                raise
            self.backend = dataclasses.replace(asked, provider=placement.CPU)
            self._open()
            self.notes.append(f"The CPU is used: {e}")

    def _open(self) -> None:
        name = self.provider
        # Whole numbers and float16 are rounded on the host.
        self.composes = (name == providers.CUDA if self._composes is None else self._composes) and (
            self._given.input_type == "float32"
        )
        self._prepared = composed(self._given) if self.composes else self._given
        try:
            self._session = providers.open_session(self._prepared, self.backend, lean=self._lean)
        except AnalyzerError:
            raise
        except Exception as e:  # the runtime's exceptions have no common base
            works, reason = proving.proof(name)
            if not works:
                raise UsageError(f"provider {providers.short(name)!r}: does not work here: {reason}") from e
            works, reason = proving.proof(name, tuple(self.backend.options.items()))
            if not works:
                raise UsageError(
                    f"provider {providers.short(name)!r}: does not work with the `provider_option` given: {reason}"
                ) from e
            raise runtime.load_error(e, self._prepared.source, on_cpu=name == placement.CPU) from e
        notes = proving.of_work(self._session, self._prepared, self.backend)
        self.notes += [note for note in notes if note not in self.notes]

    def forward(self, batch: Feed) -> list[NDArray[Any]]:
        """One pass of exactly these rows: scores, then layers, of whatever shape.

        Raises MemoryError where memory ran out, InputError for anything else.
        """
        try:
            return call(self._session, self._prepared, batch)
        except Exception as e:  # the runtime's exceptions have no common base
            if runtime.is_out_of_memory(e):
                raise MemoryError(runtime.brief(e)) from e
            raise InputError(
                f"{self._prepared.source}: onnxruntime failed on {feeding.rows_of(batch)} images of shape "
                f"{self.pixel_shape}: {runtime.brief(e)}"
            ) from e

    def _back_off(self, error: MemoryError) -> None:
        self._failures += 1
        if self._failures >= _HOPELESS and (self.batch_size == 1 or self._fixed is not None):
            raise self._too_little_memory(self.batch_size, error) from error
        if self._fixed is None and self.batch_size > 1:
            self.batch_size //= 2
            self.notes.append(f"Out of memory: batch size halved to {self.batch_size}.")
        if self._failures > 1:  # a smaller batch alone did not help: the allocator is left broken
            self._reopen()

    def _reopen(self) -> None:
        self._lean = True
        del self._session
        gc.collect()
        self._open()

    def _sizes_of_independent_rows(self) -> tuple[int, ...] | None:
        """What `_sizes_of` returns, or None where two images together do not give what each gives alone."""
        random = self._random_rows(2)
        pairs = [random]
        if len(self._examples):  # what only real pixels set off
            pairs.append(np.concatenate([self._examples, random])[:2])
        try:
            for rows in pairs:
                together = self.forward(rows)
                alone = [self.forward(row[None]) for row in rows]
                if not batching.rows_agree(together, alone):
                    return None
        except (InputError, MemoryError):
            return None
        return self._sizes_of(1)

    def _sizes_of(self, batch: int) -> tuple[int, ...]:
        """Elements that scores and layers have for one image. Raises InputError where they are no rows of a batch."""
        try:
            outputs = self.forward(self._random_rows(batch))
        except MemoryError as e:
            raise self._too_little_memory(batch, e) from e
        shapes = [output.shape for output in outputs]
        for name, shape in zip(("scores", *self._prepared.layers), shapes, strict=True):
            if not shape or shape[0] != batch:
                raise InputError(
                    f"{self._prepared.source}: {name} of {batch} image(s) has shape {list(shape)}; its first dimension "
                    "must be the batch"
                )
        if shapes[0][1] < 2:
            raise InputError(
                f"{self._prepared.source}: one score for an image; scores of two classes or more are needed"
            )
        return tuple(math.prod(shape[1:]) for shape in shapes)

    def close(self) -> None:
        """Free the runtime's memory; the session cannot run any more."""
        del self._session
        gc.collect()

    def _too_little_memory(self, batch: int, error: MemoryError) -> UsageError:
        if self.reduces:
            return UsageError(
                f"{self._prepared.source}: too little memory on {self.device} for {batch} images at once, which that "
                f"many layers ask for: {error}; use fewer `trials` or `layers`"
            )
        return UsageError(
            f"{self._prepared.source}: too little memory on {self.device} for {batch} image(s): {error}; "
            + runtime.more_memory(on_cpu=self.provider == placement.CPU)
        )

    def _random_rows(self, count: int) -> NDArray[np.float32]:
        generator = np.random.default_rng(0)
        shape = (count, *self.pixel_shape)
        if self._given.input_type == "uint8":
            return generator.integers(0, 256, shape).astype(np.float32)
        return generator.standard_normal(shape, dtype=np.float32)

    def rows_to_try(self, count: int) -> NDArray[np.float32]:
        """Up to `count` of the examples, (n, C, H, W); random rows where there are none."""
        return self._examples[:count] if len(self._examples) else self._random_rows(min(count, 2))

    def _limit(self) -> int:
        return max(1, _ACTIVATIONS // max(1, self._prepared.row_bytes))


def call(session: InferenceSession, prepared: Prepared, batch: Feed) -> list[NDArray[Any]]:
    """The one call into the runtime; its exceptions pass through."""
    return session.run(list(prepared.outputs), feeding.tensors(batch, prepared))
