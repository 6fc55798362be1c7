"""Checks of what a neighborhood model is built with, before anything is built."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, get_args

from graphrec.data.checks import (
    check_choice,
    check_count,
    check_dropout,
    check_flags,
    check_folder,
    check_number,
    check_seed,
)
from graphrec.nn import Activation, History, Interaction
from graphrec.temporal import Reach

PARTS = {
    "history": get_args(History),
    "interaction": get_args(Interaction),
    "activation": get_args(Activation),
}
"""What the parts of the user tower may be."""

MAX_WIDTH, MAX_LAYERS, MAX_WINDOW = 2**14, 2**10, 2**20
"""Bounds of what makes a network large: channels, layers, and acts that see each other."""


def check_hyperparameters(arguments: Mapping[str, Any], known_sources: Collection[str]) -> None:
    """Check the arguments of a constructor by their names.

    Raises:
        TypeError: one is of another kind.
        ValueError: one is out of range, or unknown.
    """
    sources = arguments["sources"]
    if isinstance(sources, str):
        raise TypeError(f"sources must be several names, such as [{sources!r}], got the string {sources!r}")
    unknown = [name for name in sources if name not in known_sources]
    if unknown:
        raise ValueError(f"unknown source {unknown[0]!r}; there are {', '.join(known_sources)}")
    for part, known in PARTS.items():
        check_choice(part, arguments[part], known)
    for name in ("embedding_dim", "hidden_channels"):
        check_count(name, arguments[name], maximum=MAX_WIDTH)
    for name in ("num_layers", "num_heads"):
        check_count(name, arguments[name], maximum=MAX_LAYERS)
    check_count("window", arguments["window"], maximum=MAX_WINDOW)
    for name in ("batch_acts", "max_queries", "epoch_batches", "max_epochs", "patience"):
        check_count(name, arguments[name])
    if "num_rand_negs" in arguments:
        check_count("num_rand_negs", arguments["num_rand_negs"], minimum=0)
    if arguments["history"] != "mean":
        check_heads("hidden_channels", arguments["hidden_channels"], arguments["num_heads"])
    check_dropout(arguments["dropout"])
    check_number("temporal_weight", arguments["temporal_weight"], minimum=0.0)
    check_seed(arguments["seed"])
    check_flags(progress=arguments["progress"])
    if arguments["reach"] is not None and not isinstance(arguments["reach"], Reach):
        raise TypeError(f"reach must be a Reach, got a {type(arguments['reach']).__name__}")
    if arguments["folder"] is not None:
        check_folder(arguments["folder"])


def check_heads(name: str, channels: int, num_heads: int) -> None:
    """Channels that can be shared among attention heads; raises ValueError where they cannot."""
    if channels % num_heads:
        raise ValueError(f"{name} must be a multiple of num_heads, got {channels} and {num_heads}")
