"""The two-tower model: what its encoder may see, what its loss counts, and what it must learn."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from elsewhere import Elsewhere
from graphs import Row, graph_of, random_rows

from benchmarks.planted import NUM_USERS, judged, learner, round_robin, uniform
from graphrec.data import FriendGraph, Query, TemporalSplit
from graphrec.loader import QueryLoader
from graphrec.models import HEURISTICS, LEARNED, TwoTower
from graphrec.nn import HistoryEncoder, Standardize, Timelines, segment_logsumexp
from graphrec.sampler import Timeline

CHANNELS = 8


def timelines(lengths: list[int], *, ties: bool = True, seed: int = 0) -> Timelines:
    generator = torch.Generator().manual_seed(seed)
    row = torch.repeat_interleave(torch.tensor(lengths))
    size = row.numel()
    step = torch.randint(0 if ties else 1, 3, (size,), generator=generator)
    return Timelines(
        row=row,
        other=torch.randint(50, (size,), generator=generator),
        kind=torch.randint(4, (size,), generator=generator),
        time=step.cumsum(0),
        num_rows=len(lengths),
    )


def cut(acts: Timelines, rows: torch.Tensor) -> Timelines:
    return Timelines(acts.row[rows], acts.other[rows], acts.kind[rows], acts.time[rows], acts.num_rows)


@pytest.fixture
def encoder() -> HistoryEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return HistoryEncoder(4, CHANNELS, 16, num_layers=2, num_heads=2, window=5).eval()


@pytest.fixture
def table() -> torch.Tensor:
    return torch.randn(50, CHANNELS, generator=torch.Generator().manual_seed(2))


def test_an_act_sees_nothing_tied_or_later(encoder: HistoryEncoder, table: torch.Tensor) -> None:
    acts = timelines([17, 0, 3, 23])
    whole = encoder(acts, table[acts.other])
    for at in range(len(acts)):
        hidden = ((acts.row == acts.row[at]) & (acts.time >= acts.time[at])) | (acts.row != acts.row[at])
        hidden[at] = False
        other = acts.other.clone()
        other[hidden] = (other[hidden] + 7) % 50
        changed = Timelines(acts.row, other, acts.kind, acts.time, acts.num_rows)
        torch.testing.assert_close(encoder(changed, table[other])[at], whole[at])


def test_an_act_sees_its_window_across_blocks(encoder: HistoryEncoder, table: torch.Tensor) -> None:
    """With two layers of window 5, what lies up to 2 x 4 acts back matters, and nothing before."""
    acts = timelines([4, 23], ties=False)
    whole = encoder(acts, table[acts.other])
    for at in (10, 14, 15, 26):
        for back in range(1, 12):
            if at - back >= 4:
                other = acts.other.clone()
                other[at - back] = (other[at - back] + 7) % 50
                changed = encoder(Timelines(acts.row, other, acts.kind, acts.time, 2), table[other])
                assert torch.allclose(changed[at], whole[at], atol=1e-6) == (back > 8), (at, back)


def test_every_prefix_equals_the_truncated_history(encoder: HistoryEncoder, table: torch.Tensor) -> None:
    acts = timelines([17, 3, 23])
    whole = encoder(acts, table[acts.other])
    for at in range(len(acts)):
        rows = ((acts.row == acts.row[at]) & (torch.arange(len(acts)) <= at)).nonzero().squeeze(1)
        alone = encoder(cut(acts, rows), table[acts.other[rows]])
        torch.testing.assert_close(alone[-1], whole[at])


def test_the_order_of_acts_matters(encoder: HistoryEncoder, table: torch.Tensor) -> None:
    acts = timelines([6], ties=False)
    swapped = acts.other.clone()
    swapped[[1, 3]] = swapped[[3, 1]]
    assert int(acts.other[1]) != int(acts.other[3])
    one = encoder(acts, table[acts.other])[-1]
    other = encoder(Timelines(acts.row, swapped, acts.kind, acts.time, 1), table[swapped])[-1]
    assert not torch.allclose(one, other)


def test_no_history_at_all(encoder: HistoryEncoder, table: torch.Tensor) -> None:
    acts = timelines([0, 0])
    assert encoder(acts, table[acts.other]).shape == (0, 16)
    assert acts.before(torch.tensor([0, 1]), torch.tensor([5, 5])).tolist() == [-1, -1]


def test_before_is_strict() -> None:
    acts = Timelines(*(torch.tensor(x) for x in ([0, 0, 0, 2], [1, 1, 1, 1], [0, 0, 0, 0], [3, 5, 5, 4])), 3)
    row, time = torch.tensor([0, 0, 0, 0, 1, 2, 2]), torch.tensor([3, 4, 5, 6, 9, 4, 5])
    assert acts.before(row, time).tolist() == [-1, 0, 0, 2, -1, -1, 3]


def test_a_batch_holds_the_timelines_of_the_index() -> None:
    graph = graph_of(random_rows(4, users=9, events=120, times=200), 9)
    until = int(graph.events().time[90])
    batch = next(iter(QueryLoader.of_timelines(graph, until=until, batch_size=9)))
    ours = Timelines.of_batch(batch, graph.actions)
    timeline = Timeline.of(graph)
    tick = timeline.tick(torch.full((len(batch.seed_time),), until))
    theirs = Timelines.of_index(timeline, batch["user"].n_id[: len(tick)], tick, 10_000)
    acts = [
        sorted(zip(*(getattr(x, key).tolist() for key in ("row", "time", "other", "kind")), strict=True))
        for x in (ours, theirs)
    ]
    assert acts[0] == acts[1]
    assert len(acts[0]) > 50
    assert torch.equal(ours.time, theirs.time)


def test_segment_logsumexp_against_a_loop() -> None:
    logits = torch.randn(9, generator=torch.Generator().manual_seed(0)) * 30
    row = torch.tensor([0, 0, 3, 3, 3, 1, 1, 1, 1])
    out = segment_logsumexp(logits, row, 4)
    for number in (0, 1, 3):
        torch.testing.assert_close(out[number], logits[row == number].logsumexp(0))
    assert out[2] == -torch.inf


def test_standardize_learns_from_the_first_batches_only() -> None:
    layer = Standardize(2, num_batches=3)
    generator = torch.Generator().manual_seed(0)
    seen = [torch.randn(500, 2, generator=generator) * torch.tensor([3.0, 0.1]) + 5 for _ in range(3)]
    for batch in seen:
        layer(batch)
    frozen = layer.mean.clone()
    layer(torch.full((10, 2), 1e6))
    assert torch.equal(layer.mean, frozen)
    out = layer.eval()(torch.cat(seen))
    torch.testing.assert_close(out.mean(0), torch.zeros(2), atol=0.05, rtol=0)
    torch.testing.assert_close(out.std(0), torch.ones(2), atol=0.05, rtol=0)


def small(**kwargs: object) -> TwoTower:
    sizes = {"embedding_dim": 16, "hidden_channels": 16, "window": 16, "progress": False}
    return TwoTower(**(sizes | kwargs))  # type: ignore[arg-type]


def first_losses(model: TwoTower, graph: FriendGraph) -> dict[str, float]:
    loader = model.prepare(graph, until=TemporalSplit.of(graph).t_val)
    model.network.eval()
    with torch.no_grad():
        return {key: float(value) for key, value in model.losses(next(iter(loader)), 0).items()}


def test_before_training_chance_looks_like_chance() -> None:
    """With flat scores a target is drawn from all users: likelihood 1 / (N - 1), rank in the middle.

    A mask that let no negative through would show a loss of 0 and an accuracy of 1.
    """
    graph = graph_of(random_rows(6, users=60, events=3000, times=3000), 60)
    model = small(sources=(), num_rand_negs=64)
    loader = model.prepare(graph, until=TemporalSplit.of(graph).t_val)
    for table in (model.network.target, model.network.actor, model.network.bias):
        torch.nn.init.zeros_(table.weight)
    model.network.eval()
    batch = next(iter(loader))
    with torch.no_grad():
        losses = model.losses(batch, 0)
    # `repeat` events, by far the most here, count once; first acts two or three times.
    assert losses["loss"] >= np.log(58) - 0.2
    assert losses["loss"] <= 3 * np.log(60)


def test_accidental_positives_are_no_negatives() -> None:
    """Two users who only ever write to each other: no negative is left, and the target is certain."""
    rows = [Row(i % 2, 1 - i % 2, i, "message") for i in range(100)]
    losses = first_losses(small(sources=()), graph_of(rows, 2))
    assert losses["accuracy"] == 1.0
    assert abs(losses["loss"]) < 1e-5


@pytest.mark.parametrize("name", ["two_tower_pointer", "two_tower_mixture"])
def test_a_planted_signal_is_found(name: str) -> None:
    """The people one has written to are pointed at, all of them, so the longest waiting one can be found."""
    graph = round_robin()
    for rule, kind in HEURISTICS.items():
        assert judged(kind(), graph)["mrr"] < 0.2, rule
    assert judged(learner(name, seed=0), graph)["mrr"] > 0.9


@pytest.mark.parametrize("name", LEARNED)
def test_nothing_is_found_where_nothing_is(name: str) -> None:
    row = judged(learner(name, seed=0), uniform())
    chance = np.mean(1 / np.arange(1, NUM_USERS))
    assert abs(row["mrr"] - chance) < row["mrr_high"] - row["mrr_low"]


def test_an_interrupted_fit_goes_on(tmp_path) -> None:
    graph = graph_of(random_rows(9, users=20, events=600, times=10_000), 20)
    until = TemporalSplit.of(graph).t_val
    whole = small(max_epochs=3, patience=9).fit(graph, until=until)
    # The schedule knows the whole length; the first part is stopped after one epoch.
    broken = small(max_epochs=3, patience=9, folder=tmp_path)
    count = 0

    def failing(batch, epoch):
        nonlocal count
        count += 1
        if epoch == 2:
            raise KeyboardInterrupt
        return TwoTower.losses(broken, batch, epoch)

    broken.losses = failing  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.fit(graph, until=until)
    assert (tmp_path / "last.ckpt").exists()
    resumed = small(max_epochs=3, patience=9, folder=tmp_path).fit(graph, until=until)
    assert [row["epoch"] for row in resumed.curve] == [0, 1, 2]
    query = Query.of(graph, torch.arange(20))
    assert torch.equal(resumed.score(query), whole.score(query))


@pytest.mark.parametrize("name", LEARNED)
def test_a_network_elsewhere_scores_alike(name: str) -> None:
    """On a device that is not there: tensors of the index and of the network may not meet unmoved."""
    graph = graph_of(random_rows(9, users=20, events=400, times=10_000), 20)
    model = small(sources=LEARNED[name])
    loader = model.prepare(graph, until=TemporalSplit.of(graph).t_val)
    model.network.eval()
    batch, query = next(iter(loader)), Query.of(graph, torch.arange(20))
    with torch.no_grad():
        losses, scores = model.losses(batch, 0), model.score(query)
        with Elsewhere(model.network) as far:
            assert float(model.losses(batch, 0)["loss"]) == float(losses["loss"])
            assert torch.equal(model.score(query), scores)
    assert far.met > 100


def test_the_page_of_models_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHREC_HOME", str(tmp_path))
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})
