"""The two-way table of STUs (Social Tokenized UserIDs): users to codes, and codes to users."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.decode.packing import MAX_KEYS as MAX_KEYS
from graphrec.decode.packing import check_codes, check_packable, check_rank, pack_codes, sort_users
from graphrec.nn import BALANCE_FACTOR, ResidualQuantizer, capacitated_nearest, nearest
from graphrec.temporal import ragged, run_starts

MAX_CHILD_COUNTS = 2**24
"""Numbers of users below child codes held at once."""


class STUs:
    """The STUs of all users in contiguous arrays; users with equal STUs or prefixes form an ordered bucket.

    An STU is packed into one number with the codes as digits, so that the STUs of a prefix are a range of the
    sorted numbers, and look-ups are binary searches. A table is immutable; `append` makes another.

    Args:
        codes: [N, L] int64; -1 in the whole row of users without an STU.
        codebook_size: K.
        rank: [N], order of the users of a bucket, lowest first; by default by index.

    Attributes:
        codes: [N, L] int64.
        codebook_size: K.
        rank: [N], as given, or None.

    Raises:
        ValueError: codes or rank are not as described.
    """

    def __init__(self, codes: Tensor, codebook_size: int, rank: Tensor | None = None) -> None:
        if codes.dim() != 2 or codes.dtype != torch.int64:
            raise ValueError(f"codes must be [N, L] int64, got {list(codes.shape)} {codes.dtype}")
        check_packable(codes.size(1), codebook_size)
        check_rank(rank, len(codes))
        self.codes, self.codebook_size, self.rank = codes, codebook_size, rank
        has = self.has()
        if not bool(torch.where(has[:, None], codes >= 0, codes == -1).all()):
            raise ValueError("a row of codes is either -1 throughout or nowhere")
        check_codes(codes[has], codebook_size)
        self._keys, self._users = sort_users(codes, has.nonzero().squeeze(1), codebook_size, rank)

    @property
    def num_codebooks(self) -> int:
        """L."""
        return self.codes.size(1)

    def __len__(self) -> int:
        """Number of users with an STU."""
        return len(self._users)

    def __repr__(self) -> str:
        size = f"{self.codebook_size}^{self.num_codebooks}"
        return f"STUs({len(self):,} of {len(self.codes):,} users, {size} places)"

    def has(self) -> Tensor:
        """Mask [N] bool of the users with an STU."""
        return self.codes[:, 0] >= 0

    def count(self, prefix: Tensor) -> Tensor:
        """Number of users with each prefix [B, l], l <= L: [B] int64."""
        start, end = self._range(prefix)
        return end - start

    def users_of(self, prefix: Tensor) -> tuple[Tensor, Tensor]:
        """The users of prefixes [B, l], l <= L, such as whole STUs.

        Returns:
            (row [M] of the prefix, user [M]) int64; rows ascending, each bucket in its order.
        """
        row, place = ragged(*self._range(prefix))
        return row, self._users[place]

    def children(self, prefix: Tensor) -> Tensor:
        """Number of users with each prefix [B, l], l < L, followed by each code: [B, K] int64."""
        low, size = self._low(prefix)
        if prefix.size(1) == self.num_codebooks:
            raise ValueError("a whole STU has no next code")
        size //= self.codebook_size
        border = low[:, None] + size * torch.arange(self.codebook_size + 1)
        return torch.searchsorted(self._keys, border).diff(dim=1)

    def buckets(self, length: int) -> Tensor:
        """Number of users of each of the S prefixes in use of a length from 1 to L: [S] int64."""
        prefix = self._keys // self.codebook_size ** (self.num_codebooks - length)
        size: Tensor = prefix.unique_consecutive(return_counts=True)[1]
        return size

    def append(self, codes: Tensor, rank: Tensor | None = None) -> STUs:
        """A table with n more users, numbered from N on: codes [n, L] int64 and, as before, rank [n]."""
        if (rank is None) != (self.rank is None):
            raise ValueError("give a rank for all users or for none")
        ranks = None if rank is None or self.rank is None else torch.cat([self.rank, rank])
        return STUs(torch.cat([self.codes, codes]), self.codebook_size, ranks)

    def place(
        self,
        vectors: Tensor,
        quantizer: ResidualQuantizer,
        raw_codes: Tensor | None = None,
        *,
        balanced: bool = False,
    ) -> Tensor:
        """Assign unique STUs that are not yet in use.

        Level by level each user gets the raw code, as long as STUs below it are free: there are K^(L - l)
        below a prefix of length l. If too many users share a prefix, those whose distance grows least move to
        the nearest sibling with free STUs. A user who has moved continues with the nearest code at each
        further level.

        Args:
            vectors: [n, D].
            quantizer: the codebooks.
            raw_codes: [n, L] int64; by default `quantizer.encode(vectors)`.
            balanced: users move to a code only as long as it has at most `BALANCE_FACTOR` times the mean
                number of users, unless no other code is free.

        Returns:
            [n, L] int64, distinct rows, none of which is in the table.

        Raises:
            ValueError: there are fewer free STUs than vectors.
        """
        free = self.codebook_size**self.num_codebooks - len(self)
        if len(vectors) > free:
            raise ValueError(
                f"{len(vectors):,} users need an STU each, {free:,} of {self.codebook_size}^"
                f"{self.num_codebooks} are free; ask for more codes (codebook_size, num_codebooks), "
                "or unique=False"
            )
        residual = vectors.detach().float().cpu().clone()
        codes = quantizer.encode(vectors) if raw_codes is None else raw_codes.clone()
        check_codes(codes, self.codebook_size)
        codebooks = quantizer.codebooks.cpu()
        moved = torch.zeros(len(codes), dtype=torch.bool)
        for level, codebook in enumerate(codebooks):
            if moved.any():
                codes[moved, level] = nearest(residual[moved], codebook)
            total = None
            if balanced:
                served = torch.bincount(self.codes[self.has(), level], minlength=self.codebook_size)
                total = int(BALANCE_FACTOR * (len(self) + len(codes)) / self.codebook_size) - served
            placed = self._place_level(residual, codebook, codes[:, : level + 1], total)
            moved |= placed != codes[:, level]
            codes[:, level] = placed
            residual -= codebook[placed]
        return codes

    def _place_level(self, residual: Tensor, codebook: Tensor, codes: Tensor, total: Tensor | None) -> Tensor:
        """The last code of prefixes [n, l], changed for some users where it has too few free STUs: [n] int64.

        `total` [K] is how many each code should take at most; see `capacitated_nearest`.
        """
        size = self.codebook_size ** (self.num_codebooks - codes.size(1))
        _, cell, wanted = pack_codes(codes, self.codebook_size).unique(
            return_inverse=True, return_counts=True
        )
        crowded = wanted[cell] + self.count(codes) > size
        out = codes[:, -1].clone()
        if not crowded.any():
            return out
        # Siblings compete: only those of a crowded code are looked at one by one.
        _, family = pack_codes(codes[:, :-1], self.codebook_size).unique(return_inverse=True)
        contested = torch.zeros_like(family, dtype=torch.bool)
        contested[family[crowded]] = True
        rows = contested[family].nonzero().squeeze(1)
        _, family = family[rows].unique(return_inverse=True)
        rows, family = rows[family.argsort(stable=True)], family.sort().values
        if total is not None:
            total = total - torch.bincount(out[~crowded], minlength=self.codebook_size)
        borders = torch.arange(0, int(family[-1]) + 1, max(1, MAX_CHILD_COUNTS // self.codebook_size))
        sizes = torch.searchsorted(family, borders).diff(append=torch.tensor([len(family)]))
        for here, kin in zip(rows.split(sizes.tolist()), family.split(sizes.tolist()), strict=True):
            kin, start = kin.unique_consecutive(return_inverse=True)[1], run_starts(kin).unique()
            room = size - self.children(codes[here[start], :-1])
            stays = ~crowded[here]
            room.index_put_((kin[stays], out[here[stays]]), torch.tensor(-1), accumulate=True)
            moving = here[~stays]
            out[moving] = capacitated_nearest(residual[moving], codebook, room, kin[~stays], total)
            if total is not None:
                total = total - torch.bincount(out[moving], minlength=self.codebook_size)
        return out

    def _low(self, prefix: Tensor) -> tuple[Tensor, int]:
        """The smallest packed STU with each prefix, [B] int64, and how many a prefix has."""
        if prefix.dim() != 2 or prefix.size(1) > self.num_codebooks:
            raise ValueError(f"prefixes must be [B, l] with l <= {self.num_codebooks}: {list(prefix.shape)}")
        size = self.codebook_size ** (self.num_codebooks - prefix.size(1))
        check_codes(prefix, self.codebook_size)
        return pack_codes(prefix, self.codebook_size) * size, size

    def _range(self, prefix: Tensor) -> tuple[Tensor, Tensor]:
        low, size = self._low(prefix)
        return torch.searchsorted(self._keys, low), torch.searchsorted(self._keys, low + size)
