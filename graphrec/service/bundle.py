"""The bundle: all that a service needs, in memory and as one folder."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from graphrec.data import USER, DataError, EventLog, FriendGraph, Query, TemporalSplit
from graphrec.decode import PrefixTree
from graphrec.evaluate import StreamingRanks, evaluate_streaming, rank_events
from graphrec.evaluate.protocol import sampled
from graphrec.explain import Explanation, explain
from graphrec.models import Recommender, Suggestions, build, load_recommender, suggested
from graphrec.service import manifest as sealed
from graphrec.service.rules import Rules
from graphrec.tokenizer import ResidualKMeans, Tokenizer, load_tokenizer

FORMAT, VERSION = "graphrec.Bundle", 1
GRAPH, RULES, RECOMMENDER, TOKENIZER = "graph.pt", "rules.json", "recommender", "tokenizer"

DEFAULT_MODEL = "stu"

Id = int | str


@dataclass(frozen=True)
class Bundle:
    """A graph, a recommender fitted on it, everyone's STU, and the rules of whom not to show.

    A bundle does not change: `add`, `forget` and new rules make another, and `save` replaces the one that is
    in the folder, in one step.

    Attributes:
        graph: events and people; `graph.user_ids` is the id map.
        recommender: fitted, on this graph.
        tokenizer: fitted; the recommender's own, if it has one.
        model: the recommender's name in `graphrec.models.MODELS`.
        until: seconds; the fit saw what is strictly older.
        rules: blocks and opt-outs.
        seal: names the files that the bundle was read from; empty, if it is in no folder as it is.
    """

    graph: FriendGraph = field(repr=False)
    recommender: Recommender = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    model: str
    until: int
    rules: Rules
    seal: str = ""

    @classmethod
    def fit(
        cls,
        graph: FriendGraph,
        *,
        model: str = DEFAULT_MODEL,
        tokenizer: Tokenizer | None = None,
        rules: Rules | None = None,
    ) -> Self:
        """Fit on all events of a graph.

        Args:
            graph: events and people.
            model: a name of `graphrec.models.MODELS`.
            tokenizer: unfitted, where the model brings none of its own; by default `ResidualKMeans()`.
            rules: blocks and opt-outs.

        Raises:
            KeyError: there is no such model.
        """
        until = int(graph.events().time[-1]) + 1
        recommender = build(model).fit(graph, until=until)
        if recommender.tokenizer is not None:
            tokenizer = recommender.tokenizer
        else:
            tokenizer = _welcoming((tokenizer or ResidualKMeans()).fit(graph, until=until), graph)
        return cls(graph, recommender, tokenizer, model, until, rules or Rules())

    # What it answers

    def suggest(
        self, users: Tensor | Sequence[Id], *, k: int = 10, time: int | None = None, action: str | None = None
    ) -> list[Suggestions]:
        """K new people for each user, as `graphrec.suggest` finds them and the rules allow.

        Args:
            users: raw ids, or [B] int64 indices.
            k: how many.
            time: seconds; only what is strictly older is seen. By default one second after the last event.
            action: the act that is hoped for; by default the commonest.

        Raises:
            KeyError: an unknown user or action, named.
        """
        query = Query.of(self.graph, users, time, action)
        people, scores = self.suggested(query, k)
        lookup = self.graph.user_ids.lookup
        return [
            Suggestions(user, lookup(listed[listed >= 0]), values[listed >= 0].tolist())
            for user, listed, values in zip(lookup(query.user), people, scores, strict=True)
        ]

    def suggested(self, query: Query, k: int) -> tuple[Tensor, Tensor]:
        """The same by indices: users [B, k] int64, padded with -1, and scores [B, k], with -inf."""
        blocked, opted_out = self._barred
        return suggested(self.recommender, query, k, blocked=blocked, opted_out=opted_out)

    def explain(self, user: Id, candidate: Id, *, time: int | None = None) -> Explanation:
        """Why a person is suggested to a user; `sentence` says it in words. No rule is broken in it.

        Args:
            user: raw id.
            candidate: raw id.
            time: seconds; only what is strictly older counts. By default one second after the last event.

        Raises:
            KeyError: an unknown user or candidate, named.
            ValueError: the candidate may not be suggested to the user.
        """
        ids = self.graph.user_ids
        user, candidate = ids.lookup(ids.index([user, candidate]))
        if time is None:
            time = int(self.graph.events().time[-1]) + 1
        blocked, opted_out = self._barred
        return explain(
            self.recommender,
            user,
            candidate,
            time=time,
            tokenizer=self.tokenizer if self.tokenizer.until <= time else None,
            blocked=zip(*(ids.lookup(side) for side in blocked), strict=True),
            opted_out=ids.lookup(opted_out),
        )

    def evaluate(self, log: EventLog | None = None, *, progress: bool = True) -> StreamingRanks:
        """Streaming evaluation, everybody a candidate (see docs/evaluation.md).

        Args:
            log: events after those of the bundle, which is judged as it is. Without them the bundle's own
                events are split by time, and its model is fitted anew on the first 80 % and judged on the
                last 10 %.
            progress: show a bar, where there is a terminal.

        Raises:
            DataError: no event is later than those of the bundle; or they are too few to split.
        """
        if log is None:
            split = TemporalSplit.of(self.graph)
            model = build(self.model).fit(self.graph, until=split.t_val)
            return evaluate_streaming(model, self.graph, split=split, progress=progress)
        seen = max(self.until, int(self.graph.events().time[-1]) + 1)
        later = self.graph.with_events(log)
        first = int(torch.searchsorted(later.events().time, seen))
        if first == later.num_events:
            raise DataError(f"no event is at or after {seen}: the bundle knows all before")
        judged = np.sort(sampled(np.arange(first, later.num_events), later.num_users))
        return rank_events(
            self.recommender.on(later),
            later,
            torch.from_numpy(judged),
            part="test",
            trained_until=self.until,
            progress=progress,
        )

    @cached_property
    def tree(self) -> PrefixTree:
        """The prefix tree of everyone's STUs, by the indices of the graph."""
        stus = self.tokenizer.stus(self.graph)
        return PrefixTree(stus.codes, stus.codebook_size, stus.rank)

    # What changes it

    def add(self, log: EventLog) -> Bundle:
        """The bundle that knows more events and the people in them, without a fit; newcomers get their STU.

        Raises:
            DataError: an action that the graph does not know, or weights on one side alone.
            ValueError: all STUs are taken.
        """
        return self._on(self.graph.with_events(log))

    def forget(self, user: Id) -> Bundle:
        """The bundle without a person: graph, id map, STUs and tree, what the recommender kept, and rules.

        What was learned from all together (a codebook, a popularity's half-life, the weights of a network)
        stays. Should the person be in later events, they are a newcomer.

        Raises:
            KeyError: a user whom neither the graph nor the rules name.
            DataError: no event would be left.
        """
        if int(self.graph.user_ids.find([user])) < 0 and self.rules.without(user) != self.rules:
            return self.with_rules(self.rules.without(user))
        (name,) = self.graph.user_ids.lookup(self.graph.user_ids.index([user]))
        return self._on(self.graph.without([name]), gone=[name]).with_rules(self.rules.without(name))

    def with_rules(self, rules: Rules) -> Bundle:
        """The bundle under other rules, such as `bundle.rules.block(user, other)`."""
        return replace(self, rules=rules, seal="")

    def _on(self, graph: FriendGraph, gone: Sequence[Id] = ()) -> Bundle:
        recommender = self.recommender.on(graph)
        tokenizer = recommender.tokenizer
        if tokenizer is None:
            tokenizer = copy.deepcopy(self.tokenizer)
            tokenizer.forget(gone)
            tokenizer = _welcoming(tokenizer, graph)
        return replace(self, graph=graph, recommender=recommender, tokenizer=tokenizer, seal="")

    @cached_property
    def _barred(self) -> tuple[Tensor, Tensor]:
        return self.rules.indices(self.graph.user_ids)

    # On disk

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the bundle, in place of the one that may be there.

        Raises:
            DataError: the folder holds something else.
        """
        head = {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "until": self.until,
            "has_tokenizer": self.recommender.tokenizer is None,
            "schema": _schema(self.graph),
        }
        sealed.write(Path(folder), head, self._fill)

    def _fill(self, folder: Path) -> None:
        self.graph.save(folder / GRAPH)
        self.rules.save(folder / RULES)
        (folder / RECOMMENDER).mkdir()
        self.recommender.save(folder / RECOMMENDER)
        if self.recommender.tokenizer is None:
            self.tokenizer.save(folder / TOKENIZER)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a bundle that `save` wrote. Nothing in it is executed.

        A tokenizer of one's own has to be imported before.

        Raises:
            FileNotFoundError: there is no bundle.
            DataError: it is damaged, or of another version; the message names the file.
        """
        inside, manifest = _read(Path(folder))
        graph = FriendGraph.load(inside / GRAPH)
        if _schema(graph) != manifest["schema"]:
            raise DataError(f"{inside / GRAPH}: not the graph that the manifest describes")
        try:
            recommender = load_recommender(manifest["model"], inside / RECOMMENDER, graph)
        except KeyError as error:
            raise DataError(f"{Path(folder) / sealed.MANIFEST}: {error.args[0]}") from None
        tokenizer = recommender.tokenizer
        if manifest["has_tokenizer"] or tokenizer is None:
            tokenizer = load_tokenizer(inside / TOKENIZER)
            if int(tokenizer.stus(graph).has().sum()) < len(tokenizer.table.codes):
                raise DataError(f"{inside / TOKENIZER}: has STUs of people who are not in {GRAPH}")
        rules = Rules.load(inside / RULES)
        model, until, seal = (manifest[key] for key in ("model", "until", "seal"))
        return cls(graph, recommender, tokenizer, model, until, rules, seal)


