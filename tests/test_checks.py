"""What is given is of the right kind, range and size, or one line says what is wrong before any work."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graphs import checked, graph_of, random_rows
from hypothesis import given
from hypothesis import strategies as st
from recommenders import BARE, RECOMMENDERS, SMALL
from torch import Tensor

from graphrec.data import FriendGraph, Query, TemporalSplit
from graphrec.data.checks import MAX_TIME, check_index, check_number
from graphrec.decode import PrefixTree, beam_search, sample
from graphrec.evaluate import (
    EvaluationError,
    evaluate_mutual,
    evaluate_snapshot,
    evaluate_streaming,
    rank_events,
)
from graphrec.loader import EventLoader, QueryLoader
from graphrec.models import (
    HEURISTICS,
    Clustered,
    GenerativeSTU,
    Hybrid,
    MixtureRecommender,
    Nearest,
    Recommender,
    ReplyModel,
    TwoTower,
    suggest,
    suggested,
)
from graphrec.nn import EventEmbedding, HistoryEncoder, PooledHistory, ResidualQuantizer
from graphrec.retrieval import ApproximateIndex, ExactIndex, Index
from graphrec.temporal import NeighborhoodConfig
from graphrec.tokenizer import GNNRQVAE, RandomCodes, ResidualKMeans

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

DAY = 86_400
USERS = 14
UNTIL = 20 * DAY
GRAPH = graph_of(random_rows(3, users=12, events=90, times=30, scale=DAY), USERS)
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
BEYOND = "beyond the year 9999.*milliseconds"


@cache
def model(name: str = "adamic_adar") -> Recommender:
    return RECOMMENDERS[name]().fit(GRAPH, until=UNTIL)


SEARCHES = ["adamic_adar", "two_tower_switched", "stu_switched", "clustered_switched", "nearest"]
COMPOSED = ["adamic_adar", "two_tower_switched", "stu_switched", "nearest", "last_seen_both", "stu_hybrid"]
TRAINED = ["adamic_adar", "two_tower_mixture", "stu", "clustered", "nearest", "last_seen_both", "stu_hybrid"]


def asked(size: int = 5, time: int = 25 * DAY) -> Query:
    return Query.of(GRAPH, torch.arange(size), time)


# Indices


def oracle(vectors: Tensor, queries: Tensor, k: int, pairs: set[tuple[int, int]], nobody: set[int]) -> Tensor:
    """Who is found, by going through everyone."""
    rows = []
    for row, query in enumerate(queries):
        left = [u for u in range(len(vectors)) if (row, u) not in pairs and u not in nobody]
        left.sort(key=lambda u, query=query: -float(vectors[u] @ query))
        rows.append((left + [-1] * k)[:k])
    return torch.tensor(rows)


@checked
@given(st.data())
def test_exclusions_of_any_integer_type_are_kept(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([*INTEGERS, torch.float32, torch.bool]), label="dtype")
    size, k = data.draw(st.integers(1, 100)), data.draw(st.integers(1, 12))
    number = data.draw(st.integers(0, 30))
    values = st.integers(-2, 110) if data.draw(st.booleans()) else st.integers(0, max(0, size - 1))
    row = [
        data.draw(st.integers(-1, 4) if data.draw(st.booleans()) else st.integers(0, 2))
        for _ in range(number)
    ]
    user = [data.draw(values) for _ in range(number)]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9)))
    vectors, queries = (torch.randn(n, 3, generator=generator) for n in (size, 3))
    exclude = tuple(torch.tensor(part).to(kind) for part in (row, user))
    index = ExactIndex().build(vectors)
    if kind in (torch.float32, torch.bool):
        with pytest.raises(TypeError, match="exclude: row must be a tensor of integers"):
            index.search(queries, k, exclude)  # type: ignore[arg-type]
        return
    as_given = [part.tolist() for part in exclude]  # -1 is 255 as uint8
    outside = any(not 0 <= r < 3 for r in as_given[0]) or any(not 0 <= u < size for u in as_given[1])
    if outside:
        with pytest.raises(IndexError, match=r"exclude: (row|user) -?\d+ lies outside 0\.\.\d+"):
            index.search(queries, k, exclude)  # type: ignore[arg-type]
        return
    found = index.search(queries, k, exclude)[0]  # type: ignore[arg-type]
    pairs = set(zip(*as_given, strict=True))
    assert torch.equal(found, oracle(vectors, queries, k, pairs, set()))


@checked
@given(st.data())
def test_an_index_is_checked_as_a_naive_loop_would(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(INTEGERS))
    bounds = torch.iinfo(kind)
    values = data.draw(st.lists(st.integers(max(bounds.min, -300), min(bounds.max, 300)), max_size=8))
    size, shape = data.draw(st.integers(0, 300)), data.draw(st.sampled_from([(), (2,), (1,)]))
    tensor = torch.tensor(values, dtype=kind)
    for length in shape:
        tensor = tensor.expand(length, *tensor.shape)
    if shape:
        with pytest.raises(ValueError, match=r"who must be \[n\], got"):
            check_index("who", tensor, size)
    elif all(0 <= value < size for value in values):
        found = check_index("who", tensor, size)
        assert (found.dtype, found.tolist()) == (torch.int64, values)
    else:
        with pytest.raises(IndexError, match=r"who -?[0-9]+ lies"):
            check_index("who", tensor, size)


@pytest.mark.parametrize(
    "index", [ExactIndex(), ApproximateIndex(num_cells=9, num_probes=2)], ids=["exact", "approximate"]
)
def test_nobody_excluded_comes_back_where_small_integers_would_overflow(index: Index) -> None:
    generator = torch.Generator().manual_seed(0)
    index.build(torch.randn(400, 8, generator=generator))
    queries = torch.randn(400, 8, generator=generator)
    row, user = torch.arange(400).repeat_interleave(400), torch.arange(400).repeat(400)
    for kind in (torch.int16, torch.int32, torch.int64):
        assert (index.search(queries, 5, (row.to(kind), user.to(kind)))[0] == -1).all()
    gone = torch.arange(0, 400, 2, dtype=torch.int16)
    found = index.search(queries, 150, (torch.arange(400), torch.ones(400).long()), gone)[0]
    assert not torch.isin(found, torch.tensor([-1, 1, *gone.tolist()])).any()
    one_by_one = index.search(queries, 150, (row[user % 2 == 0], user[user % 2 == 0]))[0]
    assert torch.equal(index.search(queries, 150, None, gone)[0].sort().values, one_by_one.sort().values)


WRONG_INDICES: dict[str, tuple[Any, type[Exception], str]] = {
    "a list": ([1, 2], TypeError, "must be a tensor of integers"),
    "floats": (torch.tensor([1.0]), TypeError, "torch.float32"),
    "a mask": (torch.ones(USERS, dtype=torch.bool), TypeError, "torch.bool"),
    "two dimensions": (torch.zeros(2, 2, 2, dtype=torch.int64), ValueError, r"must be \["),
    "below": (torch.tensor([-1]), IndexError, "-1 lies outside 0..13"),
    "above": (torch.tensor([USERS], dtype=torch.int16), IndexError, "14 lies outside 0..13"),
}


@pytest.mark.parametrize("wrong", WRONG_INDICES)
@pytest.mark.parametrize("name", SEARCHES)
def test_every_door_of_a_recommender_refuses_wrong_indices(name: str, wrong: str) -> None:
    value, error, words = WRONG_INDICES[wrong]
    query, zero = asked(), torch.zeros(1, dtype=torch.int64)
    doors: list[Callable[[], Any]] = [
        lambda: model(name).score(query, value),
        lambda: model(name).predict_top_k(query, value, 2),
        lambda: model(name).score_pairs(query, zero, value),
        lambda: model(name).recommend(query, 2, (zero, value)),
        lambda: model(name).recommend(query, 2, None, value),
        lambda: suggested(
            model(name), query, 2, blocked=torch.empty(2, 0, dtype=torch.int64), opted_out=value
        ),
    ]
    for door in doors:
        with pytest.raises(error, match=words):
            door()
    for pair in ((zero, zero.repeat(2)), (zero[:0], zero)):
        with pytest.raises(ValueError, match=r"each row needs one user"):
            model(name).recommend(query, 2, pair)
        with pytest.raises(ValueError, match=r"user index must be \[\d\], got \[\d\]"):
            model(name).score_pairs(query, *pair)
    with pytest.raises(TypeError, match="pair"):
        model(name).recommend(query, 2, zero)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", INTEGERS, ids=str)
@pytest.mark.parametrize(
    "name", ["adamic_adar", "stu_switched", "clustered_switched", "nearest", "stu_hybrid"]
)
def test_exclusions_hold_whatever_their_integer_type(name: str, kind: torch.dtype) -> None:
    query = asked()
    row, user = torch.arange(5).repeat_interleave(4), torch.tensor([5, 6, 7, 8]).repeat(5)
    plain = model(name).recommend(query, 9, (row, user))
    for given_ in ((row.to(kind), user.to(kind)), (row.flip(0).to(kind), user.flip(0).to(kind))):
        found = model(name).recommend(query, 9, given_)
        assert torch.equal(found[0], plain[0])
    for_all = model(name).recommend(query, 9, None, torch.tensor([8, 5, 7, 6, 5]).to(kind))
    assert torch.equal(for_all[0], plain[0])
    assert not torch.isin(for_all[0], torch.tensor([5, 6, 7, 8])).any()


def test_candidates_may_be_none_or_twice() -> None:
    query = asked()
    none = torch.empty(0, dtype=torch.int64)
    assert model().score(query, none).shape == (5, 0)
    assert (model().predict_top_k(query, none, 3)[0] == -1).all()
    people = model().predict_top_k(query, torch.tensor([7, 8, 7, 7], dtype=torch.int8), 3)[0]
    assert people.sort().values.tolist() == [[-1, 7, 8]] * 5
    assert model().recommend(query[:0], 3)[0].shape == (0, 3)
    assert model().score_pairs(query[:0], none, none).shape == (0,)


def test_a_search_down_the_tree_excludes_users_of_all_queries() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(3, (40, 3), generator=generator)
    tree = PrefixTree(codes, 3)
    tables = torch.randn(3, 6, 3, generator=generator)

    def scorer(beam: Any, state: Any) -> tuple[Tensor, Any]:
        return tables[beam.codes.size(1)][beam.row], state

    for gone, width in itertools.product((range(0, 40, 2), range(30), range(40)), (1, 4, 60)):
        nobody = torch.tensor(gone, dtype=torch.int32)
        row, user = torch.arange(6).repeat_interleave(len(nobody)), nobody.long().repeat(6)
        more = torch.arange(6), torch.full((6,), 35)
        for extra in ((row[:0], user[:0]), more):
            pairs = torch.cat([row, extra[0]]), torch.cat([user, extra[1]])
            expected = beam_search(scorer, tree, 6, 12, beam_size=width, exclude=pairs)
            found = beam_search(scorer, tree, 6, 12, beam_size=width, exclude=extra, exclude_users=nobody)
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_opted_out_people_cost_no_pairs_for_each_query() -> None:
    """A hundred thousand of them and 2,048 queries: 200 million pairs before, 3.3 GB."""
    users = 100_100
    rows = [(u, (u + 1) % 50, 100 + u) for u in range(100)]
    graph = graph_of(rows, users)
    fitted = HEURISTICS["popularity"]().fit(graph, until=250)
    query = Query.of(graph, torch.arange(20).repeat(3))
    opted_out = torch.arange(100, users)
    tracemalloc.start()
    nobody = torch.empty(2, 0, dtype=torch.int64)
    seen: list[Any] = []
    original = type(fitted).recommend

    def noting(self: Any, *args: Any, **more: Any) -> Any:
        seen.append(more)
        return original(self, *args, **more)

    type(fitted).recommend = noting  # type: ignore[method-assign]
    try:
        people, _ = suggested(fitted, query, 5, blocked=nobody, opted_out=opted_out)
    finally:
        del type(fitted).recommend
        tracemalloc.stop()
    assert torch.isin(people, torch.arange(100)).all()
    (more,) = seen
    assert len(more["exclude"][0]) < 1000  # contacts alone
    assert len(more["exclude_users"]) == len(opted_out)


# Lists


@pytest.mark.parametrize("k", [0, -1, 10_001, 10**9, 10**11, 10**30, 2.5, 3.0, True, "3", None, float("nan")])
def test_a_list_has_a_length(k: Any) -> None:
    error = ValueError if isinstance(k, int) and not isinstance(k, bool) else TypeError
    query, tree = asked(), PrefixTree(torch.zeros(USERS, 2, dtype=torch.int64), 4)
    generator = torch.Generator().manual_seed(0)

    def flat(beam: Any, state: Any) -> tuple[Tensor, Any]:
        return torch.zeros(len(beam.row), 4), state

    doors: list[Callable[[], Any]] = [
        *(lambda name=name: model(name).recommend(query, k) for name in ("ppr", "nearest", "stu_switched")),
        lambda: model("clustered_switched").recommend(query, k),
        lambda: model("stu_hybrid").recommend(query, k),
        lambda: model().predict_top_k(query, torch.arange(USERS), k),
        lambda: ExactIndex().build(torch.randn(USERS, 2)).search(torch.randn(2, 2), k),
        lambda: ApproximateIndex().build(torch.randn(USERS, 2)).search(torch.randn(2, 2), k),
        lambda: beam_search(flat, tree, 2, k),
        lambda: sample(flat, tree, 2, k, generator=generator),
    ]
    for door in doors:
        with pytest.raises(error, match=r"^k must be"):
            door()


@pytest.mark.parametrize("k", [np.int64(3), torch.tensor(3), np.uint8(3)])
def test_whole_numbers_of_any_kind_are_lengths(k: Any) -> None:
    assert model().recommend(asked(), k)[0].shape == (5, 3)


def test_suggestions_are_as_many_as_there_are() -> None:
    (given_,) = suggest(model(), [0], k=10**9, include_known=True)
    assert len(given_.people) == USERS - 1
    blocked = torch.empty(2, 0, dtype=torch.int64)
    people, _ = suggested(model(), asked(), 10**11, blocked=blocked, opted_out=blocked[0])
    assert people.shape == (5, USERS)


# Times


@pytest.mark.parametrize(
    ("until", "error", "words"),
    [
        (float("nan"), TypeError, "until must be in whole seconds, got nan"),
        (1.5e6, TypeError, "until must be in whole seconds"),
        (True, TypeError, "until must be in whole seconds, got True"),
        ("2024-01-01", TypeError, "until must be in whole seconds"),
        (torch.tensor(1.5), TypeError, "until must be in whole seconds"),
        (1_700_000_000_000, ValueError, BEYOND),
        (-(2**63), ValueError, BEYOND),
        (10**30, ValueError, BEYOND),
        (-5 * DAY, ValueError, "no event before until="),
    ],
)
def test_until_is_in_seconds(until: Any, error: type[Exception], words: str) -> None:
    fits: list[Callable[[], Any]] = [
        *(lambda name=name: RECOMMENDERS[name]().fit(GRAPH, until=until) for name in RECOMMENDERS),
        lambda: ReplyModel(progress=False).fit(GRAPH, until=until),
        lambda: ResidualKMeans().fit(GRAPH, until=until),
        lambda: GNNRQVAE().fit(GRAPH, until=until),
        lambda: RandomCodes().fit(GRAPH, until=until),
    ]
    for fit in fits:
        with pytest.raises(error, match=words if "no event" not in words else "before until="):
            fit()


@pytest.mark.parametrize("until", [np.int64(UNTIL), torch.tensor(UNTIL), np.int32(UNTIL)])
def test_until_may_be_a_whole_number_of_any_kind(until: Any) -> None:
    fitted = HEURISTICS["recent_popularity"]().fit(GRAPH, until=until)
    assert torch.equal(fitted.score(asked()), model("recent_popularity").score(asked()))
    assert fitted.fitted_until == UNTIL
    assert type(fitted.fitted_until) is int


@pytest.mark.parametrize("end", [UNTIL, UNTIL - 1, 0, float("nan"), 1_700_000_000_000])
def test_validation_ends_after_it_begins(end: Any) -> None:
    for build in (lambda: TwoTower(**SMALL), lambda: Nearest(TwoTower(**BARE, **SMALL)), ReplyModel):
        with pytest.raises((ValueError, TypeError), match="validate_until"):
            build().fit(GRAPH, until=UNTIL, validate_until=end)


@pytest.mark.parametrize("time", [-(2**63), 2**63 - 1, MAX_TIME + 1, -MAX_TIME - 1])
def test_queries_have_a_time_of_this_age(time: int) -> None:
    query = Query(*(torch.tensor([value]) for value in (0, time, 0)))
    for name in (
        "recent_popularity",
        "adamic_adar",
        "two_tower_switched",
        "stu_switched",
        "clustered_switched",
    ):
        for door in (model(name).score, lambda query, name=name: model(name).recommend(query, 2)):
            with pytest.raises(ValueError, match=BEYOND):
                door(query)
    with pytest.raises(ValueError, match=BEYOND):
        QueryLoader(GRAPH, query, [3])
    with pytest.raises(ValueError, match=BEYOND):
        Query.of(GRAPH, [0], time)


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_scores_are_finite_at_the_ends_of_time(name: str) -> None:
    for time in (-MAX_TIME, MAX_TIME):
        assert torch.isfinite(model(name).score(asked(time=time))).all()


def test_a_time_of_a_query_is_a_whole_number() -> None:
    for time in (1.5, True, float("nan"), "now", torch.tensor(1.5), torch.tensor(True)):
        with pytest.raises(TypeError, match="seconds"):
            Query.of(GRAPH, [0], time)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=BEYOND):
        Query.of(GRAPH, [0], 10**30)
    with pytest.raises(ValueError, match="one for all"):
        Query.of(GRAPH, [0, 1], torch.tensor([1, 2, 3]))
    with pytest.raises(TypeError, match="tensors"):
        Query([0], [1], [0])  # type: ignore[arg-type]


# Loaders


def test_loaders_take_only_seeds_that_there_are() -> None:
    def query(user: int = 0, action: int = 0) -> Query:
        return Query(*(torch.tensor([value]) for value in (user, 25 * DAY, action)))

    zero = torch.zeros(1, dtype=torch.int64)
    for user in (-1, USERS, 10**9):
        with pytest.raises(IndexError, match="user index"):
            QueryLoader(GRAPH, query(user), [3])
        with pytest.raises(IndexError, match="user index"):
            EventLoader(GRAPH, query(user), zero, [3])
        with pytest.raises(IndexError, match="target"):
            EventLoader(GRAPH, query(), torch.tensor([user]), [3])
    for action in (-1, 3, 9):
        with pytest.raises(IndexError, match="action index"):
            QueryLoader(GRAPH, query(action=action), [3])
    for ids in (torch.tensor([-1]), torch.tensor([GRAPH.num_events])):
        with pytest.raises(IndexError, match="event_ids"):
            EventLoader.of_events(GRAPH, [3], event_ids=ids)
        with pytest.raises(IndexError, match="event_ids"):
            Query.of_events(GRAPH, ids)
    with pytest.raises(ValueError, match="actions must hold at least one of call, poke, text"):
        QueryLoader(GRAPH, query(), [3], actions=[])
    with pytest.raises(TypeError, match="actions must be several names"):
        QueryLoader(GRAPH, query(), [3], actions="call")
    with pytest.raises(ValueError, match="more than once"):
        QueryLoader(GRAPH, query(), [3], actions=["call", "call"])
    for hops in (3, [2.5], [0], [-2], "3", [True]):
        with pytest.raises((TypeError, ValueError), match="num_neighbors"):
            QueryLoader(GRAPH, query(), hops)  # type: ignore[arg-type]
    for number in (-1, 1.5, 10**9):
        with pytest.raises((TypeError, ValueError), match="num_negatives"):
            QueryLoader(GRAPH, query(), [3], num_negatives=number)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed must be at most"):
        QueryLoader(GRAPH, query(), [3], seed=2**64)


# Hyperparameters

NAN, INF = float("nan"), float("inf")
COUNTS = (0, -1, 2.5, NAN, True, "8", None, 10**12)
WRONG: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("embedding_dim", "hidden_channels", "num_layers", "num_heads", "window"), COUNTS),
    **dict.fromkeys(("events_per_batch", "max_queries", "epoch_batches", "max_epochs", "patience"), COUNTS),
    "num_heads ": (3,),
    "dropout": (-0.1, 1.0, 2, NAN, "0.1", None),
    "history_loss_weight": (-1.0, NAN, INF, "1"),
    "seed": (2**63, 2**64, -(2**63) - 1, 1.5, NAN, None),
    "progress": (1, None, "yes"),
    "neighborhood": ({}, 3),
    "folder": (3,),
    "history": ("rnn", 3, None),
}
MORE: dict[str, tuple[Callable[..., Any], dict[str, tuple[Any, ...]]]] = {
    "TwoTower": (
        TwoTower,
        {**WRONG, "num_rand_negs": (-1, 2.5, NAN), "in_batch": (1,), "components": ("paths",)},
    ),
    "GenerativeSTU": (GenerativeSTU, {**WRONG, "beam_size": COUNTS, "decoder": ("rnn",), "tokenizer": (3,)}),
    "Clustered": (
        Clustered,
        {
            **WRONG,
            "num_clusters": (0, -1, 2.5, NAN, 10**9),
            "probe_fraction": (-1, 1.1, NAN, "1"),
            "start": (1,),
        },
    ),
    "ReplyModel": (
        ReplyModel,
        {
            **dict.fromkeys(
                ("reply_window", "hidden_channels", "batch_size", "max_epochs", "patience"), COUNTS
            ),
            "dropout": (1.0, NAN),
            "seed": (2**64,),
        },
    ),
    "ResidualKMeans": (
        ResidualKMeans,
        {
            "dim": (0, 2.5, NAN, 10**9),
            "num_codebooks": (0, 2.5, 63, 40),
            "codebook_size": (0, -1, 2.5, 10**9),
            "seed": (2**64, 1.5),
            "unique": (1,),
        },
    ),
    "GNNRQVAE": (
        GNNRQVAE,
        {
            **dict.fromkeys(("dim", "epoch_batches", "batch_size", "max_epochs"), (0, -1, 2.5, NAN)),
            "num_neighbors": ((), (0,), (2.5,), 3),
            "lr": (0.0, -1.0, NAN, INF, "1"),
        },
    ),
    "PPR": (HEURISTICS["ppr"], {"restart": (0, 1, NAN, "x"), "num_steps": (-1, 2.5, NAN, 10**9)}),
    "NeighborhoodConfig": (
        NeighborhoodConfig,
        {"max_contacts": (0, 2.5, NAN), "max_bridges": (-1, 1.5), "max_recent": (0,)},
    ),
    "ApproximateIndex": (ApproximateIndex, {"num_cells": (0, 2.5, NAN), "num_probes": (0, True)}),
    "HistoryEncoder": (
        lambda **more: HistoryEncoder(EventEmbedding(2, 4, 8), **more),
        {"num_heads": (0, 3, 2.5), "window": (0, -1), "num_layers": (0,), "dropout": (1.0, NAN)},
    ),
    "EventEmbedding": (
        lambda **more: EventEmbedding(**({"num_kinds": 2, "in_channels": 4, "hidden_channels": 8} | more)),
        {"num_kinds": (0, 1.5), "in_channels": (0, NAN), "hidden_channels": (-1, True)},
    ),
    "PooledHistory": (
        lambda **more: PooledHistory(EventEmbedding(2, 4, 8), **more),
        {"num_heads": (0, 3), "window": (0,)},
    ),
    "ResidualQuantizer": (
        lambda **more: ResidualQuantizer(**({"dim": 3, "codebook_size": 4} | more)),
        {"dim": (0, 2.5), "codebook_size": (0, NAN), "decay": (NAN, 1.0, -1), "gradient": ("none",)},
    ),
}


def cases() -> Iterator[tuple[str, str, Any]]:
    for kind, (_, arguments) in MORE.items():
        for name, values in arguments.items():
            yield from ((kind, name, value) for value in values)


@pytest.mark.parametrize(("kind", "name", "value"), list(cases()))
def test_hyperparameters_are_checked_where_they_are_given(kind: str, name: str, value: Any) -> None:
    name = name.strip()
    words = "channels|num_heads" if name == "num_heads" else name
    words = "codebooks" if name == "num_codebooks" else words
    with pytest.raises((TypeError, ValueError), match=words):
        MORE[kind][0](**{name: value})


def test_whole_numbers_of_numpy_are_hyperparameters() -> None:
    built = TwoTower(embedding_dim=np.int64(8), dropout=np.float32(0.5), seed=np.int64(3))  # type: ignore[arg-type]
    assert built.config.encoder.embedding_dim == 8
    for value, low in itertools.product((1, np.float64(2.0), torch.tensor(3.0)), (0.0, 1.0)):
        assert check_number("x", value, minimum=low) == float(value)


def test_parts_of_a_model_are_of_its_kind() -> None:
    rule = HEURISTICS["ppr"]()
    for build in (
        lambda: Hybrid(rule, [3]),  # type: ignore[list-item]
        lambda: Hybrid("ppr", [rule]),  # type: ignore[arg-type]
        lambda: Nearest(rule),  # type: ignore[arg-type]
        lambda: Nearest(index="exact"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=r"must be|made of"):
            build()
    for value in ("graph", None, 3):
        with pytest.raises(TypeError, match="graph must be a FriendGraph"):
            rule.fit(value, until=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_before_a_fit_it_says_so(name: str, tmp_path: Path) -> None:
    fresh = RECOMMENDERS[name]()
    for call in (
        lambda: fresh.score(asked()),
        lambda: fresh.recommend(asked(), 3),
        lambda: fresh.predict_top_k(asked(), torch.arange(3), 2),
        lambda: fresh.score_pairs(asked(), torch.arange(3), torch.arange(3)),
        lambda: suggest(fresh, [0]),
        lambda: fresh.save(tmp_path / "new"),
        lambda: fresh.on(GRAPH),
    ):
        with pytest.raises(RuntimeError, match=r"has to be fitted first: call fit\(graph, until=time\)"):
            call()


@pytest.mark.parametrize(
    "name", ["adamic_adar", "two_tower_switched", "stu_switched", "nearest", "last_seen_both", "stu_hybrid"]
)
def test_a_folder_may_be_text(name: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "new" / "folder")
    model(name).save(folder)
    again = type(model(name)).load(folder, GRAPH)
    torch.testing.assert_close(again.score(asked()), model(name).score(asked()))
    assert again.fitted_until == model(name).fitted_until == UNTIL


# Precision and compilation


@pytest.mark.parametrize(
    "name",
    ["adamic_adar", "two_tower_mixture", "stu", "clustered", "nearest", "last_seen_both", "stu_hybrid"],
)
def test_the_default_type_of_torch_changes_nothing(name: str) -> None:
    expected = model(name).score(asked()), model(name).recommend(asked(), 4)
    torch.set_default_dtype(torch.float64)
    try:
        fresh = RECOMMENDERS[name]().fit(GRAPH, until=UNTIL)
        for other in (fresh, model(name), fresh.on(GRAPH)):
            assert torch.equal(other.score(asked()), expected[0])
            assert torch.equal(other.recommend(asked(), 4)[1], expected[1][1])
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "build", [ResidualKMeans, lambda: GNNRQVAE(dim=4, epoch_batches=2, batch_size=32, max_epochs=1)]
)
def test_the_default_type_of_torch_changes_no_code(build: Callable[[], Any]) -> None:
    expected = build().fit(GRAPH, until=UNTIL).table.codes
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(build().fit(GRAPH, until=UNTIL).table.codes, expected)
    finally:
        torch.set_default_dtype(torch.float32)


class Compiled(torch.nn.Module):
    """A module as `torch.compile` wraps it: its parameters are named after `_orig_mod`."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self._orig_mod = module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_orig_mod"), name)


