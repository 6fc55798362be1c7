"""The bundle: everything a service needs, in memory and as one folder."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self, Unpack

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from graphrec.data import DataError, EventLog, FriendGraph, Id, Query, UserTable, digest_log
from graphrec.data.checks import check_count
from graphrec.decode import PrefixTree
from graphrec.explain import Explanation
from graphrec.models import (
    DEFAULT_MODEL,
    Question,
    Recommender,
    Suggestions,
    build,
    load_recommender,
    query_for,
    suggested,
)
from graphrec.service import manifest
from graphrec.service.appending import append_in_place
from graphrec.service.contents import append_log_digest, encode_newcomers, event_log_of, graph_schema
from graphrec.service.evaluating import BundleEvaluation, evaluate_bundle
from graphrec.service.explaining import explain_within_rules
from graphrec.service.lock import write_lock
from graphrec.service.origin import Origin, finish_changes
from graphrec.service.rule_changes import IDS
from graphrec.service.rule_store import RuleStore
from graphrec.service.rules import Rules
from graphrec.threads import one_intra_op_thread
from graphrec.tokenizer import ResidualKMeans, Tokenizer, load_tokenizer

GRAPH, RECOMMENDER, TOKENIZER = "graph.pt", "recommender", "tokenizer"


@dataclass(frozen=True)
class Bundle:
    """A graph, a recommender fitted on it, the STUs of users, and rules on which users not to show.

    `add`, `forget` and `with_rules` return another bundle; `append` alone changes this one. `update` changes
    the bundle in a folder, as its only writer; `save` refuses to replace a version that the bundle was not
    made from.

    Attributes:
        graph: events and users; `graph.user_ids` maps raw ids.
        recommender: fitted, on this graph.
        tokenizer: fitted; that of the recommender, if it has one.
        model: the recommender's name in `graphrec.models.MODELS`.
        until: seconds; the fit used strictly older events.
        origin: its rules, and the versions on disk it was made from.
        logs: digests of the event logs that were fitted or added.
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
            graph: events and users.
            model: a name of `graphrec.models.MODELS`.
            tokenizer: unfitted, for models without one; by default `ResidualKMeans()`.
            rules: blocks and opt-outs.

        Raises:
            KeyError: the model is unknown.
        """
        recommender, until = build(model), int(graph.events().time[-1]) + 1
        recommender = recommender.fit(graph, until=until)
        if recommender.tokenizer is not None:
            tokenizer = recommender.tokenizer
        else:
            tokenizer = encode_newcomers((tokenizer or ResidualKMeans()).fit(graph, until=until), graph)
        origin, logs = Origin(rules or Rules()), (digest_log(event_log_of(graph)),)
        return cls(graph, recommender, tokenizer, model, until, origin, logs)

    @property
    def rules(self) -> Rules:
        """Blocks and opt-outs; for a bundle in a folder, the current ones there."""
        return self.origin.current_rules

    @property
    def digest(self) -> str:
        """The digest of the version on disk that equals the bundle; empty if none does."""
        return self.origin.digest

    def suggest(
        self, users: Tensor | Sequence[Id], *, k: int = 10, **question: Unpack[Question]
    ) -> list[Suggestions]:
        """Suggest k new people to each user, best first, as `graphrec.suggest` does, within the rules.

        Args:
            users: raw ids, or [B] int64 indices.
            k: people for each user, at most.
            **question: time, action, horizon, outcome and now, as in `graphrec.models.query_for`.
        """
        with self.graph.guard.reading():
            query = query_for(self.recommender, users, **question)
            people, scores = self.suggested(query, k)
            return Suggestions.of(self.graph.user_ids, query.user, people, scores)

    @one_intra_op_thread()
    def suggested(self, query: Query, k: int) -> tuple[Tensor, Tensor]:
        """Suggest k new people for each of B queries, within the rules.

        Returns:
            users [B, k] int64, best first, padded with -1, and scores [B, k], padded with -inf.
        """
        with self.graph.guard.reading():
            k = min(check_count("k", k, maximum=None), self.graph.num_users)
            blocked, gone = self._rule_indices(self.origin.enforced_rules)
            return suggested(self.recommender, query, k, blocked=blocked, opted_out=gone)

    def explain(self, user: Id, candidate: Id, **question: Unpack[Question]) -> Explanation:
        """Explain why a person is suggested to a user, within the rules; see `graphrec.explain.explain`.

        Args:
            user: raw id.
            candidate: raw id.
            **question: time, action, horizon, outcome and now, as in `suggest`.

        Raises:
            KeyError: a user or candidate is unknown; it is named.
            ValueError: the candidate is never suggested to the user. The message is the same for all causes
                (a contact, the user, an opt-out, a block), since rules are not disclosed.
        """
        with self.graph.guard.reading():
            rules = self.origin.enforced_rules
            return explain_within_rules(self, user, candidate, rules, self._rule_indices, **question)

    def evaluate(self, log: EventLog | None = None, *, progress: bool = True) -> BundleEvaluation:
        """Evaluate lists and next acts, with all users as candidates (see docs/evaluation.md).

        Args:
            log: events after those of the bundle, on which it is evaluated as it is. By default the bundle's
                own events are split by time; its model is fitted again on the first 80 %, and evaluated on
                the last 10 %.
            progress: show a bar on a terminal.

        Raises DataError if no event is later than those of the bundle, or there are too few to split.
        """
        return evaluate_bundle(self, log, progress=progress)

    @cached_property
    def tree(self) -> PrefixTree:
        """The prefix tree of all STUs, by the indices of the graph."""
        stus = self.tokenizer.stus(self.graph)
        return PrefixTree(stus.codes, stus.codebook_size, stus.rank)

    def add(
        self, log: EventLog | None = None, users: UserTable | None = None, *, again: bool = False
    ) -> Bundle:
        """Return a bundle with further events and users, without a fit; newcomers get an STU.

        Args:
            log: the events; None for users alone.
            users: features and join times, see `FriendGraph.with_users`.
            again: accept a log that was added before; its events then count twice.

        Raises:
            DataError: the log was added before; or errors of `with_events` and `with_users`.
            ValueError: all STUs are taken; or neither a log nor users are given.
        """
        if log is None and users is None:
            raise ValueError("give a log, users, or both")
        logs = self.logs if log is None else append_log_digest(self.logs, log, again=again)
        graph = self.graph if log is None else self.graph.with_events(log)
        return replace(self._on(graph if users is None else graph.with_users(users)), logs=logs)

    def append(self, log: EventLog, *, again: bool = False) -> None:
        """Append later events and their users in place and in memory: the next suggestion sees them.

        It costs what `Recommender.append` costs; `add` is for other events, and for users without any.
        Nothing is written until `save`. Newcomers have STUs as soon as the recommender gives them some; for
        models without STUs, when the bundle is saved.

        Args:
            log: events in order of time, none older than the last event of the graph.
            again: accept a log that was added before; its events then count twice.

        Raises:
            DataError: the log was added before; or as `Recommender.append`. Nothing is changed.
        """
        append_in_place(self, log, again=again)

    def forget(self, user: Id, *others: Id) -> Bundle:
        """Return a bundle without some users: in the graph, STUs, data of the recommender, and rules.

        Parameters learned from all users (codebooks, a half-life, the weights of a network) stay. If a user
        is in later events, they are a newcomer.

        Raises:
            KeyError: neither the graph nor the rules have a user.
            DataError: no event would be left.
        """
        ids, rules, gone = self.graph.user_ids, self.rules, []
        for one in (user, *others):
            if int(ids.find([one])) >= 0:
                gone.extend(ids.lookup(ids.index([one])))
            elif rules.without(one) == rules:
                ids.index([one])
                raise KeyError(f"unknown user id {one!r}")
            else:
                gone.append(one)
        known = [one for one in gone if int(ids.find([one])) >= 0]
        out = self._on(self.graph.without(known), gone=known) if known else self._changed()
        origin = out.origin
        if isinstance(origin.rules, Rules):
            for one in gone:
                origin.rules = origin.rules.without(one)
        origin.forgotten = (*origin.forgotten, *gone)
        return out

    def with_rules(self, rules: Rules) -> Bundle:
        """Return a bundle with other rules, such as `bundle.rules.block(user, other)`.

        `save` writes the difference from the current rules to the folder.
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
            tokenizer = encode_newcomers(tokenizer, graph)
        if gone:  # the end of the fit must not reveal the time of their last event
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

        Other writers wait; readers get the version before or after.

        Args:
            folder: of the bundle.
            change: from the bundle as loaded to the one to save, such as `lambda bundle: bundle.add(log)`.

        Returns:
            the saved bundle.

        Raises:
            FileNotFoundError, DataError: as `load`.
            OSError: it cannot be written; nothing was changed.
        """
        folder = Path(folder)
        if manifest.current_version(folder) is None:
            raise FileNotFoundError(f"no such file: {folder / manifest.MANIFEST}")
        manifest.check_target(folder)
        with write_lock(folder):
            finish_changes(folder)  # a version with a forgotten user, if its writer was killed
            changed = change(cls.load(folder))
            changed._save(folder, None)
        return changed

    def save(self, folder: str | os.PathLike[str], *, replaces: str | None = None) -> None:
        """Write the bundle to a new folder, or replace the version that it was made from.

        Rules in the folder stay, and the additional ones of this bundle are added.

        Args:
            folder: its parent has to exist.
            replaces: `current_digest(folder)`, to replace that version by a new fit.

        Raises:
            StaleBundleError: another version is in the folder; nothing was changed.
            DataError: the folder holds something else.
            OSError: it cannot be written; nothing was changed.
        """
        folder = Path(folder)
        manifest.check_target(folder)
        folder.mkdir(exist_ok=True)
        with write_lock(folder):
            self._save(folder, replaces)

    def _save(self, folder: Path, replaces: str | None) -> None:
        version, store = manifest.current_version(folder), RuleStore(folder)
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
            "schema": graph_schema(self.graph),
            "logs": list(self.logs),
            **self.origin.forgetting(version),
        }
        if self.origin.log_position is not None:
            head["log_position"] = self.origin.log_position
        if self.origin.adds_to:
            head["adds_to"] = self.origin.adds_to
        self.origin.advance_to(
            manifest.write_version(folder, head, self._fill), store, self.graph.user_ids.values
        )

    def _fill(self, folder: Path) -> None:
        self.graph.save(folder / GRAPH)
        pq.write_table(pa.table({"user": self.graph.user_ids.values}), folder / IDS)
        (folder / RECOMMENDER).mkdir()
        self.recommender.save(folder / RECOMMENDER)
        if self.recommender.tokenizer is None:
            encode_newcomers(self.tokenizer, self.graph).save(folder / TOKENIZER)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a bundle that `save` wrote, also while another process writes. Nothing in it is executed.

        The module of a custom tokenizer has to be imported first.

        Raises:
            FileNotFoundError, DataError: there is no bundle, or it is damaged or of another format version.
        """
        return manifest.read_current(Path(folder), cls._load)

    @classmethod
    def _load(cls, version: manifest.Version) -> Self:
        version.check()
        inside, content = version.path, version.content
        graph = FriendGraph.load(inside / GRAPH)
        if graph_schema(graph) != content["schema"]:
            raise DataError(f"{inside / GRAPH}: not the graph that the manifest describes")
        try:
            recommender = load_recommender(content["model"], inside / RECOMMENDER, graph)
        except KeyError as error:
            raise DataError(f"{inside.parent / manifest.MANIFEST}: {error.args[0]}") from None
        tokenizer = recommender.tokenizer
        if content["has_tokenizer"] or tokenizer is None:
            tokenizer = load_tokenizer(inside / TOKENIZER)
            if int(tokenizer.stus(graph).has().sum()) < len(tokenizer.table.codes):
                raise DataError(f"{inside / TOKENIZER}: has STUs of users who are not in {GRAPH}")
        origin = Origin.of(version, graph.user_ids.values)
        return cls(
            graph, recommender, tokenizer, content["model"], content["until"], origin, tuple(content["logs"])
        )
