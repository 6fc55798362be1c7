"""Decoding: what is found and drawn, against a list of everyone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from elsewhere import FAR, Elsewhere
from graphs import checked
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor, nn

from graphrec.decode import Beam, PrefixTree, beam_search, sample, score_all, score_candidates, validity
from graphrec.decode.descent import Descent
from graphrec.decode.exclusions import ExclusionIndex
from graphrec.decode.search import answerable_queries, extend, extend_on_cpu
from graphrec.decode.topk import top_positions

Pairs = tuple[Tensor, Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Tables:
    """A model by heart: logits for each query and prefix; its state is the prefix's path, to be checked."""

    def __init__(self, num_queries: int, size: int, length: int, seed: int = 0, spread: float = 2.0) -> None:
        draws = generator(seed)
        self.size = size
        self.log_probs = [
            (
                spread * torch.randn(num_queries, size**level, size, generator=draws, dtype=torch.float64)
            ).log_softmax(2)
            for level in range(length)
        ]

    def __call__(self, beam: Beam, state: Any) -> tuple[Tensor, Any]:
        length = beam.codes.size(1)
        seen = (
            beam.codes[:, :0] if state is None else torch.cat([state[0][beam.parent], beam.codes[:, -1:]], 1)
        )
        assert torch.equal(seen, beam.codes)
        assert state is None or torch.equal(state[1][beam.parent], beam.row)
        prefix = sum((beam.codes[:, i] * self.size ** (length - 1 - i) for i in range(length)), beam.row * 0)
        return self.log_probs[length][beam.row, prefix], (seen, beam.row)

    def naive(self, codes: Tensor, *, renormalize: bool = True, temperature: float = 1.0) -> Tensor:
        """The log-probability of everyone, [B, N], one at a time."""
        rows = [tuple(row) for row in codes.tolist()]
        out = torch.full((len(self.log_probs[0]), len(rows)), -torch.inf, dtype=torch.float64)
        for user, row in enumerate(rows):
            if row[0] < 0:
                continue
            total = torch.zeros(len(out), dtype=torch.float64)
            for level, code in enumerate(row):
                place = sum(c * self.size ** (level - 1 - i) for i, c in enumerate(row[:level]))
                logits = self.log_probs[level][:, place] / temperature
                exists = sorted({o[level] for o in rows if o[0] >= 0 and o[:level] == row[:level]})
                total += logits[:, code] - (logits[:, exists].logsumexp(1) if renormalize else 0)
            out[:, user] = total - torch.tensor(float(rows.count(row))).log()
        return out


@st.composite
def worlds(draw: st.DrawFn, length: int = 3) -> tuple[Tensor, Tables, Pairs]:
    """Codes [N, L] of few places and some without, a model of three queries, and exclusions."""
    seed, n = draw(st.integers(0, 10_000)), draw(st.integers(1, 40))
    draws = generator(seed)
    codes = torch.randint(draw(st.integers(1, 3)), (n, length), generator=draws)
    codes[torch.rand(n, generator=draws) < 0.2] = -1
    codes[0] = codes[0].clamp(min=0)
    barred = torch.rand(3, n, generator=draws) < draw(st.sampled_from([0.0, 0.3, 0.9]))
    row, user = barred.nonzero(as_tuple=True)
    return codes, Tables(3, 3, length, seed), (row.repeat(2), user.repeat(2))


def masked(exact: Tensor, exclude: Pairs) -> Tensor:
    return exact.index_put(exclude, torch.tensor(-torch.inf, dtype=exact.dtype))


def some(n: int = 60, size: int = 4, length: int = 3) -> Tensor:
    return torch.randint(size, (n, length), generator=generator())


# The tree

CODES = torch.tensor([[1, 0, 2], [0, 3, 3], [-1, -1, -1], [1, 0, 2], [1, 0, 0], [3, 3, 3], [1, 2, 0]])


