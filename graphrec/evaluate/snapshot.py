"""The snapshot protocol: everyone is suggested k people at one moment, judged by the ties that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph, Part, Query, TemporalSplit
from graphrec.data.checks import MAX_SIZE, check_count, check_graph, check_index
from graphrec.evaluate.pairs import Pairs, horizon
from graphrec.evaluate.protocol import Row, Scorer, and_self, check_unseen, judged_batches, sampled
from graphrec.metrics import bootstrap_interval, gini, top_k_share
from graphrec.temporal import Timeline

SNAPSHOT_SLICES = ("all", "newcomer", "degree_1_4", "degree_5_19", "degree_20", "hop_2", "hop_far")


@dataclass(frozen=True)
class Lists:
    """People suggested to B users.

    Attributes:
        user: [B] int64.
        row: [L] int64, ascending, whose list an entry is on.
        person: [L] int64; a person is at most once on a list.
        share: [L] float64 in (0, 1], how much of the entry is on the list: people who tie at the border share
            the places left.
    """

    user: Tensor
    row: Tensor
    person: Tensor
    share: Tensor

    @classmethod
    def of(cls, user: Tensor, people: Tensor) -> Self:
        """Lists [B, k] int64 of users [B], padded with -1, as `Recommender.recommend` gives them."""
        user = check_index("user", user, MAX_SIZE)
        if people.dim() != 2 or len(people) != len(user):
            raise ValueError(f"people must be [{len(user)}, k], got {list(people.shape)}")
        people = check_index("people", people + 1, MAX_SIZE, shape=(len(user), None)) - 1
        row, column = (people >= 0).nonzero(as_tuple=True)
        return cls(user, row, people[row, column], torch.ones(len(row), dtype=torch.float64))


@dataclass(frozen=True)
class Snapshot:
    """Lists of one moment and what became of them in the window that it opens.

    A user *approaches* a person by acting on them in the window, there having been no contact before. The
    person *answers* by acting on the user, either act within the horizon of the other. An approach younger
    than the horizon at the window's end and not answered yet is undecided. A *tie* of a user is an approach
    that was answered.

    Attributes:
        name: of the recommender.
        part: whose window it is.
        k: length of the lists.
        wait: the horizon, seconds.
        lists: who was suggested.
        approached, answered, undecided: [L] bool, what became of each entry.
        tie_row: [T] int64, whose list each tie of these users belongs on.
        tie_found: [T] float64, how much of it was there.
        inside: for each slice (how many places of each list it judges [B], its entries [L], its ties [T]).
        exposure: [S] float64, how often each person seen before the window was suggested.
    """

    name: str
    part: Part
    k: int
    wait: int
    lists: Lists
    approached: np.ndarray
    answered: np.ndarray
    undecided: np.ndarray
    tie_row: np.ndarray
    tie_found: np.ndarray
    inside: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    exposure: np.ndarray

    def reciprocated(self) -> np.ndarray:
        """Reciprocated precision of each list, [B] float64; NaN where all of it is undecided."""
        _, good, open_ = self._counts(self.lists.share.numpy())
        decided = self.k - open_
        return np.where(decided > 1e-9, good / np.maximum(decided, 1e-9), np.nan)

    def _counts(self, share: np.ndarray) -> list[np.ndarray]:
        """How much of each list was approached, answered, undecided: [B] float64 each."""
        row, size = self.lists.row.numpy(), len(self.lists.user)
        return [
            np.bincount(row, weights=share * what, minlength=size)
            for what in (self.approached, self.answered, self.undecided)
        ]

    def row(self, slice_name: str) -> Row:
        """Metrics of one slice.

        `precision@k` is the share of a list whom its user approached: it looks at one direction alone.
        `reciprocated_precision@k` is the share who also answered, undecided entries left out. `ties` counts
        the ties of the slice, `ties_found@k` is the share of them that was on the lists. Without a decided
        list, or without a tie, there is no such metric. Of 'all' there is exposure too: the Gini coefficient
        of how often each person seen before the window is suggested, the share never suggested, and the most
        lists that anybody is on.
        """
        if slice_name not in SNAPSHOT_SLICES:
            raise KeyError(f"unknown slice {slice_name!r}; the slices are {', '.join(SNAPSHOT_SLICES)}")
        size, entries, ties = self.inside[slice_name]
        approached, good, open_ = self._counts(self.lists.share.numpy() * entries)
        judged = size - open_ > 1e-9
        row: Row = {"model": self.name, "part": self.part, "slice": slice_name, "n": int(judged.sum())}
        row["horizon_s"] = self.wait
        if slice_name == "all":
            row["exposure_gini"] = gini(self.exposure)
            row["never_suggested"] = float((self.exposure < 1e-9).mean())
            row["most_suggested"] = float(self.exposure.max(initial=0.0))
        if judged.any():
            one, both = approached[judged] / size[judged], good[judged] / (size - open_)[judged]
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
        """A row for each slice that has a list or a tie."""
        found = [self.row(name) for name in SNAPSHOT_SLICES]
        return [row for row in found if row["n"] or row["ties"]]


def snapshot_query(
    graph: FriendGraph,
    *,
    part: Part = "test",
    split: TemporalSplit | None = None,
    action: str | None = None,
) -> Query:
    """Everybody seen before a part's window, asked about at its start.

    By default by the action that is commonest in training. Where that means too many scores, the protocols'
    sample of 6,000 people.
    """
    split = split or TemporalSplit.of(graph)
    timeline, num_users = Timeline.of(graph), graph.num_users
    start, _ = split.window(part)
    users = torch.from_numpy(np.sort(sampled(_seen(timeline, start).numpy(), num_users)))
    if action is None:
        commonest = int(torch.bincount(timeline.events.action[: split.num_train]).argmax())
        action = graph.actions[commonest]
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
    """Suggest k new people to everyone seen before a part's window, at its start, and judge them by it.

    People of any earlier contact are not suggested. Ties of scores at the border of a list share its last
    places, so the figures are expectations, not draws.

    Slices: `newcomer`, users first seen less than a window's length before it; `degree_1_4`, `degree_5_19`,
    `degree_20`, how many people they had met; `hop_2` and `hop_far`, of all lists the people with whom they
    had met a common person, and the others.

    Args:
        scorer: fitted on events before the part.
        graph: the whole graph.
        part: 'val' or 'test'.
        split: by default the graph's `TemporalSplit`.
        k: the length of the lists.
        action: the act that is hoped for; by default the commonest of training.
        progress: show a bar, where there is a terminal.
        in_sample: judge even by events that the recommender was fitted on (its `fitted_until`).

    Raises:
        EvaluationError: a score is not finite; or the recommender was fitted on events of the window.
        ValueError: there is no such part, or k is smaller than 1.
        KeyError: there is no such action.
    """
    check_graph(graph)
    k = check_count("k", k)
    split = split or TemporalSplit.of(graph)
    check_unseen(scorer, torch.tensor([split.window(part)[0]]), in_sample=in_sample)
    timeline = Timeline.of(graph)
    query = snapshot_query(graph, part=part, split=split, action=action)

    def judge(rows: slice, asked: Query, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        excluded = and_self(asked, timeline.contacts.before(asked.user, timeline.tick(asked.time)))
        at, person, share = top_k_share(scores, k, excluded)
        return at + rows.start, person, share

    title = f"{scorer.name} {part} snapshot"
    found = judged_batches(scorer, query, graph.num_users, judge, title=title, progress=progress)
    row, person, share = (torch.cat(parts) for parts in zip(*found, strict=True))
    return judge_lists(
        Lists(query.user, row, person, share), graph, name=scorer.name, part=part, split=split, k=k
    )


def judge_lists(
    lists: Lists,
    graph: FriendGraph,
    *,
    name: str,
    part: Part = "test",
    split: TemporalSplit | None = None,
    k: int = 10,
) -> Snapshot:
    """Judge lists given at the start of a part's window, however they were made, as `evaluate_snapshot` does.

    Raises:
        ValueError: a list has more than k places.
    """
    split = split or TemporalSplit.of(graph)
    timeline, num_users = Timeline.of(graph), graph.num_users
    start, end = split.window(part)
    wait = horizon(split, part)
    user, at = lists.user, lists.row
    places = torch.bincount(at, weights=lists.share, minlength=len(user))
    if bool((places > k + 1e-6).any()):
        raise ValueError(f"a list of {name} has {float(places.max()):g} places, more than k = {k}")

    approach, answered, undecided = _approaches(Pairs.of(graph), start, end, wait, num_users)
    entry = (user[at] * num_users + lists.person).numpy()
    place, hit = _look_up(approach, entry)

    # The ties of users who have a list, and how much of each was on it.
    row_of = torch.full((num_users,), -1)
    row_of[user] = torch.arange(len(user))
    tie = torch.from_numpy(approach[answered])
    tie = tie[row_of[tie // num_users] >= 0]
    who, whom = tie // num_users, tie % num_users
    order = np.argsort(entry)
    found, listed = _look_up(entry[order], tie.numpy())
    tie_found = np.zeros(len(tie))
    tie_found[listed] = lists.share.numpy()[order[found[listed]]]

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
    tie_row = row_of[who]
    inside = {
        group: (k * mask.double().numpy(), mask[at].numpy(), mask[tie_row].numpy())
        for group, mask in groups.items()
    }
    near = timeline.num_common_contacts(user[at], lists.person, tick.expand(len(at))) > 0
    near_tie = timeline.num_common_contacts(who, whom, tick.expand(len(who))) > 0
    for group, mask, ties in (("hop_2", near, near_tie), ("hop_far", ~near, ~near_tie)):
        size = torch.bincount(at, weights=lists.share * mask, minlength=len(user))
        inside[group] = size.numpy(), mask.numpy(), ties.numpy()

    exposure = torch.zeros(num_users, dtype=torch.float64).index_add_(0, lists.person, lists.share)
    return Snapshot(
        name=name,
        part=part,
        k=k,
        wait=wait,
        lists=lists,
        tie_row=tie_row.numpy(),
        tie_found=tie_found,
        inside=inside,
        exposure=exposure[_seen(timeline, start)].numpy(),
        approached=hit,
        answered=_flags(answered, place, hit),
        undecided=_flags(undecided, place, hit),
    )


def _seen(timeline: Timeline, time: int) -> Tensor:
    """Users with an event before a time, ascending."""
    return (timeline.first_tick < timeline.tick(torch.tensor(time))).nonzero().squeeze(1)


def _look_up(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where [M] wanted ones stand among ascending keys, and whether they do at all."""
    place = np.searchsorted(keys, wanted)
    found = place < len(keys)
    found[found] = keys[place[found]] == wanted[found]
    return place, found


def _flags(flag: np.ndarray, place: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The flags of those found; of others False."""
    out = np.zeros(len(place), dtype=bool)
    out[found] = flag[place[found]]
    return out


def _approaches(
    pairs: Pairs, start: int, end: int, wait: int, num_users: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directed first acts in a window between people without earlier contact.

    Returns:
        u * num_users + v, ascending [A]; whether each was reciprocated within the horizon, and whether that
        is still undecided at the end of the window, [A] bool. An answer after the window is not known in it.
    """
    inside = (pairs.first >= start) & (pairs.first < end)
    known = inside & (pairs.answer >= 0) & (pairs.answer < end)
    label = pairs.answered(until=end, wait=wait)
    forward, backward = pairs.u * num_users + pairs.v, pairs.v * num_users + pairs.u
    approach = np.concatenate([forward[inside], backward[known]])
    label = np.concatenate([label[inside], label[known]])
    order = np.argsort(approach)
    return approach[order], label[order] == 1, label[order] == -1
