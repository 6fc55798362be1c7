"""The two-tower model: what its encoder may see, what its loss counts, and what it must learn."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from elsewhere import Elsewhere
from graphs import Row, graph_of, permuted, random_rows
from recommenders import BARE, SWITCHED
from torch import nn

from benchmarks.correctness.planted import NUM_USERS, judged, learner, round_robin, uniform
from benchmarks.quality import options
from graphrec.data import EventLog, FriendGraph, Query, TemporalSplit, UserTable
from graphrec.features import Candidates, Profiles, Timelines
from graphrec.loader import QueryLoader
from graphrec.models import HEURISTICS, TWO_TOWER_PRESETS, MixtureRecommender, Nearest, TwoTower
from graphrec.models.mixture.config import Settings, TrainConfig
from graphrec.models.mixture.contact_prior import (
    PENDING_REPLY_BOOST,
    POPULARITY_EXPONENT,
    PRIOR_GRID,
    ContactPrior,
)
from graphrec.models.mixture.encoder import QueryEncoder
from graphrec.models.mixture.plan import plan_training
from graphrec.models.mixture.validation import validation_ranks, validation_scores
from graphrec.nn import (
    EncoderConfig,
    EventEmbedding,
    HistoryEncoder,
    MeanHistory,
    MixtureOfExperts,
    PooledHistory,
    Standardize,
    feed_forward,
    segment_logsumexp,
)
from graphrec.nn.history import Blocks, Layer
from graphrec.temporal import Timeline

CHANNELS = 8

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "transformer": partial(HistoryEncoder, num_layers=2, num_heads=2),
    "one swiglu layer": partial(HistoryEncoder, num_layers=1, num_heads=2, activation="swiglu"),
    "pooled": partial(PooledHistory, num_queries=3, num_heads=2),
    "mean": MeanHistory,
}


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


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder = ENCODERS[request.param](EventEmbedding(4, CHANNELS, 16), window=5).eval()
        if request.param == "pooled":
            nn.init.normal_(encoder.decay, std=3.0)
        return encoder


@pytest.fixture
def table() -> torch.Tensor:
    return torch.randn(50, CHANNELS, generator=torch.Generator().manual_seed(2))


def test_an_act_sees_nothing_tied_or_later(encoder: nn.Module, table: torch.Tensor) -> None:
    acts = timelines([17, 0, 3, 23])
    whole = encoder(acts, table[acts.other])
    for at in range(len(acts)):
        hidden = ((acts.row == acts.row[at]) & (acts.time >= acts.time[at])) | (acts.row != acts.row[at])
        hidden[at] = False
        other = acts.other.clone()
        other[hidden] = (other[hidden] + 7) % 50
        changed = Timelines(acts.row, other, acts.kind, acts.time, acts.num_rows)
        torch.testing.assert_close(encoder(changed, table[other])[at], whole[at])


def test_an_act_sees_its_window_across_blocks(encoder: nn.Module, table: torch.Tensor) -> None:
    """With a layer of window 5, what lies up to 4 acts back matters, with two 8, and nothing before."""
    acts = timelines([4, 23], ties=False)
    whole = encoder(acts, table[acts.other])
    for at in (10, 14, 15, 26):
        for back in range(1, 12):
            if at - back >= 4:
                other = acts.other.clone()
                other[at - back] = (other[at - back] + 7) % 50
                changed = encoder(Timelines(acts.row, other, acts.kind, acts.time, 2), table[other])
                assert torch.allclose(changed[at], whole[at], atol=1e-6) == (
                    back > encoder.context_length - 2
                ), (
                    at,
                    back,
                )


def test_every_prefix_equals_the_truncated_history(encoder: nn.Module, table: torch.Tensor) -> None:
    acts = timelines([17, 3, 23])
    whole = encoder(acts, table[acts.other])
    for at in range(len(acts)):
        rows = ((acts.row == acts.row[at]) & (torch.arange(len(acts)) <= at)).nonzero().squeeze(1)
        alone = encoder(cut(acts, rows), table[acts.other[rows]])
        torch.testing.assert_close(alone[-1], whole[at])


def test_the_order_of_acts_matters(encoder: nn.Module, table: torch.Tensor) -> None:
    acts = timelines([6], ties=False)
    swapped = acts.other.clone()
    swapped[[1, 3]] = swapped[[3, 1]]
    assert int(acts.other[1]) != int(acts.other[3])
    one = encoder(acts, table[acts.other])[-1]
    other = encoder(Timelines(acts.row, swapped, acts.kind, acts.time, 1), table[swapped])[-1]
    assert torch.allclose(one, other, atol=1e-5) == isinstance(encoder, MeanHistory)


def attended(logits: torch.Tensor, seen: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Naive attention of one act: logits [2 W], which of them are seen, values [2 W, D]."""
    weight = torch.where(seen, logits - logits[seen].max(), -torch.inf).exp()
    return (weight[:, None] * value).sum(0) / weight.sum()


