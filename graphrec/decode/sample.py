"""Sampling down the prefix tree: draws only users who exist and are allowed."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data.checks import check_count, check_flags, check_list_length, check_number
from graphrec.decode.descent import Descent
from graphrec.decode.exclusions import ExclusionIndex
from graphrec.decode.scorer import NextCodeScorer
from graphrec.decode.scoring import follow_paths
from graphrec.decode.search import answerable_queries
from graphrec.decode.topk import padded_lists, top_positions
from graphrec.decode.tree import PrefixTree

MIN_TEMPERATURE = 1e-6
"""Temperature below which scaled logits overflow single precision."""


@torch.no_grad()
def sample(
    scorer: NextCodeScorer,
    tree: PrefixTree,
    num_queries: int,
    k: int,
    *,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    replace: bool = False,
    exclude: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw k users for each query.

    The distribution is the scorer's over all users in the tree, its logits divided by the temperature,
    conditional on drawing an allowed user: the probability of excluded users is computed first, along their
    STUs, so no draw is rejected. `top_k` and `top_p` then truncate each level's codes, not the users of a
    bucket.

    Without replacement, the draws of all queries are made in one pass by stochastic beam search (Kool et al.
    2019, https://arxiv.org/abs/1903.06059): with Gumbel noise, drawn from the top down, the k largest values
    are distributed as k successive draws.

    Args:
        scorer: the model, bound to the B queries.
        tree: the STUs of all users.
        num_queries: B.
        k: draws for each query; at most 10,000, or the number of users if that is more.
        generator: source of randomness, on the tree's device.
        temperature: above 1 for more variety, below for less; at least 1e-6.
        top_k: number of most likely codes of each level to draw from (Fan et al. 2018).
        top_p: draw from the most likely codes that together reach this probability (Holtzman et al. 2020).
        replace: make k independent draws, which may repeat a user, instead of k distinct users.
        exclude: (row [E] of the query, user [E]) integers, users not to draw.

    Returns:
        users [B, k] int64, in the order drawn, padded with -1 if fewer users are allowed (and left by top_k
        and top_p); log_probs [B, k] float64, of a single draw of each, padded with -inf. Users whom the
        scorer gives no probability come last without replacement, and only if there are no others with
        replacement.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: the tree is empty, a number is out of its range, or the scorer returned NaN, +inf
            or a wrong shape.
        IndexError: an excluded row or user is out of range.
    """
    num_queries = check_count("num_queries", num_queries, minimum=0)
    k = check_list_length(k, tree.num_users)
    check_flags(replace=replace)
    temperature = check_number("temperature", temperature, minimum=MIN_TEMPERATURE)
    top_k = None if top_k is None else check_count("top_k", top_k)
    if top_p is not None:
        check_number("top_p", top_p, above=0.0, maximum=1.0)
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got a {type(generator).__name__}")
    excluded = ExclusionIndex(tree, num_queries, exclude)
    row = answerable_queries(excluded, tree, num_queries)
    if not len(row):
        return padded_lists(row, row, row, row.double(), (num_queries, k))
    left = _allowed_log_share(scorer, tree, excluded, temperature)
    descent = Descent(scorer, tree, row)
    draws = (_WithReplacement if replace else _GumbelTopK)(len(row), k, num_queries, generator, tree.device)
    for level in range(1, tree.num_codebooks + 1):
        value = descent.children(renormalize=True, temperature=temperature).double()
        dirty, node, _ = excluded.nodes(level)
        found, child = descent.locate_children(dirty, node)
        value[child] += left[level][found]
        value = _truncate(value.log_softmax(1), top_k, top_p)
        descent.descend(*draws.step(value, descent.beam.row))
    allowed = descent.allowed_in_bucket(excluded)
    value = torch.zeros((), dtype=torch.float64, device=tree.device).masked_fill(~allowed, -torch.inf)
    at, column = draws.step(value.log_softmax(1), descent.beam.row)
    at, column, order_by, log_prob = draws.result(at, column)
    user = tree.users[tree.start[descent.beam.node[at]] + column]
    return padded_lists(descent.beam.row[at], user, order_by, log_prob, (num_queries, k))


