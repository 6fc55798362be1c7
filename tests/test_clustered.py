"""The clustered model: exact probabilities, a strict past of who is in which cluster, a partial search."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere import Elsewhere
from graphs import Row, graph_of, planted_rows, random_rows

from benchmarks.quality import clusters as benchmark
from benchmarks.quality.smaller_search import OWN, Kept, groups_of, judged_events
from graphrec.data import Query, TemporalSplit
from graphrec.evaluate import evaluate_streaming
from graphrec.features import Candidates
from graphrec.models import Clustered, MixtureRecommender, Recommender
from graphrec.models.heads.clusters import search
from graphrec.models.heads.clusters.head import BoundClusterHead
from graphrec.models.heads.clusters.index import ClusterIndex
from graphrec.nn import ClusterSoftmax, balanced_assignment, largest_memberships
from graphrec.temporal import Timeline
from graphrec.tokenizer import ClusterCodes

HOUR = 3600
USERS = 34
"""Two more than have events."""

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

SMALL = {"embedding_dim": 8, "hidden_channels": 8, "window": 8, "max_epochs": 2, "progress": False}
GRAPH = graph_of(planted_rows(0), USERS)
SPLIT = TemporalSplit.of(GRAPH)


@cache
def fitted() -> MixtureRecommender[BoundClusterHead]:
    """Not to be changed."""
    return Clustered(num_clusters=4, **SMALL).fit(GRAPH, until=SPLIT.t_val)


def asked(time: int = SPLIT.t_test) -> Query:
    return Query.of(GRAPH, torch.arange(USERS), time)


# Clusters


def test_the_largest_two_clusters() -> None:
    affinity = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    cluster, share = largest_memberships(affinity)
    best = affinity.sort(dim=1, descending=True)
    assert torch.equal(cluster, best.indices[:, :2])
    torch.testing.assert_close(share, best.values[:, :2].softmax(1))
    alone = largest_memberships(affinity[:, :1])
    assert alone[0].tolist() == [[0, 0]] * 9
    assert alone[1].tolist() == [[1.0, 0.0]] * 9


def test_balanced_clusters_take_nobody_beyond_their_capacity() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, centers = torch.randn(60, 4, generator=generator) + 2.0, torch.randn(6, 4, generator=generator)
    free = balanced_assignment(vectors, centers, 0.5, min_second_share=0.25, balance_factor=60.0)
    assert torch.equal(free[0][:, 0], (vectors @ centers.T).argmax(1))
    assert int(torch.bincount(free[0][:, 0]).max()) > 15
    cluster, share = balanced_assignment(vectors, centers, 0.5, min_second_share=0.25, balance_factor=1.5)
    assert int(torch.bincount(cluster[:, 0]).max()) <= 15
    torch.testing.assert_close(share.sum(1), torch.ones(60))
    assert ((share[:, 1] == 0) | (share[:, 1] >= 0.25)).all()
    assert (share[:, 1] > 0).any()
    stay = cluster[:, 0] == free[0][:, 0]
    assert torch.equal(share[stay], free[1][stay])


def clusters_of(rows: list[Row], known: int, users: int = 6) -> ClusterIndex:
    """People 0..known-1 are known, in clusters 0, 1, 2, ... alone."""
    timeline = Timeline.of(graph_of(rows, users))
    cluster = torch.arange(users)[:, None].repeat(1, 2).clamp(max=known - 1)
    share = torch.tensor([1.0, 0.0]).repeat(users, 1)
    return ClusterIndex(timeline, cluster, share, torch.arange(users) < known, known)


def test_newcomers_join_whom_they_met_first() -> None:
    rows = [Row(0, 1, 0), Row(2, 1, 1), Row(3, 4, 2), Row(3, 0, 3), Row(1, 3, 3), Row(4, 3, 4), Row(3, 2, 5)]
    found = clusters_of(rows, 3)
    assert found.since.tolist() == [0, 0, 1, 3, 4, 7]  # 3 and 4 met when nobody had placed either
    assert found.cluster[3].sort().values.tolist() == [0, 1]
    assert found.share[3].tolist() == [0.5, 0.5]
    assert found.cluster[4].sort().values.tolist() == [0, 1]
    assert found.share[5].tolist() == [0.0, 0.0]
    assert sorted(found.members(1)[0].tolist()) == [1, 3, 4]
    assert found.num_assigned(torch.tensor([0, 1, 3, 4, 5])).tolist() == [0, 2, 3, 4, 5]
    assert found.sizes(torch.tensor([4]))[0].tolist() == [2.0, 2.0, 1.0]


@pytest.mark.parametrize("time", [2, 3, 4, 5])
def test_what_is_told_of_clusters_is_strictly_older(time: int) -> None:
    rows = [Row(0, 1, 0), Row(2, 1, 1), Row(3, 0, 2), Row(3, 4, 3), Row(1, 4, 4), Row(4, 5, 5)]
    past = [row for row in rows if row.time < time]
    later = [Row(5, 2, time), Row(4, 2, time), Row(3, 1, time), Row(5, 0, time + 1)]
    query = Query(torch.arange(6), torch.full((6,), time), torch.zeros(6, dtype=torch.int64))
    told = [clusters_of([*past, *more], 3) for more in ([], later, [row for row in rows if row.time >= time])]
    for other in told[1:]:
        torch.testing.assert_close(other.features(query), told[0].features(query), rtol=1e-5, atol=1e-5)
    past_changed = clusters_of([Row(1, 2, 0), *past[1:]], 3)
    assert float((past_changed.features(query) - told[0].features(query)).abs().max()) > 0.01


def test_features_against_a_loop() -> None:
    rows = random_rows(1, users=6, events=40, times=12, actions=["contact"])
    found = clusters_of(rows, 4)
    time = 9
    said = found.features(Query(torch.tensor([1, 5]), torch.tensor([time, time]), torch.tensor([0, 0])))
    timeline = Timeline.of(graph_of(rows, 6))
    tick = int(timeline.tick(torch.tensor(time)))
    for cluster in range(4):
        share = [
            float(s) if int(c) == cluster else 0.0
            for c, s in zip(found.cluster[:, 0], found.share[:, 0], strict=True)
        ]
        share = [
            a + (float(s) if int(c) == cluster else 0.0)
            for a, c, s in zip(share, found.cluster[:, 1], found.share[:, 1], strict=True)
        ]
        past = [row for row in rows if row.time < time]
        received = sum(share[row.dst] for row in past if int(found.since[row.dst]) < tick)
        acted = sum(share[row.src] for row in past if int(found.since[row.src]) < tick)
        size = sum(share[v] > 0 and int(found.since[v]) < tick for v in range(6))
        expected = torch.tensor([received, acted, received, acted, float(size)]).log1p()
        torch.testing.assert_close(said[0, cluster, 2:], expected)
        assert float(said[0, cluster, 0]) == pytest.approx(share[1])


# The model


def test_probabilities_sum_to_one() -> None:
    model = fitted()
    for time in (SPLIT.t_val, SPLIT.t_test, 40 * HOUR):
        with torch.no_grad():
            seen = model.encode_query(asked(time))
            torch.testing.assert_close(model.head.log_probs(seen).exp().sum(1), torch.ones(USERS))
            log_cluster, log_unassigned = model.head.next_cluster(seen)
        total = log_cluster.exp().sum(1) + log_unassigned.exp()
        torch.testing.assert_close(total, torch.ones(USERS))


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_the_training_softmax_against_a_loop(slots: int) -> None:
    generator = torch.Generator().manual_seed(slots)
    scores, size = 30.0 * torch.randn(4, 6, generator=generator), 3
    share = torch.rand(6, size, generator=generator)
    share = share * (share >= share.topk(slots, dim=1).values[:, -1:])
    share /= share.sum(1, keepdim=True)
    placed = torch.ones(4, 6, dtype=torch.bool)
    placed[1, 5] = placed[2, 0] = False
    place = torch.tensor([0, 1, 0, 4])
    never = torch.zeros(4, 6, dtype=torch.bool)
    never[torch.arange(4), place] = never[0, 3] = True
    p_cluster = torch.rand(4, size, generator=generator)
    candidates = Candidates(10 + torch.arange(6), torch.zeros(6), torch.ones(6, dtype=torch.bool))
    softmax = ClusterSoftmax(
        candidates,
        scores=scores,
        assigned=placed,
        membership=share,
        total_membership=share.sum(0),
        log_cluster=p_cluster.log(),
        log_unassigned=torch.full((4,), 0.25).log(),
        place=place,
        negative_mask=~never,
    )
    barred = torch.tensor([3]), torch.tensor([12])
    found = softmax.log_p(torch.arange(4), barred)
    for row in range(4):
        goal = int(place[row])
        weight = (scores[row].double() - scores[row, goal]).clamp(max=60.0).exp()
        rest = [k for k in range(6) if not never[row, k] and (row, k) != (3, 2)]
        if placed[row, goal]:
            p = 0.0
            for c in range(size):
                mass = sum(float(weight[k] * share[k, c]) for k in rest if placed[row, k])
                own = float(share[goal, c])
                p += float(p_cluster[row, c]) * own / (own + mass) if own else 0.0
        else:
            p = 0.25 / (1.0 + sum(float(weight[k]) for k in rest if not placed[row, k]))
        assert float(found[row]) == pytest.approx(math.log(max(p, 1e-30)), rel=1e-3, abs=1e-3)


def test_planted_circles_become_clusters() -> None:
    model = Clustered(num_clusters=4, start="codes", **SMALL).fit(GRAPH, until=SPLIT.t_val)
    found = benchmark.balance_of(model)
    assert found["homophily, later"] > 2.0  # of at most 4
    assert found["dead"] == 0
    assert found["largest / mean"] < 3.01
    assert (model.head.assignments[-2:] == -1).all()


def test_the_search_reads_the_likeliest_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MIN_PROBED", 1)
    model = Clustered(num_clusters=4, start="codes", components=(), features=(), **SMALL).fit(
        GRAPH, until=SPLIT.t_val
    )
    query = asked()
    whole = model.score(query).double()
    model.head.probe_fraction = 0.3
    probed = model.head.probed(model.encode_query(query))
    assert 1 <= int(probed.sum(1).min()) <= int(probed.sum(1).max()) < 4
    users, values = model.recommend(query, 5)
    index = model.head.index
    for row in range(USERS):
        inside = [
            v
            for v in range(USERS)
            if int(index.since[v]) > 1e6
            or v >= 32
            or any(
                bool(probed[row, index.cluster[v, slot]]) and float(index.share[v, slot]) > 0
                for slot in (0, 1)
            )
        ]
        assert set(users[row].tolist()) <= set(inside)
        assert (values[row] <= whole[row, users[row]] + 1e-4).all()
        wholly = [
            v
            for v in inside
            if all(
                float(index.share[v, slot]) == 0 or bool(probed[row, index.cluster[v, slot]])
                for slot in (0, 1)
            )
        ]
        for user, value in zip(users[row].tolist(), values[row].tolist(), strict=True):
            if user in wholly:
                assert value == pytest.approx(float(whole[row, user]), abs=1e-3)
        best = max((v for v in wholly if v != row), key=lambda v: float(whole[row, v]))
        assert float(values[row, 0]) >= float(whole[row, best]) - 1e-3
    model.head.probe_fraction = 1.0
    assert model.head.probed(model.encode_query(query)).all()
    assert torch.equal(model.recommend(query, 5)[0], Recommender.recommend(model, query, 5)[0])


def test_people_around_are_always_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MIN_PROBED", 0)
    model = Clustered(num_clusters=4, start="codes", **SMALL).fit(GRAPH, until=SPLIT.t_val)
    model.head.probe_fraction = 0.0
    query = asked()
    timeline = Timeline.of(GRAPH)
    users = model.recommend(query, USERS)[0]
    row, met = timeline.contacts.before(query.user, timeline.tick(query.time))
    assert len(row) > 50
    for one, person in zip(row.tolist(), met.tolist(), strict=True):
        assert person in users[one].tolist()


def test_from_scratch_all_clusters_count_at_first() -> None:
    model = Clustered(num_clusters=4, start="scratch", **SMALL)
    batch = next(iter(model.prepare(GRAPH, until=SPLIT.t_val)))
    network, affinity = model.network.head, torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    for epoch, number in ((0, 4), (1, 2)):
        terms = model.losses(batch, epoch)
        assert float(terms["imbalance"].detach()) >= 0.0
        share = network.memberships(affinity)
        torch.testing.assert_close(share.sum(1), torch.ones(9))
        assert ((share > 0).sum(1) == number).all()
        network.zero_grad()
        (network.memberships(network.affinity(network.user.weight[1:].detach()))[:, 0].sum()).backward()
        assert network.cluster.grad is not None
        assert int((network.cluster.grad.abs().sum(1) > 0).sum()) == 4
    begun = Clustered(num_clusters=4, **SMALL)
    begun.losses(next(iter(begun.prepare(GRAPH, until=SPLIT.t_val))), 0)
    assert ((begun.network.head.memberships(affinity) > 0).sum(1) == 2).all()


def test_an_interrupted_fit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Clustered(num_clusters=4, start="scratch", folder=tmp_path / "a", **SMALL)
    whole.fit(GRAPH, until=SPLIT.t_val)
    judge = MixtureRecommender._validate

    def interrupted(self: MixtureRecommender, *judged: Any) -> dict[str, float]:
        if self._loss.epoch == 1:
            raise KeyboardInterrupt
        return judge(self, *judged)

    again = Clustered(num_clusters=4, start="scratch", folder=tmp_path / "b", **SMALL)
    monkeypatch.setattr(MixtureRecommender, "_validate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        again.fit(GRAPH, until=SPLIT.t_val)
    monkeypatch.undo()
    again = Clustered(num_clusters=4, start="scratch", folder=tmp_path / "b", **SMALL)
    again.fit(GRAPH, until=SPLIT.t_val)
    assert torch.equal(again.score(asked()), whole.score(asked()))


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = fitted()
    model.save(tmp_path)
    again = MixtureRecommender.load(tmp_path, GRAPH)
    assert torch.equal(again.score(asked()), model.score(asked()))
    assert torch.equal(again.recommend(asked(), 5)[0], model.recommend(asked(), 5)[0])
    assert json.loads((tmp_path / "model.json").read_text())["head"]["settings"]["num_clusters"] == 4


def test_on_another_graph_people_are_forgotten_and_come() -> None:
    model, gone = fitted(), [3, 8]
    rows = [row for row in planted_rows(0) if not {row.src, row.dst} & set(gone)]
    there = [v for v in range(USERS) if v not in gone]
    late = max(row.time for row in rows) + HOUR
    other = model.on(graph_of([*rows, Row(32, 0, late)]))
    assert other.network.head.user.num_embeddings == model.network.head.user.num_embeddings - 2
    index = {raw: v for v, raw in enumerate(other.graph.user_ids.lookup(torch.arange(other.graph.num_users)))}
    known = [v for v in there if v < 32]
    ours = model.head.index.cluster[known]
    assert torch.equal(other.head.index.cluster[[index[v] for v in known]], ours)
    assert other.head.index.cluster[index[32], 0] == model.head.index.cluster[0, 0]
    assert model.graph is GRAPH


def test_a_network_elsewhere_scores_alike() -> None:
    model = Clustered(start="scratch", **SMALL)
    loader = model.prepare(GRAPH, until=SPLIT.t_val)
    model.head.refresh()
    batch, query = next(iter(loader)), asked()
    model.network.eval()
    with torch.no_grad():
        losses, scores, lists = model.losses(batch, 0), model.score(query), model.recommend(query, 3)[0]
        with Elsewhere(model.network) as far:
            model.head.refresh()
            assert float(model.losses(batch, 0)["loss"]) == float(losses["loss"])
            assert torch.equal(model.score(query), scores)
            assert torch.equal(model.recommend(query, 3)[0], lists)
    assert far.met > 100


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"start": "anew"}, "unknown start 'anew'"),
        ({"num_clusters": 0}, "num_clusters must be at least 1"),
        ({"probe_fraction": 1.5}, "probe_fraction must be at least 0 and at most 1"),
        ({"features": ("prefix_groups",)}, "unknown feature 'prefix_groups'"),
    ],
)
def test_what_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Clustered(**given)


# As the first code of an STU


def test_clusters_are_first_codes(tmp_path: Path) -> None:
    model = fitted()
    tokenizer = ClusterCodes(dim=4).assign(GRAPH, model.head.assignments).fit(GRAPH, until=SPLIT.t_val)
    codes = tokenizer.stus(GRAPH).codes
    has = model.head.assignments >= 0
    assert torch.equal(codes[has, 0], model.head.assignments[has])
    assert (codes[~has] == -1).all()
    assert len(codes[has].unique(dim=0)) == int(has.sum())
    tokenizer.save(tmp_path)
    again = ClusterCodes.load(tmp_path)
    assert torch.equal(again.stus(GRAPH).codes, codes)
    with pytest.raises(ValueError, match="assign"):
        again.refit(GRAPH, until=SPLIT.t_test)
    more = again.assign(GRAPH, model.head.assignments).refit(GRAPH, until=SPLIT.t_test)
    assert torch.equal(more.stus(GRAPH).codes[has, 0], model.head.assignments[has])


def test_a_newcomer_has_the_first_code_of_their_contacts() -> None:
    model = fitted()
    tokenizer = ClusterCodes(dim=4).assign(GRAPH, model.head.assignments).fit(GRAPH, until=SPLIT.t_val)
    rows = planted_rows(0)
    late = max(row.time for row in rows) + HOUR
    graph = graph_of([*rows, Row(32, 5, late)], USERS)
    assert tokenizer.encode(graph, [32])[0, 0] == model.head.assignments[5]


def test_assignments_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"cluster must be \[34\]"):
        ClusterCodes().assign(GRAPH, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="there are 5 clusters and 4 codes"):
        ClusterCodes(codebook_size=4).assign(GRAPH, torch.arange(USERS) % 5)
    with pytest.raises(ValueError, match="assign"):
        ClusterCodes().fit(GRAPH, until=SPLIT.t_val)


# The benchmark and the page


def test_the_benchmark_on_a_toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "SHARES", (0.1, 1.0))
    sizes = {name: value for name, value in SMALL.items() if name != "progress"} | {"max_epochs": 1}
    benchmark.run("toy", GRAPH, "val", ["curve", "tables", "balance"], [0], tmp_path, sizes)
    kept = json.loads((tmp_path / "clusters.json").read_text())
    whole, *rows = kept["toy, val, curve, seed 0"]["rows"]
    for row in rows:
        if row["share"] < 1.0:
            assert row["searched"] <= row["share"] or row["besides"] != "off"
        else:
            for name in ("all", "repeat", "reply", "new"):
                assert row[name] == pytest.approx(whole[name])
    assert {row["groups"] for row in rows} >= {OWN, "faiss IVF", "random groups", "STU prefixes"}
    made_of = kept["toy, val, curve, seed 0"]["made of"]
    assert sum(row["members"] for row in made_of) == 32
    assert sum(row["by chance"] for row in made_of) == pytest.approx(1.0)
    assert set(kept["toy, val, tables, seed 0"]) == {"user table", "cluster table", "next cluster"}
    for name in ("", "-made-of"):
        assert (tmp_path / f"clusters-toy-0{name}.png").stat().st_size > 10_000
    monkeypatch.setitem(benchmark.TABLES, "curve", lambda *args: pytest.fail("judged again"))
    benchmark.run("toy", GRAPH, "val", ["curve"], [0], tmp_path, sizes)


def test_a_smaller_search_is_judged_as_the_protocol_does() -> None:
    model = fitted()
    kept = Kept(model, judged_events(GRAPH, "val", SPLIT))
    rows = evaluate_streaming(model, GRAPH, part="val", split=SPLIT, progress=False).rows()
    expected = {row["slice"]: row["mrr"] for row in rows if row["slice"] in kept.whole()}
    whole = kept.whole()
    assert set(expected) == set(whole) - {"hits@50"}
    for name, value in expected.items():
        assert whole[name] == pytest.approx(value, rel=1e-5)
    groups, scores = groups_of(model, 0)[OWN], model.score(kept.query).clone()
    found = kept.searched(groups, 0.4, "pointer")
    probed, size = kept._probed(groups, 0.4, "pointer", own=False)
    assert float(size.max()) <= 0.4 * USERS
    index, timeline, reciprocal = model.head.index, model.view.timeline, []
    for row in range(len(kept.query)):
        asker, tick = int(kept.query.user[row]), int(kept.tick[row])
        met = set(
            timeline.contacts.before(kept.query.user[row : row + 1], kept.tick[row : row + 1])[1].tolist()
        )
        searched = [
            v in met
            or int(index.since[v]) >= tick
            or any(index.share[v, s] > 0 and bool(probed[row, index.cluster[v, s]]) for s in (0, 1))
            for v in range(USERS)
        ]
        goal = int(kept.target[row])
        seen = sum(x and int(timeline.first_tick[v]) < tick for v, x in enumerate(searched))
        assert seen <= int(size[row])  # whoever is in two clusters counts twice
        own = scores[row, goal]
        others = [scores[row, v] for v in range(USERS) if searched[v] and v not in (asker, goal)]
        rank = 1.0 + sum(float(x > own) + 0.5 * float(x == own) for x in others)
        reciprocal.append(1.0 / rank if searched[goal] else 0.0)
    assert found["all"] == pytest.approx(sum(reciprocal) / len(reciprocal), rel=1e-5)
    assert found["all"] < whole["all"] or found["searched"] > 0.9


def test_the_page_of_clusters_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHREC_HOME", str(tmp_path))
    page = (Path(__file__).parents[1] / "docs" / "clusters.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
