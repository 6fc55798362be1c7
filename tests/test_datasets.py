"""The public data sets: what they hold, and how their files are found and trusted."""

import gzip
import hashlib
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_geometric.transforms as T

from graphrec.data import USER, DataError, FriendGraph, TemporalSplit
from graphrec.datasets import (
    DATASETS,
    AskUbuntu,
    CollegeMsg,
    CopenhagenNetworks,
    DeezerHungary,
    EmailEuCore,
    FriendDataset,
    LastFMAsia,
    MathOverflow,
    RawFile,
    TwitchGermany,
    load_dataset,
    raw,
)
from graphrec.datasets.snap import SnapDataset

BUNDLE = Path(__file__).parents[1] / "datasets"


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHREC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GRAPHREC_MIRROR", raising=False)


def counts(graph: FriendGraph) -> dict[str, int]:
    return {action: graph[USER, action, USER].num_edges for action in graph.actions}


def num_active(graph: FriendGraph) -> int:
    events = graph.events()
    return len(torch.cat([events.src, events.dst]).unique())


def num_pairs(graph: FriendGraph) -> int:
    events = graph.events()
    return len(torch.stack([events.src, events.dst]).unique(dim=1).T)


def days(graph: FriendGraph) -> float:
    time = graph.events().time
    return round(int(time[-1] - time[0]) / 86_400, 1)


def test_mathoverflow(tmp_path: Path) -> None:
    graph = MathOverflow(tmp_path)[0]
    assert type(graph) is FriendGraph
    assert graph.validate()
    assert (graph.num_users, num_active(graph), graph.num_self_loops) == (24_818, 24_759, 116_109)
    assert counts(graph) == {"answer": 104_138, "comment_answer": 139_654, "comment_question": 146_649}
    assert (graph.num_events, num_pairs(graph), days(graph)) == (390_441, 227_991, 2350.3)
    split = TemporalSplit.of(graph)
    assert (split.num_train, split.num_val, split.num_test) == (312_352, 39_044, 39_045)


def test_copenhagen(tmp_path: Path) -> None:
    graph = CopenhagenNetworks(tmp_path)[0]
    assert graph.validate()
    assert (graph.num_users, num_active(graph), graph.num_self_loops) == (844, 608, 0)
    assert counts(graph) == {"sms": 24_333, "call": 3_234, "missed_call": 366}
    assert (graph.num_events, num_pairs(graph), days(graph)) == (27_933, 1_556, 28.0)

    friends = graph[USER, "facebook_friend", USER]
    assert list(friends.keys()) == ["edge_index"]
    assert friends.num_edges == 2 * 6_418
    assert len(friends.edge_index.unique()) == 800
    assert not (friends.edge_index[0] == friends.edge_index[1]).any()

    assert graph.feature_names == ["female", "female_missing"]
    assert graph[USER].x.sum(0).tolist() == [173, 844 - 787]
    people = graph.user_ids.index([0, 1, 6])  # in genders.csv "0,0", no line, and "6,1"
    assert graph[USER].x[people].tolist() == [[0, 0], [0, 1], [1, 0]]


def test_collegemsg(mirror: Path, tmp_path: Path) -> None:
    graph = CollegeMsg(tmp_path, mirror=mirror)[0]
    assert (graph.num_users, num_active(graph), graph.num_self_loops) == (1_899, 1_899, 0)
    assert counts(graph) == {"message": 59_835}
    assert (num_pairs(graph), days(graph)) == (20_296, 193.7)


