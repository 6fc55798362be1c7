"""Heuristics of walks on the contact graph."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.data.checks import check_count, check_number
from graphrec.models.appending import reads_graph
from graphrec.models.heuristics.base import Heuristic
from graphrec.temporal.contacts import FIXED_POINT

MAX_STEPS = 10_000
"""Limit of the steps of a walk; from far fewer on nothing changes any more."""


class PPR(Heuristic):
    """Personalized PageRank on the contact graph (Page et al. 1999); ties by recent popularity.

    Args:
        restart: probability of returning to the query's user at each step.
        num_steps: power iterations, and so the longest walk in hops; users farther away get no score from it.
    """

    name = "ppr"
    numbers = (*Heuristic.numbers, "restart", "num_steps")

    def __init__(self, *, restart: float = 0.15, num_steps: int = 5) -> None:
        self.restart = check_number("restart", restart, above=0.0, below=1.0)
        self.num_steps = check_count("num_steps", num_steps, minimum=0, maximum=MAX_STEPS)

    def _score_in_order(self, query: Query) -> Tensor:
        return self._fallback(query).add_(self.visits(query).mul_(FIXED_POINT).round_())

    @reads_graph
    def visits(self, query: Query) -> Tensor:
        """Personalized PageRank of all users, for B queries in order of time: [B, N] float64."""
        self._check(query)
        if self._far_apart(query):
            middle = len(query) // 2
            return torch.cat([self.visits(query[:middle]), self.visits(query[middle:])])
        spread = self._contact_graph(query)
        # A user's mass times 1 - restart moves on, in equal parts to each contact.
        outflow = self._degrees(query).clamp_(min=1.0).div_(1.0 - self.restart).T.contiguous()
        visits = torch.zeros(self.graph.num_users, len(query), dtype=torch.float64)
        home = query.user, torch.arange(len(query))
        visits[home] = 1.0
        for _ in range(self.num_steps):
            visits = spread(visits.div_(outflow))
            visits[home] += self.restart
        return visits.T.contiguous()