def test_the_tree_in_flat_arrays() -> None:
    tree = PrefixTree(CODES, 4)
    assert (len(tree), tree.num_nodes, tree.largest_bucket) == (6, 13, 2)
    assert tree.level_ptr == (0, 1, 4, 8, 13)
    assert tree.users.tolist() == [1, 4, 0, 3, 6, 5]
    assert tree.code.tolist() == [0, 0, 1, 3, 3, 0, 2, 3, 3, 0, 2, 0, 3]
    assert tree.parent.tolist() == [-1, 0, 0, 0, 1, 2, 2, 3, 4, 5, 5, 6, 7]
    assert tree.child_ptr.tolist() == [1, 4, 5, 7, 8, 9, 11, 12, 13]
    assert tree.size(torch.arange(13)).tolist() == [6, 1, 4, 1, 1, 3, 1, 1, 1, 1, 2, 1, 1]
    assert tree.find(torch.tensor([[1, 0], [1, 1], [3, 3]])).tolist() == [5, -1, 7]
    assert tree.prefix(torch.tensor([9, 12]), 3).tolist() == [[1, 0, 0], [3, 3, 3]]
    row, user = tree.users_of(torch.tensor([10, 2]))
    assert (row.tolist(), user.tolist()) == ([0, 0, 1, 1, 1, 1], [0, 3, 4, 0, 3, 6])


def test_buckets_are_in_order_of_rank() -> None:
    tree = PrefixTree(CODES, 4, torch.tensor([0.9, 0, 0, 0.1, 0.5, 0, 0]))
    assert tree.users.tolist() == [1, 4, 3, 0, 6, 5]
    tree = tree.insert(torch.tensor([9]), CODES[:1], torch.tensor([0.4]))
    assert tree.users.tolist() == [1, 4, 3, 9, 0, 6, 5]
    with pytest.raises(ValueError, match="a rank for all users or for none"):
        tree.insert(torch.tensor([2]), CODES[:1])


def arrays(tree: PrefixTree) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in tree.__dict__.items()}


@checked
@given(st.integers(0, 999), st.integers(0, 30), st.integers(1, 4), st.booleans())
def test_insert_and_remove_equal_a_new_tree(seed: int, n: int, size: int, ranked: bool) -> None:
    draws = generator(seed)
    codes = torch.randint(size, (n, 2), generator=draws)
    rank = torch.randint(3, (n,), generator=draws) if ranked else None
    first = torch.rand(n, generator=draws) < 0.5
    whole = PrefixTree(codes, size, rank)
    begun = PrefixTree(codes.masked_fill(~first[:, None], -1), size, rank)
    before = arrays(begun)
    late = (~first).nonzero().squeeze(1)
    late = late[torch.randperm(len(late), generator=draws)]
    grown = begun.insert(late, codes[late], None if rank is None else rank[late])
    assert arrays(grown) == arrays(whole)
    assert arrays(grown.remove(late)) == before == arrays(begun)


def test_what_is_no_tree() -> None:
    with pytest.raises(ValueError, match=r"must be \[N, L\] int64"):
        PrefixTree(torch.zeros(3, 2), 4)
    with pytest.raises(ValueError, match=r"outside 0..3: 4"):
        PrefixTree(torch.tensor([[0, 4]]), 4)
    with pytest.raises(ValueError, match=r"outside 0..3: -1"):
        PrefixTree(torch.tensor([[0, -1]]), 4)
    with pytest.raises(ValueError, match="fit into one number"):
        PrefixTree(torch.zeros(1, 5, dtype=torch.int64), 10_000)
    with pytest.raises(ValueError, match=r"rank must be \[7\]"):
        PrefixTree(CODES, 4, torch.zeros(3))
    tree = PrefixTree(CODES, 4)
    with pytest.raises(ValueError, match="user 3 already has an STU"):
        tree.insert(torch.tensor([2, 3]), CODES[:2])
    with pytest.raises(ValueError, match="repeated"):
        tree.insert(torch.tensor([2, 2]), CODES[:2])
    with pytest.raises(ValueError, match=r"must be \[1, 3\]"):
        tree.insert(torch.tensor([2]), CODES[:2])
    with pytest.raises(ValueError, match="user 2 has no STU"):
        tree.remove(torch.tensor([2]))
    with pytest.raises(ValueError, match="l <= 3"):
        tree.find(torch.zeros(1, 4, dtype=torch.int64))


# Search


