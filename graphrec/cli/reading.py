"""The event log of a command line."""

from __future__ import annotations

import argparse
import sys

from graphrec.data import EventLog, FriendGraph, Roles, UserTable, read_events


def parse_log(options: argparse.Namespace) -> EventLog:
    """Read the files of `options.events` by the options of `add_reading_options`."""
    return read_events(
        options.events,
        src=options.src,
        dst=options.dst,
        time=options.time,
        action=options.action,
        weight=options.weight,
        rating=options.rating,
        header=options.header,
    )


def read_log(options: argparse.Namespace) -> EventLog:
    """Read a log as `parse_log` does, and print the number of dropped rows to stderr."""
    log = parse_log(options)
    report_self_loops(log.num_self_loops, len(log))
    return log


def build_graph(log: EventLog, users: UserTable | None, roles: str | None) -> FriendGraph:
    """Build the graph of a log with the roles of `--roles`; print those not ordinary to stderr."""
    given = Roles.parse(roles) if roles else {}
    graph = FriendGraph.from_events(log, users, roles=given)
    found = Roles.of(log.actions, given)
    if not found.all_ordinary:
        print(f"graphrec: roles of actions: {found} (others ordinary; --roles changes them)", file=sys.stderr)
    return graph


def report_self_loops(dropped: int, left: int) -> None:
    """Print how many rows were dropped, if any were, and how many events are left, to stderr."""
    if dropped:
        rows = "row was" if dropped == 1 else "rows were"
        print(
            f"graphrec: {dropped:,} {rows} dropped, src and dst being the same user; "
            f"{left:,} events are left",
            file=sys.stderr,
        )
