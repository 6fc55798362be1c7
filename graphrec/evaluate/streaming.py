"""The streaming protocol: the rank of each later event's target among all users, just before the event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph, Part, Query, TemporalSplit, wanted_events
from graphrec.data.checks import check_choice, check_graph, check_index, check_time
from graphrec.evaluate.protocol import (
    Row,
    Scorer,
    check_not_fitted_on,
    evaluate_batches,
    exclude_self,
    sample_rows,
)
from graphrec.metrics import count_above, mean_rank, ranking_metrics
from graphrec.temporal import Timeline, contains

SLICES = (
    "all",
    "repeat",
    "reply",
    "new",
    "hop_2",
    "hop_far",
    "actor_0",
    "actor_1_4",
    "actor_5_19",
    "actor_20",
    "target_unseen",
)


@dataclass(frozen=True)
class StreamingRanks:
    """One recommender's ranks of the events of one part.

    Attributes:
        name: name of the recommender.
        part: 'val' or 'test'.
        event_id: [n] int64, positions in the log, ascending.
        time: [n] int64 seconds.
        actor: [n] int64.
        rank_all: [n] float64, the target's rank among all users but the actor.
        rank_slice: [n] float64, its rank among the candidates of the event's slice (repeat, reply or new).
        members: for each slice but 'all', the events in it, [n] bool.
    """

    name: str
    part: Part
    event_id: np.ndarray
    time: np.ndarray
    actor: np.ndarray
    rank_all: np.ndarray
    rank_slice: np.ndarray
    members: dict[str, np.ndarray]

    def select(self, slice_name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the ranks and actors of a slice.

        Slices within repeat, reply or new have `rank_slice`, others `rank_all`.

        Returns:
            (rank [m] float64, actor [m] int64).

        Raises:
            KeyError: there is no such slice.
        """
        if slice_name not in SLICES:
            raise KeyError(f"unknown slice {slice_name!r}; the slices are {', '.join(SLICES)}")
        everything = np.ones(len(self.event_id), dtype=bool)
        inside = everything if slice_name == "all" else self.members[slice_name]
        own = slice_name in ("repeat", "reply", "new", "hop_2", "hop_far")
        return (self.rank_slice if own else self.rank_all)[inside], self.actor[inside]

    def rows(self) -> list[Row]:
        """Return a row of metrics for each slice that has events."""
        out: list[Row] = []
        for name in SLICES:
            ranks, actors = self.select(name)
            if len(ranks):
                head: Row = {"model": self.name, "part": self.part, "slice": name, "n": len(ranks)}
                out.append(head | ranking_metrics(ranks, actors))
        return out


def evaluate_streaming(
    scorer: Scorer,
    graph: FriendGraph,
    *,
    part: Part = "test",
    split: TemporalSplit | None = None,
    progress: bool = True,
    in_sample: bool = False,
) -> StreamingRanks:
    """Rank the target of each event of a part among all users, from all events strictly before it.

    Only events of ordinary actions are ranked (see `graphrec.data.Roles`); the others are history.

    Slices: `repeat`, the actor had acted on the target; `reply`, only the target had acted on the actor;
    `new`, neither. Candidates of `repeat` are all users but the actor; of `reply`, all but those the actor
    had acted on; of `new`, all but the actor's contacts; the target is always a candidate. `hop_2` and
    `hop_far` split `new` by whether the two have a common contact. `actor_*` split by the number of the
    actor's earlier acts. `target_unseen`: the target has no event in training.

    Args:
        scorer: fitted on events before the part.
        graph: the whole graph.
        part: 'val' or 'test'.
        split: by default the graph's `TemporalSplit`.
        progress: show a progress bar, where there is a terminal.
        in_sample: allow events that the recommender was fitted on (before its `fitted_until`).

    Raises:
        EvaluationError: a score is not finite; or the recommender was fitted on the events of the part.
        ValueError: there is no such part.
    """
    check_graph(graph)
    check_choice("part", part, get_args(Part))
    split = split or TemporalSplit.of(graph)
    wanted = wanted_events(graph, split.event_ids(part))
    chosen = np.sort(sample_rows(wanted.numpy(), graph.num_users))
    return rank_events(
        scorer,
        graph,
        torch.from_numpy(chosen),
        part=part,
        trained_until=split.t_val,
        progress=progress,
        in_sample=in_sample,
    )


