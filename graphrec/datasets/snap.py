"""Temporal networks of the Stanford Network Analysis Project (SNAP)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.csv

from graphrec.data import EventLog, FriendGraph
from graphrec.datasets.base import FriendDataset
from graphrec.datasets.raw import RawFile


class SnapDataset(FriendDataset):
    """A file for each action, in the order of `expected_events`; its lines are `SRC DST SECONDS`."""

    def read(self, paths: list[Path]) -> FriendGraph:
        """Build the graph; among events of one time, those of the first file come first."""
        parts = zip(self.expected_events, paths, strict=True)
        log = EventLog.from_table(
            pa.concat_tables([_read_action(action, path) for action, path in parts]), where=self.name
        )
        return FriendGraph.from_events(log)


def _read_action(action: str, path: Path) -> pa.Table:
    table = pa.csv.read_csv(
        path,
        read_options=pa.csv.ReadOptions(column_names=["src", "dst", "time"]),
        parse_options=pa.csv.ParseOptions(delimiter=" "),
    )
    return table.append_column("action", pa.repeat(action, table.num_rows))


def _snap_file(name: str, sha256: str) -> RawFile:
    return RawFile(f"snap/{name}", sha256, f"https://snap.stanford.edu/data/{name}")


class CollegeMsg(SnapDataset):
    """Private messages between students of the University of California, Irvine, over 194 days in 2004.

    From `"Patterns and Dynamics of Users' Behavior and Interaction"
    <https://doi.org/10.1002/asi.21015>`_. 1,899 users, 59,835 events of the action `message`.
    """

    name = "CollegeMsg"
    source = "https://snap.stanford.edu/data/CollegeMsg.html"
    license_terms = "none stated: cite, do not redistribute"
    citation = (
        "Pietro Panzarasa, Tore Opsahl, Kathleen M. Carley: Patterns and dynamics of users' behavior and "
        "interaction: Network analysis of an online community. Journal of the American Society for "
        "Information Science and Technology 60(5), 911-932, 2009. https://doi.org/10.1002/asi.21015"
    )
    files = (
        _snap_file("CollegeMsg.txt.gz", "50ae2d98ed3bad9ddb18dbd495a89e5e10cfb8f7e86932827db29fc41b41f9fa"),
    )
    expected_users = 1_899
    expected_events: ClassVar[Mapping[str, int]] = {"message": 59_835}


class EmailEuCore(SnapDataset):
    """E-mails inside a European research institution, over 804 days; times count from the first one.

    From `"Motifs in Temporal Networks" <https://doi.org/10.1145/3018661.3018731>`_. 986 users, 332,334
    events of the action `email`; a mail to many people is as many events of one time.
    """

    name = "Email-Eu-core"
    source = "https://snap.stanford.edu/data/email-Eu-core-temporal.html"
    license_terms = "none stated: cite, do not redistribute"
    citation = (
        "Ashwin Paranjape, Austin R. Benson, Jure Leskovec: Motifs in temporal networks. Proceedings of the "
        "Tenth ACM International Conference on Web Search and Data Mining, 601-610, 2017. "
        "https://doi.org/10.1145/3018661.3018731"
    )
    files = (
        _snap_file(
            "email-Eu-core-temporal.txt.gz",
            "f6cc93249978e59d1aba111b55ea10ec553917419a3be1210012b5db3580efa6",
        ),
    )
    expected_users = 986
    expected_events: ClassVar[Mapping[str, int]] = {"email": 332_334}


class MathOverflow(SnapDataset):
    """Answers and comments on the question-and-answer site MathOverflow, over 6.4 years.

    From `"Motifs in Temporal Networks" <https://doi.org/10.1145/3018661.3018731>`_. 24,818 users, of whom
    24,759 have an event; 390,441 events of the actions `answer`, `comment_question` and `comment_answer`,
    each from the writer to the author of the post that is answered or commented on.
    """

    name = "MathOverflow"
    source = "https://snap.stanford.edu/data/sx-mathoverflow.html"
    license_terms = "CC BY-SA, from Stack Exchange"
    citation = EmailEuCore.citation
    files = (
        _snap_file(
            "sx-mathoverflow-a2q.txt.gz", "1e160dcd3e685f7467f4869451899bae0299016080ae994895a900b57812ca78"
        ),
        _snap_file(
            "sx-mathoverflow-c2q.txt.gz", "ee99942bc234cb3596e93a5c49ce8e3bd82af6dcca4adb687f287b2eef5f0a3e"
        ),
        _snap_file(
            "sx-mathoverflow-c2a.txt.gz", "bdfa7b71ba564c8b9307ae9892ab7138c35ac5a0e4a285cb9021d1e6598a27a4"
        ),
    )
    expected_users = 24_818
    expected_events: ClassVar[Mapping[str, int]] = {
        "answer": 104_138,
        "comment_question": 146_649,
        "comment_answer": 139_654,
    }


class AskUbuntu(SnapDataset):
    """Answers on the question-and-answer site Ask Ubuntu, over 7.2 years.

    From `"Motifs in Temporal Networks" <https://doi.org/10.1145/3018661.3018731>`_. 137,517 users, of whom
    134,035 have an event; 257,305 events of the action `answer`, from the answering user to the asking user.
    """

    name = "AskUbuntu"
    source = "https://snap.stanford.edu/data/sx-askubuntu.html"
    license_terms = MathOverflow.license_terms
    citation = EmailEuCore.citation
    files = (
        _snap_file(
            "sx-askubuntu-a2q.txt.gz", "46c2f034aa4fb8d89e69e5cb33ae9f422bdf6a42bb7b76c4ed20538bea496b83"
        ),
    )
    expected_users = 137_517
    expected_events: ClassVar[Mapping[str, int]] = {"answer": 257_305}
