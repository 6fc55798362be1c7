"""Files of saved models: configurations from JSON, and the submodels of composed recommenders."""

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
    """Return the original module of one that `torch.compile` wrapped; any other module as it is."""
    return cast(Network, getattr(network, "_orig_mod", network))


def read_config(kind: type[Config], content: Any) -> Config:
    """Build a configuration from JSON that `dataclasses.asdict` produced.

    Args:
        kind: a dataclass; its fields may be dataclasses and tuples.
        content: the parsed JSON.

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


def save_submodels(submodels: dict[str, Recommender], folder: Path) -> dict[str, str]:
    """Save submodels, each in a new subfolder of its name; return their class names by name."""
    for name, model in submodels.items():
        (folder / name).mkdir(exist_ok=True)
        model.save(folder / name)
    return {name: type(model).__name__ for name, model in submodels.items()}


def load_submodels(classes: dict[str, str], folder: Path, graph: FriendGraph) -> dict[str, Recommender]:
    """Load the submodels that `save_submodels` saved.

    Args:
        classes: class names by name, as `save_submodels` returned them.
        folder: the folder that they were saved in.
        graph: the graph that they were saved with.

    Raises:
        DataError: a class is unknown (import the module of a custom class first), or a file is damaged; the
            message names it.
    """
    unknown = [name for name in classes.values() if name not in RECOMMENDER_CLASSES]
    if unknown:
        raise DataError(f"{folder}: the model {unknown[0]} is not known here; import its class first")
    return {name: RECOMMENDER_CLASSES[kind].load(folder / name, graph) for name, kind in classes.items()}
