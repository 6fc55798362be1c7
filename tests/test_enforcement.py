"""Rules of a request in service: those of the bundle, read for the users of the request alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_cases import NOW, events, fitted, saved

from graphrec import Bundle
from graphrec.data import DataError
from graphrec.service import Rules, RuleStore
from graphrec.serving.enforcement import Enforcement
from graphrec.serving.live_bundle import LiveBundle
from graphrec.serving.questions import Asked
from graphrec.serving.side_state import RestingPairs

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

names = st.integers(0, 14).map(str)
pairs = st.tuples(names, names).filter(lambda pair: pair[0] != pair[1])
USERS = [str(one) for one in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("enforcement") / "bundle")


@settings(max_examples=40, deadline=None)
@given(st.sets(pairs, max_size=12), st.sets(names, max_size=5), st.lists(st.sampled_from(USERS), max_size=9))
def test_answers_are_those_of_the_bundle_under_the_same_rules(
    folder: Path, blocked: set[tuple[str, str]], opted_out: set[str], users: list[str]
) -> None:
    store = RuleStore(folder)
    store.change(add=Rules.of(blocked, opted_out), remove=store.current())
    bundle = Bundle.load(folder)
    answers = LiveBundle(bundle, 0, RestingPairs()).answer(users, Asked(k=20))
    for answer, wanted in zip(answers, bundle.suggest(users, k=20), strict=True):
        assert answer is not None
        assert answer.people == tuple(map(str, wanted.people))
    fixed = fitted().with_rules(store.current())
    assert LiveBundle(fixed, 0, RestingPairs()).answer(users, Asked(k=20)) == answers


def test_who_opted_out_before_they_came_is_hidden_when_they_come(folder: Path) -> None:
    store = RuleStore(folder)
    store.change(add=Rules.of([("2", "60")], ["50", "5"]), remove=store.current())
    live = LiveBundle(Bundle.load(folder), 0, RestingPairs())

    def people(user: str) -> set[str]:
        (answer,) = live.answer([user], Asked(k=50))
        assert answer is not None
        return set(answer.people)

    assert "5" not in people("1") | people("2")
    live.take_in([(0, [events((3, 50, NOW, "call"), (3, 60, NOW, "call"))])])
    assert "50" not in people("1") | people("2")
    assert "60" in people("1")
    assert "60" not in people("2")
    store.change(remove=Rules.of(opted_out=["50"]))
    assert "50" in people("1")


def test_rules_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bundle")
    live = LiveBundle(Bundle.load(folder), 0, RestingPairs())
    (folder / "rules.sqlite").unlink()
    with pytest.raises(DataError, match="all blocks and opt-outs"):
        live.answer(["1"], Asked())
    with pytest.raises(DataError, match="all blocks and opt-outs"):
        live.explain("1", "7", Asked())


def test_many_users_are_looked_up_in_parts(folder: Path) -> None:
    store = RuleStore(folder)
    wanted = Rules.of([(str(one), str(one + 1)) for one in range(0, 3000, 2)])
    store.change(add=wanted, remove=store.current())
    users = [str(one) for one in range(0, 3000, 2)]
    assert Enforcement(Bundle.load(folder).origin).rules(users) == wanted
    assert Enforcement(Bundle.load(folder).origin).rules(["1"]) == Rules.of([("0", "1")])
