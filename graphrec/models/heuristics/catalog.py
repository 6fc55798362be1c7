"""The heuristics of the library by name."""

from __future__ import annotations

from graphrec.models.heuristics.base import HEURISTICS as HEURISTICS
from graphrec.models.heuristics.chance import Random
from graphrec.models.heuristics.contacts import RepeatRecency, ReplyRecency
from graphrec.models.heuristics.neighbors import (
    AdamicAdar,
    CommonNeighbors,
    DecayedAdamicAdar,
    Jaccard,
    PreferentialAttachment,
)
from graphrec.models.heuristics.popularity import (
    LastActive,
    LastSeen,
    NewPopularity,
    Popularity,
    RecentPopularity,
)
from graphrec.models.heuristics.walks import PPR

for kind in (
    Random,
    Popularity,
    RecentPopularity,
    NewPopularity,
    LastActive,
    LastSeen,
    RepeatRecency,
    ReplyRecency,
    CommonNeighbors,
    Jaccard,
    AdamicAdar,
    DecayedAdamicAdar,
    PreferentialAttachment,
    PPR,
):
    HEURISTICS[kind.name] = kind
