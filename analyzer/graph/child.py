"""The child process of `check`: prints one JSON object, {} or {"error": message}."""

import json
import sys
from pathlib import Path

from analyzer.errors import InputError
from analyzer.system import Answer, limit_memory

ROOM = 2 * 2**30  # bytes of address space for Python and its libraries


def inspect(path: Path) -> None:
    """Everything `check` checks, in this process. Raises InputError."""
    import onnx

    from analyzer.graph import files, index, safety
    from analyzer.graph.prepare import inline

    model = files.read(path)
    safety.inspect(model, path)
    small = index.skeleton(model)
    small.ir_version = min(small.ir_version, onnx.IR_VERSION)  # newer ones are for the runtime to judge
    for value in (*small.graph.input, *small.graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()  # the runtime does without declared shapes
    newest = onnx.defs.onnx_opset_version()
    if all(o.version <= newest for o in small.opset_import if o.domain in ("", "ai.onnx")):
        try:
            onnx.checker.check_model(small)
        except onnx.checker.ValidationError as e:
            raise InputError(f"{path}: not valid ONNX: {_first_line(e)}; export it again") from e
    safety.refuse_huge_results(index.build(inline(model, path), path), path)


def main() -> None:
    """Check the file named on the command line."""
    path = Path(sys.argv[1])
    answer: Answer = {}
    try:
        size = path.stat().st_size if path.exists() else 0
        limit_memory(ROOM + 12 * size)
        inspect(path)
    except InputError as e:
        answer["error"] = str(e)
    except MemoryError:
        answer["error"] = f"{path}: checking it takes far more memory than its size explains; damaged or hostile"
    except Exception as e:  # whatever a hostile file makes the libraries raise
        answer["error"] = f"{path}: not valid ONNX: {type(e).__name__}: {_first_line(e)}; export it again"
    sys.stdout.write(json.dumps(answer))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


if __name__ == "__main__":
    main()
