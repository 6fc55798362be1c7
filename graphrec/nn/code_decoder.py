"""Decoding an STU code by code: the next code, given the query and the codes so far."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.features import NUM_PREFIX_FEATURES, NUM_QUERY_FEATURES
from graphrec.nn.cached_values import cached_value
from graphrec.nn.layers import MixtureOfExperts, Standardize, feed_forward, mlp, run_layers

Decoder = Literal["towers", "moe", "transformer"]

MIN_WEIGHT = 1e-12
"""Added to weights of votes, so that their logarithms are finite."""

NUM_VOTE_FEATURES = 2
"""Number of inputs of the vote interpolation: the number of voters below a prefix and their total weight."""


class CodeTables(nn.Module):
    """Embeddings of codes, level by level; a user is the sum of their codes' embeddings.

    Args:
        num_codebooks: L.
        codebook_size: K.
        embedding_dim: D.
    """

    def __init__(self, num_codebooks: int, codebook_size: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.weight = nn.Parameter(torch.empty(num_codebooks, codebook_size, embedding_dim))
        self.none = nn.Parameter(torch.zeros(embedding_dim))
        nn.init.normal_(self.weight, std=0.1)

    def forward(self, codes: Tensor) -> Tensor:
        """The embeddings of codes [n, l] at the first l levels: [n, l, D]."""
        level = torch.arange(codes.size(1), device=codes.device)
        return self.weight[level, codes]

    def users(self, codes: Tensor) -> Tensor:
        """The embeddings of users by their STUs [n, L], rows of -1 for users without an STU: [n, D]."""
        has = (codes[:, :1] >= 0).to(self.weight.dtype)
        out: Tensor = self(codes.clamp(min=0)).sum(1) * has + self.none * (1.0 - has)
        return out


class CodeTowers(nn.Module):
    """A tower for each level, over the user tower's output concatenated with embeddings of earlier codes.

    Args:
        num_codebooks: L.
        embedding_dim: D.
        experts: whether a tower is a mixture of experts instead of an MLP.
        dropout: in the towers.
    """

    def __init__(self, num_codebooks: int, embedding_dim: int, *, experts: bool, dropout: float) -> None:
        super().__init__()
        dim = embedding_dim
        self.towers = nn.ModuleList(
            MixtureOfExperts((1 + level) * dim, dim, dim, dropout=dropout)
            if experts
            else feed_forward((1 + level) * dim, 2 * dim, dim, dropout=dropout)
            for level in range(num_codebooks)
        )

    def forward(
        self, vector: Tensor, row: Tensor, codes: Tensor, tokens: CodeTables, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Decode one level.

        Args:
            vector: [B, D], the user tower's outputs.
            row: [R] int64, the query of each prefix, below B.
            codes: [R, l] int64, the codes so far.
            tokens: the embeddings of codes.
            state: returned at the previous level, reordered to these prefixes; None at the first level.

        Returns:
            [R, D], whose dot products with the embeddings of next codes are logits; and the state [R, ...].
        """
        tower = self.towers[codes.size(1)]
        if not isinstance(tower, nn.Sequential):
            out: Tensor = tower(torch.cat([vector[row, None], tokens(codes)], dim=1).flatten(1))
            return out, state
        # The first layer is linear in its parts, of which there are far fewer than prefixes.
        first = tower[0]
        assert isinstance(first, nn.Linear)
        own, *weights = first.weight.split(vector.size(1), dim=1)
        by_query = F.linear(vector, own, first.bias)
        if torch.is_grad_enabled():
            parts = [by_query, *(tokens.weight[level] @ weight.T for level, weight in enumerate(weights))]
            base = len(vector) + tokens.codebook_size * torch.arange(len(weights), device=row.device)
            places = torch.cat([row[:, None], base + codes], dim=1)
            hidden = F.embedding_bag(places, torch.cat(parts), mode="sum")
        else:
            hidden = by_query.index_select(0, row)
            if weights:
                tables = cached_value(
                    tower,
                    "tables",
                    (first.weight, tokens.weight),
                    lambda: torch.stack([tokens.weight[level] @ w.T for level, w in enumerate(weights)]),
                )
                for table, code in zip(tables, codes.unbind(1), strict=True):
                    hidden += table.index_select(0, code)
        return run_layers(list(tower)[1:], hidden), state


