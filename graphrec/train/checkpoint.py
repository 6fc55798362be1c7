"""Checkpoints of a training run in a folder, and the check that a run may resume from them."""

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

LAST_FILE, BEST_FILE = "last.ckpt", "best.ckpt"

PARTIAL_SUFFIX = ".part"
"""Suffix of a checkpoint while it is written."""

INITIAL_VALUES = "initial values"
MISSING_PART = {"digest": "", "show": ""}

Curve = list[dict[str, float]]
Key = dict[str, dict[str, str]]


class ReplacedRunWarning(UserWarning):
    """The checkpoints of another run in the folder are replaced."""


class CheckpointFiles(TorchCheckpointIO):
    """Checkpoint files that are replaced atomically, and written without a second copy in memory."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint to a file beside the path, then replace the path atomically."""
        part = Path(path).with_suffix(PARTIAL_SUFFIX)
        torch.save(checkpoint, part)
        part.replace(path)


def run_key(network: nn.Module, given: Mapping[str, Any], *, with_values: bool) -> Key:
    """The identity of a run: data and settings, the network's shapes and initial values, graphrec's code.

    Args:
        network: before training.
        given: data and settings, by name, for `digest_value`.
        with_values: include the initial values, which differ between processes.

    Returns:
        for each name, the 'digest' of its content, and its text to 'show' in a message ('' if long).
    """
    state = network.state_dict()
    shapes = {name: list(x.shape) if isinstance(x, Tensor) else None for name, x in state.items()}
    parts: dict[str, Any] = {"code": digest_code(), "network": shapes, **given}
    if with_values:
        parts[INITIAL_VALUES] = state
    return {
        name: {"digest": digest_value({name: value}), "show": _display(value)}
        for name, value in parts.items()
    }


def _display(value: Any) -> str:
    plain = value is None or isinstance(value, bool | int | float)
    return repr(value) if plain else ""


def resume_curve(folder: Path, key: Key, *, writes: bool) -> Curve:
    """The learning curve of the run in a folder, if it has this key.

    Args:
        folder: of checkpoints; exists.
        key: identity of the run, see `run_key`.
        writes: delete the checkpoints of another run, with a warning.

    Returns:
        the curve, [] for a run to start from the beginning.

    Raises:
        DataError: a file under the name of a checkpoint was not written by a training run.
    """
    runs = [_read(folder / name) for name in (LAST_FILE, BEST_FILE)]
    other = [run for run in runs if run is not None and not _same_run(run["key"], key)]
    if not other and runs[0] is not None and runs[1] is not None:
        curve: Curve = runs[0]["curve"]
        return curve
    if writes:
        if other:
            said = f"{folder}: its checkpoints are of a run with {_difference(other[0]['key'], key)}"
            warnings.warn(f"{said}; training starts from the beginning", ReplacedRunWarning, stacklevel=4)
        for name in (LAST_FILE, BEST_FILE):
            for path in (folder / name, (folder / name).with_suffix(PARTIAL_SUFFIX)):
                path.unlink(missing_ok=True)
    return []


def best_weights(folder: Path, key: Key) -> dict[str, Tensor]:
    """The network's weights after the best epoch so far.

    Raises:
        DataError: another run has replaced the checkpoint in the meantime.
    """
    path = folder / BEST_FILE
    checkpoint = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    if not _same_run(checkpoint["run"]["key"], key):
        raise DataError(f"{path}: another run has replaced it meanwhile; give each run a folder of its own")
    prefix = "network."
    state: dict[str, Tensor] = checkpoint["state_dict"]
    return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}


def _read(path: Path) -> dict[str, Any] | None:
    """The key and curve of a checkpoint, None without a file; the key is empty for earlier versions."""
    try:
        run = torch.load(path, weights_only=True, mmap=True, map_location="cpu")["run"]
        return {"key": run.get("key", {}), "curve": run["curve"]}
    except FileNotFoundError:
        return None
    except (AttributeError, EOFError, KeyError, RuntimeError, TypeError, UnpicklingError, ValueError):
        wanted = "delete it, or choose another folder"
        raise DataError(f"{path}: not a checkpoint of a training run, or damaged; {wanted}") from None


def _same_run(then: Key, now: Key) -> bool:
    """Whether two keys are of the same run; initial values are compared if both have them."""
    counts = (then.keys() | now.keys()) - ({INITIAL_VALUES} - (then.keys() & now.keys()))
    return bool(then) and all(then.get(name) == now.get(name) for name in counts)


def _difference(then: Key, now: Key) -> str:
    """The parts in which the run in the folder differs, as text."""
    if not then:
        return "another version of graphrec"
    parts = []
    for name in sorted(then.keys() | now.keys()):
        old, new = then.get(name, MISSING_PART), now.get(name, MISSING_PART)
        if old != new and name != INITIAL_VALUES:  # these follow from the other parts
            values = f"{name}={old['show']}, not {new['show']}"
            said = "another version of graphrec" if name == "code" else f"another {name}"
            parts.append(values if old["show"] and new["show"] else said)
    return " and ".join(parts) or f"other {INITIAL_VALUES} of the network"
