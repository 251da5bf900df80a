"""The JSON documents of a run, by their keys."""

from typing import Any, NotRequired, TypedDict


class Coordinates(TypedDict):
    """The axes of a run's results, and the names of the variables it holds, where these are not all."""

    radius: list[float]
    trial: int
    layer: list[str]
    variables: NotRequired[list[str]]


class Settings(TypedDict):
    """How a provider ran the graph: optimisation level, its own options, the CPU's instructions for integers."""

    optimizations: str
    options: dict[str, str]
    instructions: NotRequired[list[str]]


class Identity(TypedDict):
    """What decides a number. `model`, `card` and `labels` are SHA-256; the rest is the protocol.

    backend: earlier versions kept none. quantised_layers: those that are taken as their quantisation leaves them, where
    there are any. shard: I/N, of a run that is a part of another.
    """

    model: str
    card: str
    labels: str | None
    radii: list[float]
    trials: int
    limit: int | None
    min_confidence: float
    norm: str
    clip: bool
    round: bool
    seed: int
    measures: list[str]
    layers: list[str]
    permutations: int
    backend: NotRequired[Settings]
    quantised_layers: NotRequired[list[str]]
    shard: NotRequired[str]


class Fidelity(TypedDict):
    """The file as it is, run by itself, against what is measured, on a few real images.

    largest: the largest difference of a class's log-probability, of a sigmoid's log-odds, nat; null where the file's
    output resolves none. differs: whether any is more than rounding. noise_floor: range of such a number under changes
    of the last bits, nat. other_class: images of another class. separate: whether scores and layers come from graphs of
    their own; dropped: layers that changed the scores even so. why_not: why the file was not run, "" where it was.
    """

    images: int
    largest: float | None
    differs: bool
    noise_floor: float | None
    other_class: int
    separate: bool
    dropped: list[str]
    why_not: str


class Place(TypedDict):
    """A row of a batch: its size, the place in it, and which of the images tried."""

    size: int
    position: int
    image: int


class Batches(TypedDict):
    """Rows of batches against single images, at `places` places of batches of `sizes`, half in a fresh session.

    faults: places where they differ; largest: by which part of an output's largest value, 1e300 where one of them is
    not finite; first: the first such place. stopped: why it ended early.
    """

    images: int
    sizes: list[int]
    places: int
    faults: int
    largest: float | None
    first: Place | None
    stopped: NotRequired[str]


class Checks(TypedDict):
    """What was checked before anything was measured."""

    fidelity: Fidelity
    batches: Batches


class Reached(TypedDict):
    """A number of which enough was to be known: half the width allowed, of the value where `relative`; its interval.

    The interval may be looked at after every image; null where there is none.
    """

    name: str
    bound: float
    relative: bool
    reached: bool
    low: float | None
    high: float | None


class Pace(TypedDict):
    """pace.json: forward passes of the images that were measured last, and their seconds."""

    passes: int
    seconds: float


class Context(TypedDict):
    """What a run ran on: names and paths as given, device, versions.

    feature: the layer before the classification. feature_sizes: numbers of each layer. checks: whether what was
    measured is what is deployed. kind: what the scores are, see `graph.scores`; of an embedding `classes` is how many
    numbers it has. Earlier versions kept none of the last three. until: of a run that was to stop early.
    """

    model: str
    images: str
    card: str
    provider: str
    device: str
    precision: str
    batch_size: int
    feature: str | None
    feature_sizes: NotRequired[dict[str, int]]
    threads: int | None
    classes: int
    kind: NotRequired[str]
    pixel_shape: list[int]
    notes: list[str]
    versions: dict[str, str]
    platform: str
    checks: NotRequired[Checks]
    until: NotRequired[Reached]


class Change(TypedDict):
    """An entry of the history: when, and {dotted key: [old value, new value]}."""

    time: str
    changes: dict[str, list[object]]


class Manifest(TypedDict):
    """manifest.json. hosts: what images were measured on, see `measured_on`. Earlier versions kept none."""

    schema: int
    identity: Identity
    context: Context
    coordinates: Coordinates
    history: list[Change]
    created: str
    hosts: NotRequired[list[str]]


class Candidate(TypedDict):
    """An image that the selection pass looked at; `outcome` says which of the other keys it has.

    confidence, log_odds: of the label, on the clean image; null where not finite. Earlier versions kept no log-odds.
    """

    id: str
    outcome: str
    sha256: NotRequired[str]
    label: NotRequired[int | None]
    predicted: NotRequired[int]
    confidence: NotRequired[float | None]
    log_odds: NotRequired[float | None]
    notes: NotRequired[list[str]]
    reason: NotRequired[str]


class SelectedImage(TypedDict):
    """An image that a run measures. `key`: the name of its unit."""

    id: str
    sha256: str
    label: int
    key: str


class InputGrid(TypedDict):
    """The steps in which a network quantises its input, grey levels. reach: what changes a step of some pixel."""

    step: float
    reach: float | None


class ClassMeans(TypedDict):
    """sums: of the unit embeddings of each class, null for one without any. images: the first so many are in them."""

    images: int
    sums: list[list[float] | None]


class Calibration(TypedDict):
    """calibration.json. Ranges are null where nothing finite was seen, 0 where nothing varied.

    notes: what lies in the folder of images and is not among them. input_grid: of a network that quantises its input,
    over the images that count. scores_in_unit_range: whether all scores that the card calls logits lie in 0..1.
    class_means: of a labelled embedding. Each is there only where it says
    something.
    """

    input_range: float | None
    feature_range: dict[str, float | None]
    minimum: dict[str, float]
    maximum: dict[str, float]
    calibration_images: int
    found: int
    unlabelled: int
    counts: dict[str, int]
    candidates: list[Candidate]
    limit: int
    selected: list[SelectedImage]
    notes: NotRequired[list[str]]
    input_grid: NotRequired[InputGrid]
    scores_in_unit_range: NotRequired[bool]
    class_means: NotRequired[ClassMeans]


class BadImage(TypedDict):
    """An image that could not be read."""

    id: str
    reason: str


class ImageCounts(TypedDict):
    """How many images were found, read, left out and why, measured. failed: on every worker, where any did."""

    asked: int | None
    found: int
    read: int
    bad: int
    bad_images: list[BadImage]
    wrong: int
    below_confidence: int
    non_finite: int
    duplicate: int
    eligible: int
    selected: int
    finished: int
    measured: int
    unreadable: int
    failed: NotRequired[int]
    unlabelled: int
    calibration: int


class About(TypedDict):
    """What a summary is of: its key "run"."""

    model: str
    images: ImageCounts
    protocol: dict[str, Any]
    context: Context


class Summary(TypedDict):
    """What summary.json has beside the numbers, each of which is an `Entry` under its own name."""

    schema: int
    run: About
    sentences: list[str]
    warnings: list[str]


class Entry(TypedDict):
    """A number of summary.json: a statistic over n images with its 95 % interval; null where undefined."""

    value: float | None
    low: float | None
    high: float | None
    n: int
