"""The snapshot protocol: k suggestions to every user at one moment, evaluated by the ties that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph, Part, Query, TemporalSplit, commonest_action
from graphrec.data.checks import MAX_SIZE, check_count, check_graph, check_index
from graphrec.evaluate.initiations import Initiations, default_reply_window
from graphrec.evaluate.protocol import (
    Row,
    Scorer,
    check_not_fitted_on,
    evaluate_batches,
    exclude_self,
    sample_rows,
)
from graphrec.metrics import bootstrap_interval, gini, top_k_share
from graphrec.temporal import Timeline

SNAPSHOT_SLICES = ("all", "newcomer", "degree_1_4", "degree_5_19", "degree_20", "hop_2", "hop_far")


@dataclass(frozen=True)
class SuggestionLists:
    """Suggestions to B users, as ragged lists.

    Attributes:
        user: [B] int64.
        row: [L] int64, ascending, the list of each entry, 0..B-1.
        person: [L] int64 user index; a list holds a person at most once.
        share: [L] float64 in (0, 1], the fraction of the entry that is on the list: people whose scores tie
            at the end of the list share its last places.
    """

    user: Tensor
    row: Tensor
    person: Tensor
    share: Tensor

    @classmethod
    def of(cls, user: Tensor, people: Tensor) -> Self:
        """Make lists of padded rows, as `Recommender.recommend` returns them.

        Args:
            user: [B] int64.
            people: [B, k] int64, padded with -1.
        """
        user = check_index("user", user, MAX_SIZE)
        if people.dim() != 2 or len(people) != len(user):
            raise ValueError(f"people must be [{len(user)}, k], got {list(people.shape)}")
        people = check_index("people", people + 1, MAX_SIZE, shape=(len(user), None)) - 1
        row, column = (people >= 0).nonzero(as_tuple=True)
        return cls(user, row, people[row, column], torch.ones(len(row), dtype=torch.float64))


@dataclass(frozen=True)
class Snapshot:
    """The lists made at one moment, and the acts that follow in the window that begins there.

    A user *initiates* contact with a person by a first act in the window, with no contact before. The person
    *replies* by acting on the user, either act within the reply window of the other. An initiation that is
    younger than the reply window at the window's end, and has no reply yet, is undecided. A *tie* of a user
    is an initiation with a reply.

    Attributes:
        name: name of the recommender.
        part: the part of the window.
        k: length of the lists.
        reply_window: seconds.
        lists: the suggestions.
        initiated, replied, undecided: [L] bool, the outcome of each entry.
        tie_row: [T] int64, the list of each tie's user, 0..B-1.
        tie_found: [T] float64 in [0, 1], the share of a list place that the tie's person has; 0 if not
            listed.
        slices: for each slice (places of each list that count [B] float64, entries [L] bool, ties [T] bool).
        exposure: [S] float64, number of lists that each user with an event before the window is on.
    """

    name: str
    part: Part
    k: int
    reply_window: int
    lists: SuggestionLists
    initiated: np.ndarray
    replied: np.ndarray
    undecided: np.ndarray
    tie_row: np.ndarray
    tie_found: np.ndarray
    slices: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    exposure: np.ndarray

    def reciprocated(self) -> np.ndarray:
        """Return each list's reciprocated precision: [B] float64, NaN where all entries are undecided."""
        _, replied, undecided = self._counts(self.lists.share.numpy())
        decided = self.k - undecided
        return np.where(decided > 1e-9, replied / np.maximum(decided, 1e-9), np.nan)

    def _counts(self, share: np.ndarray) -> list[np.ndarray]:
        """Places of each list that were initiated, replied, undecided: [B] float64 each."""
        row, size = self.lists.row.numpy(), len(self.lists.user)
        return [
            np.bincount(row, weights=share * outcome, minlength=size)
            for outcome in (self.initiated, self.replied, self.undecided)
        ]

    def row(self, slice_name: str) -> Row:
        """Return the metrics of one slice as a row of the results file.

        `precision@k` is the fraction of a list that its user initiated contact with: one direction alone.
        `reciprocated_precision@k` is the fraction that also replied, undecided entries left out. `ties`
        counts the ties of the slice, `ties_found@k` is the fraction of them on the lists. A metric without
        any decided list, or without any tie, is left out. The slice 'all' has exposure too, over the users
        with an event before the window: the Gini coefficient of the number of lists a user is on, the
        fraction of users on no list, and the largest number of lists that one user is on. `horizon_s` is the
        reply window.

        Raises:
            KeyError: there is no such slice.
        """
        if slice_name not in SNAPSHOT_SLICES:
            raise KeyError(f"unknown slice {slice_name!r}; the slices are {', '.join(SNAPSHOT_SLICES)}")
        size, entries, ties = self.slices[slice_name]
        initiated, replied, undecided = self._counts(self.lists.share.numpy() * entries)
        decided = size - undecided > 1e-9
        row: Row = {"model": self.name, "part": self.part, "slice": slice_name, "n": int(decided.sum())}
        row["horizon_s"] = self.reply_window
        if slice_name == "all":
            row["exposure_gini"] = gini(self.exposure)
            row["never_suggested"] = float((self.exposure < 1e-9).mean())
            row["most_suggested"] = float(self.exposure.max(initial=0.0))
        if decided.any():
            one, both = initiated[decided] / size[decided], replied[decided] / (size - undecided)[decided]
            for name, precision in (("precision", one), ("reciprocated_precision", both)):
                low, high = bootstrap_interval(precision, np.arange(len(precision)))
                name = f"{name}@{self.k}"
                row |= {name: float(precision.mean()), f"{name}_low": low, f"{name}_high": high}
        row["ties"] = int(ties.sum())
        if ties.any():
            found = self.tie_found[ties]
            low, high = bootstrap_interval(found, self.tie_row[ties])
            name = f"ties_found@{self.k}"
            row |= {name: float(found.mean()), f"{name}_low": low, f"{name}_high": high}
        return row

    def rows(self) -> list[Row]:
        """Return one row of metrics for each slice with a tie or with a list that is not all undecided."""
        found = [self.row(name) for name in SNAPSHOT_SLICES]
        return [row for row in found if row["n"] or row["ties"]]


