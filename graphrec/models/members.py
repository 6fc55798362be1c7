"""Models made of models: each member is saved in a folder of its own, and found again by its class."""

from __future__ import annotations

from pathlib import Path

from graphrec.data import DataError, FriendGraph
from graphrec.models.recommender import Recommender


def save_members(members: dict[str, Recommender], folder: Path) -> dict[str, str]:
    """Save each member in the folder of its name, which is made; the name of its class, by its own."""
    for name, member in members.items():
        (folder / name).mkdir()
        member.save(folder / name)
    return {name: type(member).__name__ for name, member in members.items()}


def load_members(classes: dict[str, str], folder: Path, graph: FriendGraph) -> dict[str, Recommender]:
    """What `save_members` saved and returned, for the graph it was saved with.

    Raises:
        DataError: naming a class that is not known here (one of one's own has to be imported before), or what
            is damaged.
    """
    kinds, found = [Recommender], {}
    while kinds:
        kind = kinds.pop()
        found[kind.__name__] = kind
        kinds += kind.__subclasses__()
    unknown = [name for name in classes.values() if name not in found]
    if unknown:
        raise DataError(f"{folder}: the model {unknown[0]} is not known here; import its class first")
    return {name: found[kind].load(folder / name, graph) for name, kind in classes.items()}
