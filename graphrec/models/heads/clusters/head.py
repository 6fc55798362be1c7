"""The head of the clustered model: the cluster of the target, then the target; clusters are learned."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.data.checks import check_choice, check_count, check_number
from graphrec.data.draws import below, hashed
from graphrec.features import Candidates
from graphrec.models.heads.clusters.index import ClusterIndex
from graphrec.models.heads.clusters.search import ClusterSearch
from graphrec.models.heads.head import register_head
from graphrec.models.manifest import read_config
from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.models.mixture.profile_parts import add_person_logits
from graphrec.models.mixture.view import GraphView
from graphrec.nn import (
    CLUSTERS_PER_USER,
    ClusterSoftmax,
    ClusterTable,
    EncoderConfig,
    MixtureNetwork,
    balanced_assignment,
)
from graphrec.nn.cluster_softmax import LOG_ZERO
from graphrec.temporal import NEVER
from graphrec.tokenizer import ResidualKMeans, Tokenizer, TokenizerQualityWarning

Start = Literal["codes", "scratch"]

USERS_PER_CLUSTER, MAX_DEFAULT_CLUSTERS = 4, 1024
"""Default number of known users for each cluster, and the largest default number of clusters."""

MAX_CLUSTERS = 10_000
"""Largest number of clusters: every query has a score for each."""

MIN_SECOND_SHARE, BALANCE_FACTOR = 0.25, 3.0
"""Smallest share of a second cluster, and capacity of a cluster as a multiple of the mean size."""

CERTAIN = 30.0
"""Logit of a certain outcome."""

MIN_LOG_WEIGHT, MIN_WEIGHT = -60.0, 1e-30
"""Log-scores are clamped to this distance below a query's best; smallest value of a sum of weights."""


@dataclass(frozen=True)
class ClusterConfig:
    """The configuration of a `ClusterHead`.

    Attributes:
        num_clusters: C; by default a quarter of the number of users known in training, at most 1,024.
        probe_fraction: `recommend` searches clusters until they hold about this fraction of all users, and at
            least 100 users; 1 is exact.
        start: how clusters start: 'codes', from the first codes of a tokenizer, or 'scratch', at random.
        num_rand_negs: random users drawn as negatives in each training step.
    """

    num_clusters: int | None = None
    probe_fraction: float = 0.1
    start: Start = "codes"
    num_rand_negs: int = 512

    def __post_init__(self) -> None:
        check_choice("start", self.start, get_args(Start))
        if self.num_clusters is not None:
            size = check_count("num_clusters", self.num_clusters, maximum=MAX_CLUSTERS)
            object.__setattr__(self, "num_clusters", size)
        fraction = check_number("probe_fraction", self.probe_fraction, minimum=0.0, maximum=1.0)
        object.__setattr__(self, "probe_fraction", fraction)
        number = check_count("num_rand_negs", self.num_rand_negs, minimum=0)
        object.__setattr__(self, "num_rand_negs", number)


