"""Text messages, calls and friendships of the Copenhagen Networks Study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from graphrec.data import EventLog, FriendGraph, UserTable
from graphrec.datasets.base import FriendDataset
from graphrec.datasets.raw import RawFile

_DOI = "https://doi.org/10.6084/m9.figshare.7267433"


def _figshare_file(name: str, sha256: str) -> RawFile:
    return RawFile(f"copenhagen/{name}", sha256, _DOI, downloadable=False)


class CopenhagenNetworks(FriendDataset):
    """Text messages and calls between students in Copenhagen, over 28 days; times count from the start.

    From `"Interaction data from the Copenhagen Networks Study"
    <https://doi.org/10.1038/s41597-019-0325-x>`_. 844 users, of whom 608 have an event; 27,933 events of the
    actions `sms`, `call` and `missed_call`. The 6,418 Facebook friendships are the untimed edge type
    `facebook_friend`, in both directions. `x` is [844, 2]: `female`, and `female_missing`, 1 for the 57 users
    of unknown gender.
    """

    name = "Copenhagen"
    source = _DOI
    license_terms = "CC BY 4.0"
    citation = (
        "Piotr Sapiezynski, Arkadiusz Stopczynski, David Dreyer Lassen, Sune Lehmann: Interaction data from "
        "the Copenhagen Networks Study. Scientific Data 6, 315, 2019. "
        "https://doi.org/10.1038/s41597-019-0325-x"
    )
    files = (
        _figshare_file("sms.csv", "2262320d1ec159d8efeaa86dc4ac295f4ad04f3b40fa1d7075ccacd5068f4803"),
        _figshare_file("calls.csv", "a4f2078e558a482b6cc7fd2c98c9bf22d14ac9723fb764a00ead940967189c57"),
        _figshare_file("fb_friends.csv", "825527f445776d48d095be4d81a1ce7823407c3354d2602af3a6cfae6952c74d"),
        _figshare_file("genders.csv", "daff3d3232518ed2c662cabae0dd492a6e705056a9bd41e2ef216e8950ba9f9f"),
    )
    expected_users = 844
    expected_events: ClassVar[Mapping[str, int]] = {"sms": 24_333, "call": 3_234, "missed_call": 366}

    def read(self, paths: list[Path]) -> FriendGraph:
        """Build the graph of all users in any of the files."""
        sms, calls, friends, genders = (pa.csv.read_csv(path).combine_chunks() for path in paths)
        texted = sms.select(["sender", "recipient", "timestamp"]).append_column(
            "action", pa.repeat("sms", sms.num_rows)
        )
        called = calls.select(["caller", "callee", "timestamp"]).append_column(
            "action", pc.if_else(pc.equal(calls["duration"], -1), "missed_call", "call")
        )
        names = ["src", "dst", "time", "action"]
        log = EventLog.from_table(
            pa.concat_tables([texted.rename_columns(names), called.rename_columns(names)]), where=self.name
        )

        person, female = genders.columns
        one, other = friends.columns
        all_users = pa.chunked_array(
            [log.user_ids.values, *one.chunks, *other.chunks, *person.chunks]
        ).unique()
        known = female.take(pc.index_in(all_users, value_set=person))  # null for those without a gender
        users = UserTable.from_table(pa.table({"user": all_users, "female": known}), where=self.name)
        graph = FriendGraph.from_events(log, users)
        graph.add_untimed("facebook_friend", one.to_pylist(), other.to_pylist())
        return graph
