"""Late answers, the model of answers and recommenders made two-sided: paper, truth, and the strict past."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import Row, checked, graph_of, logs, permuted, random_rows, rewritten
from hypothesis import given
from hypothesis import strategies as st
from test_recommenders import NEW_ID, ROWS, UNTIL, USERS, queries

from graphrec.data import DataError, FriendGraph, Query
from graphrec.evaluate import Initiations, ReplyDelayCurve
from graphrec.models import HEURISTICS, ReciprocalReranker, Recommender, ReplyModel
from graphrec.models.rerank.reciprocal import GRID
from graphrec.models.rerank.reciprocal_scores import RatedCandidates, mean_ranks, redistribute_scores
from graphrec.models.rerank.reply_training import delayed_reply_loss
from graphrec.temporal import ReplyIndex, Timeline

DAY = 86_400


# --- Delays of replies -------------------------------------------------------------------------------------


def test_maturity_on_paper() -> None:
    # At 100: asked at 0 and answered after 10; at 50, after 20; at 70, silent for 30; at 95, silent for 5.
    rows = [Row(0, 1, 0), Row(1, 0, 10), Row(2, 3, 50), Row(3, 2, 70), Row(4, 5, 70), Row(6, 7, 95)]
    rows += [Row(8, 9, 100), Row(9, 8, 101)]  # which nobody knows of
    pairs = Initiations.of(graph_of(sorted(rows, key=lambda row: row.time)))
    curve = ReplyDelayCurve.of(pairs, until=100, reply_window=40)
    # At a delay of 10 three were unanswered and old enough; at 20 two.
    assert curve.delay.tolist() == [10, 20]
    assert curve.reply_probability == pytest.approx([1 / 3, 1 - 2 / 3 * 1 / 2])
    assert curve.rate == pytest.approx(2 / 3)
    # An age of 10 seconds shows delays below 10.
    assert curve.arrived_fraction(np.array([0, 10, 11, 20, 21, 99])) == pytest.approx([0, 0, 0.5, 0.5, 1, 1])
    young = np.isin(pairs.initiator, [4, 6])  # matured for 1 and 0
    assert curve.reply_rate(pairs, young, until=100) == 0
    assert curve.reply_rate(pairs, pairs.initiator < 9, until=100) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="none of the 1 initiations is old enough"):
        curve.reply_rate(pairs, pairs.initiator == 6, until=100)


def test_nobody_answers() -> None:
    pairs = Initiations.of(graph_of([Row(0, 1, 0), Row(2, 1, 5)]))
    curve = ReplyDelayCurve.of(pairs, until=10, reply_window=3)
    assert (curve.rate, curve.arrived_fraction(np.array([1])).tolist()) == (0, [1])
    assert curve.reply_rate(pairs, np.array([0, 1]), until=10) == 0


def delayed(seed: int, size: int, chance: float) -> tuple[Initiations, int]:
    """Approaches at uniform times; each is answered with one probability, after an exponential delay."""
    rng = np.random.default_rng(seed)
    first = np.sort(rng.integers(0, 20 * DAY, size=size))
    delay = np.ceil(rng.exponential(DAY, size=size)).astype(np.int64)
    answered = (rng.random(size) < chance) & (delay <= 4 * DAY)
    person, zero = np.arange(size), np.zeros(size, dtype=np.int64)
    answer = np.where(answered, first + delay, -1)
    return Initiations(person, person + size, first, answer, zero, np.where(answered, 0, -1)), 20 * DAY


@pytest.mark.parametrize("seed", range(3))
def test_young_approaches_are_estimated_where_counting_fails(seed: int) -> None:
    pairs, until = delayed(seed, 100_000, 0.4)
    truth = 0.4 * (1 - np.exp(-4))
    young = pairs.initiation_time >= until - 2 * DAY
    label = pairs.reply_labels(until=until, reply_window=4 * DAY)[young]
    assert (label == 1).mean() < 0.8 * truth
    assert (label == 1).sum() / (label >= 0).sum() > 1.2 * truth
    curve = ReplyDelayCurve.of(pairs, until=until, reply_window=4 * DAY)
    assert curve.reply_rate(pairs, young, until=until) == pytest.approx(truth, rel=0.05)
    assert curve.rate == pytest.approx(truth, rel=0.02)


def test_the_late_loss_is_least_at_the_truth() -> None:
    pairs, until = delayed(0, 20_000, 0.4)
    answered = torch.from_numpy(pairs.reply_labels(until=until, reply_window=4 * DAY) == 1)
    age = until - pairs.initiation_time
    part = torch.from_numpy(
        ReplyDelayCurve.of(pairs, until=until, reply_window=4 * DAY).arrived_fraction(age)
    ).float()
    young = torch.from_numpy(age < 2 * DAY)
    chance = torch.linspace(0.2, 0.6, 41)
    size = int(young.sum())
    losses = [float(delayed_reply_loss(p.logit().expand(size), answered[young], part[young])) for p in chance]
    assert float(chance[int(np.argmin(losses))]) == pytest.approx(0.4 * (1 - np.exp(-4)), abs=0.03)
    # Where all is mature it is the cross-entropy.
    logit, yes = torch.tensor([0.3, -2.0, 90.0]), torch.tensor([True, False, False])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logit, yes.float())
    assert delayed_reply_loss(logit, yes, torch.ones(3)) == pytest.approx(float(expected))


# --- The index of answers -----------------------------------------------------------------------------------


@checked
@given(logs(users=5, events=40, times=(0, 9)), st.integers(0, 10), st.integers(1, 4))
def test_records_are_what_a_loop_counts(rows: list[Row], time: int, wait: int) -> None:
    timeline = Timeline.of(graph_of(rows, 5))
    first: dict[tuple[int, int], int] = {}
    for row in sorted(rows, key=lambda row: row.time):
        first.setdefault((row.src, row.dst), row.time)
    never = 10**9
    approaches = [
        (u, v, t, first.get((v, u), never)) for (u, v), t in first.items() if t < first.get((v, u), never)
    ]
    answers = ReplyIndex(timeline)
    tick = timeline.tick(torch.full((5,), time))
    for side, end in (("initiator", 0), ("recipient", 1)):
        record = answers.history(torch.arange(5), tick, side)  # type: ignore[arg-type]
        for user in range(5):
            mine = [a for a in approaches if a[end] == user and a[2] < time]
            come = [a[3] - a[2] for a in mine if a[3] < time]
            assert (int(record.num_initiations[user]), int(record.num_replies[user])) == (
                len(mine),
                len(come),
            )
            assert float(record.sum_log_delay[user]) == pytest.approx(sum(np.log1p(come)))
    old = sorted((a for a in approaches if a[2] < time - wait), key=lambda a: a[2])
    share = float(answers.recent_reply_rate(torch.tensor([time]), reply_window=wait, count=100))
    good, missing = sum(a[3] - a[2] <= wait for a in old), 100 - len(old)
    assert share == pytest.approx((good + missing / 2) / 100)


# --- The model of answers -----------------------------------------------------------------------------------


def model(rows: list[Row] = ROWS, *, seed: int = 0) -> ReplyModel:
    fitted = ReplyModel(reply_window=3 * DAY, hidden_channels=4, max_epochs=2, seed=seed, progress=False)
    return fitted.fit(graph_of(rows, USERS), until=UNTIL)


@cache
def shared() -> ReplyModel:
    return model()


def asked(time: int = UNTIL) -> tuple[Query, torch.Tensor]:
    user = torch.arange(USERS)
    return Query(user, torch.full((USERS,), time), user % 3), (user + 5) % USERS


def test_probabilities_are_probabilities() -> None:
    chance = shared().probability(*asked())
    assert chance.shape == (USERS,)
    assert chance.dtype == torch.float64
    assert ((chance > 0) & (chance < 1)).all()
    assert len(chance.unique()) > 2
    assert torch.equal(model().probability(*asked()), chance)
    assert not torch.equal(model(seed=1).probability(*asked()), chance)
    assert torch.isfinite(torch.tensor([row["loss"] for row in shared().curve])).all()


@pytest.mark.parametrize("day", [20, 21, 25, 29])
def test_the_future_changes_no_answer(day: int) -> None:
    """Every event at or after the approach is another one; those at the very time included."""
    time = day * DAY
    other = rewritten(ROWS, time, num_users=USERS, seed=day)
    assert torch.equal(model(other).probability(*asked(time)), shared().probability(*asked(time)))
    assert not torch.equal(
        model(other).probability(*asked(time + DAY)), shared().probability(*asked(time + DAY))
    )


def test_names_change_no_answer() -> None:
    query, person = asked()
    renamed = torch.from_numpy(NEW_ID)
    other = model(permuted(ROWS, NEW_ID.tolist()))
    chance = other.probability(Query(renamed[query.user], query.time, query.action), renamed[person])
    torch.testing.assert_close(chance, shared().probability(query, person), rtol=1e-5, atol=1e-5)


def test_another_graph_is_another_index() -> None:
    rows = [*ROWS, Row(1, 2, 40 * DAY, "text"), Row(2, 1, 41 * DAY, "text")]
    longer = shared().on(graph_of(rows, USERS))
    assert torch.equal(longer.probability(*asked()), shared().probability(*asked()))
    assert not torch.equal(longer.probability(*asked(50 * DAY)), shared().probability(*asked(50 * DAY)))
    with pytest.raises(ValueError, match="the model knows the actions"):
        shared().on(graph_of([Row(0, 1, 0), Row(1, 0, 1)]))


def test_what_was_learned_is_kept(tmp_path: Path) -> None:
    shared().save(tmp_path / "model")
    again = ReplyModel.load(tmp_path / "model", graph_of(ROWS, USERS))
    assert torch.equal(again.probability(*asked()), shared().probability(*asked()))
    with pytest.raises(ValueError, match="the model knows the actions"):
        ReplyModel.load(tmp_path / "model", graph_of([Row(0, 1, 0), Row(1, 0, 1)]))


def test_wrong_questions_are_named() -> None:
    query, person = asked()
    with pytest.raises(IndexError, match=r"person 99 lies outside 0\.\.13"):
        shared().probability(query, torch.full_like(person, 99))
    with pytest.raises(ValueError, match="14 queries need as many people"):
        shared().probability(query, person[:2])
    with pytest.raises(RuntimeError, match="has to be fitted first"):
        ReplyModel().probability(query, person)
    with pytest.raises(ValueError, match="there is no initiation before until=0"):
        ReplyModel(progress=False).fit(graph_of(ROWS, USERS), until=0)
    with pytest.raises(ValueError, match="reply_window must be at least 1"):
        ReplyModel(reply_window=0)


def test_it_learns_who_answers() -> None:
    """Half of the people answer everybody at once, the others nobody."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(1500):
        u, v = rng.choice(60, size=2, replace=False).tolist()
        rows.append(Row(u, v, 100 * number))
        if v % 2:
            rows.append(Row(v, u, 100 * number + 50))
    graph = graph_of(rows, 60)
    fitted = ReplyModel(reply_window=1000, max_epochs=8, progress=False).fit(graph, until=130_000)
    people = torch.arange(1, 60)
    query = Query(torch.zeros_like(people), torch.full_like(people, 140_000), torch.zeros_like(people))
    chance = fitted.probability(query, people)
    assert float(chance[people % 2 == 1].min()) > 0.7
    assert float(chance[people % 2 == 0].max()) < 0.3


