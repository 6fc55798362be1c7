"""The neighbourhood mixture: learned sources of people around a query, each a distribution of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from graphrec.nn.features import (
    NUM_PAIR_FEATURES,
    NUM_PATH_FEATURES,
    NUM_PERSON_FEATURES,
    NUM_QUERY_FEATURES,
)
from graphrec.nn.layers import Standardize, mlp, segment_logsumexp
from graphrec.temporal import Neighborhood

SOURCES = ("pointer", "paths", "union")
CHANNELS = 4
KIND_CHANNELS = 4
MAX_PATH = 15.0
ABSENT = -1e9


@dataclass(frozen=True)
class Votes:
    """What S sources say of the M people around B queries, before anything is normalised.

    Attributes:
        row, user: [M] int64, in ascending order.
        scores: [S, M] log-scores, `ABSENT` where a person is not among a source's.
        gate: [B, S + 1] logits, the last for everyone beyond.
        contact: [M] bool, who is a contact.
        circle: [M] logits, how much each counts where circles vote for whom they may know; None without.
    """

    row: Tensor
    user: Tensor
    scores: Tensor
    gate: Tensor
    contact: Tensor
    circle: Tensor | None = None

    def log_likelihood(
        self, target: Tensor, barred: tuple[Tensor, Tensor] | None, table: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of each query's target under the mixture, and under each source alone.

        Args:
            target: [B] int64.
            barred: (row, user), people who are no candidates.
            table: [B] log-probability of the target among everyone.

        Returns:
            [B] of the mixture; [B], the sum over those sources that have the target.
        """
        left = torch.ones_like(self.row, dtype=torch.bool)
        if barred is not None:
            place = self._find(*barred)
            left[place[place >= 0]] = False
        total, share = self._normalize(left)
        hit = self._find(torch.arange(len(target), device=target.device), target)
        absent = self.scores.new_full((len(self.scores), 1), ABSENT)
        at = torch.cat([self.scores, absent], 1)[:, hit]  # [S, B]
        alone = torch.cat([torch.where(at > ABSENT, at - total, ABSENT), table[None]])  # [S + 1, B]
        mixed = torch.where(alone > ABSENT, share.T + alone, ABSENT).logsumexp(0)
        return mixed, torch.where(alone > ABSENT, alone, 0.0).sum(0)

    def shares(self) -> tuple[Tensor, Tensor]:
        """The probability of each person around, [M], and that of everyone beyond together, [B]."""
        if not len(self.scores):
            return torch.zeros_like(self.row, dtype=self.gate.dtype), torch.ones_like(self.gate[:, 0])
        total, share = self._normalize(torch.ones_like(self.row, dtype=torch.bool))
        log_p = self.scores - total[:, self.row] + share.T[:-1, self.row]
        return torch.where(self.scores > ABSENT, log_p, -torch.inf).exp().sum(0), share[:, -1].exp()

    def _normalize(self, left: Tensor) -> tuple[Tensor, Tensor]:
        """Log-normalisers [S, B] over those left, and log-shares [B, S + 1] of the sources that have any."""
        totals = []
        for score in self.scores:
            member = left & (score > ABSENT)
            totals.append(segment_logsumexp(score[member], self.row[member], len(self.gate)))
        total = torch.stack(totals)
        nobody = torch.cat([total == -torch.inf, torch.zeros_like(total[:1], dtype=torch.bool)]).T
        share = self.gate.masked_fill(nobody, ABSENT).log_softmax(1)
        return torch.where(nobody.T[:-1], 0.0, total), share

    def _find(self, row: Tensor, user: Tensor) -> Tensor:
        """Where people [K] of rows [K] are among the M, or -1, [K] int64."""
        if not self.row.numel():
            return torch.full_like(row, -1)
        base = 1 + int(torch.maximum(self.user.max(), user.max())) if user.numel() else 1
        key, asked = self.row * base + self.user, row * base + user
        at = torch.searchsorted(key, asked).clamp(max=len(key) - 1)
        return torch.where(key[at] == asked, at, -1)


