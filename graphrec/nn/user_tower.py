"""The user tower, which encodes a query as one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.features import NUM_QUERY_FEATURES, Timelines
from graphrec.nn.config import EncoderConfig
from graphrec.nn.history import EventEmbedding, HistoryEncoder
from graphrec.nn.history_kernels import find_ties
from graphrec.nn.layers import MixtureOfExperts, Standardize, feed_forward
from graphrec.nn.pooling import MeanHistory, PooledHistory


class UserTower(nn.Module):
    """Encodes the user, their timeline, the action and the features of a query as one vector.

    The inputs are combined with latent crosses (Beutel et al. 2018, https://doi.org/10.1145/3159652.3159727).

    Args:
        num_actions: A.
        config: sizes and parts; `embedding_dim` is D.
        num_questions: what a query may ask for: A actions by default, or outcomes.

    Attributes:
        context_length: number of latest events of a timeline that a query vector depends on.
    """

    def __init__(self, num_actions: int, config: EncoderConfig, num_questions: int | None = None) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.action = nn.Embedding(num_actions if num_questions is None else num_questions, dim)
        self.history = history_encoder(2 * num_actions, config)
        self.context_length = self.history.context_length
        self.project = nn.Linear(config.hidden_channels, dim)
        self.no_history = nn.Parameter(torch.zeros(dim))
        self.standardize_query = Standardize(NUM_QUERY_FEATURES)
        self.features = nn.Linear(NUM_QUERY_FEATURES, dim)
        activation, dropout = config.activation, config.dropout
        self.interact = (
            feed_forward(6 * dim, 2 * dim, dim, activation=activation, dropout=dropout)
            if config.interaction == "mlp"
            else MixtureOfExperts(6 * dim, dim, dim, activation=activation, dropout=dropout)
        )

    def state(self, timelines: Timelines, other: Tensor, position: Tensor) -> Tensor:
        """Encode the timelines of queries.

        Args:
            timelines: M events.
            other: [M, D], embeddings of the events' other users.
            position: [B] int64, position of each query's last event, or -1 if there is none.

        Returns:
            [B, D]: the mean encoding of the last event and those of equal time, or a learned vector if there
                is none.
        """
        if not len(timelines):
            return self.no_history.expand(position.numel(), -1)
        # Only events at the times of the wanted positions are encoded.
        out = torch.empty(2, len(timelines), dtype=torch.int64)
        size, at = torch.empty_like(timelines.row, device="cpu"), torch.empty_like(position, device="cpu")
        arrays = timelines.row, timelines.time, position, out, size, at
        number, num_ties = find_ties(*(x.cpu().contiguous().numpy() for x in arrays))
        wanted, tie = out[:, :number].to(other.device)
        size, at = size.to(other.device), at.to(other.device)
        encoded = self.project(self.history(timelines, other, wanted))  # [W, D]
        if number > num_ties:
            encoded = encoded.new_zeros(num_ties, encoded.size(1)).index_add(0, tie, encoded)
        elif not number:  # no query has a history
            return self.no_history.expand(len(position), -1)
        mean = encoded[at] / size[at, None]
        return torch.where((position >= 0)[:, None], mean, self.no_history)

    def forward(self, state: Tensor, actor: Tensor, action: Tensor, features: Tensor) -> Tensor:
        """Query vectors [B, D] from [actor, history, action, actor x history, actor x action, features].

        Args:
            state: [B, D], of `state`.
            actor: [B, D], embeddings of the queries' users.
            action: [B] int64, the action or outcome that each query asks for.
            features: [B, NUM_QUERY_FEATURES], standardized.
        """
        a, c, f = actor, self.action(action), self.features(features)
        out: Tensor = self.interact(torch.cat([a, state, c, a * state, a * c, f], 1))
        return out


def history_encoder(num_kinds: int, config: EncoderConfig) -> HistoryEncoder | PooledHistory | MeanHistory:
    """Build the timeline encoder of a configuration.

    Args:
        num_kinds: twice the number of actions.
        config: sizes and parts.
    """
    events = EventEmbedding(num_kinds, config.embedding_dim, config.hidden_channels)
    if config.history == "mean":
        return MeanHistory(events, window=config.window)
    if config.history == "pooled":
        return PooledHistory(
            events,
            num_heads=config.num_heads,
            window=config.window,
            dropout=config.dropout,
            activation=config.activation,
        )
    return HistoryEncoder(
        events,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        window=config.window,
        dropout=config.dropout,
        activation=config.activation,
    )
