"""Features and join times of more users, and of users who are there, in the columns of a graph."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from graphs import checked
from hypothesis import given
from hypothesis import strategies as st

from graphrec import Bundle
from graphrec.cli.main import main
from graphrec.data import USER, DataError, EventLog, FriendGraph, UserTable, read_users
from graphrec.service import Rules

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

LOG = EventLog.from_arrays(["ann", "bob", "cem"], ["bob", "cem", "ann"], [10, 20, 30])
MORE = EventLog.from_arrays(["dan"], ["ann"], [40])
TABLE: dict[str, list[Any]] = {
    "user": ["ann", "bob", "cem"],
    "age": [30.0, None, 50.0],
    "country": ["UK", "DK", None],
    "zip": ["A1", "1000", "2000"],
    "likes": [["tea", "jam"], ["tea"], []],
    "embedding": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    "join_time": [5, 6, None],
}
NEW: dict[str, list[Any]] = {
    "user": ["ann", "dan"],
    "age": [31.0, None],
    "country": [None, "DK"],
    "zip": ["1000", "2000"],
    "likes": [["jam"], None],
    "embedding": [[7.0, 8.0], [9.0, 9.0]],
    "join_time": [None, 35],
}


def graph() -> FriendGraph:
    return FriendGraph.from_events(LOG, UserTable.from_table(pa.table(TABLE)))


def known(graph: FriendGraph, user: str) -> dict[str, float]:
    """The features of a user that are not 0, and the join time."""
    row = int(graph.user_ids.index([user]))
    values = dict(zip(graph.feature_names, graph[USER].x[row].tolist(), strict=True))
    return {name: value for name, value in values.items() if value} | {
        "join_time": int(graph[USER].join_time[row])
    }


def test_features_and_join_times_are_merged() -> None:
    before = graph()
    after = before.with_events(MORE).with_users(UserTable.from_table(pa.table(NEW)))
    after.validate()
    assert after.feature_names == before.feature_names
    assert known(after, "bob") == known(before, "bob")
    assert known(after, "cem") == known(before, "cem")
    ann = {"age": 31, "zip=1000": 1, "likes=jam": 1, "embedding[0]": 7, "embedding[1]": 8, "join_time": 5}
    assert known(after, "ann") == ann  # the missing join time leaves the old one
    dan = {"age_missing": 1, "country=DK": 1, "zip=2000": 1, "embedding[0]": 9, "embedding[1]": 9}
    assert known(after, "dan") == dan | {"join_time": 35}


def test_a_user_without_an_event_is_welcome() -> None:
    after = graph().with_users(UserTable.from_table(pa.table(NEW)))
    after.validate()
    assert after.user_ids.values.to_pylist() == ["ann", "bob", "cem", "dan"]
    whole = graph().events()
    assert after.events().src.tolist() == whole.src.tolist()
    assert known(after, "dan")["join_time"] == 35


def test_files_say_the_same_as_tables(tmp_path: Path) -> None:
    """In text, the lists left out: numbers alone in a column of categories stay categories."""
    plain = [name for name in TABLE if name not in ("likes", "embedding")]
    old, new = (pa.table({name: one[name] for name in plain}) for one in (TABLE, NEW))
    base = FriendGraph.from_events(LOG, UserTable.from_table(old))
    pq.write_table(new, tmp_path / "new.parquet")
    rows = zip(*(NEW[name] for name in plain), strict=True)
    lines = [",".join("" if value is None else str(value) for value in row) for row in rows]
    (tmp_path / "new.csv").write_text("\n".join([",".join(plain), *lines]))
    expected = base.with_users(UserTable.from_table(new))
    assert known(expected, "dan")["zip=2000"] == 1
    for name in ("new.parquet", "new.csv"):
        found = base.with_users(read_users(tmp_path / name))
        assert torch.equal(found[USER].x, expected[USER].x)
        assert torch.equal(found[USER].join_time, expected[USER].join_time)


def changed(**columns: Any) -> dict[str, Any]:
    return {name: values for name, values in (NEW | columns).items() if values is not None}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a column is missing": (changed(age=None), "column 'age' is missing; its users have age, country, zip"),
    "categories are missing": (changed(country=None), "column 'country' is missing"),
    "a list is missing": (changed(embedding=None), "column 'embedding' is missing"),
    "a column is new": (changed(height=[1, 2]), "column 'height' is none of the graph's features"),
    "not a number": (changed(age=["old", "9"]), "row 1, column 'age': 'old' is not a number"),
    "another length": (changed(embedding=[[1.0], [2.0]]), "column 'embedding' has lists of 1 numbers"),
    "no list": (changed(embedding=[1.0, 2.0]), "column 'embedding' is none of the graph's features"),
    "a vector is missing": (changed(embedding=[None, [1.0, 2.0]]), r"row 1, column 'embedding': .*missing"),
    "nobody is known": (changed(user=["eve", "fay"]), "none of the 2 users given is in the graph"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_does_not_fit_is_refused(fault: str) -> None:
    columns, message = REFUSED[fault]
    with pytest.raises(DataError, match=message):
        graph().with_users(UserTable.from_table(pa.table(columns)))


def test_a_value_missing_where_none_was_is_refused_by_row() -> None:
    table = {"user": ["ann", "bob"], "age": [1, 2]}
    base = FriendGraph.from_events(LOG, UserTable.from_table(pa.table(table)))
    with pytest.raises(DataError, match="row 2, column 'age': the value is missing"):
        base.with_users(UserTable.from_table(pa.table({"user": ["ann", "bob"], "age": [1, None]})))


def test_graphs_without_features_or_join_times_take_none() -> None:
    bare = FriendGraph.from_events(LOG)
    with pytest.raises(DataError, match="column 'age' is none of the graph's features; its users have no"):
        bare.with_users(UserTable.from_table(pa.table({"user": ["ann"], "age": [1]})))
    with pytest.raises(DataError, match="join times"):
        bare.with_users(UserTable.from_table(pa.table({"user": ["ann"], "join_time": [1]})))
    made = UserTable(pa.array(["ann"]), torch.ones(1, 1), ("age",))
    with pytest.raises(DataError, match="not those of the graph"):
        graph().with_users(made)


def test_unknown_categories_count_as_missing_and_are_named() -> None:
    table = UserTable.from_table(pa.table(changed(country=["FR", "DK"], likes=[["jam", "rum"], []])))
    with pytest.warns(UserWarning, match="categories that the graph does not know") as told:
        after = graph().with_users(table)
    said = " ".join(str(one.message) for one in told)
    assert "'country'" in said
    assert "'FR'" in said
    assert "'rum'" in said
    assert not any(name.startswith("country") for name in known(after, "ann"))
    assert known(after, "ann")["likes=jam"] == 1


def test_join_times_alone_leave_the_features() -> None:
    table = UserTable.from_table(pa.table({"user": ["cem"], "join_time": [7]}))
    after = graph().with_users(table)
    assert known(after, "cem") == known(graph(), "cem") | {"join_time": 7}


@checked
@given(st.data())
def test_a_part_of_the_table_says_what_the_whole_says(data: st.DataObject) -> None:
    """Users taken out of a table and added later have the features they would have had."""
    names = ["a", "b", "x_missing", "x"]
    values = {
        "a": st.one_of(st.none(), st.sampled_from(["7", "u", "b=c"])),
        "b": st.one_of(st.none(), st.sampled_from(["=", "d", "1", "_missing"])),
        "x_missing": st.sampled_from(["t", "w"]),
        "x": st.one_of(st.none(), st.floats(-9, 9, width=32)),
    }
    size = 5
    columns: dict[str, Any] = {"user": list(range(size))}
    for one in names:
        columns[one] = data.draw(st.lists(values[one], min_size=size, max_size=size), label=one)
    kinds = {one: pa.float64() if one == "x" else pa.string() for one in names}
    table = pa.table({"user": columns["user"]} | {one: pa.array(columns[one], kinds[one]) for one in names})
    log = EventLog.from_arrays([0, 1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4])
    whole = FriendGraph.from_events(log, UserTable.from_table(table))
    part = table.take(data.draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True), label="rows"))
    blank = FriendGraph.from_events(log, UserTable.from_table(table))
    blank[USER].x = torch.full_like(whole[USER].x, -5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = blank.with_users(UserTable.from_table(part))
    rows = torch.tensor(part["user"].to_pylist())
    assert torch.equal(after[USER].x[rows], whole[USER].x[rows])


# In a bundle


def test_a_bundle_takes_users(tmp_path: Path) -> None:
    bundle = Bundle.fit(graph(), model="adamic_adar")
    users = UserTable.from_table(pa.table(NEW))
    added = bundle.add(MORE, users)
    assert known(added.graph, "dan")["country=DK"] == 1
    assert int(added.tokenizer.stus(added.graph).has().sum()) == 4
    alone = bundle.add(users=users)
    assert alone.logs == bundle.logs
    assert torch.equal(alone.graph[USER].x, added.graph[USER].x)
    with pytest.raises(ValueError, match="give a log, users, or both"):
        bundle.add()
    with pytest.raises(DataError, match="already"):
        bundle.add(LOG, users)


@pytest.mark.parametrize("alone", [False, True])
def test_the_command_takes_users(alone: bool, tmp_path: Path) -> None:
    folder, log, users = tmp_path / "bundle", tmp_path / "more.csv", tmp_path / "users.csv"
    table = pa.table({name: TABLE[name] for name in ("user", "age", "country", "join_time")})
    Bundle.fit(
        FriendGraph.from_events(LOG, UserTable.from_table(table)), model="popularity", rules=Rules()
    ).save(folder)
    log.write_text("src,dst,timestamp\ndan,ann,40\n")
    users.write_text("user,age,country,join_time\nann,31,FR,\ndan,,DK,35\n")
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        main(["add", str(folder), *([] if alone else [str(log)]), "--users", str(users)])
    assert "4 users" in out.getvalue()
    assert "'FR'" in err.getvalue()
    assert err.getvalue().count("\n") == 1
    now = Bundle.load(folder).graph
    assert known(now, "dan") == {"age_missing": 1, "country=DK": 1, "join_time": 35}
    assert known(now, "ann") == {"age": 31, "join_time": 5}
    before = Bundle.load(folder).digest
    users.write_text("user,age,country\neve,1,DK\n")
    with pytest.raises(SystemExit, match="none of the 1 users"):
        main(["add", str(folder), "--users", str(users)])
    with pytest.raises(SystemExit, match="give EVENTS, or --users FILE"):
        main(["add", str(folder)])
    assert Bundle.load(folder).digest == before


def test_what_is_no_log_no_table_and_no_number_is_refused_by_name() -> None:
    bundle = Bundle.fit(graph(), model="popularity")
    calls = [
        lambda: bundle.add("x"),
        lambda: bundle.graph.with_events(pa.table(NEW)),
        lambda: FriendGraph.from_events(pa.table(TABLE)),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="log must be EventLog, got"):
            call()
    for users in ({"user": ["ann"]}, pa.table(NEW)):
        for takes in (
            lambda users=users: bundle.add(users=users),
            lambda users=users: bundle.graph.with_users(users),
            lambda users=users: FriendGraph.from_events(LOG, users),
        ):
            with pytest.raises(TypeError, match="users must be UserTable, got"):
                takes()
    for k in ("3", None, float("inf"), 2.5, True):
        with pytest.raises(TypeError, match="k must be a whole number, got"):
            bundle.suggest(["ann"], k=k)
    assert bundle.suggest(["ann"], k=10**11)[0].user == "ann"
