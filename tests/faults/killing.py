"""A run that is killed again and again at random moments of its life, and what is left of it in the end.

    python tests/faults/killing.py --kills 200

Each process is killed after a time drawn from the whole life of an undisturbed one, so each stage has its share of the
kills: start, imports, the check of the model, the session, the selection pass, units, results, summary.
An audit hook in the process says which stage it has reached. After a kill, most processes continue what is there; some
begin anew, as all do after a complete run, or the early stages would be met on runs that are nearly complete only.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from analyzer import bundled, store

PROTOCOL = ["--limit", "6", "--radii", "1,4", "--trials", "12", "--permutations", "19", "--provider", "cpu"]
PROTOCOL += ["--batch-size", "8", "--threads", "1"]
ANEW = 0.3  # share of the kills after which the next process finds nothing

# What a process does first in each stage, as `sys.addaudithook` tells it: (stage, event, end of the first argument).
STAGES = (
    ("start", "", ""),
    ("imports", "import", "analyzer"),
    ("check of the model", "subprocess.Popen", ""),
    ("session", "import", "onnxruntime.capi"),
    ("selection pass", "open", "/.lock"),
    ("units", "open", ".npz.tmp"),
    ("results", "open", "/results.nc.tmp"),
    ("summary", "open", "/summary.json.tmp"),
)
HOOK = """
import os, sys
stages = {stages!r}
def hook(event, arguments, at=[0]):
    for number in range(at[0] + 1, len(stages)):
        if event == stages[number][1] and str(arguments[0]).endswith(stages[number][2]):
            at[0] = number
            os.pwrite(file, b"%d" % number, 0)
if "analyzer" in sys.orig_argv:  # no child of it
    file = os.open({file!r}, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sys.addaudithook(hook)
"""


def command(out: Path) -> list[str]:
    """`analyzer run` of a bundled network by a small protocol."""
    folder = bundled.folder()
    model, demo = folder / "gtsrb_aghdam2015.onnx", folder / "demo"
    run = ["run", str(model), "--images", str(demo), "--labels", str(demo / "labels.csv"), "--out", str(out)]
    return [sys.executable, "-m", "analyzer", *run, *PROTOCOL]


class Loop:
    """Processes that are killed, and the run that they leave; `died` counts the kills by stage."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.undisturbed, self.out, self.reached = folder / "undisturbed", folder / "killed", folder / "reached"
        self.generator, self.died, self.different, self.completed = random.Random(seed), Counter[str](), set[str](), 0
        (folder / "hook").mkdir()
        hook = HOOK.format(stages=STAGES, file=str(self.reached))
        (folder / "hook" / "sitecustomize.py").write_text(hook, encoding="utf-8")
        paths = os.pathsep.join([str(folder / "hook"), str(Path(__file__).parents[2])])
        self.environment = {**os.environ, "PYTHONPATH": paths}
        began = time.monotonic()
        self.to_the_end(self.undisturbed)
        self.life = 1.05 * (time.monotonic() - began)

    def to_the_end(self, out: Path) -> None:
        subprocess.run(command(out), check=True, stdout=subprocess.DEVNULL, env=self.environment)
        assert store.verify(out) == []

    def stage(self) -> str:
        """The stage that the last process had reached."""
        text = self.reached.read_text() if self.reached.exists() else ""
        return STAGES[int(text or 0)][0]

    def once(self) -> None:
        """One process, killed unless it ends before its time comes."""
        self.reached.unlink(missing_ok=True)
        with subprocess.Popen(
            command(self.out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment
        ) as process:
            try:
                code = process.wait(timeout=self.generator.uniform(0.0, self.life))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                code = process.wait()
        assert code in (0, -signal.SIGKILL), f"a killed run is not continued: exit code {code}"
        if code:
            self.died[self.stage()] += 1
        else:
            self.complete()
        if not code or self.generator.random() < ANEW:
            shutil.rmtree(self.out, ignore_errors=True)

    def complete(self) -> None:
        self.completed += 1
        assert store.verify(self.out) == []
        self.different |= set(differences(self.undisturbed, self.out))


def differences(one: Path, two: Path) -> list[str]:
    """What of two runs is not the same: documents and units bit for bit, results value for value."""
    found = []
    names = {path.relative_to(run).as_posix() for run in (one, two) for path in run.rglob("*") if path.is_file()}
    for name in sorted(names - {".lock", "manifest.json", "pace.json", "results.nc"}):
        contents = [_content(run / name) for run in (one, two)]
        if contents[0] != contents[1]:
            found.append(name)
    with store.open_run(one) as left, store.open_run(two) as right:
        if left.variables.keys() != right.variables.keys():
            found.append("results.nc")
        for name in left.variables.keys() & right.variables.keys():
            a, b = left[name].values, right[name].values
            if a.dtype != b.dtype or not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                found.append(f"results.nc: {name}")
    return found


def _content(file: Path) -> object:
    """What has to be the same; the summary's checksums are of results.nc, which holds the time of the run."""
    if not file.is_file():
        return None
    if file.name != "summary.json":
        return file.read_bytes()
    document = json.loads(file.read_bytes())
    return {key: value for key, value in document.items() if key not in ("checksum", "results")}


def campaign(folder: Path, kills: int, *, seed: int = 0) -> Loop:
    """So many kills, and then the same command to its end."""
    loop = Loop(folder, seed=seed)
    while loop.died.total() < kills:
        loop.once()
    loop.to_the_end(loop.out)
    loop.complete()
    return loop


def main() -> None:
    """Print the kills by stage, and what differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        loop = campaign(Path(folder), asked.kills, seed=asked.seed)
    sys.stdout.write("| killed in | kills |\n|---|---:|\n")
    for name, _, _ in STAGES:
        sys.stdout.write(f"| {name} | {loop.died[name]} |\n")
    sys.stdout.write(
        f"\n{loop.died.total()} kills, {loop.completed} complete runs; different from an undisturbed one: "
        f"{', '.join(sorted(loop.different)) or 'nothing'}\n"
    )
    raise SystemExit(bool(loop.different))


if __name__ == "__main__":
    main()
