"""Search by inner product: exact against a naive loop, approximate against exact, exclusions in both."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graphs import checked
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphrec.retrieval import ApproximateIndex, ExactIndex, Index, exact, recall

INDICES: dict[str, Callable[[], Index]] = {
    "exact": ExactIndex,
    "approximate": ApproximateIndex,
    "one probe": lambda: ApproximateIndex(num_cells=7, num_probes=1),
    "all probes": lambda: ApproximateIndex(num_cells=5, num_probes=5),
}


def drawn(seed: int, *shape: int) -> Tensor:
    """Small whole numbers: inner products are exact, and tie often."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).float()


def barred(seed: int, num_queries: int, num_users: int, size: int) -> tuple[Tensor, Tensor]:
    """Exclusions in no order, some twice."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randint(num_queries, (size,), generator=generator),
        torch.randint(num_users, (size,), generator=generator),
    )


def naive(vectors: Tensor, query: Tensor, gone: set[int]) -> list[float]:
    """Inner products of whoever is allowed, largest first."""
    allowed = [user for user in range(len(vectors)) if user not in gone]
    return sorted((float(sum(query * vectors[user])) for user in allowed), reverse=True)


cases = st.tuples(
    st.integers(0, 99), st.integers(1, 30), st.integers(1, 5), st.integers(1, 40), st.integers(0, 60)
)


@checked
@given(cases, st.integers(1, 50))
def test_exact_is_the_naive_loop(case: tuple[int, ...], chunk: int) -> None:
    seed, num_users, num_queries, k, size = case
    vectors, queries = drawn(seed, num_users, 3), drawn(seed + 1, num_queries, 3)
    exclude = barred(seed, num_queries, num_users, size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "MAX_INNER_PRODUCTS", chunk)
        patch.setattr(exact, "QUERY_BATCH_SIZE", 2)
        users, scores = ExactIndex().build(vectors).search(queries, k, exclude)
    whole = ExactIndex().build(vectors).search(queries, k, exclude)
    assert torch.equal(users, whole[0])
    assert torch.equal(scores, whole[1])
    assert users.shape == scores.shape == (num_queries, k)
    for row in range(num_queries):
        gone = {int(user) for at, user in zip(*exclude, strict=True) if at == row}
        expected = naive(vectors, queries[row], gone)[:k]
        assert scores[row, : len(expected)].tolist() == expected
        assert (users[row, len(expected) :] == -1).all()
        assert (scores[row, len(expected) :] == -torch.inf).all()


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.filterwarnings("ignore:.*clustering.*")
def test_always_k_distinct_allowed_people(name: str) -> None:
    """Or all there are; each with its own inner product, largest first."""

    @checked
    @given(cases)
    def holds(case: tuple[int, ...]) -> None:
        seed, num_users, num_queries, k, size = case
        vectors, queries = drawn(seed, num_users, 3), drawn(seed + 1, num_queries, 3)
        exclude = barred(seed, num_queries, num_users, size)
        users, scores = INDICES[name]().build(vectors).search(queries, k, exclude)
        assert users.dtype == torch.int64
        assert (scores[:, 1:] <= scores[:, :-1]).logical_or(scores[:, 1:] == -torch.inf).all()
        for row in range(num_queries):
            gone = {int(user) for at, user in zip(*exclude, strict=True) if at == row}
            size = min(k, num_users - len(gone))
            people = users[row, :size].tolist()
            assert len(set(people)) == size
            assert min(people, default=0) >= 0
            assert not set(people) & gone
            assert scores[row, :size].tolist() == (vectors[people] @ queries[row]).tolist()
            assert (users[row, size:] == -1).all()

    holds()


def test_all_probes_are_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, queries = torch.randn(500, 8, generator=generator), torch.randn(40, 8, generator=generator)
    exclude = barred(1, 40, 500, 2000)
    index = INDICES["all probes"]().build(vectors)
    expected = ExactIndex().build(vectors).search(queries, 9, exclude)[0]
    assert torch.equal(index.search(queries, 9, exclude)[0], expected)
    assert isinstance(index, ApproximateIndex)
    assert index.recall(queries, 9, exclude) == 1.0


def test_more_probes_find_more() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, queries = torch.randn(3000, 16, generator=generator), torch.randn(60, 16, generator=generator)
    found = [
        ApproximateIndex(num_cells=64, num_probes=probes).build(vectors).recall(queries, 20)
        for probes in (1, 8, 64)
    ]
    assert found[0] < found[1] < found[2] == 1.0


def test_probes_may_change_after_the_build() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, queries = torch.randn(3000, 16, generator=generator), torch.randn(60, 16, generator=generator)
    index = ApproximateIndex(num_cells=64, num_probes=1)
    assert index.num_built_cells == 0
    index.build(vectors)
    assert index.num_built_cells == 64
    nobody = torch.tensor([0])  # also where some are excluded everywhere
    for probes in (1, 8, 100):
        index.num_probes = probes
        fresh = ApproximateIndex(num_cells=64, num_probes=probes).build(vectors)
        for gone in (None, nobody):
            changed, built = (kind.search(queries, 20, None, gone)[0] for kind in (index, fresh))
            assert torch.equal(changed, built)
    with pytest.raises(ValueError, match="num_probes"):
        index.num_probes = 0


def test_equal_ones_are_not_listed_by_index() -> None:
    for make in INDICES.values():
        users, _ = make().build(torch.ones(400, 2)).search(torch.ones(1, 2), 40)
        assert not torch.equal(users[0], users[0].sort().values)
        assert 120 < users.double().mean() < 280


def test_one_build_one_result() -> None:
    vectors, queries = torch.randn(900, 8), torch.randn(20, 8)
    for make in INDICES.values():
        one, two = (make().build(vectors).search(queries, 5)[0] for _ in range(2))
        assert torch.equal(one, two)


def test_recall_counts_the_expected() -> None:
    found = torch.tensor([[3, 1, -1], [5, 6, 7], [-1, -1, -1], [0, 1, 2]])
    expected = torch.tensor([[1, 3, 9], [8, 9, -1], [-1, -1, -1], [2, 0, -1]])
    assert recall(found, expected).tolist() == [2 / 3, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("name", INDICES)
def test_what_is_refused(name: str) -> None:
    make = INDICES[name]
    built = make().build(drawn(0, 9, 3))
    assert built.search(drawn(0, 0, 3), 2)[0].shape == (0, 2)
    with pytest.raises(RuntimeError, match="build"):
        make().search(drawn(0, 2, 3), 1)
    with pytest.raises(ValueError, match="k must be at least 1"):
        built.search(drawn(0, 2, 3), 0)
    with pytest.raises(ValueError, match=r"queries must be \[n, 3\].*\[2, 4\]"):
        built.search(drawn(0, 2, 4), 1)
    with pytest.raises(ValueError, match="finite"):
        built.search(drawn(0, 2, 3) / 0, 1)
    for wrong in (torch.zeros(3), torch.zeros(0, 3), torch.zeros(3, 0), torch.full((2, 2), torch.nan)):
        with pytest.raises(ValueError, match="vectors"):
            make().build(wrong)
    for row, user, message in ((2, 0, "row 2"), (0, 9, "user 9"), (0, -1, "user -1")):
        with pytest.raises(IndexError, match=message):
            built.search(drawn(0, 2, 3), 1, (torch.tensor([row]), torch.tensor([user])))
    with pytest.raises(ValueError, match="num_probes"):
        ApproximateIndex(num_probes=0)
