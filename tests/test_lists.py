"""The list protocol against a naive evaluation, on paper, and with events planted where it must not look."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_cases import split_at
from graphs import Row, graph_of, permuted, random_rows

from graphrec.data import FriendGraph, Query, TemporalSplit
from graphrec.evaluate import (
    LIST_SLICES,
    ListQuestions,
    ListResult,
    SuggestionLists,
    evaluate_lists,
    judge_lists,
)
from graphrec.metrics import bootstrap_ratio, gini
from graphrec.models import HEURISTICS

USERS, K, MOMENTS = 12, 3, 3


class Fixed:
    """A scorer with a few distinct scores, so that many users tie."""

    name = "fixed"

    def score(self, query: Query) -> torch.Tensor:
        """Scores that depend on the user, the hour and the candidate."""
        user = torch.arange(USERS)
        return ((query.user[:, None] * 7 + query.time[:, None] // 40 + user * 5) % 6).double()


def case(seed: int) -> tuple[list[Row], FriendGraph, TemporalSplit]:
    rows = random_rows(seed, users=USERS, events=150, times=60, scale=40)
    graph = graph_of(rows, USERS)
    return rows, graph, split_at(graph, 20 * 40, 30 * 40)


def naive_windows(rows: list[Row], start: int, end: int, number: int) -> list[tuple[int, int, int]]:
    """(since, start, end) of windows with equal numbers of events."""
    times = [row.time for row in rows]
    low, high = sum(t < start for t in times), sum(t < end for t in times)
    size = (high - low) / number
    places = [math.floor(low + i * size) for i in range(-2, number)]
    border = [times[max(place, 0)] for place in places]
    border[2] = start
    border = border[:2] + sorted(set(border[2:])) + [end]
    return [(border[i], border[i + 2], border[i + 3]) for i in range(len(border) - 3)]


def naive_lists(rows: list[Row], moment: tuple[int, int, int]) -> list[tuple[int, list[list[int]]]]:
    """The recipients of a moment, and the people of each list in groups of equal scores, best first."""
    since, start, _ = moment
    out = []
    for user in range(USERS):
        if not any(since <= row.time < start and user in row[:2] for row in rows):
            continue
        met = {v for row in rows if row.time < start and user in row[:2] for v in row[:2]} | {user}
        score = Fixed().score(Query(*(torch.tensor([x]) for x in (user, start, 0))))[0].tolist()
        left = [v for v in range(USERS) if v not in met]
        groups = [[v for v in left if score[v] == value] for value in sorted({*score}, reverse=True)]
        kept: list[list[int]] = []
        for group in groups:
            if group and sum(map(len, kept)) < K:
                kept.append(group)
        out.append((user, kept))
    return out


def naive_outcome(
    rows: list[Row], moment: tuple[int, int, int], user: int, person: int, until: int, reply: int
) -> str:
    """'none', 'initiation', 'tie' or 'undecided'."""
    _, start, end = moment
    first = {}
    for row in rows:
        if {row.src, row.dst} == {user, person} and row.src not in first:
            first[row.src] = row.time
    if user not in first or not first or min(first.values()) < start or first[user] >= end:
        return "none"
    begun = min(first.values())
    if begun >= end:
        return "none"
    if person in first and first[person] < until:
        return "tie" if abs(first[user] - first[person]) <= reply else "initiation"
    return "undecided" if begun + reply >= until else "initiation"


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("seed", range(4))
def test_the_metrics_equal_a_naive_evaluation(seed: int, part: str) -> None:
    rows, graph, split = case(seed)
    result = evaluate_lists(Fixed(), graph, part=part, split=split, k=K, num_moments=MOMENTS, progress=False)
    start, end = split.window(part)
    reply = max(1, min(7 * 86_400, (end - start) // 4))
    precision, tie_precision, found, tie_found, ndcg = [], [], [], [], []
    ginis = []
    for moment in naive_windows(rows, start, end, MOMENTS):
        listed = np.zeros(USERS)
        for user, groups in naive_lists(rows, moment):
            share, gain, filled = {}, {}, 0.0
            for group in groups:
                places = min(len(group), K - filled)
                mean = sum(1 / math.log2(2 + filled + i) for i in range(round(places))) / len(group)
                share |= dict.fromkeys(group, places / len(group))
                gain |= dict.fromkeys(group, mean)
                filled += places
            kind = {v: naive_outcome(rows, moment, user, v, end, reply) for v in range(USERS) if v != user}
            for v, amount in share.items():
                listed[v] += amount
            hits = {v for v, outcome in kind.items() if outcome != "none"}
            ties = {v for v, outcome in kind.items() if outcome == "tie"}
            precision.append(sum(share.get(v, 0.0) for v in hits) / K)
            decided = K - sum(share.get(v, 0.0) for v, outcome in kind.items() if outcome == "undecided")
            if decided > 0:
                tie_precision.append(sum(share.get(v, 0.0) for v in ties) / decided)
            found += [share.get(v, 0.0) for v in hits]
            tie_found += [share.get(v, 0.0) for v in ties]
            if hits:
                best = sum(1 / math.log2(2 + i) for i in range(min(K, len(hits))))
                ndcg.append(sum(gain.get(v, 0.0) for v in hits) / best)
        before = {v for row in rows if row.time < moment[1] for v in row[:2]}
        ginis.append(gini(listed[sorted(before)]))
    assert found
    for metric, values in (
        ("initiation_precision", precision),
        ("tie_precision", tie_precision),
        ("initiation_recall", found),
        ("tie_recall", tie_found),
        ("initiation_ndcg", ndcg),
    ):
        mine = result.terms(metric)[0]
        assert len(mine) == len(values)
        assert sorted(mine.tolist()) == pytest.approx(sorted(values)), metric
    assert result.spread()["gini"] == pytest.approx(float(np.mean(ginis)))


def test_slices_split_the_lists() -> None:
    """Slices by degree and activity hold every list once; the hops share the entries and outcomes."""
    _, graph, split = case(0)
    result = evaluate_lists(Fixed(), graph, split=split, k=K, num_moments=MOMENTS, progress=False)
    size = {name: result.slices[name][0] for name in LIST_SLICES}
    for names in (("degree_1_4", "degree_5_19", "degree_20"), ("active_1_4", "active_5_19", "active_20")):
        assert sum(size[name] for name in names).tolist() == size["all"].tolist()
    near, far = result.slices["hop_2"], result.slices["hop_far"]
    assert (near[1] ^ far[1]).all()
    for outcome, happened in result.slices["all"][2].items():
        assert happened.all()
        assert (near[2][outcome] ^ far[2][outcome]).all()


def test_lists_on_paper() -> None:
    """One moment: 0 turns to 2, who answers, and to 3, who does not; 4 was never seen."""
    rows = [Row(0, 1, 0), Row(1, 0, 10), Row(2, 3, 20), Row(3, 2, 30), Row(0, 2, 110), Row(2, 0, 115)]
    rows += [Row(0, 3, 120), Row(1, 0, 190)]
    graph = graph_of(rows, 5)
    split = split_at(graph, 30, 100)
    questions = ListQuestions.of(graph, split=split, num_moments=1)
    assert questions.start.tolist() == [100]
    assert questions.query.user.tolist() == [0, 1, 2, 3]
    people = torch.tensor([[2, 3], [2, 3], [1, 0], [0, 1]])
    lists = SuggestionLists.of(questions.query.user, people)
    result = judge_lists(lists, graph, questions, name="by hand", k=2)
    # 0 turns to both, 2 answers 0 in time and so turns to 0; nobody else turns to anybody.
    assert result.terms("initiation_precision")[0].tolist() == [1.0, 0.0, 0.5, 0.0]
    assert result.terms("tie_precision")[0].tolist() == [0.5, 0.0, 0.5, 0.0]
    assert result.terms("initiation_recall")[0].tolist() == [1.0, 1.0, 1.0]
    assert result.terms("initiation_ndcg")[0].tolist() == pytest.approx([1.0, 1 / math.log2(3)])
    # Each of the four people is on two of four lists; lists 0 and 1 are the same, as are 2 and 3.
    assert result.spread()["sameness"] == pytest.approx(2 * 2 * 2 / (4 * 3 * 2))
    assert result.spread()["most_suggested"] == 0.5
    named = {(row["slice"], row["metric"]): row["value"] for row in result.rows()}
    assert named["all", "initiation_precision@2"] == pytest.approx(0.375)
    with pytest.raises(ValueError, match="not for the users"):
        judge_lists(SuggestionLists.of(torch.arange(1), people[:1]), graph, questions, name="x", k=2)
    with pytest.raises(ValueError, match="more than k = 1"):
        judge_lists(lists, graph, questions, name="by hand", k=1)


@pytest.mark.parametrize("planted", [0, 1])
def test_events_at_or_after_a_moment_change_no_list(planted: int) -> None:
    """An event in the moment's own second, or one later, reaches neither recipients nor lists."""
    rows, graph, split = case(1)
    questions = ListQuestions.of(graph, split=split, num_moments=1)
    now = int(questions.start[0])
    last = max(row.time for row in rows)
    more = [Row(u, (u + 5) % USERS, now + planted) for u in range(USERS)]
    other = graph_of(sorted([*rows, *more], key=lambda row: row.time), USERS)
    again = split_at(other, split.t_val, split.t_test)
    assert int(other.events().time[-1]) == last
    model = HEURISTICS["adamic_adar"]().fit(graph, until=split.t_val)
    found = [
        evaluate_lists(model.on(g), g, split=s, k=K, num_moments=1, progress=False)
        for g, s in ((graph, split), (other, again))
    ]
    assert torch.equal(found[0].lists.user, found[1].lists.user)
    assert torch.equal(found[0].lists.person, found[1].lists.person)
    assert torch.equal(found[0].lists.share, found[1].lists.share)
    assert found[0].hit["initiation"].tolist() != found[1].hit["initiation"].tolist()


