"""What models keep in a folder: a manifest, and of models made of models each member, found by its class."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar, cast

from torch import nn

from graphrec.data import DataError, FriendGraph
from graphrec.data.checks import check_folder
from graphrec.models.recommender import Recommender

Module = TypeVar("Module", bound=nn.Module)


def made_folder(folder: str | os.PathLike[str]) -> Path:
    """A folder to save in, made where it is not there. Raises TypeError where it is no path."""
    path = check_folder(folder)
    path.mkdir(parents=True, exist_ok=True)
    return path


def uncompiled(network: Module) -> Module:
    """The module that `torch.compile` was given, whose parameters have plain names; others as they are."""
    return cast(Module, getattr(network, "_orig_mod", network))


@contextmanager
def reading(kind: type, folder: Path) -> Iterator[None]:
    """Say that a folder is damaged, or another's, whatever fails in reading it: DataError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, UnpicklingError) as error:
        raise DataError(f"{folder}: not a {kind.__name__} as it was saved, or damaged ({error})") from None


def write_manifest(path: Path, format_name: str, content: dict[str, Any]) -> None:
    """Write content as JSON, under the name of its format."""
    path.write_text(json.dumps({"format": format_name, **content}, indent=2) + "\n")


def read_manifest(path: Path, format_name: str) -> dict[str, Any]:
    """What `write_manifest` wrote. Raises DataError where it is of another format."""
    content: dict[str, Any] = json.loads(path.read_text())
    if content["format"] != format_name:
        raise DataError(f"it holds {content['format']!r}")
    return content


def save_members(members: dict[str, Recommender], folder: Path) -> dict[str, str]:
    """Save each member in the folder of its name, which is made; the name of its class, by its own."""
    for name, member in members.items():
        (folder / name).mkdir(exist_ok=True)
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