class CodeTransformer(nn.Module):
    """A causal transformer over (user tower's output, codes so far), with cached keys and values.

    Args:
        num_codebooks: L.
        embedding_dim: D.
        num_layers, num_heads: its size.
        dropout: on the residual branches.
    """

    def __init__(
        self, num_codebooks: int, embedding_dim: int, *, num_layers: int, num_heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(num_codebooks, embedding_dim))
        self.layers = nn.ModuleList(
            _CachedLayer(embedding_dim, num_heads, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(
        self, vector: Tensor, row: Tensor, codes: Tensor, tokens: CodeTables, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Decode one level, as in `CodeTowers`; the state is the cache [R, layers, 2, l + 1, D]."""
        level = codes.size(1)
        x = self.position[level] + (tokens.weight[level - 1, codes[:, -1]] if level else vector[row])
        caches = []
        for number, layer in enumerate(self.layers):
            x, cache = layer(x, None if state is None else state[:, number])
            caches.append(cache)
        return self.norm(x), torch.stack(caches, dim=1)


class _CachedLayer(nn.Module):
    """A pre-norm transformer layer for the newest position of each sequence: [R, D] -> [R, D]."""

    def __init__(self, channels: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.mlp = feed_forward(channels, 2 * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attend to the cache [R, 2, l, D] and to itself: output [R, D] and the cache [R, 2, l + 1, D]."""
        q, new = self.qkv(self.norm_attention(x)).split([x.size(1), 2 * x.size(1)], dim=1)
        heads = self.num_heads, x.size(1) // self.num_heads
        new = new.view(len(x), 2, 1, x.size(1))
        cache = new if cache is None else torch.cat([cache, new], dim=2)
        k, v = (part.unflatten(-1, heads).transpose(1, 2) for part in cache.unbind(1))
        attended = F.scaled_dot_product_attention(q.view(len(x), heads[0], 1, heads[1]), k, v)
        x = x + self.dropout(self.out(attended.reshape(x.shape)))
        return x + self.dropout(self.mlp(self.norm_mlp(x))), cache


class PrefixScoreParts(NamedTuple):
    """The layers of a `PrefixScore` for B queries: `output @ relu(features @ x + query[b]) + bias`.

    Attributes:
        features: [H, NUM_PREFIX_FEATURES], weights of the features, which include their standardization.
        query: [B, H], what each query adds to the hidden layer.
        output: [H], weights of the output.
        bias: [1], of the output.
    """

    features: Tensor
    query: Tensor
    output: Tensor
    bias: Tensor


class PrefixScore(nn.Module):
    """A logit for a code prefix, from group features of the users who share it and from the query vector.

    One hidden ReLU layer, whose weights include the standardization of the features. Its output starts at
    zero.

    Args:
        embedding_dim: D, of query vectors.
        hidden_channels: H, of the hidden layer.

    Shapes:
        forward: features [NUM_PREFIX_FEATURES, T], vectors [B, D], row [T] int64 below B -> [T].
    """

    def __init__(self, embedding_dim: int, hidden_channels: int = 16) -> None:
        super().__init__()
        self.standardize = Standardize(NUM_PREFIX_FEATURES)
        self.group = nn.Linear(NUM_PREFIX_FEATURES, hidden_channels)
        self.query = nn.Linear(embedding_dim, hidden_channels, bias=False)
        self.score = nn.Linear(hidden_channels, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, features: Tensor, vector: Tensor, row: Tensor) -> Tensor:
        """Logits [T] of prefixes for queries `row` [T]."""
        mean, deviation = self.standardize.learn(features.T)
        weight = self.group.weight / deviation
        query = self.query(vector).T + (self.group.bias - weight @ mean)[:, None]  # [H, B]
        hidden = torch.relu(weight @ features + query.index_select(1, row))
        out: Tensor = (self.score.weight @ hidden + self.score.bias).squeeze(0)
        return out

    def parts(self, vector: Tensor) -> PrefixScoreParts:
        """The layers for query vectors [B, D], once the standardization is learned."""
        mean, deviation = self.standardize.statistics
        own, bias = self.group.weight, self.group.bias

        def folded() -> tuple[Tensor, Tensor]:
            weight = own / deviation
            return weight, bias - weight @ mean

        weight, rest = cached_value(self, "folded", (own, bias, mean, deviation), folded)
        query = F.linear(vector, self.query.weight) + rest
        return PrefixScoreParts(weight, query, self.score.weight.squeeze(0), self.score.bias)


class CodeDecoder(nn.Module):
    """The embeddings of codes, and the network that scores the next code of a prefix.

    Args:
        num_codebooks: L.
        codebook_size: K.
        decoder: 'towers', one MLP a level (`CodeTowers`); 'moe', one mixture of experts a level; or
            'transformer' (`CodeTransformer`).
        embedding_dim: D, of query vectors and codes.
        num_heads, dropout: of the decoder.
        presence: also score prefixes by features of the users who share them (`PrefixScore`).

    Attributes:
        tokens: input embeddings of codes, and of users by their STUs.
        next_code, bias: [L, K, D] output embeddings and [L, K] biases of next codes.
        prefix_scores: a `PrefixScore` for each level; None without `presence`.
        vote_trust: for each level, the logit of the interpolation weight of the neighbors' votes.
        has_stu: the logit of the probability that the target has an STU.
    """

    def __init__(
        self,
        *,
        num_codebooks: int,
        codebook_size: int,
        decoder: Decoder,
        embedding_dim: int,
        num_heads: int,
        dropout: float,
        presence: bool,
    ) -> None:
        super().__init__()
        self.tokens = CodeTables(num_codebooks, codebook_size, embedding_dim)
        self.next_code = nn.Parameter(torch.empty(num_codebooks, codebook_size, embedding_dim))
        nn.init.normal_(self.next_code, std=0.1)
        self.bias = nn.Parameter(torch.zeros(num_codebooks, codebook_size))
        self.step: CodeTowers | CodeTransformer = (
            CodeTransformer(num_codebooks, embedding_dim, num_layers=2, num_heads=num_heads, dropout=dropout)
            if decoder == "transformer"
            else CodeTowers(num_codebooks, embedding_dim, experts=decoder == "moe", dropout=dropout)
        )
        levels = range(num_codebooks)
        self.prefix_scores = nn.ModuleList(PrefixScore(embedding_dim) for _ in levels) if presence else None
        self.vote_trust = nn.ModuleList(mlp(NUM_QUERY_FEATURES + NUM_VOTE_FEATURES, 16, 1) for _ in levels)
        self.has_stu = mlp(NUM_QUERY_FEATURES + 1, 16, 1)
        for part, bias in [*((trust, -1.0) for trust in self.vote_trust), (self.has_stu, 3.0)]:
            assert isinstance(part, nn.Sequential)
            last = part[-1]
            assert isinstance(last, nn.Linear)
            nn.init.constant_(last.bias, bias)

    def trust(self, level: int, features: Tensor, count: Tensor, total: Tensor) -> Tensor:
        """The share of the neighbors' votes in the next codes of R prefixes.

        Args:
            level: length of the prefixes.
            features: [R, NUM_QUERY_FEATURES], standardized, of their queries.
            count: [R] float32, neighbors below each prefix.
            total: [R] float32, the weight of their votes.

        Returns:
            [R], 0 where no vote has a weight.
        """
        votes = torch.stack([count.log1p() / 4, (total + MIN_WEIGHT).log() / 8], dim=1)
        out: Tensor = self.vote_trust[level](torch.cat([features, votes], dim=1)).squeeze(1)
        return out.sigmoid() * (total > 0)

    def trust_logits(self, level: int, features: Tensor, row: Tensor, votes: Tensor) -> Tensor:
        """The logits of `trust`, without gradients.

        Args:
            level: length of the prefixes.
            features: [B, NUM_QUERY_FEATURES], standardized.
            row: [R] int64, the query of each prefix.
            votes: [R, NUM_VOTE_FEATURES] float32, log1p(count) / 4 and log(total + MIN_WEIGHT) / 8.

        Returns:
            [R].
        """
        layers = self.vote_trust[level]
        assert isinstance(layers, nn.Sequential)
        first, *others = layers
        assert isinstance(first, nn.Linear)
        own, by_votes = first.weight.split([NUM_QUERY_FEATURES, NUM_VOTE_FEATURES], dim=1)
        hidden = F.linear(features, own, first.bias).index_select(0, row)
        return run_layers(others, torch.addmm(hidden, votes, by_votes.T)).squeeze(1)

    def forward(
        self, vector: Tensor, row: Tensor, prefix: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits of the next code.

        Args:
            vector: [B, D], the user tower's outputs.
            row: [R] int64, the query of each prefix, below B.
            prefix: [R, l] int64, l < L.
            state: returned at the previous level, reordered to these prefixes; None at the first level.

        Returns:
            logits [R, K], and the state [R, ...].
        """
        level = prefix.size(1)
        z, state = self.step(vector, row, prefix, self.tokens, state)
        weight, bias = self.next_code[level], self.bias[level]
        if not torch.is_grad_enabled():
            return F.linear(z, weight, bias), state
        return z @ weight.T + bias, state
