"""One network at one image at a time, in grey levels: values, and Jacobian products where its graph has derivatives."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.analyses.gradients import logodds
from analyzer.errors import AnalyzerError
from analyzer.graph.derivative import Derivatives, GradientsUnavailable, Program
from analyzer.session import providers, runtime
from analyzer.study import Model

Array = NDArray[np.float64]
_ELEMENTS = 2**24  # seeds x largest tensor that one call should stay below


class DifferentiableNetwork:
    """A prepared graph with one layer tapped. Pixels are (C, H, W) grey levels, float64; D = C * H * W.

    shape: (C, H, W). kind: of the scores, see `Prepared`. sizes: (K, F), elements of scores and layer for one image.
    All derivatives are per grey level. `differentiable` says what made them, `unavailable` why there are none.
    passes: forward passes and products so far.
    """

    def __init__(self, model: Model) -> None:
        """model: with one layer tapped, in a session of its own graph."""
        prepared, session = model.prepared, model.session
        self._prepared, self._session = prepared, session
        self._mean = model.preprocessing.mean[:, :, None]
        self._std = model.preprocessing.std[:, :, None]
        self.shape, self.kind = model.shape, prepared.kind
        self.sizes = (session.classes, session.feature_sizes[0])
        self.unavailable, self.differentiable = "", ""
        self.passes = 0
        self._open: dict[str, Any] = {}
        self._per_call = max(1, _ELEMENTS // (prepared.row_bytes // 4 + int(np.prod(self.shape))))
        try:
            self._graphs: Derivatives | None = Derivatives(prepared)
            self.differentiable = self._graphs.version
        except GradientsUnavailable as e:
            self.give_up(str(e))

    def give_up(self, why: str) -> None:
        """Have no derivatives from now on; `why` is kept as the reason."""
        self._graphs, self.unavailable, self.differentiable = None, why, ""

    def forward(self, pixels: Array) -> tuple[Array, Array]:
        """Scores (n, K) and layer (n, F) of n images (n, C, H, W)."""
        self.passes += len(pixels)
        scores, (features,) = self._session.run(self._normalised(pixels))
        return np.asarray(scores, np.float64), np.asarray(features, np.float64)

    def log_odds(self, pixels: Array, label: int) -> Array:
        """Log-odds of `label`, nat, of n images: (n, C, H, W) -> (n,)."""
        return self.log_odds_of(self.forward(pixels)[0], label)

    def log_odds_of(self, scores: Array, label: int) -> Array:
        """Log-odds of `label`, nat, of scores (n, K): (n,)."""
        return logodds.value(scores, label=label, kind=self.kind)

    def predicted(self, pixels: Array) -> NDArray[np.intp]:
        """Class of n images: (n, C, H, W) -> (n,); -1 where a score is not finite."""
        scores = self.forward(pixels)[0]
        return np.where(np.isfinite(scores).all(axis=1), scores.argmax(axis=1), -1)

    def jvp(self, pixels: Array, directions: Array) -> tuple[Array, Array]:
        """J v of scores (n, K) and layer (n, F) for n directions (n, C, H, W)."""
        parts = [self._jvp(pixels, rows) for rows in self._cut(directions)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def vjp(self, pixels: Array, *, scores: Array | None = None, features: Array | None = None) -> Array:
        """J^T u for n cotangents of the scores (n, K), or of the layer (n, F): (n, C, H, W)."""
        given = scores if scores is not None else features
        assert given is not None
        place = 0 if scores is not None else 1
        return np.concatenate([self._vjp(pixels, rows, place) for rows in self._cut(given)])

    def gradient(self, pixels: Array, label: int) -> Array:
        """Gradient of the log-odds of `label`, nat per grey level: (C, H, W)."""
        scores = self.forward(pixels[None])[0][0]
        weights = logodds.weights(scores, label=label, kind=self.kind)
        return np.asarray(self.vjp(pixels, scores=weights[None])[0])

    def margins(self, pixels: Array, label: int) -> Array:
        """log p_k - log p_label of each class at one image: (K,)."""
        return logodds.margins(self.forward(pixels[None])[0][0], label=label, kind=self.kind)

    def margin_gradients(self, pixels: Array, label: int, classes: NDArray[np.intp]) -> Array:
        """Gradients of the margins of `classes` (n,): (n, C, H, W)."""
        scores = self.forward(pixels[None])[0][0]
        return self.vjp(pixels, scores=logodds.margin_weights(scores, classes, label=label, kind=self.kind))

    def hessian_products(self, pixels: Array, label: int, directions: Array) -> Array:
        """H v of the log-odds of `label` for n directions (n, C, H, W), by the graph: forward over reverse.

        Of a piecewise network (ReLU, max pooling), the curvature of the image's own piece: its kinks do not count.
        """
        scores = self.forward(pixels[None])[0][0]
        weights = logodds.weights(scores, label=label, kind=self.kind)
        products = []
        for direction in directions:  # the graph is several times as large as the network: one at a time
            change = self.jvp(pixels, direction[None])[0][0]
            changed = logodds.weights_change(scores, change, label=label, kind=self.kind)
            products.append(self._second(pixels, weights, direction, changed))
        return np.stack(products)

    def _normalised(self, pixels: Array) -> NDArray[np.float32]:
        return np.asarray((pixels - self._mean) / self._std, np.float32)

    def _cut(self, rows: Array) -> list[Array]:
        return [rows[k : k + self._per_call] for k in range(0, len(rows), self._per_call)]

    def _jvp(self, pixels: Array, directions: Array) -> tuple[Array, Array]:
        seeds = _seeds_last(np.asarray(directions / self._std, np.float32))
        scores, features = self._call("forward", pixels, [seeds])
        return _seeds_first(scores), _seeds_first(features)

    def _vjp(self, pixels: Array, cotangents: Array, place: int) -> Array:
        seeds = [self._zeros(k, len(cotangents)) for k in range(2)]
        seeds[place] = np.ascontiguousarray(cotangents.T).reshape(seeds[place].shape).astype(seeds[place].dtype)
        (result,) = self._call("reverse", pixels, seeds)
        return np.asarray(_seeds_first(result).reshape(-1, *self.shape) / self._std)

    def _second(self, pixels: Array, weights: Array, direction: Array, changed: Array) -> Array:
        cotangent, change = self._zeros(0, 1), self._zeros(0, 1, 1)
        cotangent[...] = weights.reshape(cotangent.shape)
        change[...] = changed.reshape(change.shape)
        along = np.asarray(direction / self._std, np.float32)[None, ..., None]
        seeds = [cotangent, self._zeros(1, 1), along, change, self._zeros(1, 1, 1)]
        (result,) = self._call("second", pixels, seeds)
        return np.asarray(np.reshape(result, self.shape) / self._std, np.float64)

    def _zeros(self, place: int, *seeds: int) -> NDArray[Any]:
        assert self._graphs is not None
        return np.zeros((*self._graphs.shapes[place], *seeds), self._graphs.types[place])

    def _call(self, mode: str, pixels: Array, seeds: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        if self._graphs is None:
            raise GradientsUnavailable(self.unavailable)
        self.passes += seeds[0].shape[-1]
        program: Program = getattr(self._graphs, mode)
        feeds = dict(zip(program.seeds, seeds, strict=True)) | {program.graph.input: self._normalised(pixels[None])}
        return self._attempt(mode, lambda: self._session_of(mode, program).run(list(program.graph.outputs), feeds))

    def _session_of(self, mode: str, program: Program) -> Any:
        if mode not in self._open:
            self._open[mode] = providers.open_session(program.graph, self._session.backend)
        return self._open[mode]

    def _attempt(self, mode: str, action: Callable[[], list[NDArray[Any]]]) -> list[NDArray[Any]]:
        try:
            return action()
        except AnalyzerError:
            raise
        except Exception as e:  # the runtime's exceptions have no common base
            raise GradientsUnavailable(
                f"{self._prepared.source}: gradients unavailable: onnxruntime cannot run its {mode} derivative graph: "
                f"{runtime.brief(e)}"
            ) from e


def _seeds_last(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, ...) -> (1, ..., n)."""
    return np.ascontiguousarray(np.moveaxis(rows, 0, -1)[None])


def _seeds_first(values: NDArray[Any]) -> Array:
    """(1, ..., n) -> (n, elements)."""
    count = values.shape[-1]
    return np.ascontiguousarray(values.reshape(-1, count).T, np.float64)
