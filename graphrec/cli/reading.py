"""The event log of a command line."""

from __future__ import annotations

import argparse
import sys

from graphrec.data import EventLog, read_events


def parse_log(options: argparse.Namespace) -> EventLog:
    """Read the files of `options.events` by the options of `add_reading_options`."""
    return read_events(
        options.events,
        src=options.src,
        dst=options.dst,
        time=options.time,
        action=options.action,
        weight=options.weight,
        header=options.header,
    )


def read_log(options: argparse.Namespace) -> EventLog:
    """Read a log as `parse_log` does, and print the number of dropped rows to stderr."""
    log = parse_log(options)
    if log.num_self_loops:
        rows = "row was" if log.num_self_loops == 1 else "rows were"
        print(
            f"graphrec: {log.num_self_loops:,} {rows} dropped, src and dst being the same user; "
            f"{len(log):,} events are left",
            file=sys.stderr,
        )
    return log
