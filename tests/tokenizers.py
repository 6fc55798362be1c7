"""Every tokenizer that the contract tests hold to account: add one here, and it inherits them all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch_geometric.nn import SAGEConv

from graphrec.data import FriendGraph
from graphrec.tokenizer import GNNRQVAE, RandomCodes, ResidualKMeans, Tokenizer


class SageTokenizer(Tokenizer):
    """A tokenizer of one's own: two layers of PyG's SAGEConv that tell contacts from strangers."""

    def __init__(self, *, dim: int = 16, **settings: Any) -> None:
        super().__init__(**settings)
        self.dim = dim
        self.layers = nn.ModuleList([SAGEConv(2, dim), SAGEConv(dim, dim)])

    def learn(self, graph: FriendGraph, until: int) -> None:
        optimizer, events = torch.optim.Adam(self.parameters(), lr=0.01), graph.events()
        for _ in range(20):
            h = self.embed(graph, torch.arange(graph.num_users), until)
            near, wrong = h[events.src], torch.randint(graph.num_users, events.dst.shape)
            loss = softplus(-(near * h[events.dst]).sum(1)) + softplus((near * h[wrong]).sum(1))
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()

    def embed(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        src, dst = graph.events().src, graph.events().dst
        acts = torch.stack([torch.bincount(end, minlength=graph.num_users) for end in (src, dst)], dim=1)
        both = torch.stack([torch.cat([src, dst]), torch.cat([dst, src])])
        return self.layers[1](self.layers[0](acts.log1p(), both).relu(), both)[users]


TOKENIZERS: dict[str, Callable[..., Tokenizer]] = {
    "gnn_rqvae": partial(GNNRQVAE, dim=4, epoch_batches=2, batch_size=32, max_epochs=1),
    "residual_kmeans": partial(ResidualKMeans, dim=4),
    "residual_kmeans_balanced": partial(ResidualKMeans, dim=4, balanced=True),
    "sage": partial(SageTokenizer, dim=4),
    "random_codes": RandomCodes,
}
"""By the name of a test: what builds it, unfitted; takes the settings of a `Tokenizer`."""

BY_CHANCE = {"random_codes"}
"""Those whose codes follow the name of a user and not what the user did."""
