"""The folder of a fitted mixture recommender: a JSON manifest, its tensors, and the head's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphrec.data import DataError
from graphrec.data.saved import read_manifest, write_manifest
from graphrec.models.heads.head import HEADS, Head
from graphrec.models.heads.optional import load_head, save_head
from graphrec.models.manifest import read_config, uncompiled
from graphrec.models.mixture.config import MixtureConfig
from graphrec.models.mixture.contact_prior import ContactPrior
from graphrec.models.mixture.view import TrainingPeriod
from graphrec.nn import MixtureNetwork

FORMAT, MANIFEST, TENSORS = "graphrec.MixtureRecommender/3", "model.json", "model.pt"


@dataclass(frozen=True)
class Manifest:
    """The content of the manifest.

    Its attributes are those of `MixtureRecommender`, `GraphView` and `FittedMixture`.
    """

    name: str
    config: MixtureConfig
    actions: tuple[str, ...]
    period: TrainingPeriod
    prior: ContactPrior
    fitted_until: int | None


@dataclass(frozen=True)
class SavedTensors:
    """Tensors of a saved model.

    Attributes:
        known: raw ids of the users of embedding rows 1..n (see `GraphView`).
        network: the network's `state_dict`.
    """

    known: Tensor
    network: Mapping[str, Tensor]


def write(folder: Path, manifest: Manifest, head: Head[Any], network: MixtureNetwork, known: Tensor) -> None:
    """Write a fitted model into a folder that exists.

    Args:
        folder: exists.
        manifest: saved as JSON.
        head: writes its own files.
        network: its weights are saved.
        known: raw ids of the users of embedding rows 1..n (see `GraphView`).
    """
    state = {name: value.cpu() for name, value in uncompiled(network).state_dict().items()}
    torch.save({"known": known, "network": state}, folder / TENSORS)
    content = {
        "name": manifest.name,
        "head": {"kind": head.kind, "settings": save_head(head, folder)},
        "config": asdict(manifest.config),
        "actions": list(manifest.actions),
        "period": asdict(manifest.period),
        "prior": list(manifest.prior),
        "fitted_until": manifest.fitted_until,
    }
    write_manifest(folder / MANIFEST, FORMAT, content)


def read(folder: Path, actions: tuple[str, ...]) -> tuple[Manifest, Head[Any]]:
    """Read the manifest and the head that `write` wrote, for a graph with these actions.

    Raises:
        DataError: the format is another, the head is not registered, or the model was fitted on other
            actions.
        KeyError, TypeError, ValueError, OSError: a file is damaged.
    """
    content = read_manifest(folder / MANIFEST, FORMAT)
    kind = content["head"]["kind"]
    if kind not in HEADS:
        raise DataError(f"its head {kind!r} is not known here; pass its class to register_head first")
    if tuple(content["actions"]) != actions:
        raise DataError(f"it knows the actions {content['actions']}, the graph has {actions}")
    strength, known = content["prior"]
    manifest = Manifest(
        name=content["name"],
        config=read_config(MixtureConfig, content["config"]),
        actions=actions,
        period=read_config(TrainingPeriod, content["period"]),
        prior=ContactPrior(float(strength), float(known)),
        fitted_until=content["fitted_until"],
    )
    return manifest, load_head(HEADS[kind], content["head"]["settings"], folder)


def read_tensors(folder: Path) -> SavedTensors:
    """Read the tensors that `write` wrote; nothing in the file is executed."""
    tensors = torch.load(folder / TENSORS, weights_only=True)
    return SavedTensors(tensors["known"], tensors["network"])
