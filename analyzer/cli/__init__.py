"""The command line: translates arguments, prints results and errors, decides nothing."""

import errno
import os
import shlex
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import NoReturn

from analyzer.errors import AnalyzerError


class Stopped(BaseException):
    """SIGTERM or SIGINT arrived; `code` is the exit code, 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point of `analyzer`. Exit codes: 0 done, 1 bug, 2 usage, 3 gate, 4 bad input, 5 resumable, 130/143."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"] or ["--help"]
    _usable_streams()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    _leave_on_second_signal()
    try:
        from analyzer.cli.commands import call

        call(arguments)
        _leave(0)
    except Stopped as e:
        again = arguments[:1] in (["run"], ["demo"])
        _print_error(f"stopped; to continue: {shlex.join(['analyzer', *arguments])}" if again else "stopped")
        _leave(e.code)
    except MemoryError as e:
        _print_error(f"error: not enough memory: {e}\nuse fewer --trials, --radii or --layers")
        _leave(2)
    except AnalyzerError as e:
        if debug:
            traceback.print_exc()
        from analyzer.cli.flags import flags

        _print_error(f"error: {flags(str(e))}")
        _leave(e.exit_code)
    except OSError as e:
        if e.errno not in (errno.EPIPE, errno.ENOSPC, errno.EBADF):
            _bug(e, debug)
        # The reader has gone, as with `| head`, or the disk behind stdout is full; nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if e.errno == errno.EPIPE:
            _leave(0)
        _print_error(f"error: stdout cannot be written: {e.strerror}")
        _leave(2)
    except Exception as e:
        _bug(e, debug)


def _bug(error: Exception, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    where = traceback.extract_tb(error.__traceback__)[-1]
    _print_error(
        f"bug: {type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})\n"  # noqa: PTH119
        "please report it with the output of the same command and --debug"
    )
    _leave(1)


def _usable_streams() -> None:
    """A closed stream becomes a silent one, and a name that the locale cannot write does not end a run of hours."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _leave_on_second_signal() -> None:
    """End the process at a second signal even where the runtime does not come back to Python."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        count = 0
        while received := os.read(reader, 1):
            count += received[0] in (signal.SIGINT, signal.SIGTERM)
            if count == 2:
                os._exit(128 + received[0])

    threading.Thread(target=watch, daemon=True, name="second signal").start()


def _stop(number: int, _: FrameType | None) -> None:
    raise Stopped(number)


def _print_error(text: str) -> None:
    from analyzer.text import safe

    sys.stderr.write(safe(text) + "\n")


def _leave(code: int) -> NoReturn:
    sys.exit(code)
