"""Pooling encoders of timelines: every prefix in one pass, without padding, as `HistoryEncoder`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.data.checks import check_counts, check_dropout
from graphrec.features import Timelines
from graphrec.nn.history import Blocks, EventEmbedding, with_block_before
from graphrec.nn.layers import Activation, check_heads, feed_forward


class PooledHistory(nn.Module):
    """Attention pooling: learned queries attend to each event and the strictly older ones in its window.

    Pooling by multi-head attention (Lee et al. 2019, https://arxiv.org/abs/1810.00825) for every prefix at
    once. The products of the learned queries with the keys are computed once, since they do not depend on the
    prefix; each prefix has its own mask (see `Blocks`), and a learned decay with the age of an event.

    Args:
        events: embeds each event; the encoding has its width.
        num_queries, num_heads: number of learned queries, and of attention heads for each.
        window: number of latest events that are pooled at each event.
        dropout, activation: as for `HistoryEncoder`, whose attribute and shapes it has.
    """

    def __init__(
        self,
        events: EventEmbedding,
        *,
        num_queries: int = 4,
        num_heads: int = 4,
        window: int = 64,
        dropout: float = 0.1,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        hidden_channels = events.hidden_channels
        check_counts(num_queries=num_queries, num_heads=num_heads, window=window)
        check_dropout(dropout)
        check_heads("hidden_channels", hidden_channels, num_heads)
        self.window, self.context_length = window, window + 1
        self.num_queries, self.num_heads = num_queries, num_heads
        self.events = events
        self.norm_events = nn.LayerNorm(hidden_channels)
        self.score = nn.Linear(hidden_channels, num_queries * num_heads, bias=False)
        self.decay = nn.Parameter(torch.zeros(num_queries, num_heads))
        self.value = nn.Linear(hidden_channels, hidden_channels, bias=False)
        self.out = nn.Linear(num_queries * hidden_channels, hidden_channels)
        self.norm_mlp = nn.LayerNorm(hidden_channels)
        self.mlp = feed_forward(hidden_channels, 4 * hidden_channels, hidden_channels, activation=activation)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(hidden_channels)

    def forward(self, timelines: Timelines, other: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Encode each event together with those before it; see `HistoryEncoder.forward`."""
        if not len(timelines):
            return other.new_zeros(0, self.norm.normalized_shape[0])
        blocks = Blocks(timelines, self.window)
        x = self.norm_events(self.events(timelines, other))
        score, value = (with_block_before(blocks.cut(part)) for part in (self.score(x), self.value(x)))
        score = score.unflatten(2, (self.num_queries, self.num_heads)).permute(0, 2, 3, 1)
        value = value.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # [blocks, heads, 2 W, H / heads]
        logits = score[..., None, :] - self.decay[:, :, None, None] * blocks.age[:, None]
        weight = logits.masked_fill(~blocks.mask[:, None], -torch.inf).softmax(-1)
        heard = weight @ value[:, None]  # [blocks, queries, heads, W, H / heads]
        heard = heard.permute(0, 3, 1, 2, 4).flatten(2).flatten(0, 1)  # [blocks x W, queries x H]
        x = self.dropout(self.out(heard[: len(timelines)] if wanted is None else heard[wanted]))
        out: Tensor = self.norm(x + self.dropout(self.mlp(self.norm_mlp(x))))
        return out


class MeanHistory(nn.Module):
    """At each event, the mean of that event and the strictly older ones of its window: the plain baseline.

    Args:
        events: embeds each event; the mean has its width.
        window: as of `HistoryEncoder`, with its attribute and shapes.
    """

    def __init__(self, events: EventEmbedding, *, window: int = 64) -> None:
        super().__init__()
        check_counts(window=window)
        self.window, self.context_length = window, window + 1
        self.events = events
        self.norm = nn.LayerNorm(events.hidden_channels)

    def forward(self, timelines: Timelines, other: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Encode each event together with those before it; see `HistoryEncoder.forward`."""
        if not len(timelines):
            return other.new_zeros(0, self.norm.normalized_shape[0])
        blocks = Blocks(timelines, self.window)
        x = with_block_before(blocks.cut(self.events(timelines, other)))
        weight = blocks.mask[:, 0].to(x.dtype)  # [blocks, W, 2 W]
        mean = (weight @ x / weight.sum(-1, keepdim=True)).flatten(0, 1)
        out: Tensor = self.norm(mean[: len(timelines)] if wanted is None else mean[wanted])
        return out
