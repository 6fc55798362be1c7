"""Training with pytorch-lightning: progress, early stopping, checkpoints to resume from, processes."""

from __future__ import annotations

import copy
import gc
import logging
import math
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from graphrec.data.draws import hashed
from graphrec.threads import one_intra_op_thread
from graphrec.train.checkpoint import (
    BEST_FILE,
    LAST_FILE,
    CheckpointFiles,
    Curve,
    Key,
    best_weights,
    resume_curve,
    run_key,
)
from graphrec.train.optim import adamw, clip_gradients, sparse_tables
from graphrec.train.processes import is_first_process, num_processes, share_batches, trainer_placement

WARMUP_STEPS = 50
MAX_GRADIENT_NORM = 1.0
VAL_SCORE = "val_score"


class _EpochBatches:
    """Iterates over the loader for Lightning, with random numbers of an epoch from (seed, epoch) alone.

    It has no length, since Lightning would cut all epochs to the length of the first.
    """

    def __init__(self, loader: Iterable[Any], *, seed: int, epoch: int) -> None:
        self.epoch = epoch
        self._loader, self._seed = loader, seed

    def __iter__(self) -> Iterator[Any]:
        torch.manual_seed(_seed_of(self._seed, self.epoch))
        samplers = (getattr(self._loader, name, None) for name in ("sampler", "batch_sampler"))
        for order in (self._loader, *samplers):
            if order is not None and hasattr(order, "set_epoch"):
                order.set_epoch(self.epoch)
        yield from self._loader


