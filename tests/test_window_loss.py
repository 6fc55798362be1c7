"""Training on windows: which questions a batch asks, what they see, and lists that two models share."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recommenders import SMALL, list_ranker

from graphrec.data import FriendGraph, Query
from graphrec.evaluate import evaluate_lists
from graphrec.models import HEURISTICS, Clustered, GenerativeSTU, ListRanker, MixtureRecommender, TwoTower
from graphrec.models.mixture.encoder import QueryEncoder
from graphrec.models.windows.grid import TrainingWindows
from graphrec.models.windows.mixed import MIXTURE_WEIGHT, mix
from graphrec.tokenizer import ResidualKMeans
from tests.graphs import checked, graph_of, random_rows

USERS = 16
UNTIL = 160
ROWS = random_rows(11, users=USERS, events=900, times=200, actions=("text", "call"))
STUS = ResidualKMeans(dim=4, num_codebooks=2, codebook_size=4, unique=False)

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")


def sparse_rows(seed: int) -> FriendGraph:
    """Many people, so that initiations go on to the end."""
    return graph_of(random_rows(seed, users=60, events=900, times=200, actions=("text", "call")), 60)


def test_a_batch_asks_at_the_start_of_each_window(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = sparse_rows(1)
    model = TwoTower(targets="windows", **{**SMALL, "events_per_batch": 10**6, "max_queries": 10**6})
    loader = model.prepare(graph, until=UNTIL)
    asked: list[tuple[Query, torch.Tensor, torch.Tensor]] = []
    encode = QueryEncoder.encode

    def kept(self, query, timelines, position, question):  # type: ignore[no-untyped-def]
        before = torch.where(position >= 0, timelines.time[position.clamp(min=0)], -1)
        asked.append((query, before, question))
        return encode(self, query, timelines, position, question)

    monkeypatch.setattr(QueryEncoder, "encode", kept)
    for batch in loader:
        terms = model.losses(batch, 0)
        assert torch.isfinite(terms["loss"])
    windows = TrainingWindows.of(graph, UNTIL)
    found = []
    for query, before, question in asked:
        assert bool((before < query.time).all()), "a query sees only what is before its window"
        assert bool(torch.isin(query.time, windows.start).all())
        moment = torch.searchsorted(windows.start, query.time)
        found += list(zip(moment.tolist(), query.user.tolist(), question.tolist(), strict=True))
    keys = windows.outcomes.key
    size, replied = graph.num_users, windows.outcomes.replied
    expected = [(int(k) // size // size, int(k) // size % size, 0) for k in keys]
    expected += [(int(k) // size // size, int(k) // size % size, 1) for k in keys[replied]]
    assert sorted(found) == sorted(expected)
    assert len(expected) > 20


def test_later_events_are_no_targets() -> None:
    """What happens from the end of training on, and inside it after a window, decides nothing before."""
    graph = sparse_rows(2)
    cut = graph_of([row for row in rows_of(graph) if row[2] < UNTIL], 60)
    for one in (graph, cut):
        assert TrainingWindows.of(one, UNTIL).start.tolist() == TrainingWindows.of(cut, UNTIL).start.tolist()
        assert (
            TrainingWindows.of(one, UNTIL).outcomes.key.tolist()
            == TrainingWindows.of(cut, UNTIL).outcomes.key.tolist()
        )
    assert bool((TrainingWindows.of(graph, UNTIL).end <= UNTIL).all())


def rows_of(graph: FriendGraph) -> list[tuple[int, int, int, str]]:
    log = graph.events()
    names = graph.actions
    columns = (log.src.tolist(), log.dst.tolist(), log.time.tolist(), [names[a] for a in log.action.tolist()])
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("build", [TwoTower, GenerativeSTU, Clustered])
def test_every_head_learns_windows(build) -> None:  # type: ignore[no-untyped-def]
    more = {"tokenizer": STUS} if build is GenerativeSTU else {}
    graph = sparse_rows(3)
    model = build(targets="windows", **SMALL, **more).fit(graph, until=UNTIL)
    assert model.name.endswith("_windows")
    assert [set(row) >= {"val_all", "val_tie", "val_score"} for row in model.curve] == [True] * len(
        model.curve
    )
    query = Query.of(graph, torch.arange(8), UNTIL)
    ties, initiations = (model.score(query.within(5, outcome)) for outcome in ("tie", "initiation"))
    assert not torch.equal(ties, initiations), "the outcome is part of the question"
    torch.testing.assert_close(model.score(query), ties)
    torch.testing.assert_close(ties.logsumexp(1), torch.zeros(8), rtol=0, atol=1e-4)


def test_windows_of_validation_choose_the_epoch() -> None:
    graph = sparse_rows(4)
    windows = TrainingWindows.between(graph, 120, UNTIL)
    assert windows.start[0] == 120
    assert windows.end[-1] == UNTIL
    assert windows.start[1:].tolist() == windows.end[:-1].tolist()
    assert len(windows) == 4
    assert len(TrainingWindows.between(graph, 10_000, 10_001)) == 1  # nobody acts


@checked
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.floats(-30.0, -1e-3), st.floats(-40.0, 0.0)), min_size=1, max_size=12
    )
)
def test_mixing_keeps_the_sum_of_each_list(entries: list[tuple[int, float, float]]) -> None:
    row = torch.tensor([one[0] for one in entries])
    score, log_q = (torch.tensor([one[k] for one in entries], dtype=torch.float64) for k in (1, 2))
    found = mix(score, log_q, row, 3)
    for place, (own, log_p, q) in enumerate(entries):
        mates = [one for one in entries if one[0] == own]
        total = sum(math.exp(p) for _, p, _ in mates)
        moved = sum(math.exp(p + MIXTURE_WEIGHT * other) for _, p, other in mates)
        expected = min(0.0, log_p + MIXTURE_WEIGHT * q + math.log(total) - math.log(moved))
        assert float(found[place]) == pytest.approx(expected, abs=1e-6)


def test_only_a_mixture_of_windows_can_join_lists() -> None:
    with pytest.raises(ValueError, match="targets"):
        ListRanker(mixture=TwoTower(**SMALL))
    with pytest.raises(TypeError, match="mixture"):
        ListRanker(mixture=HEURISTICS["popularity"]())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="targets"):
        TwoTower(targets="days")  # type: ignore[arg-type]


def test_lists_of_two_models_have_the_candidates_of_one() -> None:
    graph = sparse_rows(5)
    alone = list_ranker().fit(graph, until=UNTIL)
    both = ListRanker(config=alone.config, mixture=TwoTower(targets="windows", **SMALL)).fit(
        graph, until=UNTIL
    )
    assert both.num_parameters > alone.num_parameters
    query = Query.of(graph, torch.arange(20), UNTIL).within(9, "tie")
    first, second = (model._candidates(query) for model in (alone, both))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[2], second[2])
    for row in range(20):
        mine = first[0] == row
        torch.testing.assert_close(first[2][mine].exp().sum(), second[2][mine].exp().sum())
    assert isinstance(both.mixture, MixtureRecommender)
    assert evaluate_lists(both, graph, progress=False, in_sample=True).k == 10
