"""The GNN RQ-VAE: what it learns and from whom; what every tokenizer does is tested elsewhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from graphs import Row, graph_of, planted_rows, rewritten
from torch import Tensor, nn

import graphrec.tokenizer.gnn.inputs as module
from benchmarks.correctness.planted_codes import adjusted_mutual_information
from graphrec.data import EventLog, FriendGraph, UserTable
from graphrec.loader import audit_leakage
from graphrec.nn.graph_encoder import GraphEncoder
from graphrec.tokenizer import code_drift, evaluate_tokenizer
from graphrec.tokenizer.gnn import GNNRQVAE
from graphrec.tokenizer.gnn.newcomers import place_newcomers
from graphrec.tokenizer.gnn.objective import TieObjective
from graphrec.tokenizer.gnn.snapshots import SnapshotPairs, Snapshots, TrainingHistory

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

HOUR = 3600
GROUPS, SIZE = 8, 12
USERS = GROUPS * SIZE
ROWS = planted_rows(0, groups=GROUPS, size=SIZE, events=2400)
UNTIL = ROWS[2000].time
CIRCLE = torch.arange(USERS) // SIZE
SMALL = {"dim": 16, "epoch_batches": 6, "batch_size": 128, "max_epochs": 2}


@cache
def fitted() -> GNNRQVAE:
    """On the circles, as many codes as there are circles; not to be changed."""
    return GNNRQVAE(codebook_size=GROUPS, **SMALL).fit(graph_of(ROWS), until=UNTIL)


def test_codes_recover_planted_circles() -> None:
    first = fitted().codes_of_fit(graph_of(ROWS))[:, 0]
    assert adjusted_mutual_information(first, CIRCLE) > 0.9
    shuffled = CIRCLE[torch.randperm(USERS, generator=torch.Generator().manual_seed(0))]
    assert abs(adjusted_mutual_information(first, shuffled)) < 0.1


def test_codes_tell_later_ties_of_circles_and_nothing_of_chance() -> None:
    found = evaluate_tokenizer(fitted(), graph_of(ROWS), later=ROWS[-1].time + 1).ties
    assert found.finds_structure
    rng = np.random.default_rng(1)
    src = rng.integers(300, size=3000)
    dst = (src + rng.integers(1, 300, size=3000)) % 300
    rows = [Row(int(u), int(v), HOUR * i) for i, (u, v) in enumerate(zip(src, dst, strict=True))]
    chance = GNNRQVAE(**SMALL).fit(graph_of(rows), until=HOUR * 2400)
    assert chance.curve
    assert not evaluate_tokenizer(chance, graph_of(rows), later=HOUR * 3001).ties.finds_structure


def test_training_tells_ties_that_were_held_out() -> None:
    curve = fitted().curve
    assert [row["epoch"] for row in curve] == [0, 1]
    assert curve[1]["val_score"] > curve[0]["val_score"]
    assert curve[0]["loss"] == pytest.approx(curve[0]["retrieval"] + curve[0]["code_agreement"], abs=1e-4)


def test_a_newcomer_joins_the_circle_of_three_contacts() -> None:
    later = UNTIL + HOUR
    new = [Row(USERS + g, g * SIZE + i, UNTIL + i, "contact") for g in range(GROUPS) for i in range(3)]
    rows = sorted([row for row in ROWS if row.time < UNTIL] + new, key=lambda row: row.time)
    graph = graph_of(rows, USERS + GROUPS)
    tokenizer = GNNRQVAE(codebook_size=GROUPS, **SMALL).fit(graph, until=UNTIL)
    before = tokenizer.codes_of_fit(graph)
    assert torch.equal(before[:USERS], fitted().codes_of_fit(graph_of(ROWS)))
    codes = tokenizer.encode(graph, torch.arange(USERS, USERS + GROUPS), until=later)
    usual = before[:USERS, 0].view(GROUPS, SIZE).mode(1).values
    assert (codes[:, 0] == usual).sum() >= GROUPS - 1
    assert torch.equal(tokenizer.codes_of_fit(graph), before)


def test_a_newcomer_starts_amid_contacts_of_whom_hubs_count_less() -> None:
    """Who has a place keeps it; whoever knows nobody who has one gets none."""
    pairs = [(0, 2), (1, 3), (1, 4), (1, 5), (6, 0), (6, 1), (7, 8)]
    graph = graph_of([Row(*pair, time=i) for i, pair in enumerate(pairs)], 9)
    places = torch.zeros(9, 3)
    places[0], places[1], places[2:6] = torch.eye(3)
    before = places.clone()
    new = place_newcomers(places, TrainingHistory.of(graph, seed=0).timeline)
    assert new.tolist() == [user == 6 for user in range(9)]
    assert torch.equal(places[~new], before[~new])
    expected = torch.tensor([(1 + 2) ** -0.5, (1 + 4) ** -0.5, 0.0])  # of 2 and of 4 contacts
    assert torch.allclose(places[6], F.normalize(expected, dim=0))


def test_a_warm_refit_keeps_the_first_code() -> None:
    old, until = fitted(), ROWS[2100].time
    new = old.refit(graph_of(ROWS), until=until)
    assert code_drift(old, new)[0] < 0.1
    assert new.until == until
    assert len(new.curve) == 1
    assert adjusted_mutual_information(new.codes_of_fit(graph_of(ROWS))[:, 0], CIRCLE) > 0.9


def test_a_second_fit_knows_nothing_of_the_first() -> None:
    tokenizer = GNNRQVAE(codebook_size=GROUPS, **SMALL).fit(graph_of(ROWS), until=ROWS[1000].time)
    tokenizer.fit(graph_of(ROWS), until=UNTIL)
    assert torch.equal(tokenizer.table.codes, fitted().table.codes)


def test_an_interrupted_fit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = GNNRQVAE(codebook_size=GROUPS, folder=tmp_path, **SMALL)
    with monkeypatch.context() as patch:
        presence, calls = module.presence_features, []

        def interrupted(*args: Any) -> Tensor:
            calls.append(1)
            if len(calls) == 7:  # in the second epoch, which has four batches as the first, and a validation
                raise KeyboardInterrupt
            return presence(*args)

        patch.setattr(module, "presence_features", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tokenizer.fit(graph_of(ROWS), until=UNTIL)
    again = GNNRQVAE(codebook_size=GROUPS, folder=tmp_path, **SMALL).fit(graph_of(ROWS), until=UNTIL)
    assert again.curve == fitted().curve
    assert torch.equal(again.table.codes, fitted().table.codes)


def test_what_was_saved_embeds_newcomers(tmp_path: Path) -> None:
    rows = [*ROWS, Row(USERS, 3, ROWS[-1].time + HOUR), Row(5, USERS, ROWS[-1].time + HOUR)]
    graph = graph_of(rows)
    one = GNNRQVAE(codebook_size=GROUPS, **SMALL).fit(graph, until=UNTIL)
    one.save(tmp_path)
    other = GNNRQVAE.load(tmp_path)
    assert torch.equal(one.encode(graph, torch.tensor([USERS])), other.encode(graph, torch.tensor([USERS])))
    later = one.refit(graph, until=ROWS[-1].time), other.refit(graph, until=ROWS[-1].time)
    assert torch.equal(later[0].table.codes, later[1].table.codes)


def test_friendships_without_times_are_learned_from() -> None:
    pairs = sorted({(min(row.src, row.dst), max(row.src, row.dst)) for row in ROWS})
    graph = graph_of([Row(*pair, time=0, action="befriend") for pair in pairs])
    tokenizer = GNNRQVAE(codebook_size=GROUPS, **SMALL).fit(graph, until=1)
    assert tokenizer.curve
    assert adjusted_mutual_information(tokenizer.codes_of_fit(graph)[:, 0], CIRCLE) > 0.9


def test_too_few_ties_leave_the_places() -> None:
    tokenizer = GNNRQVAE(**SMALL).fit(graph_of(ROWS[:40]), until=ROWS[40].time)
    assert tokenizer.curve == []
    assert len(tokenizer.table) > 10


@pytest.mark.parametrize("columns", [12, 80])
def test_features_place_whoever_has_no_contact(columns: int) -> None:
    """What people like is their circle's, up to noise; wide features are seen by their components."""
    rng = np.random.default_rng(0)
    center = rng.normal(size=(GROUPS, columns))
    people = [*range(USERS), *range(1000, 1000 + GROUPS)]
    circle = [*CIRCLE.tolist(), *range(GROUPS)]
    x = center[circle] + 0.1 * rng.normal(size=(len(people), columns))
    table = pa.table({"user": people} | {f"x{i}": x[:, i] for i in range(columns)})
    src, dst, time, action = zip(*ROWS, strict=True)
    log = EventLog.from_arrays(src, dst, time, action=action)
    graph = FriendGraph.from_events(log, UserTable.from_table(table, where="the users"))
    tokenizer = GNNRQVAE(codebook_size=GROUPS, **SMALL).fit(graph, until=UNTIL)
    codes = tokenizer.encode(graph, list(range(1000, 1000 + GROUPS)), until=UNTIL)
    usual = tokenizer.codes_of_fit(graph)[:USERS, 0].view(GROUPS, SIZE).mode(1).values
    assert (codes[:, 0] == usual).sum() >= GROUPS - 2


