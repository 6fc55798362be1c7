"""The generative model: circles' past, trees side by side, exact probabilities, codes of a strict past."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from graphs import Row, checked, graph_of, logs, planted_rows
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.correctness.planted import NUM_USERS, judged, round_robin, uniform
from graphrec.data import USER, FriendGraph, Query, TemporalSplit
from graphrec.decode import Forest, PrefixTree
from graphrec.models import GenerativeSTU, MixtureRecommender
from graphrec.models.heads.codes.diagnostics import unconstrained_validity
from graphrec.models.heads.codes.head import FIT_SHARES, BoundCodeHead, fit_shares
from graphrec.models.heads.codes.history import CodeHistory
from graphrec.models.heads.codes.prefix_scorer import Prefixes
from graphrec.models.heads.codes.teacher_forcing import TeacherForcing
from graphrec.models.mixture.contact_prior import ContactPrior
from graphrec.models.mixture.encoder import QueryEncoder
from graphrec.nn.code_decoder import CodeTables, CodeTowers, CodeTransformer
from graphrec.temporal import NEVER, DecayedPopularity, GroupActivity, Timeline
from graphrec.tokenizer import GNNRQVAE, RandomCodes, ResidualKMeans

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

USERS = 32
SMALL = {"embedding_dim": 8, "hidden_channels": 8, "window": 8, "max_epochs": 2, "progress": False}
KINDS = {
    "stu": {},
    "transformer": {"decoder": "transformer"},
    "codes alone": {"components": (), "features": ()},
    "shared": {"tokenizer": ResidualKMeans(dim=4, num_codebooks=2, codebook_size=3, unique=False)},
    "four levels": {"tokenizer": RandomCodes(num_codebooks=4), "decoder": "moe"},
}


def small(**kwargs: object) -> MixtureRecommender[BoundCodeHead]:
    settings = {**SMALL, "tokenizer": ResidualKMeans(dim=4), **kwargs}
    return GenerativeSTU(**settings)  # type: ignore[arg-type]


def world() -> tuple[FriendGraph, TemporalSplit]:
    """Four circles; two people come after training."""
    rows = planted_rows(1, events=500)
    late = [
        Row(USERS, 3, rows[450].time),
        Row(4, USERS, rows[455].time),
        Row(USERS + 1, USERS, rows[470].time),
    ]
    rows = sorted([*rows, *late], key=lambda row: row.time)
    graph = graph_of(rows, USERS + 3)
    return graph, TemporalSplit.of(graph)


@cache
def fitted(kind: str) -> tuple[MixtureRecommender[BoundCodeHead], FriendGraph, TemporalSplit]:
    graph, split = world()
    model = small(**KINDS[kind]).fit(graph, until=split.t_val, validate_until=split.t_test)
    return model, graph, split


# What circles had done, and trees side by side


@checked
@given(
    logs(users=5),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, unique=True),
    st.lists(st.integers(0, 30), min_size=4, max_size=4),
)
def test_what_a_group_had_done_is_what_its_members_had(
    rows: list[Row], members: list[tuple[int, int]], firsts: list[int]
) -> None:
    graph = graph_of(sorted(rows, key=lambda row: row.time), 5)
    timeline = Timeline.of(graph)
    group, user = (torch.tensor(column) for column in zip(*members, strict=True))
    last = int(timeline.instants.numel())
    since = torch.tensor(firsts).clamp(max=last)
    index = GroupActivity(
        timeline, group, user, since, torch.full((4,), last), DecayedPopularity(timeline, 2.0)
    )
    asked = torch.cartesian_prod(torch.arange(4), torch.arange(last + 1))
    asked = asked[asked[:, 1] >= since[asked[:, 0]]]
    # As late as can be: just after the last event that a tick has seen, or at the next.
    time = timeline.instants[(asked[:, 1] - 1).clamp(min=0)] + (asked[:, 1] > 0)
    *found, popularity = index.activity(asked[:, 0], asked[:, 1], time)
    events = graph.events()
    for number, (one, tick) in enumerate(asked.tolist()):
        past = timeline.event_tick < tick
        naive, fading = [NEVER, NEVER, 0, 0], 0.0
        for member in user[group == one].tolist():
            for role, end in enumerate((events.src, events.dst)):
                times = events.time[past & (end == member)]
                naive[2 + role] += len(times)
                naive[role] = max([naive[role], *times.tolist()])
                fading += sum(0.5 ** ((int(time[number]) - t) / 2.0) for t in times.tolist() if role)
        assert [int(column[number]) for column in found] == naive
        assert float(popularity[number]) == pytest.approx(fading, rel=1e-9, abs=1e-30)


def test_a_group_tells_nothing_of_before_its_past_is_kept_from() -> None:
    graph = graph_of([Row(0, 1, 5), Row(1, 2, 6)], 3)
    timeline, zero = Timeline.of(graph), torch.tensor([0])
    index = GroupActivity(timeline, zero, zero + 1, zero + 1, zero + 2, DecayedPopularity(timeline, 2.0))
    assert [int(column) for column in index.activity(zero, zero + 1, zero + 6)[:4]] == [NEVER, 5, 0, 1]
    with pytest.raises(ValueError, match="at a tick before its `since`"):
        index.activity(zero, zero, zero + 5)


def test_trees_side_by_side_are_the_trees() -> None:
    generator = torch.Generator().manual_seed(0)
    trees = []
    for number in range(3):
        codes = torch.randint(4, (12, 3), generator=generator)
        codes[torch.randperm(12, generator=generator)[: 2 * number]] = -1
        trees.append(PrefixTree(codes, 4))
    forest = Forest(trees)
    values = torch.randn(12, 2, generator=generator)
    for number, tree in enumerate(trees):
        path = forest.path(torch.full((12,), number), torch.arange(12))
        for user in range(12):
            if tree.place[user] < 0:
                assert (path[user] == -1).all()
                continue
            codes = forest.code[path[user, 1:]]
            assert path[user, 0] == forest.root[number]
            for level in range(4):
                node = tree.find(codes[None, :level]) + forest.root[number]
                assert path[user, level] == node
                below = tree.users_of(node - forest.root[number])[1]
                assert forest.size[node] == len(below)
                assert user in below
                if level:
                    parent = path[user, level - 1]
                    _, child = forest.children(parent[None])
                    assert path[user, level] in child
                    assert (forest.code[child].diff() > 0).all()
                    assert forest.first_child(parent) == child[0]
                nodes, mean = forest.means(number, values, level)
                torch.testing.assert_close(mean[nodes == node][0], values[below].mean(0))


# Exact probabilities


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_everyone_sum_to_one(kind: str) -> None:
    model, graph, split = fitted(kind)
    model._fitted = replace(model.fitted, prior=ContactPrior(0.0, 1.0))
    query = Query.of(graph, torch.arange(USERS), split.t_test)
    total = model.score(query).double().exp().sum(1)
    torch.testing.assert_close(total, torch.ones(USERS, dtype=torch.float64), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_teacher_forcing_says_what_scoring_everyone_says(kind: str) -> None:
    model, graph, split = fitted(kind)
    events = graph.events()
    late = (events.time >= split.t_test).nonzero().squeeze(1)
    query = Query.of_events(graph, late)
    with torch.no_grad():
        asked = model.encode_query(query)
        forced = TeacherForcing.of(model.head.prefix_scorer(asked), events.dst[late])
        everyone = model.head.log_probs(asked)
    found = everyone.gather(1, events.dst[late][:, None]).squeeze(1)
    torch.testing.assert_close(forced.total, found, atol=1e-4, rtol=1e-4)
    levels = [name for name in forced.terms if name.startswith("loss_")]
    assert len(levels) == model.tokenizer.num_codebooks
    assert 0 <= forced.terms["accuracy"] <= min(forced.terms[f"accuracy_{n + 1}"] for n in range(len(levels)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beam_size", [1, 3, 50])
def test_whoever_is_found_has_the_score_of_the_whole(kind: str, beam_size: int) -> None:
    """A narrow beam may miss people; those it finds are real, allowed, distinct, and rightly scored."""
    model, graph, split = fitted(kind)
    query = Query.of(graph, torch.arange(USERS), split.t_test)
    exclude = torch.arange(USERS), (torch.arange(USERS) + 5) % USERS
    old, model.head.config = model.head.config, replace(model.head.config, beam_size=beam_size)
    try:
        users, values = model.recommend(query, 6, exclude=exclude)
    finally:
        model.head.config = old
    assert (users >= 0).all()
    assert (users.sort(1).values.diff(dim=1) > 0).all()
    assert not ((users == query.user[:, None]) | (users == exclude[1][:, None])).any()
    torch.testing.assert_close(values, model.score(query).double().gather(1, users), atol=1e-4, rtol=1e-4)


def test_a_wide_beam_finds_the_best() -> None:
    model, graph, split = fitted("stu")
    query = Query.of(graph, torch.arange(USERS), split.t_test)
    users, _ = model.recommend(query, 5)
    scores = model.score(query)
    scores[torch.arange(USERS), query.user] = -torch.inf
    torch.testing.assert_close(scores.gather(1, users), scores.topk(5).values, atol=1e-5, rtol=1e-5)


def test_votes_are_the_shares_of_the_people_below() -> None:
    """What the circles add at a level, by a loop over everyone around."""
    model, graph, split = fitted("stu")
    query = Query.of(graph, torch.arange(6), split.t_test)
    with torch.no_grad():
        asked = model.encode_query(query)
        mixed = model.head.mixture_scorer(asked)
    around, forest = asked.neighbors, model.head.history.forest
    assert around is not None
    assert mixed._inside.sum() > 0
    root = forest.root[model.head.history.number(asked.tick)]
    for row in range(6):
        here = (around.row == row) & mixed._scorer.has
        total = mixed._inside[here].sum() + mixed._generated[row]
        assert float(total) == pytest.approx(float(mixed.log_root[row].exp()), rel=1e-5)
    at, child = forest.children(root)
    step = Prefixes(torch.arange(6), root, torch.empty(6, 0, dtype=torch.int64), None)
    person, prefix, place = mixed._scorer.votes_below(step, at)
    for one, row, where in zip(person.tolist(), prefix.tolist(), place.tolist(), strict=True):
        user = int(around.user[mixed._scorer.person[one]])
        assert int(around.row[mixed._scorer.person[one]]) == row == int(at[where])
        code = model.head.history.codes[model.head.history.number(asked.tick)[row], user, 0]
        assert forest.code[child[where]] == code
    assert len(person) == int(mixed._scorer.has.sum())


def test_cached_keys_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    decoder = CodeTransformer(4, 8, num_layers=2, num_heads=2, dropout=0.0).eval()
    torch.nn.init.normal_(decoder.position, generator=generator)
    hidden, codes = torch.randn(5, 8, generator=generator), torch.randint(6, (5, 3), generator=generator)
    tokens = CodeTables(4, 6, 8)
    state: Tensor | None = None
    with torch.no_grad():
        for level in range(4):
            out, state = decoder(hidden, torch.arange(5), codes[:, :level], tokens, state)
        # The same without a cache: all positions at once, under a causal mask.
        x = torch.cat([hidden[:, None], tokens(codes)], 1) + decoder.position
        for layer in decoder.layers:
            q, k, v = (
                part.unflatten(-1, (2, -1)).transpose(1, 2)
                for part in layer.qkv(layer.norm_attention(x)).split(8, dim=-1)
            )
            heard = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + layer.out(heard.transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.norm_mlp(x))
    torch.testing.assert_close(out, decoder.norm(x)[:, -1], atol=1e-5, rtol=1e-5)


def test_a_tower_reads_history_and_codes_side_by_side() -> None:
    generator = torch.Generator().manual_seed(0)
    towers, tokens = CodeTowers(3, 8, experts=False, dropout=0.0), CodeTables(3, 6, 8)
    vector, codes = torch.randn(2, 8, generator=generator), torch.randint(6, (5, 2), generator=generator)
    row = torch.tensor([0, 0, 1, 1, 1])
    out, _ = towers(vector, row, codes, tokens, None)
    naive = towers.towers[2](torch.cat([vector[row], *tokens(codes).unbind(1)], dim=1))
    torch.testing.assert_close(out, naive)


# Codes of a strict past


def test_codes_are_older_than_what_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, split = world()
    model = small()
    loader = model.prepare(graph, until=split.t_val)
    codes = model.head.history
    fits = []
    for number, tick in enumerate(codes.tick.tolist()):
        newer = model.view.timeline.first_tick >= tick
        assert (codes.codes[number][newer] == -1).all()  # nobody has an STU before their first event
        assert (codes.codes[number][~newer] >= 0).any()
        fits.append(codes.codes[number])
    asked: list[Query] = []
    original = QueryEncoder.encode

    def noting(self: QueryEncoder, query: Query, *rest: object) -> object:
        asked.append(query)
        return original(self, query, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(QueryEncoder, "encode", noting)
    for batch in loader:
        model.losses(batch, 0)
    ticks = model.view.timeline.tick(torch.cat([query.time for query in asked]))
    number = codes.number(ticks)
    assert (number >= 0).all()
    assert (codes.tick[number] <= ticks).all()
    assert len(number.unique()) > 3


def test_the_codes_of_training_do_not_know_what_comes_later() -> None:
    """Another future after a moment: the codes of all moments before it stay."""
    graph, split = world()
    model = small()
    model.prepare(graph, until=split.t_val)
    events = graph.events()
    cut = int(events.time[300])
    rows = [
        Row(int(u), int(v), int(t))
        for u, v, t in zip(events.src, events.dst, events.time, strict=True)
        if int(t) < cut
    ]
    other = [Row(7, 9 + number % 20, cut + 60 * number) for number in range(len(events) - len(rows))]
    changed = graph_of([*rows, *other], USERS + 3)
    again = small()
    again.prepare(changed, until=int(changed.events().time[int(0.8 * len(events))]))
    past = int((model.head.history.tick <= model.view.timeline.tick(torch.tensor(cut))).sum())
    size = min(model.tokenizer.table.codebook_size, again.tokenizer.table.codebook_size)
    assert past > 3
    assert size == model.tokenizer.table.codebook_size
    assert torch.equal(model.head.history.codes[:past], again.head.history.codes[:past])


def test_features_bring_an_stu_before_the_first_event() -> None:
    """Once they are known: from the moment after the join time on."""
    rows = planted_rows(0, groups=4, size=8, events=400)
    graph = graph_of(rows, 34)
    graph[USER].x = torch.randn(34, 3, generator=torch.Generator().manual_seed(0))
    graph[USER].join_time = torch.zeros(34, dtype=torch.int64)
    last = rows[-1].time
    graph[USER].join_time[33] = last + 1  # 32 and 33 have no event
    until = rows[300].time
    model = GenerativeSTU(
        tokenizer=GNNRQVAE(max_epochs=1, epoch_batches=2),
        embedding_dim=8,
        epoch_batches=2,
        max_epochs=1,
        progress=False,
    )
    model.fit(graph, until=until)
    history = model.head.history
    assert bool((history.codes[:, 32] >= 0).all())
    assert bool((history.codes[:, 33] < 0).all())
    query = Query.of(graph, torch.arange(4), last)
    found = model.recommend(query, 33)[0]
    assert bool((found == 32).any(1).all())


def test_newcomers_are_given_stus_and_suggested() -> None:
    model, graph, _ = fitted("stu")
    codes = model.head.history
    newcomer = USERS
    has = codes.codes[:, newcomer, 0] >= 0
    assert not has[0]
    assert has[-1]
    late = int(graph.events().time[-1]) + 1
    query = Query.of(graph, torch.arange(USERS), late)
    users, _ = model.recommend(query, USERS)
    assert (users == newcomer).any()
    assert torch.isfinite(model.score(Query.of(graph, torch.tensor([newcomer]), late))).all()


def test_before_the_first_codes_nobody_is_told_apart_by_them() -> None:
    graph, split = world()
    model = small(components=(), features=(), max_epochs=1).fit(
        graph, until=split.t_val, validate_until=split.t_test
    )
    early = Query.of(graph, torch.arange(4), int(graph.events().time[50]))
    assert (model.score(early).std(1) < 1e-6).all()
    users, _ = model.recommend(early, 3)
    assert (users >= 0).all()


def test_circles_are_of_the_people_known_at_the_fit() -> None:
    """A circle's past is that of its members, a leaf's that of its person."""
    model, _, split = fitted("stu")
    codes: CodeHistory = model.head.history
    timeline, forest = model.view.timeline, codes.forest
    tick = timeline.tick(torch.tensor(split.t_test))
    number = int(codes.number(tick[None]))
    tree, root = forest.trees[number], int(forest.root[number])
    for level in (1, 2, 3):
        node = torch.arange(*tree.level_ptr[level : level + 2])
        time = torch.full((len(node),), split.t_test)
        last_act, _, acts, *_ = codes.activity(node + root, tick.expand(len(node)), time)
        for one, when, count in zip(node.tolist(), last_act.tolist(), acts.tolist(), strict=True):
            people = tree.users_of(torch.tensor([one]))[1]
            old = people[codes.codes[0, people, 0] >= 0]
            old = people[:1] if level == 3 or not len(old) else old
            assert count == int(timeline.num_acts(old, tick.expand(len(old))).sum())
            assert when == int(timeline.last_act(old, tick.expand(len(old))).max())


# What it learns, and what it refuses


@pytest.mark.parametrize("levels", [2, 4])
def test_it_trains_with_as_many_levels_as_asked(levels: int) -> None:
    graph, split = world()
    tokenizer = ResidualKMeans(dim=4, num_codebooks=levels)
    model = small(tokenizer=tokenizer).fit(graph, until=split.t_val, validate_until=split.t_test)
    assert {f"loss_{level + 1}" for level in range(levels)} <= set(model.curve[0])
    assert all(np.isfinite(list(row.values())).all() for row in model.curve)


def test_ten_thousand_codes_a_level_train() -> None:
    graph, split = world()
    model = small(tokenizer=RandomCodes(codebook_size=10_000), max_epochs=1, epoch_batches=2)
    model.fit(graph, until=split.t_val, validate_until=split.t_test)
    assert model.network.head.next_code.shape == (3, 10_000, 8)
    assert np.isfinite(model.curve[0]["loss"])


def test_history_alone_learns_a_turn_and_chance_stays_chance() -> None:
    make = partial(
        GenerativeSTU, embedding_dim=16, hidden_channels=16, window=16, events_per_batch=256, progress=False
    )
    taught = make(tokenizer=RandomCodes(), components=("pointer",), features=(), max_epochs=6, patience=6)
    assert judged(taught, round_robin())["mrr"] > 0.9
    lost = judged(make(tokenizer=ResidualKMeans(), max_epochs=1, epoch_batches=20), uniform(num_events=2000))
    chance = float(np.mean(1 / np.arange(1, NUM_USERS)))
    assert lost["mrr_low"] < chance + 0.01
    assert lost["mrr"] < chance + 0.03


def test_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="unknown decoder 'none'; there are towers, moe, transformer"):
        small(decoder="none")
    with pytest.raises(ValueError, match="unknown component 'gossip'; there are pointer"):
        small(components=("gossip",))
    with pytest.raises(ValueError, match="beam_size must be at least 1, got 0"):
        small(beam_size=0)


def test_two_events_are_enough_to_fit_on() -> None:
    graph = graph_of([Row(0, 1, 0), Row(1, 2, 10), Row(2, 0, 20)], 4)
    model = small(max_epochs=1).fit(graph, until=15, validate_until=30)
    assert torch.isfinite(model.score(Query.of(graph, torch.arange(4), 30))).all()


def test_validity_is_a_share() -> None:
    model, graph, split = fitted("stu")
    share = unconstrained_validity(model, Query.of(graph, torch.arange(8), split.t_test))
    assert share.shape == (8,)
    assert ((share >= 0) & (share <= 1)).all()


def test_a_large_network_has_fewer_fits_of_the_tokenizer() -> None:
    shares = [fit_shares(num_users) for num_users in (1, 300_000, 500_000, 750_000, 10**8)]
    assert [len(one) for one in shares] == [5, 5, 3, 2, 2]
    assert shares[0] == FIT_SHARES
    assert all(one[-1] == 1.0 and list(one) == sorted(set(one)) for one in shares)
