"""First acts and mutual ties against plain loops."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphrec.data.ties import FirstActs, mutual_ties

EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 6)), max_size=30)


def columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, ...]:
    return tuple(np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))


@given(EVENTS)
def test_first_acts_are_those_of_a_loop(rows: list[tuple[int, int, int]]) -> None:
    src, dst, _ = columns(rows)
    first: dict[tuple[int, int], int] = {}
    for event, (u, v, _) in enumerate(rows):
        first.setdefault((u, v), event)
    pairs = sorted(first)
    acts = FirstActs.of(src, dst, 5)
    assert list(zip(acts.src.tolist(), acts.dst.tolist(), strict=True)) == pairs
    assert acts.event.tolist() == [first[pair] for pair in pairs]
    assert acts.back.tolist() == [pairs.index((v, u)) if (v, u) in first else -1 for u, v in pairs]


@given(EVENTS)
def test_a_tie_becomes_mutual_at_the_later_first_act(rows: list[tuple[int, int, int]]) -> None:
    rows = sorted(rows, key=lambda row: row[2])
    src, dst, time = (torch.from_numpy(column) for column in columns(rows))
    edges, became = mutual_ties(src, dst, time, 5)
    first: dict[tuple[int, int], int] = {}
    for u, v, moment in rows:
        first.setdefault((u, v), moment)
    expected = {pair: max(at, first[pair[::-1]]) for pair, at in first.items() if pair[::-1] in first}
    found = list(zip(map(tuple, edges.t().tolist()), became.tolist(), strict=True))
    assert dict(found) == expected
    assert len(found) == len(expected)
    assert became.tolist() == sorted(became.tolist())
