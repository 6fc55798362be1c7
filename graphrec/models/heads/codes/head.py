"""The head of the generative model: the STU of the target is decoded code by code."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

import pyarrow as pa
import torch
from torch import Tensor

from graphrec.data.checks import check_choice, check_count
from graphrec.decode import beam_search
from graphrec.models.heads.codes.history import CodeHistory
from graphrec.models.heads.codes.mixture_scorer import MixtureScorer
from graphrec.models.heads.codes.prefix_scorer import Prefixes, PrefixScorer
from graphrec.models.heads.codes.teacher_forcing import TeacherForcing
from graphrec.models.heads.groups import groups_of
from graphrec.models.heads.head import register_head
from graphrec.models.manifest import read_config
from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.models.mixture.view import GraphView
from graphrec.nn import CodeDecoder, Decoder, EncoderConfig, MixtureNetwork
from graphrec.temporal import ragged, snapshot_ticks
from graphrec.tokenizer import Tokenizer, default_codebook_size, load_tokenizer

FIT_SHARES = (3 / 16, 6 / 16, 9 / 16, 12 / 16, 1.0)
"""Fractions of the training events after which the tokenizer is fitted. An event reads the codes of the
last fit strictly before it; events before the first fit are not trained on."""

MAX_FITTED_USERS, MIN_FITS = 1_500_000, 2
"""Users of all fits together: a large network has fewer fits, but not fewer than two."""

DENSE_PREFIXES = 2**16
"""Approximate number of prefixes held at once when all users are scored."""

QUERIES_PER_SEARCH = 256

TOKENIZER = "tokenizer"
"""The folder of the tokenizer, inside that of the model."""


@dataclass(frozen=True)
class CodeConfig:
    """The configuration of a `CodeHead`.

    Attributes:
        decoder: 'towers', one MLP a level; 'moe', one mixture of experts a level; or 'transformer', causal,
            with cached keys.
        beam_size: prefixes kept at each level of the beam search.
    """

    decoder: Decoder = "towers"
    beam_size: int = 50

    def __post_init__(self) -> None:
        check_choice("decoder", self.decoder, get_args(Decoder))
        object.__setattr__(self, "beam_size", check_count("beam_size", self.beam_size))


@register_head
@dataclass(frozen=True)
class CodeHead:
    """P(v) as the product, over the levels of the tree of STUs, of the probabilities of v's codes.

    Each level is a softmax over the codes that exist after the prefix. The logit of a code is the sum of the
    decoder's output for the query vector and the prefix, and of a score from the activity and the mean
    spectral embedding of the users who share the new prefix. At each level the distribution is interpolated
    with the votes of the neighbors, each for the next code of their own STU, if any neighbor's STU has the
    prefix (Jelinek & Mercer 1980). Users with equal STUs share a leaf's probability equally, and users
    without an STU share one class. So P(v) is exact and sums to 1.

    For training, the tokenizer is refitted at several moments, each time from the previous fit, and a
    training event reads the codes of a fit strictly before it. At regular moments newcomers get STUs. After
    training only the codes of the last fit are kept.

    In the loss terms of replies and new contacts, the decoder's probabilities are not renormalized over the
    candidates.

    Attributes:
        config: decoder and beam.
        tokenizer: gives the STUs; a copy of it is fitted.
        history: the codes of the training period; None before `fit`.
    """

    kind: ClassVar[str] = "stu"
    features: ClassVar[tuple[str, ...]] = ("presence", "spectral", "prefix_groups")

    config: CodeConfig
    tokenizer: Tokenizer
    history: CodeHistory | None = None

    def fit(self, view: GraphView) -> Self:
        """See `Fits`: fits a copy of the tokenizer."""
        timeline, period = view.timeline, view.period
        ticks = snapshot_ticks(timeline, period.snapshot_events)
        end = timeline.tick(torch.tensor(period.until))
        last = int(torch.searchsorted(ticks, end, right=True)) - 1
        fits = sorted({max(1, round(last * share)) for share in fit_shares(view.num_known)})
        tokenizer = copy.deepcopy(self.tokenizer)
        if tokenizer.codebook_size is None:
            tokenizer.codebook_size = default_codebook_size(view.num_known, tokenizer.num_codebooks)
        codes: list[Tensor] = []
        for fit, following in zip(fits, [*fits[1:], len(ticks)], strict=True):
            start = tokenizer.refit if codes else tokenizer.fit
            tokenizer = start(view.graph, until=view.just_before(ticks[fit]), reports=fit == fits[-1])
            codes += _codes_at(tokenizer, view, ticks[fit:following])
        starts = [fit - fits[0] for fit in fits]
        history = _history(tokenizer, view, ticks[fits[0] :], codes, starts)
        return replace(self, tokenizer=tokenizer, history=history)

    def build(self, view: GraphView, encoder: EncoderConfig, features: Collection[str]) -> CodeDecoder:
        """See `Head`."""
        return CodeDecoder(
            num_codebooks=self.tokenizer.num_codebooks,
            codebook_size=self.tokenizer.table.codebook_size,
            decoder=self.config.decoder,
            embedding_dim=encoder.embedding_dim,
            num_heads=encoder.num_heads,
            dropout=encoder.dropout,
            presence="presence" in features,
        )

    def bind(self, view: GraphView, network: MixtureNetwork, *, training: bool = False) -> BoundCodeHead:
        """See `Head`: after training, gives STUs to newcomers and forgets users who are not in the graph."""
        assert isinstance(network.head, CodeDecoder)
        if training and self.history is not None:
            return BoundCodeHead(self, view, network, network.head, self.history)
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.forget_absent(view.graph)
        first = view.timeline.tick(torch.tensor([tokenizer.until]))
        ticks = snapshot_ticks(view.timeline, view.period.snapshot_events)
        ticks = torch.cat([first, ticks[ticks > first]])
        history = _history(tokenizer, view, ticks, _codes_at(tokenizer, view, ticks), [0])
        head = replace(self, tokenizer=tokenizer, history=None)
        return BoundCodeHead(head, view, network, network.head, history)

    def run_key(self) -> Mapping[str, Any]:
        """See `Fits`."""
        name, history = type(self.tokenizer).__qualname__, self.history
        return {
            "decoder": self.config.decoder,
            "tokenizer": {"class": name, "settings": self.tokenizer.settings()},
            "codes": None if history is None else history.codes,
        }

    def save(self, folder: Path) -> Mapping[str, Any]:
        """See `Saves`: the tokenizer has a folder of its own."""
        self.tokenizer.save(folder / TOKENIZER)
        return asdict(self.config)

    @classmethod
    def load(cls, settings: Mapping[str, Any], folder: Path) -> Self:
        """See `Saves`."""
        return cls(read_config(CodeConfig, settings), load_tokenizer(folder / TOKENIZER))


class BoundCodeHead:
    """A `CodeHead` bound to a graph and a network.

    Args:
        head: the head, its tokenizer updated to this graph.
        view: the graph.
        network: the network.
        decoder: the head's module in the network.
        history: all users' codes over time.

    Attributes:
        config: decoder and beam; may be set.
        tokenizer: with the newcomers of the graph.
        view, network, decoder, history: as given.
    """

    def __init__(
        self,
        head: CodeHead,
        view: GraphView,
        network: MixtureNetwork,
        decoder: CodeDecoder,
        history: CodeHistory,
    ) -> None:
        self._head = head
        self.config, self.tokenizer = head.config, head.tokenizer
        self.view, self.network, self.decoder, self.history = view, network, decoder, history

    @property
    def head(self) -> CodeHead:
        """See `BoundHead`."""
        return replace(self._head, config=self.config)

    @property
    def first_time(self) -> int:
        """See `BoundHead`: the time of the first codes."""
        return self.view.just_before(self.history.tick[0])

    def reading(self, view: GraphView, changed: Tensor) -> BoundCodeHead:
        """See `ReadsIndex`: users keep their STUs."""
        history = self.history.reading(view.timeline, changed)
        return BoundCodeHead(self.head, view, self.network, self.decoder, history)

    def follow(self, view: GraphView) -> BoundCodeHead:
        """See `Follows`: a new moment binds the head again, in work that grows with the log."""
        head, tokenizer, every = self.head, self.tokenizer, view.period.snapshot_events
        if not self.history.is_current(view.timeline, tokenizer.until, every):
            if self.history.last_tie_grew(view.timeline):
                # Who came with this tie gets an STU from all of it, however many events came at once.
                tokenizer = copy.deepcopy(tokenizer)
                time = max(tokenizer.until, view.just_before(self.history.tick[-1]))
                came = tokenizer.members.since == time
                came[: tokenizer.members.num_fitted] = False
                tokenizer.forget(tokenizer.members.ids.values.filter(pa.array(came.numpy())).to_pylist())
                head = replace(head, tokenizer=tokenizer)
            return head.bind(view, self.network)
        history = self.history.follow(view.timeline, view.spectral)
        return BoundCodeHead(head, view, self.network, self.decoder, history)

    def embed_users(self, user: Tensor, tick: Tensor) -> Tensor:
        """See `BoundHead`: the sum of the embeddings of a user's codes."""
        codes = self.history.of(user, self.history.number(tick))
        return self.decoder.tokens.users(codes.to(self.network.device))

    def embed_others(self, user: Tensor, tick: Tensor) -> Tensor:
        """See `BoundHead`."""
        # Events may be from before the first moment; queries that read them never are.
        number = self.history.number(tick).clamp(min=0)
        return self.decoder.tokens.users(self.history.of(user, number).to(self.network.device))

    def prefix_scorer(self, encoded: EncodedQuery, *, dense: bool = False) -> PrefixScorer:
        """Bind a scorer of prefixes to B queries; `dense` if all users will be scored."""
        return PrefixScorer(self.decoder, self.history, self.view.timeline, encoded, dense=dense)

    def mixture_scorer(self, encoded: EncodedQuery) -> MixtureScorer:
        """Bind the mixture's next-code scorer to B queries of one group (see `query_groups`)."""
        scorer = self.prefix_scorer(encoded)
        return MixtureScorer(scorer, int(scorer.number[0]))

    def likelihood(self, encoded: EncodedQuery, target: Tensor, draw: Tensor) -> TeacherForcing:
        """See `BoundHead`."""
        return TeacherForcing.of(self.prefix_scorer(encoded), target)

    def log_probs(self, encoded: EncodedQuery) -> Tensor:
        """See `BoundHead`: scores every node of the tree."""
        scorer, forest = self.prefix_scorer(encoded, dense=True), self.history.forest
        log_has, log_none = scorer.has_stu()
        out = log_none[:, None].repeat(1, self.view.graph.num_users)
        rows = max(1, DENSE_PREFIXES * len(forest.trees) // forest.num_nodes)
        for row in (scorer.number >= 0).nonzero().squeeze(1).split(rows):
            prefixes = Prefixes(row, forest.root[scorer.number[row]], row.new_empty(len(row), 0), None)
            log_p = log_has[row]
            for _ in range(forest.num_codebooks):
                children = scorer.step(prefixes)
                log_p = log_p[children.at] + children.log_p
                prefixes = children.prefixes(prefixes, forest)
            node = prefixes.node
            at, place = ragged(forest.start[node], forest.start[node] + forest.size[node])
            out[prefixes.row[at], forest.users[place]] = (log_p - forest.size[node].log())[at]
        return out

    def query_groups(self, tick: Tensor) -> list[Tensor]:
        """See `Searches`: groups of queries that read one snapshot of codes."""
        return groups_of(self.history.number(tick), QUERIES_PER_SEARCH)

    def log_probs_of_pairs(self, encoded: EncodedQuery, row: Tensor, user: Tensor) -> Tensor:
        """See `ScoresPairs`."""
        return self.mixture_scorer(encoded).exact(row, user)

    def search(
        self, encoded: EncodedQuery, k: int, exclude: tuple[Tensor, Tensor], exclude_users: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Searches`: the users of a beam search, the most probable neighbors, and users without an STU.

        The cost grows with the depth of the tree, not with the number of users.
        """
        mixture, num_users = self.mixture_scorer(encoded), self.view.graph.num_users
        row, user, log_p = mixture.without_stu(k, exclude, exclude_users)
        if int(self.history.number(encoded.tick[:1])) < 0:
            return row, user, log_p
        size = min(max(k, self.config.beam_size), num_users)
        found, value = beam_search(
            mixture,
            mixture.tree,
            len(encoded),
            size,
            beam_size=size,
            exclude=exclude,
            exclude_users=exclude_users,
            renormalize=False,  # it is a distribution over the users in the tree
        )
        at, column = (found >= 0).nonzero(as_tuple=True)
        near_row, near = mixture.likeliest_neighbors(k)
        missed = ~torch.isin(near_row * num_users + near, at * num_users + found[at, column])
        near_row, near = near_row[missed], near[missed]
        person, more = found[at, column], mixture.exact(near_row, near)
        shared = mixture.tree.largest_bucket > 1
        value = mixture.exact(at, person) if shared else value[at, column] + mixture.log_root[at]
        row, user = torch.cat([row, at, near_row]), torch.cat([user, person, near])
        return row, user, torch.cat([log_p, value, more])


def fit_shares(num_users: int) -> tuple[float, ...]:
    """The shares of the training events after which a tokenizer of so many users is fitted."""
    most = len(FIT_SHARES)
    number = max(MIN_FITS, min(most, MAX_FITTED_USERS // max(1, num_users)))
    return tuple(FIT_SHARES[most * (fit + 1) // number - 1] for fit in range(number))


def _codes_at(tokenizer: Tokenizer, view: GraphView, ticks: Tensor) -> list[Tensor]:
    """STUs of all users at ticks [S], assigning them to newcomers: a list of S tensors [N, L] int64.

    Newcomers are users with an event or known features.
    """
    graph, first, out = view.graph, view.timeline.first_tick, []
    for tick in ticks:
        time = max(tokenizer.until, view.just_before(tick))
        has = tokenizer.codes_before(graph, time)[:, 0] >= 0
        known = first < tick
        if view.profiles is not None:
            known = known | view.profiles.known(slice(None), torch.tensor(time))
        came = (known & ~has).nonzero().squeeze(1)
        if len(came):
            tokenizer.encode(graph, came, until=time)
        out.append(tokenizer.codes_before(graph, time))
    return out


def _history(
    tokenizer: Tokenizer, view: GraphView, ticks: Tensor, codes: list[Tensor], fits: list[int]
) -> CodeHistory:
    """The history of codes at ticks [S]; see `CodeHistory`."""
    size, half_life = tokenizer.table.codebook_size, view.period.half_life
    return CodeHistory(view.timeline, ticks, codes, fits, size, half_life, view.spectral)
