"""The folders of models: a JSON manifest, and the members of models made of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints

from torch import nn

from graphrec.data import DataError, FriendGraph
from graphrec.models.recommender import RECOMMENDER_CLASSES, Recommender

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
Network = TypeVar("Network", bound=nn.Module)


def uncompiled(network: Network) -> Network:
    """The module that `torch.compile` was given, whose parameters have plain names; others as they are."""
    return cast(Network, getattr(network, "_orig_mod", network))


def read_config(kind: type[Config], content: Any) -> Config:
    """A configuration from the JSON of `dataclasses.asdict`.

    Args:
        kind: a dataclass; its fields may be dataclasses and tuples.
        content: what was read.

    Raises:
        ValueError: fields are missing, or there are others.
    """
    names = {one.name for one in fields(kind)}
    if not isinstance(content, Mapping) or set(content) != names:
        found = sorted(content) if isinstance(content, Mapping) else content
        raise ValueError(f"a {kind.__name__} has the fields {sorted(names)}, got {found}")
    types, values = get_type_hints(kind), {}
    for name, value in content.items():
        if is_dataclass(types[name]):
            values[name] = read_config(types[name], value)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    make: Callable[..., Config] = kind
    return make(**values)


def save_members(members: dict[str, Recommender], folder: Path) -> dict[str, str]:
    """Save each member in the folder of its name, which is made; the name of its class, by its own."""
    for name, member in members.items():
        (folder / name).mkdir(exist_ok=True)
        member.save(folder / name)
    return {name: type(member).__name__ for name, member in members.items()}


def load_members(classes: dict[str, str], folder: Path, graph: FriendGraph) -> dict[str, Recommender]:
    """The models that `save_members` saved, for the graph it was saved with.

    Raises:
        DataError: naming a class that is not known here (one of one's own has to be imported before), or what
            is damaged.
    """
    unknown = [name for name in classes.values() if name not in RECOMMENDER_CLASSES]
    if unknown:
        raise DataError(f"{folder}: the model {unknown[0]} is not known here; import its class first")
    return {name: RECOMMENDER_CLASSES[kind].load(folder / name, graph) for name, kind in classes.items()}