def test_email_eu_core(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHREC_MIRROR", str(mirror))
    graph = load_dataset("email_eu-core")
    assert (graph.num_users, num_active(graph), graph.num_self_loops) == (986, 986, 0)
    assert counts(graph) == {"email": 332_334}
    assert (num_pairs(graph), days(graph)) == (24_929, 803.9)


def test_askubuntu(mirror: Path, tmp_path: Path) -> None:
    if not (mirror / AskUbuntu.files[0].path).is_file():
        pytest.skip(f"the mirror does not have {AskUbuntu.files[0].path}")
    graph = AskUbuntu(tmp_path, mirror=mirror)[0]
    assert (graph.num_users, num_active(graph), graph.num_self_loops) == (137_517, 134_035, 22_797)
    assert counts(graph) == {"answer": 257_305}
    assert (num_pairs(graph), days(graph)) == (247_253, 2613.8)


def test_names(tmp_path: Path) -> None:
    assert set(DATASETS.values()) >= {
        CollegeMsg,
        EmailEuCore,
        MathOverflow,
        CopenhagenNetworks,
        AskUbuntu,
        DeezerHungary,
        LastFMAsia,
        TwitchGermany,
    }
    for name in ("Copenhagen", "copenhagen-networks", "COPENHAGENNETWORKS"):
        assert load_dataset(name).num_users == 844
    assert len(list((tmp_path / "home/CopenhagenNetworks/processed").glob("graph-*.pt"))) == 1
    with pytest.raises(
        KeyError, match="'nowhere'; known are CollegeMsg, Email-Eu-core, MathOverflow, Copenhagen"
    ):
        load_dataset("nowhere")


@pytest.mark.parametrize("dataset", DATASETS.values())
def test_cards_say_what_the_classes_say(dataset: type[FriendDataset]) -> None:
    card = (BUNDLE / f"{dataset.__name__}.md").read_text()
    stated = [dataset.source, f"{dataset.expected_users:,}", f'load_dataset("{dataset.name}")']
    stated += [f"{events:,}" for events in dataset.expected_events.values()]
    stated += [f"`{action}`" for action in dataset.expected_events]
    stated += [text for file in dataset.files for text in (file.sha256, file.path)]
    stated += [dataset.citation.rpartition(" ")[2], dataset.license_terms.partition(",")[0].partition(":")[0]]
    assert [text for text in stated if text not in card] == []


def test_bundled_files_are_those_published() -> None:
    bundled = {str(path.relative_to(BUNDLE)): path for path in BUNDLE.glob("*/*")}
    files = {file.path: file for file in MathOverflow.files + CopenhagenNetworks.files}
    assert bundled.keys() == files.keys()
    for path, file in files.items():
        assert hashlib.sha256(bundled[path].read_bytes()).hexdigest() == file.sha256


CONTENT = gzip.compress(b"1 2 10\n2 1 20\n3 3 20\n1 2 30\n4 1 30\n", mtime=0)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The original address of a small data set, as a folder."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "tiny.txt.gz").write_bytes(CONTENT)
    return tmp_path / "web"


@pytest.fixture
def tiny(published: Path) -> type[FriendDataset]:
    class Tiny(SnapDataset):
        name = "Tiny"
        files = (
            RawFile(
                "snap/tiny.txt.gz", hashlib.sha256(CONTENT).hexdigest(), f"file://{published}/tiny.txt.gz"
            ),
        )
        expected_users = 4
        expected_events = {"wave": 4}  # noqa: RUF012

    return Tiny


def fill_mirror(folder: Path, content: bytes = CONTENT) -> Path:
    (folder / "snap").mkdir(parents=True)
    (folder / "snap" / "tiny.txt.gz").write_bytes(content)
    return folder


def no_leftovers(folder: Path) -> bool:
    return not list(folder.rglob("*.part"))


def test_from_the_original_address(tiny: type[FriendDataset], tmp_path: Path) -> None:
    dataset = tiny()
    assert Path(dataset.raw_dir) == tmp_path / "home/Tiny/raw"
    assert len(dataset) == 1
    graph = dataset[0]
    assert (graph.num_users, graph.num_events, graph.num_self_loops) == (4, 4, 1)
    assert no_leftovers(tmp_path)


@pytest.mark.parametrize("way", ["folder", "url", "environment"])
def test_from_a_mirror(
    tiny: type[FriendDataset], published: Path, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(published)
    mirror = fill_mirror(tmp_path / "mirror")
    if way == "environment":
        monkeypatch.setenv("GRAPHREC_MIRROR", f"{mirror}/")
        dataset = tiny()
    else:
        dataset = tiny(mirror=mirror if way == "folder" else f"file://{mirror}/")
    assert dataset[0].num_users == 4


def test_the_mirror_comes_first_and_what_it_spoils_is_not_used(
    tiny: type[FriendDataset], published: Path, tmp_path: Path
) -> None:
    mirror = fill_mirror(tmp_path / "mirror")
    (published / "tiny.txt.gz").write_bytes(b"spoilt")
    assert tiny(tmp_path / "one", mirror=mirror)[0].num_users == 4
    (published / "tiny.txt.gz").write_bytes(CONTENT)
    spoilt = fill_mirror(tmp_path / "spoilt", CONTENT[:-1])
    assert tiny(tmp_path / "two", mirror=spoilt)[0].num_users == 4  # the original address has the true one


def test_a_file_that_no_place_has(tiny: type[FriendDataset], published: Path, tmp_path: Path) -> None:
    (published / "tiny.txt.gz").write_bytes(b"spoilt")
    with pytest.raises(DataError) as caught:
        tiny(tmp_path / "root", mirror=tmp_path / "nothing")
    message = str(caught.value)
    file = tiny.files[0]
    for part in (
        "tiny.txt.gz could not be obtained",
        f"{tmp_path}/nothing/snap/tiny.txt.gz ([Errno 2]",
        f"{file.source} (the SHA-256 is {hashlib.sha256(b'spoilt').hexdigest()}, expected {file.sha256})",
        f"put it at {tmp_path}/root/raw/tiny.txt.gz",
        "holds snap/tiny.txt.gz, by the argument `mirror` or the environment variable GRAPHREC_MIRROR",
    ):
        assert part in message
    assert list((tmp_path / "root" / "raw").iterdir()) == []


def test_a_file_without_an_address_of_its_own(tmp_path: Path) -> None:
    file = RawFile("none/there.csv", "0" * 64, "https://example.org/page", downloadable=False)
    with pytest.raises(DataError, match=r"take there\.csv from https://example\.org/page"):
        file.fetch(tmp_path)


def test_a_file_put_there_by_hand(tiny: type[FriendDataset], published: Path, tmp_path: Path) -> None:
    shutil.rmtree(published)
    place = tmp_path / "root/raw/tiny.txt.gz"
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert tiny(tmp_path / "root")[0].num_users == 4
    place.write_bytes(CONTENT[:-1])
    with pytest.raises(
        DataError, match=r"raw/tiny\.txt\.gz: the SHA-256 is \w+, expected \w+\. Delete it\. To get"
    ):
        tiny(tmp_path / "root", force_reload=True)


class Interrupted:
    """A stream whose reader is interrupted half-way."""

    def __enter__(self) -> "Interrupted":
        self.parts: Iterator[bytes] = iter([CONTENT[:20]])
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, size: int = -1) -> bytes:
        for part in self.parts:
            return part
        raise KeyboardInterrupt


def test_an_interrupted_download_leaves_nothing(
    tiny: type[FriendDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(raw, "_open", lambda place: Interrupted())
        with pytest.raises(KeyboardInterrupt):
            tiny(tmp_path / "root")
    assert list((tmp_path / "root" / "raw").iterdir()) == []
    assert tiny(tmp_path / "root")[0].num_users == 4


def test_bundled_files_of_a_wheel(
    tiny: type[FriendDataset], published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(published)
    fill_mirror(tmp_path / "site" / "graphrec" / "bundled")
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path / "site" / package)
    assert tiny()[0].num_users == 4


def test_counts_are_verified(tiny: type[FriendDataset], tmp_path: Path) -> None:
    tiny.expected_users = 5
    with pytest.raises(DataError, match=r"Tiny: 4 users and events \{'wave': 4\} were read, expected 5"):
        tiny(tmp_path)
    tiny.expected_users, tiny.expected_events = 4, {"wave": 5}
    with pytest.raises(DataError, match="'wave': 5"):
        tiny(tmp_path)
    assert list((tmp_path / "processed").iterdir()) == []


def mark(graph: FriendGraph) -> FriendGraph:
    graph[USER].x = torch.ones(graph.num_users, 1)
    return graph


def test_transforms(tiny: type[FriendDataset], tmp_path: Path) -> None:
    dataset = tiny(tmp_path, transform=T.Constant(2.0), pre_transform=mark)
    assert dataset[0][USER].x.tolist() == [[1, 2]] * 4
    assert dataset[0][USER].x.shape == (4, 2)  # a transform is applied to a copy
    assert tiny(tmp_path, pre_transform=mark)[0][USER].x.tolist() == [[1]] * 4
    assert "x" not in tiny(tmp_path)[0][USER]  # another's graph is not taken for one's own
    for value in (1.0, 2.0):
        twice = tiny(tmp_path, pre_transform=lambda graph, value=value: T.Constant(value)(graph))
        assert twice[0][USER].x.tolist() == [[value]] * 4


def test_a_root_shared_by_data_sets_gives_each_its_own(
    tiny: type[FriendDataset], published: Path, tmp_path: Path
) -> None:
    class Other(tiny):  # type: ignore[misc, valid-type]
        def read(self, paths: list[Path]) -> FriendGraph:
            graph = super().read(paths)
            graph.told = "other"
            return graph

    root = tmp_path / "root"
    assert "told" not in tiny(root)[0]
    assert Other(root)[0].told == "other"
    assert "told" not in tiny(root)[0]
    assert len(list((root / "processed").glob("graph-*.pt"))) == 2


def test_other_raw_files_and_other_code_make_the_graph_anew(
    tiny: type[FriendDataset], published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    before = tiny(root).processed_paths[0]
    monkeypatch.setattr("graphrec.datasets.base.digest_code", lambda: "other")
    after = tiny(root).processed_paths[0]
    assert after != before
    assert [str(path) for path in (root / "processed").glob("graph-*.pt")] == [after]  # no copies pile up
    content = gzip.compress(b"1 2 10\n2 1 20\n3 3 20\n1 2 30\n4 1 31\n", mtime=0)
    (published / "tiny.txt.gz").write_bytes(content)
    source = tiny.files[0].source
    tiny.files = (RawFile("snap/tiny.txt.gz", hashlib.sha256(content).hexdigest(), source),)
    with pytest.raises(DataError, match="Delete it"):  # the raw file is still the one of before
        tiny(root)
    (root / "raw" / "tiny.txt.gz").unlink()
    assert int(tiny(root)[0].events().time[-1]) == 31


def unsort(graph: FriendGraph) -> FriendGraph:
    graph[USER, "wave", USER].time = graph[USER, "wave", USER].time.flip(0)
    return graph


def test_a_pre_transform_must_give_a_valid_graph(tiny: type[FriendDataset], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Tiny: pre_transform gave int, not a FriendGraph"):
        tiny(tmp_path, pre_transform=lambda graph: 3)
    with pytest.raises(DataError, match="not ascending"):
        tiny(tmp_path, pre_transform=unsort)
    assert tiny(tmp_path)[0].num_users == 4


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_a_damaged_processed_file(tiny: type[FriendDataset], tmp_path: Path) -> None:
    path = Path(tiny(tmp_path).processed_paths[0])
    trace = tmp_path / "trace"
    for content in (path.read_bytes()[:500], pickle.dumps(({}, None, Malicious(trace)))):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"graph-\w+-\w+\.pt.*`force_reload=True`"):
            tiny(tmp_path)
    assert not trace.exists()
    assert tiny(tmp_path, force_reload=True)[0].num_users == 4
