"""Encoders of two-directional timelines: every prefix of every history in one causal pass."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.data.checks import check_counts, check_dropout
from graphrec.features import Timelines
from graphrec.nn.history_kernels import fill_gaps, fill_mask, list_attended
from graphrec.nn.layers import Activation, check_heads, feed_forward


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
        out = torch.empty(2, len(timelines))
        fill_gaps(*_row_and_time(timelines), out.numpy())
        gap, found = out
        return torch.stack([gap.log1p_().div_(10), found], dim=1).to(timelines.row.device)


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
        self._window, self._number, self._time = window, -(-len(timelines) // window), timelines.time
        mask = torch.zeros(self._number, window, 2 * window, dtype=torch.bool)
        fill_mask(*_row_and_time(timelines), mask.numpy())
        self.mask = mask[:, None].to(timelines.row.device)

    @property
    def age(self) -> Tensor:
        """log1p of the seconds between key and query event, divided by 10: [blocks, 1, W, 2 W] float32."""
        time = with_block_before(self.cut(self._time))
        seconds = time[:, self._window :, None] - time[:, None, :]
        return (seconds.clamp(min=0).float().log1p() / 10)[:, None]

    def cut(self, x: Tensor) -> Tensor:
        """Cut a stream into blocks: [M, ...] -> [blocks, W, ...], padded with zeros."""
        pad = self._number * self._window - x.size(0)
        x = torch.cat([x, x.new_zeros(pad, *x.shape[1:])])
        return x.view(self._number, self._window, *x.shape[1:])


def _row_and_time(timelines: Timelines) -> tuple[np.ndarray, np.ndarray]:
    """The rows and times of M events, for kernels."""
    return timelines.row.cpu().contiguous().numpy(), timelines.time.cpu().contiguous().numpy()


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
            wanted: [W] int64, ascending, positions of the events to encode; all by default. The last layer
                computes only these, and without gradients those before it only what they attend to.

        Returns:
            [M, hidden_channels], or [W, hidden_channels] for the wanted events.
        """
        if not len(timelines):
            return other.new_zeros(0, self.norm.normalized_shape[0])
        blocks = Blocks(timelines, self.window)
        x = blocks.cut(self.events(timelines, other))  # [blocks, W, H]
        *lower, last = self.layers
        if wanted is None or torch.is_grad_enabled():
            wanted = torch.arange(len(timelines), device=x.device) if wanted is None else wanted
            for layer in lower:
                x = layer(x, blocks.mask)
        else:
            attended = [wanted]
            for _ in lower:
                attended.append(self._attended(timelines, attended[-1]))
            for layer, needed in zip(lower, attended[:0:-1], strict=True):
                rows = layer(x, blocks.mask, needed)
                x = torch.zeros_like(x).flatten(0, 1).index_copy_(0, needed, rows).view(x.shape)
        out: Tensor = self.norm(last(x, blocks.mask, wanted))
        return out

    def _attended(self, timelines: Timelines, wanted: Tensor) -> Tensor:
        """The positions of the events in the windows of some [W] int64, ascending."""
        out, row = torch.empty(len(timelines), dtype=torch.int64), timelines.row.cpu().contiguous()
        number = list_attended(row.numpy(), wanted.cpu().contiguous().numpy(), self.window, out.numpy())
        return out[:number].to(wanted.device)


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
        q, pairs = self.qkv(self.norm_attention(x)).split([channels, 2 * channels], dim=-1)
        heads, width = self.num_heads, channels // self.num_heads
        q = q.view(blocks, window, heads, width).transpose(1, 2)  # [blocks, heads, W, H / heads]
        pairs = with_block_before(pairs).view(blocks, 2 * window, 2, heads, width)
        k, v = pairs.permute(2, 0, 3, 1, 4).unbind()  # [blocks, heads, 2 W, H / heads] each
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        heard = heard.transpose(1, 2).reshape(blocks * window, channels)
        if wanted is None:
            heard = heard.view(blocks, window, channels)
        else:
            x, heard = x.flatten(0, 1)[wanted], heard[wanted]
        x = x + self._dropped(self.out(heard))
        return x + self._dropped(self.mlp(self.norm_mlp(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        return self.dropout(x) if self.training else x
