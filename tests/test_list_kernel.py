"""The kernel that makes lists of pairs, and GELU without a kernel for each shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.models.mixture.list_kernel import list_pairs
from graphrec.nn.layers import GELU
from graphrec.retrieval.topk import tie_capacity, tie_rank, tie_shuffle


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 40), st.booleans())
def test_lists_are_those_of_a_sort(seed: int, k: int, number: int, wrong: bool) -> None:
    draw, num_users = np.random.default_rng(seed), 20

    def some(size: int) -> np.ndarray:
        return np.unique(draw.integers(0, 3 * num_users, size))

    found = draw.permutation(some(number))
    row, user = found // num_users, found % num_users
    score = draw.integers(-3, 0, len(found)).astype(np.float64)  # many are equal
    excluded, hidden, contact = some(10), np.unique(draw.integers(0, num_users, 2)), some(20)
    factor = draw.integers(0, 3, len(contact)).astype(np.float64)
    allowed = ~np.isin(found, excluded) & ~np.isin(user, hidden)
    if wrong and allowed.any():
        score[allowed.nonzero()[0][0]] = np.nan
    bonus = dict(zip(contact.tolist(), factor.tolist(), strict=True))
    total = score + [bonus.get(key, 0.0) for key in found.tolist()]
    rank, shuffle = tie_rank(num_users).numpy(), tie_shuffle(tie_capacity(num_users)).numpy()
    users, scores = np.full((3, k), -1), np.full((3, k), -np.inf)
    given = (row, user, score, excluded, hidden, contact, factor)
    at = list_pairs(*given, num_users, rank, shuffle, users, scores)
    if wrong and allowed.any():
        assert at == allowed.nonzero()[0][0]
        return
    assert at == -1
    for b in range(3):
        mine = (allowed & (row == b)).nonzero()[0]
        best = sorted(mine, key=lambda i: (-total[i], rank[user[i]]))[:k]
        assert users[b, : len(best)].tolist() == user[best].tolist()
        assert scores[b, : len(best)].tolist() == total[best].tolist()
        assert (users[b, len(best) :] == -1).all()
        assert np.isneginf(scores[b, len(best) :]).all()


@pytest.mark.parametrize("shape", [(1, 5), (7, 5), (33, 16), (2, 9, 4)])
def test_gelu_without_gradients_is_torchs_own(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = GELU()(x)
    torch.testing.assert_close(found, torch.nn.functional.gelu(x), atol=1e-6, rtol=1e-6)
    assert found.is_contiguous()
    if shape[-2] > 1:  # a row is contiguous either way
        enabled = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        own = torch.nn.functional.gelu(x)
        torch._C._set_mkldnn_enabled(enabled)
        assert torch.equal(found, own)
