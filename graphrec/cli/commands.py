"""Commands that need a model and a graph."""

from __future__ import annotations

import argparse
import sys
from itertools import count
from pathlib import Path
from time import monotonic

from graphrec.cli.output import escaped
from graphrec.cli.reading import build_graph, read_log, report_self_loops
from graphrec.data import DataError, Roles, read_users
from graphrec.datasets import load_dataset
from graphrec.evaluate.list_questions import parse_length
from graphrec.models import DEFAULT_MODEL, Question, build
from graphrec.report import list_table, slice_table
from graphrec.service import Bundle, RuleStore, StaleBundleError, current_digest, suggest_everyone
from graphrec.service.export import check_output
from graphrec.service.manifest import check_target
from graphrec.serving.compaction import save_fit
from graphrec.temporal import index_parquet
from graphrec.threads import one_intra_op_thread


@one_intra_op_thread()
def fit(options: argparse.Namespace) -> None:
    """Fit a bundle, which replaces the one that was there when the command started."""
    check_target(options.out)
    model = options.model or DEFAULT_MODEL
    build(model)  # fails for an unknown name before the log is read
    before = current_digest(options.out)
    if options.dataset:
        graph = load_dataset(options.dataset, roles=Roles.parse(options.roles) if options.roles else None)
    else:
        users = read_users(options.users) if options.users else None
        graph = build_graph(read_log(options), users, options.roles)
    bundle = Bundle.fit(graph, model=model)
    try:
        carried = save_fit(bundle, options.out, before)
    except StaleBundleError:
        spare = _save_beside(bundle.with_rules(RuleStore(options.out).current()), options.out)
        raise DataError(
            f"{options.out}: another process has written it while this fit ran, and its version stays; "
            f"this fit is in {spare}, with the current rules"
        ) from None
    if carried:
        print(f"graphrec: {carried:,} later events of the served bundle were carried over", file=sys.stderr)
    _print_summary(options.out, bundle)
    print(f"{bundle.tokenizer.table}")


@one_intra_op_thread()
def index(options: argparse.Namespace) -> None:
    """Index a log of Parquet files; progress goes to stderr."""
    start = monotonic()
    found = index_parquet(
        options.events,
        options.out,
        src=options.src,
        dst=options.dst,
        time=options.time,
        action=options.action,
        memory=int(options.memory * 2**30),
        progress=lambda text: print(f"graphrec: {text}", file=sys.stderr, flush=True),
    )
    report_self_loops(found.num_self_loops, found.num_events)
    print(
        f"{options.out}: {found.num_events:,} events, {found.num_users:,} users, "
        f"{len(found.actions)} actions, {monotonic() - start:,.0f} s"
    )


@one_intra_op_thread()
def recommend(options: argparse.Namespace) -> None:
    """Print suggestions, or write them to a file."""
    if options.all and not options.out:
        raise DataError("--all needs --out FILE.parquet")
    if options.out and not options.all:
        raise DataError("--out needs --all; suggestions to some users are printed")
    if options.no_balance and not options.all:
        raise DataError("--no-balance needs --all; lists are balanced in a file of all users alone")
    if options.k < 1:
        raise DataError(f"k must be at least 1, got {options.k}")
    if options.all:
        check_output(options.out, options.bundle)
    bundle = Bundle.load(options.bundle)
    asked = _question(options) | Question(action=options.action)
    if options.all:
        suggest_everyone(bundle, options.out, k=options.k, balance=not options.no_balance, **asked)
        print(f"{options.out}: {bundle.graph.num_users:,} users")
        return
    for given in bundle.suggest(options.user, k=options.k, **asked):
        user = escaped(given.user)
        for person, score in zip(given.people, given.scores, strict=True):
            print(user, escaped(person), f"{score:.6g}", sep="\t")
        if not given.people:
            print(user, "", "", sep="\t")
            print(f"graphrec: there is nobody to suggest to {user}", file=sys.stderr)


@one_intra_op_thread()
def evaluate(options: argparse.Namespace) -> None:
    """Evaluate a bundle; print the precision of its lists, and MRR by slice."""
    log = read_log(options) if options.events else None
    found = Bundle.load(options.bundle).evaluate(log)
    if len(found.lists.questions):
        print(f"{list_table(found.lists.rows(), [], 'test')}\n")
    print(slice_table(found.next_acts.rows(), "test"))


@one_intra_op_thread()
def explain(options: argparse.Namespace) -> None:
    """Print the explanation of a suggestion."""
    found = Bundle.load(options.bundle).explain(options.user, options.candidate, **_question(options))
    print(escaped(found.sentence))


@one_intra_op_thread()
def add(options: argparse.Namespace) -> None:
    """Add events and users to a bundle."""
    check_target(options.bundle)
    if not options.events and not options.users:
        raise DataError("give EVENTS, or --users FILE, or both")
    log = read_log(options) if options.events else None
    users = read_users(options.users) if options.users else None
    changed = Bundle.update(options.bundle, lambda bundle: bundle.add(log, users, again=options.again))
    _print_summary(options.bundle, changed)


@one_intra_op_thread()
def forget(options: argparse.Namespace) -> None:
    """Remove a user from a bundle."""
    _print_summary(options.bundle, Bundle.update(options.bundle, lambda bundle: bundle.forget(options.user)))


def _question(options: argparse.Namespace) -> Question:
    """The question of a command line."""
    horizon = None if options.horizon is None else parse_length(options.horizon, "--horizon")
    return {"time": options.time, "horizon": horizon, "outcome": options.outcome, "now": options.now}


def _print_summary(path: Path, bundle: Bundle) -> None:
    graph = bundle.graph
    print(f"{path}: {graph.num_users:,} users, {graph.num_events:,} events, {bundle.model}")


def _save_beside(bundle: Bundle, path: Path) -> Path:
    """Save a bundle under a name beside a path that nothing else has."""
    real = path.resolve()  # "." has no name of its own
    for number in count(1):
        spare = real.with_name(f"{real.name}.fit-{number}")
        try:
            spare.mkdir()
        except FileExistsError:
            continue
        bundle.save(spare)
        break
    return spare
