"""The bundle: all that a service needs, in memory and as one folder."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from graphrec.data import DataError, EventLog, FriendGraph, Id, Query, TemporalSplit, UserTable, digest_log
from graphrec.data.checks import check_count
from graphrec.decode import PrefixTree
from graphrec.evaluate import StreamingRanks, evaluate_streaming, rank_events
from graphrec.evaluate.protocol import sample_rows
from graphrec.explain import Explanation, explain
from graphrec.models import Recommender, Suggestions, build, load_recommender, suggested
from graphrec.service import manifest
from graphrec.service.contents import log_of, schema_of, with_log
from graphrec.service.lock import writing
from graphrec.service.origin import Origin, finish_changes
from graphrec.service.rule_changes import IDS
from graphrec.service.rule_store import RuleStore
from graphrec.service.rules import Rules
from graphrec.temporal import Timeline
from graphrec.threads import one_intra_op_thread
from graphrec.tokenizer import ResidualKMeans, Tokenizer, load_tokenizer

GRAPH, RECOMMENDER, TOKENIZER = "graph.pt", "recommender", "tokenizer"

DEFAULT_MODEL = "stu"


@dataclass(frozen=True)
class Bundle:
    """A graph, a recommender fitted on it, everyone's STU, and the rules of whom not to show.

    A bundle does not change: `add`, `forget` and `with_rules` make another. `update` changes the one in a
    folder, as its only writer; `save` refuses to replace a version that the bundle was not made from.

    Attributes:
        graph: events and people; `graph.user_ids` is the id map.
        recommender: fitted, on this graph.
        tokenizer: fitted; the recommender's own, if it has one.
        model: the recommender's name in `graphrec.models.MODELS`.
        until: seconds; the fit saw what is strictly older.
        origin: its rules, and the versions on disk that it was made from.
        logs: digests of the logs that were fitted and added.
    """

    graph: FriendGraph = field(repr=False)
    recommender: Recommender = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    model: str
    until: int
    origin: Origin = field(repr=False)
    logs: tuple[str, ...] = field(default=(), repr=False)

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
        recommender, until = build(model), int(graph.events().time[-1]) + 1
        recommender = recommender.fit(graph, until=until)
        if recommender.tokenizer is not None:
            tokenizer = recommender.tokenizer
        else:
            tokenizer = _welcoming((tokenizer or ResidualKMeans()).fit(graph, until=until), graph)
        origin, logs = Origin(rules or Rules()), (digest_log(log_of(graph)),)
        return cls(graph, recommender, tokenizer, model, until, origin, logs)

    @property
    def rules(self) -> Rules:
        """Blocks and opt-outs; of a bundle in a folder, those that hold there at this moment."""
        return self.origin.current_rules

    @property
    def digest(self) -> str:
        """Names the version on disk that the bundle is; empty, if there is none."""
        return self.origin.digest

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
        return Suggestions.of(self.graph.user_ids, query.user, people, scores)

    @one_intra_op_thread()
    def suggested(self, query: Query, k: int) -> tuple[Tensor, Tensor]:
        """The same by indices: users [B, k] int64, padded with -1, and scores [B, k], with -inf."""
        k = min(check_count("k", k, maximum=None), self.graph.num_users)
        blocked, gone = self._rule_indices(self.origin.enforced_rules)
        return suggested(self.recommender, query, k, blocked=blocked, opted_out=gone)

    def explain(self, user: Id, candidate: Id, *, time: int | None = None) -> Explanation:
        """Why a person is suggested to a user; `sentence` says it in words. No rule is broken in it.

        Args:
            user: raw id.
            candidate: raw id.
            time: seconds; only what is strictly older counts. By default one second after the last event.

        Raises:
            KeyError: an unknown user or candidate, named.
            ValueError: the candidate is never suggested to the user. One answer for all reasons (a known
                contact, the user, an opt-out, a block): a rule is not told of.
        """
        ids = self.graph.user_ids
        index = ids.index([user, candidate])
        user, candidate = ids.lookup(index)
        query = Query.of(self.graph, index[:1], time)
        timeline = Timeline.of(self.graph)
        known = timeline.contacts.before(query.user, timeline.tick(query.time))[1]
        rules = self.origin.enforced_rules
        if bool((known == index[1]).any()) or index[0] == index[1] or not rules.allows(user, candidate):
            raise ValueError(f"{candidate!r} is not suggested to {user!r}")
        blocked, opted_out = self._rule_indices(rules)
        return explain(
            self.recommender,
            user,
            candidate,
            time=int(query.time),
            tokenizer=self.tokenizer if self.tokenizer.until <= int(query.time) else None,
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
        judged = np.sort(sample_rows(np.arange(first, later.num_events), later.num_users))
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

    def add(
        self, log: EventLog | None = None, users: UserTable | None = None, *, again: bool = False
    ) -> Bundle:
        """The bundle that knows more events and people, without a fit; newcomers get their STU.

        Args:
            log: the events; None for users alone.
            users: features and join times, see `FriendGraph.with_users`.
            again: also a log that was taken before; its events then count twice.

        Raises:
            DataError: the log was taken before; what `with_events` and `with_users` refuse.
            ValueError: all STUs are taken; neither a log nor users.
        """
        if log is None and users is None:
            raise ValueError("give a log, users, or both")
        logs = self.logs if log is None else with_log(self.logs, log, again=again)
        graph = self.graph if log is None else self.graph.with_events(log)
        return replace(self._on(graph if users is None else graph.with_users(users)), logs=logs)

    def forget(self, user: Id) -> Bundle:
        """The bundle without a person: graph, id map, STUs and tree, what the recommender kept, and rules.

        What was learned from all together (a codebook, a popularity's half-life, the weights of a network)
        stays. Should the person be in later events, they are a newcomer.

        Raises:
            KeyError: a user whom neither the graph nor the rules name.
            DataError: no event would be left.
        """
        ids, rules = self.graph.user_ids, self.rules
        if int(ids.find([user])) >= 0:
            (user,) = ids.lookup(ids.index([user]))
            out = self._on(self.graph.without([user]), gone=[user])
        elif rules.without(user) != rules:
            out = self._changed()
        else:
            ids.index([user])
            raise KeyError(f"unknown user id {user!r}")
        origin = out.origin
        if isinstance(origin.rules, Rules):
            origin.rules = origin.rules.without(user)
        origin.forgotten = (*origin.forgotten, user)
        return out

    def with_rules(self, rules: Rules) -> Bundle:
        """The bundle under other rules, such as `bundle.rules.block(user, other)`.

        `save` adds to the rules in the folder what was added here, and takes away what was taken away.
        """
        now = self.origin.rules
        before = self.rules if isinstance(now, RuleStore) else self.origin.rules_before
        return self._changed(rules=rules, rules_before=before)

    def _changed(self, **values: Any) -> Bundle:
        return replace(self, origin=replace(self.origin, digest="", **values))

    def _on(self, graph: FriendGraph, gone: Sequence[Id] = ()) -> Bundle:
        recommender, until = self.recommender.on(graph), self.until
        tokenizer = recommender.tokenizer
        if tokenizer is None:
            tokenizer = copy.deepcopy(self.tokenizer)
            tokenizer.forget(gone)
            tokenizer = _welcoming(tokenizer, graph)
        if gone:  # the time of their last event is not to stay as the end of the fit
            tokenizer.forget_times(graph)
            time = graph.events().time
            seen = time[time < until]
            until = int(seen[-1]) + 1 if len(seen) else int(time[0])
            if recommender.fitted_until is not None:
                recommender.fitted_until = min(recommender.fitted_until, until)
        now = self._changed()
        return replace(now, graph=graph, recommender=recommender, tokenizer=tokenizer, until=until)

    @cached_property
    def _rule_indices(self) -> Callable[[Rules], tuple[Tensor, Tensor]]:
        ids = self.graph.user_ids
        return lru_cache(maxsize=1)(lambda rules: rules.indices(ids))

    # On disk

    @classmethod
    def update(cls, folder: str | os.PathLike[str], change: Callable[[Self], Bundle]) -> Bundle:
        """Change the bundle in a folder as its only writer, from load to save.

        Other writers wait; readers get the version before or the one after.

        Args:
            folder: of the bundle.
            change: makes the bundle to be saved from the one that was read, such as
                `lambda bundle: bundle.add(log)`.

        Returns:
            the bundle as it is saved.

        Raises:
            FileNotFoundError, DataError: as `load`.
            OSError: it cannot be written; nothing was changed.
        """
        folder = Path(folder)
        if manifest.current(folder) is None:
            raise FileNotFoundError(f"no such file: {folder / manifest.MANIFEST}")
        manifest.check_target(folder)
        with writing(folder):
            finish_changes(folder)  # a forgotten person's, if the forgetting was killed
            changed = change(cls.load(folder))
            changed._save(folder, None)
        return changed

    def save(self, folder: str | os.PathLike[str], *, replaces: str | None = None) -> None:
        """Write the bundle into a new folder, or in place of the version that it was made from.

        Rules in the folder stay; those that this bundle has in addition are added.

        Args:
            folder: its parent exists.
            replaces: `current_digest(folder)`, to put a fresh fit in the place of that version.

        Raises:
            StaleBundleError: another version is in the folder; nothing was changed.
            DataError: the folder holds something else.
            OSError: it cannot be written; nothing was changed.
        """
        folder = Path(folder)
        manifest.check_target(folder)
        folder.mkdir(exist_ok=True)
        with writing(folder):
            self._save(folder, replaces)

    def _save(self, folder: Path, replaces: str | None) -> None:
        version, store = manifest.current(folder), RuleStore(folder)
        if version is not None and version.digest not in {*self.origin.versions, replaces}:
            raise manifest.StaleBundleError(
                f"{folder}: {version.path.name}, written at {version.content['written']}, is not what this "
                "bundle was made from; nothing was written. Load the bundle and repeat the change "
                "(Bundle.update does both); or replace it: save(folder, replaces=current_digest(folder))"
            )
        finish_changes(folder)
        self.origin.write_rules(store, is_new=version is None)
        head = {
            "model": self.model,
            "until": self.until,
            "has_tokenizer": self.recommender.tokenizer is None,
            "schema": schema_of(self.graph),
            "logs": list(self.logs),
            **self.origin.forgetting(version),
        }
        self.origin.move(manifest.write(folder, head, self._fill), store, self.graph.user_ids.values)

    def _fill(self, folder: Path) -> None:
        self.graph.save(folder / GRAPH)
        pq.write_table(pa.table({"user": self.graph.user_ids.values}), folder / IDS)
        (folder / RECOMMENDER).mkdir()
        self.recommender.save(folder / RECOMMENDER)
        if self.recommender.tokenizer is None:
            self.tokenizer.save(folder / TOKENIZER)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a bundle that `save` wrote, whole also beside a writer. Nothing in it is executed.

        A tokenizer of one's own has to be imported before.

        Raises:
            FileNotFoundError: there is no bundle.
            DataError: it is damaged, or of another version; the message names the file.
        """
        return manifest.read(Path(folder), cls._load)

    @classmethod
    def _load(cls, version: manifest.Version) -> Self:
        version.check()
        inside, content = version.path, version.content
        graph = FriendGraph.load(inside / GRAPH)
        if schema_of(graph) != content["schema"]:
            raise DataError(f"{inside / GRAPH}: not the graph that the manifest describes")
        try:
            recommender = load_recommender(content["model"], inside / RECOMMENDER, graph)
        except KeyError as error:
            raise DataError(f"{inside.parent / manifest.MANIFEST}: {error.args[0]}") from None
        tokenizer = recommender.tokenizer
        if content["has_tokenizer"] or tokenizer is None:
            tokenizer = load_tokenizer(inside / TOKENIZER)
            if int(tokenizer.stus(graph).has().sum()) < len(tokenizer.table.codes):
                raise DataError(f"{inside / TOKENIZER}: has STUs of people who are not in {GRAPH}")
        origin = Origin.of(version, graph.user_ids.values)
        return cls(
            graph, recommender, tokenizer, content["model"], content["until"], origin, tuple(content["logs"])
        )


def _welcoming(tokenizer: Tokenizer, graph: FriendGraph) -> Tokenizer:
    """A tokenizer that has given an STU to everybody of whom something is known."""
    tokenizer.encode(graph, (~tokenizer.stus(graph).has()).nonzero().squeeze(1))
    return tokenizer
