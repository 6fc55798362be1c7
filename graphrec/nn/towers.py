"""The user tower, and the table of target embeddings it is compared with."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.nn.features import NUM_PRESENCE_FEATURES, NUM_QUERY_FEATURES
from graphrec.nn.history import HistoryEncoder, Timelines
from graphrec.nn.layers import Standardize
from graphrec.nn.mixture import SOURCES, NeighborhoodMixture

PRESENCE = "presence"
STRUCTURE = "structure"


class TwoTowerNet(nn.Module):
    """The user tower (actor, history, action) and the table of target embeddings.

    The user tower joins actor, history and action with latent crosses (Beutel et al. 2018,
    https://doi.org/10.1145/3159652.3159727). Row 0 of each table is the stranger: everyone without an event
    in training, and anyone not yet seen at the time of a query, so that user indices say nothing.

    Args:
        num_known: users with an event in training.
        num_actions: A.
        embedding_dim: D, width of the user tables.
        sources: what is joined with the embeddings: 'presence', how present a person is (with
            'structure' also how near), and any of the
            sources of `NeighborhoodMixture`.
        hidden_channels, num_layers, num_heads, window, dropout: of the `HistoryEncoder`.
    """

    def __init__(
        self,
        num_known: int,
        num_actions: int,
        *,
        embedding_dim: int,
        sources: Collection[str],
        hidden_channels: int,
        num_layers: int,
        num_heads: int,
        window: int,
        dropout: float,
    ) -> None:
        super().__init__()
        # Row-sparse: a step costs what its batch looks up, not the number of users.
        self.actor = nn.Embedding(num_known + 1, embedding_dim, sparse=True)
        self.target = nn.Embedding(num_known + 1, embedding_dim, sparse=True)
        self.bias = nn.Embedding(num_known + 1, 1, sparse=True)
        self.action = nn.Embedding(num_actions, embedding_dim)
        self.history = HistoryEncoder(
            2 * num_actions,
            embedding_dim,
            hidden_channels,
            num_layers=num_layers,
            num_heads=num_heads,
            window=window,
            dropout=dropout,
        )
        self.project = nn.Linear(hidden_channels, embedding_dim)
        self.no_history = nn.Parameter(torch.zeros(embedding_dim))
        self.standardize_query = Standardize(NUM_QUERY_FEATURES)
        self.features = nn.Linear(NUM_QUERY_FEATURES, embedding_dim)
        self.interact = nn.Sequential(
            nn.Linear(6 * embedding_dim, 2 * embedding_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * embedding_dim, embedding_dim),
        )
        self.presence = Presence() if PRESENCE in sources else None
        around = [name for name in SOURCES if name in sources]
        self.mixture = NeighborhoodMixture(around, 2 * num_actions) if around else None
        self.initialize()

    def initialize(self) -> None:
        """All initial values that differ from torch's own."""
        for table in (self.actor, self.target):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.bias.weight)

    def state(self, timelines: Timelines, rows: Tensor, position: Tensor) -> Tensor:
        """What queries know of their histories.

        Args:
            timelines: M acts.
            rows: [M] int64, table rows of the other sides.
            position: [B] int64, each query's last act, or -1 where there is none.

        Returns:
            [B, D]: the mean over the acts tied with the last, or a learned vector where there is none.
        """
        if not len(timelines):
            return self.no_history.expand(position.numel(), -1)
        opens = torch.ones_like(timelines.row, dtype=torch.bool)
        opens[1:] = (timelines.row.diff() != 0) | (timelines.time.diff() != 0)
        tie = opens.cumsum(0) - 1
        asked = torch.zeros(int(tie[-1]) + 1, dtype=torch.bool, device=tie.device)
        asked[tie[position[position >= 0]]] = True
        wanted = asked[tie].nonzero().squeeze(1)  # only acts of the ties that are asked for
        encoded = self.project(self.history(timelines, self.actor(rows), wanted))  # [W, D]
        mean = encoded.new_zeros(len(asked), encoded.size(1)).index_add(0, tie[wanted], encoded)
        at = tie[position.clamp(min=0)]
        mean = mean[at] / torch.bincount(tie)[at, None]
        return torch.where((position >= 0)[:, None], mean, self.no_history)

    def query(self, state: Tensor, actor: Tensor, action: Tensor, features: Tensor) -> Tensor:
        """Query vectors [B, D] from [actor, history, action, actor x history, actor x action, features]."""
        a, c = self.actor(actor), self.action(action)
        out: Tensor = self.interact(torch.cat([a, state, c, a * state, a * c, self.features(features)], 1))
        return out

    def logits(self, vector: Tensor, rows: Tensor) -> Tensor:
        """Dot products with table rows [C], and their biases: [B, C]."""
        out: Tensor = vector @ self.target(rows).T + self.bias(rows).squeeze(1)
        return out


class Presence(nn.Module):
    """How likely people are for being present: a small network over what `presence_features` say.

    Shapes:
        forward: [..., NUM_PRESENCE_FEATURES] -> [...].
    """

    def __init__(self, hidden_channels: int = 16) -> None:
        super().__init__()
        self.standardize = Standardize(NUM_PRESENCE_FEATURES)
        self.hidden = nn.Linear(NUM_PRESENCE_FEATURES, hidden_channels)
        self.score = nn.Linear(hidden_channels, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Score people; one hidden layer of ReLU, the scale folded in: everyone is scored for every query."""
        mean, deviation = self.standardize.learn(features)
        weight = self.hidden.weight / deviation
        hidden = F.linear(features, weight, self.hidden.bias - weight @ mean).relu_()
        out: Tensor = self.score(hidden).squeeze(-1)
        return out
