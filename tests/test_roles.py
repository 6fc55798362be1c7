"""Roles of actions: what counts as a tie, a reply and an outcome, and what does not."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from graphs import Row, checked, graph_of, logs
from hypothesis import given
from hypothesis import strategies as st

from graphrec.cli.main import main
from graphrec.data import (
    FRIEND,
    USER,
    DataError,
    EventLog,
    FriendGraph,
    Query,
    Roles,
    TemporalSplit,
    digest_graph,
    read_events,
)
from graphrec.data.roles import DEFAULT_ROLES
from graphrec.data.ties import standing_acts
from graphrec.datasets import SyntheticFriends
from graphrec.evaluate import evaluate_streaming
from graphrec.evaluate.initiations import Initiations
from graphrec.features import Timelines
from graphrec.models import HEURISTICS, Hybrid, TwoTower, build, suggest
from graphrec.models.heuristics import PPR
from graphrec.models.mixture.training_loss import TrainingLoss
from graphrec.models.mixture.validation import validation_events
from graphrec.service import Bundle
from graphrec.temporal import ReplyIndex, Timeline, index_parquet

ACTIONS = ("ask", "unfriend", "decline", "block", "shown")


def log_of(rows: list[tuple[int, int, int, str]]) -> EventLog:
    return EventLog.from_arrays(*zip(*rows, strict=True))


def with_roles(rows: list[Row], **roles: str) -> FriendGraph:
    return FriendGraph.from_events(log_of([tuple(row) for row in rows]), roles=roles)


def friends(graph: FriendGraph) -> set[tuple[int, int, int]]:
    edges, ids = graph[USER, FRIEND, USER], graph.user_ids
    src, dst = (ids.lookup(side) for side in edges.edge_index)
    return set(zip(src, dst, edges.time.tolist(), strict=True))


# The declaration


def test_roles_follow_names() -> None:
    names = ("message", "unfriend", "Decline", "distrust", "block", "shown", "remove-friend", "my block")
    expected = ("ordinary", "end", "negative", "negative", "block", "impression", "end", "ordinary")
    assert Roles.of(names).roles == expected
    assert str(Roles.of(("a", "unfriend", "decline"))) == "unfriend=end, decline=negative"
    assert Roles.of(("a", "b")).all_ordinary
    assert Roles.of(("a", "decline")).wanted.tolist() == [True, False]


def test_given_roles_come_before_those_of_names() -> None:
    given = {"block": "ordinary", "ping": "negative"}
    roles = Roles.of(("block", "ping", "poke"), given)
    assert roles.roles == ("ordinary", "negative", "ordinary")
    assert roles.overrides() == given


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"declin": "negative"}, r"unknown action 'declin'; did you mean 'decline'\?"),
        ({"decline": "negatve"}, r"unknown role 'negatve' of 'decline'; did you mean 'negative'\?"),
        ({"zzz": "negative"}, "unknown action 'zzz'; there are decline, poke"),
    ],
)
def test_unknown_names_get_the_nearest_known_one(roles: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        with_roles([Row(0, 1, 0, "poke"), Row(1, 0, 1, "decline")], **roles)


def test_roles_of_a_command_line() -> None:
    assert Roles.parse("decline=negative, a=b=end") == {"decline": "negative", "a=b": "end"}
    for text in ("decline", "decline=", "=end", "a=end,,b=end", "a=end,a=block"):
        with pytest.raises(DataError, match="roles: "):
            Roles.parse(text)


def test_roles_are_saved_and_kept_by_edits(tmp_path: Path) -> None:
    rows = [Row(0, 1, 0, "ping"), Row(1, 0, 1, "poke"), Row(2, 1, 5, "poke")]
    graph = with_roles(rows, ping="negative")
    graph.save(tmp_path / "graph.pt")
    kept = torch.ones(3, dtype=torch.bool)
    for same in (
        FriendGraph.load(tmp_path / "graph.pt"),
        graph.snapshot(4),
        graph.select_events(kept),
        graph.without([2]),
        graph.with_events(log_of([(0, 3, 9, "ping")])),
        with_roles(rows).with_roles({"ping": "negative"}),
    ):
        assert same.roles == graph.roles
        assert not friends(same)
    assert graph.select_actions(["ping"]).roles.roles == ("negative",)
    assert friends(graph.with_roles({"ping": "ordinary"})) == {(0, 1, 1), (1, 0, 1)}


def test_roles_are_part_of_a_graphs_content() -> None:
    rows = [Row(0, 1, 0, "ping"), Row(1, 0, 1, "poke")]
    assert digest_graph(with_roles(rows)) != digest_graph(with_roles(rows, ping="negative"))
    assert digest_graph(with_roles(rows)) == digest_graph(with_roles(rows, ping="ordinary"))


# Ties


def test_an_end_or_block_ends_a_tie_until_both_act_again() -> None:
    for name in ("unfriend", "block"):
        rows = [Row(0, 1, 0, "ask"), Row(1, 0, 2, "ask"), Row(1, 0, 5, name), Row(0, 1, 7, "ask")]
        graph = graph_of(rows)
        tie = {(0, 1, 2), (1, 0, 2)}
        assert friends(graph.snapshot(3)) == friends(graph.snapshot(5)) == tie
        assert friends(graph.snapshot(6)) == friends(graph) == set()
        again = graph_of([*rows, Row(1, 0, 9, "ask")])
        assert friends(again) == {(0, 1, 9), (1, 0, 9)}
        assert friends(again.snapshot(5)) == tie


def test_a_decline_makes_no_tie_and_ends_none() -> None:
    rows = [Row(0, 1, 0, "ask"), Row(1, 0, 2, "decline")]
    assert not friends(graph_of(rows))
    rows = [Row(0, 1, 0, "ask"), Row(1, 0, 1, "ask"), Row(1, 0, 2, "decline")]
    assert friends(graph_of(rows)) == {(0, 1, 1), (1, 0, 1)}


@checked
@given(logs())
def test_ties_are_those_of_a_naive_loop(rows: list[Row]) -> None:
    roles = {"poke": "end", "call": "negative"}
    names = {row.action for row in rows}
    graph = with_roles(rows, **{name: role for name, role in roles.items() if name in names})
    expected = {}
    for a in range(5):
        for b in range(5):
            own = [row for row in rows if {row.src, row.dst} == {a, b}]
            end = max((row.time for row in own if row.action == "poke"), default=-(10**9))
            acts = [row for row in own if row.action == "text" and row.time > end]
            firsts = [[row.time for row in acts if row.src == one] for one in (a, b)]
            if a != b and all(firsts):
                expected[a, b] = max(map(min, firsts))
    assert friends(graph) == {(a, b, time) for (a, b), time in expected.items()}


# Impressions


def test_impressions_are_no_events(tmp_path: Path) -> None:
    rows = [Row(0, 1, 0, "ask"), Row(0, 2, 1, "shown"), Row(1, 0, 2, "ask"), Row(2, 0, 9, "shown")]
    graph = graph_of(rows)
    graph.validate()
    assert (graph.num_events, graph.actions, graph.impressions) == (2, ("ask",), ("shown",))
    assert graph["user", "shown", "user"].edge_index.tolist() == [[0, 2], [2, 0]]
    assert graph.snapshot(5)["user", "shown", "user"].time.tolist() == [1]
    more = graph.with_events(log_of([(1, 3, 4, "shown"), (1, 2, 5, "ask")]))
    assert more["user", "shown", "user"].edge_index.tolist() == [[0, 1, 2], [2, 3, 0]]
    assert more.num_events == 3
    assert graph.without([2])["user", "shown", "user"].edge_index.numel() == 0
    graph.save(tmp_path / "graph.pt")
    assert digest_graph(FriendGraph.load(tmp_path / "graph.pt")) == digest_graph(graph)
    names = [action for _, _, action in graph.to_networkx().edges(data="action")]
    assert sorted(names) == ["ask", "ask", "shown", "shown"]
    assert FriendGraph.from_networkx(graph.to_networkx()).impressions == ("shown",)
    with pytest.raises(DataError, match="every event is an impression"):
        graph_of([Row(0, 1, 0, "shown")])


def test_impressions_can_be_told_apart_later() -> None:
    rows = [Row(0, 1, 0, "ask"), Row(0, 2, 1, "view"), Row(1, 0, 2, "ask")]
    one, other = graph_of(rows).with_roles({"view": "impression"}), with_roles(rows, view="impression")
    assert one.impressions == other.impressions == ("view",)
    assert torch.equal(one.events().src, other.events().src)


def test_appended_impressions_are_kept_and_change_no_score() -> None:
    rows = [Row(0, 1, 0, "ask"), Row(2, 1, 1, "shown"), Row(1, 2, 2, "ask")]
    one, other = (HEURISTICS["popularity"]().fit(graph_of(rows), until=3) for _ in range(2))
    one.append(log_of([(0, 2, 5, "shown")]))
    first = one.graph
    one.append(log_of([(0, 3, 6, "shown"), (0, 1, 7, "ask")]))
    other.append(log_of([(3, 0, 7, "shown"), (0, 1, 7, "ask")]))
    shown = ("user", "shown", "user")
    assert one.graph[shown].time.tolist() == [1, 5, 6]
    assert first[shown].time.tolist() == [1, 5]
    scores = [model.score(Query.of(model.graph, [0], 9)) for model in (one, other)]
    assert torch.equal(*scores)


def test_the_command_line_takes_and_prints_roles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "log.csv"
    rows = [f"{i % 7},{(i + 1 + i % 3) % 7},{i},{'ask' if i % 4 else 'ping'}" for i in range(80)]
    file.write_text("\n".join(["src,dst,timestamp,action", *rows]))
    command = ["fit", str(file), "--model", "popularity", "--out", str(tmp_path / "bundle")]
    main([*command, "--roles", "ping=negative"])
    assert "roles of actions: ping=negative (others ordinary" in capsys.readouterr().err
    assert Bundle.load(tmp_path / "bundle").graph.roles.overrides() == {"ping": "negative"}
    with pytest.raises(SystemExit, match="unknown action 'pin'; did you mean 'ping'"):
        main([*command, "--roles", "pin=negative"])
    main(command)
    assert "roles" not in capsys.readouterr().err


def test_data_sets_take_roles(tmp_path: Path) -> None:
    world = SyntheticFriends(50, 500, root=tmp_path)
    action = world[0].actions[0]
    graph = SyntheticFriends(50, 500, root=tmp_path, roles={action: "negative"})[0]
    assert graph.roles.overrides() == {action: "negative"}


# Outcomes

ROWS = [
    Row(0, 1, 0, "ask"),
    Row(1, 0, 1, "decline"),
    Row(2, 0, 2, "decline"),
    Row(0, 2, 3, "ask"),
    Row(0, 3, 4, "ask"),
    Row(3, 0, 5, "ask"),
    Row(3, 0, 6, "unfriend"),
    Row(2, 1, 7, "block"),
]


def test_a_decline_is_no_reply_and_no_first_contact() -> None:
    pairs = Initiations.of(graph_of(ROWS))
    found = zip(pairs.initiator, pairs.recipient, pairs.initiation_time, pairs.reply_time, strict=True)
    assert [tuple(map(int, row)) for row in found] == [(0, 1, 0, -1), (0, 3, 4, 5)]
    replies = ReplyIndex(Timeline.of(graph_of(ROWS)), wanted=graph_of(ROWS).roles.wanted)
    assert (replies.reply_tick < 8).sum() == 1


@checked
@given(logs())
def test_initiations_are_those_of_a_log_without_other_acts(rows: list[Row]) -> None:
    """As long as the other acts come later."""
    later = [Row(row.src, row.dst, 99, "decline") for row in rows]
    one, other = Initiations.of(graph_of([*rows, *later])), Initiations.of(graph_of(rows))
    for key in ("initiator", "recipient", "initiation_time", "reply_time"):
        assert getattr(one, key).tolist() == getattr(other, key).tolist()


def test_only_ordinary_acts_are_ranked_and_validated() -> None:
    rows = [Row(i % 5, (i + 1 + i % 3) % 5, i, "ask" if i % 3 else "decline") for i in range(100)]
    graph = graph_of(rows)
    action = graph.events().action
    ranks = evaluate_streaming(HEURISTICS["popularity"]().fit(graph, until=80), graph, progress=False)
    assert len(ranks.event_id) == 6
    assert {graph.actions[action[i]] for i in ranks.event_id} == {"ask"}
    assert {graph.actions[action[i]] for i in validation_events(graph, 50, 90, seed=0)} == {"ask"}


def test_only_ordinary_acts_are_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row(i % 6, (i + 1 + i % 3) % 6, i, "ask" if i % 4 else "decline") for i in range(200)]
    graph, seen = graph_of(rows), set()
    sampled = TrainingLoss._sampled_events

    def spy(self: TrainingLoss, timelines: Timelines, *rest: object) -> tuple[torch.Tensor, torch.Tensor]:
        own, weight = sampled(self, timelines, *rest)
        seen.update((timelines.kind[own] // 2).tolist())
        return own, weight

    monkeypatch.setattr(TrainingLoss, "_sampled_events", spy)
    TwoTower(max_epochs=1, progress=False).fit(graph, until=160)
    assert seen == {graph.actions.index("ask")}


def test_the_default_action_is_wanted() -> None:
    rows = [Row(0, 1, 0, "ask"), Row(1, 0, 1, "decline"), Row(2, 0, 2, "decline")]
    graph = graph_of(rows)
    assert graph.actions[Query.of(graph, [0]).action[0]] == "ask"


@pytest.mark.parametrize("name", ["popularity", "adamic_adar", "recent_popularity", "random", "hybrid"])
def test_blocked_users_are_never_suggested_either_way(name: str) -> None:
    """A block at the query's own time is not known yet, one before is."""
    rows = [Row(i % 6, (i + 1 + i % 4) % 6, i, "ask") for i in range(60)]
    graph = graph_of([*rows, Row(0, 3, 70, "block"), Row(4, 0, 75, "block")])
    model = Hybrid(HEURISTICS["last_seen"](), [HEURISTICS["popularity"]()]) if name == "hybrid" else None
    model = (model or HEURISTICS[name]()).fit(graph, until=60)
    everyone = torch.arange(6)
    for time, expected in ((70, set()), (71, {3}), (75, {3}), (76, {3, 4})):
        query = Query.of(graph, [0, 3, 4], time, "ask")
        for users, _ in (model.recommend(query, 6), model.predict_top_k(query, everyone, 6)):
            mine, third, fourth = (set(row[row >= 0].tolist()) for row in users)
            assert mine == {1, 2, 3, 4, 5} - expected
            assert (0 in third, 0 in fourth) == (3 not in expected, 4 not in expected)
    known = suggest(model, [0], k=6, time=76, include_known=True)[0].people
    assert set(known) == {1, 2, 5}


