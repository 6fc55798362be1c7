"""Encoding two-directional timelines: every prefix of every history in one causal pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphrec.data import USER
from graphrec.sampler import REVERSE, Timeline


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
            for own, title in enumerate((action, REVERSE + action)):
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
        row, half = timeline.last_contacts(user, tick, k)
        row, half = row.flip(0), half.flip(0)
        order = row.argsort(stable=True)
        row, half = row[order], half[order]
        event = timeline.event[half].long()
        return cls(
            row,
            timeline.halves.other[half].long(),
            timeline.kind(half),
            timeline.events.time[event],
            user.numel(),
        )

    def to(self, device: torch.device) -> Timelines:
        """The same acts on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

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


class HistoryEncoder(nn.Module):
    """A transformer over timelines that sees, at each act, that act and the strictly older ones.

    Attention is masked by time, not by position, so tied acts do not see each other, and reaches back over
    `window` acts. The stream is cut into blocks of `window`; each block attends to itself and to the one
    before, so the cost grows with the number of acts and no history is padded to the longest.

    Args:
        num_kinds: twice the number of actions.
        in_channels: width of the embeddings of users.
        hidden_channels: width of the transformer.
        num_layers, num_heads: its size.
        window: how many acts back an act sees.
        dropout: on the residual branches.

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
    ) -> None:
        super().__init__()
        self.window = window
        self.kind = nn.Embedding(num_kinds, hidden_channels)
        self.other = nn.Linear(in_channels, hidden_channels, bias=False)
        self.gap = nn.Linear(2, hidden_channels)
        self.layers = nn.ModuleList(Layer(hidden_channels, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden_channels)

    def forward(self, timelines: Timelines, other: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Encode each act in the light of those before it.

        Args:
            timelines: M acts.
            other: [M, in_channels], embeddings of their other sides.
            wanted: [W] int64, acts whose encoding is needed; all by default. The last layer works for these
                alone.
        """
        size, window = len(timelines), self.window
        if not size:
            return other.new_zeros(0, self.norm.normalized_shape[0])
        x = self.other(other) + self.kind(timelines.kind) + self.gap(self._gaps(timelines))  # [M, H]
        blocks = -(-size // window)
        x = F.pad(x, (0, 0, 0, blocks * window - size)).view(blocks, window, -1)  # [blocks, W, H]
        mask = self._mask(timelines, blocks)
        wanted = torch.arange(size, device=x.device) if wanted is None else wanted
        for layer in self.layers[:-1]:
            x = layer(x, mask)
        out: Tensor = self.norm(self.layers[-1](x, mask, wanted))
        return out

    @staticmethod
    def _gaps(timelines: Timelines) -> Tensor:
        """log1p seconds since the act before, tied ones skipped, and whether there is one: [M, 2]."""
        time, row = timelines.time, timelines.row
        position = torch.arange(time.numel(), device=time.device)
        opens = torch.ones_like(row, dtype=torch.bool)
        opens[1:] = (row[1:] != row[:-1]) | (time[1:] != time[:-1])
        last = torch.where(opens, position, 0).cummax(0).values - 1  # the act before this one's tie
        found = (last >= 0) & (row[last.clamp(min=0)] == row)
        gap = torch.where(found, time - time[last.clamp(min=0)], 0)
        return torch.stack([gap.float().log1p() / 10, found.float()], dim=1)

    def _mask(self, timelines: Timelines, blocks: int) -> Tensor:
        """Which of the 2 W acts of the block before and its own each act sees: [blocks, 1, W, 2 W] bool."""
        window, size = self.window, len(timelines)
        pad = blocks * window - size
        device = timelines.row.device
        row = F.pad(timelines.row, (0, pad), value=-1).view(blocks, window)
        time = F.pad(timelines.time, (0, pad)).view(blocks, window)
        row_before = torch.cat([row.new_full((1, window), -2), row[:-1]])
        time_before = torch.cat([time[:1], time[:-1]])
        key_row, key_time = torch.cat([row_before, row], 1), torch.cat([time_before, time], 1)
        back = torch.arange(window, 2 * window, device=device)[:, None] - torch.arange(
            2 * window, device=device
        )
        older = (key_time[:, None, :] < time[:, :, None]) & (key_row[:, None, :] == row[:, :, None])
        return ((older & (back > 0) & (back < window)) | (back == 0))[:, None]


class Layer(nn.Module):
    """A pre-norm transformer layer over blocks that also attend to the block before.

    Shapes:
        forward: [blocks, W, H], mask [blocks, 1, W, 2 W] -> [blocks, W, H], or [V, H] for V wanted places
        of the flattened blocks.
    """

    def __init__(self, channels: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_attention = nn.LayerNorm(channels)
        self.norm_mlp = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Attention, then the pointwise network, each on a residual branch."""
        blocks, window, channels = x.shape
        q, k, v = (
            part.view(blocks, window, self.num_heads, -1).transpose(1, 2)  # [blocks, heads, W, H / heads]
            for part in self.qkv(self.norm_attention(x)).split(channels, dim=-1)
        )
        k, v = (torch.cat([F.pad(part[:-1], (0, 0, 0, 0, 0, 0, 1, 0)), part], dim=2) for part in (k, v))
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        heard = heard.transpose(1, 2).reshape(blocks, window, channels)
        if wanted is not None:
            x, heard = x.flatten(0, 1)[wanted], heard.flatten(0, 1)[wanted]
        x = x + self.dropout(self.out(heard))
        out: Tensor = x + self.dropout(self.mlp(self.norm_mlp(x)))
        return out
