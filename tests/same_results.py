"""Whether two versions of the package give the same runs: to be used before and after a change that should change none.

    python tests/same_results.py record BEFORE        with the old version installed or on PYTHONPATH
    python tests/same_results.py record AFTER         with the new one
    python tests/same_results.py compare BEFORE AFTER

`record` measures the bundled networks by a few small protocols. `compare` holds manifest.json, calibration.json and
summary.json against each other key by key (but for checksums and the time at which a run was made), results.nc value by
value. It prints each difference and ends with exit code 1 where there is one.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import h5netcdf
import numpy as np

DOCUMENTS = ("manifest.json", "calibration.json", "summary.json")
_TIME = re.compile(rb'"(?:created|time)": "[^"]*"')

DEMO = {"radii": (0.5, 1.0, 5.0, 10.0, 20.0), "trials": 40, "limit": 12, "permutations": 199}
CASES = {
    "ciresan": ("gtsrb_ciresan2012", True, DEMO),
    "aghdam": ("gtsrb_aghdam2015", True, DEMO),
    "layers": (
        "gtsrb_aghdam2015",
        False,
        {"radii": (0.5, 5.0, 20.0), "trials": 15, "limit": 11, "permutations": 19, "norm": "l2", "layers": ("all",)},
    ),
    "rounded": (
        "gtsrb_ciresan2012",
        True,
        {"radii": (0.2, 1 / 3, 2.0), "trials": 12, "limit": 10, "permutations": 0, "clip": True, "round": True},
    ),
    "scores": (
        "gtsrb_ciresan2012",
        True,
        {"radii": (1.0,), "trials": 9, "limit": 3, "measures": ("symmetry", "isotropy"), "seed": 3},
    ),
    "features": (
        "gtsrb_ciresan2012",
        False,
        {"radii": (0.5, 2.0), "trials": 9, "limit": 4, "measures": ("lipschitz", "topology"), "seed": 4},
    ),
}
"""Name of the run: the network, whether labels are given, and the protocol."""


def record(target: Path) -> None:
    """Measure all cases below `target`, with paths that do not depend on where that is."""
    from analyzer import Protocol, bundled, run

    target.mkdir(parents=True)
    shutil.copytree(bundled.folder(), target / "models")
    os.chdir(target)
    for name, (network, labelled, settings) in CASES.items():
        run(
            Path("models") / f"{network}.onnx",
            Path("models/demo"),
            Path("runs") / name,
            protocol=Protocol(**settings),
            labels=Path("models/demo/labels.csv") if labelled else None,
            provider="cpu",
            threads=1,
            batch_size=32,
        )


def differences(before: Path, after: Path) -> list[str]:
    """What two folders made by `record` hold otherwise, a line each."""
    lines = []
    for name in CASES:
        one, other = before / "runs" / name, after / "runs" / name
        for document in DOCUMENTS:
            texts = [_TIME.sub(b"", _without_checksums((run / document).read_bytes())) for run in (one, other)]
            if texts[0] != texts[1]:
                lines.append(f"{name}/{document}: {_first_difference(*texts)}")
        datasets = (run / "results.nc" for run in (one, other))
        lines += [f"{name}/results.nc: {line}" for line in _netcdf_differences(*datasets)]
    return lines


def _without_checksums(text: bytes) -> bytes:
    """A document without its checksum and, in summary.json, that of results.nc, which older versions do not write."""
    document = json.loads(text)
    for key in ("checksum", "results"):
        document.pop(key, None)
    return json.dumps(document, indent=1).encode()


def _first_difference(one: bytes, other: bytes) -> str:
    pairs = zip(one.splitlines(), other.splitlines(), strict=False)
    first = next(((a, b) for a, b in pairs if a != b), (b"(one is shorter)", b""))
    return " -> ".join(line.decode()[:120].strip() for line in first)


def _netcdf_differences(one: Path, other: Path) -> list[str]:
    lines = []
    with h5netcdf.File(one, "r") as a, h5netcdf.File(other, "r") as b:
        if list(a.variables) != list(b.variables):
            return [f"variables {list(a.variables)} -> {list(b.variables)}"]
        if _attributes(a) != _attributes(b):
            lines.append("attributes of the file")
        for name, variable in a.variables.items():
            values, others = np.asarray(variable[...]), np.asarray(b.variables[name][...])
            same_values = values.dtype == others.dtype and values.shape == others.shape
            if values.dtype.kind == "f":
                same_values = same_values and np.array_equal(values, others, equal_nan=True)
            else:
                same_values = same_values and np.array_equal(values, others)
            if not same_values:
                lines.append(f"values of {name}")
            if _attributes(variable) != _attributes(b.variables[name]):
                lines.append(f"attributes of {name}")
    return lines


def _attributes(item) -> dict[str, str]:
    texts = {key: str(value).encode() for key, value in item.attrs.items()}
    texts |= {key: _without_checksums(texts[key]) for key in ("manifest", "calibration") if key in texts}
    return {key: _TIME.sub(b"", text).decode() for key, text in texts.items()}


def main() -> None:
    """Read the command line."""
    match sys.argv[1:]:
        case ["record", target]:
            record(Path(target))
        case ["compare", before, after]:
            lines = differences(Path(before), Path(after))
            sys.stdout.write("".join(f"{line}\n" for line in lines) or "no difference\n")
            sys.exit(bool(lines))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
