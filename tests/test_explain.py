"""Reasons: nothing is told but what moves the score, and nobody is told of who must not be."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import Row, graph_of, random_rows, rewritten
from torch import Tensor

from benchmarks.correctness.reasons import Check, pairs
from graphrec import EventLog, FriendGraph, Query, Recommender, TemporalSplit, load_dataset
from graphrec.explain import (
    CandidateActivity,
    Evidence,
    Explanation,
    PastEvents,
    SharedContact,
    SharedPrefixGroup,
    explain,
)
from graphrec.models import HEURISTICS
from graphrec.tokenizer import Tokenizer

DAY = 86_400
USERS = 10
RULES = sorted(set(HEURISTICS) - {"random", "popularity", "last_active"})

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

Acts = list[tuple[int, int, int]]


class Rule(Recommender):
    """Any function of the past, as rows (src, dst, time), of a user and a candidate."""

    name = "rule"

    def __init__(self, score: Callable[[Acts, int, int], float]) -> None:
        self._rule, self.worlds = score, [0]

    def fit(self, graph: FriendGraph, *, until: int) -> Rule:
        self._graph = graph
        return self

    def on(self, graph: FriendGraph) -> Rule:
        self.worlds[0] += 1
        other = Rule(self._rule)
        other.worlds = self.worlds
        return other.fit(graph, until=0)

    def _score_in_order(self, query: Query) -> Tensor:
        out = []
        for user, time in zip(query.user.tolist(), query.time.tolist(), strict=True):
            events = self.graph.snapshot(time).events()
            rows = list(zip(events.src.tolist(), events.dst.tolist(), events.time.tolist(), strict=True))
            out.append([float(self._rule(rows, user, v)) for v in range(self.graph.num_users)])
        return torch.tensor(out, dtype=torch.float64)


def common(rows: Acts, user: int, other: int) -> int:
    met = [{a + b - u for a, b, _ in rows if u in (a, b)} for u in (user, other)]
    return len(met[0] & met[1])


def village(*more: tuple[Any, ...]) -> FriendGraph:
    """Ann's friends Cem, Dia and Fay are friends of Bob's; Gus knows Ann, and wrote to Bob unanswered."""
    rows = []
    for day, person in enumerate(("cem", "dia", "fay")):
        rows += [("ann", person, day * DAY, "message")]
        rows += [("bob", person, day * DAY + 1, "message"), (person, "bob", day * DAY + 2, "message")]
    rows += [("gus", "ann", 3 * DAY, "message"), ("gus", "bob", 3 * DAY, "message")]
    rows += [*more, ("eve", "hal", 10 * DAY, "message"), ("hal", "eve", 10 * DAY, "message")]
    src, dst, time, action = zip(*rows, strict=True)
    return FriendGraph.from_events(EventLog.from_arrays(src, dst, time, action=action))


def told(graph: FriendGraph, model: str = "common_neighbors", **options: Any) -> Explanation:
    given: dict[str, Any] = {"user": "ann", "candidate": "bob", "time": 4 * DAY} | options
    return explain(HEURISTICS[model]().fit(graph, until=5 * DAY), **given)


def contacts(explanation: Explanation) -> list[Any]:
    return [piece.person for piece in explanation.evidence if isinstance(piece, SharedContact)]


# Known answers


def test_what_is_told_of_a_village() -> None:
    graph = village()
    found = told(graph, "common_neighbors")
    assert contacts(found) == ["fay", "dia", "cem"]
    gus, *others = found.evidence
    assert isinstance(gus, CandidateActivity)  # the tie that is not told of
    assert [piece.effect for piece in others] == pytest.approx([1.0] * 3, abs=1e-9)
    assert (found.user, found.candidate, found.time, found.action) == ("ann", "bob", 4 * DAY, "message")
    fay = others[0]
    assert isinstance(fay, SharedContact)
    assert fay.last_time == 2 * DAY
    events, name = graph.events(), graph.user_ids.lookup
    ends = [set(name(torch.stack([events.src[i], events.dst[i]]))) for i in fay.event_ids]
    assert sorted(map(sorted, ends)) == [["ann", "fay"], ["bob", "fay"], ["bob", "fay"]]
    assert str(found) == found.sentence
    assert found.sentence == (
        "bob is suggested because bob has acted 3 times and been approached 4 times, most recently 1 day "
        "ago, and because you are both in contact with fay, dia and cem."
    )


def test_where_contacts_do_not_count_they_are_not_told() -> None:
    assert told(village(), "last_active").sentence == (
        "There is no evidence for bob beyond activity: bob has acted 3 times and been approached 4 times, "
        "most recently 1 day ago."
    )
    nothing = told(village(), "last_active", time=0)
    assert nothing.evidence == ()
    assert nothing.sentence == (
        "There is no evidence for bob: no event that may be disclosed moves the score."
    )


def test_acts_between_the_two_are_told_by_direction_and_kind() -> None:
    graph = village(
        ("bob", "ann", 3 * DAY, "friend_request"),
        ("ann", "bob", 2 * DAY, "message"),
        ("ann", "bob", 2 * DAY + 9, "message"),
    )
    found = told(graph, "reply_recency")
    (acts,) = found.evidence
    assert isinstance(acts, PastEvents)
    assert (acts.action, acts.by_user, acts.count, acts.last_time) == ("friend_request", False, 1, 3 * DAY)
    assert acts.effect == DAY - 9
    assert found.sentence == "bob is suggested because bob's friend request to you was 1 day ago."
    (own,) = told(graph, "repeat_recency").evidence
    assert isinstance(own, PastEvents)
    assert (own.action, own.by_user, own.count, own.last_time) == ("message", True, 2, 2 * DAY + 9)
    assert "because your last message to bob was 1 day ago." in told(graph, "repeat_recency").sentence


def test_where_only_all_acts_together_matter_the_latest_is_told() -> None:
    """Both acted at one moment: without either, the time of the last act stays as it is."""
    rows = [("ann", "bob", 3 * DAY, "message"), ("bob", "ann", 3 * DAY, "message")]
    for tied in (rows, rows[::-1]):
        (acts,) = told(village(*tied), "reply_recency").evidence
        assert isinstance(acts, PastEvents)
        assert len(acts.event_ids) == 2
        assert (acts.count, acts.by_user) == (1, False)
        assert acts.effect > 2 * DAY


def test_both_ties_of_a_shared_contact_have_to_matter() -> None:
    graph = village()

    def talkative(rows: Acts, user: int, other: int) -> int:
        return sum(a == user for a, _, _ in rows)

    def popular(rows: Acts, user: int, other: int) -> int:
        return sum(b == other for _, b, _ in rows)

    for rule, kinds in (
        (talkative, set()),
        (popular, {CandidateActivity}),
        (common, {SharedContact, CandidateActivity}),
    ):
        found = explain(Rule(rule).fit(graph, until=0), "ann", "bob", 4 * DAY)
        assert {type(piece) for piece in found.evidence} == kinds


def test_what_speaks_against_is_not_told() -> None:
    def stranger(rows: Acts, user: int, other: int) -> float:
        return -common(rows, user, other) - len([1 for row in rows if {user, other} == set(row[:2])])

    graph = village(("bob", "ann", 3 * DAY, "poke"))
    found = explain(Rule(stranger).fit(graph, until=0), "ann", "bob", 4 * DAY)
    assert found.score == -5
    assert found.evidence == ()


# Against a loop that tries everything on the rows themselves


def naive(
    model: Recommender, rows: Sequence[Row], user: int, candidate: int, time: int
) -> dict[tuple[Any, ...], float]:
    past = [(i, row) for i, row in enumerate(rows) if row.time < time]

    def score(gone: set[int]) -> float:
        graph = graph_of([row for i, row in enumerate(rows) if i not in gone], USERS)
        return float(model.on(graph).score(Query.of(graph, [user], time), torch.tensor([candidate])))

    whole = score(set())
    least = 2.0**-26 * max(1.0, abs(whole))

    def fall(gone: set[int]) -> float:
        by = whole - score(gone)
        return by if by > least else 0.0

    def between(a: int, b: int) -> set[int]:
        return {i for i, row in past if {a, b} == {row.src, row.dst}}

    out: dict[tuple[Any, ...], float] = {}
    both = sorted(between(user, candidate))
    kinds = {(rows[i].action, rows[i].src == user) for i in both}
    for action, by_user in kinds:
        ids = {i for i in both if (rows[i].action, rows[i].src == user) == (action, by_user)}
        out[PastEvents, action, by_user, len(ids), rows[max(ids)].time] = fall(ids)
    if not any(out.values()) and len(kinds) > 1:
        last = min((rows[i] for i in both), key=lambda row: (-row.time, row.action, row.src == user))
        count = sum((rows[i].action, rows[i].src) == (last.action, last.src) for i in both)
        out[PastEvents, last.action, last.src == user, count, last.time] = fall(set(both))
    told_of: set[int] = set()
    for w in set(range(USERS)) - {user, candidate}:
        own, theirs = between(user, w), between(candidate, w)
        if own and len({rows[i].src for i in theirs}) == 2:
            effect = min(fall(own), fall(theirs))
            out[SharedContact, w, rows[max(own)].time] = effect
            told_of |= (own | theirs) if effect else set()
    ties = {i for i, row in past if candidate in (row.src, row.dst)}
    if ties:
        acted = sum(rows[i].src == candidate for i in ties)
        rest = {i for i in ties - told_of if user not in (rows[i].src, rows[i].dst)}
        met = {v for _, row in past if user in (row.src, row.dst) for v in (row.src, row.dst)}
        strangers = {i for i in rest if not met & {rows[i].src, rows[i].dst} - {candidate}}
        out[CandidateActivity, acted, len(ties) - acted, rows[max(ties)].time] = fall(strangers) or fall(rest)
    return {key: effect for key, effect in out.items() if effect}


def key(piece: Evidence) -> tuple[Any, ...]:
    fields = {name: value for name, value in vars(piece).items() if name not in ("effect", "event_ids")}
    return (type(piece), *fields.values())


@pytest.mark.parametrize("name", RULES)
def test_all_that_moves_the_score_is_told_and_nothing_else(name: str) -> None:
    rows = random_rows(1, users=USERS - 1, events=90, times=25, scale=DAY)
    model = HEURISTICS[name]().fit(graph_of(rows, USERS), until=12 * DAY)
    drawn = torch.Generator().manual_seed(0)
    kinds = set()
    for time in (0, *torch.arange(12, 24, 3).mul(DAY).tolist()):
        user, candidate = torch.randperm(USERS, generator=drawn)[:2].tolist()
        found = explain(model, user, candidate, time, max_contacts=USERS)
        effects = {key(piece): piece.effect for piece in found.evidence}
        assert effects == pytest.approx(naive(model, rows, user, candidate, time), rel=1e-6)
        assert all(one.effect >= other.effect for one, other in pairwise(found.evidence))
        kinds |= {type(piece) for piece in found.evidence}
    assert len(kinds) >= (1 if "popularity" in name or "last" in name else 2)


# The strict past


@pytest.mark.parametrize("name", sorted(HEURISTICS))
def test_the_future_changes_no_reason(name: str) -> None:
    """Every event at or after the question's time is another one; those at the very time included."""
    rows = random_rows(3, users=USERS, events=80, times=30, scale=DAY)
    time = 25 * DAY
    answers = []
    for log in (rows, rewritten(rows, time, num_users=USERS, seed=1)):
        graph = graph_of(log, USERS)
        groups = Groups(num_codebooks=2, codebook_size=4).fit(graph, until=time)
        model = HEURISTICS[name]().fit(graph, until=20 * DAY)
        answers.append([explain(model, 0, v, time, "call", tokenizer=groups) for v in (1, 2, 3)])
    assert answers[0] == answers[1]
    assert name == "random" or any(answer.evidence for answer in answers[0])


