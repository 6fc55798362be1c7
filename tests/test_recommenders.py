"""The contract of every recommender: shapes, batches, the strict past, names, lists of people."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import Row, graph_of, permuted, random_rows, rewritten, shuffled_in_ties
from kernels import OtherKernels
from recommenders import BY_CHANCE, RECOMMENDERS, ROUNDING, TOLERANCE
from torch import Tensor

from graphrec.data import DataError, EventLog, FriendGraph, Query
from graphrec.models import Recommender, query_for, recommender, suggest
from graphrec.temporal import Timeline

DAY = 86_400
USERS = 14
"""Two more than have events."""

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

UNTIL = 20 * DAY
ROWS = random_rows(3, users=12, events=90, times=30, scale=DAY)
NEW_ID = np.random.default_rng(5).permutation(USERS)


def fitted(name: str, rows: list[Row] = ROWS) -> Recommender:
    return RECOMMENDERS[name]().fit(graph_of(rows, USERS), until=UNTIL)


@cache
def shared(name: str) -> Recommender:
    """Fitted on the rows as they are; not to be changed."""
    return fitted(name)


@pytest.fixture(params=RECOMMENDERS, scope="module")  # all tests of one model follow each other
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def queries(seed: int = 0, *, size: int = 9, low: int = UNTIL, high: int = 32 * DAY) -> Query:
    """Unsorted, with repeated users, times on and between events, and one question asked twice."""
    generator = torch.Generator().manual_seed(seed)
    user = torch.randint(USERS, (size,), generator=generator)
    time = torch.randint(low // DAY, high // DAY, (size,), generator=generator) * DAY
    time += torch.randint(0, 2, (size,), generator=generator)
    action = torch.randint(3, (size,), generator=generator)
    rows = torch.arange(size)
    rows[-1] = 0
    return Query(user, time, action)[rows]


def assert_same(name: str, one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=TOLERANCE.get(name, 1e-12), atol=TOLERANCE.get(name, 1e-12))


def assert_rounded(name: str, one: Tensor, other: Tensor) -> None:
    """The same up to the order in which sums are added up."""
    torch.testing.assert_close(one, other, rtol=ROUNDING[name], atol=ROUNDING[name])


def assert_same_lists(name: str, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    """The same users [B, k] by the same scores [B, k]; people of equal scores may stand in another order."""
    assert_rounded(name, one[1], other[1])
    for users, scores, others, expected in zip(*one, *other, strict=True):
        known = dict(zip(others.tolist(), expected.tolist(), strict=True))
        # Who is on one list alone is as good as the last of the other: a tie that ends at k.
        wanted = [known.get(user, float(expected[-1])) for user in users.tolist()]
        assert_rounded(name, scores, torch.tensor(wanted, dtype=scores.dtype))


# Scores


def test_scores_are_finite_one_for_each_user(name: str) -> None:
    asked = queries()
    assert (asked.time.diff() < 0).any()
    scores = shared(name).score(asked)
    assert scores.shape == (len(asked), USERS)
    assert scores.is_floating_point()
    assert torch.isfinite(scores).all()
    assert len(scores.unique()) > 2
    assert shared(name).score(asked[:0]).shape == (0, USERS)


def test_candidates_are_columns(name: str) -> None:
    asked = queries()
    whole = shared(name).score(asked)
    few = torch.tensor([5, 0, 13, 5])
    assert_same(name, shared(name).score(asked, few), whole[:, few])
    each = torch.randint(USERS, (len(asked), 3), generator=torch.Generator().manual_seed(1))
    found = shared(name).score(asked, each)
    naive = [[whole[b, each[b, c]] for c in range(3)] for b in range(len(asked))]
    assert_same(name, found, torch.tensor(naive, dtype=found.dtype))


def test_pairs_are_scored_as_everyone_is(name: str) -> None:
    asked, generator = queries(size=12), torch.Generator().manual_seed(2)
    row = torch.randint(12, (60,), generator=generator)
    user = torch.randint(USERS, (60,), generator=generator)
    found = shared(name).score_pairs(asked, row, user)
    assert_same(name, found, shared(name).score(asked)[row, user])
    assert len(shared(name).score_pairs(asked, row[:0], user[:0])) == 0
    with pytest.raises(IndexError, match="row 12"):
        shared(name).score_pairs(asked, torch.tensor([12]), user[:1])
    with pytest.raises(IndexError, match="user index 14"):
        shared(name).score_pairs(asked, row[:1], torch.tensor([USERS]))


def test_a_batch_equals_its_queries(name: str) -> None:
    asked = queries(size=12)
    single = torch.cat([shared(name).score(asked[b : b + 1]) for b in range(len(asked))])
    assert_same(name, shared(name).score(asked), single)


def test_one_seed_one_result(name: str) -> None:
    asked = queries()
    assert torch.equal(fitted(name).score(asked), shared(name).score(asked))
    assert torch.equal(shared(name).score(asked), shared(name).score(asked))


# The strict past


def assert_blind(name: str, model: Recommender, same: Recommender, time: int) -> None:
    """Two recommenders whose graphs differ from a time (s) on answer alike at that time."""
    asked = Query(torch.arange(USERS), torch.full((USERS,), time), torch.arange(USERS) % 3)
    assert_blind_for(name, model, same, asked)
    if model.default_horizon is not None:
        assert_blind_for(name, model, same, asked.within(3 * DAY, "tie"))


def assert_blind_for(name: str, model: Recommender, same: Recommender, asked: Query) -> None:
    assert_rounded(name, model.score(asked), same.score(asked))
    row, user = torch.arange(USERS).repeat_interleave(USERS), torch.arange(USERS).repeat(USERS)
    assert_rounded(name, model.score_pairs(asked, row, user), same.score_pairs(asked, row, user))
    assert_same_lists(name, model.recommend(asked, 5), same.recommend(asked, 5))


def another_future(day: int) -> list[Row]:
    """Every event from a day on is another one; those at its first second included."""
    assert any(row.time == day * DAY for row in ROWS)
    other = rewritten(ROWS, day * DAY, num_users=USERS, seed=day)
    assert [r for r in other if r.time < day * DAY] == [r for r in ROWS if r.time < day * DAY]
    return other


@pytest.mark.parametrize(("day", "anew"), [(20, True), (21, False), (25, True), (29, False)])
def test_the_future_changes_no_score(name: str, day: int, anew: bool) -> None:
    """Neither in a fit nor in what a fitted recommender says; with other kernels, neither."""
    rows = another_future(day)
    model = fitted(name, rows) if anew else shared(name).on(graph_of(rows, USERS))
    assert_blind(name, model, shared(name), day * DAY)
    if not anew:
        with OtherKernels():
            assert_blind(name, model, shared(name), day * DAY)


def test_a_planted_leak_is_larger_than_rounding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that reads `<=` for `<` fails the test above, within the tolerance that it allows."""
    if name in BY_CHANCE:
        return
    model, tick = shared(name).on(graph_of(another_future(25), USERS)), Timeline.tick
    monkeypatch.setattr(Timeline, "tick", lambda self, time: tick(self, time + 1))
    with pytest.raises(AssertionError, match="not close"):
        assert_blind(name, model, shared(name), 25 * DAY)