def test_heads_are_not_mixed_up() -> None:
    """A layer's heads against a loop over blocks, acts and heads: no reshape without its transpose."""
    blocks, window, heads, width = 3, 4, 2, 5
    layer = Layer(heads * width, heads, 0.0).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(blocks, window, heads * width, generator=generator)
    mask = torch.rand(blocks, 1, window, 2 * window, generator=generator) < 0.5
    mask[..., window:] |= torch.eye(window, dtype=torch.bool)
    normed = layer.norm_attention(x)
    with torch.no_grad():
        q, k, v = (normed @ part.T for part in layer.qkv.weight.chunk(3))
        heard = torch.zeros_like(x)
        for block in range(blocks):
            before = [part[block - 1] if block else torch.zeros(window, heads * width) for part in (k, v)]
            keys, values = torch.cat([before[0], k[block]]), torch.cat([before[1], v[block]])
            for at in range(window):
                for head in range(heads):
                    own = slice(head * width, (head + 1) * width)
                    logits = keys[:, own] @ q[block, at, own] / width**0.5
                    heard[block, at, own] = attended(logits, mask[block, 0, at], values[:, own])
        naive = x + heard @ layer.out.weight.T
        naive = naive + layer.mlp(layer.norm_mlp(naive))
        torch.testing.assert_close(layer(x, mask), naive, atol=1e-5, rtol=1e-5)


def test_learned_queries_against_a_loop(table: torch.Tensor) -> None:
    acts, width = timelines([4, 9]), 8
    pool = PooledHistory(EventEmbedding(4, CHANNELS, 16), num_queries=3, num_heads=2, window=5).eval()
    with torch.no_grad():
        nn.init.normal_(pool.decay, std=3.0)
        x = pool.norm_events(pool.events(acts, table[acts.other]))
        score, value = pool.score(x).view(-1, 3, 2), pool.value(x)
        place, naive = torch.arange(len(acts)), []
        for at in range(len(acts)):
            seen = (acts.row == acts.row[at]) & (acts.time < acts.time[at]) & (place > at - 5) & (place < at)
            seen[at] = True
            age = (acts.time[at] - acts.time).clamp(min=0).float().log1p() / 10
            said = [
                attended(
                    score[:, query, head] - pool.decay[query, head] * age,
                    seen,
                    value[:, head * width : (head + 1) * width],
                )
                for query in range(3)
                for head in range(2)
            ]
            naive.append(torch.cat(said))
        heard = pool.out(torch.stack(naive))
        expected = pool.norm(heard + pool.mlp(pool.norm_mlp(heard)))
        torch.testing.assert_close(pool(acts, table[acts.other]), expected, atol=1e-5, rtol=1e-5)


def test_the_mean_is_that_of_the_acts_seen(table: torch.Tensor) -> None:
    acts = timelines([4, 9])
    mean = MeanHistory(EventEmbedding(4, CHANNELS, 16), window=5).eval()
    x, place = mean.events(acts, table[acts.other]), torch.arange(len(acts))
    for at, found in enumerate(mean(acts, table[acts.other])):
        seen = (acts.row == acts.row[at]) & (acts.time < acts.time[at]) & (place > at - 5) & (place < at)
        seen[at] = True
        torch.testing.assert_close(found, mean.norm(x[seen].mean(0)))


def test_wanted_acts_are_those_of_all(encoder: nn.Module, table: torch.Tensor) -> None:
    acts, wanted = timelines([7, 9]), torch.tensor([15, 3, 8])
    whole = encoder(acts, table[acts.other])
    torch.testing.assert_close(encoder(acts, table[acts.other], wanted), whole[wanted])


