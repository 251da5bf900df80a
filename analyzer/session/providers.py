"""Execution providers: their names and options, opening a session on one, and proof that it is really used."""

import contextlib
import functools
import io
import os
import platform
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from analyzer.errors import UsageError
from analyzer.graph import Prepared, probe
from analyzer.session import runtime
from analyzer.session.interface import InferenceSession

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
NAMES = {
    "cpu": CPU,
    "cuda": CUDA,
    "tensorrt": TENSORRT,
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}
_AUTO = (CUDA, CPU)
_WORK = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedGemm", "FusedMatMul", "QLinearConv"})
# Arithmetic on shapes and indices belongs on the CPU whatever the provider.
_SHAPE_WORK = frozenset(
    {"Shape", "Size", "Gather", "Concat", "Slice", "Squeeze", "Unsqueeze", "Cast", "Constant", "ConstantOfShape"}
    | {"Reshape", "Range", "Add", "Sub", "Mul", "Div", "Mod", "Floor", "Ceil", "Equal", "Where", "Identity", "Less"}
    | {"Greater", "ReduceProd", "ReduceMax", "ReduceMin", "Expand", "Split", "Transpose", "NonZero", "ScatterND"}
)
Placement = Mapping[str, Counter[str]]


def choose(provider: str) -> str:
    """The provider's full name for "auto", a short name such as "cuda", or a full name.

    "auto" is the first of CUDA and CPU that proves to work. Raises UsageError for an unknown name and for one that
    this installation does not have.
    """
    compiled = _compiled()
    if provider == "auto":
        return next((name for name in _AUTO if name == CPU or (name in compiled and proof(name)[0])), CPU)
    name = NAMES.get(provider.lower(), provider)
    if name not in NAMES.values() and name not in compiled:
        raise UsageError(f"provider {provider!r}: unknown; use auto, {', '.join(NAMES)}")
    if name not in compiled:
        have = ", ".join(short(p) for p in compiled)
        mend = "; install the extra [gpu] in place of [cpu]" if name == CUDA else ""
        version = runtime.load().__version__
        raise UsageError(f"provider {provider!r}: not part of the installed onnxruntime {version} (has {have}){mend}")
    return name


def device_of(provider: str) -> str:
    """What `graph.prepare` is to prepare for: "cpu", "cuda", ... for any name that `choose` takes."""
    return short(choose(provider))


def short(name: str) -> str:
    """The short name of a provider, e.g. "cuda"."""
    return next((key for key, full in NAMES.items() if full == name), name.removesuffix("ExecutionProvider").lower())


def open_session(prepared: Prepared, name: str, *, threads: int | None = None, lean: bool = False) -> InferenceSession:
    """A session of the runtime on provider `name`. Raises UsageError where the runtime quietly took another.

    `lean` keeps CUDA's convolution workspace small. Exceptions of the runtime pass through.
    """
    module = runtime.load()
    order = {CPU: [CPU], TENSORRT: [TENSORRT, CUDA, CPU]}.get(name, [name, CPU])
    if name != CPU:
        _preload()
    session: InferenceSession = module.InferenceSession(
        prepared.model,
        runtime.options(folder=str(prepared.folder), threads=threads),
        providers=[(each, _options(each, lean=lean)) for each in order],
        enable_fallback=0,
        read_config_from_model=0,
    )
    used = session.get_providers()[0]
    if used != name:
        raise UsageError(
            f"provider {short(name)!r}: onnxruntime fell back to {short(used)}{_reason(name)}; see `analyzer doctor`, "
            f"or use `provider` {short(used)}"
        )
    return session


def placement(session: InferenceSession) -> Placement | None:
    """Operator -> how many of its nodes each provider runs; None where this runtime does not record it."""
    try:
        assigned = session.get_provider_graph_assignment_info()
    except (AttributeError, RuntimeError):
        return None
    counts: dict[str, Counter[str]] = {}
    for part in assigned:
        for node in part.get_nodes():
            counts.setdefault(node.op_type, Counter())[part.ep_name] += 1
    return counts


def judge(nodes: Placement | None, name: str) -> tuple[bool, list[str]]:
    """(whether provider `name` really does the work, notes about nodes that are left to the CPU).

    nodes: what `placement` returned.
    """
    if name == CPU:
        return True, []
    if nodes is None:
        return True, [f"This onnxruntime does not tell where nodes run; {short(name)} is taken on trust."]
    work = Counter[str]()
    for operator in nodes.keys() & _WORK if nodes.keys() & _WORK else nodes.keys():
        work += nodes[operator]
    left = {operator: counts[CPU] for operator, counts in nodes.items() if counts[CPU] and operator not in _SHAPE_WORK}
    notes = []
    if left:
        listed = ", ".join(f"{count} {operator}" for operator, count in sorted(left.items()))
        notes.append(f"Left on the CPU by {short(name)}: {listed}.")
    return work[name] > 0, notes


@functools.cache
def proof(name: str) -> tuple[bool, str]:
    """(whether a convolution really runs on provider `name` with the right result, why not)."""
    try:
        prepared = probe.one_convolution()
        session = open_session(prepared, name)
        used, _ = judge(placement(session), name)
        if not used:
            return False, "the convolution was placed on another provider"
        (result,) = session.run(None, {prepared.input: np.ones((1, *probe.SHAPE), np.float32)})
    except Exception as e:  # whatever the driver or the runtime raises is the answer
        return False, runtime.brief(e)
    if not np.allclose(result, 9.0, rtol=1e-3):
        return False, "a convolution gave a wrong result"
    return True, ""


class ProviderStatus(TypedDict):
    """One provider: short name, full name, whether it is part of the installed runtime, whether it works, why not."""

    name: str
    provider: str
    compiled: bool
    works: bool
    reason: str


def available() -> list[ProviderStatus]:
    """The state of CPU, CUDA and all other providers of the installed runtime, each tried on a small convolution."""
    compiled = _compiled()
    names = list(dict.fromkeys([CPU, CUDA, *compiled]))
    rows: list[ProviderStatus] = []
    for name in names:
        inside = name in compiled
        works, reason = proof(name) if inside else (False, "not part of the installed onnxruntime")
        rows.append({"name": short(name), "provider": name, "compiled": inside, "works": works, "reason": reason})
    return rows


def device_name(name: str) -> str:
    """The device behind provider `name`, for people."""
    if name != CPU:
        for device in _devices():
            if device.ep_name == name:
                described = dict(device.device.metadata).get("Description") or device.device.vendor
                return f"{described} ({short(name)})".strip()
        return f"{short(name)} device 0"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {os.cpu_count()} logical cores"


def _compiled() -> list[str]:
    # Azure's provider only calls remote services; it can run no graph here.
    return [name for name in runtime.load().get_available_providers() if name != "AzureExecutionProvider"]


def _devices() -> list[Any]:
    try:
        return list(runtime.load().get_ep_devices())
    except (AttributeError, RuntimeError):
        return []


def _options(name: str, *, lean: bool) -> dict[str, str]:
    if name != CUDA:
        return {}
    return {
        "use_tf32": "0",  # its errors of 1e-3 would drown the small radii
        "cudnn_conv_algo_search": "EXHAUSTIVE",  # tuned once: every batch has the same shape
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_use_max_workspace": "0" if lean else "1",
    }


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