def test_the_past_changes_scores(name: str) -> None:
    """So that the first test above can fail: by more than it allows."""
    if name in BY_CHANCE:
        return
    time = 25 * DAY
    asked = Query(torch.arange(USERS), torch.full((USERS,), time + 1), torch.arange(USERS) % 3)
    other = rewritten(ROWS, time, num_users=USERS, seed=0)
    with pytest.raises(AssertionError, match="not close"):
        assert_rounded(name, fitted(name, other).score(asked), shared(name).score(asked))


def test_unseen_users_have_one_score(name: str) -> None:
    if name in BY_CHANCE:
        return
    late = [row for row in ROWS if not {3, 8} & {row.src, row.dst} or row.time >= 25 * DAY]
    assert {3, 8} <= {end for row in late for end in (row.src, row.dst)}
    asked = queries(high=25 * DAY + 1)
    assert int(asked.time.max()) <= 25 * DAY
    scores = fitted(name, late).score(asked)
    for row, user in enumerate(asked.user.tolist()):
        unseen = [v for v in (3, 8, 12, 13) if v != user]
        assert_rounded(name, scores[row, unseen], scores[row, unseen[:1]].expand(len(unseen)))
    assert float(scores.max() - scores.min()) > 1000 * ROUNDING[name]


# Names and ties