def rank_events(
    scorer: Scorer,
    graph: FriendGraph,
    event_id: Tensor,
    *,
    part: Part,
    trained_until: int,
    progress: bool = True,
    in_sample: bool = False,
) -> StreamingRanks:
    """Run the streaming protocol on some events.

    Args:
        scorer: fitted on events before these.
        graph: the whole graph.
        event_id: [n] int64 positions in the log, ascending.
        part: 'val' or 'test', for the result.
        trained_until: seconds; users without an event before it are `target_unseen`.
        progress: show a progress bar, where there is a terminal.
        in_sample: allow events that the recommender was fitted on (before its `fitted_until`).

    Raises:
        EvaluationError: as in `evaluate_streaming`.
        IndexError: there is no such event.
        ValueError: `event_id` is not ascending.
    """
    check_graph(graph)
    check_choice("part", part, get_args(Part))
    trained_until = check_time("trained_until", trained_until)
    event_id = check_index("event_id", event_id, graph.num_events)
    if bool((event_id.diff() < 0).any()):
        raise ValueError("event_id must be ascending")
    check_not_fitted_on(scorer, graph.events().time[event_id], in_sample=in_sample)
    timeline = Timeline.of(graph)
    query = Query.of_events(graph, event_id)
    target = timeline.events.dst[event_id]

    rank_all = np.empty(len(query))
    rank_slice = np.empty(len(query))
    members: dict[str, np.ndarray] = {name: np.zeros(len(query), dtype=bool) for name in SLICES[1:]}

    def rank_batch(rows: slice, batch: Query, scores: Tensor) -> None:
        goal = target[rows]
        tick = timeline.tick(batch.time)
        acted_on = timeline.acted_on.before(batch.user, tick)
        contacts = timeline.contacts.before(batch.user, tick)
        repeat = contains(acted_on, goal)
        reply = contains(contacts, goal) & ~repeat
        new = ~repeat & ~reply

        counts = count_above(scores, goal)
        hidden = exclude_self(batch, _select_rows(acted_on, reply), _select_rows(contacts, new))
        rank_all[rows] = mean_rank(scores, goal, counts, exclude_self(batch))
        rank_slice[rows] = mean_rank(scores, goal, counts, hidden)

        two_hops = new & _have_common_contact(timeline, contacts, goal, tick)
        acts = timeline.num_acts(batch.user, tick)
        unseen = (
            timeline.half_edges.count(goal, timeline.tick(torch.tensor(trained_until)).expand(len(goal))) == 0
        )
        for name, mask in {
            "repeat": repeat,
            "reply": reply,
            "new": new,
            "hop_2": two_hops,
            "hop_far": new & ~two_hops,
            "actor_0": acts == 0,
            "actor_1_4": (acts >= 1) & (acts <= 4),
            "actor_5_19": (acts >= 5) & (acts <= 19),
            "actor_20": acts >= 20,
            "target_unseen": unseen,
        }.items():
            members[name][rows] = mask.numpy()

    title = f"{scorer.name} {part}"
    for _ in evaluate_batches(scorer, query, graph.num_users, rank_batch, title=title, progress=progress):
        pass
    return StreamingRanks(
        name=scorer.name,
        part=part,
        event_id=event_id.numpy(),
        time=query.time.numpy(),
        actor=query.user.numpy(),
        rank_all=rank_all,
        rank_slice=rank_slice,
        members=members,
    )


def _select_rows(pairs: tuple[Tensor, Tensor], inside: Tensor) -> tuple[Tensor, Tensor]:
    """Select the pairs (row [M], user [M]) of some of B rows, given as [B] bool."""
    row, user = pairs
    return row[inside[row]], user[inside[row]]


def _have_common_contact(
    timeline: Timeline, contacts: tuple[Tensor, Tensor], target: Tensor, tick: Tensor
) -> Tensor:
    """Tell which rows' users, with contacts (row [M], user [M]), share one with their target: [B] bool."""
    known = torch.zeros(len(target), timeline.num_users, dtype=torch.bool)
    known[contacts] = True
    row, user = timeline.contacts.before(target, tick)
    return torch.bincount(row[known[row, user]], minlength=len(target)) > 0
