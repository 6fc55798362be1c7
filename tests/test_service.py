"""The bundle and the command line: whole or refused, rules honoured, nothing left of the forgotten."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from graphs import Row, graph_of, planted_rows
from tokenizers import TOKENIZERS
from torch import Tensor

from graphrec import Bundle
from graphrec.cli.main import main
from graphrec.data import DataError, EventLog, FriendGraph, Query
from graphrec.models import HEURISTICS, MODELS, build, load_recommender, suggest
from graphrec.service import Rules, export, manifest, suggest_everyone
from graphrec.service.rule_store import RuleStore
from graphrec.tokenizer import GNNRQVAE, RandomCodes, load_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

ROOT = Path(__file__).parents[1]
ROWS = planted_rows(0, groups=3, size=8, events=240)
END = ROWS[-1].time
USERS = 24
RULE = "adamic_adar"


def name(number: int) -> str:
    """A raw id that nothing else looks like."""
    return f"person-{number:02}-zq"


def event_log_of(rows: Sequence[Row], naming: Callable[[int], int | str] = name) -> EventLog:
    src, dst, time, _ = zip(*rows, strict=True)
    return EventLog.from_arrays([naming(one) for one in src], [naming(one) for one in dst], list(time))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.fit(FriendGraph.from_events(event_log_of(ROWS)), model=RULE)


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    bundle.with_rules(Rules()).save(tmp_path / "bundle")  # the shared one keeps its own rules
    return tmp_path / "bundle"


def run(line: str) -> str:
    """What a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main(shlex.split(line)[1:])
    return printed.getvalue()