class _TrainingModule(pl.LightningModule):
    """A network as Lightning trains it; its only state of past epochs is the curve."""

    def __init__(
        self,
        network: nn.Module,
        batches: _EpochBatches,
        losses: Callable[[Any, int], dict[str, Tensor]],
        validate: Callable[[], dict[str, float]],
        curve: Curve,
        settings: dict[str, Any],
        patience: int,
        folder: Path | None,
        key: Key,
        lines: bool,
    ) -> None:
        super().__init__()
        self.network, self.curve = network, curve
        self._batches, self._losses, self._validate = batches, losses, validate
        self._settings, self._patience = settings, patience
        self._folder, self._key, self._lines = folder, key, lines
        self.best: dict[str, Any] = {}
        self._tables = sparse_tables(network)
        self._sums: dict[str, float] = {}
        self._begun: list[float] = []
        # DDP, told to look for unused parameters, warns where it finds none.
        self.idle = nn.Parameter(torch.zeros(()))

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the best epoch is `patience` epochs ago."""
        scores = [row[VAL_SCORE] for row in self.curve]
        waited = len(scores) - 1 - scores.index(max(scores)) if scores else 0
        return len(scores) >= self._settings["max_epochs"] or waited >= self._patience

    def on_train_epoch_start(self) -> None:
        self._begun.append(time.perf_counter())
        self._batches.epoch = self.current_epoch

    def training_step(self, batch: Any, _: int) -> Tensor:
        torch.manual_seed(_seed_of(self._settings["seed"], self.global_step, self.global_rank))
        terms = self._losses(batch, self.current_epoch)
        said = {name: float(term.detach()) for name, term in terms.items()}
        weight = said["events"]
        # Each term times its events, summed over the processes; without events only the loss is defined.
        sums = {name: x * weight if weight or name == "loss" else 0.0 for name, x in said.items()}
        sums["events"] = weight
        total = torch.tensor([*sums.values()], dtype=torch.float64)
        total = self.trainer.strategy.reduce(total, reduce_op="sum")
        sums = dict(zip(sums, total.tolist(), strict=True))
        self._check_finite(sums, "a batch")
        self._sums = {name: value + self._sums.get(name, 0.0) for name, value in sums.items()}
        self.log("loss", terms["loss"].detach(), prog_bar=True, batch_size=1)
        loss = terms["loss"]
        if self.trainer.world_size > 1:  # the mean over processes is to be the mean over events
            loss = loss * (weight * self.trainer.world_size / max(sums["events"], 1.0))
        nowhere = torch.empty(0, dtype=torch.int64, device=self.device)
        for table in self._tables:  # tables without look-ups need a gradient too, for DDP to exchange
            loss = loss + F.embedding(nowhere, table, sparse=True).sum()
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        clip_gradients(self.network.parameters(), MAX_GRADIENT_NORM)

    def on_train_epoch_end(self) -> None:
        """Validate the network, add a row to the curve, and write checkpoints."""
        if not self._sums:
            raise ValueError("the loader yields no batch to train on")
        events = self._sums.pop("events")
        row = {name: value / max(events, 1.0) for name, value in self._sums.items()}
        self._sums = {}
        scores: dict[str, float] = {}
        if self.trainer.is_global_zero:  # one process validates, so that all stop at the same epoch
            self.network.eval()
            with torch.no_grad():
                scores = self._validate()
            self.network.train()
        scores = self.trainer.strategy.broadcast(scores)
        self._check_finite(scores, "validation")
        self.log(VAL_SCORE, scores[VAL_SCORE], prog_bar=True, batch_size=1, rank_zero_only=True)
        best = all(scores[VAL_SCORE] > past[VAL_SCORE] for past in self.curve)
        self.curve.append(row | scores | {"epoch": self.current_epoch})
        if self._folder is not None:
            if best:
                self.trainer.save_checkpoint(self._folder / BEST_FILE, weights_only=True)
            self.trainer.save_checkpoint(self._folder / LAST_FILE)
        elif best and self.trainer.is_global_zero:
            self._keep_best()
        self.trainer.should_stop = self.finished
        if self._lines and self.trainer.is_global_zero:
            self._print_line(row["loss"], scores)

    def _keep_best(self) -> None:
        """Keep a copy of the best weights in memory: a file with user rows would outlive a killed process."""
        for name, value in self.network.state_dict().items():
            if not isinstance(value, Tensor):
                self.best[name] = copy.deepcopy(value)
            elif name in self.best:
                self.best[name].copy_(value)
            else:
                self.best[name] = value.detach().to("cpu", copy=True)

    def _check_finite(self, values: dict[str, float], where: str) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"epoch {self.current_epoch + 1}: {name!r} of {where} is not finite")

    def _print_line(self, loss: float, scores: dict[str, float]) -> None:
        """Print a line for log files."""
        now, epochs, number = time.perf_counter(), self._settings["max_epochs"], len(self.curve)
        left = (now - self._begun[0]) / len(self._begun) * (epochs - number)
        parts = [f"loss {loss:.3f}", *(f"{name} {score:.3f}" for name, score in scores.items())]
        parts += [f"{now - self._begun[-1]:.0f} s", "done" if self.finished else f"at most {left:.0f} s left"]
        print(f"epoch {number}/{epochs}: {', '.join(parts)}", file=sys.stderr, flush=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["run"] = {"curve": self.curve, "key": self._key}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self._settings
        optimizer = adamw(self.network, lr=settings["lr"], weight_decay=settings["weight_decay"])
        total_steps = settings["max_epochs"] * settings["steps_per_epoch"]

        def rate(step: int) -> float:
            wave = 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / total_steps)))
            return min(1.0, (step + 1) / WARMUP_STEPS) * (0.05 + 0.95 * wave)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Any, *_: Any) -> Any:
        """Leave batches on the device of the index; the network moves its inputs."""
        return batch


class _ProgressBar(TQDMProgressBar):
    """A progress bar with an approximate number of batches."""

    def __init__(self, steps_per_epoch: int) -> None:
        super().__init__()
        self._steps = steps_per_epoch

    @property
    def total_train_batches(self) -> int:
        return self._steps


@one_intra_op_thread()
def train(
    network: nn.Module,
    loader: Iterable[Any],
    *,
    losses: Callable[[Any, int], dict[str, Tensor]],
    validate: Callable[[], dict[str, float]],
    steps_per_epoch: int,
    max_epochs: int,
    patience: int,
    lr: float = 3e-3,
    weight_decay: float = 0.01,
    seed: int = 0,
    folder: Path | None = None,
    key: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Curve:
    """Train a network; afterwards it is on the CPU, with the weights of its best epoch.

    The optimizer is AdamW, row-sparse for `nn.Embedding(..., sparse=True)`, with 50 warm-up steps and a
    cosine schedule down to 5 %; gradients are clipped at norm 1. Ctrl-C arrives as a `KeyboardInterrupt`.

    Under torchrun every process calls this with the same arguments. Each trains on its part of every batch
    (see `num_processes`), gradients are averaged by events, the first process validates and writes, and all
    end with the same weights. A step is still one batch of the loader, so the schedule is the same.

    Args:
        network: trained in place.
        loader: batches of an epoch; `set_epoch` of it and of its samplers is called if they have it.
        losses: from a batch and the epoch to scalars: 'loss' to minimize, a mean over 'events', their number,
            and further terms to log.
        validate: called after each epoch; its 'val_score', higher is better, chooses the epoch.
        steps_per_epoch: approximate number of batches in an epoch.
        max_epochs: number of epochs, at most.
        patience: epochs without a better `val_score` after which training stops.
        lr: learning rate.
        weight_decay: decoupled; of rows of sparse tables whenever they are touched.
        seed: fixes dropout, and the order of a loader that shuffles by torch's own generator.
        folder: for checkpoints, `last.ckpt` to resume from and `best.ckpt`; an interrupted run resumes after
            its last whole epoch, with the same result. All processes need access to it. Checkpoints of
            another run are replaced, with a `ReplacedRunWarning` that names the differences. Without a
            folder, no file is written.
        key: with a folder, identifies the run, besides the arguments here, the network's initial values and
            graphrec's code: name to content, for `graphrec.data.digest_value`. It should hold everything that
            `loader`, `losses` and `validate` depend on, such as `digest_graph(graph)` and `until`.
        progress: show a bar on a terminal, elsewhere a line an epoch, on standard error.

    Returns:
        the learning curve, one row an epoch: the terms of `losses` as means over events, the values of
        `validate`, and 'epoch' from 0.

    Raises:
        FloatingPointError: a term of the loss, or of validation, is not finite.
        ValueError: the loader is empty, a count is below 1, or `folder` is given without a `key`.
        DataError: `folder` holds other files under the names of checkpoints.
    """
    counts = {"steps_per_epoch": steps_per_epoch, "max_epochs": max_epochs, "patience": patience}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if folder is not None and not key:
        raise ValueError("train(folder=...) needs a key that names the data and settings of the run")
    settings: dict[str, Any] = {
        "steps_per_epoch": steps_per_epoch,
        "max_epochs": max_epochs,
        "lr": lr,
        "weight_decay": weight_decay,
        "seed": seed,
    }
    terminal = sys.stderr.isatty()
    with _preserve_global_state():
        known: Key = {}
        curve: Curve = []
        last: Path | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            given = settings | {"patience": patience} | dict(key or {})
            known = run_key(network, given, with_values=num_processes() == 1)
            curve = resume_curve(folder, known, writes=is_first_process())
            last = folder / LAST_FILE if curve else None
        batches = _EpochBatches(share_batches(loader), seed=seed, epoch=len(curve))
        engine = _TrainingModule(
            network,
            batches,
            losses,
            validate,
            curve,
            settings,
            patience,
            folder,
            known,
            lines=progress and not terminal,
        )
        first = True
        if not engine.finished:
            trainer = pl.Trainer(
                **trainer_placement(),
                max_epochs=max_epochs,
                callbacks=[_ProgressBar(steps_per_epoch)] if progress and terminal else [],
                enable_progress_bar=progress and terminal,
                enable_checkpointing=False,
                enable_model_summary=False,
                logger=False,
                plugins=[CheckpointFiles()],
            )
            trainer.fit(engine, batches, ckpt_path=last, weights_only=True)
            first = trainer.is_global_zero
            # A trainer is in reference cycles with the loader and its graph.
            engine.trainer = trainer = None  # type: ignore[assignment]
            gc.collect()
        if folder is None:
            best = engine.best
        else:
            best = best_weights(folder, known) if first or last is not None else {}
        if best:
            network.load_state_dict(best)
        if num_processes() > 1 and torch.distributed.is_initialized():
            for tensor in network.state_dict().values():
                torch.distributed.broadcast(tensor, 0)
        network.eval()
        return curve


def _seed_of(*parts: int) -> int:
    """A seed for torch from several numbers."""
    return int(hashed(*(torch.tensor(part) for part in parts)))


@contextmanager
def _preserve_global_state() -> Iterator[None]:
    """Restore the caller's random state, log levels, warnings and handler of Ctrl-C."""
    loggers = {logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")}
    levels = {logger: logger.level for logger in loggers}
    handler = signal.getsignal(signal.SIGINT)
    with torch.random.fork_rng(range(torch.cuda.device_count())), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        except SystemExit as end:  # Lightning turns a Ctrl-C into this
            if isinstance(end.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)
            if (
                signal.getsignal(signal.SIGINT) is not handler
            ):  # Lightning leaves its own, which ignores the next
                signal.signal(signal.SIGINT, handler)
