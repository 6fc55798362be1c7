"""Checkpoints of a run in a folder: which run they are of, and whether it may go on from them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from graphrec.data import DataError, digest_code, digest_value

LAST, BEST = "last.ckpt", "best.ckpt"
PART = ".part"
"""A checkpoint being written has this suffix."""

INITIAL = "initial values"
NONE = {"digest": "", "show": ""}

Curve = list[dict[str, float]]
Key = dict[str, dict[str, str]]


class ReplacedRunWarning(UserWarning):
    """A folder held the checkpoints of another run, which are replaced."""


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoints written without a second copy in memory; a file is the old one or the new one, whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the file, then replace it in one step."""
        part = Path(path).with_suffix(PART)
        torch.save(checkpoint, part)
        part.replace(path)


def run_key(network: nn.Module, given: Mapping[str, Any], *, with_values: bool) -> Key:
    """What a run is known by: each thing given, the network's shapes and initial values, graphrec's code.

    Args:
        network: as it is before training.
        given: data and settings, by name, for `digest_value`.
        with_values: whether the initial values count; those of several processes differ, but for the first.

    Returns:
        For each name the 'digest' of its content, and how to 'show' it in a message ('' where it is long).
    """
    state = network.state_dict()
    shapes = {name: list(x.shape) if isinstance(x, Tensor) else None for name, x in state.items()}
    parts: dict[str, Any] = {"code": digest_code(), "network": shapes, **given}
    if with_values:
        parts[INITIAL] = state
    return {
        name: {"digest": digest_value({name: value}), "show": _shown(value)} for name, value in parts.items()
    }


def _shown(value: Any) -> str:
    plain = value is None or isinstance(value, bool | int | float)
    return repr(value) if plain else ""


def past_curve(folder: Path, key: Key, *, writes: bool) -> Curve:
    """The curve of the run in a folder, if it is the one of this key.

    Args:
        folder: of checkpoints; it exists.
        key: what the run is known by.
        writes: whether this process deletes another run's checkpoints, with a warning.

    Raises:
        DataError: a file in the place of a checkpoint was not written by a training run.
    """
    runs = [_read(folder / name) for name in (LAST, BEST)]
    other = [run for run in runs if run is not None and not _same(run["key"], key)]
    if not other and runs[0] is not None and runs[1] is not None:
        curve: Curve = runs[0]["curve"]
        return curve
    if writes:
        if other:
            said = f"{folder}: its checkpoints are of a run with {_difference(other[0]['key'], key)}"
            warnings.warn(f"{said}; training starts anew", ReplacedRunWarning, stacklevel=4)
        for name in (LAST, BEST):
            for path in (folder / name, (folder / name).with_suffix(PART)):
                path.unlink(missing_ok=True)
    return []


def best_weights(folder: Path, key: Key) -> dict[str, Tensor]:
    """The network's weights of the best epoch so far.

    Raises:
        DataError: another run has written to the folder in the meantime.
    """
    path = folder / BEST
    checkpoint = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    if not _same(checkpoint["run"]["key"], key):
        raise DataError(f"{path}: another run has replaced it meanwhile; give each run a folder of its own")
    prefix = "network."
    state: dict[str, Tensor] = checkpoint["state_dict"]
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}


def _read(path: Path) -> dict[str, Any] | None:
    """The run of a checkpoint, None where there is no file; of an earlier version, without a key."""
    try:
        run = torch.load(path, weights_only=True, mmap=True, map_location="cpu")["run"]
        return {"key": run.get("key", {}), "curve": run["curve"]}
    except FileNotFoundError:
        return None
    except (AttributeError, EOFError, KeyError, RuntimeError, TypeError, UnpicklingError, ValueError):
        wanted = "delete it, or choose another folder"
        raise DataError(f"{path}: not a checkpoint of a training run, or damaged; {wanted}") from None


def _same(then: Key, now: Key) -> bool:
    """Whether two runs are one; their initial values are compared where both are known."""
    counts = (then.keys() | now.keys()) - ({INITIAL} - (then.keys() & now.keys()))
    return bool(then) and all(then.get(name) == now.get(name) for name in counts)


def _difference(then: Key, now: Key) -> str:
    """What a run in the folder has that this one has not."""
    if not then:
        return "another version of graphrec"
    parts = []
    for name in sorted(then.keys() | now.keys()):
        old, new = then.get(name, NONE), now.get(name, NONE)
        if old != new and name != INITIAL:  # which follow from all else
            values = f"{name}={old['show']}, not {new['show']}"
            said = "another version of graphrec" if name == "code" else f"another {name}"
            parts.append(values if old["show"] and new["show"] else said)
    return " and ".join(parts) or f"other {INITIAL} of the network"