def holding(folder: Path, wanted: bytes) -> list[str]:
    """The files of a folder with these bytes in them or in their names."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in paths if wanted in path.read_bytes() or wanted in str(path).encode()]


# Recommenders on other graphs and on disk


@pytest.mark.parametrize("kind", HEURISTICS)
def test_a_rule_is_saved_and_moved(kind: str, tmp_path: Path) -> None:
    graph = graph_of(ROWS)
    rule = build(kind).fit(graph, until=END // 2)
    asked = Query.of(graph, torch.arange(USERS), END)
    rule.save(tmp_path)
    again = load_recommender(kind, tmp_path, graph)
    assert torch.equal(again.score(asked), rule.score(asked))
    later = graph.with_events(EventLog.from_arrays([0, 5, 0], [9, 0, 1], [END, END, END + 9]))
    moved = rule.on(later)
    assert moved.graph is later
    assert rule.graph is graph
    assert torch.equal(moved.score(asked), rule.score(asked))  # what is as late as the question is unseen
    if kind != "random":
        assert not torch.equal(moved.score(asked.at(END + 10)), rule.score(asked.at(END + 10)))
    (file,) = tmp_path.iterdir()
    for damage in ("{", "[]", "{}", file.read_text().replace(kind, "else"), '{"name": null}'):
        file.write_text(damage)
        with pytest.raises(DataError, match=file.name):
            load_recommender(kind, tmp_path, graph)


def test_settings_are_saved(tmp_path: Path) -> None:
    graph = graph_of(ROWS)
    rule = HEURISTICS["ppr"](restart=0.5, num_steps=2).fit(graph, until=END)  # type: ignore[call-arg]
    rule.save(tmp_path)
    asked = Query.of(graph, torch.arange(USERS))
    assert torch.equal(load_recommender("ppr", tmp_path, graph).score(asked), rule.score(asked))
    assert not torch.equal(build("ppr").fit(graph, until=END).score(asked), rule.score(asked))


def test_the_registry_builds_what_it_names() -> None:
    assert all(build(kind).name == kind for kind in MODELS)
    with pytest.raises(KeyError, match=r"'best'.*reply_recency"):
        build("best")


def test_a_bundle_holds_a_model_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(HEURISTICS["popularity"]):  # type: ignore[misc]
        name = "own"

    graph = graph_of(ROWS)
    for builder in (Own, lambda: Own()):
        monkeypatch.setitem(MODELS, "own", builder)
        bundle = Bundle.fit(graph, model="own")
        bundle.save(folder := tmp_path / str(builder is Own))
        asked = Query.of(graph, torch.arange(USERS))
        assert torch.equal(Bundle.load(folder).recommender.score(asked), bundle.recommender.score(asked))


# Tokenizers that forget


@pytest.mark.parametrize("kind", [*TOKENIZERS, "gnn"])
def test_a_tokenizer_forgets(kind: str, tmp_path: Path) -> None:
    graph = FriendGraph.from_events(event_log_of(ROWS))
    make = TOKENIZERS.get(kind, lambda: GNNRQVAE(dim=8, max_epochs=1, epoch_batches=2, progress=False))
    tokenizer = make().fit(graph, until=END)
    before = tokenizer.stus(graph).codes
    friend = graph.with_events(EventLog.from_arrays(["new"], [name(20)], [END + 1]))
    tokenizer.save(tmp_path / "before")
    codes = load_tokenizer(tmp_path / "before").encode(friend, ["new"])
    assert holding(tmp_path / "before", name(3).encode())

    tokenizer.forget([name(3), "nobody"])
    left = graph.without([name(3)])
    stays = torch.arange(USERS) != 3
    assert torch.equal(tokenizer.stus(left).codes, before[stays])
    assert (tokenizer.stus(graph).codes[3] == -1).all()
    assert not tokenizer.stus(graph).users_of(before[3:4])[1].numel()
    tokenizer.save(tmp_path / "after")
    assert not holding(tmp_path / "after", name(3).encode())
    # Whoever knows one person alone stands where that person stands: nobody has taken another's place.
    friend = left.with_events(EventLog.from_arrays(["new"], [name(20)], [END + 1]))
    again = load_tokenizer(tmp_path / "after").encode(friend, ["new"])
    if kind.startswith("residual"):
        assert torch.equal(again[:, :2], codes[:, :2])
    assert (again >= 0).all()
    assert (tokenizer.refit(left, until=END + 1).stus(left).codes >= 0).all()


def test_a_tokenizer_is_found_by_its_class(tmp_path: Path) -> None:
    RandomCodes().fit(graph_of(ROWS), until=END).save(tmp_path)
    assert isinstance(load_tokenizer(tmp_path), RandomCodes)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace("RandomCodes", "Mine"))
    with pytest.raises(DataError, match=r"tokenizer\.json.*Mine.*import"):
        load_tokenizer(tmp_path)
    file.write_text("{")
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


# The bundle on disk


def test_a_bundle_comes_back(bundle: Bundle, folder: Path) -> None:
    again = Bundle.load(folder)
    everyone = torch.arange(USERS)
    assert again.suggest(everyone) == bundle.suggest(everyone)
    assert again.suggest(everyone) == suggest(bundle.recommender, everyone)
    assert torch.equal(again.tokenizer.stus(again.graph).codes, bundle.tokenizer.stus(bundle.graph).codes)
    assert torch.equal(again.tree.users, bundle.tree.users)
    assert len(again.tree) == USERS
    assert (again.model, again.until) == ("adamic_adar", END + 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == "graphrec.Bundle"
    assert manifest["format_version"] == 3
    assert manifest["schema"]["actions"] == ["contact"]
    assert len(list(folder.iterdir())) == 4


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        at = {"first": 0, "middle": len(content) // 2, "last": len(content) - 2}[how]
        content[at] ^= 4
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", "truncated", "first", "middle", "last"])
def test_a_damaged_bundle_is_refused(folder: Path, how: str) -> None:
    RuleStore(folder).change(add=Rules.of([(name(1), name(2))], [name(3)]))
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "writer.lock"]
    assert {path.name for path in files} >= {"manifest.json", "graph.pt", "rules.sqlite", "tokenizer.pt"}
    if how in ("first", "middle", "last"):
        files.remove(folder / "rules.sqlite")  # not every byte of it is used
    for path in files:
        whole = path.read_bytes()
        damage(path, how)
        with pytest.raises((DataError, FileNotFoundError), match=re.escape(path.name)):
            Bundle.load(folder)
        path.write_bytes(whole)
    Bundle.load(folder)


def test_damaged_rules_are_never_taken_for_others(folder: Path) -> None:
    """Each bit of the file in turn: either it is unused, or the rules are refused."""
    rules = Rules.of([(name(1), name(2)), ("a", "b")], [name(3)])
    store = RuleStore(folder)
    store.change(add=rules)
    whole, refused = store.path.read_bytes(), 0
    at = np.random.default_rng(0).integers(0, len(whole), 400).tolist()
    used = [place for place in range(len(whole)) if whole[place]]
    for place in [*at, *used[:: max(1, len(used) // 400)]]:
        content = bytearray(whole)
        content[place] ^= 4
        store.path.write_bytes(content)
        found = None
        with contextlib.suppress(DataError):
            found = RuleStore(folder).current()
        assert found in (None, rules)
        refused += found is None
    assert refused > 50
    store.path.write_bytes(b"")
    with pytest.raises(DataError, match=r"rules\.sqlite"):
        store.current()


def test_a_mismatched_bundle_is_refused(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    """Also where the checksums are right: parts of several bundles, put together by hand."""
    other = bundle.add(EventLog.from_arrays(["new"], [name(1)], [END + 1]))
    other.save(tmp_path / "other")
    (inside,), (theirs,) = (
        [path for path in one.iterdir() if path.is_dir()] for one in (folder, tmp_path / "other")
    )
    (inside / "graph.pt").write_bytes((theirs / "graph.pt").read_bytes())
    with pytest.raises(DataError, match=r"graph\.pt.*replaced"):
        Bundle.load(folder)

    said = json.loads((folder / "manifest.json").read_text())
    head = {key: said[key] for key in said if key not in ("files", "folder", "digest")}

    def forged(change: Callable[[Path], object], **said: object) -> Path:
        def fill(inside: Path) -> None:
            bundle._fill(inside)
            change(inside)

        shutil.rmtree(tmp_path / "forged", ignore_errors=True)
        (tmp_path / "forged").mkdir()
        RuleStore(tmp_path / "forged").create()
        manifest.write_version(tmp_path / "forged", head | said, fill)
        return tmp_path / "forged"

    Bundle.load(forged(lambda inside: None))
    cases: list[tuple[str, Callable[[Path], object], dict[str, object]]] = [
        (r"graph\.pt", lambda inside: other.graph.save(inside / "graph.pt"), {}),
        ("tokenizer.*STUs", lambda inside: other.tokenizer.save(inside / "tokenizer"), {}),
        (r"heuristic\.json.*jaccard", lambda inside: None, {"model": "jaccard"}),
        (r"manifest\.json.*'later'", lambda inside: None, {"model": "later"}),
        (r"manifest\.json.*version 4.*version 3", lambda inside: None, {"format_version": 4}),
        (r"manifest\.json", lambda inside: None, {"format": "other"}),
        (r"tokenizer\.json", lambda inside: (inside / "tokenizer" / "tokenizer.json").unlink(), {}),
    ]
    for message, change, said in cases:
        with pytest.raises((DataError, FileNotFoundError), match=message):
            Bundle.load(forged(change, **said))


def test_no_bundle_is_not_a_bundle(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        Bundle.load(tmp_path)
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(DataError, match="other files"):
        bundle.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_whoever_is_killed_while_writing_leaves_the_old(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    changed = Bundle.load(folder).forget(name(3))
    with monkeypatch.context() as at_the_end:
        at_the_end.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            changed.save(folder)
    assert Bundle.load(folder).graph.num_users == USERS
    changed.save(folder)
    assert Bundle.load(folder).graph.num_users == USERS - 1
    assert len(list(folder.iterdir())) == 4
    assert not holding(folder, name(3).encode())


def test_whoever_is_killed_while_forgetting_is_forgotten_the_next_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as at_the_end:
        at_the_end.setattr(Path, "unlink", killed)
        with pytest.raises(SystemExit, match="130"):
            run(f"graphrec forget {folder} {name(3)}")
    assert holding(folder, name(3).encode())
    with pytest.raises(SystemExit, match="unknown"):
        run(f"graphrec forget {folder} {name(3)}")
    assert not holding(folder, name(3).encode())
    assert Bundle.load(folder).graph.num_users == USERS - 1


# More events, fewer people


def test_added_events_count_from_then_on(bundle: Bundle) -> None:
    """Planted at a moment and after it, they are invisible to a question of that moment."""
    log = EventLog.from_arrays([name(0), name(9)], [name(9), name(0)], [END + 5, END + 6])
    more = bundle.add(log)
    everyone = bundle.graph.user_ids.values.to_pylist()
    assert more.suggest(everyone, time=END + 5) == bundle.suggest(everyone, time=END + 5)
    assert more.suggest(everyone, k=USERS) != bundle.suggest(everyone, k=USERS)
    assert name(9) not in more.suggest([name(0)], k=USERS)[0].people
    assert bundle.graph.num_events == len(ROWS) == more.graph.num_events - 2


def test_newcomers_are_welcome(bundle: Bundle) -> None:
    more = bundle.add(EventLog.from_arrays(["new", name(2)], [name(1), "new"], [END + 5, END + 7]))
    stus = more.tokenizer.stus(more.graph)
    assert bool(stus.has().all())
    assert len(stus.codes.unique(dim=0)) == USERS + 1 == len(more.tree)
    old = more.graph.user_ids.index(bundle.graph.user_ids.values.to_pylist())
    assert torch.equal(stus.codes[old], bundle.tokenizer.stus(bundle.graph).codes)
    (given,) = more.suggest(["new"], k=5)
    assert len(given.people) == 5
    assert any("new" in shown.people for shown in more.suggest(torch.arange(USERS + 1), k=USERS))
    assert len(bundle.tree) == USERS


@pytest.mark.parametrize("kind", ["text", "number"])
def test_nothing_is_left_of_the_forgotten(kind: str, tmp_path: Path) -> None:
    naming: Callable[[int], int | str] = (
        name if kind == "text" else lambda number: 7_000_000_001_234_567 + number
    )
    gone = naming(3)
    traces = [str(gone).encode()]
    if isinstance(gone, int):
        traces.append(np.int64(gone).tobytes())
    bundle = Bundle.fit(FriendGraph.from_events(event_log_of(ROWS, naming)), model=RULE)
    rules = Rules.of([(gone, naming(4)), (naming(5), naming(6))], [gone, naming(7)])
    bundle.with_rules(rules).save(tmp_path / "bundle")
    assert all(holding(tmp_path, trace) for trace in traces)

    run(f"graphrec forget {tmp_path / 'bundle'} {gone}")
    assert not any(holding(tmp_path, trace) for trace in traces)
    assert holding(tmp_path, str(naming(4)).encode() if kind == "text" else np.int64(naming(4)).tobytes())
    left = Bundle.load(tmp_path / "bundle")
    assert left.graph.num_users == len(left.tree) == len(left.tokenizer.table) == USERS - 1
    assert left.rules == Rules.of([(naming(5), naming(6))], [naming(7)])
    for given in left.suggest(torch.arange(USERS - 1), k=USERS):
        assert gone not in given.people
    with pytest.raises(KeyError, match=str(gone)):
        left.suggest([gone])
    with pytest.raises(KeyError, match=str(gone)):
        left.forget(gone)
    fresh = Bundle.fit(graph_without(gone, naming), model=RULE).suggest(torch.arange(USERS - 1))
    assert [given.people for given in fresh] == [
        given.people for given in left.with_rules(Rules()).suggest(torch.arange(USERS - 1))
    ]
    back = left.add(event_log_of(ROWS[:50], naming))
    assert bool(back.tokenizer.stus(back.graph).has().all())


def graph_without(gone: int | str, naming: Callable[[int], int | str]) -> FriendGraph:
    rows = [row for row in ROWS if gone not in (naming(row.src), naming(row.dst))]
    return FriendGraph.from_events(event_log_of(rows, naming))


def test_the_last_ones_cannot_be_forgotten() -> None:
    pair = Bundle.fit(
        FriendGraph.from_events(EventLog.from_arrays(["a", "b"], ["b", "a"], [1, 2])),
        model=RULE,
        tokenizer=RandomCodes(),
    )
    with pytest.raises(DataError, match="no event would be left"):
        pair.forget("a")


# Rules


def test_rules_are_honoured(bundle: Bundle) -> None:
    everyone = torch.arange(USERS)
    free = {given.user: given.people for given in bundle.suggest(everyone, k=USERS)}
    user = name(0)
    other, away = free[user][:2]
    rules = Rules.of([(other, user), ("stranger", user)], [away, "somebody"])
    ruled = bundle.with_rules(rules)
    for given in ruled.suggest(everyone, k=USERS):
        barred = {away, {user: other, other: user}.get(str(given.user))}
        assert given.people == [person for person in free[given.user] if person not in barred]
    assert len(ruled.suggest([away])[0].people) == 10  # who opted out may still ask
    with pytest.raises(ValueError, match="two people"):
        rules.block("a", "a")
    assert rules.unblock(user, other).opt_in(away) == Rules.of([("stranger", user)], ["somebody"])


def test_whom_only_rules_name_can_be_forgotten(bundle: Bundle) -> None:
    ruled = bundle.with_rules(Rules.of([("stranger", name(1))], ["stranger", name(2)]))
    assert ruled.forget("stranger").rules == Rules.of(opted_out=[name(2)])
    assert ruled.forget("stranger").graph is bundle.graph
    with pytest.raises(KeyError, match="'stranger'"):
        bundle.forget("stranger")


def test_suggest_knows_who_opted_out(bundle: Bundle) -> None:
    first = suggest(bundle.recommender, [name(0)], k=3)[0].people
    assert first[0] not in suggest(bundle.recommender, [name(0)], k=3, opted_out=first[:1])[0].people
    with pytest.raises(KeyError, match="'zoe'"):
        suggest(bundle.recommender, [name(0)], opted_out=["zoe"])


def test_rules_outlive_a_refit(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    events = written(tmp_path / "events.parquet", ROWS)
    run(f"graphrec block {folder} {name(1)} {name(2)}")
    run(f"graphrec opt-out {folder} {name(3)}")
    rules = Rules.of([(name(1), name(2))], [name(3)])
    assert RuleStore(folder).current() == Bundle.load(folder).rules == rules
    run(f"graphrec fit {events} --out {folder} --model jaccard")
    assert Bundle.load(folder).rules == rules
    assert Bundle.load(folder).model == "jaccard"
    run(f"graphrec block {folder} {name(2)} {name(1)} --undo")
    run(f"graphrec opt-out {folder} {name(3)} --undo")
    assert Bundle.load(folder).rules == Rules()


# Everybody, in parts


def written(path: Path, rows: Sequence[Row]) -> Path:
    src, dst, time, _ = zip(*rows, strict=True)
    columns = {"src": [name(one) for one in src], "dst": [name(one) for one in dst], "timestamp": list(time)}
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "USERS_PER_PART", 5)


@pytest.mark.usefixtures("small_parts")
def test_everybody_gets_what_one_would_get(folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(folder).with_rules(Rules.of([(name(0), name(1))], [name(2)]))
    suggest_everyone(bundle, tmp_path / "all.parquet", k=4)
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    expected = [
        {"user": given.user, "rank": rank, "person": person, "score": score}
        for given in bundle.suggest(torch.arange(USERS), k=4)
        for rank, (person, score) in enumerate(zip(given.people, given.scores, strict=True), 1)
    ]
    assert rows == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet", "bundle"]


KILLED = """
import os, signal, sys
from graphrec.service import export
from graphrec.cli.main import main

