"""`graphrec COMMAND ...`: expected errors end with one line and a documented exit code."""

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
"""Exit codes besides 0 for success, 1 for expected errors and 2 for a wrong command line."""

MODULES = {"block": "rule_commands", "opt-out": "rule_commands", "serve": "serve_command"}
"""Modules of commands, other than `commands`."""

EXPECTED = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, OverflowError),
    *(NotImplementedError, MemoryError, RecursionError),
)
"""Errors of arguments, files and machines; others are bugs of graphrec, shown with a stack trace."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line.

    Raises:
        SystemExit: the command failed; with the exit code, after one line.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    try:
        with _termination_raises(), warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show_warning
            # Import only the module of the command: changes of rules do without torch.
            home = MODULES.get(options.command, "commands")
            module = importlib.import_module(f"graphrec.cli.{home}")
            getattr(module, options.command.replace("-", "_"))(options)
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has closed it; keep the interpreter from failing when it flushes.
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
    """A message with escaped line ends, tabs and other control characters."""
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
    """Let SIGTERM unwind the stack, so that incomplete files are removed."""

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