def read_rules(folder: str | os.PathLike[str]) -> Rules:
    """The rules of a bundle; none where there is no bundle."""
    if not (Path(folder) / sealed.MANIFEST).exists():
        return Rules()
    return Rules.load(_read(Path(folder))[0] / RULES)


def _read(folder: Path) -> tuple[Path, dict[str, Any]]:
    inside, manifest = sealed.read(folder)
    path = folder / sealed.MANIFEST
    if manifest.get("format") != FORMAT:
        raise DataError(f"{path}: not a bundle of graphrec")
    if manifest.get("version") != VERSION:
        raise DataError(f"{path}: a bundle of version {manifest.get('version')}; version {VERSION} is read")
    return inside, manifest


def _schema(graph: FriendGraph) -> dict[str, Any]:
    """What the manifest says of a graph."""
    events, people = graph.events(), graph[USER]
    return {
        "actions": list(graph.actions),
        "weighted": all("weight" in graph[USER, name, USER] for name in graph.actions),
        "features": int(people.x.size(1)) if "x" in people else 0,
        "join_time": "join_time" in people,
        "ids": "integer" if people.raw_id.dim() == 1 else "string",
        "num_users": graph.num_users,
        "num_events": graph.num_events,
        "start": int(events.time[0]),
        "end": int(events.time[-1]),
    }


def _welcoming(tokenizer: Tokenizer, graph: FriendGraph) -> Tokenizer:
    """A tokenizer that has given an STU to everybody of whom something is known."""
    tokenizer.encode(graph, (~tokenizer.stus(graph).has()).nonzero().squeeze(1))
    return tokenizer
