"""The decoder of a generative model by itself: for other searches, and to see how much of it is real."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.data.precision import single_precision
from graphrec.decode import validity
from graphrec.models.heads.codes.head import BoundCodeHead
from graphrec.models.heads.codes.mixture_scorer import MixtureScorer, UnconstrainedScorer
from graphrec.models.mixture.recommender import MixtureRecommender


def _groups(model: MixtureRecommender[BoundCodeHead], query: Query) -> Iterator[tuple[Tensor, int]]:
    """Rows [b] int64 of the queries of each moment that has codes, and the moment."""
    tick, history = model.view.timeline.tick(query.time), model.head.history
    for rows in model.head.query_groups(tick):
        number = int(history.number(tick[rows[:1]]))
        if number >= 0:
            yield rows, number


@torch.no_grad()
def generators(
    model: MixtureRecommender[BoundCodeHead], query: Query
) -> Iterator[tuple[Tensor, MixtureScorer]]:
    """The decoder alone, without the neighborhood, for the searches of `graphrec.decode`.

    Args:
        model: fitted.
        query: B queries; those from before the first fit of the tokenizer are left out.

    Yields:
        Some of the queries, [b] int64, of one moment, and their scorer with its `tree`: what a search
        multiplies is the decoder's exact probability, given that the target has an STU.
    """
    for rows, _ in _groups(model, query):
        yield rows, model.head.mixture_scorer(model.encode_query(query[rows])).decoder_alone()


@single_precision()
@torch.no_grad()
def unconstrained_validity(model: MixtureRecommender[BoundCodeHead], query: Query) -> Tensor:
    """The share of code sequences in a beam without the tree that are somebody's STU.

    Args:
        model: fitted.
        query: B queries.

    Returns:
        [B] float32; 0 from before the first fit of the tokenizer.
    """
    head, out = model.head, torch.zeros(len(query))
    for rows, number in _groups(model, query):
        scorer = UnconstrainedScorer(head.decoder, model.encode_query(query[rows]).vector)
        tree = head.history.forest.trees[number]
        out[rows] = validity(scorer, tree, len(rows), beam_size=head.config.beam_size)
    return out