# --- Both directions ----------------------------------------------------------------------------------------


def both(
    name: str = "adamic_adar", rows: list[Row] = ROWS, *, num_candidates: int = 5
) -> tuple[Recommender, ReciprocalReranker]:
    graph = graph_of(rows, USERS)
    base = HEURISTICS[name]().fit(graph, until=UNTIL)
    answers = shared() if rows is ROWS else model(rows)
    return base, ReciprocalReranker(base, answers, num_candidates=num_candidates).join(graph, until=UNTIL)


def new_people(graph: FriendGraph, query: Query, row: int) -> list[int]:
    user, time = int(query.user[row]), int(query.time[row])
    met = {user}
    events = graph.events()
    columns = (column.tolist() for column in (events.src, events.dst, events.time))
    for one, other, moment in zip(*columns, strict=True):
        if moment < time and user in (one, other):
            met |= {one, other}
    return [person for person in range(USERS) if person not in met]


@pytest.mark.parametrize("num_candidates", [3, 100])
def test_only_new_people_change_places(num_candidates: int) -> None:
    base, model = both(num_candidates=num_candidates)
    query = queries(size=20)
    before, after = base.score(query), model.score(query)
    assert not torch.equal(before, after)
    for row in range(len(query)):
        new = new_people(model.graph, query, row)
        others = [person for person in range(USERS) if person not in new]
        assert torch.equal(before[row, others], after[row, others])
        assert set(after[row, new].tolist()) <= set(before[row, new].tolist())
        moved = (before[row] != after[row]).nonzero().flatten().tolist()
        assert len(moved) <= num_candidates
        if moved:
            best = before[row, new].sort(descending=True).values[:num_candidates].min()
            assert (before[row, moved] >= best).all()


