"""An inductive graph neural network that learns to shift given starting vectors of users."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.data.checks import check_counts, check_dropout
from graphrec.nn.layers import Standardize

MAX_LOGIT = 6.0


class ContactConv(nn.Module):
    """Moves the vector of each node toward an attention-weighted sum of its contacts' vectors.

        m_u = normalized sum_e exp(a_e) h_v(e),    h'_u = normalized (h_u + m_u + W m_u)

    where the attention logit a_e is learned from the features of edge e and of its two ends, and from the
    inner product of their vectors. `a` and W start at zero, so that before training all contacts have equal
    weight and vectors are only smoothed.

    Args:
        dim: D.
        edge_channels: Fe, features of an edge.
        node_channels: Fn, features of a node.
        hidden_channels: width of the attention network.
        dropout: on the input of W.

    Shapes:
        forward: h [M, D], node [M, Fn], row and column [E] int64 (messages flow from `column` to `row`),
            edge [E, Fe], size n -> [n, D], rows of length 1, or 0 for a node at 0 without a contact that is
            not.
    """

    def __init__(
        self,
        dim: int,
        *,
        edge_channels: int,
        node_channels: int,
        hidden_channels: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Linear(edge_channels + 2 * node_channels + 1, hidden_channels),
            nn.GELU(),
            nn.Linear(hidden_channels, 1),
        )
        self.turn = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, dim, bias=False))
        for part in (self.weigh, self.turn):
            _start_at_zero(part)

    def forward(
        self, h: Tensor, node: Tensor, row: Tensor, column: Tensor, edge: Tensor, size: int
    ) -> Tensor:
        """One round of message passing to the first n nodes, the only ones that edges lead to: [n, D]."""
        sent = h[column]
        near = (h[row] * sent).sum(1, keepdim=True)
        logit = self.weigh(torch.cat([edge, node[row], node[column], near], dim=1))
        weight = logit.clamp(-MAX_LOGIT, MAX_LOGIT).exp()
        heard = h.new_zeros(size, h.size(1)).index_add(0, row, weight * sent)
        heard = F.normalize(heard, dim=1)
        return F.normalize(h[:size] + heard + self.turn(heard), dim=1)


class GraphEncoder(nn.Module):
    """User vectors: a starting vector (`place`) of each user, shifted by their features and contacts.

    Before training the output is the starting vector, smoothed over contacts once for each layer.

    Args:
        dim: D, of starting vectors and of the output.
        edge_channels: Fe.
        node_channels: Fn, features of a user's recent activity.
        profile_channels: Fp, profile features of a user; may be 0.
        num_layers: rounds of message passing.
        hidden_channels: width of the network over user features.
        dropout: on hidden layers.

    Shapes:
        forward: place [M, D], node [M, Fn], profile [M, Fp], row and column [E] int64, edge [E, Fe], size n
            -> [n, D], rows of length 1, or 0.
    """

    def __init__(
        self,
        dim: int,
        *,
        edge_channels: int,
        node_channels: int,
        profile_channels: int = 0,
        num_layers: int = 1,
        hidden_channels: int = 64,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_counts(dim=dim, hidden_channels=hidden_channels, num_layers=num_layers)
        check_dropout(dropout)
        self.node_scale, self.edge_scale = Standardize(node_channels), Standardize(edge_channels)
        self.move = nn.Sequential(
            nn.Linear(node_channels + profile_channels, hidden_channels),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_channels, dim),
        )
        self.layers = nn.ModuleList(
            ContactConv(dim, edge_channels=edge_channels, node_channels=node_channels, dropout=dropout)
            for _ in range(num_layers)
        )
        _start_at_zero(self.move)

    def forward(
        self,
        place: Tensor,
        node: Tensor,
        profile: Tensor,
        row: Tensor,
        column: Tensor,
        edge: Tensor,
        size: int | None = None,
    ) -> Tensor:
        """Embeddings of the first n of M nodes, by default all; exact for whole neighborhoods."""
        node, edge = self.node_scale(node), self.edge_scale(edge)
        h: Tensor = place + self.move(torch.cat([node, profile], dim=1))
        *inner, last = self.layers
        for layer in inner:
            h = layer(h, node, row, column, edge, len(h))
        if size is not None and inner:
            kept = row < size
            row, column, edge = row[kept], column[kept], edge[kept]
        out: Tensor = last(h, node, row, column, edge, len(h) if size is None else size)
        return out


def _start_at_zero(part: nn.Sequential) -> None:
    """Set the last layer of a network to zero, so that its initial output is zero."""
    last = part[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
