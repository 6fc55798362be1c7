"""The encoder of queries: the user tower over timelines, and scores of the neighborhood."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.data import OUTCOMES, Query
from graphrec.features import (
    Timelines,
    pair_features,
    path_features,
    person_features,
    query_features,
    query_pace,
)
from graphrec.models.heads.head import BoundHead
from graphrec.models.mixture.config import Targets
from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.models.mixture.profile_parts import map_people, map_profiles
from graphrec.models.mixture.view import GraphView
from graphrec.nn import CandidateScores, MixtureNetwork
from graphrec.temporal import Neighborhood, NeighborhoodConfig, SpectralQuery, UserActivity


@dataclass(frozen=True)
class QueryEncoder:
    """Encodes queries on a graph by a network.

    Attributes:
        view: the graph.
        network: the mixture network.
        head: gives the embeddings of users.
        neighborhood: limits of the neighborhood.
        targets: what the network is trained on; of `TrainConfig`.
    """

    view: GraphView
    network: MixtureNetwork
    head: BoundHead
    neighborhood: NeighborhoodConfig
    targets: Targets = "next_acts"

    def encode_query(self, query: Query) -> EncodedQuery:
        """Encode B queries with the timelines in the index."""
        timeline = self.view.timeline
        length = self.network.tower.context_length
        timelines, position = Timelines.of_index(timeline, query.user, timeline.tick(query.time), length)
        question = query.action
        if self.targets == "windows":
            question = torch.full_like(query.action, OUTCOMES.index(query.outcome or "tie"))
        return self.encode(query, timelines, position, question)

    def encode(self, query: Query, timelines: Timelines, position: Tensor, question: Tensor) -> EncodedQuery:
        """Encode B queries.

        Args:
            query: B queries.
            timelines: M events.
            position: [B] int64, position in `timelines` of each user's last event before the query; -1 if
                there is none.
            question: [B] int64, the action or outcome that each query asks for.
        """
        tick = self.view.timeline.tick(query.time)
        vector, features, profile = self.query_tower(query, timelines, position, question)
        spectral = None if self.view.spectral is None else self.view.spectral.query(query.user, tick)
        parts = query, tick, vector, features, profile, spectral
        if self.network.mixture is None:
            return EncodedQuery(*parts, neighbors=None)
        timeline = self.view.timeline
        around = Neighborhood.of(timeline, query.user, tick, self.neighborhood)
        now = timeline.activity(around.user, tick[around.row])
        neighbors = self.score_neighbors(query, around, now, features, profile, spectral)
        received = now.num_received[around.contact_position]
        return EncodedQuery(*parts, neighbors, around.contacts, received, now)

    def query_tower(
        self, query: Query, timelines: Timelines, position: Tensor, question: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Compute the user tower's output for B queries, on the network's device.

        Args:
            query: B queries.
            timelines: M events.
            position: [B] int64, position in `timelines` of each user's last event before the query, or -1.
            question: [B] int64, the action or outcome that each query asks for.

        Returns:
            query vectors [B, D]; standardized features [B, Q]; factors of the affinity of profiles
            [B, K + 1], or None.
        """
        network, device, timeline = self.network, self.network.device, self.view.timeline
        tower = network.tower
        features = tower.standardize_query(query_features(timeline, query).to(device))
        other = self.head.embed_others(timelines.other, timeline.tick(timelines.time))
        actor, profile = self.head.embed_users(query.user, timeline.tick(query.time)), None
        if network.profile is not None:
            layers = network.profile
            other = other + map_profiles(self.view, layers, layers.actor, timelines.other, timelines.time)
            actor = actor + map_profiles(self.view, layers, layers.actor, query.user, query.time)
            profile = map_profiles(self.view, layers, layers.affinity_query, query.user, query.time)
            profile = profile * layers.affinity_weight(features)
        events = timelines if device.type == "cpu" else timelines.to(device)
        state = tower.state(events, other, position.to(device))
        return tower(state, actor, question.to(device), features), features, profile

    def score_neighbors(
        self,
        query: Query,
        around: Neighborhood,
        now: UserActivity,
        features: Tensor,
        profile: Tensor | None,
        spectral: SpectralQuery | None,
    ) -> CandidateScores:
        """Scores of the neighborhoods of B queries by the network's components; see `encode`."""
        timeline, mixture, device = self.view.timeline, self.network.mixture, self.network.device
        assert mixture is not None
        pace = query_pace(timeline, query)
        pair = pair_features(timeline, query, around.contacts, pace).to(device)
        there = around if device.type == "cpu" else around.to(device)
        if not mixture.reads_people:
            contacts: CandidateScores = mixture(there, features, pair)
            return contacts
        affinity = None
        if self.network.profile is not None and profile is not None:
            layers, time = self.network.profile, query.time[around.row]
            person = map_people(self.view, layers, around.user, time)
            affinity = layers.affinity(profile[around.row.to(device)], person)
        kinds = [around.contacts.half_edge[around.path_bridge], around.path_pair.half_edge]
        scores: CandidateScores = mixture(
            there,
            features,
            pair,
            path=path_features(timeline, query, around, now, pace).to(device),
            kinds=torch.stack([timeline.kind(half_edge) for half_edge in kinds], dim=1).to(device),
            person=person_features(timeline, query, around, now, spectral, pace).to(device),
            affinity=affinity,
        )
        return scores
