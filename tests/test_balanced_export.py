"""Files of balanced lists: the lists of `balanced_topk`, whatever the parts; resumed; within all rules."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from graphs import Row
from test_service import event_log_of, name, run

from graphrec import Bundle, FriendGraph
from graphrec.data import Query
from graphrec.models import ListRanker, WindowConfig, balanced_topk, query_for
from graphrec.service import Rules, change_rules, export, suggest_everyone
from graphrec.service.balancing import num_candidates
from graphrec.tokenizer import RandomCodes

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

USERS, K = 40, 3


def acts() -> list[Row]:
    """Everybody turns to a few people more than to others, and some of these reply."""
    generator = torch.Generator().manual_seed(5)
    src = torch.randint(USERS, (500,), generator=generator)
    dst = (torch.rand(500, generator=generator) ** 2 * USERS).long()
    pairs = [(int(a), int(b)) for a, b in zip(src, dst, strict=True) if a != b]
    return [Row(*(pair if at % 3 else pair[::-1]), 100 * at, "text") for at, pair in enumerate(pairs)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = acts()
    plain = Bundle.fit(
        FriendGraph.from_events(event_log_of(rows)), model="popularity", tokenizer=RandomCodes()
    )
    ranker = ListRanker("initiation", WindowConfig(hidden_channels=8, max_epochs=2))
    ranker.fit(plain.graph, until=plain.until)
    folder = tmp_path_factory.mktemp("balanced") / "bundle"
    replace(plain, recommender=ranker, model="list_ranker").save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "bundle"))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "USERS_PER_PART", 7)


def everyone(bundle: Bundle, path: Path, **more: Any) -> list[dict[str, Any]]:
    suggest_everyone(bundle, path, k=K, progress=False, **more)
    return rounded(pq.read_table(path).to_pylist())


def rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last digits of a score depend on who else is scored beside."""
    return [row | {"score": pytest.approx(row["score"], abs=1e-5)} for row in rows]


def plain_rows(bundle: Bundle, **question: Any) -> list[dict[str, Any]]:
    return [
        {"user": given.user, "rank": rank, "person": person, "score": score}
        for given in bundle.suggest(torch.arange(USERS), k=K, **question)
        for rank, (person, score) in enumerate(zip(given.people, given.scores, strict=True), 1)
    ]


def test_the_lists_are_balanced_over_all_parts(folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(folder)
    rows = everyone(bundle, tmp_path / "all.parquet")
    people, scores = bundle.suggested(query_for(bundle.recommender, torch.arange(USERS)), 5 * K)
    lists = balanced_topk(people, scores.exp(), k=K)
    expected = [
        {
            "user": bundle.graph.user_ids.lookup([user])[0],
            "rank": rank,
            "person": bundle.graph.user_ids.lookup([person])[0],
            "score": float(scores[user][people[user] == person]),
        }
        for user in range(USERS)
        for rank, person in enumerate(lists[user].tolist(), 1)
    ]
    assert rows == expected
    most = max(Counter(row["person"] for row in rows).values())
    assert most < max(Counter(row["person"] for row in plain_rows(bundle)).values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet", "bundle"]


def test_the_highest_scores_without_a_balance(folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(folder)
    assert everyone(bundle, tmp_path / "plain.parquet", balance=False) == plain_rows(bundle)
    # Scores of the next act do not compare across users.
    assert everyone(bundle, tmp_path / "now.parquet", now=True) == plain_rows(bundle, now=True)
    assert everyone(bundle, tmp_path / "all.parquet") != plain_rows(bundle)
    run(f"graphrec recommend {folder} --all -k {K} --no-balance --out {tmp_path}/line.parquet")
    assert (tmp_path / "line.parquet").read_bytes() == (tmp_path / "plain.parquet").read_bytes()
    run(f"graphrec recommend {folder} --all -k {K} --out {tmp_path}/line.parquet")
    assert (tmp_path / "line.parquet").read_bytes() == (tmp_path / "all.parquet").read_bytes()


def test_an_interrupted_balance_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, table, made = Bundle.load(folder), export._table, []
    everyone(bundle, tmp_path / "whole.parquet")

    def interrupted(given: Bundle, query: Query, k: int) -> object:
        if int(query.user[0]) > 20:
            raise KeyboardInterrupt
        return table(given, query, k)

    def counted(given: Bundle, query: Query, k: int) -> object:
        made.append(k)
        return table(given, query, k)

    monkeypatch.setattr(export, "_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        everyone(bundle, tmp_path / "again.parquet")
    monkeypatch.setattr(export, "_table", counted)
    everyone(bundle, tmp_path / "again.parquet")
    assert made == [5 * K] * 3
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_parts_with_candidates_are_not_those_of_plain_lists(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, join = Bundle.load(folder), export._joined

    def interrupted(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_joined", interrupted)
    with pytest.raises(KeyboardInterrupt):
        everyone(bundle, tmp_path / "all.parquet")
    monkeypatch.setattr(export, "_joined", join)
    assert everyone(bundle, tmp_path / "all.parquet", balance=False) == plain_rows(bundle)


@pytest.mark.parametrize("when", ["in the parts", "in the balance"])
def test_rules_made_meanwhile_hold(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    bundle = Bundle.load(folder)
    before = everyone(bundle, tmp_path / "before.parquet")
    hidden = Counter(row["person"] for row in before).most_common(1)[0][0]
    user, blocked = next((row["user"], row["person"]) for row in before if row["person"] != hidden)
    place = "_table" if when == "in the parts" else "balanced_rows"
    original = getattr(export, place)

    def meanwhile(*given: Any) -> object:
        found = original(*given)
        change_rules(folder, add=Rules.of([(user, blocked)], [hidden]))
        return found

    monkeypatch.setattr(export, place, meanwhile)
    after = everyone(bundle, tmp_path / "after.parquet")
    assert hidden not in {row["person"] for row in after}
    assert not [row for row in after if {row["user"], row["person"]} == {user, blocked}]
    ranks: dict[str, list[int]] = {}
    for row in after:
        ranks.setdefault(row["user"], []).append(row["rank"])
    assert all(found == list(range(1, len(found) + 1)) for found in ranks.values())
    filled = [len(found) == K for found in ranks.values()]
    assert all(filled) == (when == "in the parts")  # the next candidates take the places, if there is time


def test_the_forgotten_get_no_balanced_lists(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, table = Bundle.load(folder), export._table

    def slowly(*given: Any) -> object:
        found = table(*given)
        if name(3) in Bundle.load(folder).graph.user_ids.values.to_pylist():
            Bundle.update(folder, lambda held: held.forget(name(3)))
        return found

    monkeypatch.setattr(export, "_table", slowly)
    rows = everyone(bundle, tmp_path / "all.parquet")
    assert not [row for row in rows if name(3) in (row["user"], row["person"])]
    assert Counter(row["user"] for row in rows) == dict.fromkeys((row["user"] for row in rows), K)


def test_the_number_of_candidates_is_bounded() -> None:
    assert [num_candidates(k) for k in (1, 10, 20, 30, 100, 1000)] == [5, 50, 100, 100, 100, 1000]


def test_no_balance_needs_a_file(folder: Path) -> None:
    with pytest.raises(SystemExit, match="--no-balance needs --all"):
        run(f"graphrec recommend {folder} --user {name(0)} --no-balance")
