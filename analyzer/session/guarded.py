"""A first forward pass in a child process with limits, for graphs that may never end or may take all memory.

`attempt` starts the child; run as a module, this file is the child.
"""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from analyzer.errors import AnalyzerError, InputError
from analyzer.graph import Prepared
from analyzer.system import Answer, limit_memory, physical_memory, run_child

SECONDS = 60.0


def attempt(prepared: Prepared, pixel_shape: tuple[int, int, int]) -> None:
    """Run one image on the CPU in a child process. Raises InputError where it takes over a minute, fails or crashes."""
    operators = ", ".join(prepared.unbounded)
    fields = {k: v for k, v in dataclasses.asdict(prepared).items() if k not in ("model", "folder")}
    request = {**fields, "folder": str(prepared.folder), "shape": [prepared.declared_batch or 1, *pixel_shape]}
    with tempfile.TemporaryDirectory(prefix="analyzer-") as folder:
        (Path(folder) / "model").write_bytes(prepared.model)
        (Path(folder) / "request").write_text(json.dumps(request), encoding="utf-8")
        doing = f"trying its {operators} on one image,"
        answer = run_child("analyzer.session.guarded", [folder], seconds=SECONDS, model=prepared.source, doing=doing)
    if "error" in answer:
        raise InputError(answer["error"])


def main() -> None:
    """The child: load and run once, and print {} or {"error": message}."""
    from analyzer.session import placement, providers, runtime
    from analyzer.session.backend import Backend

    folder = Path(sys.argv[1])
    request = json.loads((folder / "request").read_text(encoding="utf-8"))
    shape = request.pop("shape")
    request["folder"] = Path(request["folder"])
    prepared = Prepared(model=(folder / "model").read_bytes(), **request)
    answer: Answer = {}
    try:
        runtime.load()
        limit_memory(physical_memory() // 2)
        session = providers.open_session(prepared, Backend(placement.CPU, threads=1))
        # Whether a loop ends may depend on the data: nothing, the size of normalised pixels, the size of raw ones.
        for scale in (0.0, 1.0, 255.0):
            row = np.random.default_rng(0).uniform(0, scale, shape).astype(np.float32)
            session.run(list(prepared.outputs), {prepared.input: row})
    except AnalyzerError as e:
        answer["error"] = str(e)
    except Exception as e:  # the runtime's exceptions have no common base
        answer["error"] = str(runtime.load_error(e, prepared.source, on_cpu=True))
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
