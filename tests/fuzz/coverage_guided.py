"""Inputs led by the coverage of the code: `atheris` on image files and on model files.

    python tests/fuzz/coverage_guided.py images --seconds 60 --out findings

Without atheris (the extra `fuzz`) the same inputs are changed at random, and the harness says so.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
INSTRUMENTED = {
    "images": ["analyzer.images", "PIL"],
    "models": ["analyzer.graph", "analyzer.card", "analyzer.document"],
}


class Harness:
    """Feeds bytes to one target, counts, and ends the process when its time is over."""

    def __init__(self, kind: str, seconds: float, out: Path, note: str) -> None:
        import targets

        self.finding = targets.finding
        self.target = targets.TARGETS[{"images": "photograph", "models": "network"}[kind]]
        self.seconds, self.out, self.note = seconds, out, note
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.executions, self.began, self.findings = 0, time.process_time(), dict[str, str]()
        out.mkdir(parents=True, exist_ok=True)

    @property
    def over(self) -> bool:
        """Whether the time is spent."""
        return time.process_time() - self.began > self.seconds

    def feed(self, data: bytes) -> None:
        """One input."""
        (self.out / "input").write_bytes(data)
        what = self.finding(self.target, data, self.folder)
        self.executions += 1
        if what and what not in self.findings:
            self.findings[what] = data.hex()
        if self.executions % 100 == 0 or self.over:
            self.save()

    def save(self) -> None:
        """What was done so far."""
        state: dict[str, Any] = {"executions": self.executions, "seconds": time.process_time() - self.began}
        state |= {"findings": self.findings, "note": self.note}
        (self.out / "state.json").write_text(json.dumps(state))

    def end(self) -> None:
        """Leave, past the statistics of the fuzzing engine, which has no end by CPU time."""
        self.save()
        sys.stdout.write(f"{self.executions} executions, {len(self.findings)} findings; {self.note}\n")
        for what in self.findings:
            sys.stdout.write(f"{what}\n")
        sys.stdout.flush()
        os._exit(0)


def seeds(kind: str) -> list[bytes]:
    """Good files to begin with."""
    if kind == "images":
        from test_images_hostile import SAMPLES

        return list(SAMPLES)
    import graphs

    variants: list[dict[str, Any]] = [
        {},
        {"softmax": True},
        {"layout": "NHWC"},
        {"fixed_batch": 1},
        {"input_type": "uint8"},
    ]
    with tempfile.TemporaryDirectory() as folder:
        made = [graphs.convnet(Path(folder), size=8, name=f"net{k}", **v)[0] for k, v in enumerate(variants)]
        return [path.read_bytes() for path in [*made, graphs.constant(Path(folder))[0]]]


def mutated(data: bytes, generator: random.Random) -> bytes:
    """A few bytes changed, a part repeated, or the end cut off."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 8)):
        changed[generator.randrange(len(changed))] = generator.randrange(256)
    if generator.random() < 0.2:
        del changed[generator.randrange(1, len(changed)) :]
    elif generator.random() < 0.1:
        start = generator.randrange(len(changed))
        changed[start:start] = changed[start : start + generator.randrange(64)]
    return bytes(changed)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="Fuzz image or model files.")
    parser.add_argument("kind", choices=sorted(INSTRUMENTED))
    parser.add_argument("--seconds", type=float, default=60.0, help="of CPU time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("findings"))
    asked = parser.parse_args()
    sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]
    if importlib.util.find_spec("atheris") is None:
        harness = Harness(asked.kind, asked.seconds, asked.out, "atheris is not installed: bytes changed at random")
        generator, good = random.Random(asked.seed), seeds(asked.kind)
        while not harness.over:
            harness.feed(mutated(generator.choice(good), generator))
        harness.end()
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED[asked.kind]):
        harness = Harness(asked.kind, asked.seconds, asked.out, f"atheris {importlib.metadata.version('atheris')}")

    def once(data: bytes) -> None:
        harness.feed(data)
        if harness.over:
            harness.end()

    corpus = harness.folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(seeds(asked.kind)):
        (corpus / f"{number}").write_bytes(content)
    # The limits are those of the target; the engine's own would end the process.
    options = [
        f"-seed={asked.seed + 1}",
        "-timeout=600",
        "-rss_limit_mb=8192",
        "-max_len=20000",
        "-print_final_stats=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
