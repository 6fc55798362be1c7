"""Scores of the children of prefixes, computed once a node and time, are those of the network in training."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from graphs import Row, graph_of, planted_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.data import Query, TemporalSplit
from graphrec.models import GenerativeSTU, MixtureRecommender
from graphrec.models.heads.codes.head import BoundCodeHead
from graphrec.models.heads.codes.prefix_scorer import Children, Prefixes, PrefixScorer
from graphrec.models.heads.layer_kernel import add_layer_scores
from graphrec.tokenizer import ResidualKMeans

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

USERS = 32
SPECTRAL: dict[str, tuple[str, ...]] = {
    "spectral": ("presence", "spectral", "prefix_groups"),
    "none": ("presence",),
}


def fitted(features: tuple[str, ...], rows: list[Row]) -> MixtureRecommender[BoundCodeHead]:
    graph = graph_of(rows, USERS + 1)
    model = GenerativeSTU(
        embedding_dim=8,
        hidden_channels=8,
        window=8,
        max_epochs=1,
        progress=False,
        tokenizer=ResidualKMeans(dim=4),
        features=features,  # type: ignore[arg-type]
    ).fit(graph, until=TemporalSplit.of(graph).t_val)
    scores = model.head.decoder.prefix_scores
    assert scores is not None
    with torch.no_grad():  # after an epoch they are still nearly zero
        for number, score in enumerate(scores):
            generator = torch.Generator().manual_seed(number)
            score.score.weight.normal_(generator=generator)
            score.score.bias.normal_(generator=generator)
    return model


def descend(scorer: PrefixScorer, level: int) -> Children:
    """The children of all prefixes of a level, for all queries."""
    forest = scorer.history.forest
    row = torch.arange(len(scorer.encoded))
    node = forest.root[scorer.number]
    prefixes = Prefixes(row, node, torch.empty(len(row), 0, dtype=torch.int64), None)
    for _ in range(level):
        prefixes = scorer.step(prefixes).prefixes(prefixes, forest)
    return scorer.step(prefixes)


@pytest.mark.parametrize("kind", SPECTRAL)
@pytest.mark.parametrize("level", range(3))
def test_scores_without_gradients_are_those_with_them(kind: str, level: int) -> None:
    model = fitted(SPECTRAL[kind], planted_rows(1, events=300))
    graph = model.graph
    last = int(graph.events().time[-1])
    user = torch.tensor([0, 5, 9, 3, USERS, 0])
    time = torch.tensor([last + 1, last + 1, last + 1, last + 900, last + 1, last - 1])
    query = Query(user, time, torch.zeros_like(user))
    with torch.no_grad():
        encoded = model.encode_query(query)
        found = descend(model.head.prefix_scorer(encoded), level)
    with torch.enable_grad():
        wanted = descend(model.head.prefix_scorer(encoded), level)
    assert torch.equal(found.child, wanted.child)
    assert wanted.log_p.requires_grad
    torch.testing.assert_close(found.log_p, wanted.log_p.detach(), atol=2e-5, rtol=1e-5)
    assert found.log_p.std() > 0.1


def test_events_at_the_time_of_a_query_and_later_change_no_score() -> None:
    rows = planted_rows(1, events=300)
    model = fitted(SPECTRAL["spectral"], rows)
    now = rows[-1].time + 10
    query = Query(torch.arange(6), torch.full((6,), now), torch.zeros(6, dtype=torch.int64))
    late = [Row(0, 7, now), Row(7, 1, now), Row(2, 7, now + 1), Row(9, 7, now + 5)]
    later = copy.copy(model).on(graph_of([*rows, *late], USERS + 1))
    for mine, other in zip(model.recommend(query, 8), later.recommend(query, 8), strict=True):
        assert torch.equal(mine, other)
    seen = later.recommend(Query(query.user, query.time + 1, query.action), 8)[1]
    assert not torch.equal(seen, model.recommend(query, 8)[1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(1, 5))
def test_the_kernel_adds_a_hidden_layer(seed: int, dim: int, hidden: int) -> None:
    draw = np.random.default_rng(seed)
    size = draw.integers(0, 4, 5)  # children of five distinct prefixes, of which seven are asked for
    chosen, row = draw.integers(0, 5, 7), draw.integers(0, 3, 7)
    first, count = (size.cumsum() - size)[chosen], size[chosen]

    def normal(*shape: int) -> np.ndarray:
        return draw.normal(size=shape).astype(np.float32)

    node_hidden, node_vector = normal(hidden, size.sum()), normal(dim, size.sum())
    query_hidden, query_vector = normal(3, hidden), normal(3, dim)
    cosine_weight, weight, out = normal(hidden), normal(hidden), normal(count.sum())
    wanted = out.copy()
    place = 0
    for at, number, b in zip(first, count, row, strict=True):
        for node in range(at, at + number):
            cosine = query_vector[b] @ node_vector[:, node]
            layer = node_hidden[:, node] + query_hidden[b] + cosine_weight * cosine
            wanted[place] += weight @ np.maximum(layer, 0.0)
            place += 1
    start = count.cumsum() - count
    add_layer_scores(
        first,
        start,
        count,
        row,
        node_hidden,
        node_vector,
        query_hidden,
        query_vector,
        cosine_weight,
        weight,
        out,
    )
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-4)
