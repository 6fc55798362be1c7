"""The part of both towers that reads users' profiles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.features import NUM_QUERY_FEATURES
from graphrec.nn.cached_values import cached_value

USERS_PER_BLOCK = 2**16
"""Users whose vectors are computed at once."""


class ProfileNet(nn.Module):
    """The affinity of two users' profiles, and linear terms of profiles for both towers.

    The affinity is q(x_u) . t(x_v) + b(x_v), with two multilayer perceptrons. They are trained apart, on all
    contacts (see `graphrec.models.mixture.profile_affinity`), and then fixed, so that what follows reads
    their outputs from a table of users. How much the affinity counts for a query is learned from the query's
    features, and is 1 at first. For targets without an event yet, the popularity c(x_v) expected from their
    features is added. The linear terms start at zero.

    Args:
        num_columns: F + 1, columns of `Profiles.x`.
        embedding_dim: D, width of the towers.
        affinity_dim: K, of q and t.
        hidden_channels: of the perceptrons.

    Attributes:
        actor: [n, W] -> [n, D], from rows of the table, added to user embeddings in the user tower.
        term: [n, W] -> [n, D + 1]: a term of the target embedding, and of the bias.
        weight: [n, Q] -> [n, 1], from standardized query features, a change of the weight of the affinity.

    Shapes: W = 2 K + 3, of the rows [q, t, b, c, 1] of `table`.
    """

    def __init__(
        self, num_columns: int, embedding_dim: int, *, affinity_dim: int = 32, hidden_channels: int = 64
    ) -> None:
        super().__init__()
        self.affinity_dim = affinity_dim
        width = 2 * affinity_dim + 3
        self.actor = nn.Linear(width, embedding_dim, bias=False)
        self.term = nn.Linear(width, embedding_dim + 1, bias=False)
        self.weight = nn.Linear(NUM_QUERY_FEATURES, 1)
        for layer in (self.actor, self.term, self.weight):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.weight.bias)
        self.query, self.target = (
            nn.Sequential(
                nn.Linear(num_columns, hidden_channels), nn.GELU(), nn.Linear(hidden_channels, size)
            )
            for size in (affinity_dim, affinity_dim + 2)
        )
        self.train_affinity(False)

    @property
    def num_factors(self) -> int:
        """K + 1, the width of `affinity_query`."""
        return self.affinity_dim + 1

    def train_affinity(self, trained: bool) -> None:
        """Let the perceptrons be trained, or fix them."""
        for layer in (self.query, self.target):
            layer.requires_grad_(trained)

    def table(self, x: Tensor) -> Tensor:
        """The outputs of the perceptrons for all profiles [N, F + 1]: [N, W], on the device; cached."""
        weights = [*self.query.parameters(), *self.target.parameters()]

        def compute() -> Tensor:
            out = []
            for block in x.split(USERS_PER_BLOCK):
                there = block.to(weights[0].device)
                one = torch.ones_like(there[:, :1])
                out.append(torch.cat([self.query(there), self.target(there), one], dim=1))
            return torch.cat(out)

        return cached_value(self, "table", (x, *weights), compute)

    def affinity_query(self, rows: Tensor) -> Tensor:
        """The query's factors of the affinity, from rows of the table [n, W]: [n, K + 1]; the last is 1."""
        return torch.cat([rows[:, : self.affinity_dim], rows[:, -1:]], dim=1)

    def affinity_weight(self, features: Tensor) -> Tensor:
        """The weight of the affinity for queries with features [B, Q]: [B, 1], at least 0."""
        out: Tensor = (1.0 + self.weight(features)).clamp(min=0.0)
        return out

    def person(self, rows: Tensor) -> Tensor:
        """The target's side, from rows of the table [n, W]: [n, D + K + 2].

        A term of the target embedding, the target's factors of the affinity, and a term of the bias.
        """
        term = self.term(rows)
        return torch.cat([term[:, :-1], rows[:, self.affinity_dim : -2], term[:, -1:]], dim=1)

    def popularity(self, rows: Tensor) -> Tensor:
        """The popularity expected from features, from rows of the table [n, W]: [n]."""
        return rows[:, -2]

    def logits(self, vector: Tensor, profile: Tensor, rows: Tensor) -> Tensor:
        """Profile terms to add to logits.

        Args:
            vector: [B, D], of queries.
            profile: [B, K + 1], weighted factors of `affinity_query`.
            rows: [C, W], of the table, of candidates.

        Returns:
            [B, C].
        """
        query = torch.cat([vector, profile, torch.ones_like(vector[:, :1])], dim=1)
        return query @ self.person(rows).T

    def affinity(self, profile: Tensor, person: Tensor) -> Tensor:
        """The affinity from factors of `affinity_query` [M, K + 1] and `person` [M, D + K + 2]: [M]."""
        size = profile.size(1)
        return (profile * person[:, -1 - size : -1]).sum(1)
