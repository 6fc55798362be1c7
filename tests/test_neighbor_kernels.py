"""Kernels that list neighbors beside a beam search, against loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.models.heads.codes.neighbor_kernels import list_likeliest, list_without_stu

QUERIES, USERS = 3, 9


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(0, 5))
def test_lists_are_those_of_loops_over_queries(seed: int, k: int, num_excluded: int) -> None:
    draw = np.random.default_rng(seed)
    pairs = sorted(
        {(int(b), int(u)) for b, u in zip(*draw.integers(0, (QUERIES, USERS), (12, 2)).T, strict=True)}
    )
    row, user = np.array(pairs, np.int64).T.copy()
    with_stu = draw.random(USERS) < 0.5
    has, others = with_stu[user], draw.permutation(np.flatnonzero(~with_stu))
    inside = draw.choice(np.array([0.0, 0.1, 0.2], np.float32), len(row))
    log_none = np.log(draw.random(QUERIES).astype(np.float32))
    excluded = draw.integers(0, QUERIES, num_excluded)
    least = np.float32(1e-30)
    found = list(
        zip(*list_without_stu(row, user, has, inside, log_none, others, excluded, k, least), strict=True)
    )
    assert len({(b, u) for b, u, _ in found}) == len(found)
    for b in range(QUERIES):
        around = {u: p for c, u, p, stu in zip(row, user, inside, has, strict=True) if c == b and not stu}
        mine = {u: p for c, u, p in found if c == b}
        assert set(around) <= set(mine)
        for u, p in mine.items():
            assert not with_stu[u]
            np.testing.assert_allclose(np.exp(p), around.get(u, 0.0) + np.exp(log_none[b]), rtol=1e-5)
        rest = [u for u in others if u not in around]
        listed = [u for u in rest if u in mine]
        assert listed == rest[: len(listed)]  # in order
        assert len(listed) >= min(len(rest), k + int((excluded == b).sum()))

    person = np.flatnonzero(has)
    likeliest = list_likeliest(row[person], person, inside[person], QUERIES, k).tolist()
    for b in range(QUERIES):
        mine = [p for p in person.tolist() if row[p] == b]
        best = sorted(mine, key=lambda p: (-inside[p], p))[:k]
        assert sorted(p for p in likeliest if row[p] == b) == sorted(best)
