"""A bundle in service: fresh, durable, within the rules, saved and reloaded without a pause."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from graphs import Row
from serving_cases import NOW, ROWS, events, fitted, rows_of, saved

from graphrec import Bundle
from graphrec.data import DataError
from graphrec.service import Rules, RuleStore, current_digest
from graphrec.serving.committer import DiskFullError, OverloadedError
from graphrec.serving.compaction import compact
from graphrec.serving.engine import LONG_SHARE, MAX_BATCH, Engine
from graphrec.serving.files import ServingFiles
from graphrec.serving.live_bundle import LiveBundle
from graphrec.serving.questions import Asked, NotSuggestedError
from graphrec.serving.rule_writer import RuleChange, RuleWriter, net_change
from graphrec.serving.served_bundle import ServedBundle, ServingConfig
from graphrec.serving.side_state import RestingPairs
from graphrec.serving.writes import EventsWrite, FeedbackWrite, Key, KeyedWrite, Write

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

ALL = Asked(k=50)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "bundle")


class SavingHere:
    """Stands in for the process that saves, without its ten seconds of imports."""

    def __init__(self, command: list[str], **_: object) -> None:
        self.folder, self.returncode = Path(command[-1]), 0

    def __enter__(self) -> SavingHere:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def communicate(self) -> tuple[str, str]:
        try:
            return json.dumps(vars(compact(self.folder))), ""
        except (OSError, DataError) as error:
            self.returncode = 1
            return "", str(error)

    def terminate(self) -> None:
        pass


@pytest.fixture(autouse=True)
def saving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test saves in a process, as all do in service."""
    if request.node.name != "test_writes_are_there_after_a_restart_each_once":
        monkeypatch.setattr("graphrec.serving.served_bundle.subprocess.Popen", SavingHere)


def write(served: ServedBundle, one: Write, key: str | None = None) -> None:
    served.write(KeyedWrite(one, None if key is None else Key.of(key, one))).result(120)


def people(served: ServedBundle, user: str, asked: Asked = ALL) -> list[str] | None:
    (found,) = served.engine.ask([user], asked).result(120)
    return None if found is None else list(found.people)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def rows(served: ServedBundle) -> list[tuple[str, str, int, str]]:
    return served.engine.call(lambda live: rows_of(live.bundle)).result(120)


def test_an_acknowledged_event_counts_for_the_next_request(folder: Path) -> None:
    with ServedBundle(folder) as served:
        for number in range(40):
            user, other = str(100 + number), str(101 + number)
            assert people(served, user) is None or number
            write(served, events((100 + number, 101 + number, NOW + number, "call")))
            found = people(served, user)
            assert found is not None
            assert other not in found
            assert str(1) in found


def test_answers_are_those_of_the_bundle(folder: Path) -> None:
    new = events((1, 50, NOW, "call"), (50, 51, NOW + 5, "text"))
    with ServedBundle(folder) as served:
        write(served, new)
        users = ["1", "50", "7", "51"]
        answers = served.engine.ask(users, Asked(k=4)).result(120)
        earlier = served.engine.ask(users[:1], Asked(k=4, time=NOW + 5)).result(120)
    bundle = fitted([*ROWS, Row(1, 50, NOW, "call"), Row(50, 51, NOW + 5, "text")])
    for answer, given in zip(answers, bundle.suggest(users, k=4), strict=True):
        assert answer is not None
        assert answer.people == tuple(map(str, given.people))
        assert answer.scores == pytest.approx(given.scores)
        assert answer.time == NOW + 6
    (given,) = bundle.suggest(["1"], k=4, time=NOW + 5)
    assert earlier[0] is not None
    assert earlier[0].people == tuple(map(str, given.people))


def test_events_at_the_time_of_a_question_or_later_are_invisible(folder: Path) -> None:
    with ServedBundle(folder) as served:
        asked = Asked(k=50, time=NOW)
        before = people(served, "1", asked)
        write(served, events(*((1, int(one), NOW + late, "call") for late, one in enumerate(before or []))))
        assert people(served, "1", asked) == before
        assert people(served, "1") == []


