"""The prefix tree over everyone's STUs, in flat arrays."""

from __future__ import annotations

from copy import copy
from functools import cached_property

import torch
from torch import Tensor

from graphrec.data.checks import check_count, check_exclude, check_index
from graphrec.temporal import ragged

MAX_KEYS = 2**62
MAX_USERS = 2**31
"""Users of a tree, so that none is made wide by a wrong index."""
DENSE = 1 / 16
"""From which share of codes that exist on all of a level's are looked at, which is faster."""


class PrefixTree:
    """All STUs that anybody has, as a tree; users with one STU are an ordered bucket at its leaf.

    Users are sorted by their STU, its codes read as the digits of one number, so that the users below a node
    are a range of `users`. Nodes are numbered level by level and in order of their STUs: the root is 0, the
    children of a node lie side by side with ascending codes, the leaves come last. A tree does not change:
    `insert` and `remove` make another, without sorting again.

    Args:
        codes: [N, L] int64, below K; -1 in the whole row of whoever has no STU.
        codebook_size: K.
        rank: [N], in which order the users of a bucket are listed, lowest first; by default their index.

    Attributes:
        codebook_size: K.
        num_codebooks: L.
        num_users: N, with and without STU.
        level_ptr: L + 2 numbers; the nodes of level l (0 the root, L the leaves) are those from level_ptr[l]
            to level_ptr[l + 1] - 1.
        users: [M] int64, whoever has an STU, in order of the STUs.
        place: [N] int64, where each user is in `users`, or -1.
        start, end: [num_nodes] int64, the range in `users` of those below each node.
        code: [num_nodes] int64, the last code of each node's prefix; 0 of the root.
        parent: [num_nodes] int64; -1 of the root.
        child_ptr: [number of nodes that are no leaves + 1] int64, the first child of each node.
        num_children: [number of nodes that are no leaves] int64.

    Raises:
        ValueError: codes that are none.
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
        if codebook_size**self.num_codebooks > MAX_KEYS:
            raise ValueError(f"{codes.size(1)} codes below {codebook_size} do not fit into one number")
        self._rank = _ranks(rank, codes)
        has = (codes != -1).any(1)
        self._check(codes[has])
        users = has.nonzero().squeeze(1)
        if self._rank is not None:
            users = users[self._rank[users].argsort(stable=True)]
        keys, order = self._pack(codes[users]).sort(stable=True)
        self._build(keys, users[order])

    def _build(self, keys: Tensor, users: Tensor) -> None:
        """All arrays, from STUs in ascending order and whose they are."""
        self.__dict__.pop("largest_bucket", None)
        self.__dict__.pop("absent", None)
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
        """How many prefixes of any length anybody has, the empty one and whole STUs included."""
        return self.level_ptr[-1]

    @property
    def device(self) -> torch.device:
        """Where the arrays are."""
        return self.users.device

    @cached_property
    def largest_bucket(self) -> int:
        """How many users share an STU at most."""
        leaves = slice(self.level_ptr[-2], None)
        return int((self.end[leaves] - self.start[leaves]).max()) if len(self) else 0

    @cached_property
    def absent(self) -> list[Tensor | None]:
        """Which codes follow, of levels where `DENSE` of them do: [nodes of the level, K] float32.

        0 where a code follows, -inf where none does; None of other levels. At most 64 bytes a node.
        """
        out: list[Tensor | None] = []
        for first, last, end in zip(self.level_ptr, self.level_ptr[1:], self.level_ptr[2:], strict=False):
            shape = last - first, self.codebook_size
            if end - last < DENSE * shape[0] * shape[1]:
                out.append(None)
                continue
            below = slice(last, end)
            place = self.parent[below] - first, self.code[below]
            full = self.code.new_full(shape, -torch.inf, dtype=torch.float32)
            full[place] = 0.0
            out.append(full)
        return out

    def child(self, node: Tensor, code: Tensor) -> Tensor:
        """The children [n] of nodes [n] of one level for codes [n] that follow there, int64."""
        if not len(node):
            return node
        level = next(at for at, end in enumerate(self.level_ptr[1:]) if int(node[0]) < end)
        first, end = self.level_ptr[level + 1], self.level_ptr[level + 2]
        key = self.parent[first:end] * self.codebook_size + self.code[first:end]
        return first + torch.searchsorted(key, node * self.codebook_size + code)

    def __len__(self) -> int:
        """How many users have an STU."""
        return len(self.users)

    def __repr__(self) -> str:
        size = f"{self.codebook_size}^{self.num_codebooks}"
        return f"PrefixTree({len(self):,} users, {self.num_nodes:,} nodes, {size} places)"

    def to(self, device: torch.device | str) -> PrefixTree:
        """The same tree on another device."""
        out = copy(self)
        out.__dict__.pop("absent", None)
        out.__dict__.update({k: v.to(device) for k, v in self.__dict__.items() if isinstance(v, Tensor)})
        return out

    def size(self, node: Tensor) -> Tensor:
        """How many users there are below nodes (int64, same shape)."""
        return self.end[node] - self.start[node]

    def prefix(self, node: Tensor, length: int) -> Tensor:
        """The codes of nodes [B] of level `length`: [B, length] int64."""
        key = self._keys[self.start[node]] // self.codebook_size ** (self.num_codebooks - length)
        out: Tensor = key[:, None] // self._powers(length, key.device) % self.codebook_size
        return out

    def find(self, prefix: Tensor) -> Tensor:
        """The nodes of prefixes [B, l], l <= L, or -1 where nobody has one: [B] int64."""
        length = prefix.size(1)
        if prefix.dim() != 2 or length > self.num_codebooks:
            raise ValueError(f"prefixes must be [B, l], l <= {self.num_codebooks}, got {list(prefix.shape)}")
        self._check(prefix)
        if not len(self):
            return prefix.new_full((len(prefix),), -1)
        size = self.codebook_size ** (self.num_codebooks - length)
        key = self._pack(prefix)
        place = torch.searchsorted(self._keys, key * size).clamp(max=len(self) - 1)
        return torch.where(self._keys[place] // size == key, self.node_at(length, place), -1)

    def node_at(self, level: int, place: Tensor) -> Tensor:
        """The nodes of a level that those at places in `users` are below (int64, same shape)."""
        first, last = self.level_ptr[level : level + 2]
        return first - 1 + torch.searchsorted(self.start[first:last], place, right=True)

    def users_of(self, node: Tensor) -> tuple[Tensor, Tensor]:
        """Whoever is below nodes [B], such as leaves: (row [M] of the node, user [M]), in order."""
        row, place = ragged(self.start[node], self.end[node])
        return row, self.users[place]

    def insert(self, users: Tensor, codes: Tensor, rank: Tensor | None = None) -> PrefixTree:
        """The tree with more users: merged into the order there is, which costs a copy of it.

        Args:
            users: [n] int64, distinct, without an STU so far; those from N on are new.
            codes: [n, L] int64.
            rank: [n], where the others have a rank.

        Raises:
            ValueError: a user who has an STU already (`remove` it first) or comes twice.
        """
        users = check_index("user", users, MAX_USERS).to(self.device)
        if codes.shape != (len(users), self.num_codebooks) or codes.dtype != torch.int64:
            shape, expected = list(codes.shape), [len(users), self.num_codebooks]
            raise ValueError(f"codes must be {expected} int64, got {shape} {codes.dtype}")
        self._check(codes)
        if len(users.unique()) != len(users):
            raise ValueError("a user comes twice")
        known = users[users < self.num_users]
        if bool((self.place[known] >= 0).any()):
            raise ValueError(f"user {int(known[self.place[known] >= 0][0])} already has an STU")
        if (rank is None) != (self._rank is None):
            raise ValueError("either everybody has a rank or nobody")
        out = copy(self)
        out.__dict__.pop("largest_bucket", None)
        if len(users):
            out.num_users = max(self.num_users, 1 + int(users.max()))
        if rank is not None and self._rank is not None:
            more = self._rank.new_zeros(out.num_users - self.num_users)
            out._rank = torch.cat([self._rank, more]).index_copy(0, users, rank.to(self._rank))
        new, order = self._pack(codes).sort()
        total = len(self) + len(users)
        at = torch.searchsorted(self._keys, new, right=True)
        at = at + torch.arange(len(at), device=self.device)
        old = torch.ones(total, dtype=torch.bool, device=self.device)
        old[at] = False
        keys, merged = new.new_empty(total), new.new_empty(total)
        keys[old], keys[at] = self._keys, new
        merged[old], merged[at] = self.users, users[order]
        # Buckets that somebody came into are put in order again.
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
        """The tree without the STUs of users [n]; N stays. It costs a copy of what is left.

        Raises:
            IndexError: a user that there is not.
            ValueError: a user who has none.
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

    def _check(self, codes: Tensor) -> None:
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            wrong = codes[(codes < 0) | (codes >= self.codebook_size)]
            raise ValueError(f"codes lie outside 0..{self.codebook_size - 1}: {int(wrong[0])}")

    def _pack(self, prefix: Tensor) -> Tensor:
        return (prefix * self._powers(prefix.size(1), prefix.device)).sum(1)

    def _powers(self, length: int, device: torch.device) -> Tensor:
        powers = [self.codebook_size**left for left in reversed(range(length))]
        return torch.tensor(powers, dtype=torch.int64, device=device)


