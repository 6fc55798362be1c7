"""Encoders of two-directional timelines: every prefix of every history in one causal pass."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.data.checks import check_counts, check_dropout
from graphrec.features import Timelines
from graphrec.nn.layers import Activation, check_heads, feed_forward
from graphrec.temporal import run_starts


class EventEmbedding(nn.Module):
    """Embeds each event of a timeline by its other user, its kind, and the gap to the event before.

    Args:
        num_kinds: twice the number of actions.
        in_channels: width of the embeddings of users.
        hidden_channels: width of the events.

    Shapes:
        forward: `Timelines` of M events and embeddings [M, in_channels] of their other sides -> [M, hidden].
    """

    def __init__(self, num_kinds: int, in_channels: int, hidden_channels: int) -> None:
        super().__init__()
        check_counts(num_kinds=num_kinds, in_channels=in_channels, hidden_channels=hidden_channels)
        self.hidden_channels = hidden_channels
        self.kind = nn.Embedding(num_kinds, hidden_channels)
        self.other = nn.Linear(in_channels, hidden_channels, bias=False)
        self.gap = nn.Linear(2, hidden_channels)

    def forward(self, timelines: Timelines, other: Tensor) -> Tensor:
        """Embed M events: [M, hidden_channels]."""
        out: Tensor = self.other(other) + self.kind(timelines.kind) + self.gap(self._gaps(timelines))
        return out

    @staticmethod
    def _gaps(timelines: Timelines) -> Tensor:
        """log1p seconds since the last strictly earlier event, and whether there is one: [M, 2]."""
        time, row = timelines.time, timelines.row
        last = run_starts(row, time) - 1  # the last event strictly earlier
        found = (last >= 0) & (row[last.clamp(min=0)] == row)
        gap = torch.where(found, time - time[last.clamp(min=0)], 0)
        return torch.stack([gap.float().log1p() / 10, found.float()], dim=1)


class Blocks:
    """Masks of local attention: M events in blocks of W, each block attending to itself and the previous one.

    The cost of attention grows linearly with the number of events, and histories are not padded.

    Args:
        timelines: M events.
        window: W, number of latest events that an event attends to, itself included.

    Attributes:
        mask: [blocks, 1, W, 2 W] bool, the events (keys) that each event (query) attends to: itself, and
            strictly older events of its row. Events of equal time do not attend to each other.
        age: [blocks, 1, W, 2 W] float32, log1p of the seconds between key and query event, divided by 10.
    """

    def __init__(self, timelines: Timelines, window: int) -> None:
        self._window, self._number = window, -(-len(timelines) // window)
        row, time = self._both(timelines.row + 1), self._both(timelines.time)  # row 0 marks padding
        own_row, own_time = row[:, window:, None], time[:, window:, None]
        self._seconds = own_time - time[:, None, :]
        place = torch.arange(2 * window, device=row.device)
        back = place[window:, None] - place
        older = (self._seconds > 0) & (row[:, None, :] == own_row)
        self.mask = ((older & (back < window)) | (back == 0))[:, None]

    @property
    def age(self) -> Tensor:
        """log1p of the seconds between key and query event, divided by 10: [blocks, 1, W, 2 W] float32."""
        return (self._seconds.clamp(min=0).float().log1p() / 10)[:, None]

    def cut(self, x: Tensor) -> Tensor:
        """Cut a stream into blocks: [M, ...] -> [blocks, W, ...], padded with zeros."""
        pad = self._number * self._window - x.size(0)
        x = torch.cat([x, x.new_zeros(pad, *x.shape[1:])])
        return x.view(self._number, self._window, *x.shape[1:])

    def _both(self, x: Tensor) -> Tensor:
        return with_block_before(self.cut(x))


def with_block_before(x: Tensor) -> Tensor:
    """Prepend to each block the previous one, zeros for the first: [blocks, W, ...] -> [blocks, 2 W, ...]."""
    return torch.cat([torch.cat([torch.zeros_like(x[:1]), x[:-1]]), x], dim=1)


class HistoryEncoder(nn.Module):
    """A transformer over timelines in which each event attends to itself and to strictly older ones.

    Attention is masked by time, not by position (see `Blocks`); a layer reaches back over `window` events.

    Args:
        events: embeds each event; the transformer has its width.
        num_layers, num_heads: of the transformer.
        window: number of latest events that an event attends to in each layer.
        dropout: on the residual branches.
        activation: 'gelu' or 'swiglu'.

    Attributes:
        context_length: number of latest events that the encoding of the last one depends on.

    Shapes:
        forward: `Timelines` of M events and embeddings [M, in_channels] of their other sides -> [M, hidden].
    """

    def __init__(
        self,
        events: EventEmbedding,
        *,
        num_layers: int = 2,
        num_heads: int = 4,
        window: int = 64,
        dropout: float = 0.1,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        check_counts(num_layers=num_layers, window=window)
        width = events.hidden_channels
        self.window, self.context_length = window, num_layers * (window - 1) + 2
        self.events = events
        self.layers = nn.ModuleList(Layer(width, num_heads, dropout, activation) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, timelines: Timelines, other: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Encode each event together with those before it.

        Args:
            timelines: M events.
            other: [M, in_channels], embeddings of their other sides.
            wanted: [W] int64, positions of the events to encode; all by default. The last layer computes only
                these.

        Returns:
            [M, hidden_channels], or [W, hidden_channels] for the wanted events.
        """
        if not len(timelines):
            return other.new_zeros(0, self.norm.normalized_shape[0])
        blocks = Blocks(timelines, self.window)
        x = blocks.cut(self.events(timelines, other))  # [blocks, W, H]
        wanted = torch.arange(len(timelines), device=x.device) if wanted is None else wanted
        for layer in self.layers[:-1]:
            x = layer(x, blocks.mask)
        out: Tensor = self.norm(self.layers[-1](x, blocks.mask, wanted))
        return out


class Layer(nn.Module):
    """A pre-norm transformer layer over blocks that also attend to the previous block.

    Shapes:
        forward: [blocks, W, H], mask [blocks, 1, W, 2 W] -> [blocks, W, H], or [V, H] for V wanted positions
            of the flattened blocks.
    """

    def __init__(
        self, channels: int, num_heads: int, dropout: float, activation: Activation = "gelu"
    ) -> None:
        super().__init__()
        check_counts(channels=channels, num_heads=num_heads)
        check_dropout(dropout)
        check_heads("channels", channels, num_heads)
        self.num_heads = num_heads
        self.norm_attention = nn.LayerNorm(channels)
        self.norm_mlp = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.mlp = feed_forward(channels, 4 * channels, channels, activation=activation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Apply attention, then the feed-forward network, each with a residual connection."""
        blocks, window, channels = x.shape
        q, k, v = self.qkv(self.norm_attention(x)).split(channels, dim=-1)
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [blocks, heads, W or 2 W, H / heads]
            for part in (q, with_block_before(k), with_block_before(v))
        )
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        heard = heard.transpose(1, 2).reshape(blocks, window, channels)
        if wanted is not None:
            x, heard = x.flatten(0, 1)[wanted], heard.flatten(0, 1)[wanted]
        x = x + self.dropout(self.out(heard))
        out: Tensor = x + self.dropout(self.mlp(self.norm_mlp(x)))
        return out
