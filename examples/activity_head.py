"""A head of one's own: how likely users are by how active they are, with nothing learned of single users."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from graphrec.features import Candidates
from graphrec.models import MixtureConfig, MixtureRecommender, register_head
from graphrec.models.heads.softmax import SampledSoftmax
from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.models.mixture.profile_parts import add_person_logits
from graphrec.models.mixture.view import GraphView
from graphrec.nn import EncoderConfig, MixtureNetwork, PresenceScore


class ActivityNet(nn.Module):
    """Two embeddings, of users with and without a past, and a score of presence."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.user, self.presence = nn.Embedding(2, embedding_dim), PresenceScore()


@dataclass(frozen=True)
class ActivityHead:
    """P(v) as a softmax over the presence of v."""

    kind: ClassVar[str] = "activity"
    features: ClassVar[tuple[str, ...]] = ("presence", "spectral")
    tokenizer: ClassVar[None] = None

    def fit(self, view: GraphView) -> Self:
        """Nothing has to be learned before there is a network."""
        return self

    def build(self, view: GraphView, encoder: EncoderConfig, features: Collection[str]) -> ActivityNet:
        """Its part of the network."""
        return ActivityNet(encoder.embedding_dim)

    def with_rows(self, module: nn.Module, rows: Tensor) -> nn.Module:
        """It has no rows of users."""
        return module

    def bind(
        self, view: GraphView, network: MixtureNetwork, *, training: bool = False
    ) -> "BoundActivityHead":
        """What answers on a graph."""
        assert isinstance(network.head, ActivityNet)
        return BoundActivityHead(self, view, network, network.head)

    def run_key(self) -> Mapping[str, Any]:
        """It has no settings."""
        return {}

    def save(self, folder: Path) -> Mapping[str, Any]:
        """It has no settings and no files."""
        return {}

    @classmethod
    def load(cls, settings: Mapping[str, Any], folder: Path) -> Self:
        """The head again."""
        return cls()


@dataclass(frozen=True)
class BoundActivityHead:
    """An `ActivityHead` bound to a graph and a network."""

    head: ActivityHead
    view: GraphView
    network: MixtureNetwork
    net: ActivityNet

    first_time: ClassVar[int] = 0

    def embed_users(self, user: Tensor, tick: Tensor) -> Tensor:
        """One of two embeddings of the queries' users, by whether they have earlier events: [n, D]."""
        has_past = self.view.timeline.first_tick[user] < tick
        out: Tensor = self.net.user(has_past.long().to(self.network.device))
        return out

    def embed_others(self, user: Tensor, tick: Tensor) -> Tensor:
        """Embeddings of the other users of events, who have this event: [n, D]."""
        out: Tensor = self.net.user(torch.ones_like(user).to(self.network.device))
        return out

    def logits(self, encoded: EncodedQuery) -> Tensor:
        """Logits of all users: [B, N]."""
        users = torch.arange(self.view.graph.num_users)
        flat = encoded.vector.new_zeros(len(encoded), len(users))
        return add_person_logits(self.view, self.network, flat, encoded, users, self.net.presence)

    def log_probs(self, encoded: EncodedQuery) -> Tensor:
        """Log-probabilities of all users: [B, N]."""
        return self.logits(encoded).log_softmax(1)

    def likelihood(self, encoded: EncodedQuery, target: Tensor, draw: Tensor) -> SampledSoftmax:
        """The likelihood of targets [B] in the softmax over all users, without sampled negatives."""
        users = torch.arange(self.view.graph.num_users)
        candidates = Candidates(users, torch.zeros(len(users)), torch.ones(len(users), dtype=torch.bool))
        negatives = (users != encoded.query.user[:, None]) & (users != target[:, None])
        return SampledSoftmax(candidates, self.logits(encoded), target, negatives)


register_head(ActivityHead)  # so that saved models can be loaded


def activity(
    config: MixtureConfig | None = None, *, progress: bool = True
) -> MixtureRecommender[BoundActivityHead]:
    """A mixture recommender with this head."""
    return MixtureRecommender(ActivityHead(), config, progress=progress)
