"""Data sets by name."""

from __future__ import annotations

from typing import Any, cast

from graphrec.data import FriendGraph
from graphrec.datasets.base import FriendDataset
from graphrec.datasets.copenhagen import CopenhagenNetworks
from graphrec.datasets.snap import AskUbuntu, CollegeMsg, EmailEuCore, MathOverflow
from graphrec.datasets.static import DeezerHungary, LastFMAsia, TwitchGermany
from graphrec.datasets.synthetic import SyntheticFriends

DATASETS: dict[str, type[FriendDataset]] = {
    dataset.name: dataset
    for dataset in (
        CollegeMsg,
        EmailEuCore,
        MathOverflow,
        CopenhagenNetworks,
        AskUbuntu,
        DeezerHungary,
        LastFMAsia,
        TwitchGermany,
    )
}
"""Every data set of real users, by its name for `load_dataset`."""


def load_dataset(name: str, **kwargs: Any) -> FriendGraph:
    """Load the graph of a data set.

    Args:
        name: its name in `DATASETS`, 'Synthetic', or its class's; case, dashes and underscores do not
            matter.
        **kwargs: for the data set's constructor (see `FriendDataset`).

    Raises:
        KeyError: there is no data set of that name; the message lists all names.
    """
    datasets = DATASETS | {SyntheticFriends.name: SyntheticFriends}
    for known, dataset in datasets.items():
        if _normalize(name) in (_normalize(known), _normalize(dataset.__name__)):
            return cast(FriendGraph, dataset(**kwargs)[0])
    raise KeyError(f"unknown data set {name!r}; known are {', '.join(datasets)}")


def _normalize(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