def _ranks(rank: Tensor | None, codes: Tensor) -> Tensor | None:
    if rank is not None and rank.shape != codes.shape[:1]:
        raise ValueError(f"rank must be [{len(codes)}], got {list(rank.shape)}")
    return rank


class Excluded:
    """Users who may not be suggested to some queries, and the nodes they are below.

    Args:
        tree: where the users are.
        num_queries: B.
        exclude: (row [E], user [E]) integers, in any order, also twice; those without STU do not matter.
        exclude_users: [E] integers, users who may not be suggested to any query.

    Attributes:
        row, place: [X] int64, distinct, ascending; the place is the one in `tree.users`. Pairs of
            `exclude_users` are not among them.
        everywhere: [M] bool, by places, the `exclude_users`; None where there are none.
        num_left: how many users with an STU are not among the `exclude_users`.

    Raises:
        TypeError, ValueError: pairs that are no integers, or of unequal lengths.
        IndexError: a row or user that there is not.
    """

    def __init__(
        self,
        tree: PrefixTree,
        num_queries: int,
        exclude: tuple[Tensor, Tensor] | None,
        exclude_users: Tensor | None = None,
    ) -> None:
        row, user = (part.to(tree.device) for part in check_exclude(exclude, num_queries, tree.num_users))
        place = tree.place[user]
        has = place >= 0
        self.everywhere: Tensor | None = None
        self.num_left = len(tree)
        if exclude_users is not None:
            nowhere = check_index("exclude_users", exclude_users, tree.num_users).to(tree.device)
            hidden = tree.place[nowhere]
            hidden = hidden[hidden >= 0]
            if len(hidden):
                self.everywhere = torch.zeros(len(tree), dtype=torch.bool, device=tree.device)
                self.everywhere[hidden] = True
                self.num_left -= int(self.everywhere.sum())
                has &= ~self.everywhere[place]
                total = self.everywhere.cumsum(0)
                self._before = torch.cat([total.new_zeros(1), total])
        base = max(1, len(tree))
        key = (row[has] * base + place[has]).unique()
        self._tree, self.row, self.place = tree, key // base, key % base

    def nodes(self, level: int) -> tuple[Tensor, Tensor, Tensor]:
        """(row [D], node [D], how many excluded pairs are below it [D]), distinct and ascending."""
        key = self.row * self._tree.num_nodes + self._tree.node_at(level, self.place)
        key, count = key.unique_consecutive(return_counts=True)
        return key // self._tree.num_nodes, key % self._tree.num_nodes, count

    def left(self, node: Tensor) -> Tensor:
        """How many users below nodes [n] are not among the `exclude_users`: [n] int64."""
        size = self._tree.size(node)
        if self.everywhere is None:
            return size
        return size - (self._before[self._tree.end[node]] - self._before[self._tree.start[node]])

    def closed(self, level: int) -> Tensor:
        """The nodes of a level below which nobody is left but `exclude_users`, [n] int64."""
        node = torch.arange(*self._tree.level_ptr[level : level + 2], device=self._tree.device)
        return node[:0] if self.everywhere is None else node[self.left(node) == 0]
