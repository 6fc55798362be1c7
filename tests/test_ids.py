"""One identity: what makes two ids the same is decided once, and every way in asks there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from graphs import checked
from hypothesis import example, given
from hypothesis import strategies as st

from graphrec.data import (
    DataError,
    EventLog,
    FriendGraph,
    Query,
    UserIds,
    UserTable,
    id_list,
    id_pairs,
    id_text,
    parse_id,
)
from graphrec.data.ids import MISSING_WORDS, bad_ids, id_fault
from graphrec.service.rules import Rules

PLAIN = {"0": 0, "7": 7, " 7\u3000": 7, "-1": -1, "9223372036854775807": 2**63 - 1, str(-(2**63)): -(2**63)}
TEXT = (
    "007",
    "7_0",
    "+9",
    "-0",
    "\u0667",
    "7.5",
    "1e3",
    "12345e67",
    "True",
    "ann",
    "a\tb",
    "10.0.0.0",
    str(2**63),
)
REFUSED = (
    *(
        "",
        " ",
        "\u2028",
        "a\0b",
        "\udcff",
        "a" * 256,
        "é" * 128,
        '"2"',
        '"',
        '2"',
        "1.0",
        "7.",
        "-3.00",
        "1e+05",
    ),
    *("1.5E+03", *MISSING_WORDS),
)
NO_IDS = (None, 7.0, float("nan"), True, np.True_, torch.tensor(True), ["a"], ("a",), b"a", {}, np.array([3]))


@pytest.mark.parametrize(("text", "number"), PLAIN.items())
def test_plain_decimals_are_integers(text: str, number: int) -> None:
    assert parse_id(text) == number
    assert type(parse_id(text)) is int
    assert id_text(text) == id_text(number) == str(number)


@pytest.mark.parametrize("text", TEXT)
def test_other_text_is_a_string(text: str) -> None:
    assert parse_id(f" {text}\n") == text == id_text(text)


@pytest.mark.parametrize("text", REFUSED, ids=ascii)
def test_text_that_no_log_can_hold_is_refused(text: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_id(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    for known in (UserIds(torch.tensor([1, 2])), UserIds.from_values(pa.array(["1", "2"]))):
        assert known.find([text]).tolist() == [-1]
        with pytest.raises(KeyError, match="unknown user id"):
            known.index([text])


@pytest.mark.parametrize("value", NO_IDS, ids=repr)
def test_what_is_neither_integer_nor_text_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="integer or text"):
        parse_id(value)
    ids = UserIds(torch.tensor([1, 7]))
    for ask in (ids.index, ids.find, Rules.of(()).opt_out, lambda v: Rules().block(1, v[0])):
        with pytest.raises(TypeError):
            ask([value])


@pytest.mark.parametrize(
    "value", [np.int8(7), np.uint64(7), torch.tensor(7), pa.scalar(7), pa.scalar("7"), np.str_("7")]
)
def test_integers_of_libraries_are_integers(value: object) -> None:
    assert parse_id(value) == 7
    assert UserIds(torch.tensor([1, 7])).index([value]).tolist() == [1]
    assert UserIds.from_values(pa.array(["7", "x"])).index([value]).tolist() == [0]


def test_huge_integers() -> None:
    assert parse_id(2**64) == str(2**64)
    with pytest.raises(DataError, match="256 bytes"):
        parse_id(10**5000)
    with pytest.raises(KeyError, match="unknown"):
        UserIds(torch.tensor([1])).index([10**5000])


LISTS: tuple[Any, ...] = (
    [3, "1", 9],
    np.array([3, 1, 9]),
    np.array([3, 1, 9], np.uint64),
    torch.tensor([3, 1, 9]),
    pa.array([3, 1, 9], pa.int16()),
    pa.array(["3", " 1", "9"]),
    pa.chunked_array([["3"], ["1", "9"]]),
    ("3", "1", "9"),
    (str(i) for i in (3, 1, 9)),
)


@pytest.mark.parametrize("asked", LISTS[:-1], ids=lambda asked: type(asked).__name__)
@pytest.mark.parametrize("kind", [int, str])
def test_lists_of_ids(asked: Any, kind: type) -> None:
    ids = UserIds.from_values(pa.array([kind(i) for i in (1, 2, 3)]))
    assert ids.find(asked).tolist() == [2, 0, -1]
    with pytest.raises(KeyError, match=r"unknown user id '9' \(1 of 3"):
        ids.index(asked)


def test_a_generator_and_an_empty_list() -> None:
    ids = UserIds(torch.tensor([1, 2]))
    assert ids.index(i for i in ("2", 1)).tolist() == [1, 0]
    assert ids.index([]).tolist() == ids.find(pa.array([], pa.int64())).tolist() == []
    with pytest.raises(TypeError, match="None"):
        ids.find(pa.array([1, None]))


@pytest.mark.parametrize(
    "single", ["12", b"12", 12, np.int64(12), pa.scalar("12"), None, torch.tensor(1)], ids=repr
)
def test_a_single_id_is_no_list(single: Any) -> None:
    graph = FriendGraph.from_events(EventLog.from_arrays(["1", "2"], ["2", "1"], [0, 1]))
    calls: list[Callable[[], object]] = [
        lambda: id_list(single),
        lambda: id_pairs(single),
        lambda: id_pairs([single]),
        lambda: graph.user_ids.index(single),
        lambda: graph.user_ids.find(single),
        lambda: graph.add_untimed("school", single, ["1"]),
        lambda: graph.add_untimed("school", ["1"], single),
        lambda: Rules.of(opted_out=single),
        lambda: Rules.of(blocked=[single]),
    ]
    if not isinstance(single, torch.Tensor):  # a tensor holds indices
        calls += [lambda: Query.of(graph, single), lambda: graph.without(single)]
    for call in calls:
        with pytest.raises(TypeError, match=r"must be a list of (pairs of )?ids"):
            call()
    with pytest.raises(TypeError, match=r"did you mean \['12'\]"):
        Query.of(graph, "12")  # type: ignore[arg-type]


ids_of_people = st.one_of(
    st.integers(-(2**70), 2**70),
    st.text(max_size=6),
    st.text('0123456789-+._ nae"', max_size=5),
    st.sampled_from([*PLAIN, *TEXT, *REFUSED]),
)


@checked
@given(st.lists(ids_of_people, min_size=1, max_size=6))
@example(["\x85", "\u200b", "\ufeffa"])
def test_columns_and_single_ids_are_judged_alike(values: list[int | str]) -> None:
    texts = [str(value).strip() for value in values]
    faults = [id_fault(text) is not None for text in texts]
    encodable = [text.encode(errors="replace").decode() == text for text in texts]
    column = pa.array([text for text, good in zip(texts, encodable, strict=True) if good], pa.string())
    assert bad_ids(column).tolist() == [fault for fault, good in zip(faults, encodable, strict=True) if good]


def accepted(call: Callable[[], Any]) -> Any:
    """What a call answers; None if it refuses."""
    try:
        return call()
    except (DataError, KeyError):
        return None


@checked
@given(ids_of_people, ids_of_people)
@example("ann", "ann ")
@example("7", 7)
@example("1.0", 1)
@example("é", "e\u0301")
def test_every_way_in_knows_the_same_people(value: int | str, other: int | str) -> None:
    """What one way in refuses, all refuse; what is one person for one, is one person for all."""
    text, same = accepted(lambda: id_text(value)), accepted(lambda: id_text(value) == id_text(other))
    friend = ["friend1"]
    log = accepted(lambda: EventLog.from_arrays([str(value)], friend, [0]))
    people = accepted(lambda: UserTable.from_table(pa.table({"user": [str(value)]})))
    rules = accepted(lambda: Rules().opt_out(value))
    assert [way is None for way in (log, people, rules)] == [text is None] * 3
    if text is None or same is None or text == "friend1":
        return
    graph = FriendGraph.from_events(log, people)
    assert graph.user_ids.lookup(range(2)) == sorted([text, "friend1"])
    for ask in (value, str(value), f" {text}\u3000"):
        assert graph.user_ids.lookup(Query.of(graph, [ask]).user) == [text]
        assert rules.opt_in(ask) == rules.without(ask) == Rules()
    found = accepted(lambda: graph.user_ids.index([other]).tolist())
    assert (found is not None) == (same or id_text(other) == "friend1")
    assert (rules.opt_in(other) == Rules()) == same
    more = accepted(lambda: graph.with_events(EventLog.from_arrays([str(other)], friend, [1])))
    if id_text(other) != "friend1":
        assert more.num_users == 3 - same


@pytest.mark.parametrize("spelled", ["7_0", "+9", "007", "\u0667", "7.0", "1_0", "07", "x"])
def test_on_integers_other_text_is_unknown(spelled: str) -> None:
    graph = FriendGraph.from_events(EventLog.from_arrays([7, 70, 9], [9, 10, 7], [0, 1, 2]))
    for ask in (graph.user_ids.index, graph.without, lambda ids: Query.of(graph, ids)):
        with pytest.raises(KeyError, match=f"unknown user id '{spelled.replace('+', '[+]')}'"):
            ask([spelled])
    assert graph.user_ids.find([spelled]).tolist() == [-1]
    assert graph.without([" 7"]).user_ids.find([7]).tolist() == [-1]


def test_text_that_is_not_utf8_is_refused_with_its_row() -> None:
    buffers = [None, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff")]
    broken = pa.Array.from_buffers(pa.string(), 2, buffers)
    for column in (broken, pa.chunked_array([["b"], broken])):
        row = len(column)
        names, times = ["x"] * row, list(range(row))
        with pytest.raises(DataError, match=rf"row {row}, column 'src': .*not UTF-8 text"):
            EventLog.from_arrays(column, names, times)
        with pytest.raises(DataError, match=rf"row {row}, column 'action': .*not UTF-8 text"):
            EventLog.from_arrays(["y"] * row, names, times, action=column)


def test_runs_of_equal_ids() -> None:
    runs = pc.run_end_encode(pa.array(["b", "b", "a"]))
    log = EventLog.from_arrays(runs, ["x"] * 3, [0, 1, 2])
    assert log.user_ids.lookup(log.src) == ["b", "b", "a"]
