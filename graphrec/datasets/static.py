"""Friendship networks without times."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from graphrec.data import FriendGraph, UserTable
from graphrec.datasets.base import FriendDataset
from graphrec.datasets.raw import RawFile
from graphrec.datasets.static_split import BEFRIEND, static_split


def _archived(archive: str, folder: str, checksums: Mapping[str, str]) -> tuple[RawFile, ...]:
    """The files of an archive of SNAP, from their SHA-256 by name; in a mirror they are in a folder."""
    source = f"https://snap.stanford.edu/data/{archive}"
    return tuple(
        RawFile(f"{folder}/{name}", sha256, source, archive=True) for name, sha256 in checksums.items()
    )


class StaticDataset(FriendDataset):
    """Undirected friendships without times, each two events of the action `befriend`: see `static_split`.

    The first file lists the pairs, under a header; the others have features of the users.

    Args:
        root, transform, pre_transform, force_reload, mirror, roles: as in `FriendDataset`.
        seed: fixes the split (see `static_split`).
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
        pre_transform: Callable[[Any], Any] | None = None,
        force_reload: bool = False,
        *,
        mirror: str | os.PathLike[str] | None = None,
        roles: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        self.seed = seed
        super().__init__(root, transform, pre_transform, force_reload, mirror=mirror, roles=roles)

    def settings(self) -> dict[str, Any]:
        """The seed of the split."""
        return {"seed": self.seed}

    def read(self, paths: list[Path]) -> FriendGraph:
        """Build the graph, split by the seed."""
        pairs = pa.csv.read_csv(paths[0])
        users = UserTable.from_table(self.read_users(paths[1:]), where=self.name)
        return static_split(pairs[0], pairs[1], users=users, seed=self.seed)

    @abstractmethod
    def read_users(self, paths: list[Path]) -> pa.Table:
        """Read the table of users (see `UserTable.from_table`) from the files after the first."""


class DeezerHungary(StaticDataset):
    """Friendships of users of the music service Deezer in Hungary, and the genres they like.

    From `"GEMSEC: Graph Embedding with Self Clustering" <https://doi.org/10.1145/3341161.3342890>`_. 47,538
    users, 222,887 friendships. `x` is [47538, 84], a one for each genre among the tracks a user liked.
    """

    name = "DeezerHungary"
    source = "https://snap.stanford.edu/data/gemsec-Deezer.html"
    license_terms = "MIT"
    citation = (
        "Benedek Rozemberczki, Ryan Davies, Rik Sarkar, Charles Sutton: GEMSEC: Graph embedding with self "
        "clustering. Proceedings of the 2019 IEEE/ACM International Conference on Advances in Social "
        "Networks Analysis and Mining, 65-72, 2019. https://doi.org/10.1145/3341161.3342890"
    )
    files = _archived(
        "gemsec_deezer_dataset.tar.gz",
        "deezer",
        {
            "HU_edges.csv": "4f89a0cba9d89d25d4fe97403097731a0fc909e9fcf03c8b9d9c0ddeb5b4c6c1",
            "HU_genres.json": "194f2830de93939dc018c0a3c8c0f2a546b2ec584f1134cd2fbba19dbb74738c",
        },
    )
    expected_users = 47_538
    expected_events: ClassVar[Mapping[str, int]] = {BEFRIEND: 2 * 222_887}

    def read_users(self, paths: list[Path]) -> pa.Table:
        """Read one multi-hot feature, `genre`."""
        return _table_of_lists(paths[0], "genre")


class LastFMAsia(StaticDataset):
    """Mutual follows of users of the music service LastFM in Asia, and their countries.

    From `"Characteristic Functions on Graphs" <https://arxiv.org/abs/2005.07959>`_. 7,624 users, 27,806
    friendships. `x` is [7624, 18], one-hot: `country=0` to `country=17`, as the source numbers them.
    """

    name = "LastFMAsia"
    source = "https://snap.stanford.edu/data/feather-lastfm-social.html"
    license_terms = "MIT"
    citation = (
        "Benedek Rozemberczki, Rik Sarkar: Characteristic functions on graphs: Birds of a feather, from "
        "statistical descriptors to parametric models. Proceedings of the 29th ACM International Conference "
        "on Information and Knowledge Management, 1325-1334, 2020. https://arxiv.org/abs/2005.07959"
    )
    files = _archived(
        "lastfm_asia.zip",
        "lastfm_asia",
        {
            "lastfm_asia_edges.csv": "548eacff61bff564ab5007831fa4a7a30e1a3956075ffd24e43310ed33555842",
            "lastfm_asia_target.csv": "91f19215f6eca8321feec038bd32900cf13fd4f7e041a9976cf202807c72ac16",
        },
    )
    expected_users = 7_624
    expected_events: ClassVar[Mapping[str, int]] = {BEFRIEND: 2 * 27_806}

    def read_users(self, paths: list[Path]) -> pa.Table:
        """Read one categorical feature, `country`."""
        people = pa.csv.read_csv(paths[0])
        return pa.table({"user": people["id"], "country": people["target"].dictionary_encode()})


class TwitchGermany(StaticDataset):
    """Friendships of German streamers on Twitch, with features of their channels.

    From `"Multi-scale Attributed Node Embedding" <https://doi.org/10.1093/comnet/cnab014>`_. 9,498 users,
    153,138 friendships. `x` is [9498, 2518] (91 MiB): `days`, `mature`, `views`, `partner`, and a one for
    each of 2,514 `feature`s that stand for games, places and habits.
    """

    name = "TwitchGermany"
    source = "https://snap.stanford.edu/data/twitch-social-networks.html"
    license_terms = "MIT"
    citation = (
        "Benedek Rozemberczki, Carl Allen, Rik Sarkar: Multi-scale attributed node embedding. Journal of "
        "Complex Networks 9(2), cnab014, 2021. https://doi.org/10.1093/comnet/cnab014"
    )
    files = _archived(
        "twitch.zip",
        "twitch",
        {
            "DE_edges.csv": "54feaf3e3e70a485fe07f8611e4d2677841b97f77b8358204bcf4a48cc884d86",
            "DE_target.csv": "2188f58a093bb9db363d3eaf7c3a52c2adc8ff6b23cbcb4f53875f87061c0321",
            "DE_features.json": "7b39c42570f05cd46017c765df8d8a1bc03f19787c3eb0f9684f50a52476ae3a",
        },
    )
    expected_users = 9_498
    expected_events: ClassVar[Mapping[str, int]] = {BEFRIEND: 2 * 153_138}

    def read_users(self, paths: list[Path]) -> pa.Table:
        """Read numbers of the channel, and the multi-hot `feature`; the files' key is `new_id`."""
        channels, played = pa.csv.read_csv(paths[0]), _table_of_lists(paths[1], "feature")
        row = pc.index_in(channels["new_id"], value_set=played["user"])
        names = ["days", "mature", "views", "partner"]
        return (
            channels.select(names)
            .append_column("user", channels["new_id"])
            .append_column("feature", played["feature"].take(row))
        )


def _table_of_lists(path: Path, name: str) -> pa.Table:
    """A table of users and their lists, from a JSON object of lists by user."""
    lists = json.loads(path.read_text())
    return pa.table({"user": [int(user) for user in lists], name: list(lists.values())})
