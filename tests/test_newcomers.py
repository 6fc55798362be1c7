"""The newcomers' protocol: who is held out, what is known of them, and ranks against a naive loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import Row, checked, graph_of, random_rows
from hypothesis import given
from hypothesis import strategies as st

from graphrec.data import USER, DataError, FriendGraph, Query
from graphrec.evaluate import (
    DIRECTIONS,
    EvaluationError,
    NewcomerQuestions,
    evaluate_newcomers,
)
from graphrec.models import build


class Numbers:
    """Scores drawn for each pair of users and time; ties are common."""

    name = "numbers"

    def __init__(self, num_users: int) -> None:
        self.num_users = num_users

    def one(self, user: int, time: int, other: int) -> float:
        return float((7 * user + 13 * other + 5 * time) % 11)

    def score(self, query: Query) -> torch.Tensor:
        rows = zip(query.user.tolist(), query.time.tolist(), strict=True)
        return torch.tensor(
            [[self.one(user, time, other) for other in range(self.num_users)] for user, time in rows]
        ).view(len(query), self.num_users)


def contacts_before(rows: list[tuple[int, int, int]], user: int, time: int) -> set[int]:
    met = {dst for src, dst, when in rows if src == user and when < time}
    return met | {src for src, dst, when in rows if dst == user and when < time}


def events_of(graph: FriendGraph) -> list[tuple[int, int, int]]:
    events = graph.events()
    return list(zip(events.src.tolist(), events.dst.tolist(), events.time.tolist(), strict=True))


def naive(
    graph: FriendGraph, until: int, num_known: int, asked: set[int]
) -> dict[str, list[tuple[int, int, int, int]]]:
    """(present user, newcomer, best rank, worst rank) of every contact of a stage, by direction."""
    rows, scores = events_of(graph), Numbers(graph.num_users)
    first = {u: min((t for s, d, t in rows if u in (s, d)), default=None) for u in range(graph.num_users)}
    present = {u for u, t in first.items() if t is not None and t < until}
    out: dict[str, list[tuple[int, int, int, int]]] = {name: [] for name in DIRECTIONS}
    for user in asked:
        times = sorted({t for s, d, t in rows if user in (s, d)})
        starts = [t for t in times if len(contacts_before(rows, user, t)) == num_known]
        starts = [t for t in starts if len(contacts_before(rows, user, t + 1)) > num_known]
        if not starts:
            continue
        moment = starts[0]
        known = contacts_before(rows, user, moment)
        for other in sorted((contacts_before(rows, user, 10**12) - known) & present):

            def rank(owner: int, target: int, people: set[int], at: int = moment) -> tuple[int, int]:
                kept = people - contacts_before(rows, owner, at) - {owner}
                own = scores.one(owner, at, target)
                values = [scores.one(owner, at, person) for person in kept - {target}]
                best = 1 + sum(v > own for v in values)
                return best, best + sum(v == own for v in values)

            joined = {u for u, t in first.items() if t is not None and until <= t <= moment}
            out["to_newcomers"].append((other, user, *rank(user, other, present)))
            out["of_newcomers"].append((other, user, *rank(other, user, joined)))
    return out


@checked
@given(seed=st.integers(0, 10_000), drawn=st.booleans(), num_known=st.integers(0, 3))
def test_ranks_are_those_of_a_loop(seed: int, drawn: bool, num_known: int) -> None:
    graph = graph_of(random_rows(seed, users=14, events=60, times=40), 14)
    order = "drawn" if drawn else "time"
    questions = NewcomerQuestions.of(graph, share=0.3, known_contacts=(num_known,), order=order, seed=seed)
    found = evaluate_newcomers(Numbers(14), questions, k=3, progress=False)
    stage = questions.stages[num_known]
    expected = naive(questions.graph, questions.until, num_known, set(questions.newcomers.tolist()))
    for direction in DIRECTIONS:
        first, last = (part[num_known, direction].tolist() for part in (found.first, found.last))
        newcomers = stage.user[stage.row].tolist()
        rows = zip(stage.other.tolist(), newcomers, first, last, strict=True)
        assert sorted(rows) == sorted(expected[direction])
        possible = [range(best, worst + 1) for best, worst in zip(first, last, strict=True)]
        recall, group = found.terms("recall", num_known, direction)
        assert recall.tolist() == pytest.approx([np.mean([r <= 3 for r in ranks]) for ranks in possible])
        assert group.tolist() == newcomers
        mrr, _ = found.terms("mrr", num_known, direction)
        assert mrr.tolist() == pytest.approx([np.mean([1 / r for r in ranks]) for ranks in possible])


@checked
@given(seed=st.integers(0, 10_000), order=st.sampled_from(["time", "drawn"]))
def test_nothing_of_a_newcomer_is_known_before(seed: int, order: str) -> None:
    graph = graph_of(random_rows(seed, users=14, events=60, times=40), 14)
    questions = NewcomerQuestions.of(graph, share=0.3, order=order, seed=seed)  # type: ignore[arg-type]
    rows, new = events_of(questions.graph), set(questions.newcomers.tolist())
    assert not new & set(questions.present.tolist())
    assert all(time >= questions.until for s, d, time in rows if {s, d} & new)
    for num_known, stage in questions.stages.items():
        for user, time in zip(stage.user.tolist(), stage.time.tolist(), strict=True):
            assert len(contacts_before(rows, user, time)) == num_known
    if order == "drawn":
        assert not any({s, d} <= new for s, d, _ in rows)
        assert graph.user_ids.values.equals(questions.graph.user_ids.values)


def test_pairs_without_times_come_in_a_drawn_order() -> None:
    """Both directions of a pair at once; another seed, another order; features stay with their users."""
    rows = [Row(a, b, 0) for a in range(12) for b in range(12) if a != b and (a * b) % 3 != 1]
    graph = graph_of(rows, 12)
    graph[USER].x = torch.arange(12.0)[:, None]
    one, other = (NewcomerQuestions.of(graph, share=0.2, seed=seed) for seed in (0, 1))
    events = one.graph.events()
    by_time: dict[int, set[frozenset[int]]] = {}
    for src, dst, time in events_of(one.graph):
        if time < one.until:
            by_time.setdefault(time, set()).add(frozenset((src, dst)))
    assert all(len(pairs) == 1 for pairs in by_time.values())
    assert len(by_time) > 10
    assert not torch.equal(events.src[:10], other.graph.events().src[:10])
    assert torch.equal(one.graph[USER].x, graph[USER].x)


@pytest.mark.parametrize("opening", ["add", "text"])
def test_the_question_is_the_act_by_which_contacts_begin(opening: str) -> None:
    """Not the commonest act, nor one by which contacts begin later."""
    rows = []
    for user in range(1, 20):  # each begins with the two before
        for other in (user - 1, max(0, user - 2)):
            late = user >= 15
            rows += [Row(user, other, 10 * user + other, "other" if late else opening)]
            rows += [Row(user, other, 10 * user + other + step, "call") for step in (20, 30)]
    graph = graph_of(rows)
    questions = NewcomerQuestions.of(graph, share=0.25, order="time")
    assert questions.action == opening
    asked: list[int] = []

    class Asked(Numbers):
        def score(self, query: Query) -> torch.Tensor:
            asked.extend(query.action.tolist())
            return super().score(query)

    evaluate_newcomers(Asked(20), questions, progress=False)
    assert set(asked) == {graph.actions.index(opening)}


def test_a_later_event_changes_no_score() -> None:
    """An event planted at a question's own second, and one later, change no score that is asked for."""
    graph = graph_of(random_rows(5, users=20, events=300, times=200), 20)
    questions = NewcomerQuestions.of(graph, share=0.2, known_contacts=(1,), order="time")
    stage = questions.stages[1]
    time = int(stage.time.max())
    rule = build("adamic_adar").fit(graph, until=questions.until)
    before = rule.score(Query.of(graph, stage.user, stage.time))
    planted = [Row(s, d, t) for s, d, t in events_of(graph)]
    planted += [Row(int(stage.user[0]), 3, time), Row(int(stage.user[0]), 4, time + 1)]
    again = graph_of(planted, 20)
    after = build("adamic_adar").fit(again, until=questions.until)
    assert torch.equal(before, after.score(Query.of(again, stage.user, stage.time)))


