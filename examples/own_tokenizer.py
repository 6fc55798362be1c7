"""A tokenizer of your own: two layers of GraphSAGE learn to tell contacts from strangers.

python examples/own_tokenizer.py [--dataset Copenhagen]

`Tokenizer` takes care of codes, unique STUs, newcomers, refits, files and the quality report. A subclass
gives every user a vector (`embed`) and trains what makes the vectors (`learn`). docs/stus.md has the details.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch_geometric.nn import GraphSAGE

from graphrec import FriendGraph, load_dataset
from graphrec.tokenizer import ResidualKMeans, Tokenizer, evaluate_tokenizer


class Sage(Tokenizer):
    """GraphSAGE over the numbers of events done and received."""

    def __init__(self, *, dim: int = 16, **settings: Any) -> None:
        super().__init__(**settings)
        self.dim, self.net = dim, GraphSAGE(2, dim, num_layers=2)

    def learn(self, graph: FriendGraph, until: int) -> None:
        """Train `net` to score the target of an event above a random user; `graph` ends before `until`."""
        optimizer, events = torch.optim.Adam(self.parameters(), lr=0.01), graph.events()
        for _ in range(50):
            h = self.embed(graph, torch.arange(graph.num_users), until)
            wrong = torch.randint(graph.num_users, events.dst.shape)
            optimizer.zero_grad()
            (-logsigmoid((h[events.src] * (h[events.dst] - h[wrong])).sum(1))).mean().backward()
            optimizer.step()

    def embed(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        """Vectors [n, dim] of users [n], from events strictly before `until`."""
        ends = torch.stack([graph.events().src, graph.events().dst])
        x = torch.stack([torch.bincount(end, minlength=graph.num_users) for end in ends], dim=1)
        return self.net(x.log1p(), torch.cat([ends, ends.flip(0)], dim=1))[users]


def main() -> None:
    """Fit on the first half of the events, and print what ties of the second half say of the codes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="Copenhagen")
    graph = load_dataset(parser.parse_args().dataset)
    time = graph.events().time
    middle = int(time[len(time) // 2])
    warnings.simplefilter("ignore")  # the report has the warnings
    for tokenizer in (Sage(), ResidualKMeans()):
        tokenizer.fit(graph, until=middle)
        print(evaluate_tokenizer(tokenizer, graph, later=int(time[-1]) + 1).table(), end="\n\n")


if __name__ == "__main__":
    main()