# What it learns from


def test_to_know_the_moment_tells_no_tie_from_other_pairs() -> None:
    """Embeddings that say at which of two moments somebody is looked at are as good as none."""
    view, met = torch.arange(64) % 2, torch.arange(64) < 40
    objective = TieObjective(2)
    objective.codebook = nn.Parameter(torch.eye(2))
    z = torch.eye(2)[view].repeat(2, 1)
    with torch.no_grad():
        terms = objective(z, torch.arange(128), met, view)
    assert float(terms["retrieval"]) == pytest.approx(np.log(20), abs=1e-5)  # of 20 ties at its moment
    assert float(terms["code_agreement"]) == pytest.approx(0.0, abs=1e-5)


def test_views_are_strictly_past_and_ties_come_after() -> None:
    views = Snapshots.of(TrainingHistory.of(graph_of(ROWS), seed=0), torch.randn(USERS, 8))
    ties = SnapshotPairs.of(views)
    seen: dict[int, set[frozenset[int]]] = {}
    instants = views.history.timeline.instants
    expected = set()
    for view, tick in enumerate(views.tick.tolist()):
        start = int(instants[tick - 1])
        end = int(instants[int(views.tick[view + 1]) - 1]) if view + 1 < len(views.tick) else 2**62
        seen[view] = {frozenset(row[:2]) for row in ROWS if row.time <= start}
        known = set().union(*seen[view])
        new = {frozenset(row[:2]) for row in ROWS if start < row.time <= end} - seen[view]
        expected |= {(pair, view) for pair in new if pair <= known}
    found = [
        (frozenset((u, v)), view)
        for u, v, view in zip(ties.src.tolist(), ties.dst.tolist(), ties.snapshot.tolist(), strict=True)
    ]
    assert len(found) == len(set(found)) > 50
    assert set(found) == expected
    assert 0.3 < float((ties.src < ties.dst).float().mean()) < 0.7


