"""Kernels of a step down the tree of STUs, against loops over one prefix at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.decode.search_kernels import find_paths
from graphrec.models.heads.codes.step_kernels import fill_log_probs, find_children, spread_mass

CODES, LEVELS = 4, 2


class Case:
    """A tree of two levels, prefixes of three queries at its first one, and voters."""

    def __init__(self, seed: int, num_voters: int) -> None:
        draw = np.random.default_rng(seed)
        stus = np.unique(draw.integers(0, CODES, (9, LEVELS)), axis=0)
        codes, above = np.unique(stus[:, 0], return_inverse=True)
        size = np.bincount(above)
        inner = 1 + len(codes)
        self.code = np.concatenate([[0], codes, stus[:, 1]])
        self.number = np.concatenate([[len(codes)], size, np.zeros(len(stus), np.int64)])
        self.first = np.concatenate([[1], inner + size.cumsum() - size, np.zeros(len(stus), np.int64)])
        self.start = np.concatenate([[0], size.cumsum() - size, np.arange(len(stus))])
        pairs = sorted({(int(r), int(n)) for r, n in zip(*draw.integers(0, 3, (2, 5)), strict=True)})
        pairs = [(row, 1 + node % len(codes)) for row, node in pairs]
        self.row, self.node = np.array(sorted(set(pairs)), np.int64).T.copy()
        leaf = draw.integers(0, len(stus), num_voters)
        self.path = np.stack([np.zeros_like(leaf), 1 + above[leaf], inner + leaf], 1)
        self.voter_row = draw.integers(0, 3, num_voters)
        self.weight = draw.random(num_voters).astype(np.float32)
        self.draw, self.leaves = draw, leaf

    def children(self, prefix: int) -> range:
        first = int(self.first[self.node[prefix]])
        return range(first, first + int(self.number[self.node[prefix]]))

    def voters(self, prefix: int, child: int | None = None) -> list[int]:
        """Those of the prefix's query whose STU goes on to it, and to a child."""
        row, node = self.row[prefix], self.node[prefix]
        return [
            v
            for v in range(len(self.voter_row))
            if self.voter_row[v] == row
            and self.path[v, 1] == node
            and (child is None or self.path[v, 2] == child)
        ]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 8), st.booleans())
def test_a_step_is_that_of_one_prefix_at_a_time(seed: int, num_voters: int, mixes: bool) -> None:
    case = Case(seed, num_voters)
    least = np.float32(1e-12)
    columns = case.row, case.node, case.first, case.number, case.voter_row, case.path
    at, child, first, votes, total, logs = find_children(*columns, 1, case.weight, least)
    listed = [(r, c) for r in range(len(case.row)) for c in case.children(r)]
    assert list(zip(at, child, strict=True)) == listed
    assert first.tolist() == [listed.index((r, case.children(r)[0])) for r in range(len(case.row))]
    below = {(v, r, listed.index((r, case.path[v, 2]))) for r in range(len(case.row)) for v in case.voters(r)}
    assert set(map(tuple, votes.T.tolist())) == below
    for r in range(len(case.row)):
        weights = case.weight[case.voters(r)]
        np.testing.assert_allclose(total[r], weights.sum(), rtol=1e-6)
        expected = [np.log1p(len(weights)) / 4, np.log(total[r] + 1e-12) / 8]
        np.testing.assert_allclose(logs[r], expected, rtol=1e-6)

    logits = case.draw.normal(size=(len(case.row), CODES)).astype(np.float32)
    score = case.draw.normal(size=len(child)).astype(np.float32)
    trust = case.draw.random(len(case.row)).astype(np.float32)
    log_p = np.empty(len(child), np.float32)
    given = (logits, score, first, child, case.code, votes, case.weight)
    fill_log_probs(*given, mixes, total, np.log(trust / (1 - trust)), least, log_p)
    for r in range(len(case.row)):
        mine = at == r
        p = np.exp(logits[r, case.code[child[mine]]] + score[mine])
        p /= p.sum()
        if mixes and total[r] > 0:
            share = np.array([case.weight[case.voters(r, c)].sum() for c in child[mine]]) / total[r]
            p = trust[r] * share + (1 - trust[r]) * p
        np.testing.assert_allclose(np.exp(log_p[mine]), p, rtol=1e-4, atol=1e-6)

    inside = case.draw.random(num_voters).astype(np.float32)
    generated = case.draw.random(len(case.row)).astype(np.float32)
    out = np.full(logits.shape, -np.inf, np.float32)
    kept = np.zeros_like(out)
    columns = (at, child, log_p, case.code, generated, votes[0].copy(), votes[2].copy(), inside)
    spread_mass(*columns, np.float32(1e-30), out, kept)
    for r in range(len(case.row)):
        mine = at == r
        mass = generated[r] * np.exp(log_p[mine])
        places = case.code[child[mine]]
        np.testing.assert_allclose(kept[r, places], mass, rtol=1e-5)
        assert np.isneginf(np.delete(out[r], places)).all()
        assert not np.delete(kept[r], places).any()
        mass = mass + np.array([inside[case.voters(r, c)].sum() for c in child[mine]])
        np.testing.assert_allclose(np.exp(out[r, places]), mass / mass.sum(), rtol=1e-4)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_paths_lead_from_the_root_to_the_leaf_of_a_user(seed: int) -> None:
    case = Case(seed, 6)
    place = np.where(case.weight < 0.3, -1, case.leaves)  # one user a leaf
    out = np.empty((6, 3), np.int64)
    nodes = (case.first, case.number, case.start, out)
    find_paths(place, np.zeros(6, np.int64), np.zeros(1, np.int64), *nodes)
    assert np.array_equal(out, np.where(place[:, None] >= 0, case.path, -1))
