"""Roles of actions: which acts make a tie, which end or refuse it, and which are no acts at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import torch
from torch import Tensor

from graphrec.data.errors import DataError

if TYPE_CHECKING:
    from graphrec.data.graph import FriendGraph

Role = Literal["ordinary", "end", "negative", "block", "impression"]

ROLES: tuple[Role, ...] = get_args(Role)

DEFAULT_ROLES: Mapping[str, Role] = {
    **dict.fromkeys(
        ("unfriend", "unfriended", "unfollow", "unfollowed", "unmatch", "disconnect", "remove_friend"), "end"
    ),
    **dict.fromkeys(
        (
            *("decline", "declined", "reject", "rejected", "dismiss", "dismissed", "distrust", "dislike"),
            *("ignore", "ignored", "hide", "mute", "downvote", "report", "unblock"),
        ),
        "negative",
    ),
    **dict.fromkeys(("block", "blocked"), "block"),
    **dict.fromkeys(("impression", "impressions", "shown"), "impression"),
}
"""Roles by an action's name in lower case, with `_` for blanks and hyphens; others are 'ordinary'."""


@dataclass(frozen=True)
class Roles:
    """The role of each action.

    - 'ordinary': it begins or answers a tie. Only these acts are wanted outcomes, which models learn and
      evaluation counts.
    - 'end': it ends the tie of the two, which begins anew with later ordinary acts of both.
    - 'negative': it refuses (decline, dismiss, distrust). Known from then on, but no tie and no reply.
    - 'block': it ends the tie, and neither is ever suggested to the other.
    - 'impression': the person was shown. No act: no query, model or count reads it.

    Attributes:
        actions: names of the actions.
        roles: of these actions.
    """

    actions: tuple[str, ...]
    roles: tuple[Role, ...]

    @classmethod
    def of(cls, actions: Sequence[str], given: Mapping[str, str] | None = None) -> Self:
        """Give each action its role: the one given, or the default of its name.

        Args:
            actions: names of all actions.
            given: roles by action.

        Raises:
            TypeError: `given` is not a mapping.
            DataError: an action or role in `given` is unknown; the nearest known one is named.
        """
        given = {} if given is None else given
        if not isinstance(given, Mapping):
            raise TypeError(
                f"roles must map actions to roles, such as {{'decline': 'negative'}}, got {given!r}"
            )
        for action, role in given.items():
            if action not in actions:
                raise DataError(f"roles: unknown action {action!r}; {_nearest(action, actions)}")
            if role not in ROLES:
                raise DataError(f"roles: unknown role {role!r} of {action!r}; {_nearest(role, ROLES)}")
        found = [given.get(name, default_role(name)) for name in actions]
        return cls(tuple(actions), tuple(role for name in found for role in ROLES if role == name))

    @classmethod
    def parse(cls, text: str) -> dict[str, str]:
        """Parse roles of a command line, such as 'decline=negative,unfriend=end'.

        Raises:
            DataError: a part is not ACTION=ROLE, or names an action twice.
        """
        out: dict[str, str] = {}
        for part in text.split(","):
            action, equals, role = (piece.strip() for piece in part.rpartition("="))
            if not action or not equals or not role:
                raise DataError(f"roles: {part!r} is not ACTION=ROLE, such as decline=negative,unfriend=end")
            if action in out:
                raise DataError(f"roles: the action {action!r} has two roles, {out[action]} and {role}")
            out[action] = role
        return out

    @property
    def all_ordinary(self) -> bool:
        """Whether every action is ordinary."""
        return all(role == "ordinary" for role in self.roles)

    @property
    def ends_ties(self) -> bool:
        """Whether an action ends ties."""
        return not {"end", "block"}.isdisjoint(self.roles)

    def having(self, *roles: Role) -> Tensor:
        """Tell which actions have one of some roles: [A] bool, by index of the action."""
        return torch.tensor([role in roles for role in self.roles], dtype=torch.bool)

    @property
    def wanted(self) -> Tensor:
        """Tell which actions are wanted outcomes, the ordinary ones: [A] bool."""
        return self.having("ordinary")

    def overrides(self) -> dict[str, str]:
        """Return the roles that are not the defaults of their names, by action."""
        both = zip(self.actions, self.roles, strict=True)
        return {name: role for name, role in both if role != default_role(name)}

    def __str__(self) -> str:
        """The actions that are not ordinary, such as 'decline=negative, unfriend=end'."""
        both = zip(self.actions, self.roles, strict=True)
        return ", ".join(f"{name}={role}" for name, role in both if role != "ordinary") or "all ordinary"


def default_role(action: str) -> Role:
    """Return the role of an action by its name alone."""
    return DEFAULT_ROLES.get(action.strip().lower().replace("-", "_").replace(" ", "_"), "ordinary")


def _nearest(name: Any, known: Sequence[str]) -> str:
    like = get_close_matches(str(name), known, n=1)
    return f"did you mean {like[0]!r}?" if like else f"there are {', '.join(known)}"


def wanted_events(graph: FriendGraph, event_ids: Tensor) -> Tensor:
    """Return those of some events, positions in the log [n] int64, whose actions are wanted outcomes."""
    roles = graph.roles
    return event_ids if roles.all_ordinary else event_ids[roles.wanted[graph.events().action[event_ids]]]


def commonest_action(roles: Roles, counts: Sequence[int]) -> int:
    """Return the index of the wanted action with the most events [A]; of any, if none is wanted."""
    wanted = roles.wanted.tolist()
    return max(range(len(counts)), key=lambda code: (wanted[code], counts[code], -code))
