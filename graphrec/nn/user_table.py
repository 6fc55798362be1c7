"""The embedding tables of a softmax over users."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from graphrec.nn.presence import PresenceScore


class UserTable(nn.Module):
    """Embeddings of users as the user of a query and as its target.

    Row 0 of each table stands for every unknown user: without an event in training, or before the query. So
    user indices carry no information.

    Args:
        num_known: users with an event in training; they have the rows from 1 on. 0: row 0 is everyone.
        embedding_dim: D.
        presence: also score targets by recent activity (`PresenceScore`).

    Attributes:
        actor, target: [num_known + 1, D], embeddings of the queries' users and of targets.
        bias: [num_known + 1, 1], of targets.
    """

    def __init__(self, num_known: int, embedding_dim: int, *, presence: bool) -> None:
        super().__init__()
        # Row-sparse: a step costs what its batch looks up, not the number of users.
        self.actor = nn.Embedding(num_known + 1, embedding_dim, sparse=True)
        self.target = nn.Embedding(num_known + 1, embedding_dim, sparse=True)
        self.bias = nn.Embedding(num_known + 1, 1, sparse=True)
        self.presence = PresenceScore() if presence else None
        self.initialize()

    def initialize(self) -> None:
        """Initialize both embedding tables from N(0, 0.1^2), and the biases to 0."""
        for table in (self.actor, self.target):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.bias.weight)

    def logits(self, vector: Tensor, rows: Tensor) -> Tensor:
        """Logits of target rows [C] for query vectors [B, D]: dot products plus biases, [B, C]."""
        out: Tensor = vector @ self.target(rows).T + self.bias(rows).squeeze(1)
        return out

    def with_rows(self, rows: Tensor) -> UserTable:
        """Copy with only row 0 (unknown users) and rows [n] int64, from 1 on, renumbered 1..n.

        A table of row 0 alone stays as it is.
        """
        out = copy.deepcopy(self)
        if self.actor.num_embeddings == 1:
            return out
        keep_rows([out.actor, out.target, out.bias], rows)
        return out


def keep_rows(tables: list[nn.Embedding], rows: Tensor) -> None:
    """Keep row 0 and rows [n] int64 of each table in place, renumbered 0..n, and drop the others."""
    for table in tables:
        at = torch.cat([rows.new_zeros(1), rows]).to(table.weight.device)
        table.weight = nn.Parameter(table.weight.detach()[at])
        table.num_embeddings = len(at)
