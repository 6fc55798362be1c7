"""The benchmark of distrust: its worlds, its measure against a loop, and one small run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.quality import distrust
from graphrec.data import FriendGraph
from graphrec.datasets import SyntheticFriends
from graphrec.evaluate import ListQuestions, SuggestionLists, judge_lists


@pytest.fixture
def world(tmp_path: Path) -> FriendGraph:
    return SyntheticFriends(300, 4000, root=tmp_path)[0]


def test_acts_on_some_users_are_mostly_distrust(world: FriendGraph) -> None:
    graph = distrust.distrustful(world, 1)
    assert str(graph.roles) == "distrust=negative"
    events, code = graph.events(), graph.actions.index("distrust")
    hostile = (events.action == code).double()
    received = torch.bincount(events.dst, minlength=graph.num_users)
    share = torch.bincount(events.dst, weights=hostile, minlength=graph.num_users) / received.clamp(min=1)
    some = received >= 20
    assert 0.1 < (share[some] > 0.5).double().mean() < 0.7
    assert share[some & (share <= 0.5)].mean() < 0.1
    kept = world.events().action == world.actions.index("friend_accept")
    assert (events.action == graph.actions.index("friend_accept")).sum() == kept.sum()


def test_places_that_lead_to_distrust_are_those_of_a_loop(world: FriendGraph) -> None:
    graph = distrust.distrustful(world, 1)
    questions = ListQuestions.of(graph)
    size, rng = len(questions), np.random.default_rng(0)
    person = np.stack([rng.permutation(graph.num_users)[:150] for _ in range(size)])
    row = torch.arange(size).repeat_interleave(150)
    lists = SuggestionLists(
        questions.query.user, row, torch.from_numpy(person.ravel()), torch.ones(len(row)).double()
    )
    result = judge_lists(lists, graph, questions, name="lists", k=150)
    values, recipient = distrust.negative_terms(result, graph)
    log, code = graph.events(), graph.actions.index("distrust")
    for place in range(size):
        moment, user = int(questions.moment[place]), int(questions.query.user[place])
        inside = (log.time >= questions.start[moment]) & (log.time < questions.end[moment])
        whom = log.dst[inside & (log.action == code) & (log.src == user)].tolist()
        assert values[place] == pytest.approx(sum(int(one) in whom for one in person[place]) / 150)
    assert torch.equal(torch.from_numpy(recipient), questions.query.user)
    assert (values > 0).sum() > 5


def test_a_small_run_writes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distrust, "SyntheticFriends", partial(SyntheticFriends, root=tmp_path))
    monkeypatch.setattr(distrust, "NUM_USERS", 300)
    monkeypatch.setattr(distrust, "NUM_EVENTS", 4000)
    file = tmp_path / "distrust.json"
    distrust.main(["--seeds", "0", "1", "--models", "popularity", "--out", str(file)])
    (table,) = json.loads(file.read_text())["tables"]
    assert [row[:2] for row in table["rows"]] == [
        ["popularity", "places that lead to distrust"],
        ["popularity", "initiation precision"],
        ["popularity", "tie precision"],
    ]
    known, ignored = (float(table["rows"][0][place]) for place in (2, 3))
    assert known < ignored
    with pytest.raises(SystemExit):
        distrust.main(["--models", "popularty"])