def test_the_age_of_an_act_is_that_to_who_sees_it() -> None:
    blocks = Blocks(timelines([3, 4], ties=False), 5)
    assert blocks.age.shape == blocks.mask.shape == (2, 1, 5, 10)
    time = timelines([3, 4], ties=False).time
    for at in range(7):
        for seen in range(7):
            block, column = at // 5, seen - 5 * (at // 5) + 5
            if 0 <= column < 10 and blocks.mask[block, 0, at % 5, column]:
                gap = float(time[at] - time[seen])
                assert float(blocks.age[block, 0, at % 5, column]) == pytest.approx(np.log1p(gap) / 10)
    assert int(blocks.mask.sum()) == (1 + 2 + 3) + (1 + 2 + 3 + 4) + 3  # and what fills up sees itself


def test_no_history_at_all(encoder: nn.Module, table: torch.Tensor) -> None:
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
    theirs, _ = Timelines.of_index(timeline, batch["user"].n_id[: len(tick)], tick, 10_000)
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


def test_standardize_may_learn_between_a_use_and_its_gradient() -> None:
    layer, x = Standardize(1), torch.tensor([[1.0], [2.0]], requires_grad=True)
    scale = nn.Parameter(torch.ones(1))
    (scale / layer.learn(x)[1] + layer(3 * x).sum()).sum().backward()
    assert scale.grad is not None
    assert scale.grad.isfinite()


def test_experts_against_a_loop() -> None:
    experts = MixtureOfExperts(6, 8, 5, num_experts=3, activation="swiglu").eval()
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    share = experts.gate(x).softmax(1)
    for row in range(4):
        naive = sum(share[row, e] * expert(x[row]) for e, expert in enumerate(experts.experts))
        torch.testing.assert_close(experts(x)[row], naive)
    assert share.std(0).min() > 0


def test_a_gated_layer_is_as_large() -> None:
    sizes = [
        sum(weight.numel() for weight in feed_forward(60, 120, 60, activation=name).parameters())
        for name in ("gelu", "swiglu")
    ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)
    layer = feed_forward(6, 9, 4, activation="swiglu").eval()
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    gate, value = (x @ layer[0].both.weight.T + layer[0].both.bias).chunk(2, dim=1)
    torch.testing.assert_close(layer(x), layer[-1](gate * gate.sigmoid() * value))


def small(**kwargs: object) -> MixtureRecommender:
    sizes = {"embedding_dim": 16, "hidden_channels": 16, "window": 16, "progress": False}
    return TwoTower(**(sizes | kwargs))  # type: ignore[arg-type]


def first_losses(model: MixtureRecommender, graph: FriendGraph) -> dict[str, float]:
    loader = model.prepare(graph, until=TemporalSplit.of(graph).t_val)
    model.network.eval()
    with torch.no_grad():
        return {key: float(value) for key, value in model.losses(next(iter(loader)), 0).items()}


def test_before_training_chance_looks_like_chance() -> None:
    """With flat scores a target is drawn from all users: likelihood 1 / (N - 1), rank in the middle.

    A mask that let no negative through would show a loss of 0 and an accuracy of 1.
    """
    graph = graph_of(random_rows(6, users=60, events=3000, times=3000), 60)
    model = small(**BARE, num_rand_negs=64)
    loader = model.prepare(graph, until=TemporalSplit.of(graph).t_val)
    for table in (model.network.head.target, model.network.head.actor, model.network.head.bias):
        torch.nn.init.zeros_(table.weight)
    model.network.eval()
    batch = next(iter(loader))
    with torch.no_grad():
        losses = model.losses(batch, 0)
    # `repeat` events, by far the most here, count once; first acts two or three times.
    assert losses["loss"] >= np.log(58) - 0.2
    assert losses["loss"] <= 3 * np.log(60)


def test_events_of_one_time_cannot_be_parted() -> None:
    graph = graph_of([Row(0, 1, 5), Row(1, 2, 5)])
    with pytest.raises(ValueError, match="nine tenths of the events before 6 are of one time"):
        small().fit(graph, until=6)
    with pytest.raises(ValueError, match="there is no event before until=5 to fit on"):
        small().fit(graph, until=5)


def test_many_queries_in_a_step() -> None:
    graph = graph_of(random_rows(6, users=300, events=3000, times=3000), 300)
    model = small(max_queries=600, events_per_batch=10**4, epoch_batches=2, max_epochs=1)
    model.fit(graph, until=TemporalSplit.of(graph).t_val)
    assert np.isfinite(model.curve[0]["loss"])


