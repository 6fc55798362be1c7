"""The heuristics of the library by name."""

from __future__ import annotations

from graphrec.models.heuristics.base import HEURISTICS as HEURISTICS
from graphrec.models.heuristics.chance import Random
from graphrec.models.heuristics.contacts import RepeatRecency, ReplyRecency
from graphrec.models.heuristics.neighbors import AdamicAdar, CommonNeighbors, Jaccard, PreferentialAttachment
from graphrec.models.heuristics.popularity import LastActive, LastSeen, Popularity, RecentPopularity
from graphrec.models.heuristics.walks import PPR

for kind in (
    Random,
    Popularity,
    RecentPopularity,
    LastActive,
    LastSeen,
    RepeatRecency,
    ReplyRecency,
    CommonNeighbors,
    Jaccard,
    AdamicAdar,
    PreferentialAttachment,
    PPR,
):
    HEURISTICS[kind.name] = kind