@register_head
@dataclass(frozen=True)
class ClusterHead:
    """P(v) = sum over clusters c of P(c) P(v | c), a class-based softmax whose classes are learned with it.

    Class-based softmax: Goodman 2001, https://arxiv.org/abs/cs/0108006. A user belongs to at most two of C
    clusters, with shares from the dot products of user and cluster embeddings; the share-weighted cluster
    embeddings are part of both towers (`ClusterTable`). P(c) is a softmax over clusters that also reads the
    clusters of the user and of recent contacts, and each cluster's activity; P(v | c) is a softmax over its
    members. Users not yet in a cluster form a further class, unassigned. P(v) is exact and sums to 1.

    The loss has two further terms: the negative log-likelihood of the target's cluster alone, and a balance
    term (the divergence of the mean membership from the uniform one; cf. Shazeer et al. 2017,
    https://arxiv.org/abs/1701.06538). Memberships are annealed from soft to hard over the epochs. A newcomer
    joins the clusters of the first contacts (`ClusterIndex`).

    Attributes:
        config: of clusters and their search.
        first_codes: the tokenizer of start 'codes', of which a copy is fitted; by default one level of
            balanced k-means (`ResidualKMeans`) of C codes.
        first: [n] int64, the clusters of the known users to start from, once fitted; None starts at random.
    """

    kind: ClassVar[str] = "clustered"
    features: ClassVar[tuple[str, ...]] = ("presence", "spectral")

    config: ClusterConfig
    first_codes: Tokenizer | None = None
    first: Tensor | None = None

    def fit(self, view: GraphView) -> Self:
        """See `Fits`: computes the clusters to start from, and their number."""
        default = min(MAX_DEFAULT_CLUSTERS, max(2, view.num_known // USERS_PER_CLUSTER))
        size = self.config.num_clusters or default
        config, seed = replace(self.config, num_clusters=size), view.seed
        if self.config.start == "scratch":
            return replace(self, config=config, first=None)
        codes = copy.deepcopy(self.first_codes)
        if codes is None:
            codes = ResidualKMeans(
                num_codebooks=1, codebook_size=size, unique=False, balanced=True, seed=seed
            )
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", TokenizerQualityWarning
            )  # the codes are only the start of training
            codes.fit(view.graph, until=view.period.until)
        code = codes.codes_before(view.graph, view.period.until)
        return replace(self, config=config, first=code[view.known, 0] % size)

    def build(self, view: GraphView, encoder: EncoderConfig, features: Collection[str]) -> ClusterTable:
        """See `Head`."""
        assert self.config.num_clusters is not None
        return ClusterTable(
            view.num_known,
            num_clusters=self.config.num_clusters,
            embedding_dim=encoder.embedding_dim,
            presence="presence" in features,
            first=self.first,
        )

    def bind(self, view: GraphView, network: MixtureNetwork, *, training: bool = False) -> BoundClusterHead:
        """See `Head`: after training, assigns users to clusters immediately."""
        assert isinstance(network.head, ClusterTable)
        return BoundClusterHead(self, view, network, network.head, assign=not training)

    def run_key(self) -> Mapping[str, Any]:
        """See `Fits`."""
        settings = asdict(self.config)
        del settings["probe_fraction"]
        codes = self.first_codes
        if codes is not None:
            settings["first_codes"] = {"class": type(codes).__qualname__, "settings": codes.settings()}
        return settings | {"first": self.first}

    def save(self, folder: Path) -> Mapping[str, Any]:
        """See `Saves`."""
        return asdict(self.config)

    @classmethod
    def load(cls, settings: Mapping[str, Any], folder: Path) -> Self:
        """See `Saves`."""
        return cls(read_config(ClusterConfig, settings))


class BoundClusterHead:
    """A `ClusterHead` bound to a graph and a network.

    Args:
        head: the head.
        view: the graph.
        network: the network.
        table: the head's module in the network.
        assign: assign users to clusters now, instead of at the start of the first epoch.

    Attributes:
        view, network, table: as given.
    """

    first_time: ClassVar[int] = NEVER

    def __init__(
        self,
        head: ClusterHead,
        view: GraphView,
        network: MixtureNetwork,
        table: ClusterTable,
        *,
        assign: bool,
    ) -> None:
        self._head, self.view, self.network, self.table = head, view, network, table
        self._index: ClusterIndex | None = None
        self._vectors = self._biases = torch.empty(0)
        self._is_fresh = False
        if assign:
            self.refresh()

    @property
    def head(self) -> ClusterHead:
        """See `BoundHead`."""
        return self._head

    @property
    def index(self) -> ClusterIndex:
        """The clusters of all users. Raises RuntimeError before the first epoch of training."""
        if self._index is None:
            raise RuntimeError("users are not assigned to clusters before the first epoch of training")
        return self._index

    @property
    def probe_fraction(self) -> float:
        """The fraction of users that `recommend` searches, see `ClusterConfig`; may be set."""
        return self._head.config.probe_fraction

    @probe_fraction.setter
    def probe_fraction(self, fraction: float) -> None:
        self._head = replace(self._head, config=replace(self._head.config, probe_fraction=fraction))

    @property
    def assignments(self) -> Tensor:
        """The first cluster of each user at the fit, [N] int64; -1 for users without a cluster."""
        until = self.view.timeline.tick(torch.tensor(self.view.period.until))
        return torch.where(self.index.since < until, self.index.cluster[:, 0], -1)

    @property
    def vectors(self) -> Tensor:
        """User vectors as last assigned; dot products with queries are logits: [N, D], on the device."""
        return self._vectors

    @property
    def biases(self) -> Tensor:
        """User biases, added to the dot products with `vectors`: [N], on the device."""
        return self._biases

    # Assigning users to clusters

    def start_epoch(self, epoch: int, max_epochs: int) -> None:
        """See `Refreshes`."""
        if not self._is_fresh:
            self.refresh()
        self._is_fresh = False
        self.table.anneal(epoch, max_epochs)

    @torch.no_grad()
    def refresh(self) -> None:
        """See `Refreshes`: assigns users to clusters by the weights as they are, and newcomers after them."""
        view, table = self.view, self.table
        row, known = view.row, view.row > 0
        weight, center = table.user.weight.detach().cpu(), table.cluster.detach().cpu()
        cluster, share = balanced_assignment(
            weight[1:], center, float(table.temperature), MIN_SECOND_SHARE, BALANCE_FACTOR
        )
        at = (row - 1).clamp(min=0)
        self._use(ClusterIndex(view.timeline, cluster[at], share[at], known, table.num_clusters))
        self._is_fresh = True

    def reading(self, view: GraphView, changed: Tensor) -> BoundClusterHead:
        """See `ReadsIndex`: users known in training keep their clusters, newcomers join some again."""
        out, index = copy.copy(self), self.index
        out.view, more = view, len(view.row) - len(index.since)
        cluster, share = (F.pad(part, (0, 0, 0, more)) for part in (index.cluster, index.share))
        out._use(ClusterIndex(view.timeline, cluster, share, view.row > 0, index.num_clusters))
        return out

    def follow(self, view: GraphView) -> BoundClusterHead:
        """See `Follows`: as `reading`; the work grows with the whole log."""
        return self.reading(view, view.order[:0])

    @torch.no_grad()
    def _use(self, index: ClusterIndex) -> None:
        """Read the clusters of users from an index, and compute their vectors."""
        table, row = self.table, self.view.row
        weight, center = table.user.weight.detach().cpu(), table.cluster.detach().cpu()
        vector = weight[row]
        for slot in range(CLUSTERS_PER_USER):
            vector += center[index.cluster[:, slot]] * index.share[:, slot, None]
        device = self.network.device
        self._index, self._vectors = index, vector.to(device)
        self._biases = table.bias.weight.detach().cpu()[row, 0].to(device)

    # Embeddings and logits

    def embed_users(self, user: Tensor, tick: Tensor) -> Tensor:
        """See `BoundHead`: row 0, for unknown users, until a user is assigned to clusters."""
        return self._embed(user, self.index.since[user] < tick)

    def embed_others(self, user: Tensor, tick: Tensor) -> Tensor:
        """See `BoundHead`."""
        return self._embed(user, self.index.since[user] <= tick)

    def _embed(self, user: Tensor, assigned: Tensor) -> Tensor:
        """Embeddings of users [n] int64, or row 0 if they are not assigned [n] bool: [n, D]."""
        table, device = self.table, self.network.device
        assigned = assigned.to(device)
        if not table.training:
            user = user.to(device)
            return torch.where(assigned[:, None], self._vectors[user], table.user.weight[0])
        rows = self.view.row[user].to(device) * assigned
        own: Tensor = table.user(rows)
        share = table.memberships(table.affinity(own)) * (rows > 0)[:, None]
        return own + share @ table.cluster

    def logits(
        self, encoded: EncodedQuery, users: Tensor | None, *, vectors: Tensor, biases: Tensor
    ) -> Tensor:
        """Logits of users [C] int64, or of all N, by their vectors [C, D] and biases [C]: [B, C].

        Users who are not assigned before a query's tick have the vector of row 0, for unknown users.
        """
        table, since, device = self.table, self.index.since, self.network.device
        out = encoded.vector @ vectors.T + biases
        assigned = (since if users is None else since[users]) < encoded.tick[:, None]
        if not bool(assigned.all()):
            row = torch.zeros(1, dtype=torch.int64, device=device)
            stranger = encoded.vector @ table.user(row).T + table.bias(row)[0]
            out = torch.where(assigned.to(device), out, stranger)
        return add_person_logits(self.view, self.network, out, encoded, users, table.presence)

    def next_cluster(self, encoded: EncodedQuery) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the target's cluster, [B, C], and of an unassigned target, [B]."""
        table, index, device = self.table, self.index, self.network.device
        features = index.features(encoded.query).to(device)
        logits = table.next_cluster(encoded.vector, features)
        num_assigned = index.num_assigned(encoded.tick)
        without = self.view.graph.num_users - num_assigned
        assigned = table.is_assigned(encoded.features, without.to(device))
        if not table.training:  # an empty class has no probability
            logits = torch.where((index.sizes(encoded.tick) > 0).to(device), logits, LOG_ZERO)
            assigned = torch.where((without == 0).to(device), CERTAIN, assigned)
            assigned = torch.where((num_assigned == 0).to(device), -CERTAIN, assigned)
        return logits.log_softmax(1) + F.logsigmoid(assigned)[:, None], F.logsigmoid(-assigned)

    # Likelihood and probabilities

    def likelihood(self, encoded: EncodedQuery, target: Tensor, draw: Tensor) -> ClusterSoftmax:
        """See `BoundHead`: estimated from candidates."""
        view, table, device = self.view, self.table, self.network.device
        draws = hashed(draw, torch.arange(self._head.config.num_rand_negs))
        random = view.order[below(draws, len(view.order))]
        candidates = Candidates.of(target, random, view.target_share, in_batch=True)
        user = candidates.user
        rows = view.row[user].to(device)
        own = table.user(rows)
        affinity = table.affinity(own)
        membership = table.memberships(affinity) * (rows > 0)[:, None]
        log_cluster, log_unassigned = self.next_cluster(encoded)
        vectors, biases = own + membership @ table.cluster, table.bias(rows).squeeze(1)
        weight = (-candidates.log_q).exp()[:, None].to(device)  # sums with it stand for all users
        return ClusterSoftmax(
            candidates,
            scores=self.logits(encoded, user, vectors=vectors, biases=biases),
            assigned=(self.index.since[user] < encoded.tick[:, None]).to(device),
            membership=membership,
            total_membership=affinity[rows > 0].softmax(1).mul(weight[rows > 0]).sum(0),
            log_cluster=log_cluster,
            log_unassigned=log_unassigned,
            place=candidates.place(target).to(device),
            negative_mask=((user != encoded.query.user[:, None]) & (user != target[:, None])).to(device),
        )

    def log_probs(self, encoded: EncodedQuery) -> Tensor:
        """See `BoundHead`."""
        index, device = self.index, self.network.device
        log_cluster, log_unassigned = self.next_cluster(encoded)
        weight = self.logits(encoded, None, vectors=self._vectors, biases=self._biases)
        weight = weight.sub_(weight.amax(1, keepdim=True)).clamp_(min=MIN_LOG_WEIGHT).exp_()
        assigned = (index.since < encoded.tick[:, None]).to(device)
        inside, cluster, share = weight * assigned, index.cluster.to(device), index.share.to(device)
        mass = torch.zeros_like(log_cluster)
        for slot in range(CLUSTERS_PER_USER):
            mass.index_add_(1, cluster[:, slot], inside * share[:, slot])
        rate = torch.where(mass > 0, log_cluster.exp() / mass, 0.0)
        each = rate[:, cluster[:, 0]] * share[:, 0]
        for slot in range(1, CLUSTERS_PER_USER):
            each += rate[:, cluster[:, slot]] * share[:, slot]
        outside = weight - inside
        scale = log_unassigned.exp() / outside.sum(1).clamp(min=MIN_WEIGHT)
        return (inside * each + outside * scale[:, None]).clamp_(min=MIN_WEIGHT).log_()

    # Searching

    def query_groups(self, tick: Tensor) -> list[Tensor]:
        """See `Searches`."""
        return ClusterSearch.query_groups(tick)

    def probed(self, encoded: EncodedQuery) -> Tensor:
        """The clusters to search for B queries, the most probable up to `probe_fraction`: [B, C] bool."""
        return ClusterSearch(self).probed(self.next_cluster(encoded)[0], encoded.tick)

    def search(
        self, encoded: EncodedQuery, k: int, exclude: tuple[Tensor, Tensor], exclude_users: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Searches`: the neighborhood, members of the likeliest clusters, and unassigned users.

        A user who is also in a cluster that is not searched gets a smaller probability than by `log_probs`.
        """
        return ClusterSearch(self).search(encoded, k, exclude, exclude_users)
