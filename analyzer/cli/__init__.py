"""The command line: translates arguments, prints results and errors, decides nothing."""

import atexit
import errno
import os
import shlex
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import NoReturn

from analyzer.cli import streams
from analyzer.errors import AnalyzerError, IncompleteError

_TRY_AGAIN = 0.02  # seconds until a signal that came during an import is looked at again
_received: list[int] = []
"""The first signal that arrived, where one did."""


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
    with streams.unfailing() as stdout:
        _received.clear()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop)
        atexit.register(_ignore_signals)
        _leave_on_second_signal()
        code = _outcome(arguments, debug=debug)
        sys.stdout.flush()
        if code == 0 and stdout is not None and stdout.error is not None and stdout.error.errno != errno.EPIPE:
            _print_error(f"error: stdout cannot be written: {stdout.error.strerror}")
            code = 2  # a reader that has gone, as with `| head`, has seen what it wanted
    sys.exit(code)


def _outcome(arguments: list[str], *, debug: bool) -> int:
    """Carry out a command, say what went wrong, and return the exit code."""
    try:
        from analyzer.cli.commands import call

        code = call(arguments)
        _settled()
        return _stopped(arguments, 128 + _received[0]) if _received else code
    except BaseException as e:
        _settled()
        if isinstance(e, Stopped) or _received:
            # Native code turns whatever is raised below it into errors of its own.
            return _stopped(arguments, e.code if isinstance(e, Stopped) else 128 + _received[0])
        if not isinstance(e, Exception):
            raise
        return _failed(e, debug=debug)


def _stopped(arguments: list[str], code: int) -> int:
    again = arguments[:1] in (["run"], ["demo"])
    _print_error(f"stopped; to continue: {shlex.join(['analyzer', *arguments])}" if again else "stopped")
    return code


def _failed(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    match error:
        case MemoryError():
            _print_error(
                f"error: not enough memory: {error}\nuse fewer --trials, --radii or --layers, or a smaller --batch-size"
            )
            return 2
        case AnalyzerError():
            from analyzer.cli.flags import flags

            _print_error(f"error: {flags(str(error))}")
            return error.exit_code
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            _print_error(f"error: {error.filename or 'a file'}: {error.strerror}\nfree some space, then try again")
            return IncompleteError.exit_code
    where = traceback.extract_tb(error.__traceback__)[-1]
    _print_error(
        f"bug: {type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})\n"  # noqa: PTH119
        "please report it with the output of the same command and --debug"
    )
    return AnalyzerError.exit_code


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


def _stop(number: int, frame: FrameType | None) -> None:
    _received[:] = _received or [number]
    if _importing(frame):
        # An extension that is stopped while it loads says that it cannot be imported. Imports are short.
        signal.signal(signal.SIGALRM, lambda _, later: _stop(number, later))
        signal.setitimer(signal.ITIMER_REAL, _TRY_AGAIN)
        return
    raise Stopped(number)


def _settled() -> None:
    """From here on one more signal changes nothing, and the next ends the process: what is left is to be said."""
    signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm during the interpreter's end would kill it
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def _ignore_signals() -> None:
    """At the interpreter's end, which puts the default action back for a handler in Python."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _print_error(text: str) -> None:
    from analyzer.text import safe

    sys.stderr.write(safe(text) + "\n")
