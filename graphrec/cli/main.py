"""The command line: from an event log to suggestions.

graphrec fit EVENTS --out BUNDLE, then graphrec recommend BUNDLE --user ID; see docs/service.md.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from graphrec.data import FriendGraph, read_events, read_users
from graphrec.datasets import DATASETS, load_dataset
from graphrec.models import MODELS
from graphrec.report import slice_table
from graphrec.service import manifest as sealed
from graphrec.service.bundle import DEFAULT_MODEL, Bundle, read_rules
from graphrec.service.export import suggest_everyone

EVENTS_HELP = "CSV, plain or .gz, or Parquet: src,dst,timestamp[,action]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and turn what a user can mend into one line."""
    options = _parser().parse_args(arguments)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            options.run(options)
        for text in dict.fromkeys(str(one.message) for one in caught):
            print(f"graphrec: {text}", file=sys.stderr)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        sys.exit(f"graphrec: {error.args[0] if isinstance(error, KeyError) else error}")


def fit(options: argparse.Namespace) -> None:
    """Fit a model on an event log."""
    rules = read_rules(options.out)
    if options.dataset:
        graph = load_dataset(options.dataset)
    else:
        users = read_users(options.users) if options.users else None
        graph = FriendGraph.from_events(read_events(options.events), users)
    bundle = Bundle.fit(graph, model=options.model, rules=rules)
    bundle.save(options.out)
    _say(options.out, bundle)
    print(f"{bundle.tokenizer.table}")


def recommend(options: argparse.Namespace) -> None:
    """Suggest new people: to some users, a line each, or to everybody, into a Parquet file."""
    if options.all and not options.out:
        raise ValueError("--all needs --out FILE.parquet")
    bundle = Bundle.load(options.bundle)
    asked = {"k": options.k, "time": options.time, "action": options.action}
    if options.all:
        suggest_everyone(bundle, options.out, **asked)
        print(f"{options.out}: {bundle.graph.num_users:,} users")
        return
    for given in bundle.suggest(options.user, **asked):
        for person, score in zip(given.people, given.scores, strict=True):
            print(given.user, person, f"{score:.6g}", sep="\t")


def evaluate(options: argparse.Namespace) -> None:
    """Judge a bundle on later events; without them its model, fitted anew, on the last tenth of its own."""
    log = read_events(options.events) if options.events else None
    ranks = Bundle.load(options.bundle).evaluate(log)
    print(slice_table(ranks.rows(), "test"))


def explain(options: argparse.Namespace) -> None:
    """Say why a person is suggested to a user."""
    print(Bundle.load(options.bundle).explain(options.user, options.candidate, time=options.time).sentence)


def add(options: argparse.Namespace) -> None:
    """Add events, and the people in them, without fitting anew."""
    bundle = Bundle.load(options.bundle).add(read_events(options.events))
    bundle.save(options.bundle)
    _say(options.bundle, bundle)


def forget(options: argparse.Namespace) -> None:
    """Remove a person from the bundle."""
    bundle = Bundle.load(options.bundle)
    sealed.delete_stale(options.bundle)  # should forgetting have been killed before
    bundle = bundle.forget(options.user)
    bundle.save(options.bundle)
    _say(options.bundle, bundle)


def block(options: argparse.Namespace) -> None:
    """Never suggest two people to each other, nor name one to the other."""
    bundle = Bundle.load(options.bundle)
    change = bundle.rules.unblock if options.undo else bundle.rules.block
    bundle.with_rules(change(options.user, options.other)).save(options.bundle)


def opt_out(options: argparse.Namespace) -> None:
    """Never suggest a person to anybody, nor name the person in a reason."""
    bundle = Bundle.load(options.bundle)
    change = bundle.rules.opt_in if options.undo else bundle.rules.opt_out
    bundle.with_rules(change(options.user)).save(options.bundle)


def _say(path: Path, bundle: Bundle) -> None:
    graph = bundle.graph
    print(f"{path}: {graph.num_users:,} users, {graph.num_events:,} events, {bundle.model}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="graphrec", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for run in (fit, recommend, evaluate, explain, add, forget, block, opt_out):
        command = commands.add_parser(
            run.__name__.replace("_", "-"), help=run.__doc__, description=run.__doc__
        )
        command.set_defaults(run=run)
        if run is fit:
            log = command.add_mutually_exclusive_group(required=True)
            log.add_argument("events", metavar="EVENTS", nargs="?", help=EVENTS_HELP)
            log.add_argument("--dataset", metavar="NAME", help=f"one of {', '.join(DATASETS)}")
            command.add_argument("--out", type=Path, metavar="BUNDLE", required=True)
            command.add_argument("--users", metavar="FILE", help="CSV or Parquet: user, and features")
            command.add_argument(
                "--model", metavar="NAME", default=DEFAULT_MODEL, help=f"one of {', '.join(MODELS)}"
            )
            continue
        command.add_argument("bundle", type=Path, metavar="BUNDLE")
        if run is recommend:
            who = command.add_mutually_exclusive_group(required=True)
            who.add_argument("--user", nargs="+", metavar="ID")
            who.add_argument("--all", action="store_true")
            command.add_argument("--out", type=Path, metavar="FILE.parquet")
            command.add_argument("-k", type=int, default=10, help="how many people (10)")
            command.add_argument("--action", metavar="NAME", help="act hoped for; by default the commonest")
        if run in (explain, forget, block, opt_out):
            command.add_argument("user", metavar="USER")
        if run is explain:
            command.add_argument("candidate", metavar="CANDIDATE")
        if run is block:
            command.add_argument("other", metavar="OTHER")
        if run in (block, opt_out):
            command.add_argument("--undo", action="store_true")
        if run in (recommend, explain):
            command.add_argument(
                "--time", type=int, metavar="SECONDS", help="what is older is seen; by default everything"
            )
        if run is add:
            command.add_argument("events", metavar="EVENTS", help=EVENTS_HELP)
        if run is evaluate:
            command.add_argument("events", metavar="EVENTS", nargs="?", help=f"later ones; {EVENTS_HELP}")
    return parser
