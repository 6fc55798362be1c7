"""Events appended to a bundle in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphs import Row, random_rows

from graphrec import Bundle
from graphrec.data import DataError, EventLog, FriendGraph
from graphrec.service import Rules

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

ROWS = random_rows(7, users=12, events=90, times=30, scale=3600)
NEW = [Row(1, 50, 40 * 3600, "call"), Row(50, 1, 41 * 3600, "text"), Row(50, 51, 42 * 3600, "text")]


def log_of(rows: list[Row]) -> EventLog:
    src, dst, time, action = zip(*rows, strict=True)
    return EventLog.from_arrays(src, dst, time, action)


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.fit(FriendGraph.from_events(log_of(ROWS)), model="adamic_adar", rules=Rules.of([(3, 9)]))


def test_the_next_suggestion_sees_the_events(bundle: Bundle) -> None:
    added = bundle.add(log_of(NEW))
    bundle.append(log_of(NEW[:1]))
    bundle.append(log_of(NEW[1:]))
    users = [1, 5, 50, 51]
    assert [given.user for given in bundle.suggest(users)] == users
    for one, other in zip(bundle.suggest(users, k=20), added.suggest(users, k=20), strict=True):
        assert dict(zip(one.people, one.scores, strict=True)) == pytest.approx(
            dict(zip(other.people, other.scores, strict=True))
        )
    assert 50 in bundle.suggest([51])[0].people + bundle.suggest([2])[0].people
    assert 50 not in bundle.suggest([1], k=20)[0].people
    assert 3 not in bundle.suggest([9], k=20)[0].people


def test_a_log_is_appended_once(bundle: Bundle) -> None:
    last = [Row(1, 50, 40 * 3600, "call")]
    bundle.append(log_of(last))
    with pytest.raises(DataError, match="in the bundle already"):
        bundle.append(log_of(last))
    assert bundle.graph.num_events == len(ROWS) + 1
    bundle.append(log_of(last), again=True)
    assert bundle.graph.num_events == len(ROWS) + 2


def test_what_was_appended_is_saved_loaded_and_added_to(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "bundle")
    digest = bundle.digest
    bundle.append(log_of(NEW))
    assert bundle.digest == ""
    bundle.save(tmp_path / "bundle")
    assert bundle.digest not in ("", digest)
    loaded = Bundle.load(tmp_path / "bundle")
    assert loaded.graph.user_ids.values.equals(bundle.graph.user_ids.values)
    assert [x.people for x in loaded.suggest([1, 50], k=5)] == [
        x.people for x in bundle.suggest([1, 50], k=5)
    ]
    assert int(loaded.tokenizer.stus(loaded.graph).has().sum()) == 14
    more = loaded.add(log_of([Row(51, 2, 50 * 3600, "call")]))
    assert more.graph.num_users == 14
    assert 51 not in more.suggest([2], k=20)[0].people
    loaded.append(log_of([Row(51, 2, 50 * 3600, "call")]))
    assert 51 not in loaded.suggest([2], k=20)[0].people


def test_explanations_see_the_events(bundle: Bundle) -> None:
    bundle.append(log_of(NEW))
    with pytest.raises(ValueError, match="is not suggested to"):
        bundle.explain(1, 50)
    assert bundle.explain(51, 1).user == 51
