"""The interface of every recommender, and top-k lists from its scores."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor

from graphrec.data import EventLog, FriendGraph, Outcome, Query
from graphrec.data.checks import (
    check_exclude,
    check_graph,
    check_index,
    check_list_length,
    check_query,
    check_until,
)
from graphrec.data.precision import single_precision
from graphrec.models.appending import append_log, reads_graph
from graphrec.models.wanted import Wanted
from graphrec.retrieval.topk import stable_topk, tie_order, tie_rank
from graphrec.temporal import Timeline, blocked_users, with_blocked
from graphrec.tokenizer import Tokenizer

MAX_SCORES = 2**23
"""Number of scores held at once; it determines the number of queries in a batch."""


RECOMMENDER_CLASSES: dict[str, type[Recommender]] = {}
"""Classes of recommenders by name, custom ones included, to load saved submodels."""


class Recommender(ABC):
    """A recommender: fitted on a graph up to a time, it scores users for queries at any later time.

    After `fit` the parameters are frozen, but a query reads every event strictly before its own time.
    """

    name: str
    dtype = torch.float64
    """The dtype of scores."""

    tokenizer: Tokenizer | None = None
    """The fitted tokenizer whose STUs the recommender uses, or None. `on`, `save` and `load` include it."""

    fitted_until: int | None = None
    """Seconds; the fit used strictly older events. None before a fit, or if unknown."""

    default_horizon: int | None = None
    """Seconds: for how long lists are by default; None if the recommender knows only the next act."""

    default_outcome: Outcome | None = None
    """What lists are for by default; None if the recommender knows only the next act."""

    comparable_scores: bool = False
    """Whether the scores of queries with a horizon are log-probabilities, which compare across users."""

    _graph: FriendGraph | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        RECOMMENDER_CLASSES[cls.__name__] = cls

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters; 0 for a heuristic."""
        return 0

    @property
    def curve(self) -> list[dict[str, float]]:
        """The learning curve, one row an epoch; empty if nothing is trained."""
        return []

    @abstractmethod
    def fit(self, graph: FriendGraph, *, until: int) -> Self:
        """Fit on the events strictly before `until` (seconds), and keep the graph for queries."""

    def on(self, graph: FriendGraph) -> Self:
        """Return this recommender, with its parameters, on a graph with more or fewer events or users.

        Users are matched by raw id. What was learned for a user who is not in the graph (an embedding, an
        STU) is dropped, and no longer saved. A new user is scored as any user before the first event. The
        original recommender stays on its own graph.
        """
        raise NotImplementedError(f"{self.name} cannot be put on another graph")

    def reading(self, timeline: Timeline, changed: Tensor) -> Self | None:
        """Return this recommender reading an index of its graph that has lost events.

        It scores as `on` a graph without these events, but what is renewed at regular moments (spectral
        embeddings, STUs, what is known of users' features) stays as it is. Its graph still has the events.

        Args:
            timeline: the index; see `Timeline.remove`.
            changed: [U] int64, ascending, the users of these events.

        Returns:
            the recommender, to score users until the index changes; or None, the default, if it reads more
            than the index: then `on` has to be used.
        """
        return None

    def append(self, log: EventLog) -> None:
        """Append later events and their users in place: the next query sees them, without a fit or rebuild.

        Scores are those of `on` a graph with all these events, where users keep their indices and newcomers
        have the next ones. `graph` is then another graph; the one before, and all graphs and snapshots made
        of it, stay as they are. Queries of other threads see the state before or after.

        Args:
            log: events in order of time, none older than the last event of the graph; raw ids.

        Raises:
            RuntimeError: the recommender has not been fitted, or it is in the middle of a query.
            DataError: an event is older than the graph's last one, an action is unknown, or values of a
                column are missing (weights, attributes of edges or users); nothing is appended.
        """
        self._check_fitted()
        append_log(self, log)

    def follow(self, graph: FriendGraph) -> None:
        """Read a graph that has grown from this one, in place; `append` calls it.

        By default the recommender is put `on` the graph, at a cost that grows with the whole log. One that
        keeps nothing derived from events sets `_graph` alone.

        Args:
            graph: its users and events begin with those of `self.graph`.
        """
        self.__dict__.update(self.on(graph).__dict__)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted state, without the graph: JSON, and tensors that load with `weights_only=True`.

        The folder must exist and be empty. A `Bundle` stores the model's name and the files' checksums.
        """
        raise NotImplementedError(f"{self.name} cannot be saved")

    @classmethod
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """Load what `save` wrote, for the graph it was saved with: the same users, by raw id, and events.

        Nothing in the folder is executed.

        Raises:
            DataError: a file is damaged, or belongs to another model; the message names it.
        """
        raise NotImplementedError(f"{cls.__name__} cannot be loaded")

    @abstractmethod
    def _score_in_order(self, query: Query) -> Tensor:
        """Scores of all users for B > 0 queries in order of time, [B, N], finite; higher is likelier."""

    @reads_graph
    @single_precision()
    def score_all(self, query: Query) -> Tensor:
        """Scores of all users for B queries, [B, N], finite; higher is likelier.

        Raises:
            ValueError: a score is not finite; the model, the query and the user are named.
        """
        num_users = self.graph.num_users
        if not len(query):
            return torch.empty(0, num_users, dtype=self.dtype)
        order = query.time.argsort(stable=True)
        scores = self._score_in_order(query[order])
        if not torch.equal(order, torch.arange(len(order))):
            scores = torch.empty_like(scores).index_copy_(0, order, scores)
        self._check_finite(query, scores)
        return scores

    def _check_finite(self, query: Query, scores: Tensor) -> None:
        """Raise ValueError if any score [B, N] is not finite."""
        # A sum is finite only where its terms are; where it is not, it may have overflown.
        if not torch.isfinite(scores.sum()) and not (finite := torch.isfinite(scores)).all():
            row, user = (~finite).nonzero()[0].tolist()
            raise ValueError(
                f"{self.name} gave the score {scores[row, user].item()} to user index {user} "
                f"for user index {int(query.user[row])} at time {int(query.time[row])}"
            )

    @property
    def graph(self) -> FriendGraph:
        """The graph the recommender was fitted on."""
        self._check_fitted()
        assert self._graph is not None
        return self._graph

    def _check_fitted(self) -> None:
        """Raise RuntimeError before a fit."""
        if self._graph is None:
            raise RuntimeError(f"{self.name} has to be fitted first: call fit(graph, until=time)")

    @reads_graph
    def score(self, query: Query, candidates: Tensor | None = None) -> Tensor:
        """Scores of candidates, [C] for all queries or [B, C] for each; of all N users by default.

        Returns:
            [B, C], finite.

        Raises:
            TypeError, ValueError: candidates have a wrong type or shape, a time is beyond the year 9999, or a
                score is not finite.
            IndexError: a user, action or candidate is not in the graph.
        """
        self._check(query)
        scores = self.score_all(query)
        if candidates is None:
            return scores
        return scores.gather(1, self._candidate_index(query, candidates))

    @reads_graph
    def score_pairs(self, query: Query, row: Tensor, user: Tensor) -> Tensor:
        """Scores of M (query, user) pairs, equal to those of `score`.

        Args:
            query: B queries.
            row: [M] integers, the query of each pair, below B.
            user: [M] integers.

        Returns:
            [M], finite.

        Raises:
            TypeError, ValueError: rows or users are not integers, or of unequal lengths.
            IndexError: a row is not below B, or a user or action is not in the graph.
        """
        row, user = self._check_pairs(query, row, user)
        out = torch.empty(len(row), dtype=self.dtype)
        if not len(row):
            return out
        for rows in torch.arange(len(query)).split(max(1, MAX_SCORES // self.graph.num_users)):
            here = ((row >= rows[0]) & (row <= rows[-1])).nonzero().squeeze(1)
            if len(here):
                out[here] = self.score_all(query[rows])[row[here] - rows[0], user[here]]
        return out

    @reads_graph
    def recommend(
        self,
        query: Query,
        k: int,
        exclude: tuple[Tensor, Tensor] | None = None,
        exclude_users: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k users with the highest scores; never the query's own user, or one blocked (see `Roles`).

        Args:
            query: B queries.
            k: length of a list, padded if fewer users are allowed. At most 10,000, or the number of users if
                that is more.
            exclude: (row [M] of the query, user [M]) integers, users not to list for a query.
            exclude_users: [M] integers, users not to list for any query, such as those who opted out; the
                cost does not grow with B.

        Returns:
            users [B, k] int64, best first, padded with -1, and scores [B, k], padded with -inf. Ties are
            broken by a fixed shuffle, since user indices must carry no information.

        Raises:
            RuntimeError: the recommender has not been fitted.
            TypeError: an argument has a wrong type.
            ValueError: k is out of range, rows and users are of unequal lengths, a time is beyond the year
                9999, or a score is not finite.
            IndexError: a user or action is not in the graph, or a row is not below B.
        """
        self._check(query)
        num_users = self.graph.num_users
        k = check_list_length(k, num_users)
        row, user = with_blocked(self.graph, query, check_exclude(exclude, len(query), num_users))
        order = row.argsort(stable=True)
        nobody = torch.empty(0, dtype=torch.int64)
        if exclude_users is not None:
            nobody = check_index("exclude_users", exclude_users, num_users).unique()
        return self._recommend(query, Wanted(k, row[order], user[order], nobody))

    def _recommend(self, query: Query, wanted: Wanted) -> tuple[Tensor, Tensor]:
        """Return what `recommend` does, from its checked arguments; by default from scores of all users."""
        num_users = self.graph.num_users
        order = tie_order(num_users)
        users = torch.full((len(query), wanted.k), -1)
        values = torch.full((len(query), wanted.k), -torch.inf, dtype=torch.float64)
        rows = max(1, MAX_SCORES // num_users)
        for start in range(0, len(query), rows):
            part = query[start : start + rows]
            scores = self.score_all(part).to(torch.float64, copy=True)
            scores[torch.arange(len(part)), part.user] = -torch.inf
            scores[wanted.between(start, start + rows)] = -torch.inf
            scores[:, wanted.exclude_users] = -torch.inf
            best, place = stable_topk(scores[:, order], min(wanted.k, num_users))
            block = slice(start, start + len(part)), slice(0, min(wanted.k, num_users))
            users[block] = torch.where(best > -torch.inf, order[place], -1)
            values[block] = best
        return users, values

    @reads_graph
    def predict_top_k(self, query: Query, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k candidates with the highest scores for each query.

        Args:
            query: B queries.
            candidates: [C] integers for all queries, or [B, C] for each; a repeated user is listed once. The
                query's own user is left out, and so are users blocked either way.
            k: length of a list, at most as in `recommend`; padded if there are fewer candidates.

        Returns:
            users [B, k] int64, best first, padded with -1, and scores [B, k] float64, padded with -inf. Ties
            are broken by a fixed shuffle.

        Raises:
            TypeError, ValueError: as in `recommend`, or candidates have a wrong shape.
            IndexError: a user, action or candidate is not in the graph.
        """
        self._check(query)
        k = check_list_length(k, self.graph.num_users)
        people = self._candidate_index(query, candidates)
        scores = self.score_all(query).gather(1, people).double()
        # A fixed shuffle of users, not of columns: the order of the candidates must carry no information.
        order = tie_rank(self.graph.num_users)[people].argsort(dim=1)
        people, scores = people.gather(1, order), scores.gather(1, order)
        scores = scores.masked_fill(people == query.user[:, None], -torch.inf)
        for row, user in zip(*blocked_users(self.graph, query), strict=True):
            scores[row, people[row] == user] = -torch.inf
        again = people[:, 1:] == people[:, :-1]  # one user's places in that order are side by side
        scores[:, 1:] = scores[:, 1:].masked_fill(again, -torch.inf)
        users = torch.full((len(query), k), -1)
        values = torch.full((len(query), k), -torch.inf, dtype=torch.float64)
        if people.numel():
            best, place = stable_topk(scores, min(k, people.size(1)))
            found = torch.where(best > -torch.inf, people.gather(1, place), -1)
            users[:, : found.size(1)], values[:, : found.size(1)] = found, best
        return users, values

    def _check_past(self, graph: FriendGraph, until: int) -> int:
        """Return `until` as an int, checked by `check_until`. Raises ValueError if no event is older."""
        check_graph(graph)
        until, _ = check_until(until)
        if not bool((graph.events().time < until).any()):
            raise ValueError(f"{self.name}: there is no event before until={until} to fit on")
        return until

    def _check_pairs(self, query: Query, row: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and users as int64; raises what `score_pairs` raises."""
        self._check(query)
        row = check_index("row", row, len(query))
        return row, check_index("user index", user, self.graph.num_users, shape=(len(row),))

    def _candidate_index(self, query: Query, candidates: Tensor) -> Tensor:
        """Candidates of each query, [B, C] int64; raises what `score` raises."""
        both = isinstance(candidates, Tensor) and candidates.dim() == 2
        shape = (len(query), None) if both else (None,)
        index = check_index("candidate", candidates, self.graph.num_users, shape=shape)
        return index.expand(len(query), -1)

    def _check(self, query: Query) -> None:
        """Check that a query fits the graph; see `check_query`."""
        check_query(self.graph, query)


def latest(moments: Iterable[int | None]) -> int | None:
    """The latest moment (seconds) that is not None; None if there is none."""
    return max((moment for moment in moments if moment is not None), default=None)
