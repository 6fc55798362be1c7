"""`graphrec COMMAND ...`: whatever can be mended ends with one line and a documented exit code."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TextIO

from graphrec.cli.arguments import parse_arguments

INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143
"""Exit codes, beside 0 for success, 1 for what can be mended, 2 for a command line that makes no sense."""

EXPECTED = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, OverflowError),
    *(NotImplementedError, MemoryError, RecursionError),
)
"""What bad arguments, files and machines lead to; all else is a fault of graphrec, shown with its trace."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line.

    Raises:
        SystemExit: with the exit code and one line, where the command failed.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    try:
        with _termination_raises(), warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show_warning
            # Only the module of the command: a rule is changed without the seconds that torch takes.
            rules = options.command in ("block", "opt-out")
            module = importlib.import_module(f"graphrec.cli.{'rule_commands' if rules else 'commands'}")
            getattr(module, options.command.replace("-", "_"))(options)
            sys.stdout.flush()
    except BrokenPipeError:
        # What reads the output has seen enough; the interpreter is not to complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(PIPE_CLOSED)
    except KeyboardInterrupt:
        print("graphrec: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except EXPECTED as error:
        sys.exit(f"graphrec: {one_line(_text_of(error))}")


def _text_of(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        name = error.filename
        return f"{os.fsdecode(name) if isinstance(name, bytes) else name}: {error.strerror.lower()}"
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return str(text) or type(error).__name__


def one_line(message: object) -> str:
    """A message whose line ends, tabs and other control characters are escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(message)
    )


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, UserWarning):
        print(f"graphrec: {one_line(message)}", file=sys.stderr)


@contextmanager
def _termination_raises() -> Iterator[None]:
    """Have SIGTERM unwind the stack, so that what is half-written is removed."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        print("graphrec: terminated", file=sys.stderr)
        sys.exit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
