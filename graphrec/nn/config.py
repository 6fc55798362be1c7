"""The sizes and parts of a user tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from graphrec.data.checks import check_choice, check_count, check_dropout
from graphrec.nn.layers import Activation, check_heads

History = Literal["transformer", "pooled", "mean"]
Interaction = Literal["mlp", "moe"]

MAX_SIZES = {
    "embedding_dim": 2**14,
    "hidden_channels": 2**14,
    "num_layers": 2**10,
    "num_heads": 2**10,
    "window": 2**20,
}
"""Largest allowed sizes of a network."""


@dataclass(frozen=True)
class EncoderConfig:
    """The configuration of a user tower.

    Attributes:
        history: the timeline encoder: 'transformer' (`HistoryEncoder`), 'pooled' (`PooledHistory`) or 'mean'
            (`MeanHistory`).
        interaction: how the inputs of the tower are combined: 'mlp', one hidden layer, or 'moe'
            (`MixtureOfExperts`).
        activation: 'gelu' or 'swiglu', in encoder and interaction.
        embedding_dim: D, width of user embeddings and query vectors.
        hidden_channels, num_layers, num_heads: of the timeline encoder.
        window: number of latest events that each event attends to, itself included.
        dropout: in the encoder and the towers.

    Raises:
        TypeError: a value has a wrong type.
        ValueError: a value is unknown or out of range.
    """

    history: History = "transformer"
    interaction: Interaction = "mlp"
    activation: Activation = "gelu"
    embedding_dim: int = 64
    hidden_channels: int = 64
    num_layers: int = 2
    num_heads: int = 4
    window: int = 32
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_choice("history", self.history, get_args(History))
        check_choice("interaction", self.interaction, get_args(Interaction))
        check_choice("activation", self.activation, get_args(Activation))
        for name, maximum in MAX_SIZES.items():
            object.__setattr__(self, name, check_count(name, getattr(self, name), maximum=maximum))
        object.__setattr__(self, "dropout", check_dropout(self.dropout))
        if self.history != "mean":
            check_heads("hidden_channels", self.hidden_channels, self.num_heads)