@checked
@given(worlds(), st.booleans())
def test_scores_are_those_of_a_naive_list(world: tuple[Tensor, Tables, Pairs], renormalize: bool) -> None:
    codes, model, (row, user) = world
    tree, exact = PrefixTree(codes, 3), model.naive(codes, renormalize=renormalize)
    every = score_all(model, tree, 3, renormalize=renormalize)
    torch.testing.assert_close(every, exact)
    asked = score_candidates(model, tree, row, user, renormalize=renormalize)
    torch.testing.assert_close(asked.double(), exact[row, user])
    if renormalize:
        torch.testing.assert_close(every.exp().sum(1), torch.ones(3, dtype=torch.float64))


@checked
@given(worlds(), st.integers(1, 45), st.booleans())
def test_a_wide_beam_is_exact(world: tuple[Tensor, Tables, Pairs], k: int, renormalize: bool) -> None:
    codes, model, exclude = world
    tree = PrefixTree(codes, 3)
    exact = masked(model.naive(codes, renormalize=renormalize), exclude)
    search = {"beam_size": 27, "exclude": exclude, "renormalize": renormalize}
    users, log_probs = beam_search(model, tree, 3, k, **search)
    best = torch.cat([exact, torch.full((3, k), -torch.inf, dtype=torch.float64)], 1).topk(k).values
    torch.testing.assert_close(log_probs.double(), best)
    found = users >= 0
    assert torch.equal(found, best > -torch.inf)
    torch.testing.assert_close(exact.gather(1, users.clamp(min=0))[found], log_probs.double()[found])
    for listed in users:
        people = listed[listed >= 0].tolist()
        assert len(set(people)) == len(people)


@checked
@given(worlds(), st.integers(1, 45), st.integers(1, 4))
def test_a_narrow_beam_finds_as_many(world: tuple[Tensor, Tables, Pairs], k: int, beam_size: int) -> None:
    codes, model, exclude = world
    users, log_probs = beam_search(model, PrefixTree(codes, 3), 3, k, beam_size=beam_size, exclude=exclude)
    exact = masked(model.naive(codes), exclude)
    for listed, values, allowed in zip(users, log_probs, exact, strict=True):
        people = listed[listed >= 0]
        assert len(people) == len(people.unique()) == min(k, int((allowed > -torch.inf).sum()))
        torch.testing.assert_close(values[: len(people)].double(), allowed[people])
        assert (values[: len(people)].diff() <= 0).all()
        assert (listed[len(people) :] == -1).all()


@checked
@given(worlds(), st.integers(1, 30), st.booleans(), st.booleans(), st.sampled_from([0.0, 0.4]))
def test_the_kernel_extends_a_beam_as_tensor_operations_do(
    world: tuple[Tensor, Tables, Pairs], width: int, renormalize: bool, single: bool, hidden: float
) -> None:
    codes, model, exclude = world
    tree = PrefixTree(codes, 3)
    nobody = (torch.rand(len(codes), generator=generator()) < hidden).nonzero().squeeze(1)
    excluded = ExclusionIndex(tree, 3, exclude, nobody)
    rows = answerable_queries(excluded, tree, 3)
    if single:
        model.log_probs = [x.float() for x in model.log_probs]
    near, far = Descent(model, tree, rows), Descent(model, tree, rows)
    log_prob = torch.zeros(len(rows))
    for level in range(1, 4):
        if not len(near.beam.row):
            break
        found = extend_on_cpu(near, excluded, log_prob, level, width, renormalize)
        wanted = extend(far, excluded, log_prob, level, width, renormalize)
        for mine, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(mine.double(), other.double(), rtol=1e-5, atol=1e-5)
        log_prob = wanted[2]
        near.step(*found[:2])
        far.step(*wanted[:2])


def test_a_narrow_beam_is_as_narrow_as_asked() -> None:
    """Unless people would lack: with one prefix a level, the likeliest codes are followed greedily."""
    codes = torch.cartesian_prod(torch.arange(3), torch.arange(3), torch.arange(3))
    model, asked = Tables(3, 3, 3), []

    def watched(beam: Beam, state: Any) -> tuple[Tensor, Any]:
        asked.append(len(beam.row))
        return model(beam, state)

    (users, _), tree = beam_search(watched, PrefixTree(codes, 3), 3, 1, beam_size=1), PrefixTree(codes, 3)
    assert asked == [3, 3, 3]
    for b in range(3):
        first = int(model.log_probs[0][b, 0].argmax())
        second = int(model.log_probs[1][b, first].argmax())
        third = int(model.log_probs[2][b, 3 * first + second].argmax())
        assert (
            users[b].tolist() == tree.users_of(tree.find(torch.tensor([[first, second, third]])))[1].tolist()
        )
    asked.clear()
    beam_search(watched, tree, 3, 9, beam_size=1)  # a first code has nine people: no need for another
    assert asked == [3, 3, 9]


