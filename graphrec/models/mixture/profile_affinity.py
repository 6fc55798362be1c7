"""Training of the affinity of profiles: from features alone, who comes into contact with whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.data.draws import hashed
from graphrec.models.mixture.view import GraphView
from graphrec.nn import ProfileNet

BATCH_SIZE, NUM_EPOCHS = 1024, 8
"""Pairs of a step, and passes over all pairs."""

MIN_STEPS, MAX_STEPS = 200, 2048
"""Steps in all: small networks have more passes, large ones fewer."""

LR, WEIGHT_DECAY, WARM_UP = 3e-3, 1e-2, 0.1

HIDDEN_SHARE = 0.3
"""Share of the features hidden in a step: many features together would tell single users apart."""

HELD_OUT_SHARE, MAX_HELD_OUT_PAIRS = 0.05, 4096
"""Share of users held out to find how much the affinity counts, and their pairs, at most."""

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Factors of the affinity that are tried on users held out."""

MIN_PAIRS = 64
"""Pairs without which there is no affinity."""


@dataclass(frozen=True)
class ProfilePairs:
    """Pairs of users in contact before a time, in both directions, and what is known of them.

    Attributes:
        x: [n, F + 1] float32, profiles of the users known in training, in the order of their rows.
        one, other: [E] int64, positions among these users, in an order that no user index enters.
        log_degree: [n] float32, log(1 + number of contacts).
    """

    x: Tensor
    one: Tensor
    other: Tensor
    log_degree: Tensor

    @classmethod
    def of(cls, view: GraphView) -> ProfilePairs:
        """The contacts of a view's training period between users whose features are known by its end."""
        timeline, until, profiles = view.timeline, view.period.until, view.profiles
        assert profiles is not None
        users, end = view.known, timeline.tick(torch.tensor(until))
        one, contact = timeline.contacts.before(users, end.expand(len(users)))
        other = view.row[contact] - 1
        degree = torch.bincount(one, minlength=len(users)).float()
        known = profiles.since[users] < until
        kept = known[one] & known[other]
        key = (one * len(users) + other)[kept].sort().values
        return cls(profiles.x[users], key // len(users), key % len(users), degree.log1p())

    def select(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs at positions `kept`: ([n], [n]) int64."""
        return self.one[kept], self.other[kept]


def fit_affinity(profile: ProfileNet, view: GraphView, *, seed: int) -> None:
    """Train the affinity of a network's profiles on the contacts of the training period, and fix it.

    Each user of a contact has to retrieve the other among those of a batch: by affinity and number of
    contacts, and by affinity and the popularity expected from features (in-batch sampled softmax with logQ
    correction, Yi et al. 2019, https://doi.org/10.1145/3298689.3346996). Some users are held out whole, like
    newcomers; the affinity is then multiplied by the factor, at most 1, under which theirs are retrieved
    best: where features say nothing, by 0.

    Args:
        profile: changed in place.
        view: a graph with profiles, and its training period.
        seed: fixes all draws.
    """
    pairs = ProfilePairs.of(view)
    size = len(pairs.x)
    is_held_out = torch.zeros(size, dtype=torch.bool)
    is_held_out[hashed(seed, torch.arange(size)).argsort()[: int(HELD_OUT_SHARE * size)]] = True
    number = is_held_out[pairs.one].long() + is_held_out[pairs.other].long()
    trained, held_out = ((number == count).nonzero().squeeze(1) for count in (0, 1))
    if len(trained) < MIN_PAIRS or not len(held_out):
        _multiply(profile, 0.0)
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        profile.train_affinity(True)
        popularity = _train(profile, pairs, trained)
        profile.train_affinity(False)
        judged = held_out[torch.randperm(len(held_out))[:MAX_HELD_OUT_PAIRS]]
    with torch.no_grad():
        loss = [
            sum(
                float(_loss(profile, pairs, part, popularity, factor=factor)) * len(part)
                for part in judged.split(BATCH_SIZE)
            )
            for factor in WEIGHTS
        ]
    _multiply(profile, min(zip(loss, WEIGHTS, strict=True))[1])


def _train(profile: ProfileNet, pairs: ProfilePairs, trained: Tensor) -> Tensor:
    """Train on pairs at positions `trained`; return the exponent of the number of contacts, []."""
    popularity = nn.Parameter(torch.ones(()))
    weights = [*profile.query.parameters(), *profile.target.parameters()]
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": [popularity], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, weight_decay=WEIGHT_DECAY)
    steps = min(max(NUM_EPOCHS * len(trained) // BATCH_SIZE, MIN_STEPS), MAX_STEPS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps, pct_start=WARM_UP)
    left = trained[:0]
    for _ in range(steps):
        if len(left) < min(BATCH_SIZE, len(trained)):
            left = torch.cat([left, trained[torch.randperm(len(trained))]])
        part, left = left[:BATCH_SIZE], left[BATCH_SIZE:]
        loss = _loss(profile, pairs, part, popularity, hidden=HIDDEN_SHARE)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return popularity.detach()


def _loss(
    profile: ProfileNet,
    pairs: ProfilePairs,
    part: Tensor,
    popularity: Tensor,
    *,
    hidden: float = 0.0,
    factor: float = 1.0,
) -> Tensor:
    """The loss of pairs at positions `part` [n], with a share of the features hidden: []."""
    user, target = pairs.select(part)
    query, person = (_hide(pairs.x[side], hidden) for side in (user, target))
    factors, place = profile.target(person), torch.arange(len(part))
    again = (target[None] == target[:, None]).fill_diagonal_(False)
    score = factor * (profile.query(query) @ factors[:, :-2].T + factors[:, -2])
    log_q = pairs.log_degree[target]
    known = score + (popularity - 1.0) * log_q
    expected = score.detach() + factors[:, -1] - log_q
    first, second = (F.cross_entropy(x.masked_fill(again, -torch.inf), place) for x in (known, expected))
    return first + second


def _hide(x: Tensor, share: float) -> Tensor:
    """Hide a share of the features in all profiles [n, F + 1], but not the last column; scale the others."""
    if not share:
        return x
    kept = torch.ones(x.size(1))
    kept[:-1] = (torch.rand(x.size(1) - 1) >= share) / (1.0 - share)
    return x * kept


@torch.no_grad()
def _multiply(profile: ProfileNet, factor: float) -> None:
    """Multiply the affinity and the expected popularity by a factor."""
    last = profile.target[-1]
    assert isinstance(last, nn.Linear)
    last.weight.mul_(factor)
    last.bias.mul_(factor)
