"""The streaming protocol: at each later event, where did the person turned to stand among everyone?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph, Part, Query, TemporalSplit
from graphrec.data.checks import check_choice, check_graph, check_index, check_time
from graphrec.evaluate.protocol import Row, Scorer, and_self, check_unseen, judged_batches, sampled
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
        name: of the recommender.
        part: 'val' or 'test'.
        event_id: [n] int64, positions in the log, ascending.
        time: [n] int64 seconds.
        actor: [n] int64.
        rank_all: [n] float64, among everyone but the actor.
        rank_slice: [n] float64, among the candidates of the event's own slice (repeat, reply or new).
        members: for each slice but 'all', [n] bool.
    """

    name: str
    part: Part
    event_id: np.ndarray
    time: np.ndarray
    actor: np.ndarray
    rank_all: np.ndarray
    rank_slice: np.ndarray
    members: dict[str, np.ndarray]

    def of(self, slice_name: str) -> tuple[np.ndarray, np.ndarray]:
        """Ranks and actors of a slice, within repeat, reply or new where it is part of one."""
        if slice_name not in SLICES:
            raise KeyError(f"unknown slice {slice_name!r}; the slices are {', '.join(SLICES)}")
        everything = np.ones(len(self.event_id), dtype=bool)
        inside = everything if slice_name == "all" else self.members[slice_name]
        own = slice_name in ("repeat", "reply", "new", "hop_2", "hop_far")
        return (self.rank_slice if own else self.rank_all)[inside], self.actor[inside]

    def rows(self) -> list[Row]:
        """A row of metrics for each slice that has events."""
        out: list[Row] = []
        for name in SLICES:
            ranks, actors = self.of(name)
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
    """Rank the person of each event of a part among all users, seeing everything strictly before it.

    `repeat`: the actor had acted on the person; `reply`: only the person had acted on the actor; `new`:
    neither. In `repeat` everyone but the actor is a candidate; in `reply` people the actor has acted upon are
    not, in `new` nobody the actor has any contact with is; the person turned to always is. `hop_2` and
    `hop_far` split `new` by whether the two have met a common person. `actor_*` count the actor's own earlier
    acts. `target_unseen`: the person has no event in the training part.

    Args:
        scorer: fitted on events before the part.
        graph: the whole graph.
        part: 'val' or 'test'.
        split: by default the graph's `TemporalSplit`.
        progress: show a bar, where there is a terminal.
        in_sample: judge even by events that the recommender was fitted on (its `fitted_until`).

    Raises:
        EvaluationError: a score is not finite; or the recommender was fitted on the events of the part.
        ValueError: there is no such part.
    """
    check_graph(graph)
    check_choice("part", part, get_args(Part))
    split = split or TemporalSplit.of(graph)
    chosen = np.sort(sampled(split.event_ids(part).numpy(), graph.num_users))
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
    """The streaming protocol for some events, [n] int64 positions in the log, ascending.

    Raises:
        EvaluationError: as in `evaluate_streaming`.
        IndexError: an event that there is not.
    """
    check_graph(graph)
    check_choice("part", part, get_args(Part))
    trained_until = check_time("trained_until", trained_until)
    event_id = check_index("event_id", event_id, graph.num_events)
    if bool((event_id.diff() < 0).any()):
        raise ValueError("event_id must be ascending")
    check_unseen(scorer, graph.events().time[event_id], in_sample=in_sample)
    timeline = Timeline.of(graph)
    query = Query.of_events(graph, event_id)
    target = timeline.events.dst[event_id]

    rank_all = np.empty(len(query))
    rank_slice = np.empty(len(query))
    members: dict[str, np.ndarray] = {name: np.zeros(len(query), dtype=bool) for name in SLICES[1:]}

    def judge(rows: slice, asked: Query, scores: Tensor) -> None:
        goal = target[rows]
        tick = timeline.tick(asked.time)
        approached = timeline.acted_on.before(asked.user, tick)
        met = timeline.contacts.before(asked.user, tick)
        repeat = contains(approached, goal)
        reply = contains(met, goal) & ~repeat
        new = ~repeat & ~reply

        counts = count_above(scores, goal)
        hidden = and_self(asked, _of_rows(approached, reply), _of_rows(met, new))
        rank_all[rows] = mean_rank(scores, goal, counts, and_self(asked))
        rank_slice[rows] = mean_rank(scores, goal, counts, hidden)

        two_hops = new & _share_a_contact(timeline, met, goal, tick)
        acts = timeline.num_acts(asked.user, tick)
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
    for _ in judged_batches(scorer, query, graph.num_users, judge, title=title, progress=progress):
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


def _of_rows(people: tuple[Tensor, Tensor], inside: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs (row [M], user [M]) of some of B rows, given as [B] bool."""
    row, user = people
    return row[inside[row]], user[inside[row]]


def _share_a_contact(timeline: Timeline, met: tuple[Tensor, Tensor], target: Tensor, tick: Tensor) -> Tensor:
    """Whether the row's user and the target had both met somebody, [B] bool."""
    known = torch.zeros(len(target), timeline.num_users, dtype=torch.bool)
    known[met] = True
    row, user = timeline.contacts.before(target, tick)
    return torch.bincount(row[known[row, user]], minlength=len(target)) > 0
