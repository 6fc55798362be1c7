"""A head of one's own: how likely users are by how active they are, with nothing learned of single users."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from graphrec.models import (
    EncodedQuery,
    FullSoftmax,
    GraphView,
    MixtureRecommender,
    add_person_logits,
    mixture_config,
    register_head,
    register_model,
)
from graphrec.nn import EncoderConfig, MixtureNetwork, PresenceScore


class ActivityNet(nn.Module):
    """Embeddings of users without and with a past, and a score of presence."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.user, self.presence = nn.Embedding(2, embedding_dim), PresenceScore()


@dataclass(frozen=True)
class ActivityScores:
    """What `FullSoftmax` needs: embeddings and logits of users on a graph."""

    view: GraphView
    network: MixtureNetwork
    net: ActivityNet

    def embed_users(self, user: Tensor, tick: Tensor) -> Tensor:
        """One of two embeddings of users [n], by whether they have events before ticks [n]: [n, D]."""
        has_past = self.view.timeline.first_tick[user] < tick
        return self.net.user.weight[has_past.long().to(self.network.device)]

    def logits(self, encoded: EncodedQuery) -> Tensor:
        """Logits of all users by their presence: [B, N]."""
        flat = encoded.vector.new_zeros(len(encoded), self.view.graph.num_users)
        return add_person_logits(self.view, self.network, flat, encoded, None, self.net.presence)


@register_head  # so that saved models can be loaded
@dataclass(frozen=True)
class ActivityHead:
    """P(v) as a softmax over the presence of v."""

    kind: ClassVar[str] = "activity"
    features: ClassVar[tuple[str, ...]] = ("presence", "spectral")

    def build(self, view: GraphView, encoder: EncoderConfig, features: Collection[str]) -> ActivityNet:
        """Its part of the network."""
        return ActivityNet(encoder.embedding_dim)

    def bind(
        self, view: GraphView, network: MixtureNetwork, *, training: bool = False
    ) -> FullSoftmax[ActivityScores]:
        """What answers on a graph."""
        assert isinstance(network.head, ActivityNet)
        return FullSoftmax(self, ActivityScores(view, network, network.head))


def activity(*, progress: bool = True, **settings: Any) -> MixtureRecommender[FullSoftmax[ActivityScores]]:
    """A mixture recommender with this head; settings are those of `mixture_config`."""
    return MixtureRecommender(ActivityHead(), mixture_config(**settings), name="activity", progress=progress)


register_model("activity", activity)  # so that commands, bundles and the ladder know the name