def test_the_order_is_that_of_the_joined_score() -> None:
    base, model = both("ppr", num_candidates=100)
    model.weights = (0.7, 1.3)
    query = queries(size=12)
    people, joined, approach = model.ties(query, 4)
    listed, _ = model.recommend(query, 4, exclude=_known(model.graph, query))
    same = people == listed
    assert same.double().mean() > 0.9  # but for equal scores
    assert (joined[:, :-1] >= joined[:, 1:]).all()
    assert ((approach > 0) & (approach <= 1))[people >= 0].all()
    # One of them by hand: the ranks of both for each other, and the answer.
    row, column = 0, 0
    user, person = int(query.user[row]), int(people[row, column])
    time, events = query.time[row], model.graph.events().time
    renewed = int((events < time).sum())  # after each event, of so few
    ranks = []
    for one, other, moment in ((user, person, int(time)), (person, user, int(events[renewed - 1]) + 1)):
        asked = Query(torch.tensor([one]), torch.tensor([moment]), query.action[row : row + 1])
        scores = base.score(asked)[0]
        rivals = scores[new_people(model.graph, asked, 0)]
        ranks.append(float((rivals > scores[other]).sum() + ((rivals == scores[other]).sum() + 1) / 2))
    answer = model.reply_model.probability(query[row : row + 1], torch.tensor([person]))
    expected = ((ranks[0] ** -1.3 + ranks[1] ** -1.3) / 2) ** (1 / 1.3) * float(answer) ** 0.7
    assert float(joined[row, column]) == pytest.approx(expected)
    assert float(approach[row, column]) == pytest.approx(1 / ranks[0])


