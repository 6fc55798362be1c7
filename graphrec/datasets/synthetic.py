"""A synthetic social network with known true probabilities."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from graphrec.datasets.base import FriendDataset
from graphrec.datasets.raw import replacing
from graphrec.datasets.simulation import Simulation
from graphrec.datasets.world import World

MAX_USERS = 2**24


class SyntheticFriends(FriendDataset):
    """A simulated social network: a PyG data set of one `FriendGraph`, with the `World` that drives it.

    Five actions (`ACTIONS`); time is cut into hours. The target of an act is drawn from a mixture of
    mechanisms (`TARGET_MECHANISMS`) over the state at the start of the hour, so its probability is known
    exactly (`graphrec.models.Oracle`). Requests are accepted after a delay, with a probability that depends
    on both sides and is known too (`World.reply_probability`). `x` is [N, 9]: `age`, and `region=0` to
    `region=7`; communities, openness, charm and activity are hidden. The same arguments give the same world.

    Args:
        num_users: N, at least 2; some may be without an event.
        num_events: the number of events.
        seed: fixes all draws.
        num_days: the span, from Monday, 1 January 2024.
        without: mechanisms to switch off, of `MECHANISMS`.
        root: folder for the processed files; by default as for every `FriendDataset`.
        transform: applied at every access.
        force_reload: simulate again.
        roles: of actions, other than those of their names (see `Roles`).

    Attributes:
        world: the hidden state and true probabilities, by user index.

    Raises:
        ValueError: a number is out of range, or a mechanism unknown.
    """

    name = "Synthetic"
    source = "simulated"
    license_terms = "MIT"
    citation = "graphrec"
    files = ()

    def __init__(
        self,
        num_users: int = 2_000,
        num_events: int = 60_000,
        seed: int = 0,
        *,
        num_days: int = 90,
        without: Collection[str] = (),
        root: str | os.PathLike[str] | None = None,
        transform: Callable[[Any], Any] | None = None,
        force_reload: bool = False,
        roles: Mapping[str, str] | None = None,
    ) -> None:
        limits = {"num_users": (num_users, 2, MAX_USERS), "num_events": (num_events, 1, 2**31)}
        limits["num_days"] = (num_days, 1, 3650)
        for name, (value, low, high) in limits.items():
            if not low <= value <= high:
                raise ValueError(f"{name} must lie in {low}..{high}, got {value}")
        self.num_users, self.num_events, self.seed, self.num_days = num_users, num_events, seed, num_days
        self.without = tuple(sorted(set(without)))
        super().__init__(root, transform, force_reload=force_reload, roles=roles)
        self.world = World.load(self.processed_paths[1])

    @property
    def processed_file_names(self) -> list[str]:
        """Names of the files of the graph and of its world."""
        return [f"{kind}-{self.content_key()}.pt" for kind in ("graph", "world")]

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the simulation."""
        names = ("num_users", "num_events", "seed", "num_days", "without")
        return {name: getattr(self, name) for name in names}

    def process(self) -> None:
        """Simulate, and save the graph and its world."""
        generator = torch.Generator().manual_seed(self.seed)
        world = World.draw(self.num_users, num_days=self.num_days, without=self.without, generator=generator)
        simulation = Simulation(
            world, num_events=self.num_events, num_days=self.num_days, generator=generator
        )
        simulation.run()
        graph, world = self.processed_paths
        with replacing(Path(world)) as partial:
            simulation.truth().save(partial)
        with replacing(Path(graph)) as partial:
            simulation.graph().save(partial)
        self.delete_outdated()