def test_a_tie_that_becomes_mutual_at_the_time_of_the_question_is_not_told() -> None:
    graph = village(("bob", "gus", 4 * DAY, "message"))
    assert "gus" not in contacts(told(graph, time=4 * DAY))
    assert "gus" in contacts(told(graph, time=4 * DAY + 1))
    graph = village(("bob", "ann", 4 * DAY, "poke"))
    assert told(graph, "reply_recency", time=4 * DAY + 1).evidence[0] != told(graph, "reply_recency").evidence
    assert all(not isinstance(piece, PastEvents) for piece in told(graph, "reply_recency").evidence)


# Whom reasons may name


def test_ties_of_others_are_told_only_where_they_are_mutual() -> None:
    assert "gus" not in contacts(told(village(), "common_neighbors"))
    assert "gus" in contacts(told(village(("bob", "gus", 3 * DAY, "poke"))))
    assert "gus" not in contacts(told(village(("gus", "bob", 3 * DAY, "poke"))))


@pytest.mark.parametrize(
    "options",
    [
        {"opted_out": iter(["dia"])},
        {"blocked": iter([("ann", "dia")])},
        {"blocked": iter([("dia", "ann")])},
        {"blocked": iter([("bob", "dia")])},
        {"blocked": iter([("cem", "gus"), ("dia", "bob")])},
    ],
)
def test_nobody_blocked_or_opted_out_is_told_of(options: dict[str, Any]) -> None:
    graph = village()
    found = told(graph, **options)
    assert contacts(found) == ["fay", "cem"]
    assert "dia" not in found.sentence
    events = graph.events()
    dia = int(graph.user_ids.index(["dia"]))
    moved = torch.tensor([i for piece in found.evidence for i in piece.event_ids])
    assert dia not in torch.cat([events.src[moved], events.dst[moved]]).tolist()
    activity = found.evidence[0]
    assert isinstance(activity, CandidateActivity)
    assert activity.num_acts == 2
    assert found.score == told(graph).score


