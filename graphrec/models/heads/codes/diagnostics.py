"""The decoder of a generative model without the neighborhood: for searches, and to measure its validity."""

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
    """Group queries by the moment of the codes that they read: (rows [b] int64, moment's number)."""
    tick, history = model.view.timeline.tick(query.time), model.head.history
    for rows in model.head.query_groups(tick):
        number = int(history.number(tick[rows[:1]]))
        if number >= 0:
            yield rows, number


@torch.no_grad()
def generators(
    model: MixtureRecommender[BoundCodeHead], query: Query
) -> Iterator[tuple[Tensor, MixtureScorer]]:
    """Bind the decoder alone, without the neighborhood, for the searches of `graphrec.decode`.

    Args:
        model: fitted.
        query: B queries; those before the first fit of the tokenizer are left out.

    Yields:
        the rows [b] int64 of queries that share a prefix tree, and their scorer, whose attribute `tree` is
        that tree. Its probabilities are the decoder's, given that the target has an STU.
    """
    for rows, _ in _groups(model, query):
        yield rows, model.head.mixture_scorer(model.encode_query(query[rows])).decoder_alone()


@single_precision()
@torch.no_grad()
def unconstrained_validity(model: MixtureRecommender[BoundCodeHead], query: Query) -> Tensor:
    """The fraction of the code sequences in an unconstrained beam that are a user's STU.

    Args:
        model: fitted.
        query: B queries.

    Returns:
        [B] float32; 0 for queries before the first fit of the tokenizer.
    """
    head, out = model.head, torch.zeros(len(query))
    for rows, number in _groups(model, query):
        scorer = UnconstrainedScorer(head.decoder, model.encode_query(query[rows]).vector)
        tree = head.history.forest.trees[number]
        out[rows] = validity(scorer, tree, len(rows), beam_size=head.config.beam_size)
    return out
