"""The two-way table of STUs (Social Tokenized UserIDs): users to codes, and codes to users."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.nn import SLACK, ResidualQuantizer, bounded_nearest, nearest
from graphrec.temporal import ragged, run_starts

MAX_KEYS = 2**62
CHUNK = 2**24
"""Places counted at once."""


class STUs:
    """Everyone's STU in contiguous arrays; people with one STU, or one prefix, are an ordered bucket.

    An STU is packed into one number, its codes being the digits, so that the STUs of a prefix are a range of
    the sorted numbers: every look-up is a binary search. A table does not change; `append` makes another.

    Args:
        codes: [N, L] int64; -1 in the whole row of whoever has none.
        codebook_size: K.
        rank: [N], in which order the people of a bucket are listed, lowest first; by default as they come.

    Attributes:
        codes: [N, L] int64.
        codebook_size: K.
        rank: [N], as given, or None.
    """

    def __init__(self, codes: Tensor, codebook_size: int, rank: Tensor | None = None) -> None:
        if codes.dim() != 2 or codes.dtype != torch.int64:
            raise ValueError(f"codes must be [N, L] int64, got {list(codes.shape)} {codes.dtype}")
        if codebook_size ** codes.size(1) > MAX_KEYS:
            raise ValueError(f"{codes.size(1)} codes below {codebook_size} do not fit into one number")
        if rank is not None and rank.shape != codes.shape[:1]:
            raise ValueError(f"rank must be [{len(codes)}], got {list(rank.shape)}")
        self.codes, self.codebook_size, self.rank = codes, codebook_size, rank
        has = self.has()
        if not bool(torch.where(has[:, None], codes >= 0, codes == -1).all()):
            raise ValueError("a row of codes is either -1 throughout or nowhere")
        users = has.nonzero().squeeze(1)
        if rank is not None:
            users = users[rank[users].argsort(stable=True)]
        key = self._pack(codes[users])
        self._keys, order = key.sort(stable=True)
        self._users = users[order]

    @property
    def num_codebooks(self) -> int:
        """L."""
        return self.codes.size(1)

    def __len__(self) -> int:
        """How many users have an STU."""
        return len(self._users)

    def __repr__(self) -> str:
        size = f"{self.codebook_size}^{self.num_codebooks}"
        return f"STUs({len(self):,} of {len(self.codes):,} users, {size} places)"

    def has(self) -> Tensor:
        """Who has an STU, [N] bool."""
        return self.codes[:, 0] >= 0

    def count(self, prefix: Tensor) -> Tensor:
        """How many users' STUs begin with each prefix [B, l], l <= L: [B] int64."""
        start, end = self._range(prefix)
        return end - start

    def users_of(self, prefix: Tensor) -> tuple[Tensor, Tensor]:
        """The buckets of prefixes [B, l], l <= L, such as whole STUs.

        Returns:
            (row [M] of the prefix, user [M]) int64, rows ascending, each in the order of its bucket.
        """
        row, place = ragged(*self._range(prefix))
        return row, self._users[place]

    def children(self, prefix: Tensor) -> Tensor:
        """How many users' STUs begin with each prefix [B, l], l < L, and each next code: [B, K] int64."""
        low, size = self._low(prefix)
        if prefix.size(1) == self.num_codebooks:
            raise ValueError("a whole STU has no next code")
        size //= self.codebook_size
        border = low[:, None] + size * torch.arange(self.codebook_size + 1)
        return torch.searchsorted(self._keys, border).diff(dim=1)

    def buckets(self, length: int) -> Tensor:
        """How many users share each prefix of a length from 1 to L that anybody has, [S] int64."""
        prefix = self._keys // self.codebook_size ** (self.num_codebooks - length)
        size: Tensor = prefix.unique_consecutive(return_counts=True)[1]
        return size

    def append(self, codes: Tensor, rank: Tensor | None = None) -> STUs:
        """The table with more users, numbered on, of whom codes [n, L] and rank [n] are given."""
        if (rank is None) != (self.rank is None):
            raise ValueError("either everybody has a rank or nobody")
        ranks = None if rank is None or self.rank is None else torch.cat([self.rank, rank])
        return STUs(torch.cat([self.codes, codes]), self.codebook_size, ranks)

    def place(
        self,
        vectors: Tensor,
        quantizer: ResidualQuantizer,
        wished: Tensor | None = None,
        *,
        balanced: bool = False,
    ) -> Tensor:
        """STUs that nobody has, each user's own, for vectors [n, D]: codes [n, L] int64.

        Level by level everyone gets the code wished for, or else the nearest to what is left of the vector,
        as long as there are places below it that are still free: K^(L - l) below a prefix of length l. Where
        too many want one, those move to the nearest sibling with room who lose least by it. Whoever has moved
        wishes for nothing any more, and goes on to what is nearest from there.

        Args:
            vectors: [n, D].
            quantizer: whose codes these are.
            wished: [n, L] int64; by default `quantizer.encode(vectors)`.
            balanced: of those who move, no more to a code than make it serve `SLACK` times the mean, as far
                as there are others.

        Raises:
            ValueError: there are fewer free STUs than vectors.
        """
        free = self.codebook_size**self.num_codebooks - len(self)
        if len(vectors) > free:
            raise ValueError(
                f"{len(vectors):,} users want an STU of their own, {free:,} of {self.codebook_size}^"
                f"{self.num_codebooks} are free; ask for more codes (codebook_size, num_codebooks), "
                "or unique=False"
            )
        residual = vectors.detach().float().cpu().clone()
        codes = quantizer.encode(vectors) if wished is None else wished.clone()
        codebooks = quantizer.codebooks.cpu()
        moved = torch.zeros(len(codes), dtype=torch.bool)
        for level, codebook in enumerate(codebooks):
            if moved.any():
                codes[moved, level] = nearest(residual[moved], codebook)
            total = None
            if balanced:
                served = torch.bincount(self.codes[self.has(), level], minlength=self.codebook_size)
                total = int(SLACK * (len(self) + len(codes)) / self.codebook_size) - served
            placed = self._placed(residual, codebook, codes[:, : level + 1], total)
            moved |= placed != codes[:, level]
            codes[:, level] = placed
            residual -= codebook[placed]
        return codes

    def _placed(self, residual: Tensor, codebook: Tensor, codes: Tensor, total: Tensor | None) -> Tensor:
        """The last code of prefixes [n, l], where there is not room for all changed for some: [n].

        `total` [K] is how many each code should take at most; see `bounded_nearest`.
        """
        size = self.codebook_size ** (self.num_codebooks - codes.size(1))
        _, cell, wanted = self._pack(codes).unique(return_inverse=True, return_counts=True)
        crowded = wanted[cell] + self.count(codes) > size
        out = codes[:, -1].clone()
        if not crowded.any():
            return out
        # Siblings compete: only those of a crowded code are looked at one by one.
        _, family = self._pack(codes[:, :-1]).unique(return_inverse=True)
        contested = torch.zeros_like(family, dtype=torch.bool)
        contested[family[crowded]] = True
        rows = contested[family].nonzero().squeeze(1)
        _, family = family[rows].unique(return_inverse=True)
        rows, family = rows[family.argsort(stable=True)], family.sort().values
        if total is not None:
            total = total - torch.bincount(out[~crowded], minlength=self.codebook_size)
        borders = torch.arange(0, int(family[-1]) + 1, max(1, CHUNK // self.codebook_size))
        sizes = torch.searchsorted(family, borders).diff(append=torch.tensor([len(family)]))
        for here, kin in zip(rows.split(sizes.tolist()), family.split(sizes.tolist()), strict=True):
            kin, start = kin.unique_consecutive(return_inverse=True)[1], run_starts(kin).unique()
            room = size - self.children(codes[here[start], :-1])
            stays = ~crowded[here]
            room.index_put_((kin[stays], out[here[stays]]), torch.tensor(-1), accumulate=True)
            moving = here[~stays]
            out[moving] = bounded_nearest(residual[moving], codebook, room, kin[~stays], total)
            if total is not None:
                total = total - torch.bincount(out[moving], minlength=self.codebook_size)
        return out

    def _pack(self, codes: Tensor) -> Tensor:
        """Prefixes [n, l] as numbers, [n] int64."""
        low, high = (int(codes.min()), int(codes.max())) if codes.numel() else (0, 0)
        if low < 0 or high >= self.codebook_size:
            raise ValueError(f"codes lie outside 0..{self.codebook_size - 1}: {low if low < 0 else high}")
        key = torch.zeros(len(codes), dtype=torch.int64)
        for column in codes.unbind(1):
            key = key * self.codebook_size + column
        return key

    def _low(self, prefix: Tensor) -> tuple[Tensor, int]:
        """The first number of each prefix's range, and how many there are in it."""
        if prefix.dim() != 2 or prefix.size(1) > self.num_codebooks:
            raise ValueError(f"prefixes must be [B, l] with l <= {self.num_codebooks}: {list(prefix.shape)}")
        size = self.codebook_size ** (self.num_codebooks - prefix.size(1))
        return self._pack(prefix) * size, size

    def _range(self, prefix: Tensor) -> tuple[Tensor, Tensor]:
        low, size = self._low(prefix)
        return torch.searchsorted(self._keys, low), torch.searchsorted(self._keys, low + size)
