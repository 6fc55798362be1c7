"""Trials of explanations: a score without some events, from an index that has lost them."""

from __future__ import annotations

import gc
from functools import cache, partial
from threading import Thread
from typing import Any

import pytest
import torch
from graphs import Row, graph_of, planted_rows, rewritten
from recommenders import RECOMMENDERS, SMALL

from graphrec.data import FriendGraph, Query
from graphrec.explain import explain, trials
from graphrec.explain.trials import Trials
from graphrec.models import Clustered, GenerativeSTU, Hybrid, Recommender, TwoTower
from graphrec.temporal import Timeline
from graphrec.tokenizer import ResidualKMeans

HOUR = 3600
UNTIL = 500 * HOUR
COMPONENTS = ("pointer", "paths", "union")

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")


def rows() -> list[Row]:
    """Whoever acts does so in training, so that all have STUs; every time keeps an event of two others."""
    out = planted_rows(0, events=700)
    others = [Row(32, 33, time) for time in sorted({row.time for row in out})]
    return sorted([*out, *others], key=lambda row: row.time)


NO_SPECTRAL: dict[str, Any] = {"components": COMPONENTS, **SMALL}
STU = partial(
    GenerativeSTU,
    features=("presence", "prefix_groups"),
    tokenizer=ResidualKMeans(dim=4, num_codebooks=2, codebook_size=8),
    **NO_SPECTRAL,
)
EXACT = {
    "two_tower without spectral": partial(TwoTower, features=("presence",), **NO_SPECTRAL),
    "stu without spectral": STU,
    "clustered without spectral": partial(Clustered, features=("presence",), **NO_SPECTRAL),
    "nearest": RECOMMENDERS["nearest"],
    "hybrid without spectral": lambda: Hybrid(STU(), [RECOMMENDERS["adamic_adar"]()]),
}
"""Recommenders in which nothing is renewed at regular moments but the STUs of newcomers."""


BUILDERS = {**RECOMMENDERS, **EXACT, "stu": partial(STU, features=("presence", "spectral", "prefix_groups"))}


@cache
def fitted(name: str) -> Recommender:
    return BUILDERS[name]().fit(graph_of(rows()), until=UNTIL)


def some_events(graph: FriendGraph, user: int, time: int, size: int, seed: int) -> torch.Tensor:
    """Events of a user before a time, but for the first of both people, so that nobody comes later."""
    events = graph.events()
    appearance = torch.stack([events.src, events.dst], dim=1).flatten()
    first = torch.full((graph.num_users,), len(events)).scatter_reduce_(
        0, appearance, torch.arange(2 * len(events)) // 2, "amin"
    )
    mine = (((events.src == user) | (events.dst == user)) & (events.time < time)).nonzero().squeeze(1)
    later = (first[events.src[mine]] < mine) & (first[events.dst[mine]] < mine)
    mine = mine[later]
    return mine[torch.randperm(len(mine), generator=torch.Generator().manual_seed(seed))[:size]]


@pytest.mark.parametrize(
    "name",
    [
        *EXACT,
        "adamic_adar",
        "decayed_adamic_adar",
        "ppr",
        "recent_popularity",
        "new_popularity",
        "last_seen",
        "jaccard",
    ],
)
def test_a_trial_scores_as_the_recommender_on_a_graph_without_the_events(name: str) -> None:
    model = fitted(name)
    graph = model.graph
    last = int(graph.events().time[-1])
    for seed, (user, candidate, size) in enumerate([(0, 1, 1), (3, 9, 9), (20, 21, 60), (8, 30, 9)]):
        time = last + 1 if seed % 2 else last - 30 * HOUR
        query = Query.of(graph, torch.tensor([user]), time)
        found = Trials(model, query, torch.tensor(candidate))
        events = some_events(graph, user if seed < 2 else candidate, time, size, seed)
        kept = torch.ones(graph.num_events, dtype=torch.bool).index_fill_(0, events, False)
        naive = float(model.on(graph.select_events(kept)).score(query, torch.tensor([candidate])))
        assert model.reading(Timeline.of(graph), torch.tensor([user])) is not None
        assert found.score_without(events) == pytest.approx(naive, rel=1e-5)
        assert found.score_without(events) == found.score_without(events)
        assert found.score == Trials(model, query, torch.tensor(candidate)).score
        if name.startswith(("two_tower", "stu")):
            assert found.score_without(events) != found.score


