"""Fit a model on an event log, keep it in a bundle, and answer requests from the bundle.

python examples/fit_and_serve.py LOG.csv [--model adamic_adar] [--out bundle]

LOG.csv has the columns src,dst,timestamp[,action]; other names can be given to `read_events`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from graphrec import Bundle, FriendGraph, read_events


def main() -> None:
    """Fit, save, load, suggest, explain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument(
        "--model", default="adamic_adar", help="a name of graphrec.models.MODELS, such as stu"
    )
    parser.add_argument("--out", type=Path, default=Path("bundle"))
    options = parser.parse_args()

    graph = FriendGraph.from_events(read_events(options.log))
    Bundle.fit(graph, model=options.model).save(options.out)

    bundle = Bundle.load(options.out)  # what a service does when it starts
    some = bundle.graph.user_ids.lookup(range(3))
    for given in bundle.suggest(some, k=5):
        print(f"{given.user}: {', '.join(map(str, given.people))}")
        for person in given.people[:1]:
            print(f"  {bundle.explain(given.user, person)}")

    # From now on neither of the first two is suggested to the other.
    blocked = bundle.with_rules(bundle.rules.block(*some[:2]))
    blocked.save(options.out)


if __name__ == "__main__":
    main()