# Heuristics


@checked
@given(logs(), st.integers(-2, 8))
def test_ended_contacts_are_no_contacts(rows: list[Row], time: int) -> None:
    """At any moment the contact graph is that of the acts which nothing has annulled until then."""
    roles = {name: role for name, role in {"poke": "end", "call": "block"}.items() if name in str(rows)}
    everyone = [Row(i, i + 1, -9, "text") for i in range(4)]
    graph = with_roles([*everyone, *rows], **roles)
    past = graph.snapshot(time).events()
    standing = standing_acts(past, graph.roles, 5)
    columns = zip(past.src[standing], past.dst[standing], past.time[standing], strict=True)
    if not bool(standing.any()):
        return
    other = graph_of([Row(*map(int, row), "text") for row in columns], 5)
    query = Query.of(graph, [0, 1, 2, 3, 4], torch.tensor([time] * 5), "text")
    same = Query.of(other, [0, 1, 2, 3, 4], torch.tensor([time] * 5), "text")
    for name in ("adamic_adar", "common_neighbors"):
        one, two = HEURISTICS[name]().fit(graph, until=9), HEURISTICS[name]().fit(other, until=9)
        assert torch.equal(one._two_hop(query), two._two_hop(same))
        assert torch.equal(one._degrees(query), two._degrees(same))
    one, two = PPR().fit(graph, until=9), PPR().fit(other, until=9)
    torch.testing.assert_close(one.visits(query), two.visits(same))


