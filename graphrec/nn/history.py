"""Encoding two-directional timelines: every prefix of every history in one causal pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphrec.data import USER, reverse_of
from graphrec.data.checks import check_counts, check_dropout
from graphrec.nn.layers import Activation, feed_forward
from graphrec.temporal import Timeline, run_starts


@dataclass(frozen=True)
class Timelines:
    """Timelines of R users, one after another in a stream of M acts, each in order of time.

    Attributes:
        row: [M] int64, whose timeline, ascending.
        other: [M] int64, user index of the other side.
        kind: [M] int64, 2 x action + (1 if the timeline's own user acted).
        time: [M] int64 seconds, ascending within a row.
        num_rows: R.
    """

    row: Tensor
    other: Tensor
    kind: Tensor
    time: Tensor
    num_rows: int

    @classmethod
    def of_batch(cls, batch: HeteroData, actions: tuple[str, ...]) -> Timelines:
        """Read the timelines of a `QueryLoader` batch's seeds from its first hop."""
        num_rows = batch.seed_time.numel()
        parts = []
        for code, action in enumerate(actions):
            for own, title in enumerate((action, reverse_of(action))):
                store = batch[USER, title, USER]
                source, row = store.edge_index
                first_hop = row < num_rows
                kind = torch.full_like(row, 2 * code + own)
                columns = (row, batch[USER].n_id[source], kind, store.time, store.event_id)
                parts.append(torch.stack([column[first_hop] for column in columns]))
        row, other, kind, time, event = torch.cat(parts, dim=1)
        order = event.argsort(stable=True)
        order = order[row[order].argsort(stable=True)]
        return cls(row[order], other[order], kind[order], time[order], num_rows)

    @classmethod
    def of_index(cls, timeline: Timeline, user: Tensor, tick: Tensor, k: int) -> Timelines:
        """The last k acts of each user's timeline before its tick, straight from the index."""
        row, half = timeline.last_half_edges(user, tick, k)
        row, half = row.flip(0), half.flip(0)
        order = row.argsort(stable=True)
        row, half = row[order], half[order]
        event = timeline.event[half].long()
        return cls(
            row,
            timeline.half_edges.other[half].long(),
            timeline.kind(half),
            timeline.events.time[event],
            user.numel(),
        )

    def to(self, device: torch.device) -> Timelines:
        """The same acts on a device."""
        row, other, kind, time = (x.to(device) for x in (self.row, self.other, self.kind, self.time))
        return Timelines(row, other, kind, time, self.num_rows)

    def __len__(self) -> int:
        return self.row.numel()

    def before(self, row: Tensor, time: Tensor) -> Tensor:
        """Position of the last act of each row strictly before each time, or -1 where there is none, [Q]."""
        if not len(self):
            return torch.full_like(row, -1)
        # One ascending key for (row, time): times by their rank among all that occur.
        instants = torch.unique(self.time)
        base = instants.numel() + 1
        key = self.row * base + torch.searchsorted(instants, self.time)
        asked = row * base + torch.searchsorted(instants, time.contiguous())
        position = torch.searchsorted(key, asked) - 1
        found = (position >= 0) & (self.row[position.clamp(min=0)] == row)
        return torch.where(found, position, -1)


class ActEmbedding(nn.Module):
    """Each act of a timeline on its own: whom with, which way, and how long after the act before.

    Args:
        num_kinds: twice the number of actions.
        in_channels: width of the embeddings of users.
        hidden_channels: width of the acts.

    Shapes:
        forward: `Timelines` of M acts and embeddings [M, in_channels] of their other sides -> [M, hidden].
    """

    def __init__(self, num_kinds: int, in_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.kind = nn.Embedding(num_kinds, hidden_channels)
        self.other = nn.Linear(in_channels, hidden_channels, bias=False)
        self.gap = nn.Linear(2, hidden_channels)

    def forward(self, timelines: Timelines, other: Tensor) -> Tensor:
        """The sum of the three."""
        out: Tensor = self.other(other) + self.kind(timelines.kind) + self.gap(self._gaps(timelines))
        return out

    @staticmethod
    def _gaps(timelines: Timelines) -> Tensor:
        """log1p seconds since the act before, tied ones skipped, and whether there is one: [M, 2]."""
        time, row = timelines.time, timelines.row
        last = run_starts(row, time) - 1  # the act before this one's tie
        found = (last >= 0) & (row[last.clamp(min=0)] == row)
        gap = torch.where(found, time - time[last.clamp(min=0)], 0)
        return torch.stack([gap.float().log1p() / 10, found.float()], dim=1)


class Blocks:
    """A stream of M acts cut into blocks of W, each of which sees itself and the block before.

    So the cost of attention grows with the number of acts, and no history is padded to the longest.

    Args:
        timelines: M acts.
        window: W, how many acts back an act sees, itself included.

    Attributes:
        mask: [blocks, 1, W, 2 W] bool, which acts each act sees: itself, and those of its row that are
            strictly older. Tied acts do not see each other.
        age: [blocks, 1, W, 2 W] float32, log1p seconds from an act that is seen to its viewer, over 10.
    """

    def __init__(self, timelines: Timelines, window: int) -> None:
        self._window, self._number = window, -(-len(timelines) // window)
        row, time = self._both(timelines.row + 1), self._both(timelines.time)  # row 0 is what fills up
        own_row, own_time = row[:, window:, None], time[:, window:, None]
        self._seconds = own_time - time[:, None, :]
        place = torch.arange(2 * window, device=row.device)
        back = place[window:, None] - place
        older = (self._seconds > 0) & (row[:, None, :] == own_row)
        self.mask = ((older & (back < window)) | (back == 0))[:, None]

    @property
    def age(self) -> Tensor:
        """See the class."""
        return (self._seconds.clamp(min=0).float().log1p() / 10)[:, None]

    def cut(self, x: Tensor) -> Tensor:
        """[M, ...] -> [blocks, W, ...], filled up with zeros."""
        pad = self._number * self._window - x.size(0)
        x = torch.cat([x, x.new_zeros(pad, *x.shape[1:])])
        return x.view(self._number, self._window, *x.shape[1:])

    def _both(self, x: Tensor) -> Tensor:
        return with_block_before(self.cut(x))


def with_block_before(x: Tensor) -> Tensor:
    """[blocks, W, ...] -> [blocks, 2 W, ...]; before the first block are zeros."""
    return torch.cat([torch.cat([torch.zeros_like(x[:1]), x[:-1]]), x], dim=1)


class HistoryEncoder(nn.Module):
    """A transformer over timelines that sees, at each act, that act and the strictly older ones.

    Attention is masked by time, not by position (see `Blocks`), and reaches back over `window` acts a layer.

    Args:
        num_kinds: twice the number of actions.
        in_channels: width of the embeddings of users.
        hidden_channels: width of the transformer.
        num_layers, num_heads: its size.
        window: how many acts back an act sees.
        dropout: on the residual branches.
        activation: 'gelu' or 'swiglu'.

    Attributes:
        reach: acts that matter to the last one, and one more, the gap to which matters.

    Shapes:
        forward: `Timelines` of M acts and embeddings [M, in_channels] of their other sides -> [M, hidden].
    """

    def __init__(
        self,
        num_kinds: int,
        in_channels: int,
        hidden_channels: int,
        *,
        num_layers: int = 2,
        num_heads: int = 4,
        window: int = 64,
        dropout: float = 0.1,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        check_counts(num_kinds=num_kinds, in_channels=in_channels, num_layers=num_layers, window=window)
        self.window, self.reach = window, num_layers * (window - 1) + 2
        self.acts = ActEmbedding(num_kinds, in_channels, hidden_channels)
        self.layers = nn.ModuleList(
            Layer(hidden_channels, num_heads, dropout, activation) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_channels)

    def forward(self, timelines: Timelines, other: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Encode each act in the light of those before it.

        Args:
            timelines: M acts.
            other: [M, in_channels], embeddings of their other sides.
            wanted: [W] int64, acts whose encoding is needed; all by default. The last layer works for these
                alone.
        """
        if not len(timelines):
            return other.new_zeros(0, self.norm.normalized_shape[0])
        blocks = Blocks(timelines, self.window)
        x = blocks.cut(self.acts(timelines, other))  # [blocks, W, H]
        wanted = torch.arange(len(timelines), device=x.device) if wanted is None else wanted
        for layer in self.layers[:-1]:
            x = layer(x, blocks.mask)
        out: Tensor = self.norm(self.layers[-1](x, blocks.mask, wanted))
        return out


class Layer(nn.Module):
    """A pre-norm transformer layer over blocks that also attend to the block before.

    Shapes:
        forward: [blocks, W, H], mask [blocks, 1, W, 2 W] -> [blocks, W, H], or [V, H] for V wanted places
        of the flattened blocks.
    """

    def __init__(
        self, channels: int, num_heads: int, dropout: float, activation: Activation = "gelu"
    ) -> None:
        super().__init__()
        check_counts(channels=channels, num_heads=num_heads)
        check_dropout(dropout)
        if channels % num_heads:
            raise ValueError(f"channels must be a multiple of num_heads, got {channels} and {num_heads}")
        self.num_heads = num_heads
        self.norm_attention = nn.LayerNorm(channels)
        self.norm_mlp = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.mlp = feed_forward(channels, 4 * channels, channels, activation=activation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Attention, then the pointwise network, each on a residual branch."""
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