def test_every_makes_whole_windows_of_one_length() -> None:
    _, graph, split = case(2)
    questions = ListQuestions.of(graph, split=split, every="5m")
    start, end = split.window("test")
    assert questions.start.tolist() == list(range(start, end - 299, 300))
    assert (questions.end - questions.start).unique().tolist() == [300]
    assert (questions.start - questions.since).unique().tolist() == [600]
    with pytest.raises(ValueError, match="shorter than one window of 604800 s"):
        ListQuestions.of(graph, split=split, every="1w")
    with pytest.raises(ValueError, match="a number and a unit, such as '7d'"):
        ListQuestions.of(graph, split=split, every="weekly")


def test_metrics_do_not_depend_on_ids() -> None:
    rows, graph, split = case(3)
    model = HEURISTICS["popularity"]().fit(graph, until=split.t_val)
    found = evaluate_lists(model, graph, split=split, k=K, num_moments=MOMENTS, progress=False)
    order = torch.randperm(USERS, generator=torch.Generator().manual_seed(0)).tolist()
    other = graph_of(permuted(rows, order), USERS)
    again = HEURISTICS["popularity"]().fit(other, until=split.t_val)
    renamed = evaluate_lists(again, other, split=split, k=K, num_moments=MOMENTS, progress=False)
    for one, two in zip(found.rows(), renamed.rows(), strict=True):
        assert one == pytest.approx(two), one["metric"]


