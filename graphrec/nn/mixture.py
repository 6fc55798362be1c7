"""The neighborhood mixture: learned distributions over the neighbors of a query, and a gate over them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from graphrec.features import (
    NUM_PAIR_FEATURES,
    NUM_PATH_FEATURES,
    NUM_PERSON_FEATURES,
    NUM_QUERY_FEATURES,
)
from graphrec.nn.layers import Standardize, mlp, segment_logsumexp
from graphrec.temporal import Neighborhood

Component = Literal["pointer", "paths", "union"]
COMPONENTS: tuple[Component, ...] = get_args(Component)
"""The distributions over the neighborhood of a query, in the order in which they are mixed."""

PATH_CHANNELS, KIND_CHANNELS = 4, 4
"""Weights of a path, and width of the embedding of a hop's last event."""

MAX_PATH_LOGIT = 15.0
ABSENT = -1e9
"""The log-score of a neighbor that a component does not cover."""


@dataclass(frozen=True)
class CandidateScores:
    """Unnormalized scores of the M neighbors of B queries by S components.

    Attributes:
        row, user: [M] int64, in ascending order.
        scores: [S, M] log-scores, `ABSENT` where a component does not cover a neighbor.
        gate: [B, S + 1] gate logits of the components and, last, of the head over all users.
        contact: [M] bool, whether a neighbor is a contact of the query's user.
        group_vote: [M] logits of each neighbor's vote for their prefix groups; None without votes.
    """

    row: Tensor
    user: Tensor
    scores: Tensor
    gate: Tensor
    contact: Tensor
    group_vote: Tensor | None = None

    def log_likelihood(
        self, target: Tensor, excluded: tuple[Tensor, Tensor] | None, global_log_p: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-likelihood of each query's target under the mixture, and under each component alone.

        Args:
            target: [B] int64.
            excluded: (row [K], user [K]) int64, users who are not candidates of a query; None for none.
            global_log_p: [B] log-probability of the target among all users, from the head.

        Returns:
            [B], log-likelihood under the mixture; [B], the sum of the log-likelihoods under the head and each
            component that covers the target.
        """
        left = torch.ones_like(self.row, dtype=torch.bool)
        if excluded is not None:
            place = self._find(*excluded)
            left[place[place >= 0]] = False
        total, share = self._normalize(left)
        hit = self._find(torch.arange(len(target), device=target.device), target)
        absent = self.scores.new_full((len(self.scores), 1), ABSENT)
        at = torch.cat([self.scores, absent], 1)[:, hit]  # [S, B]
        alone = torch.cat([torch.where(at > ABSENT, at - total, ABSENT), global_log_p[None]])  # [S + 1, B]
        mixed = torch.where(alone > ABSENT, share.T + alone, ABSENT).logsumexp(0)
        return mixed, torch.where(alone > ABSENT, alone, 0.0).sum(0)

    def shares(self) -> tuple[Tensor, Tensor]:
        """Each neighbor's probability by the gated components, [M], and the head's gate weight, [B]."""
        if not len(self.scores):
            return torch.zeros_like(self.row, dtype=self.gate.dtype), torch.ones_like(self.gate[:, 0])
        total, share = self._normalize(torch.ones_like(self.row, dtype=torch.bool))
        log_p = self.scores - total[:, self.row] + share.T[:-1, self.row]
        return torch.where(self.scores > ABSENT, log_p, -torch.inf).exp().sum(0), share[:, -1].exp()

    def _normalize(self, left: Tensor) -> tuple[Tensor, Tensor]:
        """Log-normalizers [S, B] of components over a mask [M], and log gate weights [B, S + 1]."""
        totals = []
        for score in self.scores:
            member = left & (score > ABSENT)
            totals.append(segment_logsumexp(score[member], self.row[member], len(self.gate)))
        total = torch.stack(totals)
        nobody = torch.cat([total == -torch.inf, torch.zeros_like(total[:1], dtype=torch.bool)]).T
        share = self.gate.masked_fill(nobody, ABSENT).log_softmax(1)
        return torch.where(nobody.T[:-1], 0.0, total), share

    def _find(self, row: Tensor, user: Tensor) -> Tensor:
        """Positions of pairs (row [K], user [K]) among the M neighbors, or -1: [K] int64."""
        if not self.row.numel():
            return torch.full_like(row, -1)
        base = 1 + int(torch.maximum(self.user.max(), user.max())) if user.numel() else 1
        key, asked = self.row * base + self.user, row * base + user
        at = torch.searchsorted(key, asked).clamp(max=len(key) - 1)
        return torch.where(key[at] == asked, at, -1)


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
        has_profiles: `union` also reads the similarity of the profiles of user and neighbor.
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
            3 + NUM_PAIR_FEATURES + NUM_PERSON_FEATURES + PATH_CHANNELS + NUM_QUERY_FEATURES + has_profiles
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
        similarity: Tensor | None = None,
    ) -> CandidateScores:
        """Score the M neighbors of B queries.

        Args:
            around: the neighborhoods of the B queries.
            query: [B, Q] float32, standardized query features.
            pair: [C, F] float32, pair features of the C contacts.
            path: [P, F] float32, path features; needed, as are `kinds` and `person`, if `reads_people`.
            kinds: [P, 2] int64, the last event of both hops: 2 x action + (1 if it is outgoing).
            person: [M, F] float32, person features.
            similarity: [M] float32, of profiles; None without profiles.
        """
        size, row = len(around), around.row
        pair = self.standardize_pair(pair)
        is_contact = torch.zeros(size, dtype=torch.bool, device=query.device)
        is_contact[around.contact_position] = True
        scores = []
        if "pointer" in self.components:
            logits = self.pointer(torch.cat([pair, query[around.contacts.row]], 1)).squeeze(1)
            scores.append(query.new_full((size,), ABSENT).index_put((around.contact_position,), logits))
        if path is not None and person is not None and kinds is not None:
            path = torch.cat([self.standardize_path(path), self.kind(kinds).flatten(1)], 1)
            weight = self.path(path).clamp(-MAX_PATH_LOGIT, MAX_PATH_LOGIT).exp()  # [P, C]
            weight = query.new_zeros(size, PATH_CHANNELS).index_add(0, around.path_end, weight)
            is_end = torch.zeros_like(is_contact)
            is_end[around.path_end] = True
        if "paths" in self.components:
            share = self.blend(query).softmax(1)[row]
            reached = is_end & ~is_contact
            logits = ((weight * share).sum(1) + 1e-12).log()
            scores.append(torch.where(reached, logits, ABSENT))
        vote = None
        if "union" in self.components or self.group_vote is not None:
            assert person is not None
            is_recent = torch.zeros_like(is_contact)
            is_recent[around.recent_position] = True
            flags = torch.stack([is_contact, is_end, is_recent], 1).float()
            pairs = query.new_zeros(size, pair.size(1)).index_put((around.contact_position,), pair)
            person = self.standardize_person(person)
            everything = [flags, pairs, person, weight.log1p(), query[row]]
            everything += [] if similarity is None else [similarity[:, None]]
            inputs = torch.cat(everything, 1)
            if "union" in self.components:
                scores.append(self.union(inputs).squeeze(1))
            vote = None if self.group_vote is None else self.group_vote(inputs).squeeze(1)
        number = [
            torch.bincount(row[mask], minlength=len(query)).float().log1p() / 4
            for mask in (is_contact, ~is_contact)
        ]
        gate = self.gate(torch.cat([query, torch.stack(number, 1)], 1))
        return CandidateScores(around.row, around.user, torch.stack(scores), gate, is_contact, vote)
