"""The command line: translates arguments, prints results and errors, decides nothing."""

import os
import shlex
import signal
import sys
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
    arguments = [a for a in arguments if a != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        # A name that the locale cannot write must not end a run of hours.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        from analyzer.cli.commands import call

        call(arguments)
        _leave(0)
    except Stopped as e:
        _print_error(f"stopped; to continue: {shlex.join(['analyzer', *arguments])}")
        _leave(e.code)
    except BrokenPipeError:
        # The reader has gone, as with `| head`; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(0)
    except AnalyzerError as e:
        if debug:
            traceback.print_exc()
        _print_error(f"error: {e}")
        _leave(e.exit_code)
    except Exception as e:
        if debug:
            traceback.print_exc()
        where = traceback.extract_tb(e.__traceback__)[-1]
        _print_error(
            f"bug: {type(e).__name__}: {e} ({os.path.basename(where.filename)}:{where.lineno})\n"  # noqa: PTH119
            "please report it with the output of the same command and --debug"
        )
        _leave(1)


def _stop(number: int, _: FrameType | None) -> None:
    # A second signal stops at once.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise Stopped(number)


def _print_error(text: str) -> None:
    from analyzer.cli.terminal import safe

    sys.stderr.write(safe(text) + "\n")


def _leave(code: int) -> NoReturn:
    sys.exit(code)
