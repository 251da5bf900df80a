"""Importing ONNX Runtime, and turning its exceptions into one line for the user."""

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import re
import runpy
from pathlib import Path
from types import ModuleType
from typing import Any, TypedDict

from analyzer.errors import AnalyzerError, InputError, UsageError

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn")
"""All of these install the same Python module and overwrite each other's files."""
_OUT_OF_MEMORY = ("failed to allocate memory", "out of memory", "bad_alloc", "alloc_failed", "bad allocation")
_FATAL = 4  # below this severity the runtime also writes to stderr the errors that are reported here


@functools.cache
def load() -> ModuleType:
    """The onnxruntime module. Raises UsageError where none, or more than one package of it, is installed."""
    installed = [name for name in PACKAGES if _is_installed(name)]
    if len(installed) > 1:
        raise UsageError(
            f"{' and '.join(installed)} are both installed and break each other; "
            f"`pip uninstall {' '.join(installed)}`, then install convnet-analyzer[cpu] or convnet-analyzer[gpu]"
        )
    try:
        module = importlib.import_module("onnxruntime")
    except ImportError as e:
        if not installed and isinstance(e, ModuleNotFoundError):
            raise UsageError(
                "ONNX Runtime is not installed; install the extra [cpu] of convnet-analyzer, or [gpu] for NVIDIA"
            ) from None
        raise UsageError(
            f"{installed or ['onnxruntime']} is installed but cannot be imported: {e}; reinstall it"
        ) from e
    module.set_default_logger_severity(_FATAL)
    return module


_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "off": "ORT_DISABLE_ALL",
}


def options(*, folder: str, threads: int | None, optimizations: str = "all") -> Any:
    """Session options: silent, external data from `folder`, node placement recorded, `threads` inside one operator.

    optimizations: how far the graph may be rewritten, a key of _LEVELS.
    """
    made = load().SessionOptions()
    made.log_severity_level = _FATAL
    made.graph_optimization_level = getattr(load().GraphOptimizationLevel, _LEVELS[optimizations])
    if threads is not None:
        made.intra_op_num_threads = threads
    made.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    # Between two passes the cores are the host's.
    made.add_session_config_entry("session.force_spinning_stop", "1")
    made.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return made


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of the runtime means that host or device memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in text for phrase in _OUT_OF_MEMORY)


def load_error(error: Exception, source: str, *, on_cpu: bool) -> AnalyzerError:
    """What to tell the user when the runtime refuses the model named `source`; `on_cpu`: on the CPU's provider."""
    text, version = str(error), load().__version__
    if match := re.search(r"Opset (\d+) is under development.*till opset (\d+)", text, re.DOTALL):
        asked, newest = match.groups()
        return InputError(
            f"{source}: uses opset {asked}, but onnxruntime {version} knows opsets up to {newest}; export it with "
            f"opset {newest} or lower, or upgrade onnxruntime"
        )
    if match := re.search(r"IR version: (\d+), max supported IR version: (\d+)", text):
        asked, newest = match.groups()
        return InputError(
            f"{source}: has ONNX IR version {asked}, but onnxruntime {version} knows versions up to {newest}; export "
            "it for an older one, or upgrade onnxruntime"
        )
    if is_out_of_memory(error):
        return UsageError(f"{source}: not enough memory to load it: {brief(error)}; {more_memory(on_cpu=on_cpu)}")
    mend = "export it again"
    if "Could not find an implementation for" in text:
        mend = "it has none for the operator's version or element type there; export in float32, or at another opset"
    return InputError(f"{source}: onnxruntime {version} cannot load it: {brief(error)}; {mend}")


def more_memory(*, on_cpu: bool) -> str:
    """How to mend a lack of memory."""
    return "free some" if on_cpu else "free some, or use `provider` cpu"


def brief(error: BaseException) -> str:
    """The message of an exception of the runtime in one line, without its codes and source files."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))
    text = re.sub(r"/\S+\.(cc|h|cpp|cu):\d+ ", "", text)
    text = re.sub(r"^[\w:<>&*~, ]*::\w+\([^)]*\)( const)? ", "", text)  # the function that threw it
    return text[:300] or type(error).__name__


class Wheel(TypedDict):
    """An installed package of the runtime. cuda: the version it was built for, "" where none. note: what is wrong."""

    package: str
    version: str
    cuda: str
    note: str


def wheels() -> list[Wheel]:
    """The installed packages that bring the module onnxruntime; where there are several, whose files are there now.

    Loads nothing of the runtime.
    """
    spec = importlib.util.find_spec("onnxruntime")
    built: dict[str, Any] = {}
    if spec is not None and spec.origin is not None:
        with contextlib.suppress(Exception):  # whatever another package has left there
            built = runpy.run_path(str(Path(spec.origin).parent / "capi" / "build_and_package_info.py"))
    present, found = str(built.get("package_name", "")), [name for name in PACKAGES if _is_installed(name)]
    rows: list[Wheel] = []
    for name in found:
        own = name == present or len(found) == 1
        others = " and ".join(other for other in found if other != name)
        note = "" if len(found) == 1 else f"its files are there, over those of {others}" if own else "overwritten"
        cuda = str(built.get("cuda_version", "")) if own else ""
        rows.append({"package": name, "version": importlib.metadata.version(name), "cuda": cuda, "note": note})
    return rows


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
