"""Options for the layout of an event log."""

from __future__ import annotations

import argparse

EVENTS_HELP = (
    "CSV or Parquet, compressed or not: src,dst,timestamp[,action]; files, folders, patterns or addresses"
)

PARQUET_HELP = "Parquet: src,dst,timestamp[,action]; files, folders, patterns or addresses"

COLUMN_HELP = {
    "src": "column of the acting user (src)",
    "dst": "column of the user acted upon (dst)",
    "time": "column of the time (timestamp, or time)",
    "action": "column of the action (action, if there is one)",
    "weight": "column of the weight (weight, if there is one)",
    "rating": "column of a signed rating, kept as the weight; a negative one is the action distrust",
}


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `graphrec.cli.reading.read_log` takes."""
    group = parser.add_argument_group("layout of EVENTS")
    for role, text in COLUMN_HELP.items():
        group.add_argument(f"--{role}", metavar="COLUMN", help=text)
    group.add_argument(
        "--no-header",
        dest="header",
        action="store_false",
        help="the first row is data; a COLUMN is then its number, from 1",
    )


def add_column_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the columns of an indexed log."""
    group = parser.add_argument_group("columns of EVENTS")
    for role in ("src", "dst", "time", "action"):
        group.add_argument(f"--{role}", metavar="COLUMN", help=COLUMN_HELP[role])


def add_roles_option(parser: argparse.ArgumentParser) -> None:
    """Add `--roles`, the roles of actions."""
    parser.add_argument(
        "--roles",
        metavar="ACTION=ROLE,...",
        help="roles of actions: ordinary, end, negative, block or impression, such as "
        "decline=negative,unfriend=end; by default those of their names",
    )