def snapshot_query(
    graph: FriendGraph,
    *,
    part: Part = "test",
    split: TemporalSplit | None = None,
    action: str | None = None,
) -> Query:
    """Return one query for every user with an event before a part's window, at the window's start.

    Where that means too many scores, a fixed sample of 6,000 of these users.

    Args:
        graph: the whole graph.
        part: 'val' or 'test'.
        split: by default the graph's `TemporalSplit`.
        action: name of the queries' action; by default the commonest of training.
    """
    split = split or TemporalSplit.of(graph)
    timeline, num_users = Timeline.of(graph), graph.num_users
    start, _ = split.window(part)
    users = torch.from_numpy(np.sort(sample_rows(_users_before(timeline, start).numpy(), num_users)))
    if action is None:
        seen = timeline.events.action[: split.num_train]
        counts = torch.bincount(seen, minlength=len(graph.actions)).tolist()
        action = graph.actions[commonest_action(graph.roles, counts)]
    return Query.of(graph, users, start, action)


def evaluate_snapshot(
    scorer: Scorer,
    graph: FriendGraph,
    *,
    part: Part = "test",
    split: TemporalSplit | None = None,
    k: int = 10,
    action: str | None = None,
    progress: bool = True,
    in_sample: bool = False,
) -> Snapshot:
    """Suggest k people to every user with an event before a part's window, and evaluate them in that window.

    Earlier contacts are not suggested. People whose scores tie at the end of a list share its last places, so
    the figures are expectations, not draws.

    Slices: `newcomer`, users whose first event is less than a window's length before the window;
    `degree_1_4`, `degree_5_19`, `degree_20`, by the user's number of contacts; `hop_2` and `hop_far`, of all
    lists the people with a common contact, and the others.

    Args:
        scorer: fitted on events before the part.
        graph: the whole graph.
        part: 'val' or 'test'.
        split: by default the graph's `TemporalSplit`.
        k: the length of the lists.
        action: name of the queries' action; by default the commonest of training.
        progress: show a progress bar, where there is a terminal.
        in_sample: allow events that the recommender was fitted on (before its `fitted_until`).

    Raises:
        EvaluationError: a score is not finite; or the recommender was fitted on events of the window.
        ValueError: there is no such part, or k is smaller than 1.
        KeyError: there is no such action.
    """
    check_graph(graph)
    k = check_count("k", k)
    split = split or TemporalSplit.of(graph)
    check_not_fitted_on(scorer, torch.tensor([split.window(part)[0]]), in_sample=in_sample)
    timeline = Timeline.of(graph)
    query = snapshot_query(graph, part=part, split=split, action=action)

    def list_batch(rows: slice, batch: Query, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        excluded = exclude_self(batch, timeline.contacts.before(batch.user, timeline.tick(batch.time)))
        at, person, share = top_k_share(scores, k, excluded)
        return at + rows.start, person, share

    title = f"{scorer.name} {part} snapshot"
    found = evaluate_batches(scorer, query, graph.num_users, list_batch, title=title, progress=progress)
    row, person, share = (torch.cat(parts) for parts in zip(*found, strict=True))
    return evaluate_snapshot_lists(
        SuggestionLists(query.user, row, person, share), graph, name=scorer.name, part=part, split=split, k=k
    )


def evaluate_snapshot_lists(
    lists: SuggestionLists,
    graph: FriendGraph,
    *,
    name: str,
    part: Part = "test",
    split: TemporalSplit | None = None,
    k: int = 10,
) -> Snapshot:
    """Evaluate lists made by any means at the start of a part's window, as `evaluate_snapshot` does.

    Args:
        lists: the suggestions.
        graph: the whole graph.
        name: name of the recommender in messages and rows.
        part: 'val' or 'test'.
        split: by default the graph's `TemporalSplit`.
        k: the length of the lists.

    Raises:
        ValueError: a list has more than k places.
    """
    split = split or TemporalSplit.of(graph)
    timeline, num_users = Timeline.of(graph), graph.num_users
    start, end = split.window(part)
    reply_window = default_reply_window(split, part)
    user, at = lists.user, lists.row
    places = torch.bincount(at, weights=lists.share, minlength=len(user))
    if bool((places > k + 1e-6).any()):
        raise ValueError(f"a list of {name} has {float(places.max()):g} places, more than k = {k}")

    key, replied, undecided = _initiations_in(Initiations.of(graph), start, end, reply_window, num_users)
    entry = (user[at] * num_users + lists.person).numpy()
    place, found = _look_up(key, entry)

    # The ties of users with a list, and the fraction of each on it.
    row_of = torch.full((num_users,), -1)
    row_of[user] = torch.arange(len(user))
    tie = torch.from_numpy(key[replied])
    tie = tie[row_of[tie // num_users] >= 0]
    tie_user, tie_person = tie // num_users, tie % num_users
    order = np.argsort(entry)
    position, listed = _look_up(entry[order], tie.numpy())
    tie_found = np.zeros(len(tie))
    tie_found[listed] = lists.share.numpy()[order[position[listed]]]

    tick = timeline.tick(torch.tensor(start))
    degree = timeline.degree(user, tick.expand(len(user)))
    since = timeline.first_event_time(user, tick.expand(len(user)))
    groups = {
        "all": torch.ones_like(user, dtype=torch.bool),
        "newcomer": since >= start - (end - start),
        "degree_1_4": degree <= 4,
        "degree_5_19": (degree >= 5) & (degree <= 19),
        "degree_20": degree >= 20,
    }
    tie_row = row_of[tie_user]
    slices = {
        group: (k * mask.double().numpy(), mask[at].numpy(), mask[tie_row].numpy())
        for group, mask in groups.items()
    }
    near = timeline.num_common_contacts(user[at], lists.person, tick.expand(len(at))) > 0
    near_tie = timeline.num_common_contacts(tie_user, tie_person, tick.expand(len(tie))) > 0
    for group, mask, ties in (("hop_2", near, near_tie), ("hop_far", ~near, ~near_tie)):
        size = torch.bincount(at, weights=lists.share * mask, minlength=len(user))
        slices[group] = size.numpy(), mask.numpy(), ties.numpy()

    exposure = torch.zeros(num_users, dtype=torch.float64).index_add_(0, lists.person, lists.share)
    return Snapshot(
        name=name,
        part=part,
        k=k,
        reply_window=reply_window,
        lists=lists,
        tie_row=tie_row.numpy(),
        tie_found=tie_found,
        slices=slices,
        exposure=exposure[_users_before(timeline, start)].numpy(),
        initiated=found,
        replied=_flags(replied, place, found),
        undecided=_flags(undecided, place, found),
    )


def _users_before(timeline: Timeline, time: int) -> Tensor:
    """Users with an event before a time (s): [S] int64, ascending."""
    return (timeline.first_tick < timeline.tick(torch.tensor(time))).nonzero().squeeze(1)


def _look_up(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Look up wanted keys [M] among ascending ones: (position [M], whether it is there [M] bool)."""
    place = np.searchsorted(keys, wanted)
    found = place < len(keys)
    found[found] = keys[place[found]] == wanted[found]
    return place, found


def _flags(flag: np.ndarray, place: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The flags at the places [M] of keys that were found, False for others: [M] bool."""
    out = np.zeros(len(place), dtype=bool)
    out[found] = flag[place[found]]
    return out


def _initiations_in(
    initiations: Initiations, start: int, end: int, reply_window: int, num_users: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First acts, in both directions, of pairs whose first contact falls in a window.

    Returns:
        user * num_users + person, ascending [A] int64; whether the other side acted too within the reply
        window, and whether that is undecided at the end of the window, [A] bool. A reply after the window is
        not known in it.
    """
    inside = (initiations.initiation_time >= start) & (initiations.initiation_time < end)
    known = inside & (initiations.reply_time >= 0) & (initiations.reply_time < end)
    label = initiations.reply_labels(until=end, reply_window=reply_window)
    forward = initiations.initiator * num_users + initiations.recipient
    backward = initiations.recipient * num_users + initiations.initiator
    key = np.concatenate([forward[inside], backward[known]])
    label = np.concatenate([label[inside], label[known]])
    order = np.argsort(key)
    return key[order], label[order] == 1, label[order] == -1
