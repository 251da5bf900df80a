"""Execution providers from packages of their own, `onnxruntime-ep-*`, beside any build of the runtime."""

import functools
import importlib
import importlib.metadata
import re
from typing import Any

from analyzer.session import runtime

_PACKAGE = re.compile(r"onnxruntime[-_.]ep[-_.]", re.IGNORECASE)


@functools.cache
def installed() -> dict[str, str]:
    """Full name of each provider that such a package brings -> "", or why its library cannot be used."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"] or ""
        if not _PACKAGE.match(name):
            continue
        package = f"{name} {distribution.version}"
        try:
            module = importlib.import_module(re.sub(r"[-.]", "_", name.lower()))
            names = [str(one) for one in module.get_ep_names()]
        except Exception as e:  # whatever a package does when it is imported
            found[name] = f"{package} cannot be imported: {runtime.brief(e)}"
            continue
        try:
            runtime.load().register_execution_provider_library(name, module.get_library_path())
            found |= dict.fromkeys(names, "")
        except Exception as e:  # the runtime's exceptions have no common base
            found |= dict.fromkeys(names, f"{package} cannot be registered: {runtime.brief(e)}")
            continue
        for provider in names:
            if not devices(provider):
                found[provider] = f"{package} is installed, but lists no device on this machine"
    return found


def devices(provider: str) -> list[Any]:
    """The runtime's devices of a provider; none where this runtime knows no devices."""
    try:
        return [device for device in runtime.load().get_ep_devices() if device.ep_name == provider]
    except (AttributeError, RuntimeError):
        return []
