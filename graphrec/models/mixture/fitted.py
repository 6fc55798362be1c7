"""A trained mixture on a graph: scores of all users or of pairs, and search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, Self

import torch
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.models.heads.head import Bound, Head
from graphrec.models.heads.optional import ReadsIndex, ScoresPairs, Searches, follow_head
from graphrec.models.mixture.config import MixtureConfig
from graphrec.models.mixture.contact_prior import ContactPrior
from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.models.mixture.encoder import QueryEncoder
from graphrec.models.mixture.list_kernel import Pairs, best_found
from graphrec.models.mixture.view import GraphView
from graphrec.nn import MixtureNetwork
from graphrec.retrieval.topk import select_rows
from graphrec.temporal import Timeline


@dataclass(frozen=True)
class FittedMixture(Generic[Bound]):
    """A trained network bound to a graph, with a contact prior.

    Attributes:
        name: of the model, for messages.
        view: the graph.
        network: the network.
        head: the head, bound to graph and network.
        encoder: encodes queries.
        prior: factors of the probabilities of contacts.
    """

    name: str
    view: GraphView
    network: MixtureNetwork
    head: Bound
    encoder: QueryEncoder
    prior: ContactPrior

    @classmethod
    def bind(
        cls,
        name: str,
        head: Head[Bound],
        view: GraphView,
        network: MixtureNetwork,
        config: MixtureConfig,
        prior: ContactPrior,
        *,
        training: bool = False,
    ) -> Self:
        """Bind a head and an encoder to a graph and a network; see `Head.bind`."""
        bound = head.bind(view, network, training=training)
        encoder = QueryEncoder(view, network, bound, config.searched_neighborhood, config.train.targets)
        return cls(name, view, network, bound, encoder, prior)

    def reading(self, timeline: Timeline, changed: Tensor) -> Self:
        """See `Recommender.reading`; the head is a `ReadsIndex`."""
        spectral = self.view.spectral
        view = replace(
            self.view, timeline=timeline, spectral=None if spectral is None else spectral.reading(timeline)
        )
        assert isinstance(self.head, ReadsIndex)
        head = self.head.reading(view, changed)
        return replace(self, view=view, head=head, encoder=replace(self.encoder, view=view, head=head))

    @torch.no_grad()
    def follow(self, graph: FriendGraph) -> Self:
        """Return the mixture on a graph that has grown from its own."""
        view = self.view.follow(graph)
        head = follow_head(self.head, view, self.network)
        encoder = replace(self.encoder, view=view, head=head)
        return replace(self, view=view, head=head, encoder=encoder)

    @torch.no_grad()
    def log_scores(self, query: Query) -> Tensor:
        """Log-probabilities of all users with the prior, for B queries in order of time: [B, N] float32."""
        if self.network.mixture is None:
            return self.head.log_probs(self.encoder.encode_query(query)).cpu()
        neighborhood = self.encoder.neighborhood
        return self.prior.log_scores(self.probabilities(query), self.view.timeline, neighborhood, query)

    @torch.no_grad()
    def probabilities(self, query: Query) -> Tensor:
        """Probabilities of all users in the mixture, for B queries in order of time: [B, N] float32."""
        encoded = self.encoder.encode_query(query)
        neighbors = encoded.neighbors
        assert neighbors is not None
        inside, beyond = neighbors.shares()
        out = self.head.log_probs(encoded).exp_().mul_(beyond[:, None])
        out[neighbors.row, neighbors.user] += inside
        return out.cpu()

    @torch.no_grad()
    def log_scores_of_pairs(self, head: ScoresPairs, query: Query, row: Tensor, user: Tensor) -> Tensor:
        """Log-probabilities, with the prior, of M (query, user) pairs.

        Args:
            head: the bound head.
            query: B queries.
            row: [M] int64, the query of each pair.
            user: [M] int64.

        Returns:
            [M] float32.
        """
        out = torch.empty(len(row))
        for rows in head.query_groups(self.view.timeline.tick(query.time)):
            at = torch.full((len(query),), -1).index_copy(0, rows, torch.arange(len(rows)))[row]
            here = (at >= 0).nonzero().squeeze(1)
            if len(here):
                encoded = self.encoder.encode_query(query[rows])
                log_p = head.log_probs_of_pairs(encoded, at[here], user[here])
                out[here] = self._with_prior(encoded, at[here], user[here], log_p).float()
        return out

    @torch.no_grad()
    def search(
        self, head: Searches, query: Query, k: int, exclude: Pairs, exclude_users: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Find the k best users for B queries by the head's own search.

        Args:
            head: the bound head.
            query: B queries.
            k: length of a list.
            exclude: (row [M], user [M]) int64, users not to list for a query, its own user included.
            exclude_users: [O] int64, users not to list for any query.

        Returns:
            users [B, k] int64, padded with -1; scores [B, k] float64, padded with -inf.
        """
        users = torch.full((len(query), k), -1)
        scores = torch.full((len(query), k), -torch.inf, dtype=torch.float64)
        groups = head.query_groups(self.view.timeline.tick(query.time))
        for rows in groups:
            with torch.inference_mode():
                part, excluded = query, exclude
                if len(groups) > 1:
                    part, excluded = query[rows], select_rows(*exclude, rows, len(query))
                encoded = self.encoder.encode_query(part)
                found = head.search(encoded, k, excluded, exclude_users)
                best = self._top_k(encoded, *found, k, excluded, exclude_users)
            users[rows], scores[rows] = best
        return users, scores

    def _top_k(
        self,
        encoded: EncodedQuery,
        row: Tensor,
        user: Tensor,
        log_p: Tensor,
        k: int,
        exclude: Pairs,
        exclude_users: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The k best of the users that a head has found, as `search` returns them."""
        log_factors = None
        if encoded.contacts is not None and encoded.received is not None:
            num_users = self.view.timeline.num_users
            log_factors = self.prior.log_factors(encoded.contacts, encoded.received, num_users)
        return best_found(
            self.name,
            encoded.query,
            (row, user),
            log_p.to("cpu", torch.float64, copy=True),
            k=k,
            num_users=self.view.graph.num_users,
            exclude=exclude,
            exclude_users=exclude_users,
            log_factors=log_factors,
        )

    def _with_prior(self, encoded: EncodedQuery, row: Tensor, user: Tensor, log_p: Tensor) -> Tensor:
        """Log-probabilities of M (query, user) pairs with the contact prior added: [M] float64."""
        contacts, received, num_users = encoded.contacts, encoded.received, self.view.timeline.num_users
        if contacts is None or received is None:
            return log_p.double()
        return self.prior.log_scores_of_pairs(log_p, row, user, contacts, received, num_users)