@pytest.mark.parametrize("name", ["stu", "two_tower_mixture", "adamic_adar"])
def test_the_future_changes_no_explanation(name: str) -> None:
    """Events at the very time of the question are others, and later ones."""
    time = 560 * HOUR
    answers = []
    for log in (rows(), rewritten(rows(), time, num_users=34, seed=1)):
        model = fitted(name).on(graph_of(log, 34))
        answers.append([explain(model, 0, v, time) for v in (1, 5, 9)])
    for one, other in zip(*answers, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-5)
        assert [vars(a).keys() for a in one.evidence] == [vars(b).keys() for b in other.evidence]
        assert [a.event_ids for a in one.evidence] == [b.event_ids for b in other.evidence]
        effects = ([piece.effect for piece in found.evidence] for found in (one, other))
        assert next(effects) == pytest.approx(next(effects), rel=1e-3)
    assert any(answer.evidence for answer in answers[0])


def test_an_explanation_indexes_nothing_and_embeds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted("stu")
    first = explain(model, 0, 1, UNTIL + 9)
    assert first.evidence

    def fail(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr("graphrec.temporal.timeline.build_index", fail)
    monkeypatch.setattr("graphrec.temporal.affinity.Affinity.of", fail)
    monkeypatch.setattr(type(model), "on", fail)
    monkeypatch.setattr("graphrec.temporal.timeline.grow", fail)  # nor is the index copied again
    assert explain(model, 0, 1, UNTIL + 9) == first


def test_explanations_at_once_leave_the_index_alone_and_do_not_mix() -> None:
    model = fitted("adamic_adar")
    timeline = Timeline.of(model.graph)
    pairs = [(user, other) for user in range(6) for other in range(8, 11)]
    alone = [explain(model, *pair, UNTIL) for pair in pairs]
    found: dict[int, list[object]] = {}

    def work(number: int) -> None:
        found[number] = [explain(model, *pair, UNTIL) for pair in pairs]

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] == alone for number in range(4))
    assert not len(timeline.removed)
    assert Timeline.of(model.graph) is timeline
    assert 1 <= len(trials._SPARE[timeline]) <= 4


def test_a_copy_that_was_outgrown_is_not_used_again() -> None:
    model = fitted("last_seen")
    timeline = Timeline(model.graph)
    index = trials._take_copy(timeline)
    trials._SPARE[timeline] = [(timeline.events, index)]
    assert trials._take_copy(timeline) is index
    trials._SPARE[timeline] = [(timeline.events, index)]
    timeline.append(type(timeline.events)(*(column[-1:] for column in vars(timeline.events).values())))
    fresh = trials._take_copy(timeline)
    assert fresh is not index
    assert len(fresh.events) == len(timeline.events)
    number = len(trials._SPARE)
    del timeline
    gc.collect()
    assert len(trials._SPARE) < number


def test_a_recommender_of_your_own_is_put_on_other_graphs() -> None:
    class Mine(type(RECOMMENDERS["adamic_adar"]())):  # type: ignore[misc]
        name = "mine"

    model = Mine().fit(graph_of(rows()), until=UNTIL)
    query = Query.of(model.graph, torch.tensor([0]), UNTIL)
    assert model.reading(Timeline.of(model.graph), torch.tensor([0])) is None
    one, other = (Trials(m, query, torch.tensor(9)) for m in (model, fitted("adamic_adar")))
    events = some_events(model.graph, 9, UNTIL, 20, 0)
    assert one.score_without(events) == pytest.approx(other.score_without(events), rel=1e-12)