def _known(graph: FriendGraph, query: Query) -> tuple[torch.Tensor, torch.Tensor]:
    timeline = Timeline.of(graph)
    return timeline.contacts.before(query.user, timeline.tick(query.time))


def test_mean_ranks() -> None:
    scores = torch.tensor([[5.0, 1.0, 3.0, 3.0, 3.0], [0.0, 0.0, 2.0, -torch.inf, -torch.inf]])
    row = torch.tensor([0, 0, 0, 1, 1])
    own = torch.tensor([5.0, 3.0, 1.0, 2.0, 0.0])
    assert mean_ranks(scores.sort(dim=1).values, row, own).tolist() == [1, 3, 5, 1, 2.5]


def test_scores_are_dealt_out() -> None:
    scores = torch.tensor([[9.0, 7.0, 5.0, 3.0], [1.0, 2.0, 3.0, 4.0]])
    row, person = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([1, 2, 3, 0, 3])
    value = torch.tensor([0.1, 0.5, 0.5, 0.9, 0.2])
    assert redistribute_scores(scores, row, person, value).tolist() == [[9, 3, 7, 7], [4, 2, 3, 1]]


def test_ranks_among_candidates() -> None:
    row = torch.tensor([0, 0, 0, 2, 2])
    logs = torch.tensor([[3.0, 2.0, 1.0, 0.0, 1.0], [0.0, 2.0, 0.0, 9.0, 0.0], [0.0, 0.0, 9.0, 0.0, 0.0]])
    of = RatedCandidates(3, row, torch.arange(5), logs.double(), torch.tensor([1, 4]))
    assert of.rank(None).tolist() == [2, torch.inf, 1]
    assert of.rank((0.0, 1.0)).tolist() == [3, torch.inf, 1]
    assert of.rank((1.0, 0.5)).tolist() == [2, torch.inf, 2]
    assert of.ranks((9.0, 1.0)).tolist() == [3, 1, 2, 1, 2]


