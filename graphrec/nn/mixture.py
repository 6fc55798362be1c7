"""The neighborhood mixture: learned distributions over the neighbors of a query, and a gate over them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from graphrec.features import (
    NUM_PAIR_FEATURES,
    NUM_PATH_FEATURES,
    NUM_PERSON_FEATURES,
    NUM_QUERY_FEATURES,
)
from graphrec.nn.cached_values import cached_value
from graphrec.nn.candidate_scores import CandidateScores
from graphrec.nn.layers import Standardize, mlp, run_layers
from graphrec.nn.mixture_kernels import ABSENT, fill_flags
from graphrec.temporal import Neighborhood

Component = Literal["pointer", "paths", "union"]
COMPONENTS: tuple[Component, ...] = get_args(Component)
"""The distributions over the neighborhood of a query, in the order in which they are mixed."""

PATH_CHANNELS, KIND_CHANNELS = 4, 4
"""Weights of a path, and width of the embedding of a hop's last event."""

MAX_PATH_LOGIT = 15.0

NUM_FLAGS = 3
"""Whether a neighbor is a contact, the end of a path, recently active."""


class NeighborhoodMixture(nn.Module):
    """Scores the neighborhood of a query by several components, with a learned gate.

    pointer
        scores the latest distinct contacts by features of the pair. Pointer networks (Vinyals et al. 2015,
        https://arxiv.org/abs/1506.03134) attend by content; here by the pair's gaps, counts and ranks, which
        heuristics show to matter most.
    paths
        scores contacts of contacts by a learned, time-aware Adamic-Adar (Adamic & Adar 2003): each two-hop
        path has a weight from the gaps, counts, events and degrees along it, and the weights of all paths to
        a neighbor are summed. Contacts are left out.
    union
        scores all neighbors by all features of pair, paths and person.

    Args:
        components: some of `COMPONENTS`.
        num_kinds: twice the number of actions.
        hidden_channels: width of the scorers.
        has_profiles: `union` also reads the affinity of the profiles of user and neighbor.
        group_votes: also score the weight of each neighbor's vote for their prefix groups, from the inputs of
            `union`.
    """

    def __init__(
        self,
        components: Collection[Component],
        num_kinds: int,
        *,
        hidden_channels: int = 32,
        has_profiles: bool = False,
        group_votes: bool = False,
    ) -> None:
        super().__init__()
        self.components = [name for name in COMPONENTS if name in components]
        self.reads_people = bool({"paths", "union"} & set(components)) or group_votes
        self.standardize_pair = Standardize(NUM_PAIR_FEATURES)
        if "pointer" in components:
            self.pointer = mlp(NUM_PAIR_FEATURES + NUM_QUERY_FEATURES, hidden_channels, 1)
        if self.reads_people:
            self.standardize_path = Standardize(NUM_PATH_FEATURES)
            self.kind = nn.Embedding(num_kinds, KIND_CHANNELS)
            self.path = mlp(NUM_PATH_FEATURES + 2 * KIND_CHANNELS, 16, PATH_CHANNELS)
            last = self.path[-1]
            assert isinstance(last, nn.Linear)
            nn.init.normal_(last.weight, std=0.02)
        if "paths" in components:
            self.blend = mlp(NUM_QUERY_FEATURES, 16, PATH_CHANNELS)
        width = (
            NUM_FLAGS
            + NUM_PAIR_FEATURES
            + NUM_PERSON_FEATURES
            + PATH_CHANNELS
            + NUM_QUERY_FEATURES
            + has_profiles
        )
        if "union" in components or group_votes:
            self.standardize_person = Standardize(NUM_PERSON_FEATURES)
        if "union" in components:
            self.union = mlp(width, hidden_channels, 1)
        self.group_vote = mlp(width, hidden_channels, 1) if group_votes else None
        self.gate = mlp(NUM_QUERY_FEATURES + 2, hidden_channels, len(self.components) + 1)
        leads = [2.0 if name == "pointer" else 0.0 for name in self.components]  # at first
        last = self.gate[-1]
        assert isinstance(last, nn.Linear)
        last.bias.data = torch.tensor([*leads, 0.0])

    def forward(
        self,
        around: Neighborhood,
        query: Tensor,
        pair: Tensor,
        *,
        path: Tensor | None = None,
        kinds: Tensor | None = None,
        person: Tensor | None = None,
        affinity: Tensor | None = None,
    ) -> CandidateScores:
        """Score the M neighbors of B queries.

        Args:
            around: the neighborhoods of the B queries.
            query: [B, Q] float32, standardized query features.
            pair: [C, F] float32, pair features of the C contacts.
            path: [P, F] float32, path features; needed, as are `kinds` and `person`, if `reads_people`.
            kinds: [P, 2] int64, the last event of both hops: 2 x action + (1 if it is outgoing).
            person: [M, F] float32, person features.
            affinity: [M] float32, of profiles; None without profiles.
        """
        size, row = len(around), around.row
        pair = self.standardize_pair(pair)
        flags, is_contact, is_stranger, number = _flags(around, len(query))
        scores = []
        if "pointer" in self.components:
            logits = self.pointer(torch.cat([pair, query.index_select(0, around.contacts.row)], 1)).squeeze(1)
            scores.append(query.new_full((size,), ABSENT).index_put((around.contact_position,), logits))
        if path is not None and person is not None and kinds is not None:
            weight = self._path_weights(path, kinds)  # [P, C]
            weight = query.new_zeros(size, PATH_CHANNELS).index_add(0, around.path_end, weight)
        if "paths" in self.components:
            share = self.blend(query).softmax(1).index_select(0, row)
            logits = ((weight * share).sum(1) + 1e-12).log()
            scores.append(torch.where(is_stranger, logits, ABSENT))
        vote = None
        if "union" in self.components or self.group_vote is not None:
            assert person is not None
            inputs = [flags, self.standardize_person(person), weight.log1p()]
            known = torch.cat(inputs if affinity is None else [*inputs, affinity[:, None]], 1)
            if "union" in self.components:
                scores.append(_score_people(self.union, around, known, pair, query))
            if self.group_vote is not None:
                vote = _score_people(self.group_vote, around, known, pair, query)
        gate = self.gate(torch.cat([query, number.log1p_().div_(4).T], 1))
        return CandidateScores(around.row, around.user, torch.stack(scores), gate, is_contact, vote)

    def _path_weights(self, path: Tensor, kinds: Tensor) -> Tensor:
        """The weights of P paths from their features and the kinds of both hops: [P, PATH_CHANNELS]."""
        first, *others = self.path
        assert isinstance(first, nn.Linear)
        kind, weight, bias = self.kind.weight, first.weight, first.bias

        def in_parts() -> tuple[Tensor, Tensor]:
            by_feature, by_kind, by_next = weight.split(
                [NUM_PATH_FEATURES, KIND_CHANNELS, KIND_CHANNELS], dim=1
            )
            # A row for each two kinds: the layer of their embeddings is computed once, not for each path.
            table = (kind @ by_kind.T)[:, None] + kind @ by_next.T + bias
            return table.flatten(0, 1), by_feature.T

        table, by_feature = cached_value(self, "path", (kind, weight, bias), in_parts)
        both = kinds[:, 0] * len(kind) + kinds[:, 1]
        out = torch.addmm(table.index_select(0, both), self.standardize_path(path), by_feature)
        return run_layers(others, out).clamp(-MAX_PATH_LOGIT, MAX_PATH_LOGIT).exp()


