"""All fuzzers for so many CPU minutes, and a table of what they did.

    python tests/fuzz/campaign.py --minutes 25 --out findings

Each target runs in a process of its own, which is started again after a crash. Structure-aware inputs come from
`hypothesis` (targets.py), inputs led by the coverage of the code from `atheris` (coverage_guided.py). Every distinct
finding is kept in OUT/findings.json with the input that shows it; `--again findings.json` feeds them once more. The
exit code is 1 where something was found.
"""

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GUIDED = {"atheris images": "images", "atheris models": "models"}
STRUCTURED = ("card", "run", "table", "arguments", "network", "photograph")
SLICE = 60.0  # CPU seconds of one process: memory that a library keeps does not add up


def crash(_: Any, __: Path) -> None:
    """A target that ends its process, for the test of this campaign."""
    os.abort()


def child(name: str, seconds: float, seed: int, folder: Path) -> None:
    """Feed one target for so many CPU seconds. Writes state.json after each input, and `input` before."""
    import targets
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    target = targets.Target("crash", st.integers, crash) if name == "crash" else targets.TARGETS[name]
    strategy = target.strategy()
    found: dict[str, str] = {}
    done, began = 0, time.process_time()
    work = folder / "work"
    work.mkdir(exist_ok=True)

    def save() -> None:
        state = {"executions": done, "seconds": time.process_time() - began, "findings": found}
        (folder / "state.json").write_text(json.dumps(state))

    class Over(BaseException):
        pass

    def once(value: Any) -> None:
        nonlocal done
        if time.process_time() - began > seconds:
            raise Over
        (folder / "input").write_bytes(pickle.dumps(value))
        if done % 20 == 0:
            save()
        what = targets.finding(target, value, work)
        if not what and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > targets.MEMORY:
            what = f"more than {targets.MEMORY / 2**30:.0f} GiB"
        done += 1
        if what and what not in found:
            found[what] = pickle.dumps(value).hex()
            save()

    try:
        while True:
            options = settings(
                max_examples=500,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            seeded(seed)(options(given(strategy)(once)))()
            seed += 1_000_003
    except Over:
        save()


def run(name: str, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Start one process for a target; what it did, and its crash among the findings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state.json").unlink(missing_ok=True)
    if name in GUIDED:
        command = [str(HERE / "coverage_guided.py"), GUIDED[name], "--seconds", f"{seconds}", "--seed", f"{seed}"]
    else:
        command = [str(HERE / "campaign.py"), "--child", name, "--seconds", f"{seconds}", "--seed", f"{seed}"]
    limit = max(120.0, 20 * seconds)
    try:
        done = subprocess.run(
            [sys.executable, *command, "--out", str(folder)], capture_output=True, check=False, timeout=limit
        )
        ended = "" if done.returncode == 0 else done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        what = f"crash: signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}: {ended}"
        ok = done.returncode == 0
    except subprocess.TimeoutExpired:
        ok, what = False, f"no end after {limit:.0f} s"
    file = folder / "state.json"
    state: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    state = {"executions": 0, "seconds": 0.0, "findings": {}, "note": "", **state}
    if not ok:
        state["findings"][what] = (folder / "input").read_bytes().hex() if (folder / "input").exists() else ""
    return state


def campaign(names: list[str], minutes: float, seed: int, out: Path) -> list[dict[str, str]]:
    """Print the table; the findings."""
    share = 60 * minutes / len(names)
    out.mkdir(parents=True, exist_ok=True)
    sys.stdout.write("| target | executions | CPU seconds | findings |\n|---|---:|---:|---:|\n")
    findings, notes, total = [], [], [0, 0.0]
    for name in names:
        executions, seconds, found, turn = 0, 0.0, dict[str, str](), 0
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            while seconds < 0.98 * share and turn < 1 + 4 * share / SLICE:
                state = run(name, min(SLICE, share - seconds), seed + 7919 * turn, Path(folder))
                executions, seconds, turn = executions + state["executions"], seconds + state["seconds"], turn + 1
                found |= state["findings"]
                notes += [state["note"]] if state["note"] and state["note"] not in notes else []
        findings += [{"target": name, "what": what, "input": given} for what, given in found.items()]
        (out / "findings.json").write_text(json.dumps(findings, indent=1) + "\n")
        sys.stdout.write(f"| {name} | {executions:,} | {seconds:.0f} | {len(found)} |\n")
        sys.stdout.flush()
        total = [total[0] + executions, total[1] + seconds]
    sys.stdout.write(f"\n{total[0]:,} executions in {total[1] / 60:.1f} CPU minutes\n")
    for note in notes:
        sys.stdout.write(f"{note}\n")
    for one in findings:
        sys.stdout.write(f"{one['target']}: {one['what']}\n")
    return findings


def again(file: Path) -> None:
    """Feed the inputs of a findings.json once more, and say what becomes of each."""
    import targets

    for one in json.loads(file.read_text()):
        if one["target"] in targets.TARGETS and one["input"]:
            with tempfile.TemporaryDirectory() as folder:
                value = pickle.loads(bytes.fromhex(one["input"]))
                what = targets.finding(targets.TARGETS[one["target"]], value, Path(folder))
            sys.stdout.write(f"{one['target']}: {what or 'nothing wrong any more'}\n{value!r:.2000}\n")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="Fuzz the analyzer.")
    parser.add_argument("--minutes", type=float, default=25.0, help="CPU minutes in all")
    parser.add_argument("--targets", nargs="+", default=[*STRUCTURED, *GUIDED])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("findings"))
    parser.add_argument("--again", type=Path, help="a findings.json, whose inputs are fed once more")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    sys.path.insert(0, str(HERE))
    if asked.again:
        again(asked.again)
    elif asked.child:
        child(asked.child, asked.seconds, asked.seed, asked.out)
    else:
        raise SystemExit(bool(campaign(asked.targets, asked.minutes, asked.seed, asked.out)))


if __name__ == "__main__":
    main()