def test_a_compiled_network_is_saved_under_plain_names(tmp_path: Path) -> None:
    fitted = TwoTower(**SMALL).fit(GRAPH, until=UNTIL)
    expected = fitted.score(asked())
    fitted.network = Compiled(fitted.network)  # type: ignore[assignment]
    assert next(iter(fitted.network.state_dict())).startswith("_orig_mod.")
    fitted.save(tmp_path)
    assert torch.equal(MixtureRecommender.load(tmp_path, GRAPH).score(asked()), expected)
    assert torch.equal(fitted.on(GRAPH).score(asked()), expected)


# Scores


def test_a_score_that_is_not_finite_names_model_and_query() -> None:
    class Broken(HEURISTICS["popularity"]):  # type: ignore[misc]
        name = "broken"

        def _score_in_order(self, query: Query) -> Tensor:
            scores: Tensor = super()._score_in_order(query)
            scores[query.user == 3, 7] = torch.nan
            return scores

    broken = Broken().fit(GRAPH, until=UNTIL)
    words = rf"broken gave the score nan to user index 7 for user index 3 at time {25 * DAY}"
    for call in (
        lambda: broken.score(asked()),
        lambda: broken.recommend(asked(), 3),
        lambda: broken.predict_top_k(asked(), torch.tensor([1]), 1),
        lambda: broken.score_pairs(asked(), torch.tensor([0]), torch.tensor([0])),
    ):
        with pytest.raises(ValueError, match=words):
            call()


