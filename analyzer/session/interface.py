"""Interfaces: what the study needs of a session, and what a session needs of onnxruntime."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from analyzer.session.backend import Backend
from analyzer.session.feeding import Feed


class Runner(Protocol):
    """Runs images in batches: a `Session`, or whatever stands in for one. Its members are described there."""

    @property
    def provider(self) -> str:
        """The runtime's name of the execution provider."""

    @property
    def backend(self) -> Backend:
        """The provider by its full name, and how it runs the graph."""

    @property
    def settings(self) -> dict[str, Any]:
        """What of the backend decides a number, as JSON."""

    @property
    def device(self) -> str:
        """The device, for people."""

    @property
    def precision(self) -> str:
        """What the graph computes in."""

    @property
    def notes(self) -> list[str]:
        """What the user has to know, in sentences."""

    @property
    def pixel_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""

    @property
    def batch_size(self) -> int:
        """Rows of one forward pass."""

    @property
    def classes(self) -> int:
        """K of the scores."""

    @property
    def feature_sizes(self) -> tuple[int, ...]:
        """Elements of each layer for one image."""

    @property
    def composes(self) -> bool:
        """Whether rows are best given as `Words`."""

    @property
    def reduces(self) -> bool:
        """Whether layers come back as Gram matrices of the batch."""

    @property
    def independent(self) -> bool:
        """Whether each row of a batch is what that image alone gives, so that the batch size is free."""

    def run(self, batch: Feed, /) -> tuple[NDArray[np.floating], list[NDArray[np.float32]]]:
        """Scores (n, K), and one array (n, F) for each layer."""

    def close(self) -> None:
        """Free the runtime's memory."""


class InferenceSession(Protocol):
    """The part of onnxruntime's InferenceSession that is used here."""

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[Any]], /) -> list[NDArray[Any]]:
        """The named outputs, all of them if None."""

    def get_inputs(self) -> Sequence["Node"]:
        """The inputs, each with a name."""

    def get_providers(self) -> list[str]:
        """Full names of the providers in use, the preferred one first."""

    def get_provider_graph_assignment_info(self) -> Sequence["Assignment"]:
        """Which nodes each provider runs; newer releases only, and only where the options ask for it."""


class Assignment(Protocol):
    """A part of the graph that one provider runs."""

    ep_name: str

    def get_nodes(self) -> Sequence["Node"]:
        """The nodes of this part."""


class Node(Protocol):
    """A node of the graph as the runtime sees it."""

    op_type: str
    name: str