def test_ties_are_in_order_of_the_stus() -> None:
    codes = some(50)
    tree = PrefixTree(codes, 4)
    users, log_probs = beam_search(flat, tree, 2, 10, beam_size=7, renormalize=False)
    assert torch.equal(users[0], users[1])
    alone = [int(tree.size(tree.find(codes[u][None]))) == 1 for u in users[0]]
    assert alone == sorted(alone, reverse=True)
    equal = log_probs[0, 1:] == log_probs[0, :-1]
    assert equal.any()
    place = tree.place[users[0]]
    assert (place.diff()[equal] > 0).all()


def flat(beam: Beam, state: Any) -> tuple[Tensor, Any]:
    return torch.full((len(beam.row), 4), -1.0), state


def test_whoever_is_impossible_comes_last() -> None:
    codes = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])

    def model(beam: Beam, state: Any) -> tuple[Tensor, Any]:
        return torch.tensor([[-torch.inf, 0.0]]).expand(len(beam.row), 2), state

    tree = PrefixTree(codes, 2)
    users, log_probs = beam_search(model, tree, 1, 4)
    assert users[0, 0] == 3
    assert sorted(users[0].tolist()) == [0, 1, 2, 3]
    assert log_probs[0].tolist() == [0, -torch.inf, -torch.inf, -torch.inf]
    assert score_all(model, tree, 1)[0].tolist() == [-torch.inf] * 3 + [0]
    drawn, _ = sample(model, tree, 1, 4, generator=generator())
    assert drawn[0, 0] == 3
    assert sorted(drawn[0].tolist()) == [0, 1, 2, 3]
    assert sample(model, tree, 1, 50, generator=generator(), replace=True)[0].unique().tolist() == [3]


