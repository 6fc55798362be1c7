"""The control: random codes, independent of the graph."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from graphrec.data import USER, FriendGraph
from graphrec.data.draws import below, hashed
from graphrec.nn import ResidualQuantizer
from graphrec.tokenizer.fit import CodebookFit, default_codebook_size
from graphrec.tokenizer.tokenizer import CodeSettings, Tokenizer


class RandomCodes(Tokenizer):
    """Random codes: each is drawn uniformly, by a hash of the user's raw id.

    Args:
        **settings: as in `Tokenizer`; not balanced by default.
    """

    def __init__(self, **settings: Unpack[CodeSettings]) -> None:
        settings.setdefault("balanced", False)
        super().__init__(**settings)
        self.size: Tensor
        self.register_buffer("size", torch.zeros((), dtype=torch.int64))

    def learn(self, graph: FriendGraph, until: int) -> None:
        """Store the codebook size to draw codes from."""
        self.size.fill_(self.codebook_size or default_codebook_size(graph.num_users, self.num_codebooks))

    def embed(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        """The random codes of users as coordinates around 0: [n, L]."""
        raw = graph[USER].raw_id[users]
        if raw.dim() == 2:  # text, padded with zeros to any width
            place = torch.arange(raw.size(1))
            raw = torch.where(raw > 0, hashed(raw.long(), place), 0).sum(1)
        salt = hashed(self.seed, raw[:, None], torch.arange(self.num_codebooks))
        return _coordinate(below(salt, self.size), int(self.size))

    def quantize(self, vectors: Tensor, fit: CodebookFit) -> ResidualQuantizer:
        """A lattice of codebooks, which reproduces the random codes."""
        quantizer = ResidualQuantizer(
            self.num_codebooks, num_codebooks=self.num_codebooks, codebook_size=fit.codebook_size
        )
        level = torch.arange(self.num_codebooks)
        quantizer.codebooks[level, :, level] = _coordinate(torch.arange(fit.codebook_size), fit.codebook_size)
        return quantizer


def _coordinate(code: Tensor, size: int) -> Tensor:
    """The coordinate of codes (float, same shape); never 0, since rows of 0 mean nothing to embed."""
    return code - size / 2 + 0.25