def test_new_names_permute_the_scores(name: str) -> None:
    if name in BY_CHANCE:
        return
    asked, renamed = queries(size=20), torch.from_numpy(NEW_ID)
    other = fitted(name, permuted(ROWS, NEW_ID.tolist()))
    scores = other.score(Query(renamed[asked.user], asked.time, asked.action))
    assert_same(name, scores[:, renamed], shared(name).score(asked))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_tied_rows_changes_no_score(name: str, seed: int) -> None:
    shuffled = shuffled_in_ties(ROWS, seed)
    assert shuffled != ROWS
    asked = queries(size=20)
    assert_same(name, fitted(name, shuffled).score(asked), shared(name).score(asked))


# Lists of people


@pytest.mark.parametrize("k", [1, 5, USERS + 3])
@pytest.mark.parametrize("chunk", [None, 3 * USERS])
def test_recommend_gives_the_best_allowed(
    name: str, k: int, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chunk is not None:
        monkeypatch.setattr(recommender, "MAX_SCORES", chunk)
    asked = queries(size=8)
    exclude = torch.tensor([0, 0, 0, 4, 7, 7]), torch.tensor([1, 2, 2, 9, 0, int(asked.user[7])])
    users, values = shared(name).recommend(asked, k, exclude=exclude)
    assert users.shape == values.shape == (8, k)
    assert users.dtype == torch.int64
    scores = shared(name).score(asked).double()
    for row in range(8):
        gone = {int(asked.user[row])} | {
            v for b, v in zip(*map(Tensor.tolist, exclude), strict=True) if b == row
        }
        allowed = [v for v in range(USERS) if v not in gone]
        size = min(k, len(allowed))
        people = users[row, :size].tolist()
        assert len(set(people)) == size
        assert set(people) <= set(allowed)
        assert_same(name, values[row, :size], scores[row, allowed].sort(descending=True).values[:size])
        assert_same(name, values[row, :size], scores[row, people])
        assert (users[row, size:] == -1).all()
        assert (values[row, size:] == -torch.inf).all()


def test_ties_are_not_broken_by_index() -> None:
    """Nobody is known yet: neither the first nor the last of the file may come first."""
    graph = graph_of([Row(0, 1, 0), Row(1, 0, 10 * DAY)], 400)
    asked = Query(torch.tensor([5]), torch.tensor([0]), torch.tensor([0]))
    people = RECOMMENDERS["popularity"]().fit(graph, until=DAY).recommend(asked, 40)[0][0]
    assert not torch.equal(people, people.sort().values)
    assert 120 < people.double().mean() < 280


def test_a_longer_list_begins_with_the_shorter(name: str) -> None:
    asked = queries(size=20)
    longest = shared(name).recommend(asked, USERS)
    for k in range(1, USERS):
        assert_same_lists(name, shared(name).recommend(asked, k), (longest[0][:, :k], longest[1][:, :k]))


# Kept, and elsewhere


def test_what_is_loaded_says_what_was_saved(name: str, tmp_path: Path) -> None:
    model = shared(name)
    model.save(tmp_path)
    again = type(model).load(tmp_path, model.graph)
    assert torch.equal(again.score(queries()), model.score(queries()))


def test_elsewhere_it_knows_what_happened_there(name: str) -> None:
    """On its own graph it says the same; on the past alone, what the past says."""
    model, late = shared(name), 32 * DAY
    asked = Query(torch.arange(USERS), torch.full((USERS,), late), torch.zeros(USERS, dtype=torch.int64))
    assert torch.equal(model.on(model.graph).score(asked), model.score(asked))
    past = model.on(model.graph.snapshot(25 * DAY))
    assert past.graph.num_events < model.graph.num_events
    early = queries(high=25 * DAY)
    assert_same(name, past.score(early), model.score(early))


@pytest.mark.parametrize("name", ["two_tower_mixture", "stu"])
def test_whoever_is_gone_is_gone(name: str) -> None:
    model = shared(name)
    fewer = model.graph.without(torch.tensor([3]))
    moved = model.on(fewer)
    assert moved.graph.num_users == USERS - 1
    asked = Query.of(fewer, torch.arange(USERS - 1), 32 * DAY)
    assert torch.isfinite(moved.score(asked)).all()
    assert moved.num_parameters < model.num_parameters or name == "stu"
    assert model.graph.num_users == USERS


@pytest.mark.parametrize("name", ["two_tower_mixture", "stu"])
def test_what_is_damaged_is_not_loaded(name: str, tmp_path: Path) -> None:
    model = shared(name)
    model.save(tmp_path)
    (tmp_path / "model.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:-100])
    with pytest.raises(DataError, match="as it was saved, or damaged"):
        type(model).load(tmp_path, model.graph)
    model.save(tmp_path)
    other = graph_of([row._replace(action="wave") for row in ROWS], USERS)
    with pytest.raises(DataError, match="it knows the actions"):
        type(model).load(tmp_path, other)


# What is refused


def test_an_unfitted_one_says_so(name: str) -> None:
    unfitted = RECOMMENDERS[name]()
    asked = queries(size=2)
    for call in (
        lambda: unfitted.score(asked),
        lambda: unfitted.score_all(asked),
        lambda: unfitted.recommend(asked, 3),
        lambda: unfitted.graph,
        lambda: suggest(unfitted, [1]),
    ):
        with pytest.raises(RuntimeError, match=f"{unfitted.name}.*fit"):
            call()


def test_nothing_to_fit_on(name: str) -> None:
    with pytest.raises(ValueError, match=f"{RECOMMENDERS[name]().name}.*until"):
        RECOMMENDERS[name]().fit(graph_of(ROWS), until=min(row.time for row in ROWS))


@pytest.mark.parametrize("k", [0, -1])
def test_no_list_of_nobody(name: str, k: int) -> None:
    with pytest.raises(ValueError, match="k must be at least 1"):
        shared(name).recommend(queries(), k)


@pytest.mark.parametrize(("field", "value"), [("user", USERS), ("user", -1), ("action", 3), ("action", -1)])
def test_questions_outside_the_graph(name: str, field: str, value: int) -> None:
    parts = {key: torch.tensor([0, 1]) for key in ("user", "time", "action")}
    parts[field][1] = value
    for call in (shared(name).score, lambda query: shared(name).recommend(query, 3)):
        with pytest.raises(IndexError, match=f"{field} .*{value}"):
            call(Query(**parts))


@pytest.mark.parametrize("value", [USERS, -1])
def test_candidates_outside_the_graph(name: str, value: int) -> None:
    with pytest.raises(IndexError, match=f"candidate.*{value}"):
        shared(name).score(queries(), torch.tensor([0, value]))


@pytest.mark.parametrize(("row", "user"), [(9, 0), (-1, 0), (0, USERS), (0, -1)])
def test_exclusions_outside_the_graph(name: str, row: int, user: int) -> None:
    with pytest.raises(IndexError, match="exclude"):
        shared(name).recommend(queries(size=9), 3, exclude=(torch.tensor([0, row]), torch.tensor([0, user])))


# Suggestions to people


def village() -> FriendGraph:
    """Ann knows Bob and Cem knows Ann, from before; at the last moment Dia writes to Ann. Eve knows Fay."""
    rows = [("ann", "bob", 1), ("cem", "ann", 2), ("eve", "fay", 3), ("bob", "eve", 4), ("dia", "ann", 5)]
    return FriendGraph.from_events(EventLog.from_arrays(*zip(*rows, strict=True)))


@pytest.fixture(scope="module")
def neighbour(name: str) -> Recommender:
    """Not to be changed."""
    return RECOMMENDERS[name]().fit(village(), until=6)


def test_suggest_leaves_out_the_known(neighbour: Recommender) -> None:
    ann, fay = suggest(neighbour, ["ann", "fay"])
    assert (ann.user, fay.user) == ("ann", "fay")
    assert set(ann.people) == {"eve", "fay"}
    assert set(fay.people) == {"ann", "bob", "cem", "dia"}
    assert len(ann.people) == len(ann.scores) == 2
    assert ann.scores == sorted(ann.scores, reverse=True)
    everyone = set(suggest(neighbour, ["ann"], include_known=True)[0].people)
    assert everyone == {"bob", "cem", "dia", "eve", "fay"}
    assert len(suggest(neighbour, ["ann"], k=1)[0].people) == 1
    assert suggest(neighbour, []) == []


def test_suggest_sees_what_is_strictly_older(neighbour: Recommender) -> None:
    assert set(suggest(neighbour, ["ann"], time=5)[0].people) == {"dia", "eve", "fay"}
    assert set(suggest(neighbour, ["ann"], time=6)[0].people) == {"eve", "fay"}


def test_suggest_keeps_the_blocked_apart(neighbour: Recommender) -> None:
    for pair in (("ann", "eve"), ("eve", "ann")):
        ann, eve, fay = suggest(neighbour, ["ann", "eve", "fay"], blocked=iter([pair, ("bob", "cem")]))
        assert set(ann.people) == {"fay"}
        assert set(eve.people) == {"cem", "dia"}
        assert "ann" in fay.people
    ann = suggest(neighbour, ["ann"], blocked=[("ann", "bob")], include_known=True)[0]
    assert set(ann.people) == {"cem", "dia", "eve", "fay"}


def test_suggest_to_indices(neighbour: Recommender) -> None:
    index = neighbour.graph.user_ids.index(["fay", "ann"])
    assert suggest(neighbour, index) == suggest(neighbour, ["fay", "ann"])


def test_suggest_names_the_unknown(neighbour: Recommender) -> None:
    with pytest.raises(KeyError, match="'zoe'"):
        suggest(neighbour, ["ann", "zoe"])
    with pytest.raises(KeyError, match="'zoe'"):
        suggest(neighbour, ["ann"], blocked=[("ann", "zoe")])
    with pytest.raises(KeyError, match="'wave'"):
        suggest(neighbour, ["ann"], action="wave")
    with pytest.raises(ValueError, match="k must be"):
        suggest(neighbour, ["ann"], k=0)


def test_suggestions_are_the_recommended(neighbour: Recommender) -> None:
    graph = neighbour.graph
    asked = query_for(neighbour, ["bob"])
    row, met = Timeline.of(graph).contacts.before(asked.user, Timeline.of(graph).tick(asked.time))
    users, scores = neighbour.recommend(asked, 2, exclude=(row, met))
    found = suggest(neighbour, ["bob"], k=2)[0]
    assert found.people == graph.user_ids.lookup(users[0])
    assert found.scores == scores[0].tolist()


@pytest.mark.parametrize("k", [1, 3, 9])
def test_predict_top_k_gives_the_best_of_the_given(name: str, k: int) -> None:
    asked = queries(size=6)
    given = torch.stack(
        [torch.randperm(USERS, generator=torch.Generator().manual_seed(i))[:7] for i in range(6)]
    )
    scores = shared(name).score(asked)
    users, values = shared(name).predict_top_k(asked, given, k)
    assert users.shape == values.shape == (6, k)
    for row in range(6):
        allowed = [v for v in given[row].tolist() if v != int(asked.user[row])]
        size = min(k, len(allowed))
        people = users[row, :size].tolist()
        assert len(set(people)) == size
        assert set(people) <= set(allowed)
        assert_same(
            name, values[row, :size], scores[row, allowed].double().sort(descending=True).values[:size]
        )
        assert (users[row, size:] == -1).all()
        assert (values[row, size:] == -torch.inf).all()
    everyone = torch.arange(USERS)
    given = shared(name).recommend(asked, k)
    for people in (everyone, everyone.flip(0)):
        assert_same_lists(name, shared(name).predict_top_k(asked, people, k), given)


def test_predict_top_k_of_nobody_and_no_places(name: str) -> None:
    users, _ = shared(name).predict_top_k(queries(size=2), torch.zeros(0, dtype=torch.int64), 2)
    assert users.tolist() == [[-1, -1], [-1, -1]]
    with pytest.raises(ValueError, match="k must be at least 1"):
        shared(name).predict_top_k(queries(size=2), torch.arange(3), 0)
