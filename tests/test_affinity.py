"""The matrix of contact weights: equal to one built from the log, and multiplied as any matrix is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from graphs import Row, checked, graph_of, logs
from hypothesis import given
from hypothesis import strategies as st

from graphrec.temporal import SpectralEmbeddings, Timeline, spectral
from graphrec.temporal.affinity import Affinity

USERS = 6


def dense_affinity(timeline: Timeline, tick: int, half_life: float, *, regularized: bool) -> np.ndarray:
    """The definition, event by event."""
    weight = np.zeros((USERS, USERS))
    ticks = timeline.event_tick.tolist()
    for src, dst, when in zip(timeline.events.src.tolist(), timeline.events.dst.tolist(), ticks, strict=True):
        if when < tick:
            weight[[src, dst], [dst, src]] += 2.0 ** -((tick - when) / (half_life * tick))
    weight = np.log1p(weight)
    degree = weight.sum(1)
    added = degree[degree > 0].mean() if regularized else 0.0
    scale = np.sqrt(np.maximum(degree + added, 1e-300))
    out: np.ndarray = weight / scale[:, None] / scale
    return out


def dense_of(matrix: Affinity) -> np.ndarray:
    out = np.zeros((USERS, USERS))
    row = np.repeat(np.arange(USERS), np.diff(matrix.start))
    out[row, matrix.other] = matrix.weight
    return out


@checked
@given(logs(), st.integers(1, 9), st.sampled_from([0.35, math.inf]), st.booleans())
def test_weights_are_those_of_earlier_events(
    rows: list[Row], tick: int, half_life: float, regularized: bool
) -> None:
    timeline = Timeline(graph_of(rows, USERS))
    tick = min(tick, len(timeline.instants))
    matrix = Affinity.of(timeline, tick, half_life, regularized=regularized, dtype=np.dtype(np.float64))
    wanted = dense_affinity(timeline, tick, half_life, regularized=regularized)
    np.testing.assert_allclose(dense_of(matrix), wanted, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_is_scaled_and_added_to(dtype: type) -> None:
    rows = [Row(0, 1, 1), Row(1, 2, 2), Row(4, 2, 2), Row(0, 1, 3), Row(5, 0, 4)]
    timeline = Timeline(graph_of(rows, USERS))
    matrix = Affinity.of(timeline, 4, 0.35, regularized=True, dtype=np.dtype(dtype))
    rng = np.random.default_rng(0)
    basis: np.ndarray = rng.standard_normal((USERS, 3)).astype(dtype)
    out: np.ndarray = rng.standard_normal((USERS, 3)).astype(dtype)
    wanted = 2.0 * dense_of(matrix) @ basis + 3.0 * basis - 0.5 * out
    found = matrix.multiply(basis, out, times=2.0, plus=3.0, keep=-0.5)
    assert found is out
    assert found.dtype == dtype
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_single_precision_embeds_as_double_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    size = 80
    rows = [Row(*rng.choice(size, 2, replace=False).tolist(), time) for time in range(600)]
    timeline = Timeline(graph_of(rows, size))
    start = torch.randn(size, 4, generator=torch.Generator().manual_seed(0))
    exact = SpectralEmbeddings(timeline, start, every=200).embedding
    monkeypatch.setattr(spectral, "MAX_EXACT_USERS", size - 1)
    single = SpectralEmbeddings(timeline, start, every=200).embedding
    assert not torch.equal(single, exact)
    torch.testing.assert_close(single, exact, atol=1e-4, rtol=0)
