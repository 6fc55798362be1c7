"""What may be typed: the commands, their arguments, and the one line that says what is wrong with them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from graphrec.cli.reading_options import EVENTS_HELP, add_reading_options

USAGE_ERROR = 2

COMMANDS = {
    "fit": "Fit a model on an event log.",
    "recommend": "Suggest new people: to some users, a line each, or to everybody, into a Parquet file.",
    "evaluate": "Judge a bundle on later events; or its model, fitted anew, on the last tenth of its own.",
    "explain": "Say why a person is suggested to a user.",
    "add": "Add events, the people in them and what is known of people, without fitting anew.",
    "forget": "Remove a person from the bundle.",
    "block": "Never suggest two people to each other, nor name one to the other.",
    "opt-out": "Never suggest a person to anybody, nor name the person in a reason.",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"graphrec: {' '.join(message.split())} (see {self.prog} --help)\n")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read a command line. Raises SystemExit where it makes no sense."""
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
            log.add_argument("--dataset", metavar="NAME", help="a known data set; a wrong name lists them")
            command.add_argument("--out", type=_path, metavar="BUNDLE", required=True)
            command.add_argument("--users", metavar="FILE", help="CSV or Parquet: user, and features")
            add_reading_options(command)
            command.add_argument(
                "--model", metavar="NAME", default="stu", help="stu; a wrong name lists them all"
            )
            continue
        command.add_argument("bundle", type=_path, metavar="BUNDLE")
        if name == "recommend":
            who = command.add_mutually_exclusive_group(required=True)
            who.add_argument(
                "--user", nargs="+", metavar="ID", help="--user=ID where ID begins with a hyphen"
            )
            who.add_argument("--all", action="store_true")
            command.add_argument("--out", type=_path, metavar="FILE.parquet")
            command.add_argument("-k", type=_number, default=10, help="how many people (10)")
            command.add_argument("--action", metavar="NAME", help="act hoped for; by default the commonest")
        if name in ("explain", "forget"):
            command.add_argument("user", metavar="USER", help="after -- where it begins with a hyphen")
        if name == "explain":
            command.add_argument("candidate", metavar="CANDIDATE")
        if name in ("block", "opt-out"):
            columns = "user,other" if name == "block" else "user"
            command.add_argument(
                "user", metavar="USER", nargs="?", help="after -- where it begins with a hyphen"
            )
            if name == "block":
                command.add_argument("other", metavar="OTHER", nargs="?")
            command.add_argument("--file", type=_path, metavar="FILE.csv", help=f"many at once: {columns}")
            command.add_argument("--undo", action="store_true")
        if name in ("recommend", "explain"):
            command.add_argument(
                "--time",
                type=_seconds,
                metavar="SECONDS",
                help="what is older is seen; by default everything",
            )
        if name == "add":
            command.add_argument("events", metavar="EVENTS", nargs="*", default=[], help=EVENTS_HELP)
            command.add_argument(
                "--users", metavar="FILE", help="CSV or Parquet: user, and the features of the fit"
            )
            add_reading_options(command)
            command.add_argument("--again", action="store_true", help="also a log that was added before")
        if name == "evaluate":
            command.add_argument("events", metavar="EVENTS", nargs="*", help=f"later ones; {EVENTS_HELP}")
            add_reading_options(command)
    return parser


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("a path is empty")
    return Path(text)


def _number(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"not a whole number of at most 18 digits: {text[:40]!r}")
    return int(text)


def _seconds(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,40}", text):
        raise argparse.ArgumentTypeError(f"not a whole number of seconds: {text[:40]!r}")
    if not -(2**63) <= int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"{text} seconds are more than 64 bits hold")
    return int(text)
