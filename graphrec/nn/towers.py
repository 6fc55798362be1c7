"""The user tower, and the table of target embeddings it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphrec.nn.features import NUM_PRESENCE_FEATURES, NUM_QUERY_FEATURES
from graphrec.nn.history import HistoryEncoder, Timelines
from graphrec.nn.layers import Activation, MixtureOfExperts, Standardize, feed_forward
from graphrec.nn.mixture import SOURCES, NeighborhoodMixture
from graphrec.nn.pooling import MeanHistory, PooledHistory
from graphrec.nn.profiles import ProfileNet

PRESENCE = "presence"
STRUCTURE = "structure"
CIRCLES = "circles"

History = Literal["transformer", "pooled", "mean"]
Interaction = Literal["mlp", "moe"]


class UserTower(nn.Module):
    """The user tower: actor, history and action, joined, and what weighs the neighbourhood around them.

    It joins its parts with latent crosses (Beutel et al. 2018, https://doi.org/10.1145/3159652.3159727).

    Args:
        num_actions: A.
        embedding_dim: D, width of the embeddings of users.
        sources: those of `NeighborhoodMixture` are built.
        history: 'transformer' (`HistoryEncoder`), 'pooled' (`PooledHistory`) or 'mean' (`MeanHistory`).
        interaction: 'mlp', one hidden layer, or 'moe' (`MixtureOfExperts`).
        activation: 'gelu' or 'swiglu', in encoder and interaction.
        hidden_channels, num_layers, num_heads, window, dropout: of the encoder.
        profile_columns: F + 1 of `Profiles`, or 0 without.
    """

    def __init__(
        self,
        num_actions: int,
        *,
        embedding_dim: int,
        sources: Collection[str],
        history: History,
        interaction: Interaction,
        activation: Activation,
        hidden_channels: int,
        num_layers: int,
        num_heads: int,
        window: int,
        dropout: float,
        profile_columns: int = 0,
    ) -> None:
        super().__init__()
        self.action = nn.Embedding(num_actions, embedding_dim)
        sizes: dict[str, Any] = {"num_heads": num_heads, "dropout": dropout, "activation": activation}
        encoders: dict[str, Callable[..., nn.Module]] = {
            "transformer": partial(HistoryEncoder, num_layers=num_layers, window=window, **sizes),
            "pooled": partial(PooledHistory, window=window, **sizes),
            "mean": partial(MeanHistory, window=window),
        }
        self.history = encoders[history](2 * num_actions, embedding_dim, hidden_channels)
        self.reach: int = self.history.reach  # type: ignore[assignment]
        self.project = nn.Linear(hidden_channels, embedding_dim)
        self.no_history = nn.Parameter(torch.zeros(embedding_dim))
        self.standardize_query = Standardize(NUM_QUERY_FEATURES)
        self.features = nn.Linear(NUM_QUERY_FEATURES, embedding_dim)
        width = 6 * embedding_dim
        self.interact = (
            feed_forward(width, 2 * embedding_dim, embedding_dim, activation=activation, dropout=dropout)
            if interaction == "mlp"
            else MixtureOfExperts(width, embedding_dim, embedding_dim, activation=activation, dropout=dropout)
        )
        around = [name for name in SOURCES if name in sources]
        self.mixture = (
            NeighborhoodMixture(
                around, 2 * num_actions, has_profiles=profile_columns > 0, has_circles=CIRCLES in sources
            )
            if around
            else None
        )
        self.profile = ProfileNet(profile_columns, embedding_dim) if profile_columns else None

    def state(self, timelines: Timelines, other: Tensor, position: Tensor) -> Tensor:
        """What queries know of their histories.

        Args:
            timelines: M acts.
            other: [M, D], embeddings of the other sides.
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
        encoded = self.project(self.history(timelines, other, wanted))  # [W, D]
        mean = encoded.new_zeros(len(asked), encoded.size(1)).index_add(0, tie[wanted], encoded)
        at = tie[position.clamp(min=0)]
        mean = mean[at] / torch.bincount(tie)[at, None]
        return torch.where((position >= 0)[:, None], mean, self.no_history)

    def query(self, state: Tensor, actor: Tensor, action: Tensor, features: Tensor) -> Tensor:
        """Query vectors [B, D] from [actor, history, action, actor x history, actor x action, features].

        Args:
            state: [B, D].
            actor: [B, D], embeddings of the asking users.
            action: [B] int64.
            features: [B, NUM_QUERY_FEATURES], standardised.
        """
        a, c, f = actor, self.action(action), self.features(features)
        out: Tensor = self.interact(torch.cat([a, state, c, a * state, a * c, f], 1))
        return out


class TwoTowerNet(UserTower):
    """The user tower and the table of target embeddings it is compared with.

    Row 0 of each table is the stranger: everyone without an event in training, and anyone not yet seen at the
    time of a query, so that user indices say nothing. Profiles are added to the embeddings, strangers'
    included.

    Args:
        num_known: users with an event in training.
        num_actions: A.
        embedding_dim: D, width of the user tables.
        sources: what is joined with the embeddings: 'presence', how present a person is (with
            'structure' also how near), and any of the sources of `NeighborhoodMixture`.
        **sizes: of `UserTower`.
    """

    def __init__(
        self, num_known: int, num_actions: int, *, embedding_dim: int, sources: Collection[str], **sizes: Any
    ) -> None:
        super().__init__(num_actions, embedding_dim=embedding_dim, sources=sources, **sizes)
        # Row-sparse: a step costs what its batch looks up, not the number of users.
        self.actor = nn.Embedding(num_known + 1, embedding_dim, sparse=True)
        self.target = nn.Embedding(num_known + 1, embedding_dim, sparse=True)
        self.bias = nn.Embedding(num_known + 1, 1, sparse=True)
        self.presence = Presence() if PRESENCE in sources else None
        self.initialize()

    def initialize(self) -> None:
        """All initial values that differ from torch's own."""
        for table in (self.actor, self.target):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.bias.weight)

    def logits(self, vector: Tensor, rows: Tensor) -> Tensor:
        """Dot products with table rows [C], and their biases: [B, C]."""
        out: Tensor = vector @ self.target(rows).T + self.bias(rows).squeeze(1)
        return out


class Presence(nn.Module):
    """How likely people are for being present: a small network over what `presence_features` say.

    Shapes:
        forward: [NUM_PRESENCE_FEATURES, b, C] -> [b, C].
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
        flat = features.flatten(1)  # [F, b C]
        mean, deviation = self.standardize.learn(flat.T)
        weight = self.hidden.weight / deviation
        bias = self.hidden.bias - weight @ mean
        hidden = torch.addmm(bias[:, None], weight, flat).relu_()  # [H, b C]
        return (self.score.weight @ hidden + self.score.bias).view(features.shape[1:])
