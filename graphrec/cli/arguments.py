"""The parser of the command line: commands, their arguments, and one-line messages on wrong ones."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from graphrec.cli.reading_options import (
    EVENTS_HELP,
    PARQUET_HELP,
    add_column_options,
    add_reading_options,
    add_roles_option,
)

USAGE_ERROR = 2

COMMANDS = {
    "fit": "Fit a model on an event log.",
    "index": "Index an event log of Parquet files, also one larger than memory, for Timeline.open.",
    "recommend": "Suggest new people: print them for some users, or write those of all users to a file.",
    "evaluate": "Evaluate a bundle on later events, or its model, fitted again, on its last events.",
    "explain": "Explain why a person is suggested to a user.",
    "add": "Add events, the users in them, and features of users, without a new fit.",
    "forget": "Remove a user from the bundle.",
    "block": "Never suggest two users to each other, nor name one to the other.",
    "serve": "Answer requests for suggestions over HTTP, and take in events as they come.",
    "opt-out": "Never suggest a user to anyone, nor name the user in an explanation.",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"graphrec: {' '.join(message.split())} (see {self.prog} --help)\n")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line. Raises SystemExit, with code 2 and one line, if it is wrong."""
    parser = _parser()
    for text in arguments:
        try:
            text.encode()
        except UnicodeEncodeError:
            parser.error(f"an argument is not valid UTF-8: {text!a}")
        if "\0" in text:
            parser.error(f"an argument holds a zero byte: {text!a}")
    return parser.parse_args(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="graphrec",
        description="From an event log to suggestions: graphrec fit EVENTS --out BUNDLE, then "
        "graphrec recommend BUNDLE --user ID; see docs/service.md.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose, allow_abbrev=False)
        if name == "fit":
            log = command.add_mutually_exclusive_group(required=True)
            log.add_argument("events", metavar="EVENTS", nargs="*", default=[], help=EVENTS_HELP)
            log.add_argument(
                "--dataset", metavar="NAME", help="a built-in data set; an unknown name lists them"
            )
            command.add_argument("--out", type=_path, metavar="BUNDLE", required=True)
            command.add_argument("--users", metavar="FILE", help="CSV or Parquet: user, and features")
            add_reading_options(command)
            add_roles_option(command)
            command.add_argument(
                "--model", metavar="NAME", help="by default friend_recommender; an unknown name lists all"
            )
            continue
        if name == "index":
            command.add_argument("events", metavar="EVENTS", nargs="+", help=PARQUET_HELP)
            command.add_argument("--out", type=_path, metavar="INDEX", required=True, help="a new folder")
            command.add_argument(
                "--memory", type=_gibibytes, metavar="GIB", default=4.0, help="memory to use, about (4)"
            )
            add_column_options(command)
            continue
        command.add_argument("bundle", type=_path, metavar="BUNDLE")
        if name == "recommend":
            who = command.add_mutually_exclusive_group(required=True)
            who.add_argument(
                "--user", nargs="+", metavar="ID", help="use --user=ID for an ID that begins with a hyphen"
            )
            who.add_argument("--all", action="store_true")
            command.add_argument("--out", type=_path, metavar="FILE.parquet")
            command.add_argument(
                "--no-balance",
                action="store_true",
                help="with --all: the highest scores, without 1 %% spent on suggesting more different people",
            )
            command.add_argument("-k", type=_number, default=10, help="people for each user, at most (10)")
            command.add_argument(
                "--action",
                metavar="NAME",
                help="action to suggest people for; by default the most common one",
            )
        if name in ("explain", "forget"):
            command.add_argument("user", metavar="USER", help="put -- before an ID that begins with a hyphen")
        if name == "explain":
            command.add_argument("candidate", metavar="CANDIDATE")
        if name in ("block", "opt-out"):
            columns = "user,other" if name == "block" else "user"
            command.add_argument(
                "user", metavar="USER", nargs="?", help="put -- before an ID that begins with a hyphen"
            )
            if name == "block":
                command.add_argument("other", metavar="OTHER", nargs="?")
            command.add_argument(
                "--file", type=_path, metavar="FILE.csv", help=f"many at once: CSV with the columns {columns}"
            )
            command.add_argument("--undo", action="store_true")
        if name == "serve":
            _add_serving_options(command)
        if name in ("recommend", "explain"):
            command.add_argument(
                "--time",
                type=_seconds,
                metavar="SECONDS",
                help="use only older events; by default all",
            )
            command.add_argument(
                "--horizon",
                metavar="LENGTH",
                help="time that lists are for, such as 7d or 12h; by default at most a week",
            )
            command.add_argument(
                "--outcome",
                choices=("initiation", "tie"),
                help="what lists are for: that the user turns to the person, or that this is answered, too; "
                "by default tie, where the log has answers",
            )
            command.add_argument(
                "--now", action="store_true", help="suggest whom the user acts on next instead"
            )
        if name == "add":
            command.add_argument("events", metavar="EVENTS", nargs="*", default=[], help=EVENTS_HELP)
            command.add_argument(
                "--users", metavar="FILE", help="CSV or Parquet: user, and the features of the fit"
            )
            add_reading_options(command)
            command.add_argument("--again", action="store_true", help="accept a log that was added before")
        if name == "evaluate":
            command.add_argument("events", metavar="EVENTS", nargs="*", help=f"later events; {EVENTS_HELP}")
            add_reading_options(command)
    return parser


def _add_serving_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    command.add_argument("--port", type=_number, default=8000, help="to listen on (8000)")
    command.add_argument(
        "--tokens",
        type=_path,
        metavar="FILE",
        help="bearer tokens, a line `read TOKEN` or `write TOKEN` for each; needed unless the address is of "
        "this machine alone",
    )
    command.add_argument(
        "--rate", type=_number, default=2000, help="requests a second of one token or address (2000)"
    )
    command.add_argument(
        "--rest",
        metavar="LENGTH",
        default="30d",
        help="time for which a dismissed person is not suggested again to the user (30d)",
    )
    command.add_argument(
        "--save-every",
        metavar="LENGTH",
        default="1h",
        help="time after which writes are saved in the bundle at the latest (1h)",
    )
    command.add_argument("--access-log", action="store_true", help="log each request, with the ids in it")


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def _number(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"not a whole number of at most 18 digits: {text[:40]!r}")
    return int(text)


def _gibibytes(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or float(text) == 0:
        raise argparse.ArgumentTypeError(f"not a size in GiB, such as 4 or 0.5: {text[:40]!r}")
    return float(text)


def _seconds(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,40}", text):
        raise argparse.ArgumentTypeError(f"not a whole number of seconds: {text[:40]!r}")
    if not -(2**63) <= int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"{text} seconds are more than 64 bits hold")
    return int(text)
