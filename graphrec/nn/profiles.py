"""What is known of users beside their events, as a part of both towers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphrec.data import USER, FriendGraph
from graphrec.data.draws import hashed
from graphrec.temporal import NEVER, Timeline

UNKNOWN = 2**62
"""From when on nothing is known (int64)."""

MAX_DEVIATIONS = 8.0


@dataclass(frozen=True)
class Profiles:
    """Standardised features of users, and since when each user's are known. On the CPU, like the index.

    Attributes:
        x: [N, F + 1] float32; the last column is one.
        since: [N] int64 seconds; queries strictly later know them. Where the graph has join times, it is the
            user's, or where that is missing their first event; `NEVER` where it has none, so always.
    """

    x: Tensor
    since: Tensor

    @classmethod
    def of(cls, graph: FriendGraph, *, until: int) -> Profiles | None:
        """Of a graph's users, if it has `x`; means and deviations are of those known before `until`.

        Raises:
            ValueError: `x` is not [N, F].
        """
        x = graph[USER].get("x")
        if x is None:
            return None
        if x.dim() != 2:
            raise ValueError(f"'x' of users must be [N, F], got {list(x.shape)}")
        x, since = x.float(), torch.full((graph.num_users,), NEVER)
        joined = graph[USER].get("join_time")
        if joined is not None:
            timeline = Timeline.of(graph)
            moments = torch.cat([timeline.instants, torch.tensor([UNKNOWN])])
            since = moments[timeline.first_tick]
            since = torch.where(joined >= 0, joined, since)
        known = x[since < until].double()
        mean = known.mean(0)
        deviation = (known - mean).square().mean(0).sqrt()
        varies = deviation > 1e-6 * (1.0 + mean.abs())  # what does not vary, or is of nobody, says nothing
        mean, scale = torch.where(varies, mean, 0.0).float(), torch.where(varies, 1 / deviation, 0.0).float()
        x = ((x - mean) * scale).clamp_(-MAX_DEVIATIONS, MAX_DEVIATIONS)
        return cls(torch.cat([x, torch.ones(len(x), 1)], dim=1), since)

    def known(self, user: Tensor | slice, time: Tensor) -> Tensor:
        """Whether users are known to queries at times (bool, broadcast shape)."""
        return self.since[user] < time

    def key(self, until: int) -> Tensor:
        """An order of users without indices, [N] int64: who is known alike before `until` has one key."""
        known = self.since < until
        since, x = torch.where(known, self.since, UNKNOWN), torch.where(known[:, None], self.x, 0.0)
        return hashed(since, *x.view(torch.int32).long().unbind(1))


class ProfileNet(nn.Module):
    """Linear maps of profiles for both towers; all that starts at zero, so that nothing is changed at first.

    Args:
        num_columns: F + 1.
        embedding_dim: D, width of the towers.
        similarity_dim: R, rank of the bilinear similarity of two profiles.

    Attributes:
        actor: [n, F + 1] -> [n, D], what is added to embeddings in the user tower.
        asker: [n, F + 1] -> [n, R], the asking user's part in the similarity.
        person: [n, F + 1] -> [n, D + R + 1], what is added to a target embedding, the target's part in the
            similarity, and what is added to a bias.
    """

    def __init__(self, num_columns: int, embedding_dim: int, *, similarity_dim: int = 16) -> None:
        super().__init__()
        self.actor = nn.Linear(num_columns, embedding_dim, bias=False)
        self.asker = nn.Linear(num_columns, similarity_dim, bias=False)
        self.person = nn.Linear(num_columns, embedding_dim + similarity_dim + 1, bias=False)
        nn.init.zeros_(self.actor.weight)
        nn.init.zeros_(self.person.weight)

    def logits(self, vector: Tensor, asker: Tensor, x: Tensor) -> Tensor:
        """What profiles [C, F + 1] add to the logits of query vectors [B, D] and askers [B, R]: [B, C]."""
        asked = torch.cat([vector, asker, torch.ones_like(vector[:, :1])], dim=1)
        out: Tensor = asked @ self.person(x).T
        return out

    def similarity(self, asker: Tensor, person: Tensor) -> Tensor:
        """Of pairs of an asker [M, R] and a person [M, D + R + 1]: [M]."""
        size = asker.size(1)
        return (asker * person[:, -1 - size : -1]).sum(1)
