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
"""Every data set of real people, by the name that `load_dataset` knows it by."""


def load_dataset(name: str, **kwargs: Any) -> FriendGraph:
    """The graph of a data set.

    Args:
        name: its name in `DATASETS`, 'Synthetic', or its class's; case, dashes and underscores do not
            matter.
        **kwargs: for the data set's constructor (see `FriendDataset`).

    Raises:
        KeyError: there is no data set of that name; the message lists those there are.
    """
    everything = DATASETS | {SyntheticFriends.name: SyntheticFriends}
    for known, dataset in everything.items():
        if _plain(name) in (_plain(known), _plain(dataset.__name__)):
            return cast(FriendGraph, dataset(**kwargs)[0])
    raise KeyError(f"unknown data set {name!r}; known are {', '.join(everything)}")


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