def test_a_recommender_fitted_on_newcomers_is_refused() -> None:
    graph = graph_of(random_rows(5, users=20, events=300, times=200), 20)
    questions = NewcomerQuestions.of(graph, share=0.2)
    rule = build("adamic_adar").fit(questions.graph, until=questions.until + 50)
    with pytest.raises(EvaluationError, match="was fitted on events before"):
        evaluate_newcomers(rule, questions, progress=False)


def test_wrong_arguments_are_named() -> None:
    graph = graph_of(random_rows(5, users=20, events=300, times=200), 20)
    with pytest.raises(ValueError, match="share"):
        NewcomerQuestions.of(graph, share=0.9)
    with pytest.raises(ValueError, match="known_contacts"):
        NewcomerQuestions.of(graph, known_contacts=(-1,))
    with pytest.raises(ValueError, match="order"):
        NewcomerQuestions.of(graph, order="alphabet")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no event would be left"):
        NewcomerQuestions.of(graph_of([Row(0, 1, 5)], 2), order="drawn")


def test_rows_have_intervals() -> None:
    graph = graph_of(random_rows(5, users=30, events=400, times=300), 30)
    questions = NewcomerQuestions.of(graph, share=0.2, known_contacts=(0, 1))
    rows = evaluate_newcomers(build("popularity").fit(graph, until=questions.until), questions, k=5).rows()
    assert {(row["known_contacts"], row["direction"]) for row in rows} == {
        (s, d) for s in (0, 1) for d in DIRECTIONS
    }
    for row in rows:
        assert 0 < row["mrr_low"] <= row["mrr"] <= row["mrr_high"] <= 1
        assert np.isfinite(row["recall@5"])
