"""Requests run in inference mode and leave no tensor behind that training could not use."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graphs import graph_of, planted_rows
from recommenders import SMALL
from torch import Tensor

from graphrec.data import EventLog, FriendGraph, Query, TemporalSplit
from graphrec.inference import lasting_tensors
from graphrec.models import (
    CLUSTERED_PRESETS,
    TWO_TOWER_PRESETS,
    Clustered,
    GenerativeSTU,
    MixtureRecommender,
    TwoTower,
)
from graphrec.retrieval import topk
from graphrec.tokenizer import ResidualKMeans

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

Model = MixtureRecommender[Any]
MODELS: dict[str, Callable[[], Model]] = {
    "stu": lambda: GenerativeSTU(tokenizer=ResidualKMeans(dim=4), **SMALL),  # type: ignore[arg-type]
    "two_tower": lambda: TwoTower(**TWO_TOWER_PRESETS["two_tower_mixture"], **SMALL),  # type: ignore[arg-type]
    "clusters": lambda: Clustered(num_clusters=4, **CLUSTERED_PRESETS["clustered"], **SMALL),  # type: ignore
}
ROWS = planted_rows(1, events=300)


def left_behind() -> list[Tensor]:
    return [x for x in gc.get_objects() if isinstance(x, Tensor) and x.is_inference()]


def asked(graph: FriendGraph) -> Query:
    user = torch.arange(4)
    return Query(user, torch.full_like(user, int(graph.events().time[-1]) + 1), torch.zeros_like(user))


def test_tensors_that_last_can_be_trained_with() -> None:
    weight = torch.ones(3, requires_grad=True)
    with torch.inference_mode():
        barred = torch.arange(3.0)
        with lasting_tensors():
            kept = torch.arange(3.0)
            assert not (weight * kept).requires_grad
        assert torch.is_inference_mode_enabled()
    (weight * kept).sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(weight.grad, kept)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):
        weight * barred


@pytest.mark.parametrize("name", MODELS)
def test_a_request_leaves_no_inference_tensor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(ROWS, 33)
    model = MODELS[name]().fit(graph, until=TemporalSplit.of(graph).t_val)
    modes, search = [], type(model.head).search

    def watched(*arguments: Any) -> Any:
        modes.append(torch.is_inference_mode_enabled())
        return search(*arguments)

    monkeypatch.setattr(type(model.head), "search", watched)
    last = int(graph.events().time[-1])
    action = [graph.actions[0]] * 2
    new = EventLog.from_arrays([1, 7], [7, 40], [last, last + 5], action=action)
    for is_grown in (False, True):
        if is_grown:
            model.append(new)
        else:
            model = model.on(graph_of(ROWS, 33))
        for cached in (topk.tie_order, topk.tie_shuffle, topk._shuffle_rank):
            cached.cache_clear()
        others = left_behind()  # of other tests
        listed = model.recommend(asked(model.graph), 5)
        assert {*map(id, left_behind())} <= {*map(id, others)}
        assert not any(x.is_inference() for x in listed)
    assert len(modes) > 1
    assert all(modes)
    model.fit(graph, until=TemporalSplit.of(graph).t_val)
