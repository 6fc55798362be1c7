"""Commands that change only rules, without loading a model, a graph or torch."""

from __future__ import annotations

import argparse
import sys

from graphrec.cli.output import escaped
from graphrec.data.errors import DataError
from graphrec.service.rule_changes import change_rules, read_id_rows
from graphrec.service.rules import Rules

MAX_UNKNOWN_SHOWN = 5
"""Number of unknown ids that a warning names."""


def block(options: argparse.Namespace) -> None:
    """Add or remove blocked pairs."""
    pairs = [(options.user, options.other)]
    if _has_file(options, options.user, options.other):
        pairs = [(user, other) for user, other in read_id_rows(options.file, ("user", "other"))]
    _change(options, Rules.of(blocked=pairs))


def opt_out(options: argparse.Namespace) -> None:
    """Add or remove opt-outs."""
    people = [options.user]
    if _has_file(options, options.user):
        people = [user for (user,) in read_id_rows(options.file, ("user",))]
    _change(options, Rules.of(opted_out=people))


def _has_file(options: argparse.Namespace, *ids: str | None) -> bool:
    given = [one is not None for one in ids]
    if options.file is not None and any(given):
        raise DataError("give either ids or --file, not both")
    if options.file is None and not all(given):
        raise DataError(f"give {' and '.join(('USER', 'OTHER')[: len(ids)])}, or --file FILE.csv")
    return options.file is not None


def _change(options: argparse.Namespace, rules: Rules) -> None:
    if options.undo:
        change_rules(options.bundle, remove=rules)
        return
    unknown = change_rules(options.bundle, add=rules)
    if unknown:
        named = ", ".join(escaped(one) for one in unknown[:MAX_UNKNOWN_SHOWN]) + ", ..." * (
            len(unknown) > MAX_UNKNOWN_SHOWN
        )
        print(
            f"graphrec: {len(unknown):,} of these ids are not among the users ({named}); the rules are kept, "
            "and take effect as soon as they are",
            file=sys.stderr,
        )