def test_one_user_and_nobody() -> None:
    tree, model = PrefixTree(torch.tensor([[2, 1]]), 3), Tables(2, 3, 2)
    only = (torch.tensor([1]), torch.tensor([0]))
    draw = {"generator": generator(), "exclude": only}
    for users, log_probs in (
        beam_search(model, tree, 2, 2, exclude=only),
        sample(model, tree, 2, 2, **draw),
    ):
        assert users.tolist() == [[0, -1], [-1, -1]]
        assert log_probs.tolist() == [[0, -torch.inf], [-torch.inf, -torch.inf]]
    assert sample(model, tree, 2, 2, replace=True, **draw)[0].tolist() == [[0, 0], [-1, -1]]
    both = (torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert (beam_search(model, tree, 2, 2, exclude=both)[0] == -1).all()
    assert (sample(model, tree, 2, 2, generator=generator(), exclude=both)[0] == -1).all()


def test_searching_an_empty_tree() -> None:
    tree, model = PrefixTree(torch.tensor([[2, 1]]), 3).remove(torch.tensor([0])), Tables(2, 3, 2)
    assert (len(tree), tree.num_nodes) == (0, 1)
    with pytest.raises(ValueError, match="the prefix tree is empty"):
        beam_search(model, tree, 2, 1)
    with pytest.raises(ValueError, match="the prefix tree is empty"):
        sample(model, tree, 2, 1, generator=generator())
    with pytest.raises(ValueError, match="the prefix tree is empty"):
        score_all(model, tree, 2)
    assert score_candidates(model, tree, torch.tensor([0]), torch.tensor([0])).tolist() == [-torch.inf]
    assert validity(model, tree, 2).tolist() == [0, 0]


def test_searches_that_are_none() -> None:
    tree, model = PrefixTree(some(), 4), Tables(2, 4, 3)
    zero, far = torch.tensor([0]), torch.tensor([60])
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        beam_search(model, tree, 2, 0)
    with pytest.raises(ValueError, match="beam_size must be at least 1"):
        beam_search(model, tree, 2, 1, beam_size=0)
    with pytest.raises(IndexError, match=r"exclude: user 60 lies outside 0..59"):
        beam_search(model, tree, 2, 1, exclude=(zero, far))
    with pytest.raises(IndexError, match=r"exclude: row \d+ lies outside 0..1"):
        beam_search(model, tree, 2, 1, exclude=(far, zero))
    with pytest.raises(IndexError, match=r"user .* lies outside 0\.\.59"):
        score_candidates(model, tree, zero, far)
    with pytest.raises(ValueError, match=r"must return \[2, 4\] at level 0, \[2, 5\] came"):
        beam_search(lambda beam, state: (torch.zeros(2, 5), None), tree, 2, 1)
    with pytest.raises(ValueError, match=r"NaN or \+inf at level 0"):
        beam_search(lambda beam, state: (torch.full((2, 4), torch.nan), None), tree, 2, 1)
    for wrong in ({"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_k": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            sample(model, tree, 2, 1, generator=generator(), **wrong)


# Sampling


def shares(exact: Tensor, exclude: Pairs) -> Tensor:
    return masked(exact, exclude).softmax(1)


def agrees(count: Tensor, expected: Tensor) -> bool:
    """By chi-square at one in ten thousand, those expected less than 5 times together."""
    rare = expected < 5
    pooled = torch.cat([count[~rare].double(), count[rare].sum()[None]])
    wanted = torch.cat([expected[~rare], expected[rare].sum()[None]])
    pooled, wanted = pooled[wanted > 0], wanted[wanted > 0]
    wanted = wanted * pooled.sum() / wanted.sum()
    return bool(chisquare(pooled.numpy(), wanted.numpy()).pvalue > 1e-4)


MANY = 4000


class Same:
    """The first query of a model, for however many queries."""

    def __init__(self, model: Tables) -> None:
        self._model = model

    def __call__(self, beam: Beam, state: Any) -> tuple[Tensor, Any]:
        here = Beam(torch.zeros_like(beam.row), beam.node, beam.codes, beam.parent)
        return self._model(here, state)


def sampled(replace: bool, k: int, **options: Any) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(users [many, k], log-probabilities, what they should be [N]), nobody and the likeliest excluded."""
    codes, model = some(30, 3), Tables(1, 3, 3, spread=1.0)
    codes[7] = -1
    tree, exact = PrefixTree(codes, 3), model.naive(codes, temperature=options.get("temperature", 1.0))
    for number in (0, 12):
        barred = exact[0].topk(number).indices
        row = torch.arange(MANY).repeat_interleave(number)
        users, log_probs = sample(
            Same(model), tree, MANY, k, generator=generator(1), replace=replace,
            exclude=(row, barred.repeat(MANY)), **options,
        )  # fmt: skip
        yield users, log_probs, shares(exact, (torch.zeros_like(barred), barred))[0]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_independent_draws_are_as_likely_as_they_should_be(temperature: float) -> None:
    for users, log_probs, p in sampled(True, 5, temperature=temperature):
        assert (p[users] > 0).all()
        assert agrees(torch.bincount(users.flatten(), minlength=30), p * users.numel())
        assert not agrees(
            torch.bincount(users.flatten(), minlength=30), p.sqrt() / p.sqrt().sum() * users.numel()
        )
        torch.testing.assert_close(log_probs, p[users].log())
        assert any(len(listed.unique()) < 5 for listed in users)
        first, second = users[:, 0], users[:, 1]
        both = torch.bincount(first * 30 + second, minlength=900)
        assert agrees(both, (p[:, None] * p).flatten() * MANY)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_distinct_draws_are_as_likely_as_they_should_be(temperature: float) -> None:
    """The first from p, the second from p without the first, and so on (the Plackett-Luce model)."""
    for users, log_probs, p in sampled(False, 3, temperature=temperature):
        assert (p[users] > 0).all()
        assert all(len(listed.unique()) == 3 for listed in users)
        torch.testing.assert_close(log_probs, p[users].log())
        assert agrees(torch.bincount(users[:, 0], minlength=30), p * MANY)
        pair = (p[:, None] * p / (1 - p[:, None])).fill_diagonal_(0)
        assert agrees(torch.bincount(users[:, 0] * 30 + users[:, 1], minlength=900), pair.flatten() * MANY)
        left = (1 - p[:, None] - p).clamp(min=1e-12)
        third = torch.einsum("ab,abc->c", pair, alone(p[None, None] / left[..., None]))
        assert agrees(torch.bincount(users[:, 2], minlength=30), third * MANY)


def alone(p: Tensor) -> Tensor:
    """[N, N, N] with nothing where the third is the first or the second."""
    at = torch.arange(len(p))
    p = p.clone()
    p[at, :, at] = 0
    p[:, at, at] = 0
    return p


@checked
@given(worlds(), st.integers(1, 45), st.booleans())
def test_draws_are_allowed_and_as_many_as_there_are(
    world: tuple[Tensor, Tables, Pairs], k: int, replace: bool
) -> None:
    codes, model, exclude = world
    p = shares(masked(model.naive(codes), exclude), exclude).nan_to_num()
    tree, options = PrefixTree(codes, 3), {"replace": replace, "exclude": exclude}
    users, log_probs = sample(model, tree, 3, k, generator=generator(k), **options)
    again, _ = sample(model, tree, 3, k, generator=generator(k), **options)
    assert torch.equal(users, again)
    for listed, values, share in zip(users, log_probs, p, strict=True):
        people, allowed = listed[listed >= 0], int((share > 0).sum())
        assert len(people) == (k * (allowed > 0) if replace else min(k, allowed))
        assert replace or len(people.unique()) == len(people)
        torch.testing.assert_close(values[: len(people)], share[people].log())
        assert (listed[len(people) :] == -1).all()


def test_draws_differ_by_generator() -> None:
    tree, model = PrefixTree(some(), 4), Tables(2, 4, 3)
    one, two = (sample(model, tree, 2, 20, generator=generator(seed))[0] for seed in (1, 2))
    assert not torch.equal(one, two)


@given(
    st.integers(1, 60),
    st.integers(1, 6),
    st.integers(0, 2**31),
    st.sampled_from([3, 50, 10**6]),
    st.floats(0, 1),
)
def test_the_largest_of_each_query_are_those_of_a_stable_sort(
    columns: int, width: int, seed: int, distinct: int, absent: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    row = torch.randint(4, (9,), generator=generator).sort().values
    values = torch.randint(distinct, (len(row), columns), generator=generator).float()
    values[torch.rand(values.shape, generator=generator) < absent] = -torch.inf
    expected = []
    for query in range(4):
        at = (row == query).nonzero().squeeze(1)
        flat = (at[:, None] * columns + torch.arange(columns)).flatten()
        order = values.flatten()[flat].argsort(descending=True, stable=True)[:width]
        expected += [int(place) for place in flat[order] if values.flatten()[place] > -torch.inf]
    assert top_positions(values, row, width, 4).tolist() == sorted(expected)


def test_top_k_and_nucleus_cut_each_level() -> None:
    codes = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    tree, model = PrefixTree(codes, 4), Tables(1, 4, 2, spread=1.0)
    logits = model.log_probs

    def reached(cut: Any) -> dict[int, float]:
        out = {}
        for a, p in cut(logits[0][0, 0].exp()).items():
            out |= {4 * a + b: p * q for b, q in cut(logits[1][0, a].exp()).items()}
        return out

    def top_two(p: Tensor) -> dict[int, float]:
        best = p.topk(2)
        return dict(zip(best.indices.tolist(), (best.values / best.values.sum()).tolist(), strict=True))

    def nucleus(p: Tensor) -> dict[int, float]:
        kept, total = {}, 0.0
        for i in p.argsort(descending=True).tolist():
            if total < 0.7:
                kept[i] = float(p[i])
                total += float(p[i])
        return {i: q / total for i, q in kept.items()}

    cuts: list[tuple[Any, dict[str, Any]]] = [(top_two, {"top_k": 2}), (nucleus, {"top_p": 0.7})]
    for cut, options in cuts:
        wanted = reached(cut)
        assert 1 < len(wanted) < 16
        p = torch.tensor([wanted.get(i, 0.0) for i in range(16)], dtype=torch.float64)
        users, log_probs = sample(model, tree, 1, 16, generator=generator(), **options)
        people = users[users >= 0]
        assert sorted(people.tolist()) == sorted(wanted)
        torch.testing.assert_close(log_probs[users >= 0], p[people].log())
        drawn, _ = sample(model, tree, 1, MANY, generator=generator(), replace=True, **options)
        assert agrees(torch.bincount(drawn[0], minlength=16), p * MANY)
    tiny, _ = sample(model, tree, 1, 3, generator=generator(), top_p=1e-9)
    assert tiny[0, 1:].tolist() == [-1, -1]


def test_what_the_allowed_have_is_not_lost() -> None:
    """Where the excluded have all but 1e-40, those left are drawn in proportion."""
    codes = torch.tensor([[0, 0], [0, 1], [0, 2], [1, 0]])
    table = torch.tensor([[0.0, -95.0, -94.0]], dtype=torch.float64)

    def model(beam: Beam, state: Any) -> tuple[Tensor, Any]:
        return table.expand(len(beam.row), 3), state

    exclude = (torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    users, log_probs = sample(
        model, PrefixTree(codes, 3), 1, MANY, generator=generator(), replace=True, exclude=exclude
    )
    p = torch.tensor([-torch.inf, -95.0, -94.0, -95.0], dtype=torch.float64).softmax(0)
    assert agrees(torch.bincount(users[0], minlength=4), p * MANY)
    torch.testing.assert_close(log_probs[0], p[users[0]].log())


# Without constraint


@checked
@given(worlds(length=2), st.integers(1, 12))
def test_validity_is_the_share_of_real_sequences(world: tuple[Tensor, Tables, Pairs], beam_size: int) -> None:
    codes, model, _ = world
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    begun = model.log_probs[0][:, 0]
    exists = {tuple(row) for row in codes.tolist()}
    shares = []
    for b in range(3):
        first = begun[b].topk(min(3, beam_size)).indices.tolist()
        kept = [row for row in every.tolist() if row[0] in first]
        kept.sort(key=lambda row: -float(begun[b, row[0]] + model.log_probs[1][b, row[0], row[1]]))
        shares.append(sum(tuple(row) in exists for row in kept[:beam_size]) / len(kept[:beam_size]))
    assert validity(model, PrefixTree(codes, 3), 3, beam_size=beam_size).tolist() == pytest.approx(shares)


# Elsewhere


def test_a_tree_elsewhere_gives_the_same() -> None:
    """Nothing is made on, or mixed with, the CPU's: all would run where the tree is."""
    network = nn.Linear(3, 64)
    tree = PrefixTree(some(), 4)
    row, user = torch.tensor([0, 1, 1]), torch.tensor([3, 5, 7])

    def model(beam: Beam, state: Any) -> tuple[Tensor, Any]:
        x = torch.stack([beam.row, beam.codes.sum(1), beam.codes[:, -1:].sum(1)], 1).float()
        return network(x)[:, 8 * beam.codes.size(1) :][:, :4].log_softmax(1).detach(), state

    here = everything(model, tree, row, user)
    with Elsewhere(network) as watch:
        far = everything(model, tree.to(FAR), row.to(FAR), user.to(FAR))
        far = [x.cpu() for x in far]
    assert watch.met > 100
    for near, away in zip(here, far, strict=True):
        torch.testing.assert_close(near, away.as_subclass(Tensor))


def everything(model: Any, tree: PrefixTree, row: Tensor, user: Tensor) -> list[Tensor]:
    out = [*beam_search(model, tree, 2, 5, beam_size=3, exclude=(row, user))]
    out += [*sample(model, tree, 2, 5, generator=generator(), exclude=(row, user), top_p=0.9)]
    out += [*sample(model, tree, 2, 5, generator=generator(), exclude=(row, user), replace=True)]
    out += [score_all(model, tree, 2), score_candidates(model, tree, row, user), validity(model, tree, 2)]
    smaller = tree.remove(user)
    return [
        *out,
        smaller.insert(user, tree.prefix(tree.find(smaller.prefix(row, 3) * 0), 3)[:1].repeat(3, 1)).users,
    ]


def test_the_parents_of_a_beam_are_the_beam_before() -> None:
    """What a decoder needs for reordering its cache; `Tables` checks the paths, here the nodes."""
    tree, seen = PrefixTree(some(), 4), []

    def model(beam: Beam, state: Any) -> tuple[Tensor, Any]:
        seen.append(beam)
        return torch.zeros(len(beam.row), 4), None

    beam_search(model, tree, 3, 5, beam_size=6)
    assert len(seen) == 3
    for before, beam in pairwise(seen):
        assert torch.equal(tree.parent[beam.node], before.node[beam.parent])
        assert torch.equal(beam.row, before.row[beam.parent])
