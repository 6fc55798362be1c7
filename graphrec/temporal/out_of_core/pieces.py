"""Pieces of an index: the timelines of consecutive users, built from half-edges in a temporary file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphrec.jit import inlined, int64, kernel
from graphrec.temporal.build import complete_columns, empty_timelines
from graphrec.temporal.columns import HalfEdges, IndexColumns

OWNER, OTHER, TICK, CODE, ACTION, NUM_BEFORE, LAST_BEFORE = range(7)
"""Rows of the arrays of half-edges: owner, other user, tick, code (see `HalfEdges`), action; of the other
user the number of half-edges before the tick, and the tick of the last of them, or -1."""

NUM_ROWS = 7
BLOCK = 256
"""Events whose users are read ahead."""

STATE_COLUMNS = 4


class Pieces:
    """Temporary files of half-edges, one for each piece of the users.

    Attributes:
        bounds: [P + 1] int64: piece p has the users from bounds[p] to before bounds[p + 1].
        piece_of: [N] int32.

    Args:
        folder: where the files are made.
        length: [N] int64, half-edges of each user.
        most: half-edges of a piece, at most, but for pieces of one user.
    """

    def __init__(self, folder: Path, length: np.ndarray, most: int) -> None:
        end = np.cumsum(length)
        bounds = [0]
        while bounds[-1] < len(length):
            before = end[bounds[-1] - 1] if bounds[-1] else 0
            bounds.append(max(bounds[-1] + 1, int(np.searchsorted(end, before + most, side="right"))))
        self.bounds = np.array(bounds, np.int64)
        self.piece_of = np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.bounds))
        self._length = length
        self._folder = folder
        self._sizes: list[list[int]] = [[] for _ in range(len(self))]
        self._state = np.full((len(length), STATE_COLUMNS), -1, np.int32)
        self._state[:, :2] = 0

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def _path(self, piece: int) -> Path:
        return self._folder / f"piece-{piece}"

    def append(
        self, src: np.ndarray, dst: np.ndarray, tick: np.ndarray, action: np.ndarray, first: int
    ) -> None:
        """Add both half-edges of the next events, all in order of time.

        Args:
            src: [n] int64.
            dst: [n] int64.
            tick: [n] int32.
            action: [n] int64.
            first: position of the first event in the log.
        """
        size = np.bincount(self.piece_of[src], minlength=len(self))
        size += np.bincount(self.piece_of[dst], minlength=len(self))
        place = np.cumsum(size) - size
        out = np.empty((NUM_ROWS, 2 * len(src)), np.int32)
        route_half_edges(src, dst, tick, action, first, self.piece_of, self._state, place, out)
        for piece in np.flatnonzero(size).tolist():
            begin = place[piece] - size[piece]
            with self._path(piece).open("ab") as file:
                for row in out:
                    file.write(row[begin : place[piece]].data)
            self._sizes[piece].append(int(size[piece]))

    def end_appends(self) -> None:
        """Free what only `append` needs."""
        self._state = np.empty((0, STATE_COLUMNS), np.int32)

    def build(self, piece: int, num_actions: int) -> IndexColumns:
        """Build the columns of a piece and delete its file.

        Owners and positions count from the beginning of the piece; `pair` has a row for each half-edge whose
        owner acted, in order of events.
        """
        records = self._read(piece)
        begin, end = self.bounds[piece : piece + 2].tolist()
        half = empty_timelines(self._length[begin:end])
        place_half_edges(records, begin, half)
        outgoing = records[CODE] & 1 > 0
        found = complete_columns(
            half,
            records[ACTION].astype(np.int64),
            records[NUM_BEFORE : LAST_BEFORE + 1],
            num_acts=int(outgoing.sum()),
            num_users=len(self._length),
            num_actions=num_actions,
        )
        number_events(records, half.code)
        del records
        return found._replace(pair=found.pair[outgoing])

    def _read(self, piece: int) -> np.ndarray:
        records = np.empty((NUM_ROWS, sum(self._sizes[piece])), np.int32)
        at = 0
        if self._sizes[piece]:
            with self._path(piece).open("rb") as file:
                for size in self._sizes[piece]:
                    block = np.fromfile(file, np.int32, NUM_ROWS * size)
                    records[:, at : at + size] = block.reshape(NUM_ROWS, size)
                    at += size
            self._path(piece).unlink()
        return records


@inlined
def see_user(state: np.ndarray, user: int, tick: int) -> None:
    """Count a half-edge of a user; see `route_half_edges`."""
    if state[user, 3] != tick:
        state[user, 1], state[user, 2], state[user, 3] = state[user, 0], state[user, 3], tick
    state[user, 0] += 1


@kernel
def route_half_edges(
    src: np.ndarray,
    dst: np.ndarray,
    tick: np.ndarray,
    action: np.ndarray,
    first: int,
    piece_of: np.ndarray,
    state: np.ndarray,
    place: np.ndarray,
    out: np.ndarray,
) -> int:
    """Write both half-edges of events [n] to the pieces of their owners.

    Args:
        src: [n] int64.
        dst: [n] int64.
        tick: [n] int32, ascending.
        action: [n] int64.
        first: position of the first event in the log.
        piece_of: [N] int32.
        state: [N, 4] int32: half-edges of each user so far, those before the latest tick, the tick before
            the latest, and the latest; ticks are -1 where there is none. Brought up to the last event.
        place: [P] int64, where each piece begins in `out`; brought to where it ends.
        out: [7, 2n] int32, filled; see `OWNER`.

    Returns:
        A sum of what was read ahead, so that no compiler leaves it out.
    """
    touched = int64(0)
    for event in range(len(src)):
        if event % BLOCK == 0:  # independent reads overlap, and the arrays are larger than any cache
            for ahead in range(event, min(event + BLOCK, len(src))):
                touched += state[src[ahead], 0] + state[dst[ahead], 0]
                touched += piece_of[src[ahead]] + piece_of[dst[ahead]]
        actor, target = src[event], dst[event]
        see_user(state, actor, tick[event])
        see_user(state, target, tick[event])
        for outgoing in range(2):
            owner, other = (actor, target) if outgoing else (target, actor)
            at = place[piece_of[owner]]
            place[piece_of[owner]] = at + 1
            out[0, at], out[1, at], out[2, at] = owner, other, tick[event]
            out[3, at], out[4, at] = 2 * (first + event) + outgoing, action[event]
            out[5, at], out[6, at] = state[other, 1], state[other, 2]
    return int(touched)


@kernel
def place_half_edges(records: np.ndarray, first_owner: int, half: HalfEdges) -> None:
    """Place half-edges [7, M] on the timelines; `code` is 2 x their row, + 1 if the owner acted."""
    place = half.start.copy()
    others, ticks, codes = half.other, half.tick, half.code
    for row in range(records.shape[1]):
        owner = records[0, row] - first_owner
        at = place[owner]
        place[owner] = at + 1
        others[at], ticks[at], codes[at] = records[1, row], records[2, row], 2 * row + (records[3, row] & 1)


@kernel
def number_events(records: np.ndarray, code: np.ndarray) -> None:
    """Replace codes that count rows of half-edges [7, M] by codes of events."""
    for at in range(len(code)):
        code[at] = records[3, code[at] >> 1]
