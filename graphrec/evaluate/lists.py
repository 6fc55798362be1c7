"""The list protocol: k new people for everyone seen lately, judged by whom they turn to in the days after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphrec.data import OUTCOMES, FriendGraph, Outcome, Part, Query, TemporalSplit
from graphrec.data.checks import check_choice, check_count, check_kind
from graphrec.evaluate.list_questions import NUM_MOMENTS, ListOutcomes, ListQuestions
from graphrec.evaluate.protocol import Row, Scorer, check_not_fitted_on, evaluate_batches, exclude_self
from graphrec.evaluate.snapshot import SuggestionLists
from graphrec.metrics import bootstrap_interval, bootstrap_ratio, gini, top_k_share
from graphrec.temporal import Timeline

LIST_SLICES = (
    "all",
    "newcomer",
    "degree_1_4",
    "degree_5_19",
    "degree_20",
    "active_1_4",
    "active_5_19",
    "active_20",
    "hop_2",
    "hop_far",
)
MEASURES = ("precision", "recall", "ndcg")
LIST_METRICS = tuple(f"{outcome}_{measure}" for outcome in OUTCOMES for measure in MEASURES)
"""Metrics with an interval, without their `@k`."""


@dataclass(frozen=True)
class ListResult:
    """Lists of one recommender and what followed.

    Attributes:
        name: name of the recommender.
        questions: B lists that were asked for.
        k: length of a list.
        lists: L entries.
        gain: [L] float64, the mean of 1 / log2(1 + place) over the places that an entry shares, times its
            share of a place.
        hit: for each outcome, the entries that had it, [L] bool.
        undecided: [L] bool, entries of which it is not known whether they became a tie.
        wanted_row: for each outcome, the list of each that happened to a recipient, [T] int64.
        wanted_found: for each outcome, its share of a list place, [T] float64.
        slices: for each slice (places of each list that count [B] float64, entries [L] bool, those that
            happened, by outcome, [T] bool).
        num_eligible: [S] int64, users with an event before each moment.
    """

    name: str
    questions: ListQuestions
    k: int
    lists: SuggestionLists
    gain: np.ndarray
    hit: dict[str, np.ndarray]
    undecided: np.ndarray
    wanted_row: dict[str, np.ndarray]
    wanted_found: dict[str, np.ndarray]
    slices: dict[str, tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]
    num_eligible: np.ndarray

    def terms(self, metric: str, slice_name: str = "all") -> tuple[np.ndarray, np.ndarray]:
        """The values whose mean is a metric, and the recipient of each.

        Precision has one value a list, undecided places left out; recall one for each outcome that happened;
        NDCG one for each list of whose recipient an outcome happened.

        Args:
            metric: one of `LIST_METRICS`.
            slice_name: one of `LIST_SLICES`.

        Returns:
            (values [n] float64, recipients [n] int64).

        Raises:
            KeyError: there is no such slice.
            ValueError: there is no such metric.
        """
        check_choice("metric", metric, LIST_METRICS)
        if slice_name not in LIST_SLICES:
            raise KeyError(f"unknown slice {slice_name!r}; the slices are {', '.join(LIST_SLICES)}")
        outcome, measure = metric.split("_")
        size, entries, wanted = self.slices[slice_name]
        recipient, row = self.lists.user.numpy(), self.lists.row.numpy()
        counted = entries & self.hit[outcome]
        if measure == "recall":
            inside = wanted[outcome]
            return self.wanted_found[outcome][inside], recipient[self.wanted_row[outcome][inside]]
        if measure == "precision":
            share = self.lists.share.numpy()
            hits = np.bincount(row, weights=share * counted, minlength=len(recipient))
            if outcome == "tie":
                size = size - np.bincount(
                    row, weights=share * (entries & self.undecided), minlength=len(size)
                )
            some = size > 1e-9
            return hits[some] / size[some], recipient[some]
        number = np.bincount(self.wanted_row[outcome][wanted[outcome]], minlength=len(recipient))
        best = np.concatenate([[0.0], (1 / np.log2(2 + np.arange(self.k))).cumsum()])
        found = np.bincount(row, weights=self.gain * counted, minlength=len(recipient))
        some = number > 0
        return found[some] / best[np.minimum(number[some], self.k)], recipient[some]

    def ratio_to(self, other: ListResult, metric: str, slice_name: str = "all") -> tuple[float, float, float]:
        """Divide a metric by that of other lists for the same questions, with a paired interval.

        Returns:
            (ratio, low, high): the 95 % interval resamples recipients; NaN where the other's is 0.
        """
        return bootstrap_ratio(self.terms(metric, slice_name), other.terms(metric, slice_name))

    def rows(self) -> list[Row]:
        """Return a row for each slice and metric: model, part, slice, n, metric, value, low, high.

        `n` is the number of values that were averaged. The slice 'all' also has `gini` (of the number of
        lists that a user is on), `distinct` (share of users on any list), `most_suggested` (share of lists
        that the most suggested person is on) and `sameness` (mean share of a list that another one of the
        moment has too), each the mean over the moments, without an interval.
        """
        head: Row = {"model": self.name, "part": self.questions.part}
        out: list[Row] = []
        for name in LIST_SLICES:
            for metric in LIST_METRICS:
                values, group = self.terms(metric, name)
                if len(values):
                    low, high = bootstrap_interval(values, group)
                    row = {"slice": name, "n": len(values), "metric": f"{metric}@{self.k}"}
                    out.append(head | row | {"value": float(values.mean()), "low": low, "high": high})
        for metric, value in self.spread().items():
            row = {"slice": "all", "n": len(self.questions), "metric": metric}
            out.append(head | row | {"value": value})
        return out

    def spread(self) -> dict[str, float]:
        """How evenly people are suggested: gini, distinct, most_suggested and sameness; see `rows`."""
        moment = self.questions.moment[self.lists.row]
        asked = torch.bincount(self.questions.moment, minlength=len(self.num_eligible)).tolist()
        found: dict[str, list[float]] = {"gini": [], "distinct": [], "most_suggested": [], "sameness": []}
        for number, (lists, eligible) in enumerate(zip(asked, self.num_eligible.tolist(), strict=True)):
            if not lists:
                continue
            here = (moment == number).nonzero().squeeze(1)
            person, place = self.lists.person[here].unique(return_inverse=True)
            share = self.lists.share[here]
            times = torch.zeros(len(person), dtype=torch.float64).index_add(0, place, share)
            unlisted = np.zeros(max(0, eligible - len(times)))
            found["gini"].append(gini(np.concatenate([times.numpy(), unlisted])))
            found["distinct"].append(len(times) / max(eligible, 1))
            found["most_suggested"].append(float(times.max()) / lists if len(times) else 0.0)
            if lists > 1:
                both = float(times.square().sum() - share.square().sum())
                found["sameness"].append(both / (lists * (lists - 1) * self.k))
        return {name: float(np.mean(values)) if values else 0.0 for name, values in found.items()}


def evaluate_lists(
    scorer: Scorer,
    graph: FriendGraph,
    *,
    part: Part = "test",
    split: TemporalSplit | None = None,
    k: int = 10,
    num_moments: int = NUM_MOMENTS,
    every: str | None = None,
    action: str | None = None,
    outcome: Outcome | None = None,
    progress: bool = True,
    in_sample: bool = False,
) -> ListResult:
    """Suggest k people to everyone seen lately, at regular moments, and judge by the window after each.

    At each moment the recipients are the users seen in the two windows before it. Their earlier contacts are
    not suggested. An *initiation* is a recipient's first act on a person in the window, with no contact
    before the window; a *tie* is an initiation that the other side answers (or opened) within the reply
    window. People whose scores tie at the end of a list share its last places.

    Slices: `newcomer`, recipients whose first event is in the two windows; `degree_*` by the number of their
    contacts; `active_*` by the number of their events in the two windows; `hop_2` and `hop_far`, of all
    lists the people with a common contact, and the others.

    Args:
        scorer: fitted on events before the part.
        graph: the whole graph.
        part: 'val' or 'test'.
        split: by default the graph's `TemporalSplit`.
        k: the length of the lists.
        num_moments: of equal numbers of events.
        every: length of the windows instead, such as '7d'.
        action: name of the action suggested; by default the commonest of training.
        outcome: what the recommender is asked for, within each window; by default its `default_outcome`, or
            'tie'. Both outcomes are judged.
        progress: show a progress bar, where there is a terminal.
        in_sample: allow events that the recommender was fitted on (before its `fitted_until`).

    Raises:
        EvaluationError: a score is not finite; or the recommender was fitted on events of the part.
        ValueError: there is no such part, k is smaller than 1, or `every` is not a length.
        KeyError: there is no such action.
    """
    k = check_count("k", k)
    questions = ListQuestions.of(
        graph, part=part, split=split, num_moments=num_moments, every=every, action=action
    )
    check_not_fitted_on(scorer, questions.start[:1], in_sample=in_sample)
    timeline = Timeline.of(graph)
    query = questions.about(outcome or getattr(scorer, "default_outcome", None) or "tie")

    def list_batch(rows: slice, batch: Query, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        excluded = exclude_self(batch, timeline.contacts.before(batch.user, timeline.tick(batch.time)))
        at, person, share = top_k_share(scores, k, excluded)
        return at + rows.start, person, share, scores[at, person].double()

    title = f"{scorer.name} {part} lists"
    found = evaluate_batches(scorer, query, graph.num_users, list_batch, title=title, progress=progress)
    nothing = torch.empty(0, dtype=torch.int64)
    none = nothing, nothing, nothing.double(), nothing.double()
    row, person, share, score = (torch.cat(parts) for parts in zip(none, *found, strict=True))
    order = score.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]  # best first in each list
    lists = SuggestionLists(query.user, row[order], person[order], share[order])
    return judge_lists(lists, graph, questions, name=scorer.name, k=k, score=score[order])


def judge_lists(
    lists: SuggestionLists,
    graph: FriendGraph,
    questions: ListQuestions,
    *,
    name: str,
    k: int = 10,
    score: Tensor | None = None,
) -> ListResult:
    """Judge lists made by any means for the questions, as `evaluate_lists` does.

    Args:
        lists: a list for each question, best first.
        graph: the whole graph.
        questions: B lists that were asked for.
        name: name of the recommender in rows.
        k: the length of the lists.
        score: [L], entries of one list with equal scores share their places; by default none do.

    Raises:
        ValueError: the lists are not for these questions, or one has more than k places.
    """
    check_kind("questions", questions, ListQuestions)
    user, at = lists.user, lists.row
    if not torch.equal(user, questions.query.user):
        raise ValueError(f"the lists of {name} are not for the users of the questions")
    places = torch.bincount(at, weights=lists.share, minlength=len(user))
    if bool((places > k + 1e-6).any()):
        raise ValueError(f"a list of {name} has {float(places.max()):g} places, more than k = {k}")
    timeline, outcomes = Timeline.of(graph), ListOutcomes.of(graph, questions)
    size, moment = outcomes.num_users, questions.moment
    asked = (moment * size + user).numpy()
    key = asked[at] * size + lists.person.numpy()
    place, found = outcomes.find(key)
    hit = {"initiation": found, "tie": found & outcomes.replied[place]}

    order = np.argsort(asked)
    row = np.searchsorted(asked[order], outcomes.key // size)
    there = row < len(asked)
    there[there] = asked[order[row[there]]] == outcomes.key[there] // size
    listed_order = np.argsort(key)
    wanted_row, wanted_found, person = {}, {}, {}
    for outcome, mask in (("initiation", there), ("tie", there & outcomes.replied)):
        wanted = outcomes.key[mask]
        spot = np.minimum(np.searchsorted(key[listed_order], wanted), max(len(key) - 1, 0))
        share = np.zeros(len(wanted))
        if len(key):
            listed = key[listed_order[spot]] == wanted
            share[listed] = lists.share.numpy()[listed_order[spot[listed]]]
        wanted_row[outcome], wanted_found[outcome] = order[row[mask]], share
        person[outcome] = torch.from_numpy(wanted % size)

    masks = _recipient_slices(timeline, questions)
    slices = {
        group: (
            k * mask.double().numpy(),
            mask[at].numpy(),
            {outcome: mask.numpy()[rows] for outcome, rows in wanted_row.items()},
        )
        for group, mask in masks.items()
    }
    tick = timeline.tick(questions.query.time)
    near = timeline.num_common_contacts(user[at], lists.person, tick[at]) > 0
    near_wanted = {}
    for outcome, rows in wanted_row.items():
        there_row = torch.from_numpy(rows)
        common = timeline.num_common_contacts(user[there_row], person[outcome], tick[there_row])
        near_wanted[outcome] = (common > 0).numpy()
    for group, inside in (("hop_2", near), ("hop_far", ~near)):
        counted = torch.bincount(at, weights=lists.share * inside, minlength=len(user)).numpy()
        happened = {o: mask if group == "hop_2" else ~mask for o, mask in near_wanted.items()}
        slices[group] = counted, inside.numpy(), happened
    first = timeline.first_tick
    return ListResult(
        name=name,
        questions=questions,
        k=k,
        lists=lists,
        gain=_gains(lists, score),
        hit=hit,
        undecided=found & outcomes.undecided[place] if len(outcomes.key) else found,
        wanted_row=wanted_row,
        wanted_found=wanted_found,
        slices=slices,
        num_eligible=np.array([int((first < t).sum()) for t in timeline.tick(questions.start)]),
    )


def _recipient_slices(timeline: Timeline, questions: ListQuestions) -> dict[str, Tensor]:
    """The recipients in each slice: [B] bool."""
    user, tick = questions.query.user, timeline.tick(questions.query.time)
    since = timeline.tick(questions.since)[questions.moment]
    degree = timeline.degree(user, tick)
    acts, received = timeline.counts(user, tick)
    acts_before, received_before = timeline.counts(user, since)
    events = acts + received - acts_before - received_before
    return {
        "all": torch.ones_like(user, dtype=torch.bool),
        "newcomer": timeline.first_tick[user] >= since,
        "degree_1_4": degree <= 4,
        "degree_5_19": (degree >= 5) & (degree <= 19),
        "degree_20": degree >= 20,
        "active_1_4": events <= 4,
        "active_5_19": (events >= 5) & (events <= 19),
        "active_20": events >= 20,
    }


def _gains(lists: SuggestionLists, score: Tensor | None) -> np.ndarray:
    """The gain of each entry, best first in each list: see `ListResult`."""
    row, share = lists.row.numpy(), lists.share.numpy()
    opens = np.ones(len(row), dtype=bool)
    opens[1:] = row[1:] != row[:-1]
    ties = opens.copy() if score is not None else np.ones(len(row), dtype=bool)
    if score is not None:
        ties[1:] |= score.numpy()[1:] != score.numpy()[:-1]
    total = np.concatenate([[0.0], share.cumsum()])
    first = np.maximum.accumulate(np.where(opens, np.arange(len(row)), 0))
    run = ties.cumsum() - 1
    begin = np.flatnonzero(ties)
    end = np.append(begin[1:], len(row))
    low = np.rint(total[begin] - total[first[begin]]).astype(np.int64)
    high = np.rint(total[end] - total[first[begin]]).astype(np.int64)
    discount = np.concatenate([[0.0], (1 / np.log2(2 + np.arange(max(1, high.max(initial=1))))).cumsum()])
    mean = (discount[high] - discount[low]) / np.maximum(high - low, 1)
    return np.asarray(mean[run] * share)