def test_pending_replies_and_unpopular_contacts_are_preferred_as_stated() -> None:
    graph = graph_of(random_rows(3, users=12, events=150), 12)
    model, until = small(max_epochs=1, epoch_batches=1), TemporalSplit.of(graph).t_test
    model.fit(graph, until=TemporalSplit.of(graph).t_val)
    query = Query.of(graph, torch.arange(12), until)
    events = graph.events()
    past = events.time < until
    acts = set(zip(events.src[past].tolist(), events.dst[past].tolist(), strict=True))
    timeline, neighborhood = model.view.timeline, model.config.neighborhood
    prior = ContactPrior(strength=0.5, known=3.0)
    row, user, given = prior.factors(timeline, neighborhood, query.user, timeline.tick(query.time))
    found = dict(zip(zip(row.tolist(), user.tolist(), strict=True), given.tolist(), strict=True))
    assert set(found) == {(u, v) for u, v in acts} | {(v, u) for u, v in acts}
    for (u, v), factor in found.items():
        received = int((events.dst[past] == v).sum())
        naive = (1.0 if (u, v) in acts else PENDING_REPLY_BOOST) * (1 + received) ** -POPULARITY_EXPONENT
        assert factor == pytest.approx(3.0 * naive**0.5)
    assert {(u, v) in acts for u, v in found} == {True, False}


def test_the_prior_chosen_is_the_one_best_on_validation() -> None:
    graph = graph_of(random_rows(3, users=12, events=150), 12)
    split = TemporalSplit.of(graph)
    model = small(max_epochs=1, epoch_batches=1)
    model.fit(graph, until=split.t_val, validate_until=split.t_test)
    judged, chosen = split.event_ids("val"), model.fitted.prior
    weight = plan_training(graph, split.t_val, model.config)[1].slice_weight
    assert set(weight) == {"all", "repeat", "reply", "new"}
    worth = {}
    for prior in PRIOR_GRID:
        model._fitted = replace(model.fitted, prior=prior)
        worth[prior] = validation_scores([validation_ranks(model, graph, judged)], weight, weight)[
            "val_score"
        ]
    assert len(set(worth.values())) > 1
    assert worth[chosen] == pytest.approx(max(worth.values()), abs=1e-6)


def test_accidental_positives_are_no_negatives() -> None:
    """Two users who only ever write to each other: no negative is left, and the target is certain."""
    rows = [Row(i % 2, 1 - i % 2, i, "message") for i in range(100)]
    losses = first_losses(small(**BARE), graph_of(rows, 2))
    assert losses["accuracy"] == 1.0
    assert abs(losses["loss"]) < 1e-5


def test_where_no_negative_is_left_gradients_are_finite() -> None:
    rows = [Row(i % 2, 1 - i % 2, i, "message") for i in range(100)]
    graph = graph_of(rows, 2)
    model = small(**BARE)
    loader = model.prepare(graph, until=TemporalSplit.of(graph).t_val)
    model.losses(next(iter(loader)), 0)["loss"].backward()
    gradients = [weight.grad for weight in model.network.parameters() if weight.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient.to_dense()).all() for gradient in gradients)


