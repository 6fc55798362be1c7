"""The part of both towers that reads users' profiles."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ProfileNet(nn.Module):
    """Linear layers over profiles for both towers; all outputs start at zero.

    Args:
        num_columns: F + 1, columns of `Profiles.x`.
        embedding_dim: D, width of the towers.
        similarity_dim: R, rank of the bilinear similarity of two profiles.

    Attributes:
        actor: [n, F + 1] -> [n, D], added to user embeddings in the user tower.
        similarity_query: [n, F + 1] -> [n, R], the query's factor of the similarity.
        person: [n, F + 1] -> [n, D + R + 1]: a term of the target embedding, the target's factor of the
            similarity, and a term of the bias.
    """

    def __init__(self, num_columns: int, embedding_dim: int, *, similarity_dim: int = 16) -> None:
        super().__init__()
        self.actor = nn.Linear(num_columns, embedding_dim, bias=False)
        self.similarity_query = nn.Linear(num_columns, similarity_dim, bias=False)
        self.person = nn.Linear(num_columns, embedding_dim + similarity_dim + 1, bias=False)
        nn.init.zeros_(self.actor.weight)
        nn.init.zeros_(self.person.weight)

    def logits(self, vector: Tensor, profile: Tensor, x: Tensor) -> Tensor:
        """Profile terms to add to logits.

        Args:
            vector: [B, D], of queries.
            profile: [B, R], of `similarity_query`.
            x: [C, F + 1], profiles of candidates.

        Returns:
            [B, C].
        """
        query = torch.cat([vector, profile, torch.ones_like(vector[:, :1])], dim=1)
        out: Tensor = query @ self.person(x).T
        return out

    def similarity(self, profile: Tensor, person: Tensor) -> Tensor:
        """The similarity of users by `similarity_query` [M, R] and people by `person` [M, D + R + 1]: [M]."""
        size = profile.size(1)
        return (profile * person[:, -1 - size : -1]).sum(1)
