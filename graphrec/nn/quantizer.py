"""Residual quantization: a vector as a short sequence of codes, coarse to fine."""

from __future__ import annotations

import math
from typing import Literal, get_args

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.data.checks import check_choice, check_counts, check_number
from graphrec.nn.quantizer_kernels import find_two_nearest
from graphrec.temporal import run_starts

Gradient = Literal["straight_through", "rotation"]

BALANCE_FACTOR = 1.25
"""Capacity of a balanced code, as a multiple of the mean number of vectors. The perplexity of each level is
then at least K / 1.25, whatever the vectors."""

CHUNK = 2**20
"""Distances held at once: few enough for the cache."""

ROUNDS = 5
"""Rounds of balanced assignment and new means, after plain k-means."""

TOLERANCE = 0.25
"""A code is kept if its squared distance exceeds that of the nearest by at most this share of the mean."""

DEAD = 0.05
"""A code with less than this fraction of the mean number of vectors is dead, and is moved."""


class ResidualQuantizer(nn.Module):
    """L codebooks, each of which quantizes the residual of the previous ones.

    From `"Autoregressive Image Generation using Residual Quantization" <https://arxiv.org/abs/2203.01941>`_:

        r_1 = x,   c_l = argmin_k |r_l - e_lk|,   r_(l+1) = r_l - e_(l c_l),   x ~ sum_l e_(l c_l)

    In training, each codeword follows the moving average of the residuals assigned to it, and dead codes are
    moved to residuals of the batch.

    Args:
        dim: D.
        num_codebooks: L.
        codebook_size: K.
        gradient: how the gradient passes the quantizer: 'rotation', rotated and scaled like the vector
            (`"Restructuring Vector Quantization with the Rotation Trick"
            <https://arxiv.org/abs/2410.06424>`_), or 'straight_through', unchanged.
        decay: of the moving averages, per batch.

    Attributes:
        codebooks: [L, K, D] float32.

    Shapes:
        forward: [n, D] -> quantized [n, D], codes [n, L] int64, commitment loss [].
    """

    codebooks: Tensor
    weight: Tensor
    total: Tensor

    def __init__(
        self,
        dim: int,
        *,
        num_codebooks: int = 3,
        codebook_size: int,
        gradient: Gradient = "rotation",
        decay: float = 0.99,
    ) -> None:
        super().__init__()
        check_counts(dim=dim, num_codebooks=num_codebooks, codebook_size=codebook_size)
        check_choice("gradient", gradient, get_args(Gradient))
        check_number("decay", decay, minimum=0.0, below=1.0)
        self.gradient, self.decay = gradient, decay
        self.register_buffer("codebooks", torch.zeros(num_codebooks, codebook_size, dim))
        self.register_buffer("weight", torch.zeros(num_codebooks, codebook_size))
        self.register_buffer("total", torch.zeros(num_codebooks, codebook_size, dim))

    @property
    def num_codebooks(self) -> int:
        """L."""
        return self.codebooks.size(0)

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.codebooks.size(1)

    @property
    def dim(self) -> int:
        """D."""
        return self.codebooks.size(2)

    @torch.no_grad()
    def initialize(
        self,
        vectors: Tensor,
        generator: torch.Generator,
        *,
        balanced: bool = True,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Set the codebooks by residual k-means (faiss) on all vectors, level by level.

        Args:
            vectors: [n, D], at least one.
            generator: draws the initial centroids.
            balanced: no code is assigned more than `BALANCE_FACTOR` times the mean number of vectors.
            keep: [n, L] int64, previous codes of the vectors, -1 for new ones. k-means then starts from the
                current codebooks, and codes are kept as in `assign`.

        Returns:
            The codes of the vectors, [n, L] int64: those of `assign`.
        """
        residual = self._checked(vectors).clone()
        codes = torch.empty(len(residual), self.num_codebooks, dtype=torch.int64)
        for level in range(self.num_codebooks):
            had = self._kept(codes, keep, level)
            seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
            codebook = self.codebooks[level].cpu()
            if keep is None:
                codebook = _kmeans(residual, self.codebook_size, seed)
            for _ in range(ROUNDS if balanced or keep is not None else 0):
                codebook = _means(residual, _served(residual, codebook, balanced, had), codebook)
            self.codebooks[level] = codebook
            code = codes[:, level] = _served(residual, codebook, balanced, had)
            self.weight[level] = torch.bincount(code, minlength=self.codebook_size) / len(residual)
            self.total[level] = self.weight[level, :, None].cpu() * codebook
            residual -= codebook[code]
        return codes

    @torch.no_grad()
    def assign(self, vectors: Tensor, *, balanced: bool = True, keep: Tensor | None = None) -> Tensor:
        """Assign codes to vectors, all together, so that codes can be balanced and kept.

        Args:
            vectors: [n, D].
            balanced: as in `initialize`.
            keep: [n, L] int64, previous codes of the vectors, -1 for new vectors. A vector whose prefix is
                unchanged keeps its next code, unless another is much nearer (see `TOLERANCE`).

        Returns:
            [n, L] int64.
        """
        residual = self._checked(vectors).clone()
        codes = torch.empty(len(residual), self.num_codebooks, dtype=torch.int64)
        for level, codebook in enumerate(self.codebooks.cpu()):
            codes[:, level] = _served(residual, codebook, balanced, self._kept(codes, keep, level))
            residual -= codebook[codes[:, level]]
        return codes

    def encode(self, vectors: Tensor) -> Tensor:
        """Codes of vectors [n, D], the nearest to the residual at each level: [n, L] int64."""
        return self.assign(vectors, balanced=False)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors of codes [n, l], l <= L, the sums of their codewords: [n, D]."""
        if codes.dim() != 2 or codes.size(1) > self.num_codebooks:
            raise ValueError(f"codes must be [n, l] with l <= {self.num_codebooks}, got {list(codes.shape)}")
        level = torch.arange(codes.size(1), device=codes.device)
        out: Tensor = self.codebooks[level, codes].sum(1)
        return out

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize a batch; in training also update the codebooks.

        Args:
            x: [n, D].
            generator: draws the vectors to which dead codes are moved; without one they stay.

        Returns:
            The quantized vectors [n, D], through which a gradient passes to x; codes [n, L] int64; and the
            commitment loss, the mean squared residual over all levels.
        """
        residual, codes, losses = x, [], []
        for level in range(self.num_codebooks):
            codebook = self.codebooks[level].clone()  # what follows changes it in place
            code = nearest(residual.detach(), codebook)
            if self.training:
                self._follow(level, residual.detach(), code, generator)
            residual = residual - codebook[code]
            codes.append(code)
            losses.append(residual.square().mean())
        quantized = (x - residual).detach()
        passed = _rotated(x, quantized) if self.gradient == "rotation" else x + (quantized - x).detach()
        return passed, torch.stack(codes, dim=1), torch.stack(losses).mean()

    def _follow(self, level: int, residual: Tensor, code: Tensor, generator: torch.Generator | None) -> None:
        served = torch.bincount(code, minlength=self.codebook_size).to(residual.dtype) / len(residual)
        sums = torch.zeros_like(self.total[level]).index_add_(0, code, residual) / len(residual)
        weight = self.weight[level].lerp_(served, 1.0 - self.decay)
        total = self.total[level].lerp_(sums, 1.0 - self.decay)
        dead = (weight * self.codebook_size < DEAD).nonzero().squeeze(1)
        if generator is not None and len(dead):
            rows = torch.randint(len(residual), (len(dead),), generator=generator).to(residual.device)
            weight[dead] = 1.0 / self.codebook_size
            total[dead] = residual[rows] / self.codebook_size
        alive = weight > 0
        self.codebooks[level, alive] = total[alive] / weight[alive, None]

    def _checked(self, vectors: Tensor) -> Tensor:
        if vectors.dim() != 2 or vectors.size(1) != self.dim:
            raise ValueError(f"vectors must be [n, {self.dim}], got {list(vectors.shape)}")
        out = vectors.detach().float().cpu()
        if not bool(torch.isfinite(out).all()):
            raise ValueError("vectors must be finite")
        return out

    @staticmethod
    def _kept(codes: Tensor, keep: Tensor | None, level: int) -> Tensor | None:
        """The code [n] of a level that vectors with an unchanged prefix may keep, -1 for the others."""
        if keep is None:
            return None
        same = (codes[:, :level] == keep[:, :level]).all(1)
        return torch.where(same, keep[:, level], -1)


def capacitated_nearest(
    x: Tensor,
    codebook: Tensor,
    room: Tensor,
    group: Tensor | None = None,
    total: Tensor | None = None,
) -> Tensor:
    """Assign each vector to the nearest code whose capacity is not used up.

    In each round every unassigned vector bids for its nearest code with room. A code takes the bidders with
    the largest margin to their second-nearest code with room, as many as it has room for; of equal ones, the
    first rows.

    Args:
        x: [n, D].
        codebook: [K, D].
        room: [G, K] int64, capacity of each code in each group.
        group: [n] int64, group of each vector, 0..G-1; vectors of different groups do not compete. By default
            all are in one group.
        total: [K] int64, soft capacity of each code over all groups; exceeded only if a group's vectors have
            no room elsewhere.

    Returns:
        [n] int64.

    Raises:
        ValueError: a group has more vectors than room.
    """
    num_codes = len(codebook)
    left = room.flatten().clone()
    group = torch.zeros(len(x), dtype=torch.int64) if group is None else group
    limit = torch.full((num_codes,), len(x)) if total is None else total.clone()
    out = torch.full((len(x),), -1)
    todo = torch.arange(len(x))
    while len(todo):
        code, regret = _bids(x[todo], codebook, left, group[todo], limit)
        order = regret.argsort(descending=True, stable=True)
        cell = group[todo] * num_codes + code
        order = _fitting(order, cell[order], left)
        order = _fitting(order, code[order], torch.where(limit > 0, limit, len(x)))
        if not len(order):
            raise ValueError(f"there is no room for {len(todo)} of {len(x)} vectors")
        out[todo[order]] = code[order]
        left.index_add_(0, cell[order], torch.full_like(order, -1))
        limit -= torch.bincount(code[order], minlength=num_codes)
        todo = todo[out[todo] < 0]
    return out


def _bids(x: Tensor, codebook: Tensor, left: Tensor, group: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest code with room [n], and the margin in squared distance to the second-nearest [n]."""
    norm, left = codebook.square().sum(1), left.view(-1, len(codebook))
    code, regret = torch.empty_like(group), torch.empty(len(group))
    for parts in zip(
        *(t.split(max(1, CHUNK // len(codebook))) for t in (x, group, code, regret)), strict=True
    ):
        vectors, own, nearest_code, margin = parts
        distance = torch.addmm(norm, vectors, codebook.T, alpha=-2.0)
        arrays = distance, own, left, limit, nearest_code, margin
        find_two_nearest(*(array.numpy() for array in arrays))
    return code, regret


def _fitting(order: Tensor, cell: Tensor, room: Tensor) -> Tensor:
    """Select entries [n], in order of priority, as long as there is room in their cells [n]."""
    by_cell = cell.argsort(stable=True)
    place = torch.empty_like(by_cell)
    place[by_cell] = torch.arange(len(order)) - run_starts(cell[by_cell])
    return order[place < room[cell]]


def _served(x: Tensor, codebook: Tensor, balanced: bool, had: Tensor | None) -> Tensor:
    """Assign each vector [n, D] a code, [n] int64; `had` [n] is its previous code, or -1."""
    kept = torch.zeros(len(x), dtype=torch.bool)
    out = torch.zeros(len(x), dtype=torch.int64)
    if had is not None or not balanced:
        out = nearest(x, codebook)
    if had is not None:
        distance = (x - codebook[out]).square().sum(1)
        before = (x - codebook[had]).square().sum(1)
        kept = (had >= 0) & (before <= distance + TOLERANCE * distance.mean())
    if balanced:
        mean = len(x) / len(codebook)
        most = torch.full((1, len(codebook)), max(int(BALANCE_FACTOR * mean), math.ceil(mean)))
        if had is not None:  # newcomers may have made a code more popular than that: the nearest keep it
            order = before.argsort(stable=True)
            order = order[kept[order]]
            kept = torch.zeros_like(kept).index_fill(0, _fitting(order, had[order], most[0]), True)
            out[kept] = had[kept]
        room = most - torch.bincount(out[kept], minlength=len(codebook))
        out[~kept] = capacitated_nearest(x[~kept], codebook, room)
    elif had is not None:
        out = torch.where(kept, had, out)
    return out


def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """The nearest of the codes [K, D] to each vector [n, D]: [n] int64."""
    norm = codebook.square().sum(1)
    parts = x.split(max(1, CHUNK // len(codebook)))
    return torch.cat([torch.addmm(norm, part, codebook.T, alpha=-2.0).min(1).indices for part in parts])


def _kmeans(x: Tensor, size: int, seed: int) -> Tensor:
    """Centroids [size, D] of x [n, D] by k-means; the vectors themselves if n <= size."""
    if len(x) <= size:
        return x[torch.arange(size) % len(x)]
    means = faiss.Kmeans(
        x.size(1), size, niter=20, seed=seed, min_points_per_centroid=1, max_points_per_centroid=len(x)
    )
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # sums in one order
    try:
        means.train(x.numpy())
    finally:
        faiss.omp_set_num_threads(threads)
    return torch.from_numpy(np.array(means.centroids))


def _means(x: Tensor, code: Tensor, codebook: Tensor) -> Tensor:
    """Update each codeword to the mean of its vectors: [K, D]; unused codes stay as they are."""
    size = torch.bincount(code, minlength=len(codebook))[:, None]
    total = torch.zeros_like(codebook, dtype=torch.float64).index_add_(0, code, x.double())
    return torch.where(size > 0, (total / size.clamp(min=1)).float(), codebook)


def _rotated(x: Tensor, goal: Tensor) -> Tensor:
    """`goal` [n, D] as x times a rotation and scale that are constants for autograd (the rotation trick)."""
    with torch.no_grad():
        one, two = F.normalize(x, dim=1), F.normalize(goal, dim=1)
        half = F.normalize(one + two, dim=1)
        scale = goal.norm(dim=1, keepdim=True) / x.norm(dim=1, keepdim=True).clamp(min=1e-12)
    turned = x - 2.0 * half * (half * x).sum(1, keepdim=True) + 2.0 * two * (one * x).sum(1, keepdim=True)
    out: Tensor = scale * turned
    return out
