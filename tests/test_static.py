"""Friendships without times: split by pairs, judged by the temporal protocol; their data sets."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from graphs import checked
from hypothesis import given
from hypothesis import strategies as st

from graphrec.data import USER, DataError, FriendGraph, Query, TemporalSplit, UserTable
from graphrec.datasets import (
    DeezerHungary,
    FriendDataset,
    LastFMAsia,
    RawFile,
    TwitchGermany,
    load_dataset,
    static_split,
)
from graphrec.evaluate import evaluate_mutual, evaluate_streaming
from graphrec.models import HEURISTICS


def pairs_at(graph: FriendGraph, time: int) -> set[tuple[Any, Any]]:
    """The directed edges of one time, by raw id."""
    events, raw = graph.events(), graph.user_ids.values.to_pylist()
    at = events.time == time
    edges = [(raw[u], raw[v]) for u, v in zip(events.src[at].tolist(), events.dst[at].tolist(), strict=True)]
    assert len(edges) == len(set(edges))
    return set(edges)


def ring(size: int) -> tuple[list[int], list[int]]:
    """A circle of friends, who also know the one after the next."""
    one = [i for i in range(size) for _ in range(2)]
    return one, [(i + 1 + k) % size for i in range(size) for k in range(2)]


def test_pairs_are_split_and_never_edges() -> None:
    one, other = ring(50)
    graph = static_split(one, other)
    assert graph.validate()
    assert graph.actions == ("befriend",)
    parts = [pairs_at(graph, time) for time in range(3)]
    assert [len(part) for part in parts] == [160, 20, 20]
    for part in parts:
        assert part == {(v, u) for u, v in part}
    assert set.union(*parts) == set(zip(one, other, strict=True)) | set(zip(other, one, strict=True))
    assert sum(map(len, parts)) == len(set.union(*parts))
    split = TemporalSplit.of(graph)
    assert (split.t_val, split.t_test) == (1, 2)
    assert (split.num_train, split.num_val, split.num_test) == (160, 20, 20)


@pytest.mark.parametrize("sizes", [range(10, 200), range(9_990, 10_010)])
def test_the_temporal_split_finds_the_parts(sizes: range) -> None:
    for size in sizes:
        graph = static_split([0] * size, range(1, size + 1))
        split = TemporalSplit.of(graph)
        assert (split.t_val, split.t_test) == (1, 2)
        first, second = math.floor(size * 8 / 10), math.floor(size * 9 / 10)
        assert (split.num_train, split.num_val) == (2 * first, 2 * (second - first))


@checked
@given(
    st.sets(st.tuples(st.integers(0, 15), st.integers(0, 15)).filter(lambda p: p[0] < p[1]), min_size=10),
    st.integers(0, 2**63 - 1),
    st.integers(0, 99),
    st.randoms(use_true_random=False),
)
def test_the_draw_depends_on_the_set_of_pairs(
    pairs: set[tuple[int, int]], seed: int, again: int, random: Any
) -> None:
    given_once = sorted(pairs)
    shuffled = [pair if random.random() < 0.5 else pair[::-1] for pair in given_once]
    shuffled += [shuffled[again % len(shuffled)], (3, 3)]  # one pair twice, and a friend of their own
    random.shuffle(shuffled)
    graph = static_split(*zip(*given_once, strict=True), seed=seed)
    other = static_split(*zip(*shuffled, strict=True), seed=seed)
    for time in range(3):
        assert pairs_at(graph, time) == pairs_at(other, time)
    assert (graph.num_self_loops, other.num_self_loops) == (0, 1)


def test_the_seed_decides() -> None:
    one, other = ring(50)
    drawn = [pairs_at(static_split(one, other, seed=seed), 2) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    everywhere = set.union(*(pairs_at(static_split(one, other, seed=seed), 2) for seed in range(60)))
    assert len(everywhere) > 190  # of 200: no pair is spared


def test_users_without_friends_and_features() -> None:
    one, other = ring(12)
    table = pa.table({"user": list(range(14)), "age": list(range(14))})
    graph = static_split(one, other, users=UserTable.from_table(table))
    assert graph.num_users == 14
    assert graph[USER].x.squeeze(1).tolist() == list(range(14))


def test_what_cannot_be_split() -> None:
    with pytest.raises(DataError, match="9 distinct pairs, fewer than the 10"):
        static_split([0] * 10, [*range(1, 10), 1])
    with pytest.raises(DataError, match="2 users on one side, 3 on the other"):
        static_split([1, 2], [1, 2, 3])
    with pytest.raises(DataError, match="row 2, column 'dst': the value is missing"):
        static_split(["a", "b"], ["b", None])


@pytest.mark.parametrize("name", HEURISTICS)
def test_every_rule_sees_the_earlier_parts_alone(name: str) -> None:
    graph = static_split(*ring(40), seed=3)
    split = TemporalSplit.of(graph)
    model = HEURISTICS[name]().fit(graph, until=split.t_val)
    for part in ("val", "test"):
        rows = {
            row["slice"]: row for row in evaluate_streaming(model, graph, part=part, progress=False).rows()
        }
        assert rows["new"]["n"] == rows["all"]["n"] == len(split.event_ids(part))
        assert 0 < rows["new"]["mrr"] <= 1
    mutual = evaluate_mutual(model, graph, progress=False)[0]
    assert (mutual["slice"], mutual["n"]) == ("mutual", split.num_test // 2)
    # The same scores once the queries' own part and what follows it has gone.
    for time in (1, 2):
        past = static_split(*ring(40), seed=3).snapshot(time)
        query = Query.of(graph, torch.arange(40), time=time)
        alone = HEURISTICS[name]().fit(past, until=split.t_val)
        assert torch.equal(model.score(query), alone.score(query))


def test_common_friends_find_the_held_out() -> None:
    graph = static_split(*ring(60))
    found = {}
    for name in ("random", "common_neighbors"):
        model = HEURISTICS[name]().fit(graph, until=1)
        found[name] = evaluate_streaming(model, graph, progress=False).rows()[0]["mrr"]
    assert found["common_neighbors"] > 0.2 > found["random"]


def small(dataset: type[FriendDataset], files: dict[str, bytes], web: Path) -> type[FriendDataset]:
    """The same data set with other files, published in an archive."""
    web.mkdir()
    archive = dataset.files[0].source.rpartition("/")[2]
    if archive.endswith(".zip"):
        with zipfile.ZipFile(web / archive, "w") as out:
            out.writestr("README.txt", "about the files")
            for name, text in files.items():
                out.writestr(f"folder/renamed_{name}", text)
    else:
        with tarfile.open(web / archive, "w:gz") as out:
            out.addfile(folder := tarfile.TarInfo("folder"))
            folder.type = tarfile.DIRTYPE
            for name, text in files.items():
                member = tarfile.TarInfo(f"folder/renamed_{name}")
                member.size = len(text)
                out.addfile(member, io.BytesIO(text))
    raw = tuple(
        RawFile(
            file.path,
            hashlib.sha256(files[file.name]).hexdigest(),
            f"file://{web / archive}",
            archive=True,
        )
        for file in dataset.files
    )
    users = max(
        int(text) for line in files[raw[0].name].decode().splitlines()[1:] for text in line.split(",")
    )
    pairs = len(files[raw[0].name].splitlines()) - 1
    body = {"files": raw, "expected_users": users + 1, "expected_events": {"befriend": 2 * pairs}}
    return type(f"Small{dataset.__name__}", (dataset,), body)


def edges(header: str) -> bytes:
    one, other = ring(10)
    return "\n".join([header, *(f"{u},{v}" for u, v in zip(one, other, strict=True))]).encode()


GENRES = {str(i): ["Pop", "Rap/Hip Hop"] if i % 2 else ["Jazz"] for i in reversed(range(10))}
PLAYED = {str(i): [3, 20, 3] if i < 4 else [100] for i in range(10)}
CHANNELS = "id,days,mature,views,partner,new_id\n" + "".join(
    f"{100 + i},{10 * i},{i < 5},{i**3},{i == 0},{i}\n" for i in reversed(range(10))
)
SMALL: dict[str, tuple[type[FriendDataset], dict[str, bytes], list[str], list[list[float]]]] = {
    "Deezer": (
        DeezerHungary,
        {"HU_edges.csv": edges("node_1,node_2"), "HU_genres.json": json.dumps(GENRES).encode()},
        ["genre=Jazz", "genre=Pop", "genre=Rap/Hip Hop"],
        [[0, 1, 1] if i % 2 else [1, 0, 0] for i in range(10)],
    ),
    "LastFM": (
        LastFMAsia,
        {
            "lastfm_asia_edges.csv": edges("node_1,node_2"),
            "lastfm_asia_target.csv": b"id,target\n"
            + b"".join(b"%d,%d\n" % (i, 2 + 9 * (i % 2)) for i in range(10)),
        },
        ["country=2", "country=11"],
        [[0, 1] if i % 2 else [1, 0] for i in range(10)],
    ),
    "Twitch": (
        TwitchGermany,
        {
            "DE_edges.csv": edges("from,to"),
            "DE_target.csv": CHANNELS.encode(),
            "DE_features.json": json.dumps(PLAYED).encode(),
        },
        ["days", "mature", "views", "partner", "feature=3", "feature=20", "feature=100"],
        [[10 * i, i < 5, i**3, i == 0, *([1, 1, 0] if i < 4 else [0, 0, 1])] for i in range(10)],
    ),
}


@pytest.mark.parametrize("way", ["archive", "mirror", "packed mirror"])
@pytest.mark.parametrize("name", SMALL)
def test_small_files_of_the_same_form(name: str, way: str, tmp_path: Path) -> None:
    dataset, files, features, x = SMALL[name]
    kind = small(dataset, files, tmp_path / "web")
    mirror = tmp_path / "mirror"
    if way != "archive":
        for path in (tmp_path / "web").iterdir():
            path.unlink()
        for file in kind.files:
            (place := mirror / file.path).parent.mkdir(parents=True, exist_ok=True)
            text = files[file.name]
            if way == "mirror":
                place.write_bytes(text)
            else:
                place.with_name(f"{file.name}.gz").write_bytes(gzip.compress(text))
    data: Any = kind(tmp_path / "root", mirror=mirror)
    graph = data[0]
    assert (graph.num_users, graph.num_events) == (10, 40)
    assert graph.feature_names == features
    assert graph[USER].x.tolist() == x
    assert pairs_at(graph, 2) == pairs_at(static_split(*ring(10)), 2)
    assert {path.name for path in (tmp_path / "root" / "raw").iterdir()} == files.keys()


def test_a_seed_has_its_own_file(tmp_path: Path) -> None:
    kind: Any = small(*SMALL["LastFM"][:2], tmp_path / "web")
    drawn = [pairs_at(kind(tmp_path / "root", seed=seed)[0], 2) for seed in (0, 1, 2, 0)]
    assert drawn[0] == drawn[3]
    assert len({frozenset(part) for part in drawn}) > 1
    assert len(list((tmp_path / "root" / "processed").glob("graph-*.pt"))) == 3


@pytest.mark.parametrize("fault", ["another file", "no archive", "broken archive"])
@pytest.mark.parametrize("name", ["Deezer", "LastFM"])
def test_an_archive_that_does_not_have_the_file(name: str, fault: str, tmp_path: Path) -> None:
    dataset, files, _, _ = SMALL[name]
    kind = small(dataset, files, tmp_path / "web")
    path = next((tmp_path / "web").iterdir())
    if fault == "another file":
        kind.files = (RawFile(kind.files[0].path, "0" * 64, kind.files[0].source, archive=True),)
        expected = r"no file in this archive has the SHA-256 0000"
    else:
        path.write_bytes(path.read_bytes()[:60] if fault == "broken archive" else b"<html>not found</html>")
        expected = r"could not be obtained"
    with pytest.raises(DataError, match=expected) as caught:
        kind(tmp_path / "root", mirror=tmp_path / "nowhere")
    assert f"take {kind.files[0].name} from the archive file://" in str(caught.value)
    assert list((tmp_path / "root" / "raw").iterdir()) == []


REAL = {  # friendships, features, one feature and how many users have it
    DeezerHungary: (222_887, 84, "genre=Alternative", 17_585),
    LastFMAsia: (27_806, 18, "country=17", 1_572),
    TwitchGermany: (153_138, 2_518, "partner", 597),
}


@pytest.mark.parametrize("dataset", REAL)
def test_the_published_files(
    dataset: type[FriendDataset], mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHREC_HOME", str(tmp_path))
    friendships, width, feature, having = REAL[dataset]
    if not any((mirror / f"{dataset.files[0].path}{end}").is_file() for end in ("", ".gz")):
        pytest.skip(f"the mirror does not have {dataset.files[0].path}")
    graph = load_dataset(dataset.name, mirror=mirror)
    assert graph.num_users == dataset.expected_users
    assert graph.num_events == 2 * friendships
    assert graph[USER].x.shape == (dataset.expected_users, width)
    assert graph[USER].x[:, graph.feature_names.index(feature)].sum() == having
    events = graph.events()
    assert len(torch.cat([events.src, events.dst]).unique()) == graph.num_users
    forth, back = (
        (events.time * graph.num_users + one) * graph.num_users + other
        for one, other in ((events.src, events.dst), (events.dst, events.src))
    )
    assert torch.equal(forth.sort().values, back.sort().values)
