"""Training with pytorch-lightning: progress, early stopping, checkpoints to resume from."""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

WARMUP_STEPS = 50
SCORE = "val_score"


class _Engine(pl.LightningModule):
    """What the training engine sees of a network."""

    def __init__(
        self,
        network: nn.Module,
        losses: Callable[[Any, int], dict[str, Tensor]],
        validate: Callable[[], dict[str, float]],
        total_steps: int,
        lr: float,
        weight_decay: float,
    ) -> None:
        super().__init__()
        self.network = network
        self.curve: list[dict[str, float]] = []
        self._losses, self._validate = losses, validate
        self._total_steps, self._lr, self._weight_decay = total_steps, lr, weight_decay
        self._seen: list[dict[str, float]] = []

    def training_step(self, batch: Any, _: int) -> Tensor:
        losses = self._losses(batch, self.current_epoch)
        self._seen.append({key: float(value.detach()) for key, value in losses.items()})
        self.log("loss", losses["loss"].detach(), prog_bar=True, batch_size=1)
        return losses["loss"]

    def on_train_epoch_end(self) -> None:
        """Weigh the epoch's batches by their events, judge the network, and note both."""
        weights = [step["events"] for step in self._seen]
        row = {
            key: sum(w * step[key] for w, step in zip(weights, self._seen, strict=True))
            / max(sum(weights), 1)
            for key in self._seen[0]
            if key != "events"
        }
        self._seen.clear()
        self.network.eval()
        scores = self._validate()
        self.network.train()
        self.curve.append(row | scores | {"epoch": self.current_epoch})
        self.log(SCORE, scores[SCORE], prog_bar=True, batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["curve"] = self.curve

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.curve = checkpoint["curve"]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self._lr, weight_decay=self._weight_decay)

        def rate(step: int) -> float:
            wave = 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / self._total_steps)))
            return min(1.0, (step + 1) / WARMUP_STEPS) * (0.05 + 0.95 * wave)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Any, *_: Any) -> Any:
        """Batches stay where the index is; the network moves what it computes with."""
        return batch


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
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train a network and leave it with the weights of its best epoch.

    AdamW with 50 warm-up steps and a cosine down to 5 %; gradients clipped at norm 1.

    Args:
        network: whose parameters are trained.
        loader: batches of an epoch; a sampler with `set_epoch` is told the epoch.
        losses: of a batch and an epoch: 'loss' to minimise, 'events' to weigh batches, others to log.
        validate: called after each epoch; 'val_score', higher is better, chooses the epoch.
        steps_per_epoch: batches in an epoch, about.
        max_epochs: the most epochs.
        patience: epochs without a better `val_score` after which training stops.
        lr: learning rate.
        weight_decay: of AdamW.
        seed: fixes dropout.
        folder: for checkpoints; a run interrupted there goes on from its last epoch.
        progress: show a bar, where there is a terminal.

    Returns:
        The learning curve, one row an epoch.
    """
    with TemporaryDirectory() as scratch, torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        torch.manual_seed(seed)
        checkpoints = folder or Path(scratch)
        engine = _Engine(network, losses, validate, max_epochs * steps_per_epoch, lr, weight_decay)
        best = ModelCheckpoint(
            dirpath=checkpoints,
            filename="best",
            monitor=SCORE,
            mode="max",
            save_last=True,
            enable_version_counter=False,
        )
        trainer = pl.Trainer(
            accelerator="auto",
            devices=1,
            max_epochs=max_epochs,
            gradient_clip_val=1.0,
            callbacks=[EarlyStopping(SCORE, mode="max", patience=patience), best],
            logger=False,
            enable_progress_bar=progress and sys.stderr.isatty(),
            enable_model_summary=False,
            default_root_dir=scratch,
        )
        last = checkpoints / "last.ckpt"
        trainer.fit(engine, loader, ckpt_path=last if last.exists() else None)
        state = torch.load(best.best_model_path, weights_only=True, map_location="cpu")["state_dict"]
        network.load_state_dict({key.removeprefix("network."): value for key, value in state.items()})
        network.eval()
        return engine.curve