def test_places_of_a_view_do_not_see_what_follows() -> None:
    """Up to a turn, since they are turned to where people stand in the end."""

    def views_of(rows: list[Row]) -> Snapshots:
        torch.manual_seed(0)
        return Snapshots.of(TrainingHistory.of(graph_of(rows, USERS), seed=0), torch.eye(USERS, 8))

    views = views_of(ROWS)
    moment = int(views.history.timeline.instants[views.tick[0] - 1]) + 1
    other = rewritten(ROWS, moment, num_users=USERS, seed=1)[: len(ROWS)]
    again = views_of(other)
    assert int(again.tick[0]) == int(views.tick[0])
    gram = [view.spectral[0] @ view.spectral[0].T for view in (views, again)]
    assert gram[0].abs().max() > 0.5
    assert float((gram[0] - gram[1]).abs().max()) < 1e-4


def test_batches_do_not_see_what_follows() -> None:
    views = Snapshots.of(TrainingHistory.of(graph_of(ROWS), seed=0), torch.randn(USERS, 8))
    ties = SnapshotPairs.of(views).with_random_pairs(views)
    assert 10 < int((~ties.is_tie).sum()) < len(ties) / 4
    assert audit_leakage(ties.loader(views, [4, 2], seed=0, batch_size=64), num_moments=2)


def test_a_drawn_order_keeps_pairs_together() -> None:
    pairs = [(0, 1), (1, 0), (2, 3), (3, 2), (1, 2), (0, 3), (0, 1)]
    graph = graph_of([Row(*pair, time=5, action="ab"[i % 2]) for i, pair in enumerate(pairs)])
    past = TrainingHistory.of(graph, seed=0)
    events = past.timeline.events
    assert (events.time.diff() >= 0).all()
    times: dict[frozenset[int], set[int]] = {}
    for u, v, t in zip(events.src.tolist(), events.dst.tolist(), events.time.tolist(), strict=True):
        times.setdefault(frozenset((u, v)), set()).add(t)
    assert sorted(t for (t,) in times.values()) == [0, 1, 2, 3]
    before = sorted(zip(*(x.tolist() for x in (graph.events().src, graph.events().dst)), strict=True))
    assert sorted(zip(events.src.tolist(), events.dst.tolist(), strict=True)) == before
    past.graph.validate()


# The network


def test_an_untrained_encoder_smooths_places() -> None:
    torch.manual_seed(0)
    encoder = GraphEncoder(4, edge_channels=3, node_channels=2, profile_channels=1).eval()
    place, row, column = (
        F.normalize(torch.randn(5, 4), dim=1),
        torch.tensor([0, 0, 1]),
        torch.tensor([1, 2, 4]),
    )
    place[3] = place[1] = 0.0
    out = encoder(place, torch.randn(5, 2), torch.randn(5, 1), row, column, torch.randn(3, 3))
    assert torch.allclose(out[0], F.normalize(place[0] + F.normalize(place[2], dim=0), dim=0), atol=1e-6)
    assert torch.allclose(out[1], place[4], atol=1e-6)
    assert torch.allclose(out[2], place[2], atol=1e-6)
    assert not out[3].any()


@pytest.mark.parametrize(
    "settings", [{"dim": 0}, {"num_neighbors": ()}, {"num_neighbors": (0,)}, {"max_epochs": 0}]
)
def test_no_network_without_a_size(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        GNNRQVAE(**settings)