class _GumbelTopK:
    """Draws without replacement: each prefix has its log-probability, and the largest noisy one below it."""

    def __init__(self, rows: int, k: int, num_queries: int, generator: torch.Generator, device: torch.device):
        self._k, self._num_queries, self._generator = k, num_queries, generator
        self.log_prob = torch.zeros(rows, dtype=torch.float64, device=device)
        self.noisy = self.log_prob

    def step(self, value: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Choose children from log-probabilities [R, C]: (prefix [n], column [n]) int64, ascending."""
        log_prob = self.log_prob[:, None] + value
        gumbel = -torch.empty_like(value).exponential_(generator=self._generator).clamp(min=1e-300).log()
        noisy = log_prob + gumbel
        # Given that the largest is the parent's (Kool et al. 2019, appendix B.3, the stable form).
        gap = noisy - noisy.amax(1, keepdim=True)
        log1mexp = torch.where(gap > -0.7, (-gap.expm1()).log(), (-gap.exp()).log1p())
        above = self.noisy[:, None]
        v = above - noisy + log1mexp
        noisy = above - v.clamp(min=0) - (-v.abs()).exp().log1p()
        noisy = noisy.masked_fill(value == -torch.inf, -torch.inf)
        flat = top_positions(noisy, row, self._k, self._num_queries)
        self.log_prob, self.noisy = log_prob.flatten()[flat], noisy.flatten()[flat]
        return flat // value.size(1), flat % value.size(1)

    def result(self, at: Tensor, column: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(prefix, column, value to order by, log-probability) of the users drawn."""
        return at, column, self.noisy, self.log_prob


class _WithReplacement:
    """k independent draws a query, by the inverse of the cumulative distribution."""

    def __init__(self, rows: int, k: int, num_queries: int, generator: torch.Generator, device: torch.device):
        self._generator = generator
        self._at = torch.arange(rows, device=device).repeat_interleave(k)  # the prefix of each draw
        self._order = -torch.arange(len(self._at), device=device)
        self._log_prob = torch.zeros(len(self._at), dtype=torch.float64, device=device)

    def step(self, value: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Draw children from log-probabilities [R, C]: (prefix [n], column [n]) int64, ascending."""
        columns, mass = value.size(1), value.exp()
        last = columns - 1 - (mass > 0).flip(1).int().argmax(1)
        # One ascending list for all prefixes: the cumulative probabilities of the r-th lie in r..r+1.
        base = torch.arange(len(value), device=value.device)
        total = mass.cumsum(1)
        total = (total / total[:, -1:]).clamp(max=1) + base[:, None]
        u = torch.rand(len(self._at), dtype=torch.float64, device=value.device, generator=self._generator)
        place = torch.searchsorted(total.flatten(), u + self._at, right=True) - self._at * columns
        column = torch.minimum(place, last[self._at])
        self._log_prob = self._log_prob + value[self._at, column]
        self._drawn = self._at * columns + column
        key, self._at = self._drawn.unique(return_inverse=True)
        return key // columns, key % columns

    def result(self, at: Tensor, column: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(prefix, column, value to order by, log-probability) of the users drawn."""
        return at[self._at], column[self._at], self._order, self._log_prob


def _allowed_log_share(
    scorer: NextCodeScorer, tree: PrefixTree, excluded: ExclusionIndex, temperature: float
) -> list[Tensor]:
    """Log of the probability that a user below a prefix is allowed, for each level 0..L.

    The values of a level belong to `excluded.nodes(level)`. They are summed from the leaves up, over allowed
    users, so that they stay exact if excluded users have nearly all of the probability.
    """
    _, leaf, count = excluded.nodes(tree.num_codebooks)
    size = tree.size(leaf)
    out = [((size - count).double() / size).log()]
    if not len(leaf):
        return out * (tree.num_codebooks + 1)
    descent = Descent(scorer, tree, excluded.row.unique_consecutive())
    steps = follow_paths(descent, excluded.row, excluded.place, temperature=temperature, renormalize=True)
    for value, at, column in reversed([(v.double(), a, c) for v, a, c in steps]):
        child = (at * value.size(1) + column).unique_consecutive()
        value = value.flatten().index_add(0, child, out[-1]).view_as(value)
        out.append(value.logsumexp(1))
    return out[::-1]


def _truncate(value: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Renormalized log-probabilities [R, C] of the most likely children; -inf for the others."""
    if top_k is None and top_p is None:
        return value
    best, order = value.sort(dim=1, descending=True, stable=True)
    kept = best > -torch.inf
    if top_k is not None:
        kept[:, top_k:] = False
    if top_p is not None:
        mass = best.exp()
        kept &= mass.cumsum(1) - mass < top_p
        kept[:, 0] = True
    kept = torch.empty_like(kept).scatter(1, order, kept)
    return value.masked_fill(~kept, -torch.inf).log_softmax(1)