def test_writes_are_there_after_a_restart_each_once(folder: Path) -> None:
    late = events((1, 50, NOW, "call"), (2, 50, NOW - 9, "text"), (3, 1, 1, "text"))
    with ServedBundle(folder) as served:
        write(served, late, key="a")
        write(served, events((50, 3, NOW + 9, "text")))
        before = rows(served)
        lists = [people(served, str(one)) for one in (1, 2, 3, 50)]
    with ServedBundle(folder) as served:
        write(served, late, key="a")
        assert rows(served) == before
        assert [people(served, str(one)) for one in (1, 2, 3, 50)] == lists
        served.save()
        served.save()
        assert ServingFiles(folder).log.stat().st_size < 400
        write(served, late, key="a")
        write(served, events((50, 7, NOW + 10, "text")))
    with ServedBundle(folder) as served:
        write(served, late, key="a")
        assert rows(served) == [*before, ("50", "7", NOW + 10, "text")]
        assert served.num_reloads == 0
    assert rows_of(Bundle.load(folder)) == before


def test_rules_hold_for_the_next_request(folder: Path) -> None:
    with ServedBundle(folder) as served:
        first = (people(served, "1") or [])[0]
        served.rules.submit(RuleChange(add=Rules.of([("1", first)]))).result(120)
        assert first not in (people(served, "1") or [])
        assert "1" not in (people(served, first) or [])
        served.rules.submit(RuleChange(remove=Rules.of([("1", first)]))).result(120)
        assert (people(served, "1") or [])[0] == first
        served.rules.submit(RuleChange(add=Rules.of(opted_out=[first]))).result(120)
        assert first not in (people(served, "1") or [])
        assert people(served, first)
        with pytest.raises(NotSuggestedError):
            served.engine.explain("1", first, ALL).result(120)


def test_rules_that_change_together_have_the_outcome_of_one_after_the_other(folder: Path) -> None:
    changes = [
        RuleChange(add=Rules.of([("1", "2"), ("3", "4")], ["7"])),
        RuleChange(remove=Rules.of([("1", "2")], ["7"])),
        RuleChange(add=Rules.of([("1", "2")])),
        RuleChange(remove=Rules.of([("3", "9")])),
        RuleChange(add=Rules.of([("5", "6")], ["5"])),
        RuleChange(forget="5"),
    ]
    net = net_change(changes)
    assert net.add == Rules.of([("1", "2"), ("3", "4")])
    assert net.remove == Rules.of([("3", "9"), ("5", "6")], ["7", "5"])
    writer = RuleWriter(lambda: RuleStore(folder))
    for future in [writer.submit(change) for change in changes]:
        future.result(120)
    writer.close()
    assert RuleStore(folder).current() == Rules.of([("1", "2"), ("3", "4")])
    with pytest.raises(OverloadedError):
        writer.submit(changes[0])


def test_a_forgotten_user_is_hidden_at_once_and_then_deleted(folder: Path) -> None:
    with ServedBundle(folder, ServingConfig(forget_seconds=1.0)) as served:
        write(served, events((1, 4242, NOW, "call"), (4242, 2, NOW, "call")))
        write(served, FeedbackWrite(("3",), ("4242",), (NOW,), ("shown",)))
        assert "4242" in (people(served, "3") or [])
        served.forget("4242").result(120)
        assert people(served, "4242") is None
        assert "4242" not in (people(served, "3") or [])
        write(served, events((4242, 5, NOW + 9, "text")))
        assert people(served, "4242") is None or served.num_reloads
        until(lambda: served.num_reloads == 1)
        assert [row for row in rows(served) if "4242" in row] == [("4242", "5", NOW + 9, "text")]
        assert people(served, "4242")
        served.forget("4242").result(120)
        until(lambda: served.num_reloads == 2)
    for path in (*folder.rglob("*"), *ServingFiles(folder).folder.rglob("*")):
        assert path.is_dir() or b"4242" not in path.read_bytes(), path
    with ServedBundle(folder) as served:
        assert people(served, "4242") is None