@pytest.mark.parametrize("name", sorted(HEURISTICS))
def test_lists_are_those_of_scores_and_appends_those_of_a_fit(name: str) -> None:
    names = ("ask", "ask", "ask", "unfriend", "decline")
    rows = [Row(i % 9, (i * i + 1 + i % 5) % 9, i, names[i % 5]) for i in range(120)]
    rows = [row for row in rows if row.src != row.dst]
    grown = HEURISTICS[name]().fit(graph_of(rows[:60]), until=rows[59].time)
    grown.append(log_of([tuple(row) for row in rows[60:]]))
    model = HEURISTICS[name]().fit(graph_of(rows), until=rows[59].time)
    query = Query.of(model.graph, list(range(9)), 500, "ask")
    scores = model.score(query)
    assert torch.equal(grown.score(query), scores)
    users, listed = model.recommend(query, 8)
    torch.testing.assert_close(scores.gather(1, users).double(), listed)
    scores[torch.arange(9), torch.arange(9)] = -torch.inf
    torch.testing.assert_close(listed, scores.double().topk(8).values)


@pytest.mark.parametrize("name", ["popularity", "recent_popularity", "new_popularity", "adamic_adar", "ppr"])
def test_distrusted_people_are_not_suggested(name: str) -> None:
    """In a world where distrust is common, a rule that ignores roles suggests those whom all distrust."""
    rows, distrusted = [], {28, 29}
    for i in range(900):
        src = (7 * i) % 28
        if i % 3 == 0:
            rows.append(Row(src, 28 + i % 2, i, "distrust"))
        else:
            rows.append(Row(src, src // 7 * 7 + (src + 1 + i % 5) % 7, i, "trust"))
    newcomers = [Row(30 + i, 7 * i, 901, "trust") for i in range(4)]
    graph = graph_of([row for row in [*rows, *newcomers] if row.src != row.dst])
    found = []
    for one in (graph, graph.with_roles({"distrust": "ordinary"})):
        model = build(name).fit(one, until=900)
        lists = suggest(model, [30, 31, 32, 33], k=5, action="trust")
        found.append(sum(person in distrusted for given in lists for person in given.people))
    assert found[0] == 0
    assert found[1] >= 4


def test_lists_for_the_coming_days_do_not_hold_whom_newcomers_distrust() -> None:
    """Everyone who comes trusts people of a circle, and distrusts two whom all distrust."""
    rows, distrusted = [], {28, 29}
    for i in range(900):
        newcomer, circle = 30 + i // 6, i // 6 % 4 * 7
        to = 28 + i // 6 % 2 if i % 6 == 3 else circle + i % 6 + i // 24 % 2
        rows.append(Row(newcomer, to, i, "distrust" if i % 6 == 3 else "trust"))
    rows += [Row(180 + i, 7 * i, 901, "trust") for i in range(4)]
    graph, found = graph_of(rows), []
    for one in (graph, graph.with_roles({"distrust": "ordinary"})):
        model = build("list_ranker").fit(one, until=900)
        lists = suggest(model, [180, 181, 182, 183], k=5, action="trust")
        found.append(sum(person in distrusted for given in lists for person in given.people))
    assert found[0] == 0
    assert found[1] >= 4


# Real data, and the page


def test_unfriend_in_real_data(mirror: Path) -> None:
    """Social Evolution: ties end, and common contacts without ended ones find more new contacts."""
    file = mirror / "social_evolution" / "events.csv.gz"
    if not file.is_file():
        pytest.skip(f"no such file: {file}")
    graph = FriendGraph.from_events(read_events(file))
    assert str(graph.roles) == "unfriend=end"
    blind = graph.with_roles({"unfriend": "ordinary"})
    assert (len(friends(graph)), len(friends(blind))) == (2 * 156, 2 * 274)
    split, found = TemporalSplit.of(graph), []
    for one in (graph, blind):
        model = HEURISTICS["adamic_adar"]().fit(one, until=split.t_val)
        ranks = evaluate_streaming(model, one, part="val", progress=False)
        found.append(next(row["mrr"] for row in ranks.rows() if row["slice"] == "new"))
    assert found[0] > 1.1 * found[1]


def test_the_page_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    section = page.split("## Roles of actions")[1].split("\n## ")[0]
    code, shown = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", section, flags=re.DOTALL).groups()
    exec(code, {})
    assert capsys.readouterr().out == shown
    listed = {
        name: role
        for role, names in re.findall(r"^\| `(\w+)` \| (`.*?) \|", section, flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert all(DEFAULT_ROLES[name] == role for name, role in listed.items())
    past = {
        "declined",
        "rejected",
        "dismissed",
        "ignored",
        "blocked",
        "unfriended",
        "unfollowed",
        "impressions",
    }
    assert {*DEFAULT_ROLES} - past == {*listed}


def test_negative_ratings_are_distrust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "soc-sign.csv"
    rows = [(i % 7, (i + 1 + i % 3) % 7, -3 if i % 4 == 0 else 1 + i % 9, i + 0.5) for i in range(80)]
    file.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    log = read_events(file, header=False, time=4, rating=3)
    assert log.actions == ("contact", "distrust")
    assert log.weight is not None
    assert torch.equal(log.action == 1, log.weight < 0)
    assert FriendGraph.from_events(log).roles.roles == ("ordinary", "negative")
    with pytest.raises(DataError, match="rating and weight"):
        read_events(file, header=False, time=4, rating=3, weight=3)
    command = ["fit", str(file), "--model", "popularity", "--out", str(tmp_path / "bundle")]
    main([*command, "--no-header", "--time", "4", "--rating", "3"])
    assert "roles of actions: distrust=negative" in capsys.readouterr().err


def test_no_index_is_made_of_impressions(tmp_path: Path) -> None:
    table = pa.table({"src": [0, 1], "dst": [1, 0], "time": [0, 1], "action": ["ask", "shown"]})
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(DataError, match="'shown' is an impression, which no index holds"):
        index_parquet(tmp_path / "log.parquet", tmp_path / "index")