def test_the_ratio_is_paired_by_recipient() -> None:
    """Two models whose lists differ by a factor in every recipient differ by exactly that factor."""
    values, group = np.array([0.1, 0.4, 0.2, 0.0]), np.array([3, 5, 5, 9])
    assert bootstrap_ratio((2 * values, group), (values, group)) == pytest.approx((2.0, 2.0, 2.0))
    assert all(map(math.isnan, bootstrap_ratio((values, group), (0 * values, group))))
    _, graph, split = case(0)
    one = evaluate_lists(Fixed(), graph, split=split, k=K, num_moments=MOMENTS, progress=False)
    assert one.ratio_to(one, "initiation_precision") == pytest.approx((1.0, 1.0, 1.0))


def test_unknown_names_are_told() -> None:
    _, graph, split = case(0)
    result: ListResult = evaluate_lists(Fixed(), graph, split=split, k=1, num_moments=1, progress=False)
    with pytest.raises(KeyError, match="unknown slice 'everyone'; the slices are all, newcomer"):
        result.terms("tie_recall", "everyone")
    with pytest.raises(ValueError, match="metric"):
        result.terms("mrr")


def test_moments_share_the_events_of_a_part() -> None:
    _, graph, split = case(0)
    questions = ListQuestions.of(graph, split=split, num_moments=4)
    time = graph.events().time
    borders = [*questions.start.tolist(), int(questions.end[-1])]
    sizes = [int(((time >= a) & (time < b)).sum()) for a, b in pairwise(borders)]
    assert sum(sizes) == split.num_test
    assert max(sizes) - min(sizes) <= 8  # events of one time stay together


def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAPHREC_HOME", str(tmp_path))
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
    names = {"__name__": "page"}
    for code in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(code, names)
    assert capsys.readouterr().out.count("times the ties of adamic_adar") == 2
