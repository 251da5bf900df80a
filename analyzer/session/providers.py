"""Execution providers: their names and options, and opening a session on one."""

import contextlib
import functools
import hashlib
import io
import os
import platform
import re
from pathlib import Path
from typing import Any

from analyzer.errors import UsageError
from analyzer.graph import Prepared, sha256
from analyzer.session import plugins, runtime
from analyzer.session.backend import Backend
from analyzer.session.interface import InferenceSession
from analyzer.session.placement import CPU

CUDA, TENSORRT, OPENVINO = "CUDAExecutionProvider", "TensorrtExecutionProvider", "OpenVINOExecutionProvider"
NAMES = {
    "cpu": CPU,
    "cuda": CUDA,
    "tensorrt": TENSORRT,
    "openvino": OPENVINO,
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}
_CACHE = re.compile(r"cache.*(path|dir|directory)$", re.IGNORECASE)
_TRUE = frozenset({"1", "true", "yes", "on"})


def short(name: str) -> str:
    """The short name of a provider, e.g. "cuda"."""
    return next((key for key, full in NAMES.items() if full == name), name.removesuffix("ExecutionProvider").lower())


def open_session(prepared: Prepared, backend: Backend, *, lean: bool = False) -> InferenceSession:
    """A session of the runtime on a provider of full name. Raises UsageError where the runtime quietly took another.

    `lean` keeps CUDA's convolution workspace small. Exceptions of the runtime pass through.
    """
    return _opened(prepared.model, str(prepared.folder), backend, prepared, lean=lean)


def _opened(
    model: bytes | str, folder: str, backend: Backend, prepared: Prepared, *, lean: bool = False, file: bool = False
) -> InferenceSession:
    """model: what is opened, its external data in `folder`; file: whether that is the file that `prepared` came of."""
    module, name = runtime.load(), backend.provider
    order = {CPU: [CPU], TENSORRT: [TENSORRT, CUDA, CPU]}.get(name, [name, CPU])
    if name != CPU:
        _preload()
    options = runtime.options(folder=folder, threads=backend.threads, optimizations=backend.optimizations)
    given = {
        each: _options(backend if each == name else Backend(each), prepared, lean=lean, file=file) for each in order
    }
    how: dict[str, Any] = {"enable_fallback": 0, "read_config_from_model": 0}
    if name in compiled():
        how["providers"] = list(given.items())
    else:
        options.add_provider_for_devices(plugins.devices(name)[:1], given[name])
    session: InferenceSession = module.InferenceSession(model, options, **how)
    used = session.get_providers()[0]
    if used != name:
        raise UsageError(
            f"provider {short(name)!r}: onnxruntime fell back to {short(used)}{_reason(name)}; see `analyzer doctor`, "
            + ("leave out or correct `provider_option`, " if backend.options else "")
            + f"or use `provider` {short(used)}"
        )
    return session


def open_file(model: Path, prepared: Prepared, backend: Backend) -> InferenceSession:
    """A session on the file `model` as it is, with the options that the graph made of it, `prepared`, has.

    Exceptions of the runtime pass through.
    """
    return _opened(str(model), "", backend, prepared, file=True)


def settings(backend: Backend, prepared: Prepared) -> dict[str, Any]:
    """What of a backend decides a number beside its provider: options, optimisation level, a CPU's instructions.

    These last only where the graph computes in integers: their kernels saturate on some CPUs and not on others.
    """
    options = {**_defaults(backend.provider, lean=False), **backend.options}
    cpu = {"instructions": _instructions()} if prepared.integers and backend.provider in (CPU, OPENVINO) else {}
    kept = {key: options[key] for key in sorted(options) if not _CACHE.search(key)}
    return {"optimizations": backend.optimizations, "options": kept, **cpu}


def device_name(name: str) -> str:
    """The device behind provider `name`, for people."""
    if name != CPU:
        for device in plugins.devices(name):
            described = dict(device.device.metadata).get("Description") or device.device.vendor
            return f"{described} ({short(name)})".strip()
        return f"{short(name)} device 0"
    model = next((line.split(":", 1)[1].strip() for line in _cpu() if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {os.cpu_count()} logical cores"


def compiled() -> list[str]:
    """Full names of the providers in the installed runtime."""
    # Azure's provider only calls remote services; it can run no graph here.
    return [name for name in runtime.load().get_available_providers() if name != "AzureExecutionProvider"]


def _defaults(name: str, *, lean: bool) -> dict[str, str]:
    """The options that are given to a provider where the user gives none."""
    if name == TENSORRT:
        return {"trt_engine_cache_enable": "0"}  # which its environment variables could switch on
    if name != CUDA:
        return {}
    return {
        "use_tf32": "0",  # its errors of 1e-3 would drown the small radii
        "cudnn_conv_algo_search": "EXHAUSTIVE",  # tuned once: every batch has the same shape
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_use_max_workspace": "0" if lean else "1",
    }


def _options(backend: Backend, prepared: Prepared, *, lean: bool, file: bool = False) -> dict[str, str]:
    """A provider's options; what it caches goes into a folder of this model, this graph and these settings.

    A shared folder can make one answer from the engine of another. file: for the file itself, not `prepared`.
    """
    options = {**_defaults(backend.provider, lean=lean), **backend.options}
    if any("load_compiled" in key for key in options):
        raise UsageError("`provider_option`: a compiled model that is loaded need not be this one; leave it out")
    enabled = options.get("trt_engine_cache_enable", "0").lower() in _TRUE
    if enabled and "trt_engine_cache_path" not in options:
        raise UsageError("`provider_option` trt_engine_cache_enable: name a folder too, by trt_engine_cache_path=DIR")
    folders = [key for key in options if _CACHE.search(key)]
    if folders:
        source = Path(prepared.source)
        content = b"" if file else prepared.model
        decides = {key: options[key] for key in sorted(options) if key not in folders}
        parts = (sha256(source) if source.is_file() else "", decides, backend.optimizations, file)
        key = hashlib.sha256(repr(parts).encode() + content).hexdigest()[:32]
        for name in folders:
            options[name] = str(Path(options[name]) / key)
            Path(options[name]).mkdir(parents=True, exist_ok=True)
    return options


def _cpu() -> list[str]:
    """What Linux says of the processors; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _instructions() -> list[str]:
    """The instruction sets of this CPU on which kernels for integers hang."""
    lines = _cpu()
    if not lines:
        return [platform.machine()]
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    deciding = ("avx2", "avx512bw", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "sve")
    return [platform.machine(), *(flag for flag in deciding if flag in flags)]


@functools.cache
def _preload() -> str:
    """Let the runtime find CUDA's libraries in their Python packages; returns what it complained about."""
    messages = io.StringIO()
    preload = getattr(runtime.load(), "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(messages), contextlib.suppress(OSError, RuntimeError):
            preload()
    return messages.getvalue()


def _reason(name: str) -> str:
    missing = [line.strip() for line in _preload().splitlines() if "fail" in line.lower()] if name == CUDA else []
    return f" ({missing[0][:160]})" if missing else ""
