"""Generative friend recommendation: the STU of who comes next, written code by code."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.data.checks import check_choice, check_count
from graphrec.data.precision import single_precision
from graphrec.decode import beam_search, validity
from graphrec.models.circles import Codes
from graphrec.models.hyperparameters import check_heads
from graphrec.models.neighborhood import Asked, Everyone, NeighborhoodModel
from graphrec.models.writer import Bare, Mixed, Prefixes, Writer, Written
from graphrec.nn import (
    CIRCLES,
    PRESENCE,
    SOURCES,
    STRUCTURE,
    Activation,
    Decoder,
    GenerativeNet,
    History,
    Interaction,
    Timelines,
)
from graphrec.temporal import Reach, Timeline, ragged, snapshot_ticks
from graphrec.tokenizer import (
    GNNRQVAE,
    Tokenizer,
    TokenizerQualityWarning,
    default_codebook_size,
    load_tokenizer,
)

FITS = (3 / 16, 6 / 16, 9 / 16, 12 / 16, 1.0)
"""Shares of the training events up to which the tokenizer is fitted: codes of an event are of the last fit
strictly before it, and the first of these are what training begins with."""

GENERATIVE: dict[str, tuple[str, ...]] = {
    "stu": (*SOURCES, PRESENCE, STRUCTURE, CIRCLES),
    "stu_generator": (PRESENCE, STRUCTURE),
}
"""The sources of the generative model, by the name of its row."""

WRITTEN = 2**16
"""Prefixes held at once where everyone is scored, about."""

SEARCHED = 256
"""Queries searched for at once."""

TOKENIZER = "tokenizer"
"""The folder of the tokenizer, inside that of the model."""


class GenerativeSTU(NeighborhoodModel):
    """Writes the STU of who comes next, mixed with the people of the temporal neighbourhood.

    Everyone is reached by a generator that goes down the tree of STUs: P(v) is the product, over the levels,
    of the probabilities of v's codes given those before, among the codes that somebody has. A code's logit is
    the sum of what a decoder makes of the user's history and the codes so far (both in STU tokens), and of
    how present and how near the circle is that shares the prefix: when anybody of it last acted and was
    acted upon, how often, how often lately, and the cosine of where it and the user stand in the network.
    At each level the circles of the people around vote too: contacts, contacts of contacts and people seen
    lately for their own next codes, and the level counts on them as far as there are any below the prefix
    (interpolated smoothing; Jelinek & Mercer 1980). A bucket's people share its probability; who has no STU
    yet shares with the others who have none. So it is an exact probability over users, and so is its mixture
    with the sources around (see `NeighborhoodModel`). Generation by codes follows TIGER (Rajput et al. 2023,
    https://arxiv.org/abs/2305.05065), of which `sources=()` with `ResidualKMeans` is the image.

    The tokenizer is fitted several times, each time warm: codes of a training event are of a fit strictly
    before it. At as many moments of the log, newcomers are given STUs. After training only the codes of the
    last fit are kept.

    In the loss of replies and new ties, people who are no candidates leave all sources but the generator,
    which only learns to give them little.

    Args:
        tokenizer: what gives the STUs; `GNNRQVAE` by default. A copy is fitted.
        sources: what is used: any of 'pointer', 'paths', 'union' (see `NeighborhoodMixture`), 'presence', how
            present circles are, 'structure', how near, and 'circles', their votes.
        decoder: 'towers', one MLP a level; 'moe', one mixture of experts a level; or 'transformer', causal,
            with cached keys.
        beam_size: prefixes kept at each level when people are searched for.
        reach, history, interaction, activation, embedding_dim, hidden_channels, num_layers, num_heads,
            window, dropout, temporal_weight, batch_acts, max_queries, epoch_batches, max_epochs, patience,
            seed, folder, progress: as in `TwoTower`.
    """

    network: GenerativeNet
    tokenizer: Tokenizer
    """Before a fit the one given; after it, a copy that is fitted and knows newcomers."""

    def __init__(
        self,
        *,
        tokenizer: Tokenizer | None = None,
        sources: Collection[str] = GENERATIVE["stu"],
        decoder: Decoder = "towers",
        beam_size: int = 50,
        reach: Reach | None = None,
        history: History = "transformer",
        interaction: Interaction = "mlp",
        activation: Activation = "gelu",
        embedding_dim: int = 64,
        hidden_channels: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        window: int = 32,
        dropout: float = 0.1,
        temporal_weight: float = 1.0,
        batch_acts: int = 1024,
        max_queries: int = 64,
        epoch_batches: int = 50,
        max_epochs: int = 6,
        patience: int = 3,
        seed: int = 0,
        folder: Path | None = None,
        progress: bool = True,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        check_choice("decoder", decoder, get_args(Decoder))
        beam_size = check_count("beam_size", beam_size)
        if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
            raise TypeError(f"tokenizer must be a Tokenizer, got a {type(tokenizer).__name__}")
        super().__init__(known_sources=GENERATIVE["stu"], arguments=arguments)
        if decoder == "transformer":
            check_heads("embedding_dim", embedding_dim, num_heads)
        self.name = next(
            (name for name, given in GENERATIVE.items() if set(given) == set(sources)),
            "_".join(["stu", *(sources or ["codes"])]),
        )
        self.tokenizer = self._unfitted = GNNRQVAE(seed=seed) if tokenizer is None else tokenizer
        self.decoder, self.beam_size = decoder, beam_size

    # Codes

    def _before(self, *, num_known: int) -> None:
        timeline, tick = self._timeline, self._timeline.tick(torch.tensor(self._until))
        ticks = snapshot_ticks(timeline, self._every)
        last = int(torch.searchsorted(ticks, tick, right=True)) - 1
        fits = sorted({max(1, round(last * share)) for share in FITS})
        tokenizer = copy.deepcopy(self._unfitted)
        if tokenizer.codebook_size is None:
            tokenizer.codebook_size = default_codebook_size(num_known, tokenizer.num_codebooks)
        codes: list[Tensor] = []
        for fit, end in zip(fits, [*fits[1:], len(ticks)], strict=True):
            with warnings.catch_warnings():
                if fit != fits[-1]:  # what it lacks, the last one may have: that one warns
                    warnings.simplefilter("ignore", TokenizerQualityWarning)
                start = tokenizer.refit if codes else tokenizer.fit
                tokenizer = start(self.graph, until=self._just_before(ticks[fit]))
            codes += self._given(tokenizer, ticks[fit:end])
        self.tokenizer = tokenizer
        self._index_codes(ticks[fits[0] :], codes, [fit - fits[0] for fit in fits])
        self._warm = max(self._warm, self._just_before(ticks[fits[0]]))

    def _fitted_codes(self) -> Tensor:
        return self._codes.codes

    def _build(self, *, num_known: int) -> GenerativeNet:
        return GenerativeNet(
            len(self.graph.actions),
            num_codebooks=self.tokenizer.num_codebooks,
            codebook_size=self.tokenizer.table.codebook_size,
            decoder=self.decoder,
            presence=self.has_presence,
            profile_columns=self._profile_columns,
            **self.sizes,
        )

    def _kept(self, rows: Tensor) -> GenerativeNet:
        return self.network  # it has no row of anybody

    def _settle(self, graph: FriendGraph, known: Tensor) -> None:
        """Keep the codes of the last fit alone, and those given since; newcomers are given theirs."""
        super()._settle(graph, known)
        self.tokenizer = copy.deepcopy(self.tokenizer)
        self.tokenizer.forget_absent(graph)
        first = self._timeline.tick(torch.tensor([self.tokenizer.until]))
        ticks = snapshot_ticks(self._timeline, self._every)
        ticks = torch.cat([first, ticks[ticks > first]])
        self._index_codes(ticks, self._given(self.tokenizer, ticks), [0])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """See `Recommender.save`."""
        super().save(folder)
        self.tokenizer.save(Path(folder) / TOKENIZER)

    def _saved_arguments(self) -> dict[str, Any]:
        return super()._saved_arguments() | {"tokenizer": None}

    @classmethod
    def _read_arguments(cls, folder: Path, saved: dict[str, Any]) -> dict[str, Any]:
        return super()._read_arguments(folder, saved) | {"tokenizer": load_tokenizer(folder / TOKENIZER)}

    def _just_before(self, tick: Tensor) -> int:
        """The earliest time, in seconds, to which all is known that is older than a tick."""
        return int(self._timeline.instants[tick - 1]) + 1 if int(tick) else 0

    def _given(self, tokenizer: Tokenizer, ticks: Tensor) -> list[Tensor]:
        """Everyone's STUs at some moments, newcomers' too: [N, L] int64 each."""
        graph, first, out = self.graph, self._timeline.first_tick, []
        for tick in ticks:
            time = max(tokenizer.until, self._just_before(tick))
            has = tokenizer.codes_before(graph, time)[:, 0] >= 0
            came = ((first < tick) & ~has).nonzero().squeeze(1)
            if len(came):
                tokenizer.encode(graph, came, until=time)
            out.append(tokenizer.codes_before(graph, time))
        return out

    def _index_codes(self, ticks: Tensor, codes: list[Tensor], fits: list[int]) -> None:
        size = self.tokenizer.table.codebook_size
        self._codes = Codes(self._timeline, ticks, codes, fits, size, self._half_life, self._structure)

    # What reads and writes

    def _actors(self, user: Tensor, tick: Tensor) -> Tensor:
        codes = self._codes.of(user, self._codes.number(tick))
        return self.network.tokens.users(codes.to(self._device))

    def _others(self, acts: Timelines) -> Tensor:
        # Acts from before the first moment: whoever is asked about them is asked later than it.
        number = self._codes.number(self._timeline.tick(acts.time)).clamp(min=0)
        return self.network.tokens.users(self._codes.of(acts.other, number).to(self._device))

    def _writer(self, asked: Asked, *, everyone: bool = False) -> Writer:
        return Writer(self.network, self._codes, self._timeline, asked, everyone=everyone)

    def _everyone(self, asked: Asked, target: Tensor, draw: Tensor) -> Everyone:
        return Written.of(self._writer(asked), target)

    def _log_everyone(self, asked: Asked) -> Tensor:
        writer, forest = self._writer(asked, everyone=True), self._codes.forest
        log_has, log_none = writer.has_stu()
        out = log_none[:, None].repeat(1, self.graph.num_users)
        rows = max(1, WRITTEN * len(forest.trees) // forest.num_nodes)
        for row in (writer.number >= 0).nonzero().squeeze(1).split(rows):
            step = Prefixes(row, forest.root[writer.number[row]], row.new_empty(len(row), 0), None)
            log_p = log_has[row]
            for _ in range(forest.num_codebooks):
                nexts = writer.step(step)
                log_p = log_p[nexts.at] + nexts.log_p
                step = nexts.prefixes(step, forest)
            at, place = ragged(forest.start[step.node], forest.start[step.node] + forest.size[step.node])
            out[step.row[at], forest.users[place]] = (log_p - forest.size[step.node].log())[at]
        return out

    # Searching

    def recommend(
        self,
        query: Query,
        k: int,
        exclude: tuple[Tensor, Tensor] | None = None,
        exclude_users: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k best people for each query that a beam finds down the tree of STUs; never the asking user.

        People around who have no STU yet are looked at besides. The cost grows with the depth of the tree,
        not with the number of users; where fewer than k are found, everyone is scored.

        Args, Returns, Raises: as in `Recommender.recommend`; scores are those of `score`.
        """

        def chunks() -> list[Tensor]:
            return [rows for _, rows in self._by_moment(query)]

        return self._searched(query, k, exclude, exclude_users, chunks)

    def _by_moment(self, query: Query) -> Iterator[tuple[int, Tensor]]:
        """Queries that have the same codes, some at a time: the number of the codes, and rows [b] int64."""
        tick = Timeline.of(self.graph).tick(query.time)
        numbers = self._codes.number(tick)
        for number in numbers.unique().tolist():
            for rows in (numbers == number).nonzero().squeeze(1).split(SEARCHED):
                yield number, rows

    @single_precision()
    @torch.no_grad()
    def score_pairs(self, query: Query, row: Tensor, user: Tensor) -> Tensor:
        """See `Recommender.score_pairs`; the cost grows with the pairs, not with the number of users."""
        row, user = self._check_pairs(query, row, user)
        out = torch.empty(len(row), dtype=self.dtype)
        for number, rows in self._by_moment(query):
            at = torch.full((len(query),), -1).index_copy(0, rows, torch.arange(len(rows)))[row]
            here = (at >= 0).nonzero().squeeze(1)
            if len(here):
                asked = self._ask_now(query[rows])
                log_p = Mixed(self._writer(asked), number).exact(at[here], user[here])
                out[here] = self._favoured(asked, at[here], user[here], log_p).to(self.dtype)
        return out

    def _search(
        self, query: Query, k: int, exclude: tuple[Tensor, Tensor], exclude_users: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The best k of what a beam finds, of the likeliest around, and of those without STU.

        All queries are of one moment of the codes.
        """
        number = int(self._codes.number(self._timeline.tick(query.time[:1])))
        num_users = self.graph.num_users
        with torch.no_grad():
            asked = self._ask_now(query)
            mixed = Mixed(self._writer(asked), number)
            row, user, log_p = mixed.without_stu(k, exclude, exclude_users)
            if number >= 0:
                size = min(max(k, self.beam_size), num_users)
                found, value = beam_search(
                    mixed,
                    mixed.tree,
                    len(query),
                    size,
                    beam_size=size,
                    exclude=exclude,
                    exclude_users=exclude_users,
                )
                at, column = (found >= 0).nonzero(as_tuple=True)
                near_row, near = mixed.nearest(k)
                missed = ~torch.isin(near_row * num_users + near, at * num_users + found[at, column])
                near_row, near = near_row[missed], near[missed]
                person, more = found[at, column], mixed.exact(near_row, near)
                shared = mixed.tree.largest_bucket > 1
                value = mixed.exact(at, person) if shared else value[at, column] + mixed.log_root[at]
                row, user = torch.cat([row, at, near_row]), torch.cat([user, person, near])
                log_p = torch.cat([log_p, value, more])
            return self._listed(asked, row, user, log_p, k, exclude, exclude_users)

    @torch.no_grad()
    def generators(self, query: Query) -> Iterator[tuple[Tensor, Mixed]]:
        """The generator alone, without the sources around, for the searches of `graphrec.decode`.

        Yields:
            Some of the queries, [b] int64, of one moment, and their scorer with its `tree`: what a search
            multiplies is the generator's exact probability, given that it is somebody with an STU. Queries
            from before the first fit have no generator.
        """
        self._check(query)
        for number, rows in self._by_moment(query):
            if number >= 0:
                yield rows, Mixed(self._writer(self._ask_now(query[rows])), number).alone()

    @single_precision()
    @torch.no_grad()
    def validity(self, query: Query) -> Tensor:
        """The share of what the decoder alone would write that is somebody's STU: a diagnostic, [B] float32.

        It writes in a beam, without the tree, from history and codes alone.
        """
        self._check(query)
        out = torch.zeros(len(query))
        for number, rows in self._by_moment(query):
            if number >= 0:
                bare = Bare(self.network, self._ask_now(query[rows]).vector)
                tree = self._codes.forest.trees[number]
                out[rows] = validity(bare, tree, len(rows), beam_size=self.beam_size)
        return out
