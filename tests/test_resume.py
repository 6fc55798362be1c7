"""Resumed fits are known by content: another graph, time or argument never gets a run's parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from graphs import random_rows
from torch import Tensor

from graphrec.data import USER, EventLog, FriendGraph, Query, UserTable
from graphrec.models import Clustered, GenerativeSTU, MixtureRecommender, TwoTower
from graphrec.tokenizer import GNNRQVAE, RandomCodes
from graphrec.train import ReplacedRunWarning

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

USERS, UNTIL, LATER = 12, 18, 22
SMALL: dict[str, Any] = {
    "embedding_dim": 8,
    "hidden_channels": 8,
    "num_layers": 1,
    "num_heads": 2,
    "max_epochs": 1,
    "epoch_batches": 1,
    "progress": False,
}
POINTER = {"components": ["pointer"], "features": []}
CODES = {"num_codebooks": 2, "codebook_size": 4}


def graph_with(seed: int = 0, age: float = 1.0) -> FriendGraph:
    src, dst, time, action = zip(*random_rows(seed, users=USERS, events=300), strict=True)
    people = pa.table({"user": list(range(USERS)), "age": [age * user for user in range(USERS)]})
    log = EventLog.from_arrays(src, dst, time, action=action)
    return FriendGraph.from_events(log, UserTable.from_table(people))


@cache
def graph_a() -> FriendGraph:
    return graph_with()


def two_tower(folder: Path | None, **changed: Any) -> MixtureRecommender:
    return TwoTower(folder=folder, **(POINTER | SMALL | changed))


def clustered(folder: Path | None, **changed: Any) -> MixtureRecommender:
    return Clustered(num_clusters=3, folder=folder, **(POINTER | SMALL | changed))


def stu(folder: Path | None, **changed: Any) -> MixtureRecommender:
    given = {"tokenizer": RandomCodes(**CODES, seed=3)} | POINTER | SMALL | changed
    return GenerativeSTU(folder=folder, **given)


def parameters(model: MixtureRecommender) -> dict[str, Tensor]:
    return dict(model.network.state_dict())


def alike(one: MixtureRecommender, other: MixtureRecommender) -> bool:
    ours, theirs = parameters(one), parameters(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


Build = Callable[..., MixtureRecommender]
Case = tuple[Build, dict[str, Any], dict[str, Any], str]

CASES: dict[str, Case] = {
    "graph": (two_tower, {"graph": lambda: graph_with(1)}, {}, "another graph"),
    "features": (two_tower, {"graph": lambda: graph_with(0, age=2.0)}, {}, "another graph"),
    "until": (two_tower, {"until": UNTIL - 2}, {}, f"until={UNTIL}, not {UNTIL - 2}"),
    "validate_until": (two_tower, {"validate_until": LATER + 1}, {}, "validate_until=22, not 23"),
    "seed": (two_tower, {}, {"seed": 1}, "seed=0, not 1"),
    "dropout": (two_tower, {}, {"dropout": 0.4}, "dropout=0.1, not 0.4"),
    "max_queries": (two_tower, {}, {"max_queries": 7}, "max_queries=64, not 7"),
    "weights": (two_tower, {}, {"history_loss_weight": 0.5}, "history_loss_weight=1.0, not 0.5"),
    "components": (two_tower, {}, {"components": ["pointer", "paths"]}, "another network"),
    "clusters": (clustered, {"graph": lambda: graph_with(1)}, {}, "another graph"),
    "cluster start": (clustered, {}, {"start": "scratch"}, "another start"),
    "first codes": (
        clustered,
        {},
        {"first_codes": RandomCodes(num_codebooks=1, codebook_size=3, unique=False)},
        "another first_codes",
    ),
    "codes": (stu, {"graph": lambda: graph_with(1)}, {}, "another codes and another graph"),
    "tokenizer": (stu, {}, {"tokenizer": RandomCodes(**CODES, seed=4)}, "another tokenizer"),
}


@pytest.mark.parametrize("case", CASES)
def test_another_fit_in_the_folder_starts_anew_and_says_so(case: str, tmp_path: Path) -> None:
    build, fit, changed, said = CASES[case]
    build(tmp_path).fit(graph_a(), until=UNTIL, validate_until=LATER)
    graph: FriendGraph = fit.get("graph", graph_a)()
    times = {"until": fit.get("until", UNTIL), "validate_until": fit.get("validate_until", LATER)}
    with pytest.warns(ReplacedRunWarning) as caught:
        second = build(tmp_path, **changed).fit(graph, **times)
    (message,) = [str(one.message) for one in caught if one.category is ReplacedRunWarning]
    assert said in message
    assert "\n" not in message
    fresh = build(None, **changed).fit(graph, **times)
    assert alike(second, fresh)
    assert second.curve == fresh.curve


@pytest.mark.parametrize("build", [two_tower, clustered, stu])
def test_the_same_fit_again_is_read_not_trained(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(tmp_path).fit(graph_a(), until=UNTIL, validate_until=LATER)

    def refused(*_: Any) -> Any:
        raise AssertionError("it trained again")

    monkeypatch.setattr(type(first), "losses", refused)
    # The graph is read anew, and arguments that change nothing of the training may differ.
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReplacedRunWarning)
        again = build(tmp_path).fit(graph_with(), until=UNTIL, validate_until=LATER)
    assert alike(first, again)
    query = Query(torch.tensor([0, 1]), torch.tensor([24, 24]), torch.tensor([0, 0]))
    assert torch.equal(first.score(query), again.score(query))


def test_what_searches_alone_need_not_be_trained_again(tmp_path: Path) -> None:
    clustered(tmp_path).fit(graph_a(), until=UNTIL, validate_until=LATER)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReplacedRunWarning)
        clustered(tmp_path, probe_fraction=0.5).fit(graph_a(), until=UNTIL, validate_until=LATER)


def test_an_attribute_set_after_construction_counts(tmp_path: Path) -> None:
    two_tower(tmp_path).fit(graph_a(), until=UNTIL, validate_until=LATER)
    model = two_tower(tmp_path)
    model.config = replace(model.config, train=replace(model.config.train, history_loss_weight=0.5))
    with pytest.warns(ReplacedRunWarning, match=r"history_loss_weight=1\.0, not 0\.5"):
        model.fit(graph_a(), until=UNTIL, validate_until=LATER)


def tokenizer(folder: Path | None, **changed: Any) -> GNNRQVAE:
    small = {"dim": 8, "max_epochs": 2, "epoch_batches": 2, "codebook_size": 4, "num_neighbors": (4,)}
    return GNNRQVAE(**(small | changed), unique=False, folder=folder)


def tie_graph(seed: int = 0, age: float = 1.0) -> FriendGraph:
    rows = random_rows(seed, users=40, events=900, times=200)
    src, dst, time, action = zip(*rows, strict=True)
    people = pa.table({"user": list(range(40)), "age": [age * user**2 for user in range(40)]})
    log = EventLog.from_arrays(src, dst, time, action=action)
    return FriendGraph.from_events(log, UserTable.from_table(people))


@pytest.mark.parametrize(
    ("graph", "changed", "said"),
    [
        (lambda: tie_graph(1), {}, "another graph"),
        (lambda: tie_graph(0, age=-1.0), {}, "another graph"),
        (tie_graph, {"seed": 1}, "seed=0, not 1"),
        (tie_graph, {"lr": 0.01}, "lr=0.006, not 0.01"),
        (tie_graph, {"balanced": False}, "balanced=True, not False"),
    ],
)
def test_another_tokenizer_in_the_folder_starts_anew(
    graph: Callable[[], FriendGraph], changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    first = tokenizer(tmp_path).fit(tie_graph(), until=190)
    assert first.curve, "there is something to resume"
    again = tokenizer(tmp_path).fit(tie_graph(), until=190)
    assert again.curve == first.curve
    with pytest.warns(ReplacedRunWarning, match=said):
        second = tokenizer(tmp_path, **changed).fit(graph(), until=190)
    fresh = tokenizer(None, **changed).fit(graph(), until=190)
    assert second.curve == fresh.curve
    assert torch.equal(second.table.codes, fresh.table.codes)


def test_features_reach_the_digest() -> None:
    """The case 'features' above has the same events and another `x` alone."""
    one, other = graph_a(), graph_with(0, age=2.0)
    assert torch.equal(one.events().src, other.events().src)
    assert not torch.equal(one[USER].x, other[USER].x)