# Evaluation


@pytest.mark.parametrize("part", ["train", "all", "", None])
def test_an_unknown_part_is_refused(part: Any) -> None:
    split = TemporalSplit.of(GRAPH)
    for call in (
        lambda: evaluate_streaming(model(), GRAPH, part=part, progress=False),
        lambda: evaluate_mutual(model(), GRAPH, part=part, progress=False),
        lambda: evaluate_snapshot(model(), GRAPH, part=part, progress=False),
        lambda: split.window(part),
        lambda: split.event_ids(part),
    ):
        with pytest.raises(ValueError, match=r"unknown part .*; there are val, test"):
            call()


@pytest.mark.parametrize(
    "name", ["adamic_adar", "two_tower_switched", "nearest", "last_seen_both", "stu_hybrid"]
)
def test_a_model_is_not_judged_by_what_it_was_fitted_on(name: str) -> None:
    split = TemporalSplit.of(GRAPH)
    seen = RECOMMENDERS[name]().fit(GRAPH, until=split.end + 1)
    fair = RECOMMENDERS[name]().fit(GRAPH, until=split.t_test)
    judges: list[Callable[..., Any]] = [evaluate_streaming, evaluate_mutual, evaluate_snapshot]
    for judge in judges:
        with pytest.raises(EvaluationError, match=r"was fitted on events before \d+, .*in_sample=True"):
            judge(seen, GRAPH, progress=False)
        with pytest.raises(EvaluationError, match="was fitted on"):
            judge(fair, GRAPH, part="val", progress=False)
        judge(fair, GRAPH, progress=False)
        judge(seen, GRAPH, progress=False, in_sample=True)
    ids = split.event_ids("test")
    with pytest.raises(EvaluationError, match="was fitted on"):
        rank_events(seen.on(GRAPH), GRAPH, ids, part="test", trained_until=0, progress=False)


def test_events_to_be_judged_are_those_of_the_log() -> None:
    for ids, error in (
        (torch.tensor([-1]), IndexError),
        (torch.tensor([90]), IndexError),
        (torch.tensor([5, 4]), ValueError),
        (torch.tensor([1.0]), TypeError),
    ):
        with pytest.raises(error, match="event_id"):
            rank_events(model(), GRAPH, ids, part="test", trained_until=0, progress=False)


# The smallest graphs


@pytest.mark.parametrize("name", HEURISTICS)
def test_one_event_is_enough_for_a_rule(name: str) -> None:
    graph: FriendGraph = graph_of([(0, 1, 100)])
    rule = HEURISTICS[name]().fit(graph, until=101)
    assert torch.isfinite(rule.score(Query.of(graph, [0, 1]))).all()
    assert rule.recommend(Query.of(graph, [0, 1]), 3)[0].tolist() == [[1, -1, -1], [0, -1, -1]]
