"""The network of a mixture recommender, put together from its parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from graphrec.nn.mixture import NeighborhoodMixture
from graphrec.nn.profiles import ProfileNet
from graphrec.nn.user_tower import UserTower


@runtime_checkable
class HasUserRows(Protocol):
    """A head's module with parameters in rows, one for each user known in training."""

    def with_rows(self, rows: Tensor) -> nn.Module:
        """Copy the module for fewer users.

        Args:
            rows: [n] int64, the rows of users to keep, from 1 on, renumbered 1..n. Row 0, for unknown users,
                is always kept.
        """


class MixtureNetwork(nn.Module):
    """A container of the user tower, the network that scores the neighborhood, and the head's network.

    It has no `forward`: `graphrec.models.mixture` calls its parts.

    Args:
        tower: encodes queries.
        mixture: scores the neighborhood; None without components.
        profile: layers over users' profiles; None if the graph has none.
        head: the module of the head.
    """

    def __init__(
        self,
        tower: UserTower,
        mixture: NeighborhoodMixture | None,
        profile: ProfileNet | None,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.tower, self.mixture, self.profile, self.head = tower, mixture, profile, head

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield names and parameters: tower's and head's own first, then those of their submodules.

        The order fixes the rounding of the gradient norm, a sum over parameters.
        """
        named = list(super().named_parameters(prefix, recurse, remove_duplicate))
        own = {id(p) for part in (self.tower, self.head) for p in part.parameters(recurse=False)}
        yield from (pair for pair in named if id(pair[1]) in own)
        yield from (pair for pair in named if id(pair[1]) not in own)

    @property
    def device(self) -> torch.device:
        """The device of the parameters; the index of the graph stays on the CPU."""
        return self.tower.no_history.device

    def with_head(self, head: nn.Module) -> MixtureNetwork:
        """The same parts, not copied, with another module as head."""
        return MixtureNetwork(self.tower, self.mixture, self.profile, head).train(self.training)
