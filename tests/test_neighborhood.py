"""The people around a query, and the mixture over them, against naive loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from graphs import Row, checked, graph_of, logs, permuted, random_rows, rewritten, shuffled_in_ties
from hypothesis import given
from hypothesis import strategies as st
from readable_neighborhood import readable_neighborhood

from graphrec.data import Query
from graphrec.features import (
    NUM_PAIR_FEATURES,
    NUM_PATH_FEATURES,
    NUM_PERSON_FEATURES,
    NUM_QUERY_FEATURES,
    path_features,
    person_features,
)
from graphrec.nn import COMPONENTS, CandidateScores, NeighborhoodMixture
from graphrec.nn.mixture_kernels import ABSENT
from graphrec.temporal import Neighborhood, NeighborhoodConfig, Timeline, UserActivity

USERS = 6
WIDE = NeighborhoodConfig(
    max_contacts=9,
    contact_window=99,
    max_bridges=9,
    max_per_bridge=9,
    bridge_window=99,
    max_recent=9,
    recent_window=99,
)
NARROW = NeighborhoodConfig(
    max_contacts=2,
    contact_window=9,
    max_bridges=1,
    max_per_bridge=2,
    bridge_window=9,
    max_recent=2,
    recent_window=4,
)


def met(rows: Sequence[Row], user: int) -> set[int]:
    return {r.dst for r in rows if r.src == user} | {r.src for r in rows if r.dst == user}


def around(rows: Sequence[Row], time: int, reach: NeighborhoodConfig) -> tuple[Timeline, Query, Neighborhood]:
    timeline = Timeline(graph_of(rows, USERS))
    user = torch.arange(USERS)
    query = Query(user, torch.full_like(user, time), torch.zeros_like(user))
    return timeline, query, Neighborhood.of(timeline, user, timeline.tick(query.time), reach)


def now(timeline: Timeline, query: Query, found: Neighborhood) -> UserActivity:
    return timeline.activity(found.user, timeline.tick(query.time)[found.row])


def people(found: Neighborhood, at: torch.Tensor, user: int) -> set[int]:
    """Who of one query's people stands at some places."""
    return set(found.user[at][found.row[at] == user].tolist())


@checked
@given(logs(), st.integers(-3, 8))
def test_a_wide_neighborhood_equals_the_naive_sets(rows: list[Row], time: int) -> None:
    past = [row for row in rows if row.time < time]
    _, _, found = around(rows, time, WIDE)
    assert len(set(zip(found.row.tolist(), found.user.tolist(), strict=True))) == len(found)
    for user in range(USERS):
        contacts = met(past, user)
        ends = {end for middle in contacts for end in met(past, middle)} - {user}
        seen = {person for row in past for person in (row.src, row.dst)} - contacts - {user}
        assert people(found, found.contact_position, user) == contacts
        assert people(found, found.path_end, user) == ends
        assert people(found, found.recent_position, user) == seen
        assert set(found.user[found.row == user].tolist()) == contacts | ends | seen
        paths = found.contacts.row[found.path_bridge] == user
        steps = zip(
            found.contacts.user[found.path_bridge][paths].tolist(),
            found.path_pair.user[paths].tolist(),
            strict=True,
        )
        assert sorted(steps) == sorted((m, e) for m in contacts for e in met(past, m) if e != user)


LIMITS = st.builds(
    NeighborhoodConfig,
    max_contacts=st.integers(1, 9),
    contact_window=st.integers(1, 20),
    max_bridges=st.integers(0, 9),
    max_per_bridge=st.integers(1, 9),
    bridge_window=st.integers(1, 20),
    max_recent=st.integers(1, 9),
    recent_window=st.integers(0, 20),
)


def assert_equals_the_readable_one(timeline: Timeline, query: Query, reach: NeighborhoodConfig) -> None:
    tick = timeline.tick(query.time)
    found = Neighborhood.of(timeline, query.user, tick, reach)
    expected = readable_neighborhood(timeline, query.user, tick, reach)
    for one, other in ((found, expected), *((getattr(found, x), getattr(expected, x)) for x in PARTS)):
        for name, value in vars(one).items():
            if name not in PARTS:
                assert value.dtype == torch.int64, name
                assert torch.equal(value, getattr(other, name)), name


PARTS = ("contacts", "path_pair")
QUERIES = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(-3, 8)), max_size=12)


@checked
@given(logs(), QUERIES, LIMITS)
def test_a_neighborhood_equals_the_readable_one(
    rows: list[Row], asked: list[tuple[int, int]], reach: NeighborhoodConfig
) -> None:
    """Every field in the same order, in any order of queries, with repeated ones."""
    user, time = torch.tensor(asked, dtype=torch.int64).view(-1, 2).T.contiguous()
    timeline = Timeline(graph_of(rows, USERS))
    assert_equals_the_readable_one(timeline, Query(user, time, torch.zeros_like(user)), reach)