export.USERS_PER_PART, parts, table = 5, [], export._table

def last(*given):
    parts.append(1)
    if len(parts) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return table(*given)

export._table = last
main(sys.argv[1:])
"""


@pytest.mark.usefixtures("small_parts")
def test_a_killed_batch_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"recommend {folder} --all -k 4 --out {tmp_path}/killed.parquet"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", KILLED, *line.split()], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    parts = tmp_path / "killed.parquet.parts"
    finished = {path: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert len(finished) == 2
    assert not (tmp_path / "killed.parquet").exists()

    made: list[int] = []
    table = export._table

    def counted(bundle: Bundle, query: Query, k: int) -> object:
        made.append(len(query))
        return table(bundle, query, k)

    monkeypatch.setattr(export, "_table", counted)
    run(f"graphrec {line}")
    assert made == [5, 5, 4]
    assert not parts.exists()
    suggest_everyone(Bundle.load(folder), tmp_path / "whole.parquet", k=4)
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "killed.parquet").read_bytes()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("change", ["k", "bundle", "unsaved"])
def test_parts_of_another_job_do_not_count(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path, table = tmp_path / "all.parquet", export._table
    before = Bundle.load(folder)

    def interrupted(bundle: Bundle, query: Query, k: int) -> object:
        if int(query.user[0]) > 9:
            raise KeyboardInterrupt
        return table(bundle, query, k)

    monkeypatch.setattr(export, "_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        suggest_everyone(before, path, k=4)
    monkeypatch.setattr(export, "_table", table)
    k, now = (5 if change == "k" else 4), before
    if change != "k":
        now = before.with_rules(Rules.of(opted_out=before.suggest([name(0)])[0].people[:1]))
        assert not now.digest
    if change == "bundle":
        now.save(folder)
        now = Bundle.load(folder)
        assert now.digest != before.digest
    suggest_everyone(now, path, k=k)
    first = pq.read_table(path).to_pylist()[:k]
    assert [row["person"] for row in first] == now.suggest([name(0)], k=k)[0].people


# The command line


def test_from_log_to_suggestions(tmp_path: Path) -> None:
    half = len(ROWS) // 2
    events, later = written(tmp_path / "a.parquet", ROWS[:half]), written(tmp_path / "b.parquet", ROWS[half:])
    bundle = tmp_path / "bundle"
    assert f"{half} events, popularity" in run(f"graphrec fit {events} --out {bundle} --model popularity")
    lines = run(f"graphrec recommend {bundle} --user {name(1)} {name(2)} -k 3").splitlines()
    assert [line.split("\t")[0] for line in lines] == [name(1)] * 3 + [name(2)] * 3
    given = Bundle.load(bundle).suggest([name(1)], k=3)[0]
    assert [line.split("\t")[1] for line in lines[:3]] == given.people
    shown = run(f"graphrec evaluate {bundle} {later}")
    assert "new" in shown
    assert "tie P@10" in shown
    assert "popularity" in run(f"graphrec evaluate {bundle}")
    assert f"{len(ROWS)} events" in run(f"graphrec add {bundle} {later}")
    whole = Bundle.fit(FriendGraph.from_events(event_log_of(ROWS)), model="popularity")
    added = Bundle.load(bundle)
    assert added.suggest([name(1)]) == whole.suggest([name(1)])
    with pytest.raises(DataError, match="no event is at or after"):
        added.evaluate(event_log_of(ROWS))


def test_later_events_are_judged_as_the_bundle_is(bundle: Bundle) -> None:
    """The rank of the one later event is that among the scores of the bundle just before it."""
    at = END + 50
    found = bundle.evaluate(EventLog.from_arrays([name(0), name(5)], [name(9), name(1)], [at, END]))
    ranks = found.next_acts
    assert ranks.time.tolist() == [at]
    graph = bundle.graph.with_events(EventLog.from_arrays([name(5)], [name(1)], [END]))
    scores: Tensor = bundle.recommender.on(graph).score(Query.of(graph, [name(0)], at))[0]
    scores[0] = -torch.inf
    assert ranks.rank_all.tolist() == [1 + int((scores > scores[9]).sum())]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("recommend {0}/nowhere --user a", "no such file"),
        ("recommend {0}/bundle --user zoe", "'zoe'"),
        ("recommend {0}/bundle --all", "--out"),
        ("recommend {0}/bundle --user person-01-zq -k 0", "k must be at least 1"),
        ("recommend {0}/bundle --user person-01-zq --action wave", "'wave'"),
        ("fit {0}/none.csv --out {0}/new", "none.csv"),
        ("fit {0}/events.parquet --out {0}/new --model best", "'best'"),
        ("fit {0}/events.parquet --out {0}", "other files"),
        ("add {0}/bundle {0}/none.csv", "none.csv"),
        ("forget {0}/bundle zoe", "'zoe'"),
        ("block {0}/bundle a a", "two people"),
    ],
)
def test_what_can_be_mended_is_one_line(line: str, message: str, folder: Path, tmp_path: Path) -> None:
    written(tmp_path / "events.parquet", ROWS)
    with pytest.raises(SystemExit) as left:
        run("graphrec " + line.format(tmp_path))
    assert str(left.value).startswith("graphrec: ")
    assert message in str(left.value)
    assert "\n" not in str(left.value)
    assert Bundle.load(folder).graph.num_users == USERS


def test_the_script_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"graphrec": "graphrec.cli.main:main"}
    assert "graphrec.service" in project["tool"]["setuptools"]["packages"]


# Reasons


def test_reasons_rest_on_nobody_hidden(bundle: Bundle) -> None:
    user = name(0)
    candidate = bundle.suggest([user])[0].people[0]
    assert bundle.explain(user, candidate).sentence
    told = [one for one in range(1, USERS) if name(one) in bundle.explain(user, candidate).sentence]
    others = [one for one in told if name(one) != candidate]
    assert others
    for rules in (Rules.of([(user, name(one)) for one in others]), Rules.of(opted_out=map(name, others))):
        sentence = bundle.with_rules(rules).explain(user, candidate).sentence
        assert not [one for one in others if name(one) in sentence]
    for rules in (Rules.of([(candidate, user), ("stranger", user)]), Rules.of(opted_out=[candidate])):
        with pytest.raises(ValueError, match="suggested"):
            bundle.with_rules(rules).explain(user, candidate)
