"""Providers that really work: which one is taken, and proof that it does the work it is said to do."""

import functools
from typing import TypedDict

import numpy as np

from analyzer.errors import UsageError
from analyzer.graph import Prepared, probe
from analyzer.session import placement, plugins, providers, runtime
from analyzer.session.backend import Backend
from analyzer.session.interface import InferenceSession
from analyzer.session.placement import CPU
from analyzer.session.providers import CUDA, NAMES, OPENVINO, short

_AUTO = (CUDA, CPU)


def choose(provider: str) -> str:
    """The provider's full name for "auto", a short name such as "cuda", or a full name.

    "auto" is the first of CUDA and CPU that proves to work. Raises UsageError for an unknown name and for one that
    this installation does not have.
    """
    compiled = providers.compiled()
    if provider == "auto":
        return next((name for name in _AUTO if name == CPU or (name in compiled and proof(name)[0])), CPU)
    name = NAMES.get(provider.lower(), provider)
    if name in compiled:
        return name
    brought = plugins.installed()
    if reason := brought.get(name):
        mend = "; the package onnxruntime-openvino in place of onnxruntime may run here" if name == OPENVINO else ""
        raise UsageError(f"provider {provider!r}: {reason}{mend}")
    if name in brought:
        return name
    if name not in NAMES.values():
        raise UsageError(f"provider {provider!r}: unknown; use auto, {', '.join(NAMES)}")
    have = ", ".join(short(p) for p in (*compiled, *(p for p, reason in brought.items() if not reason)))
    extra = {CUDA: "gpu", OPENVINO: "openvino"}.get(name, "")
    mend = f"; install the extra [{extra}] in place of [cpu]" if extra else ""
    version = runtime.load().__version__
    raise UsageError(f"provider {provider!r}: not part of the installed onnxruntime {version} (has {have}){mend}")


def device_of(provider: str) -> str:
    """What `graph.prepare` is to prepare for: "cpu", "cuda", ... for any name that `choose` takes."""
    return short(choose(provider))


@functools.cache
def proof(name: str, options: tuple[tuple[str, str], ...] = ()) -> tuple[bool, str]:
    """(whether a convolution really runs on provider `name` with the right result, why not)."""
    try:
        prepared = probe.one_convolution()
        session = providers.open_session(prepared, Backend(name, options=dict(options)))
        part = placement.shares(placement.placement(session), {})
        if part and not part.get(name):
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
    compiled, brought = providers.compiled(), plugins.installed()
    names = list(dict.fromkeys([CPU, CUDA, *compiled, *brought]))
    rows: list[ProviderStatus] = []
    for name in names:
        inside = name in compiled or name in brought
        why = "" if name in compiled else brought.get(name, "not part of the installed onnxruntime")
        works, reason = (False, why) if why else proof(name)
        rows.append({"name": short(name), "provider": name, "compiled": inside, "works": works, "reason": reason})
    return rows


def of_work(session: InferenceSession, prepared: Prepared, backend: Backend) -> list[str]:
    """What of the graph the provider leaves to others, in sentences.

    Raises UsageError where it runs less of the multiply-adds than `backend.share`, or none.
    """
    name = backend.provider
    if name == CPU:
        return []
    nodes = placement.placement(session)
    if nodes is None:
        return [f"This onnxruntime does not tell where nodes run; {short(name)} is taken on trust."]
    shares = placement.shares(nodes, dict(prepared.work))
    share, asked = shares.get(name, 0.0), backend.share
    if nodes and (share == 0 or share < asked):
        others = ", ".join(f"{short(other)} {part:.0%}" for other, part in shares.items() if part and other != name)
        lower = ", or a lower `provider_share`" if share else ""
        raise UsageError(
            f"provider {short(name)!r}: runs {share:.0%} of the work of {prepared.source} ({others}), and "
            f"`provider_share` asks for {asked:.0%}; use another `provider`{lower}"
        )
    notes = [f"{short(name)} runs {share:.1%} of the work, by multiply-adds."] if nodes and share < 1 else []
    if left := placement.left_on_cpu(nodes):
        notes.append(f"Left on the CPU by {short(name)}: {left}.")
    return notes
