"""The prefix tree of all STUs, in flat arrays."""

from __future__ import annotations

from copy import copy
from functools import cached_property

import torch
from torch import Tensor

from graphrec.data.checks import check_count, check_index
from graphrec.decode.columns import TreeColumns
from graphrec.decode.packing import check_codes, check_packable, check_rank, pack_codes, sort_users
from graphrec.temporal import ragged

MAX_USERS = 2**31
"""Largest number of users of a tree, a guard against wrong indices."""

DENSE_CHILD_SHARE = 1 / 16
"""Share of existing child codes of a level from which on all codes are scored at once, which is faster."""


class PrefixTree:
    """The STUs of all users as a tree; users with equal STUs are an ordered bucket at its leaf.

    Users are sorted by STU, so that the users below a node are a range of `users`. Nodes are numbered level
    by level and in order of their STUs: the root is 0, the children of a node are consecutive with ascending
    codes, the leaves come last. A tree is immutable: `insert` and `remove` make another, without sorting
    again.

    Args:
        codes: [N, L] int64, below K; -1 in the whole row of users without an STU.
        codebook_size: K.
        rank: [N], order of the users of a bucket, lowest first; by default by index.

    Attributes:
        codebook_size: K.
        num_codebooks: L.
        num_users: N, with and without an STU.
        level_ptr: L + 2 numbers; the nodes of level l (0 the root, L the leaves) are those from level_ptr[l]
            to level_ptr[l + 1] - 1.
        users: [M] int64, users with an STU, in order of their STUs.
        place: [N] int64, position of each user in `users`, or -1.
        start, end: [num_nodes] int64, the range of the users below each node in `users`.
        code: [num_nodes] int64, the last code of each node's prefix; 0 of the root.
        parent: [num_nodes] int64; -1 of the root.
        child_ptr: [number of inner nodes + 1] int64, the first child of each inner node.
        num_children: [number of inner nodes] int64.

    Raises:
        ValueError: codes or rank are not as described.
    """

    users: Tensor
    place: Tensor
    start: Tensor
    end: Tensor
    code: Tensor
    parent: Tensor
    child_ptr: Tensor
    num_children: Tensor
    level_ptr: tuple[int, ...]

    def __init__(self, codes: Tensor, codebook_size: int, rank: Tensor | None = None) -> None:
        check_count("codebook_size", codebook_size)
        if codes.dim() != 2 or codes.dtype != torch.int64 or not codes.size(1):
            raise ValueError(f"codes must be [N, L] int64, got {list(codes.shape)} {codes.dtype}")
        self.codebook_size, self.num_codebooks = codebook_size, codes.size(1)
        self.num_users = len(codes)
        check_packable(self.num_codebooks, codebook_size)
        check_rank(rank, len(codes))
        self._rank = rank
        has = (codes != -1).any(1)
        check_codes(codes[has], codebook_size)
        self._build(*sort_users(codes, has.nonzero().squeeze(1), codebook_size, rank))

    def _build(self, keys: Tensor, users: Tensor) -> None:
        """Set all arrays, from packed STUs [M] in ascending order and their users [M]."""
        self.__dict__.pop("largest_bucket", None)
        self.__dict__.pop("child_mask", None)
        self.__dict__.pop("columns", None)
        self._keys, self.users = keys, users
        at, size = torch.arange(len(users), device=users.device), self.codebook_size
        self.place = torch.full((self.num_users,), -1, device=users.device).index_copy(0, users, at)
        starts, codes, level_ptr = [at.new_zeros(1)], [at.new_zeros(1)], [0, 1]
        for left in reversed(range(self.num_codebooks)):
            prefix = keys // size**left
            opens = torch.ones_like(prefix, dtype=torch.bool)
            opens[1:] = prefix[1:] != prefix[:-1]
            starts.append(at[opens])
            codes.append(prefix[opens] % size)
            level_ptr.append(level_ptr[-1] + len(starts[-1]))
        self.level_ptr = tuple(level_ptr)
        last = at.new_full((1,), len(users))
        self.start, self.code = torch.cat(starts), torch.cat(codes)
        self.end = torch.cat([torch.cat([start[1:], last]) for start in starts])
        # A node's first child begins where it begins, as no node is empty.
        first = [
            base + torch.searchsorted(below, above)
            for base, above, below in zip(level_ptr[1:], starts, starts[1:], strict=False)
        ]
        self.child_ptr = torch.cat([*first, last.new_full((1,), self.num_nodes)])
        self.num_children = self.child_ptr.diff()
        self.parent = torch.cat([last.new_full((1,), -1), torch.repeat_interleave(self.num_children)])

    @property
    def num_nodes(self) -> int:
        """Number of distinct prefixes of all lengths 0..L."""
        return self.level_ptr[-1]

    @property
    def device(self) -> torch.device:
        """The device of the arrays."""
        return self.users.device

    @cached_property
    def largest_bucket(self) -> int:
        """Largest number of users with the same STU."""
        leaves = slice(self.level_ptr[-2], None)
        return int((self.end[leaves] - self.start[leaves]).max()) if len(self) else 0

    @cached_property
    def columns(self) -> TreeColumns:
        """The arrays for kernels; they must be on the CPU."""
        arrays = self.code, self.parent, self.child_ptr, self.start, self.end, self.users
        return TreeColumns(*(array.numpy() for array in arrays))

    @cached_property
    def child_mask(self) -> list[Tensor | None]:
        """An additive mask of existing child codes for each dense level, [nodes of the level, K] float32.

        0 for codes that follow, -inf for others; None for levels in which fewer than `DENSE_CHILD_SHARE` of
        the codes follow. At most 64 bytes a node.
        """
        out: list[Tensor | None] = []
        for first, last, end in zip(self.level_ptr, self.level_ptr[1:], self.level_ptr[2:], strict=False):
            shape = last - first, self.codebook_size
            if end - last < DENSE_CHILD_SHARE * shape[0] * shape[1]:
                out.append(None)
                continue
            below = slice(last, end)
            place = self.parent[below] - first, self.code[below]
            full = self.code.new_full(shape, -torch.inf, dtype=torch.float32)
            full[place] = 0.0
            out.append(full)
        return out

    def child(self, node: Tensor, code: Tensor) -> Tensor:
        """The children of nodes [n] of one level by codes [n], which have to follow there: [n] int64."""
        if not len(node):
            return node
        level = next(at for at, end in enumerate(self.level_ptr[1:]) if int(node[0]) < end)
        first, end = self.level_ptr[level + 1], self.level_ptr[level + 2]
        key = self.parent[first:end] * self.codebook_size + self.code[first:end]
        return first + torch.searchsorted(key, node * self.codebook_size + code)

    def __len__(self) -> int:
        """Number of users with an STU."""
        return len(self.users)

    def __repr__(self) -> str:
        size = f"{self.codebook_size}^{self.num_codebooks}"
        return f"PrefixTree({len(self):,} users, {self.num_nodes:,} nodes, {size} places)"

    def to(self, device: torch.device | str) -> PrefixTree:
        """The same tree on another device."""
        out = copy(self)
        out.__dict__.pop("child_mask", None)
        out.__dict__.pop("columns", None)
        out.__dict__.update({k: v.to(device) for k, v in self.__dict__.items() if isinstance(v, Tensor)})
        return out

    def size(self, node: Tensor) -> Tensor:
        """Number of users below nodes (int64, same shape)."""
        return self.end[node] - self.start[node]

    def prefix(self, node: Tensor, length: int) -> Tensor:
        """The codes of nodes [B] of level `length`: [B, length] int64."""
        key = self._keys[self.start[node]] // self.codebook_size ** (self.num_codebooks - length)
        out: Tensor = key[:, None] // self._powers(length, key.device) % self.codebook_size
        return out

    def find(self, prefix: Tensor) -> Tensor:
        """The nodes of prefixes [B, l], l <= L: [B] int64; -1 for prefixes that no STU begins with."""
        length = prefix.size(1)
        if prefix.dim() != 2 or length > self.num_codebooks:
            raise ValueError(f"prefixes must be [B, l], l <= {self.num_codebooks}, got {list(prefix.shape)}")
        check_codes(prefix, self.codebook_size)
        if not len(self):
            return prefix.new_full((len(prefix),), -1)
        size = self.codebook_size ** (self.num_codebooks - length)
        key = pack_codes(prefix, self.codebook_size)
        place = torch.searchsorted(self._keys, key * size).clamp(max=len(self) - 1)
        return torch.where(self._keys[place] // size == key, self.node_at(length, place), -1)

    def node_at(self, level: int, place: Tensor) -> Tensor:
        """The nodes of a level above the users at positions in `users` (int64, same shape)."""
        first, last = self.level_ptr[level : level + 2]
        return first - 1 + torch.searchsorted(self.start[first:last], place, right=True)

    def users_of(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """The users below nodes [B], in tree order: (index into `node` [M], user [M]) int64."""
        row, place = ragged(self.start[node], self.end[node])
        return row, self.users[place]

    def among(self, place: Tensor) -> PrefixTree:
        """The tree where there are more users, without an STU, whose `place` [N] is given (-1)."""
        out = copy(self)
        out.place, out.num_users = place, len(place)
        return out

    def insert(self, users: Tensor, codes: Tensor, rank: Tensor | None = None) -> PrefixTree:
        """The tree with more users, merged into the existing order, which costs a copy.

        Args:
            users: [n] int64, distinct, without an STU so far; users from N on are added.
            codes: [n, L] int64.
            rank: [n], if the other users have a rank.

        Raises:
            ValueError: a user already has an STU (`remove` it first), or is repeated.
        """
        users = check_index("user", users, MAX_USERS).to(self.device)
        if codes.shape != (len(users), self.num_codebooks) or codes.dtype != torch.int64:
            shape, expected = list(codes.shape), [len(users), self.num_codebooks]
            raise ValueError(f"codes must be {expected} int64, got {shape} {codes.dtype}")
        check_codes(codes, self.codebook_size)
        if len(users.unique()) != len(users):
            raise ValueError("a user is repeated")
        known = users[users < self.num_users]
        if bool((self.place[known] >= 0).any()):
            raise ValueError(f"user {int(known[self.place[known] >= 0][0])} already has an STU")
        if (rank is None) != (self._rank is None):
            raise ValueError("give a rank for all users or for none")
        out = copy(self)
        out.__dict__.pop("largest_bucket", None)
        if len(users):
            out.num_users = max(self.num_users, 1 + int(users.max()))
        if rank is not None and self._rank is not None:
            more = self._rank.new_zeros(out.num_users - self.num_users)
            out._rank = torch.cat([self._rank, more]).index_copy(0, users, rank.to(self._rank))
        new, order = pack_codes(codes, self.codebook_size).sort()
        total = len(self) + len(users)
        at = torch.searchsorted(self._keys, new, right=True)
        at = at + torch.arange(len(at), device=self.device)
        old = torch.ones(total, dtype=torch.bool, device=self.device)
        old[at] = False
        keys, merged = new.new_empty(total), new.new_empty(total)
        keys[old], keys[at] = self._keys, new
        merged[old], merged[at] = self.users, users[order]
        # Buckets with new users are sorted again.
        start, end = torch.searchsorted(keys, new), torch.searchsorted(keys, new, right=True)
        bucket = torch.stack([start, end], 1)[end - start > 1].unique(dim=0)
        row, place = ragged(bucket[:, 0], bucket[:, 1])
        people = merged[place]
        order = people.argsort()
        if out._rank is not None:
            order = order[out._rank[people[order]].argsort(stable=True)]
        merged[place] = people[order[row[order].argsort(stable=True)]]
        out._build(keys, merged)
        return out

    def remove(self, users: Tensor) -> PrefixTree:
        """The tree without the STUs of users [n]; N is unchanged. It costs a copy.

        Raises:
            IndexError: a user is out of range.
            ValueError: a user has no STU.
        """
        users = check_index("user", users, self.num_users).to(self.device)
        place = self.place[users]
        if bool((place < 0).any()):
            raise ValueError(f"user {int(users[place < 0][0])} has no STU")
        left = torch.ones_like(self.users, dtype=torch.bool)
        left[place] = False
        out = copy(self)
        out._build(self._keys[left], self.users[left])
        return out

    def _powers(self, length: int, device: torch.device) -> Tensor:
        powers = [self.codebook_size**left for left in reversed(range(length))]
        return torch.tensor(powers, dtype=torch.int64, device=device)
