# /// script
# requires-python = ">=3.11"
# dependencies = ["convnet-analyzer[cpu]", "torch>=2.6", "torchvision>=0.21"]
# ///
"""How close a study comes to the bare forward pass, and how far the literal script is from it.

    python exporters/torchvision_models.py alexnet --weights none
    python exporters/torchvision_models.py resnet50 --weights none
    python benchmarks/speed.py exported/torchvision_alexnet.onnx exported/torchvision_resnet50.onnx

measures models/gtsrb_ciresan2012.onnx and the given models, each in alternation, and prints one table:

    bare      the session on a ready batch, with the taps, for as many rows as the study needs
    study     everything: perturbing, forward, distances, Mantel with 999 permutations, storing the unit
    literal   the paper's four measurements one after the other, one perturbation at a time, with onnxruntime
    pytorch   the same with PyTorch, where torch and the network's own module are at hand

Seconds are per image and radius (2 families x 100 trials and 20 halves in the study, 4 x 100 in the scripts), medians
over repeats; images/s is for the protocol's 21 radii; ratios are medians over repeats of the ratio within each.
"""

import argparse
import dataclasses
import functools
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from analyzer import card as cards
from analyzer import images, sketch, study
from analyzer.measures import REGISTRY, geometry
from analyzer.session import Backend
from analyzer.store import files, units
from analyzer.study import LabelledImage, Model, answers, observe, rows

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "exporters")]
RADII, TRIALS = 21, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--radii", type=int, default=5, help="radii measured of each image in the study")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-scripts", action="store_true", help="only bare and study")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--provider", default="cpu")
    given = parser.parse_args()
    table = []
    for model in [HERE.parent / "models" / "gtsrb_ciresan2012.onnx", *given.models]:
        table += measured(model, given)
    widths = [max(len(row[k]) for row in [*table, HEADING]) for k in range(len(HEADING))]
    for row in [HEADING, tuple("-" * w for w in widths), *table]:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |")


HEADING = ("network", "what", "s / image and radius", "images/s", "ratio to bare", "where the time goes")


def measured(model: Path, given: argparse.Namespace) -> list[tuple[str, ...]]:
    """The table's rows for one model."""
    card = cards.read(cards.beside(model))
    protocol = study.Protocol(radii=tuple(float(r) for r in range(1, given.radii + 1)), min_confidence=0.0)
    network = study.open_model(model, card=card, protocol=protocol, backend=Backend(given.provider, given.threads))
    stages = Stages()
    with tempfile.TemporaryDirectory() as folder:
        picture = synthetic(card)
        contenders: dict[str, Callable[[], float]] = {
            "bare": lambda: bare(network, given.radii),
            "study": lambda: whole(network, picture, protocol, Path(folder), stages),
        }
        if not given.no_scripts:
            from literal_script import four_measurements, onnx_network, torch_network

            scripts = {"literal": onnx_network(model, card), "pytorch": torch_network(model.stem)}
            for name, script in scripts.items():
                for size, suffix in ((1, ""), (50, ", batches of 50")):
                    if script is not None:
                        contenders[name + suffix] = functools.partial(four_measurements, script, picture, size)
        for contender in ("bare", "study"):
            contenders[contender]()  # tunes and allocates
        stages.clear()
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(given.repeats):
            for name, contender in contenders.items():
                times[name].append(contender())
    print(model.stem, f"batch {network.session.batch_size}", dict(times), file=sys.stderr, flush=True)
    return [
        (
            model.stem,
            name,
            f"{statistics.median(seconds):.4f}",
            f"{1 / (statistics.median(seconds) * RADII):.4f}",
            f"{ratio_to_bare(seconds, times['bare']):.3f}",
            stages.text() if name == "study" else "",
        )
        for name, seconds in times.items()
    ]


def ratio_to_bare(seconds: list[float], bare: list[float]) -> float:
    """Median over the repeats of the ratio within each: what slows the machine for a while slows both."""
    return statistics.median(one / other for one, other in zip(seconds, bare, strict=True))


def synthetic(card: cards.Card) -> images.Pixels:
    """Pixels of a made-up image of the network's size."""
    values = np.random.default_rng(0).uniform(0, 255, card.pixel_shape).astype(np.float32)
    return images.Pixels(values, "0" * 64, ())


def bare(network: Model, radii: int) -> float:
    """Forward passes only, for the rows of `radii` radii, halves included."""
    session = network.session
    batch = ready_batch(network)
    rows = 2 * TRIALS + study.Protocol().halved
    count = max(1, round(rows * radii / session.batch_size))
    start = time.perf_counter()
    for _ in range(count):
        session.run(batch)
    return (time.perf_counter() - start) / count / session.batch_size * rows


def ready_batch(network: Model) -> np.ndarray:
    """Rows as the study makes them: the picture with uniform noise of 5 grey levels, normalised."""
    rng, picture = np.random.default_rng(1), synthetic(network.card).values
    noise = rng.uniform(-5, 5, (network.session.batch_size, *network.shape))
    return np.stack([network.preprocessing.apply(picture + each).reshape(network.shape) for each in noise])


def whole(network: Model, pixels: images.Pixels, protocol: study.Protocol, out: Path, stages: "Stages") -> float:
    """One image through the study, its unit packed and written."""
    with stages.watched(network.session):
        start = time.perf_counter()
        arrays = observe(network, LabelledImage(pixels.values, pixels.sha256, 0), protocol)
        stages.timed(write_unit, "store")(out / "unit.npz", arrays)
        return (time.perf_counter() - start) / len(protocol.radii)


def write_unit(path: Path, arrays: dict[str, Any]) -> None:
    """One unit, packed and synchronised as the store does it."""
    files.write(path, units.pack("0" * 64, arrays))


class Stages:
    """Seconds by stage, measured by wrapping the functions in which a study spends its time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def clear(self) -> None:
        self.seconds.clear()

    def timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds[stage] += time.perf_counter() - start

        return wrapped

    @contextmanager
    def watched(self, session: Any) -> Iterator[None]:
        places = [
            (session, "run", "forward"),
            (rows.Perturbed, "write", "perturb"),
            (answers.Answers, "_halved", "halves"),
            (rows.Perturbed, "distances", "input distances"),
            (geometry, "centred_gram", "feature distances"),
            (geometry, "distance_from", "feature distances"),
            (sketch, "sketch", "sketches"),
            (Model, "true_class", "scores"),
        ]
        kept = [(place, name, place.__dict__.get(name)) for place, name, _ in places]
        for place, name, stage in places:
            setattr(place, name, self.timed(getattr(place, name), stage))
        kept_measures = {name: REGISTRY[name] for name in ("topology", "linearity")}
        for name, stage in (("topology", "Mantel and alpha"), ("linearity", "linearity")):
            REGISTRY[name] = dataclasses.replace(REGISTRY[name], observe=self.timed(REGISTRY[name].observe, stage))
        start = time.perf_counter()
        try:
            yield
        finally:
            REGISTRY.update(kept_measures)
            self.seconds["all"] += time.perf_counter() - start
            for place, name, value in kept:
                if value is None:
                    delattr(place, name)
                else:
                    setattr(place, name, value)

    def text(self) -> str:
        total = self.seconds["all"]
        shares = {stage: s / total for stage, s in self.seconds.items() if stage != "all"}
        shares["rest"] = 1 - sum(shares.values())
        return ", ".join(f"{stage} {share:.1%}" for stage, share in sorted(shares.items(), key=lambda x: -x[1]))


if __name__ == "__main__":
    main()