def test_a_save_that_failed_is_tried_again_for_the_forgotten(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphrec.serving.served_bundle.RETRY_SECONDS", 0.5)
    with ServedBundle(folder, ServingConfig(forget_seconds=0.1)) as served:
        (graph,) = folder.glob("version-*/graph.pt")
        content = graph.read_bytes()
        graph.write_bytes(content[:-5])
        served.forget("5").result(120)
        until(lambda: served.num_failed_saves > 0)
        graph.write_bytes(content)
        until(lambda: served.num_saves == 1)
    assert "5" not in {name for row in rows_of(Bundle.load(folder)) for name in row[:2]}


def test_a_forgotten_user_stays_forgotten_after_a_kill(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServedBundle, "_keep", lambda self: None)  # the thread that saves does not get to it
    served = ServedBundle(folder)
    served.rules.submit(RuleChange(add=Rules.of(opted_out=["5"]))).result(120)
    served.committer.submit(KeyedWrite(events((1, 50, NOW, "call")))).result(120)
    served.forget("5").result(120)
    served.close()
    with ServedBundle(folder) as again:
        assert people(again, "5") is None
        assert "5" not in {name for row in rows(again) for name in row[:2]}
        assert "5" not in RuleStore(folder).current().opted_out


def test_a_dismissed_person_rests_for_a_while(folder: Path) -> None:
    with ServedBundle(folder, ServingConfig(rest=100)) as served:
        first = (people(served, "1") or [])[0]
        write(served, FeedbackWrite(("1",), (first,), (NOW,), ("dismissed",)))
        assert first not in (people(served, "1") or [])
        assert first in (people(served, "1", Asked(k=50, time=NOW)) or [])  # it was not known then
    with ServedBundle(folder, ServingConfig(rest=100)) as served:
        assert first not in (people(served, "1") or [])
        served.save()
        assert first not in (people(served, "1") or [])
        write(served, events((2, 3, NOW + 98, "call")))
        assert first not in (people(served, "1") or [])
        write(served, events((2, 3, NOW + 99, "call")))
        assert first in (people(served, "1") or [])


def test_a_new_fit_is_taken_over_with_later_events(folder: Path) -> None:
    with ServedBundle(folder) as served:
        write(served, events((1, 50, NOW, "call")))
        write(served, events((2, 50, NOW + 1, "call")))
        replaced = current_digest(folder)
        fitted([*ROWS, Row(1, 50, NOW, "call"), Row(8, 50, NOW, "text")]).save(folder, replaces=replaced)
        served.reload_soon()
        write(served, events((3, 50, NOW - 5, "call")))
        until(lambda: served.num_reloads > 0 and not served.is_reloading)
        write(served, events((4, 50, NOW - 5, "call")))
        found = rows(served)
        assert found[len(ROWS) + 1] == ("8", "50", NOW, "text")
        assert [row[0] for row in found if row[1] == "50"].count("1") == 1
        assert {("2", "50", NOW + 1, "call"), ("4", "50", NOW + 1, "call")} < set(found)
    with ServedBundle(folder) as served:
        assert rows(served) == found


def test_a_version_that_cannot_be_loaded_changes_nothing(folder: Path) -> None:
    with ServedBundle(folder) as served:
        before = people(served, "1")
        (graph,) = folder.glob("version-*/graph.pt")
        content = graph.read_bytes()
        graph.write_bytes(content[:-5])
        served.reload_soon()
        until(lambda: served.num_failed_reloads == 1)
        assert people(served, "1") == before
        served.save_soon()
        until(lambda: served.num_failed_saves == 1)
        write(served, events((1, 50, NOW, "call")))
        graph.write_bytes(content)
        served.save()
        assert ("1", "50", NOW, "call") in rows_of(Bundle.load(folder))


def test_a_command_that_changes_the_bundle_is_taken_over_when_writes_are_saved(folder: Path) -> None:
    with ServedBundle(folder) as served:
        Bundle.update(folder, lambda bundle: bundle.forget(5))
        assert "5" not in (people(served, "1") or [])  # at once
        write(served, events((1, 50, NOW, "call")))
        served.save_soon()
        until(lambda: served.num_reloads == 1)
        assert people(served, "5") is None


def test_only_one_process_serves_a_bundle(folder: Path) -> None:
    with ServedBundle(folder), pytest.raises(DataError, match="another process serves this bundle already"):
        ServedBundle(folder)
    ServedBundle(folder).close()
    with pytest.raises(FileNotFoundError):
        ServedBundle(folder / "other")


def held(engine: Engine) -> threading.Event:
    """Let the engine wait for an event."""
    begun, go = threading.Event(), threading.Event()

    def wait(live: LiveBundle) -> None:
        begun.set()
        go.wait(10)

    engine.call(wait)
    begun.wait(10)
    return go


def test_requests_that_wait_together_are_answered_together() -> None:
    sizes: list[int] = []
    engine = Engine(LiveBundle(fitted(), 0, RestingPairs()), lambda size, seconds: sizes.append(size))
    engine.ask(["1"], ALL).result(120)
    assert sizes == [1]
    go = held(engine)
    many = engine.ask(["1"] * 200, ALL)
    alike = [engine.ask([str(one)], ALL) for one in range(1, 9)]
    others = [engine.ask([str(one)], Asked(k=2)) for one in range(1, 4)]
    unknown = engine.ask(["1", "nobody"], Asked(k=50, action="wave"))
    go.set()
    assert [len(one.result(120)) for one in (*alike, *others)] == [1] * 11
    assert len(many.result(120)) == 200
    with pytest.raises(KeyError, match="wave"):
        unknown.result(120)
    assert sizes == [1, 208, 3, 2]
    assert max(sizes) <= MAX_BATCH
    assert engine.ask(["nobody", "1"], ALL).result(120)[0] is None
    engine.close()
    with pytest.raises(OverloadedError, match="stopping"):
        engine.ask(["1"], ALL)


def test_a_long_request_is_cut_while_short_ones_come_in() -> None:
    sizes: list[int] = []
    engine = Engine(LiveBundle(fitted(), 0, RestingPairs()), lambda size, seconds: sizes.append(size))
    go = held(engine)
    engine._user_seconds = 1.0  # a slow model
    many = engine.ask([str(one % 12) for one in range(100)], ALL)
    short = engine.ask(["3"], ALL)
    go.set()
    assert short.result(120) == [many.result(10)[3]]
    assert [None if one is None else one.user for one in many.result(120)] == [
        str(one % 12) for one in range(100)
    ]
    assert sizes[0] == LONG_SHARE + 1
    assert max(sizes[1:]) == LONG_SHARE
    assert sum(sizes) == 101
    engine.close()


def test_more_requests_than_may_wait_are_refused() -> None:
    engine = Engine(LiveBundle(fitted(), 0, RestingPairs()), max_waiting=3)
    go = held(engine)
    kept = [engine.ask(["1"], ALL) for _ in range(3)]
    with pytest.raises(OverloadedError, match="too many requests wait"):
        engine.ask(["1"], ALL)
    with pytest.raises(OverloadedError, match="too many requests wait"):
        engine.explain("1", "2", ALL)
    go.set()
    assert all(one.result(120) for one in kept)
    engine.close()


def test_a_full_disk_refuses_writes_and_answers_go_on(folder: Path) -> None:
    from test_record_file import FullDisk

    disk = FullDisk(10**6)
    with ServedBundle(folder, ServingConfig(storage=disk)) as served:
        disk.room = 5
        with pytest.raises(DiskFullError):
            write(served, events((1, 50, NOW, "call")))
        assert people(served, "1")
        assert people(served, "50") is None
        disk.room = 10**6
        write(served, events((1, 50, NOW, "call")))
        assert people(served, "50")


def test_an_event_without_a_place_is_kept_for_the_next_fit(folder: Path) -> None:
    with ServedBundle(folder) as served:
        write(served, EventsWrite(("1", "1"), ("50", "51"), (NOW, NOW), ("wave", "call")))
        assert people(served, "50") is None
        assert people(served, "51")
        served.save()
    (kept,) = ServingFiles(folder).folder.glob("rows-*.csv")
    assert kept.read_text().splitlines()[1:] == [f"1,50,{NOW},wave"]