class NeighborhoodMixture(nn.Module):
    """Scores people around queries by several sources, and says how much each source counts.

    pointer
        the latest distinct contacts by the state of the pair. Pointer networks (Vinyals et al. 2015,
        https://arxiv.org/abs/1506.03134) attend by content; here it is mostly the pair's gaps, counts and
        ranks, which heuristics show to be what decides.
    paths
        a time-aware learned Adamic-Adar (Adamic & Adar 2003): each two-hop path is weighed by the gaps,
        counts, acts and degrees along it, and the weights of an end's paths are summed. Contacts are left
        out.
    union
        everyone around, by all that is known of pair, paths and person.

    Args:
        sources: some of `SOURCES`.
        num_kinds: twice the number of actions.
        hidden_channels: width of the scorers.
        has_profiles: whether `union` is also told how similar the profiles of user and person are.
        has_circles: whether people are also weighed as voters for their circles, from what `union` is told.
    """

    def __init__(
        self,
        sources: Collection[str],
        num_kinds: int,
        *,
        hidden_channels: int = 32,
        has_profiles: bool = False,
        has_circles: bool = False,
    ) -> None:
        super().__init__()
        self.sources = [name for name in SOURCES if name in sources]
        self.standardize_pair = Standardize(NUM_PAIR_FEATURES)
        if "pointer" in sources:
            self.pointer = mlp(NUM_PAIR_FEATURES + NUM_QUERY_FEATURES, hidden_channels, 1)
        if "paths" in sources or "union" in sources or has_circles:
            self.standardize_path = Standardize(NUM_PATH_FEATURES)
            self.kind = nn.Embedding(num_kinds, KIND_CHANNELS)
            self.path = mlp(NUM_PATH_FEATURES + 2 * KIND_CHANNELS, 16, CHANNELS)
            last = self.path[-1]
            assert isinstance(last, nn.Linear)
            nn.init.normal_(last.weight, std=0.02)
        if "paths" in sources:
            self.blend = mlp(NUM_QUERY_FEATURES, 16, CHANNELS)
        width = 3 + NUM_PAIR_FEATURES + NUM_PERSON_FEATURES + CHANNELS + NUM_QUERY_FEATURES + has_profiles
        if "union" in sources or has_circles:
            self.standardize_person = Standardize(NUM_PERSON_FEATURES)
        if "union" in sources:
            self.union = mlp(width, hidden_channels, 1)
        self.circle = mlp(width, hidden_channels, 1) if has_circles else None
        self.gate = mlp(NUM_QUERY_FEATURES + 2, hidden_channels, len(self.sources) + 1)
        leads = [2.0 if name == "pointer" else 0.0 for name in self.sources]  # at first
        last = self.gate[-1]
        assert isinstance(last, nn.Linear)
        last.bias.data = torch.tensor([*leads, 0.0])

    def vote(
        self,
        around: Neighborhood,
        query: Tensor,
        pair: Tensor,
        *,
        path: Tensor | None = None,
        kinds: Tensor | None = None,
        person: Tensor | None = None,
        similarity: Tensor | None = None,
    ) -> Votes:
        """Score the M people around B queries.

        Args:
            around: of the B queries.
            query: [B, Q] float32, standardised.
            pair: [Mc, F] float32, of contacts.
            path: [P, F] float32; it, kinds and person are needed unless the pointer is alone.
            kinds: [P, 2] int64, the last act of both hops: 2 x action + (1 if it went out).
            person: [M, F] float32.
            similarity: [M] float32, of profiles, where there are any.
        """
        size, row = len(around), around.row
        pair = self.standardize_pair(pair)
        is_contact = torch.zeros(size, dtype=torch.bool, device=query.device)
        is_contact[around.contact] = True
        scores = []
        if "pointer" in self.sources:
            logits = self.pointer(torch.cat([pair, query[around.contacts.row]], 1)).squeeze(1)
            scores.append(query.new_full((size,), ABSENT).index_put((around.contact,), logits))
        if path is not None and person is not None and kinds is not None:
            path = torch.cat([self.standardize_path(path), self.kind(kinds).flatten(1)], 1)
            weight = self.path(path).clamp(-MAX_PATH, MAX_PATH).exp()  # [P, C]
            weight = query.new_zeros(size, CHANNELS).index_add(0, around.end, weight)
            is_end = torch.zeros_like(is_contact)
            is_end[around.end] = True
        if "paths" in self.sources:
            share = self.blend(query).softmax(1)[row]
            reached = is_end & ~is_contact
            logits = ((weight * share).sum(1) + 1e-12).log()
            scores.append(torch.where(reached, logits, ABSENT))
        circle = None
        if "union" in self.sources or self.circle is not None:
            assert person is not None
            is_recent = torch.zeros_like(is_contact)
            is_recent[around.recent] = True
            flags = torch.stack([is_contact, is_end, is_recent], 1).float()
            pairs = query.new_zeros(size, pair.size(1)).index_put((around.contact,), pair)
            person = self.standardize_person(person)
            everything = [flags, pairs, person, weight.log1p(), query[row]]
            everything += [] if similarity is None else [similarity[:, None]]
            inputs = torch.cat(everything, 1)
            if "union" in self.sources:
                scores.append(self.union(inputs).squeeze(1))
            circle = None if self.circle is None else self.circle(inputs).squeeze(1)
        number = [
            torch.bincount(row[mask], minlength=len(query)).float().log1p() / 4
            for mask in (is_contact, ~is_contact)
        ]
        gate = self.gate(torch.cat([query, torch.stack(number, 1)], 1))
        return Votes(around.row, around.user, torch.stack(scores), gate, is_contact, circle)