def test_others_blocks_change_nothing() -> None:
    assert told(village(), blocked=[("cem", "dia"), ("ann", "eve")]) == told(village())
    assert told(village(), opted_out=["ann"]) == told(village())


@pytest.mark.parametrize(
    "options", [{"blocked": [("ann", "bob")]}, {"blocked": [("bob", "ann")]}, {"opted_out": ["bob"]}]
)
def test_a_blocked_candidate_is_not_explained(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^'bob' is not suggested to 'ann'$"):
        told(village(), **options)


# Prefix groups


class Groups(Tokenizer):
    """Users of one group, five neighboring ids, stand together; groups far apart."""

    def embed(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        ids = torch.tensor(graph.user_ids.lookup(users))
        return torch.nn.functional.one_hot(ids // 5, 4).float() * 9 + (ids % 5)[:, None] / 5


class Given(Tokenizer):
    """Codes as they are given."""

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.codes = codes

    def embed(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        raise NotImplementedError

    def codes_before(self, graph: FriendGraph, time: int) -> Tensor:
        return self.codes


def test_a_prefix_group_is_told_with_its_size_where_its_people_matter() -> None:
    """User 7 and user 1 share one code, user 7 knows three more people of that group, and two of none."""
    graph = graph_of([Row(7, v, day * DAY) for day, v in enumerate((2, 3, 4, 8, 9))], USERS)
    codes = torch.tensor([[3, 3, 3, 3, 3, 0, 0, 3, 1, 1], [0, 1, 1, 2, 2, 0, 1, 1, 0, 0], [*range(10)]]).t()

    def sociable(rows: Acts, user: int, other: int) -> int:
        return len({a + b - user for a, b, _ in rows if user in (a, b)} & {2, 3, 4})

    model = Rule(sociable).fit(graph, until=0)
    found = explain(model, 7, 1, 9 * DAY, tokenizer=Given(codes), opted_out=[4])
    (group,) = found.evidence
    assert isinstance(group, SharedPrefixGroup)
    assert (group.effect, group.prefix, group.num_people, group.num_met) == (1, (3, 1), 3, 1)
    codes[2, 1] = 0  # the longest prefix whose group counts is a shorter one
    (group,) = (found := explain(model, 7, 1, 9 * DAY, tokenizer=Given(codes), opted_out=[4])).evidence
    assert isinstance(group, SharedPrefixGroup)
    assert (group.effect, group.prefix, group.num_people, group.num_met) == (2, (3,), 5, 2)
    assert found.sentence == (
        "User 1 is suggested because you are both in a group of 5 people and you know 2 of them."
    )
    assert explain(model, 7, 1, 9 * DAY).evidence == ()
    indifferent = Rule(lambda rows, user, other: 1).fit(graph, until=0)
    assert explain(indifferent, 7, 1, 9 * DAY, tokenizer=Given(codes)).evidence == ()
    codes[7] = -1
    assert explain(model, 7, 1, 9 * DAY, tokenizer=Given(codes)).evidence == ()


def test_a_tokenizer_that_saw_the_question_is_refused() -> None:
    graph = graph_of(random_rows(0, users=USERS, events=60, scale=DAY))
    groups = Groups(num_codebooks=2, codebook_size=4).fit(graph, until=20 * DAY)
    model = HEURISTICS["ppr"]().fit(graph, until=9 * DAY)
    with pytest.raises(ValueError, match="the fit saw events until"):
        explain(model, 0, 1, 19 * DAY, tokenizer=groups)


# Cost


def test_the_number_of_worlds_is_what_the_docs_say() -> None:
    model = Rule(common).fit(village(("bob", "ann", 1, "poke"), ("ann", "bob", 2, "wave")), until=0)
    explain(model, "ann", "bob", 4 * DAY)
    # Two kinds of acts and both together, two for each of three contacts, one for the activity.
    assert model.worlds[0] == 2 + 1 + 2 * 3 + 1
    model.worlds[0] = 0
    found = explain(model, "ann", "bob", 4 * DAY, max_contacts=1)
    assert model.worlds[0] == 2 + 1 + 2 + 1
    assert contacts(found) == ["fay"]


# On a real network


@cache
def copenhagen() -> FriendGraph:
    graph = load_dataset("Copenhagen")
    assert isinstance(graph, FriendGraph)
    return graph


@pytest.mark.parametrize("name", ["common_neighbors", "ppr", "reply_recency", "last_seen"])
def test_without_the_evidence_the_score_falls_and_more_than_without_other_events(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHREC_HOME", str(tmp_path_factory.getbasetemp()))
    graph = copenhagen()
    model = HEURISTICS[name]().fit(graph, until=TemporalSplit.of(graph).t_val)
    explained = 0
    for seed, (user, candidate, time) in enumerate(pairs(graph, 6, seed=0)):
        one, other = graph.user_ids.lookup([user, candidate])
        check = Check(model, found := explain(model, one, other, time), seed)
        for piece in found.evidence:
            fall = check.fall(torch.tensor(piece.event_ids))
            assert fall == pytest.approx(piece.effect, rel=1e-12) or (
                isinstance(piece, SharedContact) and fall > 0
            )
        if found.evidence:
            together = torch.tensor([i for piece in found.evidence for i in piece.event_ids]).unique()
            change = check.change(check.ids, together)
            assert change is None or change < check.fall(together)
            explained += 1
    assert explained >= 3


# Sentences


def sentence(*evidence: Evidence, candidate: int | str = "bob", time: int = 100 * DAY) -> str:
    return Explanation("ann", candidate, time, "call", 1.0, evidence).sentence


def contact(person: int | str) -> SharedContact:
    return SharedContact(effect=1.0, event_ids=(), person=person, last_time=0)


def acts(action: str = "call", by_user: bool = True, count: int = 2, age: int = 9) -> PastEvents:
    last = 100 * DAY - age
    return PastEvents(effect=1.0, event_ids=(), action=action, by_user=by_user, count=count, last_time=last)


def activity(num_acts: int, num_received: int) -> CandidateActivity:
    return CandidateActivity(
        effect=1.0, event_ids=(), num_acts=num_acts, num_received=num_received, last_time=99 * DAY
    )


@pytest.mark.parametrize(
    ("people", "words"),
    [
        (["cem"], "cem"),
        (["cem", 7], "cem and user 7"),
        (["cem", "dia", "eve"], "cem, dia and eve"),
        (["cem", "dia", "eve", "fay"], "cem, dia, eve and 1 other"),
        (list("abcdefgh"), "a, b, c and 5 others"),
    ],
)
def test_few_are_named_and_many_counted(people: list[int | str], words: str) -> None:
    assert sentence(*map(contact, people)) == (
        f"bob is suggested because you are both in contact with {words}."
    )


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("friend_request", "your last friend request to"),
        ("missed-call", "your last missed call to"),
        ("__reply  to__", "your last reply to to"),
        ("SMS", "your last SMS to"),
        ("Grüße", "your last Grüße to"),
        ("7", 'your last act "7" to'),
        ("like/v2", 'your last act "like/v2" to'),
        ("_", 'your last act "_" to'),
    ],
)
def test_an_action_may_have_any_name(action: str, words: str) -> None:
    assert f"because {words} bob was 9 seconds ago." in sentence(acts(action))


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (7199, "1 hour"),
        (7200, "2 hours"),
        (DAY, "1 day"),
        (3 * DAY + 5, "3 days"),
        (30 * DAY, "1 month"),
        (364 * DAY, "12 months"),
        (365 * DAY, "1 year"),
        (4000 * DAY, "10 years"),
    ],
)
def test_times_are_told_in_the_largest_unit(age: int, words: str) -> None:
    assert sentence(acts(age=age)).endswith(f"was {words} ago.")


def test_clauses_follow_the_effects_and_are_joined() -> None:
    asked = acts("friend_request", by_user=False, count=1, age=3 * DAY)
    said = sentence(contact("cem"), asked, contact("dia"), activity(1, 0), candidate=17)
    assert said == (
        "User 17 is suggested because you are both in contact with cem and dia, because user 17's friend "
        "request to you was 3 days ago, and because user 17 has acted once, 1 day ago."
    )
    assert sentence(asked, acts()) == (
        "bob is suggested because bob's friend request to you was 3 days ago, and because your last call to "
        "bob was 9 seconds ago."
    )
    one = SharedPrefixGroup(effect=1.0, event_ids=(), prefix=(3,), num_people=3, num_met=1)
    assert sentence(one) == (
        "bob is suggested because you are both in a group of 3 people and you know 1 of them."
    )


def test_activity_alone_is_told_as_such() -> None:
    assert sentence(activity(0, 2), candidate=3) == (
        "There is no evidence for user 3 beyond activity: user 3 has been approached 2 times, most recently "
        "1 day ago."
    )
    assert sentence(candidate=3) == (
        "There is no evidence for user 3: no event that may be disclosed moves the score."
    )


def test_a_prefix_group_never_rests_on_an_act_of_others_that_was_not_returned() -> None:
    """Abe acted on bea, who did not act back: uma, who knows abe, is not told, in whatever words."""
    ev = [("uma", "abe", 1), ("abe", "uma", 2), ("bea", "cy", 1), ("cy", "bea", 2), ("abe", "bea", 3)]
    for returned in (False, True):
        rows = [*ev, ("bea", "abe", 4)] if returned else ev
        src, dst, time = zip(*rows, strict=True)
        graph = FriendGraph.from_events(EventLog.from_arrays(src, dst, time))
        tokenizer = Given(torch.ones(graph.num_users, 3, dtype=torch.int64))
        for name in ("common_neighbors", "adamic_adar", "jaccard", "ppr"):
            rule = HEURISTICS[name]().fit(graph, until=10)
            for candidate in ("bea", "cy"):
                found = explain(rule, "uma", candidate, 10, tokenizer=tokenizer, max_contacts=0)
                groups = [piece for piece in found.evidence if isinstance(piece, SharedPrefixGroup)]
                if not returned:
                    assert not groups, (name, candidate)
                    assert "group" not in found.sentence
                elif candidate == "bea":
                    assert [group.num_met for group in groups] == [1], name


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"user": "zoe"}, KeyError, "'zoe'"),
        ({"candidate": "zoe"}, KeyError, "'zoe'"),
        ({"action": "wave"}, KeyError, "'wave'"),
        ({"opted_out": ["zoe"]}, KeyError, "'zoe'"),
        ({"blocked": [("zoe", "ann")]}, KeyError, "'zoe'"),
        ({"candidate": "ann"}, ValueError, "'ann' is not suggested to 'ann'"),
        ({"max_contacts": -1}, ValueError, "max_contacts"),
    ],
)
def test_bad_questions_are_named(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        told(village(), **options)


def test_a_recommender_that_cannot_be_explained_says_so() -> None:
    class Fixed(Rule):
        def on(self, graph: FriendGraph) -> Rule:
            return Recommender.on(self, graph)

    with pytest.raises(NotImplementedError, match="rule cannot be put on another graph"):
        explain(Fixed(common).fit(village(), until=0), "ann", "bob")
    for wrong in (float("nan"), float("inf")):
        model = Rule(lambda rows, user, other, wrong=wrong: wrong).fit(village(), until=0)
        with pytest.raises(ValueError, match=r"rule gave the score (nan|inf) to user index"):
            explain(model, "ann", "bob")
    with pytest.raises(RuntimeError, match="fit"):
        explain(HEURISTICS["ppr"](), "ann", "bob")


# The page


def test_the_page_of_reasons_runs_and_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHREC_HOME", str(tmp_path))
    page = (Path(__file__).parents[1] / "docs" / "explain.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", page, flags=re.DOTALL)
    assert len(blocks) >= 3
    names: dict[str, object] = {}
    for code, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        assert printed.getvalue() == shown