@pytest.mark.parametrize(("num_rand_negs", "in_batch"), [(0, True), (64, True), (64, False)])
def test_the_sampled_loss_is_that_of_everyone(
    num_rand_negs: int, in_batch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Targets follow a skewed popularity, logits say so: only log_q as it is gives the full loss."""
    num_users, rng = 150, np.random.default_rng(0)
    popularity = rng.permutation(1.0 / np.arange(1, num_users + 1) ** 0.7)
    src = np.concatenate([np.arange(num_users), rng.integers(num_users, size=1500)])
    dst = rng.choice(num_users, size=len(src), p=popularity / popularity.sum())
    dst = np.where(src == dst, (dst + 1) % num_users, dst)
    pairs = zip(src.tolist(), dst.tolist(), strict=True)
    graph = graph_of([Row(u, v, time) for time, (u, v) in enumerate(pairs)], num_users)
    sizes = {"max_queries": 64, "events_per_batch": 10**6}
    model = small(**BARE, num_rand_negs=num_rand_negs, in_batch=in_batch, **sizes)
    batch = next(iter(model.prepare(graph, until=TemporalSplit.of(graph).t_val)))
    among_all = {"all": 1.0, "reply": torch.inf, "new": torch.inf}
    plan = replace(model._loss.plan, slice_weight=among_all, first_time=num_users)  # all have been seen
    model._loss = replace(model._loss, plan=plan)
    logit = torch.from_numpy(popularity).log().float()
    with torch.no_grad():
        model.network.head.bias.weight[model.view.row, 0] = logit
    asked: list[Query] = []

    def flat(self: QueryEncoder, query: Query, *_: object) -> tuple[torch.Tensor, torch.Tensor, None]:
        asked.append(query)
        return torch.zeros(len(query), 16), torch.zeros(0), None

    monkeypatch.setattr(QueryEncoder, "query_tower", flat)
    original = Candidates.of
    found = {}
    for sign in (1.0, 0.0, -1.0):

        def signed(*args: object, sign: float = sign, **kwargs: object) -> Candidates:
            drawn = original(*args, **kwargs)  # type: ignore[arg-type]
            return replace(drawn, log_q=sign * drawn.log_q)

        monkeypatch.setattr(Candidates, "of", signed)
        with torch.no_grad():
            found[sign] = np.array([float(model.losses(batch, epoch)["loss"]) for epoch in range(20)])
    whole = []
    for query in asked[:20]:
        others = logit.masked_fill(torch.arange(num_users) == query.user[:, None], -torch.inf)
        target = graph.events().dst[query.time]  # one event a second
        whole.append(float((others.logsumexp(1) - logit[target]).mean()))
    errors = {sign: float((losses - whole).mean()) for sign, losses in found.items()}
    assert abs(errors[1.0]) < 0.05
    assert abs(errors[0.0]) > 0.2
    assert abs(errors[-1.0]) > 0.4


def test_the_inverse_probabilities_add_up_to_everyone() -> None:
    """Over many draws a sum over candidates, each as 1 / q, is the sum over all users: no bias at all."""
    generator = torch.Generator().manual_seed(0)
    share = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05, 0.0], dtype=torch.float64)
    worth = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    for in_batch, size in ((True, 2), (True, 0), (False, 3)):
        total = []
        for _ in range(1000):
            target = torch.multinomial(share, 4, replacement=True, generator=generator)
            random = torch.randint(6, (size,), generator=generator)
            drawn = Candidates.of(target, random, share, in_batch=in_batch)
            assert drawn.user[drawn.place(target)].tolist() == target.tolist()
            weight = torch.where(drawn.drawn, (-drawn.log_q).exp(), 0.0)
            total.append(float((weight * worth[drawn.user]).sum()))
        everyone = worth.sum() if size else worth[:-1].sum()  # whom nobody turns to is drawn by chance alone
        # The number of draws counts as Poisson's, which for as few as these adds some per cent.
        assert np.mean(total) == pytest.approx(float(everyone), rel=0.12)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_history_loss_weight(weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each act's share of the gradient, beside that of a training which weighs all alike."""
    graph = graph_of(random_rows(5, users=12, events=300, times=10**6), 12)
    assert len(graph.events().time.unique()) == 300
    gradients: dict[float, dict[tuple[int, int], torch.Tensor]] = {}
    tower = QueryEncoder.query_tower
    for given in (1.0, weight):
        model = small(history_loss_weight=given, max_queries=10**6, events_per_batch=10**6)
        loader = model.prepare(graph, until=TemporalSplit.of(graph).t_val)
        model.network.eval()
        kept: list[tuple[Query, torch.Tensor]] = []

        def noting(self: QueryEncoder, query: Query, *rest: object, kept=kept) -> object:
            out = tower(self, query, *rest)
            out[0].retain_grad()
            kept.append((query, out[0]))
            return out

        monkeypatch.setattr(QueryEncoder, "query_tower", noting)
        for batch in loader:
            model.losses(batch, 0)["loss"].backward()
        gradients[given] = {
            key: row
            for query, vector in kept
            for key, row in zip(
                zip(query.user.tolist(), query.time.tolist(), strict=True), vector.grad, strict=True
            )
        }
    last = {user: max(t for u, t in gradients[1.0] if u == user) for user, _ in gradients[1.0]}
    assert len(gradients[1.0]) > 150
    if weight == 0.0:
        assert gradients[weight].keys() == set(last.items())
        return
    total = sum(1.0 if last[user] == time else weight for user, time in gradients[1.0])
    assert gradients[weight].keys() == gradients[1.0].keys()
    for (user, time), row in gradients[weight].items():
        share = (1.0 if last[user] == time else weight) / total * len(gradients[1.0])
        # The candidates are others' targets too, whose number does not change.
        torch.testing.assert_close(row, share * gradients[1.0][user, time], atol=1e-6, rtol=1e-3)


def test_nothing_from_validation_on_is_asked_or_read_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(random_rows(9, users=20, events=600, times=10_000), 20)
    split = TemporalSplit.of(graph)
    model = small(max_epochs=2)
    seen: list[int] = []
    losses, tower = model.losses, QueryEncoder.query_tower

    def noting(self, query, acts, position, question):
        if model.network.training:
            assert (query.time < split.t_val).all()
            assert (acts.time < split.t_val).all()
            seen.append(int(query.time.max()))
        return tower(self, query, acts, position, question)

    monkeypatch.setattr(QueryEncoder, "query_tower", noting)
    model.fit(graph, until=split.t_val, validate_until=split.t_test)
    assert losses == model.losses
    assert max(seen) > split.t_val - 300  # and so nearly everything before is


def test_settings_of_builders_are_the_fields_of_the_configurations() -> None:
    names = {field.name: field.type for kind in (EncoderConfig, TrainConfig) for field in fields(kind)}
    found = {name: hint.__forward_arg__ for name, hint in Settings.__annotations__.items()}
    assert found == names
    with pytest.raises(TypeError, match="unexpected argument 'windows'; settings are activation, dropout"):
        small(windows=3)


def test_an_option_that_is_none() -> None:
    for option in ("history", "interaction", "activation"):
        with pytest.raises(ValueError, match=f"unknown {option} 'none'; there are "):
            small(**{option: "none"})
    with pytest.raises(ValueError, match="no negatives"):
        small(in_batch=False, num_rand_negs=0)


# Profiles


def described(
    rows: list[tuple[int, int, int]] | list[Row], users: list[int], **columns: list[object]
) -> FriendGraph:
    """The graph of rows, and of what is known of users."""
    src, dst, time, action = zip(*(Row(*row) for row in rows), strict=True)
    log = EventLog.from_arrays(src, dst, time, action=action)
    return FriendGraph.from_events(log, UserTable.from_table(pa.table({"user": users, **columns})))


GROUPS, ARRIVALS = 3, 900


def newcomers(*, join_time: bool = False) -> FriendGraph:
    """Everyone acts or is acted upon once, always inside their group: nobody has a history."""
    rng = np.random.default_rng(0)
    users = rng.permutation(ARRIVALS)
    group = np.empty(ARRIVALS, dtype=int)
    group[users] = np.arange(ARRIVALS) // 2 % GROUPS
    pairs = users.reshape(-1, 2).tolist()
    rows = [Row(u, v, 60 * number) for number, (u, v) in enumerate(pairs)]
    columns = {"group": [f"g{g}" for g in group]}
    if join_time:
        joined = np.empty(ARRIVALS, dtype=int)
        joined[users] = np.maximum(60 * (np.arange(ARRIVALS) // 2) - 30, 0)
        columns["join_time"] = joined.tolist()
    return described(rows, list(range(ARRIVALS)), **columns)


def fitted_on(graph: FriendGraph, **kwargs: object) -> MixtureRecommender:
    split = TemporalSplit.of(graph)
    sizes = {"events_per_batch": 64, "max_epochs": 12, "patience": 12}
    return small(**(sizes | kwargs)).fit(graph, until=split.t_val, validate_until=split.t_test)


def separation(model: MixtureRecommender, graph: FriendGraph, actors: torch.Tensor) -> float:
    """How often an unseen member of the actor's group scores above an unseen member of another; ties half."""
    split = TemporalSplit.of(graph)
    group = graph["user"].x.argmax(1)
    first = torch.full((graph.num_users,), split.end)
    events = graph.events()
    first[events.src], first[events.dst] = events.time, events.time
    unseen = (first >= split.t_val).nonzero().squeeze(1)
    scores = model.score(Query.of(graph, actors, split.t_val), unseen)
    found = []
    for actor, row in zip(actors.tolist(), scores, strict=True):
        own = group[unseen] == group[actor]
        one, other = row[own & (unseen != actor)][:, None], row[~own]
        found.append(float(((one > other).double() + 0.5 * (one == other)).mean()))
    return float(np.mean(found))


@pytest.mark.parametrize(
    "preset", [TWO_TOWER_PRESETS["two_tower_mixture"], BARE], ids=["mixture", "embeddings"]
)
def test_features_place_people_without_history(preset: dict[str, tuple[str, ...]]) -> None:
    graph = newcomers()
    seen, unseen = torch.split(graph.events().src, [360, 90])
    model = fitted_on(graph, **preset)
    assert separation(model, graph, unseen) > 0.95
    assert separation(model, graph, seen[:100]) > 0.95
    blind = graph_of(
        [
            Row(*row)
            for row in zip(
                *(getattr(graph.events(), k).tolist() for k in ("src", "dst", "time")), strict=True
            )
        ],
        ARRIVALS,
    )
    without = fitted_on(blind, **preset, max_epochs=1)
    assert separation(without, graph, unseen) == 0.5


def test_features_are_known_from_the_join_time_on() -> None:
    graph = newcomers(join_time=True)
    split = TemporalSplit.of(graph)
    model = fitted_on(graph, max_epochs=2)
    events = graph.events()
    late = torch.cat([events.src[-40:], events.dst[-40:]])
    nowhere = Query.of(graph, late[:5], split.t_val)
    scores = model.score(nowhere)
    for actor, row in zip(nowhere.user.tolist(), scores, strict=True):
        assert len(row[late[late != actor]].unique()) == 1
    # Nor do those who ask differ: what they see of others is the same.
    torch.testing.assert_close(scores[0][events.src[:300]], scores[1][events.src[:300]], atol=1e-6, rtol=0)
    later = model.score(Query.of(graph, late[:5], split.end + 1))
    assert len(later[0][late[1:]].unique()) > 1
    # Their features could be anything until then.
    other = graph.snapshot(2**60)
    x = graph["user"].x.clone()
    x[late] = x[late].roll(1, dims=1) + 5.0
    other["user"].x = x
    assert torch.equal(fitted_on(other, max_epochs=2).score(nowhere), scores)
    assert not torch.equal(
        fitted_on(other, max_epochs=2).score(Query.of(graph, late[:5], split.end + 1)), later
    )


def test_features_carry_no_index() -> None:
    """Other ids, other future events: people known by features alone are told apart by these alone."""
    rows = random_rows(3, users=12, events=300, times=10_000)
    age = np.random.default_rng(0).integers(20, 60, size=20).astype(float)
    new_id = np.random.default_rng(1).permutation(20)
    until = rows[200].time
    graph = described(rows, list(range(20)), age=age.tolist())
    renamed = described(permuted(rows, new_id.tolist()), new_id.tolist(), age=age.tolist())
    query = Query(torch.arange(20), torch.full((20,), until + 1), torch.zeros(20, dtype=torch.int64))
    index = torch.from_numpy(new_id)
    assert not torch.equal(index, torch.arange(20))
    sizes = {**BARE, "num_rand_negs": 4, "events_per_batch": 32, "max_epochs": 8, "patience": 8}
    one, other = (small(**sizes).fit(g, until=until) for g in (graph, renamed))
    one, other = one.score(query), other.score(replace(query, user=index))[:, index]
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    strangers = one[0, 12:]
    assert len(strangers.unique()) == len(np.unique(age[12:]))


def test_profiles_are_standardized_on_who_is_known() -> None:
    graph = described(
        [(0, 1, 10), (1, 2, 20), (2, 3, 30)],
        [0, 1, 2, 3, 4],
        age=[1.0, 3.0, 1000.0, 5.0, None],
        same=[7.0] * 5,
        join_time=[5, 8, 15, None, None],
    )
    profiles = Profiles.of(graph, until=12)
    assert profiles is not None
    assert profiles.since.tolist()[:4] == [5, 8, 15, 30]  # without a join time, from the first event on
    assert int(profiles.since[4]) > 10**18
    assert graph.feature_names == ["age", "age_missing", "same"]
    assert profiles.x[:2].tolist() == [[-1, 0, 0, 1], [1, 0, 0, 1]]
    assert profiles.x[:, 0].tolist() == pytest.approx([-1, 1, 8, 3, -2])
    user = torch.tensor([0, 2, 2, 3, 4])
    assert profiles.known(user, torch.tensor([5, 15, 16, 31, 10**9])).tolist() == [0, 0, 1, 1, 0]
    assert Profiles.of(graph_of([(0, 1, 10)]), until=12) is None
    keys = profiles.key(12).tolist()
    assert keys[2] == keys[3] == keys[4]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("name", ["two_tower_pointer", "two_tower_mixture"])
def test_a_planted_signal_is_found(name: str) -> None:
    """The people one has written to are pointed at, all of them, so the longest waiting one can be found."""
    graph = round_robin(rounds=11)
    for rule, kind in HEURISTICS.items():
        assert judged(kind(), graph)["mrr"] < 0.2, rule
    assert judged(learner(name, seed=0, max_epochs=4), graph)["mrr"] > 0.9


@pytest.mark.parametrize("name", TWO_TOWER_PRESETS)
def test_nothing_is_found_where_nothing_is(name: str) -> None:
    row = judged(learner(name, seed=0, max_epochs=4), uniform(num_events=2500))
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
        return MixtureRecommender.losses(broken, batch, epoch)

    broken.losses = failing  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.fit(graph, until=until)
    assert (tmp_path / "last.ckpt").exists()
    resumed = small(max_epochs=3, patience=9, folder=tmp_path).fit(graph, until=until)
    assert [row["epoch"] for row in resumed.curve] == [0, 1, 2]
    query = Query.of(graph, torch.arange(20))
    assert torch.equal(resumed.score(query), whole.score(query))


@pytest.mark.parametrize("options", [*TWO_TOWER_PRESETS, "switched"])
def test_a_network_elsewhere_scores_alike(options: str) -> None:
    """On a device that is not there: tensors of the index and of the network may not meet unmoved."""
    rows = random_rows(9, users=20, events=400, times=10_000)
    graph = graph_of(rows, 20)
    if options == "switched":
        graph = described(rows, list(range(20)), age=list(range(20)), join_time=list(range(0, 6000, 300)))
    model = small(**(SWITCHED if options == "switched" else TWO_TOWER_PRESETS[options]))
    loader = model.prepare(graph, until=TemporalSplit.of(graph).t_val)
    model.network.eval()
    batch, query = next(iter(loader)), Query.of(graph, torch.arange(20))
    with torch.no_grad():
        losses, scores = model.losses(batch, 0), model.score(query)
        with Elsewhere(model.network) as far:
            assert float(model.losses(batch, 0)["loss"]) == float(losses["loss"])
            assert torch.equal(model.score(query), scores)
    assert far.met > 100


def test_every_row_of_options_is_one_thing_switched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = {name: each.default for name, each in inspect.signature(TwoTower).parameters.items()}
    default |= {field.name: field.default for kind in (EncoderConfig, TrainConfig) for field in fields(kind)}
    for name, given in options.OPTIONS.items():
        TwoTower(**given)
        assert len(given) == (name not in ("default", options.FEATURES)), name
        assert all(default[option] != value for option, value in given.items()), name
    rows = random_rows(9, users=20, events=400, times=10_000)
    graph = described(rows, list(range(20)), age=list(range(20)))
    monkeypatch.setattr(options, "load_dataset", lambda name: graph)
    names, out = ["default", "history mean", options.FEATURES], tmp_path / "options.json"
    sizes = {"embedding_dim": 8, "hidden_channels": 8, "max_epochs": 1}
    table = options.run("toy", names, [0, 1], out, **sizes)
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == names
    kept = json.loads(out.read_text())["toy"]
    assert len(kept) == 6
    assert kept["default, seed 0"]["all"] != kept["without features, seed 0"]["all"]
    monkeypatch.setattr(options, "judge", lambda *args, **kwargs: pytest.fail("judged again"))
    assert options.run("toy", names, [0, 1], out, **sizes) == table


@pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")
def test_the_page_of_models_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHREC_HOME", str(tmp_path))
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) > 2
    example = (Path(__file__).parents[1] / "examples" / "activity_head.py").read_text()
    assert sum(block.strip() in example for block in blocks) == 1  # the head of one's own
    names: dict[str, object] = {"__name__": "examples.activity_head"}  # so that it registers the same head
    for block in blocks:
        exec(block, names)


def test_without_a_user_table_no_parameter_belongs_to_a_user() -> None:
    """One row stands for everyone; lists come from features of users and from the graph alone."""
    sizes = []
    for users in (30, 60):
        graph = graph_of(random_rows(3, users=users, events=600, times=600), users)
        model = small(user_table=False)
        model.fit(graph, until=TemporalSplit.of(graph).t_val)
        sizes.append(model.num_parameters)
        assert model.network.head.target.num_embeddings == 1
        query = Query.of(graph, torch.arange(users), TemporalSplit.of(graph).t_test)
        table = model.head.table_logits(model.encode_query(query), None)
        assert table.shape == (users, users)
        assert (table == table[:, :1]).all()
    assert sizes[0] == sizes[1]
    with_table = small()
    with_table.prepare(graph, until=TemporalSplit.of(graph).t_val)
    assert with_table.network.head.target.num_embeddings == 1 + with_table.view.num_known


def test_nearest_refuses_users_with_equal_vectors() -> None:
    graph = graph_of(random_rows(3, users=30, events=600, times=600), 30)
    model = Nearest(small(**BARE, user_table=False))
    with pytest.raises(ValueError, match="user_table=True"):
        model.fit(graph, until=TemporalSplit.of(graph).t_val)