@pytest.mark.parametrize("users", [70, 900, 70_000])
def test_a_large_neighborhood_equals_the_readable_one(users: int) -> None:
    """Of more people than the first table holds, and of indices of one, two and three bytes."""
    log = random_rows(3, users=users, events=4000, times=700)
    log += [Row(0, other, 700) for other in range(1, users, max(1, users // 1500))]
    timeline = Timeline(graph_of(log, users))
    user = torch.tensor([0, 5, 0, 69, 1])
    query = Query(user, torch.tensor([900, 900, 500, 900, 300]), torch.zeros_like(user))
    wide = NeighborhoodConfig(max_contacts=2000, contact_window=3000, max_recent=900, recent_window=4000)
    for reach in (NeighborhoodConfig(), wide):
        assert_equals_the_readable_one(timeline, query, reach)


@checked
@given(logs(), st.integers(-3, 8))
def test_a_narrow_neighborhood_keeps_the_latest(rows: list[Row], time: int) -> None:
    past = [row for row in rows if row.time < time]
    _, _, narrow = around(rows, time, NARROW)
    _, _, wide = around(rows, time, WIDE)
    for user in range(USERS):
        assert len(people(narrow, narrow.contact_position, user)) == min(2, len(met(past, user)))
        kept, all_ends = (people(x, x.path_end, user) for x in (narrow, wide))
        assert kept <= all_ends
        last = {v: max(r.time for r in past if v in (r.src, r.dst)) for v in range(USERS) if met(past, v)}
        for person in people(narrow, narrow.recent_position, user):
            assert sum(last[v] > last[person] for v in last) < 2


@checked
@given(logs(), st.integers(-3, 8), st.integers(0, 99))
def test_the_future_is_invisible(rows: list[Row], time: int, seed: int) -> None:
    other = rewritten(rows, time, num_users=USERS, seed=seed)
    (a, query, one), (b, _, two) = (around(log, time, WIDE) for log in (rows, other))
    assert torch.equal(one.row, two.row)
    assert torch.equal(one.user, two.user)
    torch.testing.assert_close(
        person_features(a, query, one, now(a, query, one)), person_features(b, query, two, now(b, query, two))
    )
    for x, y in zip(rows_of_paths(a, query, one), rows_of_paths(b, query, two), strict=True):
        torch.testing.assert_close(x, y)


def rows_of_paths(timeline: Timeline, query: Query, found: Neighborhood) -> list[torch.Tensor]:
    """Path features in an order that does not depend on ties."""
    features = path_features(timeline, query, found, now(timeline, query, found))
    key = (found.contacts.row[found.path_bridge] * USERS + found.contacts.user[found.path_bridge]) * USERS
    return list(features[(key + found.path_pair.user).argsort()])


@checked
@given(logs(times=(0, 3)), st.integers(0, 999))
def test_the_order_of_tied_rows_leaves_no_trace(rows: list[Row], seed: int) -> None:
    (a, query, one), (b, _, two) = (around(log, 4, WIDE) for log in (rows, shuffled_in_ties(rows, seed)))
    assert torch.equal(one.user, two.user)
    torch.testing.assert_close(
        person_features(a, query, one, now(a, query, one)), person_features(b, query, two, now(b, query, two))
    )


@checked
@given(logs(times=(0, 3)), st.permutations(range(USERS)))
def test_new_names_permute_the_people(rows: list[Row], new_id: list[int]) -> None:
    (a, query, one), (b, _, two) = (around(log, 4, WIDE) for log in (rows, permuted(rows, new_id)))
    renamed = torch.tensor(new_id)
    order = (renamed[one.row] * USERS + renamed[one.user]).argsort()
    assert torch.equal(renamed[one.user][order], two.user)
    torch.testing.assert_close(
        person_features(a, query, one, now(a, query, one))[order],
        person_features(b, query, two, now(b, query, two)),
    )


@checked
@given(logs(), st.integers(1, 4), st.integers(1, 12))
def test_recently_seen_equals_the_naive_loop(rows: list[Row], k: int, window: int) -> None:
    timeline = Timeline(graph_of(rows, USERS))
    moments = torch.arange(-4, 9)
    row, user = timeline.recently_seen(timeline.tick(moments), k=k, window=window)
    for number, time in enumerate(moments.tolist()):
        ends = [(r.time, v) for r in sorted(rows, key=lambda r: r.time) if r.time < time for v in r[:2]]
        border = ends[-window - 1][0] if len(ends) > window else -math.inf
        last = {v: when for when, v in ends if when > border}
        expected = {v for v in last if sum(x > last[v] for x in last.values()) < k}
        found = user[row == number].tolist()
        assert set(found) == expected
        assert len(found) == len(expected)
        assert [last[v] for v in found] == sorted((last[v] for v in found), reverse=True)


@checked
@given(logs())
def test_activity_is_all_lookups_at_once(rows: list[Row]) -> None:
    timeline = Timeline(graph_of(rows, USERS))
    user, tick = torch.arange(USERS), timeline.tick(torch.arange(-4, 9))[:, None]
    found = timeline.activity(user, tick)
    for name in ("num_acts", "num_received", "degree", "last_act", "last_received"):
        assert torch.equal(getattr(found, name), getattr(timeline, name)(user, tick)), name


def test_nobody_around() -> None:
    _, _, found = around([Row(0, 1, 5)], 5, WIDE)
    assert len(found) == len(found.path_pair) == len(found.contacts) == 0


def test_common_contacts_are_counted() -> None:
    """0 and 3 have both met 1 and 2; 4 has met 1 alone."""
    rows = [Row(0, 1, 0), Row(2, 0, 1), Row(1, 3, 2), Row(3, 2, 3), Row(4, 1, 4)]
    timeline, query, found = around(rows, 9, WIDE)
    features = person_features(timeline, query, found, now(timeline, query, found))[found.row == 0]
    common = dict(zip(found.user[found.row == 0].tolist(), features[:, -2].expm1().tolist(), strict=True))
    assert common == pytest.approx({1: 0, 2: 0, 3: 2, 4: 1}, abs=1e-5)
    weights = features[found.user[found.row == 0] == 3, -3].expm1().item()
    assert weights == pytest.approx(1 / math.log(3) + 1 / math.log(2))


def votes(seed: int) -> CandidateScores:
    """Two sources over the people of four queries; the third query has nobody, the fourth one source."""
    generator = torch.Generator().manual_seed(seed)
    row, user = torch.tensor([0, 0, 0, 1, 1, 3]), torch.tensor([1, 4, 5, 0, 2, 4])
    scores = torch.randn(2, 6, generator=generator) * 3
    scores[0, 2] = scores[1, 3] = scores[0, 5] = ABSENT
    gate = torch.randn(4, 3, generator=generator)
    return CandidateScores(row, user, scores, gate, torch.zeros_like(row, dtype=torch.bool))


def naive_mixture(given: CandidateScores, barred: set[tuple[int, int]]) -> list[dict[int, float]]:
    """Probabilities of the people around each query; under -1 the share of everyone beyond."""
    out = []
    for query in range(4):
        inside: list[dict[int, float]] = []
        for source in given.scores.tolist():
            members = [
                (int(v), score)
                for r, v, score in zip(given.row, given.user, source, strict=True)
                if r == query and score > ABSENT and (query, int(v)) not in barred
            ]
            total = sum(math.exp(score) for _, score in members)
            inside.append({v: math.exp(score) / total for v, score in members})
        gates = [
            math.exp(g) if inside[i : i + 1] != [{}] else 0.0
            for i, g in enumerate(given.gate[query].tolist())
        ]
        mixture: dict[int, float] = {-1: gates[2] / sum(gates)}
        for gate, source_p in zip(gates, inside, strict=False):
            for v, p in source_p.items():
                mixture[v] = mixture.get(v, 0.0) + gate / sum(gates) * p
        out.append(mixture)
    return out


def naive_alone(given: CandidateScores, barred: set[tuple[int, int]], target: torch.Tensor) -> list[float]:
    """The log-probabilities of each row's target by each source that has it, added up."""
    out = [0.0] * len(target)
    for score in given.scores.tolist():
        for q, v in enumerate(target.tolist()):
            people = zip(given.row.tolist(), given.user.tolist(), score, strict=True)
            own = {u: s for row, u, s in people if row == q and s > ABSENT}
            left = {u: s for u, s in own.items() if (q, u) not in barred}
            if v in own:
                out[q] += own[v] - math.log(sum(map(math.exp, left.values()))) if left else 0.0
    return out


@pytest.mark.parametrize("barred", [set(), {(0, 4), (3, 4), (1, 3)}])
@pytest.mark.parametrize("seed", range(3))
def test_the_mixture_equals_the_naive_one(seed: int, barred: set[tuple[int, int]]) -> None:
    given_votes = votes(seed)
    expected = naive_mixture(given_votes, barred)
    pairs = torch.tensor(sorted(barred)).view(-1, 2)
    table = torch.tensor([0.1, 0.2, 0.3, 0.4])
    for target in (torch.tensor([1, 2, 5, 0]), torch.tensor([5, 0, 0, 5])):
        found, alone = given_votes.log_likelihood(
            torch.arange(4), target, (pairs[:, 0], pairs[:, 1]), table.log()
        )
        naive = [
            expected[q].get(int(v), 0.0) + expected[q][-1] * float(table[q]) for q, v in enumerate(target)
        ]
        torch.testing.assert_close(found.exp(), torch.tensor(naive))
        expected_alone = torch.tensor(naive_alone(given_votes, barred, target)) + table.log()
        torch.testing.assert_close(alone, expected_alone)
    if not barred:
        inside, beyond = given_votes.shares()
        torch.testing.assert_close(beyond, torch.tensor([mixture[-1] for mixture in expected]))
        assert inside.tolist() == pytest.approx(
            [expected[int(q)][int(v)] for q, v in zip(given_votes.row, given_votes.user, strict=True)]
        )


def test_a_mixture_trains_without_nan() -> None:
    given_votes = votes(0)
    scores, gate = given_votes.scores.requires_grad_(), given_votes.gate.requires_grad_()
    table = torch.zeros(4, requires_grad=True)
    found, alone = CandidateScores(
        given_votes.row, given_votes.user, scores, gate, given_votes.contact
    ).log_likelihood(torch.arange(4), torch.tensor([1, 2, 5, 0]), None, table)
    (found + alone).sum().backward()
    for gradient in (scores.grad, gate.grad, table.grad):
        assert gradient is not None
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("barred", [None, ([0, 0, 3], [4, 9, 4])])
def test_the_gradient_is_that_of_the_likelihood(barred: tuple[list[int], list[int]] | None) -> None:
    given_votes = votes(1)
    query, target = torch.tensor([0, 1, 3]), torch.tensor([1, 2, 3])
    excluded = None if barred is None else (torch.tensor(barred[0]), torch.tensor(barred[1]))
    head = torch.tensor([0.2, 0.3, 0.1]).log()

    def both(scores: torch.Tensor, gate: torch.Tensor, head_log_p: torch.Tensor) -> torch.Tensor:
        scores = torch.where(given_votes.scores > ABSENT, scores, ABSENT)
        own = CandidateScores(given_votes.row, given_votes.user, scores, gate, given_votes.contact)
        return torch.stack(own.log_likelihood(query, target, excluded, head_log_p))

    inputs = (x.double().requires_grad_() for x in (given_votes.scores, given_votes.gate, head))
    assert torch.autograd.gradcheck(both, tuple(inputs))


@pytest.mark.parametrize("has_profiles", [False, True])
def test_layers_in_parts_are_the_layers_of_all_inputs(has_profiles: bool) -> None:
    """The first layer of `union` and of `path`, computed for queries, contacts and kinds apart."""
    rows = [Row(0, 1, 0), Row(2, 0, 1), Row(1, 3, 2), Row(3, 2, 3), Row(4, 1, 4), Row(5, 4, 5)]
    _, _, found = around(rows, 9, WIDE)
    torch.manual_seed(0)
    mixture = NeighborhoodMixture(COMPONENTS, 2, has_profiles=has_profiles, group_votes=True).eval()
    for layer in (mixture.union[-1], mixture.group_vote[-1], mixture.path[-1]):
        torch.nn.init.normal_(layer.weight)
    query = torch.randn(int(found.row.max()) + 1, NUM_QUERY_FEATURES)
    pair, path = (
        torch.randn(len(found.contacts), NUM_PAIR_FEATURES),
        torch.randn(len(found.path_end), NUM_PATH_FEATURES),
    )
    person, kinds = torch.randn(len(found), NUM_PERSON_FEATURES), torch.randint(2, (len(path), 2))
    affinity = torch.randn(len(found)) if has_profiles else None
    given_scores = mixture(found, query, pair, path=path, kinds=kinds, person=person, affinity=affinity)
    of_paths = torch.cat([mixture.standardize_path(path), mixture.kind(kinds).flatten(1)], 1)
    weight = torch.zeros(len(found), 4).index_add(
        0, found.path_end, mixture.path(of_paths).clamp(-15.0, 15.0).exp()
    )
    flags = torch.zeros(3, len(found))
    for flag, place in enumerate((found.contact_position, found.path_end, found.recent_position)):
        flags[flag, place] = 1.0
    pairs = torch.zeros(len(found), NUM_PAIR_FEATURES)
    pairs[found.contact_position] = mixture.standardize_pair(pair)
    inputs = [flags.T, pairs, mixture.standardize_person(person), weight.log1p(), query[found.row]]
    inputs += [] if affinity is None else [affinity[:, None]]
    everything = torch.cat(inputs, 1)
    torch.testing.assert_close(given_scores.scores[-1], mixture.union(everything).squeeze(1))
    torch.testing.assert_close(given_scores.group_vote, mixture.group_vote(everything).squeeze(1))