def test_validation_chooses_the_weights() -> None:
    rows = random_rows(8, users=USERS, events=200, times=60, scale=DAY)
    _, model = both(rows=rows, num_candidates=13)
    model.choose(start=UNTIL, end=UNTIL + 1)
    assert model.weights == (1.0, 0.5)  # nothing to choose from
    model.weights = (9.0, 9.0)
    model.choose(start=0, end=60 * DAY)
    assert model.weights == (9.0, 9.0)  # nobody was there at the start
    model.choose(start=1 * DAY, end=60 * DAY)
    assert model.weights in GRID


def test_both_are_kept(tmp_path: Path) -> None:
    _, model = both("ppr", num_candidates=4)
    model.weights = (0.5, 2.0)
    model.save(tmp_path)
    again = ReciprocalReranker.load(tmp_path, graph_of(ROWS, USERS))
    assert (again.name, again.weights, again.num_candidates) == ("ppr_both", (0.5, 2.0), 4)
    assert torch.equal(again.score(queries(size=20)), model.score(queries(size=20)))
    with pytest.raises(DataError, match="the graph has"):
        ReciprocalReranker.load(tmp_path, graph_of([Row(0, 1, 0), Row(1, 0, 1)]))
    kept = (tmp_path / "reranker.json").read_text()
    for damaged in ("reply_model/reply_model.pt", "recommender/heuristic.json", "reranker.json"):
        (tmp_path / damaged).write_bytes(b"{}")
        with pytest.raises(DataError, match="not a ReciprocalReranker as it was saved, or damaged"):
            ReciprocalReranker.load(tmp_path, graph_of(ROWS, USERS))
    content = json.loads(kept)
    content["members"]["recommender"] = "Mine"
    (tmp_path / "reranker.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="the model Mine is not known here; import its class first"):
        ReciprocalReranker.load(tmp_path, graph_of(ROWS, USERS))


def test_wrong_settings_are_named() -> None:
    base = HEURISTICS["ppr"]()
    with pytest.raises(ValueError, match="num_candidates must be at least 1, got 0"):
        ReciprocalReranker(base, ReplyModel(), num_candidates=0)
    with pytest.raises(ValueError, match="weights must be finite, a not negative and q positive"):
        ReciprocalReranker(base, ReplyModel(), weights=(1.0, 0.0))
    with pytest.raises(RuntimeError, match="adamic_adar_both has to be fitted first"):
        ReciprocalReranker(HEURISTICS["adamic_adar"](), ReplyModel()).score(queries())
