"""The scorer of a search down the tree of STUs: the whole mixture, or the decoder alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphrec.decode import Beam, score_candidates
from graphrec.models.heads.codes.neighbor_kernels import list_likeliest, list_without_stu
from graphrec.models.heads.codes.prefix_scorer import Prefixes, PrefixScorer
from graphrec.models.heads.codes.step_kernels import spread_mass
from graphrec.nn import CodeDecoder

MIN_PROBABILITY = 1e-30


class MixtureScorer:
    """The mixture as a `graphrec.decode.NextCodeScorer`, for B queries that share a prefix tree.

    For each prefix it keeps the decoder's share of the prefix's probability; the rest is that of the
    neighbors below the prefix. So the product of next-code probabilities is the mixture's exact probability
    of a leaf. In a bucket of several users, a neighbor's probability is spread over all of them; `exact`
    corrects that.

    Args:
        scorer: bound to B queries that read the codes of one moment.
        number: the number of this moment; -1 before the first, when no user has an STU.

    Attributes:
        tree: the prefix tree of the moment.
        log_root: [B], log-probability that the target has an STU; the value of the root.
    """

    def __init__(self, scorer: PrefixScorer, number: int) -> None:
        self._scorer, self._forest, self._number = scorer, scorer.history.forest, number
        encoded = self._encoded = scorer.encoded
        self.tree = self._forest.trees[max(0, number)]
        self._inside, self._beyond = torch.zeros(0), torch.ones(len(encoded))
        if encoded.neighbors is not None:
            self._inside, self._beyond = encoded.neighbors.shares()
        self._log_has, self._log_none = scorer.has_stu()
        self._generated = self._beyond * self._log_has.exp()
        root, self._inside_voters = self._generated, self._inside[:0]
        if len(self._inside):
            self._inside_voters = self._inside[scorer.person]
            root = root.index_add(0, scorer.row, self._inside_voters)
        self.log_root = root.clamp(min=MIN_PROBABILITY).log()

    def decoder_alone(self) -> MixtureScorer:
        """Return this scorer without the neighborhood components; the neighbors' votes stay."""
        out = copy.copy(self)
        out._inside = out._inside_voters = self._inside[:0]
        out._generated = torch.ones_like(self._generated)
        out.log_root = torch.zeros_like(self.log_root)
        return out

    def exact(self, row: Tensor, user: Tensor) -> Tensor:
        """Exact log-probabilities [V] of V (query, user) pairs, `row`, `user` [V] int64."""
        num_users, neighbors = len(self.tree.place), self._encoded.neighbors
        log_p = self._log_none[row]
        if not len(row):
            return log_p
        if self._number >= 0:
            has = self.tree.place[user] >= 0
            decoded = score_candidates(self.decoder_alone(), self.tree, row, user) + self._log_has[row]
            log_p = torch.where(has, decoded, log_p)
        p = self._beyond[row] * log_p.exp()
        if neighbors is not None and len(neighbors.row):
            key, asked = neighbors.row * num_users + neighbors.user, row * num_users + user
            at = torch.searchsorted(key, asked).clamp(max=len(key) - 1)
            p = p + torch.where(key[at] == asked, self._inside[at], 0.0)
        return p.clamp(min=MIN_PROBABILITY).log()

    def without_stu(
        self, k: int, exclude: tuple[Tensor, Tensor], exclude_users: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Users without an STU who may be among the k best.

        These are the neighbors without an STU; all others are equally likely, so only as many as needed for k
        allowed ones are returned.

        Args:
            k: number of users wanted.
            exclude: (row [M], user [M]) int64, users excluded for a query.
            exclude_users: [O] int64, users excluded for all queries.

        Returns:
            (row [V], user [V]) int64, and log-probabilities [V].
        """
        neighbors, others = self._encoded.neighbors, self._scorer.history.without_stu(self._number)
        if len(exclude_users):
            others = others[~torch.isin(others, exclude_users)]
        log_none, has = self._beyond.log() + self._log_none, self._scorer.has
        row, user = (exclude[0][:0],) * 2 if neighbors is None else (neighbors.row, neighbors.user)
        found = list_without_stu(
            row.contiguous().numpy(),
            user.contiguous().numpy(),
            has.numpy(),
            self._inside.contiguous().numpy(),
            log_none.numpy(),
            others.contiguous().numpy(),
            exclude[0].contiguous().numpy(),
            k,
            np.float32(MIN_PROBABILITY),
        )
        row, user, log_p = (torch.from_numpy(x) for x in found)
        return row, user, log_p

    def likeliest_neighbors(self, k: int) -> tuple[Tensor, Tensor]:
        """The k neighbors with an STU that are most probable by the components: (row [V], user [V]) int64."""
        neighbors, person = self._encoded.neighbors, self._scorer.person
        if neighbors is None:
            return person, person
        row, inside = self._scorer.row.contiguous(), self._inside_voters.contiguous()
        found = list_likeliest(row.numpy(), person.numpy(), inside.numpy(), len(self._encoded), k)
        at = torch.from_numpy(found)
        return neighbors.row[at], neighbors.user[at]

    def __call__(self, beam: Beam, state: tuple[Tensor, Tensor | None] | None) -> tuple[Tensor, Any]:
        """Log-probabilities [R, K] of the next codes of a beam's prefixes, and the state."""
        if state is None:
            generated, decoder = self._generated[beam.row], None
        else:
            generated = state[0][beam.parent, beam.codes[:, -1]]
            decoder = None if state[1] is None else state[1][beam.parent]
        prefixes = Prefixes(beam.row, beam.node + self._forest.root[self._number], beam.codes, decoder)
        children = self._scorer.step(prefixes)
        votes, inside = children.votes, self._inside_voters
        if len(self._inside):
            votes = votes or self._scorer.votes_below(prefixes, children.at)
        voter, voted = (inside[:0].long(),) * 2 if votes is None else (votes.person, votes.child)
        shape = len(beam.row), self.tree.codebook_size
        log_p, kept = inside.new_full(shape, -torch.inf), inside.new_zeros(shape)
        spread_mass(
            children.at.numpy(),
            children.child.numpy(),
            children.log_p.numpy(),
            self._forest.child_columns.code,
            generated.contiguous().numpy(),
            voter.contiguous().numpy(),
            voted.contiguous().numpy(),
            inside.numpy(),
            np.float32(MIN_PROBABILITY),
            log_p.numpy(),
            kept.numpy(),
        )
        return log_p, (kept, children.state)


class UnconstrainedScorer:
    """The decoder alone over all codes, existing or not (`graphrec.decode.NextCodeScorer`).

    Args:
        decoder: the network.
        vector: [B, D], of queries.
    """

    def __init__(self, decoder: CodeDecoder, vector: Tensor) -> None:
        self._decoder, self._vector = decoder, vector

    def __call__(self, beam: Beam, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities [R, K] of the next codes of a beam's prefixes, and the state."""
        state = None if state is None else state[beam.parent]
        logits, state = self._decoder(self._vector, beam.row, beam.codes, state)
        return logits.log_softmax(1), state
