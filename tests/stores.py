"""Helpers that make run directories from arrays of a few numbers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import xarray as xr

from analyzer import store
from analyzer.store import schema
from analyzer.store.status import Outcome

COORDINATES = {"radius": [0.5, 1.0], "trial": 3, "layer": ["fc2", "/pool/ü"]}
IDENTITY = {
    "model": "ab" * 32, "card": "cd" * 32, "labels": None, "radii": [0.5, 1.0], "trials": 3, "limit": 4,
    "min_confidence": 0.99, "norm": "linf", "clip": False, "round": False, "seed": 0, "measures": ["isotropy"],
    "layers": ["fc2", "/pool/ü"], "permutations": 19,
}  # fmt: skip
CONTEXT = {
    "model": "net.onnx", "images": "images", "card": "net.toml", "provider": "cpu", "device": "CPU",
    "precision": "float32", "batch_size": 8, "feature": "fc2", "threads": 2, "classes": 3, "pixel_shape": [3, 4, 4],
    "notes": [], "versions": {}, "platform": "Linux",
}  # fmt: skip
IMAGES = {"asked": 4, "bad_images": []} | dict.fromkeys(
    ["found", "read", "bad", "wrong", "below_confidence", "non_finite", "duplicate", "eligible", "selected", "finished",
     "measured", "unreadable", "unlabelled", "calibration"], 0,
)  # fmt: skip
IDS = ["a.png", "../../x.png", "ü/\u202etxt.png", "é" * 150, "CON", "=1+1", "[/b]<script>", "d\\udcff.png"]


def summarise(dataset: xr.Dataset) -> dict:
    """A summary with what JSON has no word for."""
    value = {"value": float("nan"), "low": np.float64(0.5), "high": float("inf"), "n": dataset.sizes["image"]}
    manifest = json.loads(dataset.attrs["manifest"])
    protocol = {key: value for key, value in manifest["identity"].items() if key not in ("model", "card")}
    run = {
        "model": manifest["context"]["model"],
        "images": IMAGES,
        "protocol": protocol,
        "context": manifest["context"],
    }
    return {"schema": 1, "run": run, "sentences": [], "warnings": [], "isotropy_range_median@1": value}


def opened(path: Path, *, coordinates: dict = COORDINATES, context: dict = CONTEXT, **identity: object) -> store.Store:
    return store.open_store(path, identity={**IDENTITY, **identity}, context=context, coordinates=coordinates)


def entries(count: int) -> list[dict]:
    ids = [*IDS, *(f"more/{i}.png" for i in range(count))][:count]
    return [
        {"id": i, "sha256": f"{n:064x}", "label": n, "key": store.unit_key(i, f"{n:064x}")} for n, i in enumerate(ids)
    ]


def calibration(count: int = 4, **more: object) -> dict:
    ranges = {"input_range": 255.0, "feature_range": {"fc2": 10.0, "/pool/ü": 4.0}}
    seen = {"minimum": {}, "maximum": {}, "calibration_images": count, "found": count, "unlabelled": 0}
    counts = dict.fromkeys(Outcome, 0) | {Outcome.GOOD: count}
    candidates = [{"id": entry["id"], "outcome": Outcome.GOOD} for entry in entries(count)]
    chosen = {"counts": counts, "candidates": candidates, "limit": count, "selected": entries(count)}
    return {**ranges, **seen, **chosen, **more}


def arrays(number: int, coordinates: dict = COORDINATES) -> dict[str, np.ndarray]:
    """Every variable of one image; values tell the image, the variable and the place apart."""
    length = schema.sizes(coordinates)
    made = {}
    for place, variable in enumerate(schema.variables(coordinates)):
        shape = [length[dim] for dim in variable.dims[1:]]
        count = int(np.prod(shape))
        if variable.flags:
            made[variable.name] = np.full(shape, number % len(variable.flags), dtype="int8")
        elif variable.dtype == "int32":
            made[variable.name] = np.arange(number - 1, number - 1 + count, dtype="int32").reshape(shape)
        else:
            values = number + place / 32 + np.arange(count) / 1024
            values[-1] = np.nan if number % 2 else 0.0
            made[variable.name] = values.reshape(shape)
    return made


def measured(path: Path, count: int = 4, *, finish: bool = True) -> Path:
    with opened(path, limit=count) as writer:
        writer.write_calibration(calibration(count))
        for number, entry in enumerate(entries(count)):
            writer.write_unit(entry["key"], arrays(number))
        if finish:
            writer.finish(summarise)
    return path


def unit(path: Path, number: int) -> Path:
    return path / "units" / f"{entries(number + 1)[number]['key']}.npz"


def listing(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def child(code: str, *args: object, **more: object) -> subprocess.Popen:
    """A process with this module at hand as `t`, that runs `code`."""
    start = f"import sys, pathlib, time\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport stores as t\n"
    command = [sys.executable, "-c", start + code, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
