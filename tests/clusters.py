"""A real Dask scheduler and real Dask workers, each a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

_PATIENCE = 120  # seconds, for a process to come up


def free_port() -> int:
    """A port of this machine that nothing listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Dask:
    """A context manager: a scheduler, and the workers that are started for it; all killed at its end.

    prefix: of the scheduler's command. scheduler_options, worker_options: of every one. environment: added to theirs.
    """

    def __init__(self, folder: Path, *, host="127.0.0.1", protocol="tcp", options=(), environment=None):
        pytest.importorskip("distributed", reason="needs the extra [cluster]")
        self.folder, self.host, self.port, self.protocol = folder / "dask", host, free_port(), protocol
        self.folder.mkdir()
        self.options, self.environment = tuple(options), {**os.environ, **(environment or {})}
        self.processes: list[subprocess.Popen] = []
        self.scheduler: subprocess.Popen | None = None
        self.file = self.folder / "scheduler.json"

    def __enter__(self) -> "Dask":
        self.start_scheduler()
        return self

    def __exit__(self, *error) -> None:
        for process in [*self.processes, self.scheduler]:
            if process is not None and process.poll() is None:
                process.kill()
        for process in [*self.processes, self.scheduler]:
            if process is not None:
                process.wait()

    @property
    def address(self) -> str:
        """Of the scheduler."""
        return f"{self.protocol}://{self.host}:{self.port}"

    def start_scheduler(self) -> None:
        """At the same address as before, where there was one."""
        self.file.unlink(missing_ok=True)
        listen = ["--host", self.host, "--port", str(self.port), "--protocol", self.protocol]
        self.scheduler = self._popen(
            "scheduler", *listen, "--no-dashboard", "--no-show", "--scheduler-file", self.file, *self.options
        )
        self._until(lambda: self.file.exists() and self.file.read_text().endswith("}"), self.scheduler)
        assert self.protocol in json.loads(self.file.read_text())["address"]

    def worker(self, *options, prefix=(), address=None, nthreads=1, preload=None, wait=True) -> subprocess.Popen:
        """Start one without a nanny, so that killing it kills the worker itself."""
        name = f"w{len(self.processes)}"
        scratch = self.folder / name
        loaded = ("--preload", self._module(name, preload)) if preload else ()
        given = ["--no-nanny", "--no-dashboard", "--nthreads", nthreads, "--name", name, "--local-directory", scratch]
        where = address or self.address
        process = self._popen("worker", where, *given, *loaded, *self.options, *options, prefix=prefix)
        self.processes.append(process)
        if wait:
            self._until(lambda: "Registered to" in self.log(process), process)
        return process

    def log(self, process) -> str:
        """What a process has written."""
        return (self.folder / f"{process.args_name}.log").read_text()

    def kill(self, process) -> None:
        """SIGKILL."""
        process.send_signal(signal.SIGKILL)
        process.wait()

    def _module(self, name: str, source: str) -> Path:
        """A module that a worker loads at its start: what is to go wrong there."""
        file = self.folder / f"{name}_preload.py"
        file.write_text(f"SOURCE = {source!r}\n\n\ndef dask_setup(worker):\n    exec(SOURCE, {{}})\n")
        return file

    def _popen(self, *arguments, prefix=()) -> subprocess.Popen:
        command = [*prefix, sys.executable, "-m", "dask", *map(str, arguments)]
        name = f"{arguments[0]}-{len(list(self.folder.glob('*.log')))}"
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=self.environment, start_new_session=True
            )
        process.args_name = name
        return process

    def _until(self, condition, process) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            assert process.poll() is None, self.log(process)
            assert time.monotonic() < deadline, self.log(process)
            time.sleep(0.02)
