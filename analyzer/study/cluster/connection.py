"""A connection to a Dask scheduler, or to workers that are started on this machine."""

import contextlib
import ipaddress
import logging
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from analyzer.errors import UsageError
from analyzer.study.cluster import worker

_CONNECT = 30.0  # seconds, for a scheduler to answer
_LARGEST_MESSAGE = "64 GiB"  # Dask warns of large ones; images and parts of a network are no mistake here
_LOCAL = "local:"


def library() -> ModuleType:
    """The package `distributed`. Raises UsageError where it is not installed."""
    try:
        import distributed
    except ImportError as e:
        raise UsageError(
            f"`cluster`: Dask is not installed ({e}); install the extra [cluster] of convnet-analyzer, here and on the "
            "workers"
        ) from None
    return distributed


def check_address(address: str) -> None:
    """Raise UsageError unless `address` is one: of a scheduler, a scheduler file that is there, local:N or local:gpus.

    Example:
        >>> check_address("local:2")
    """
    if address.startswith(_LOCAL):
        count = address.removeprefix(_LOCAL)
        if count != "gpus" and not (count.isdecimal() and 1 <= int(count) <= 1024):
            raise UsageError(f"`cluster` {address}: expected local:N, N workers on this machine, or local:gpus")
    elif "://" not in address and not Path(address).is_file():
        raise UsageError(
            f"`cluster` {address}: expected tcp://HOST:PORT or tls://HOST:PORT, a scheduler file that is there, "
            "local:N or local:gpus"
        )


class Connection:
    """A client of a scheduler; of a cluster of its own for local:N. notes: what the user has to know, in sentences."""

    def __init__(self, address: str) -> None:
        """Connect. Raises UsageError where no scheduler answers, or no GPU is there for local:gpus."""
        check_address(address)
        self.dask, self.address, self.notes = library(), address, list[str]()
        self._held = contextlib.ExitStack()
        self._cluster: Any = None
        try:
            import dask

            self._held.enter_context(
                dask.config.set({"distributed.admin.large-graph-warning-threshold": _LARGEST_MESSAGE})
            )
            if address.startswith(_LOCAL):
                self._cluster = self._started(address.removeprefix(_LOCAL))
            self.client = self._connected(_CONNECT)
        except BaseException:
            self.close()
            raise
        where = str(self.client.scheduler.address)
        if self._cluster is None and where.startswith("tcp://") and not _is_here(where):
            self.notes.append(
                f"The connection to {where} is not encrypted: whoever is in between can read and change images, "
                "network and results; Dask's tls:// encrypts it."
            )

    def again(self) -> bool:
        """Connect again where the connection was given up; whether there is one now."""
        if self.client.status in ("closed", "closing", "newly-created"):
            with contextlib.suppress(UsageError):
                self.client = self._connected(1.0)
        return bool(self.client.status == "running")

    def workers(self) -> dict[str, dict[str, Any]] | None:
        """The workers that the scheduler knows now, by address; None where that is not to be had."""
        try:
            return dict(self.client.scheduler_info(n_workers=-1)["workers"])
        except Exception:  # of whatever layer of the connection; the next time it may be there
            return None

    def close(self) -> None:
        """Disconnect; workers that were started here end."""
        with contextlib.suppress(Exception):
            if hasattr(self, "client"):
                self.client.close(timeout=5)
        with contextlib.suppress(Exception):
            if self._cluster is not None:
                self._cluster.close(timeout=10)
        self._held.close()

    def _connected(self, seconds: float) -> Any:
        given: dict[str, Any] = {"address": self.address}
        if self._cluster is not None:
            given = {"address": self._cluster}
        elif "://" not in self.address:
            given = {"scheduler_file": self.address}
        try:
            return self.dask.Client(**given, timeout=seconds, set_as_default=False, name="convnet-analyzer")
        except Exception as e:  # of sockets, of TLS, of the file's content
            what = " ".join(str(e).split()) or type(e).__name__
            raise UsageError(
                f"`cluster` {self.address}: no scheduler answers: {what:.300}\nstart one with `dask scheduler`, or "
                "give its address"
            ) from e

    def _started(self, count: str) -> Any:
        """Workers here, each a process of one thread, each with one of the GPUs where these are counted."""
        places = _gpus() if count == "gpus" else [""] * int(count)
        if not places:
            raise UsageError(
                f"`cluster` {self.address}: no NVIDIA GPU here (nvidia-smi lists none); expected local:N, N workers"
            )
        nanny: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, "dashboard_address": None}
        nanny |= {"silence_logs": logging.CRITICAL, "preload": [worker.__name__]}
        workers = {
            number: {
                "cls": self.dask.Nanny,
                "options": {**nanny, "env": {"CUDA_VISIBLE_DEVICES": place} if place else {}},
            }
            for number, place in enumerate(places)
        }
        scheduler = {
            "cls": self.dask.Scheduler,
            "options": {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": None},
        }
        return self.dask.SpecCluster(
            workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL, name="convnet-analyzer"
        )


def _gpus() -> list[str]:
    """What to put into CUDA_VISIBLE_DEVICES, for each GPU that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [place.strip() for place in visible.split(",") if place.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(lines))]


def _is_here(address: str) -> bool:
    """Whether an address is this machine's loopback."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
