"""Scoring the next codes of prefixes, for a batch of queries."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.decode import Forest
from graphrec.features import prefix_features, query_pace
from graphrec.models.heads.codes.child_scores import ChildScores
from graphrec.models.heads.codes.history import CodeHistory
from graphrec.models.heads.codes.step_kernels import fill_log_probs, find_children
from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.nn import CodeDecoder, PrefixScore, segment_logsumexp
from graphrec.nn.code_decoder import MIN_WEIGHT
from graphrec.temporal import Timeline


class Prefixes(NamedTuple):
    """R prefixes of one length l.

    Attributes:
        row: [R] int64, ascending, the query of each prefix.
        node: [R] int64, its node in the `Forest`.
        codes: [R, l] int64, its codes.
        state: the decoder's state of the prefixes; None at the root.
    """

    row: Tensor
    node: Tensor
    codes: Tensor
    state: Tensor | None


class PrefixVotes(NamedTuple):
    """The V neighbors whose STU begins with one of some prefixes, each a vote for one of its children.

    Attributes:
        person: [V] int64, positions of the voters among the neighbors with an STU.
        prefix: [V] int64, position of the prefix of each voter.
        child: [V] int64, position of the child that each votes for, among all children of the prefixes.
    """

    person: Tensor
    prefix: Tensor
    child: Tensor


class Children(NamedTuple):
    """The T children of R prefixes.

    Attributes:
        at: [T] int64, ascending, position of the prefix of each child.
        child: [T] int64, its node in the `Forest`.
        log_p: [T], its log-probability given the prefix.
        state: the decoder's new state of the R prefixes.
        votes: the neighbors' votes; None if they are not used.
    """

    at: Tensor
    child: Tensor
    log_p: Tensor
    state: Tensor | None
    votes: PrefixVotes | None

    def prefixes(self, old: Prefixes, forest: Forest) -> Prefixes:
        """Make these children the next prefixes; `old` are their parents."""
        codes = torch.cat([old.codes[self.at], forest.code[self.child][:, None]], dim=1)
        state = None if self.state is None else self.state[self.at]
        return Prefixes(old.row[self.at], self.child, codes, state)


class Voters(NamedTuple):
    """The V neighbors with an STU, as kernels read them.

    Attributes:
        row: [V] int64, the query of each.
        path: [V, L + 1] int64, the nodes of their STUs from root to leaf.
        weight: [V] float32, of their votes; empty if votes are not used.
        leaf_weight: [V] float32, of their votes for leaves, where contacts have none; empty likewise.
    """

    row: np.ndarray
    path: np.ndarray
    weight: np.ndarray
    leaf_weight: np.ndarray


class PrefixScorer:
    """Scores the next codes of prefixes, bound to B queries.

    Args:
        decoder: the network.
        history: all users' codes over time.
        timeline: the index.
        encoded: the queries.
        dense: whether all users will be scored, the queries being in order of time.

    Attributes:
        encoded, history: as given.
        number: [B] int64, the moment of `history` that each query reads, -1 before the first.
        has: [M] bool, which of the M neighbors have an STU.
        person: [V] int64, positions among the M neighbors of the V with an STU.
        row: [V] int64, the query of each of these.
        path: [V, L + 1] int64, the nodes of their STUs from root to leaf.
    """

    def __init__(
        self,
        decoder: CodeDecoder,
        history: CodeHistory,
        timeline: Timeline,
        encoded: EncodedQuery,
        *,
        dense: bool = False,
    ) -> None:
        self._decoder, self.encoded, self.history = decoder, encoded, history
        self.number = history.number(encoded.tick)
        self._pace = query_pace(timeline, encoded.query)
        self._place = None if encoded.spectral is None else encoded.spectral.vector
        self._dense = None
        if dense:
            number, query = self.number.clamp(min=0), encoded.query
            self._dense = history.dense_activity(self._place, number, encoded.tick, query.time)
        neighbors = encoded.neighbors
        none = torch.empty(0, dtype=torch.int64)
        self.has, self.person, self.row = none.bool(), none, none
        self.path, self._is_contact = none.view(0, 1 + history.forest.num_codebooks), none.bool()
        self._vote_weight: Tensor | None = None
        if neighbors is None:
            return
        number = self.number[neighbors.row]
        path = history.forest.path(number.clamp(min=0), neighbors.user)
        self.has = (number >= 0) & (path[:, 0] >= 0)
        self.person = self.has.nonzero().squeeze(1)
        self.row, self.path = neighbors.row[self.person], path[self.person]
        if neighbors.group_vote is not None:
            self._is_contact = neighbors.contact[self.person]
            vote = neighbors.group_vote[self.person]
            total = segment_logsumexp(vote, self.row, len(encoded))
            self._vote_weight = (vote - total[self.row]).exp()

    @cached_property
    def _voters(self) -> Voters:
        weight = self._vote_weight
        leaf_weight = None if weight is None else weight * ~self._is_contact  # contacts: the pointer's
        parts = self.row, self.path, weight, leaf_weight
        empty = torch.empty(0)
        return Voters(*(empty.numpy() if x is None else x.contiguous().numpy() for x in parts))

    def has_stu(self) -> tuple[Tensor, Tensor]:
        """Log-probability [B] that the target has an STU, and [B] of each single user without one."""
        num_users = self.history.codes.size(1)
        members = torch.where(self.number >= 0, self.history.num_members[self.number.clamp(min=0)], 0)
        without = (num_users - members).clamp(min=1).float()
        inputs = torch.cat([self.encoded.features, without.log()[:, None] / 10], dim=1)
        logit = self._decoder.has_stu(inputs).squeeze(1)
        logit = torch.where(members == num_users, 30.0, torch.where(members == 0, -30.0, logit))
        return F.logsigmoid(logit), F.logsigmoid(-logit) - without.log()

    def step(self, prefixes: Prefixes) -> Children:
        """The children of R prefixes, all of one length, with their probabilities."""
        row, node, codes, state = prefixes
        decoder, forest = self._decoder, self.history.forest
        logits, state = decoder(self.encoded.vector, row, codes, state)
        if self._dense is None and not torch.is_grad_enabled() and logits.device.type == "cpu":
            return self._step_by_kernels(prefixes, logits, state)
        at, child = forest.children(node)
        logit = logits[at, forest.code[child]]
        if decoder.prefix_scores is not None:
            logit = self._with_prefix_scores(logit, prefixes, at, child)
        log_p, votes = logit - segment_logsumexp(logit, at, len(row))[at], None
        if self._vote_weight is not None:
            votes = self.votes_below(prefixes, at)
            log_p = self._with_votes(self._vote_weight, prefixes, at, log_p, votes)
        return Children(at, child, log_p, state, votes)

    def _step_by_kernels(self, prefixes: Prefixes, logits: Tensor, state: Tensor | None) -> Children:
        """See `step`; without gradients, on the CPU, from logits [R, K] of the next codes."""
        row, node, codes, _ = prefixes
        decoder, level, vector = self._decoder, codes.size(1), self.encoded.vector
        forest, leaves = self.history.forest, level == self.history.forest.num_codebooks - 1
        voters, votes_count = self._voters, self._vote_weight is not None
        weight, nodes = voters.leaf_weight if leaves else voters.weight, forest.child_columns
        least = np.float32(MIN_WEIGHT)
        at, child, first, votes, total, logs = find_children(
            row.numpy(),
            node.numpy(),
            nodes.first,
            nodes.number,
            voters.row,
            voters.path,
            level,
            weight,
            least,
        )
        score = torch.zeros(len(child))
        if decoder.prefix_scores is not None:
            network = decoder.prefix_scores[level]
            assert isinstance(network, PrefixScore)
            score = self._child_scores.scores(network, vector, row, node, (first, child), leaves=leaves)
        trust, log_p = torch.from_numpy(total), torch.empty(len(child))
        if votes_count:
            trust = decoder.trust_logits(level, self.encoded.features, row, torch.from_numpy(logs))
        fill_log_probs(
            logits.contiguous().numpy(),
            score.numpy(),
            first,
            child,
            nodes.code,
            np.ascontiguousarray(votes),  # of one type
            weight,
            votes_count,
            total,
            trust.numpy(),
            least,
            log_p.numpy(),
        )
        below = PrefixVotes(*(torch.from_numpy(x) for x in votes))
        return Children(torch.from_numpy(at), torch.from_numpy(child), log_p, state, below)

    def _with_prefix_scores(self, logit: Tensor, prefixes: Prefixes, at: Tensor, child: Tensor) -> Tensor:
        """Add the scores of T children by the users who share them to their logits [T]: [T]."""
        decoder, row, level = self._decoder, prefixes.row, prefixes.codes.size(1)
        assert decoder.prefix_scores is not None
        score, vector = decoder.prefix_scores[level], self.encoded.vector
        assert isinstance(score, PrefixScore)
        leaves = level == self.history.forest.num_codebooks - 1
        features = self._prefix_features(row[at], child, leaves=leaves)
        out: Tensor = logit + score(features, vector, row[at])
        return out

    @cached_property
    def _child_scores(self) -> ChildScores:
        query, tick = self.encoded.query, self.encoded.tick
        return ChildScores(self.history, query, tick, self._pace, self.number, self._place)

    def votes_below(self, prefixes: Prefixes, at: Tensor) -> PrefixVotes:
        """Find the neighbors whose STU begins with one of R prefixes, and the child that it goes on to.

        Args:
            prefixes: R prefixes.
            at: [T] int64, position of the prefix of each of their T children.
        """
        row, node, codes, _ = prefixes
        forest, level = self.history.forest, codes.size(1)
        key = row * forest.num_nodes + node
        asked = self.row * forest.num_nodes + self.path[:, level]
        prefix = torch.searchsorted(key, asked).clamp(max=len(key) - 1)
        person = (key[prefix] == asked).nonzero().squeeze(1)
        prefix = prefix[person]
        start = torch.searchsorted(at, torch.arange(len(row)))
        child = start[prefix] + self.path[person, level + 1] - forest.first_child(node[prefix])
        return PrefixVotes(person, prefix, child)

    def _with_votes(
        self, vote_weight: Tensor, prefixes: Prefixes, at: Tensor, log_p: Tensor, votes: PrefixVotes
    ) -> Tensor:
        """Interpolate log-probabilities [T] of children with votes, where there are any: [T]."""
        row, _, codes, _ = prefixes
        decoder, level = self._decoder, codes.size(1)
        person, prefix, child = votes
        weight = vote_weight[person]
        if level == self.history.forest.num_codebooks - 1:
            weight = weight * ~self._is_contact[person]  # contacts are left to the pointer
        count_for = torch.zeros_like(log_p).index_add(0, child, weight)
        total = log_p.new_zeros(len(row)).index_add(0, prefix, weight)
        count = torch.bincount(prefix, minlength=len(row)).float()
        trust = decoder.trust(level, self.encoded.features[row], count, total)
        mixed = trust[at] * count_for / (total + MIN_WEIGHT)[at] + (1.0 - trust[at]) * log_p.exp()
        out: Tensor = (mixed + MIN_WEIGHT).log()
        return out

    def _prefix_features(self, row: Tensor, node: Tensor, *, leaves: bool) -> Tensor:
        """Features of T (query, node) pairs, `row`, `node` [T] int64: [NUM_PREFIX_FEATURES, T] float32."""
        query, history = self.encoded.query, self.history
        if leaves and self._dense is not None:
            activity, cosine = self._dense.of(row, history.forest.first_user[node])
        else:
            place = None if self._place is None else self._place[row]
            cosine = history.cosine(place, self.number[row], node, leaves=leaves)
            activity = history.activity(node, self.encoded.tick[row], query.time[row])
        size = history.forest.size[node]
        return prefix_features(query.time[row], self._pace[row], activity, size, cosine)