def _flags(around: Neighborhood, num_queries: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the M neighbors of B queries are.

    Returns:
        whether each is a contact, the end of a path, recently active: [M, NUM_FLAGS] float32; whether it is a
        contact, and whether it is the end of a path and none: [M] bool each; the number of contacts and of
        others of each query: [2, B] float32.
    """
    flags, number = torch.zeros(len(around), NUM_FLAGS), torch.zeros(2, num_queries)
    is_contact, is_stranger = torch.empty(2, len(around), dtype=torch.bool)
    given = around.row, around.contact_position, around.path_end, around.recent_position
    arrays = [x.cpu().contiguous() for x in given]
    fill_flags(*(x.numpy() for x in (*arrays, flags, is_contact, is_stranger, number)))
    device = around.row.device
    return flags.to(device), is_contact.to(device), is_stranger.to(device), number.to(device)


def _score_people(
    scorer: nn.Sequential, around: Neighborhood, known: Tensor, pair: Tensor, query: Tensor
) -> Tensor:
    """Score the M neighbors of B queries by an MLP on [flags, pair, person, paths, query, affinity].

    The part of the first layer that reads a query is computed for each query, and the one that reads a pair,
    0 where there is no contact, for contacts alone.

    Args:
        scorer: made by `mlp`.
        around: the neighborhoods.
        known: [M, F], flags, person, paths and affinity.
        pair: [C, NUM_PAIR_FEATURES], of the C contacts.
        query: [B, NUM_QUERY_FEATURES].

    Returns:
        [M].
    """
    first, *others = scorer
    assert isinstance(first, nn.Linear)
    weight, more = first.weight, known.size(1) - NUM_FLAGS - NUM_PERSON_FEATURES - PATH_CHANNELS

    def in_parts() -> tuple[Tensor, Tensor, Tensor]:
        flags, by_pair, people, by_query, affinity = weight.split(
            [NUM_FLAGS, NUM_PAIR_FEATURES, NUM_PERSON_FEATURES + PATH_CHANNELS, NUM_QUERY_FEATURES, more],
            dim=1,
        )
        return by_query.T, by_pair.T, torch.cat([flags, people, affinity], 1).T

    by_query, by_pair, by_rest = cached_value(scorer, "parts", (weight,), in_parts)
    rest = torch.addmm(first.bias, query, by_query).index_select(0, around.row)
    rest = rest.index_add_(0, around.contact_position, pair @ by_pair)
    return run_layers(others, torch.addmm(rest, known, by_rest)).squeeze(1)
