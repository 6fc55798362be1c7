"""The interface of a model to a search: log-probabilities of the next code of prefixes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Beam:
    """R prefixes of one length l, of several queries: the input of a scorer.

    Attributes:
        row: [R] int64, ascending, the query of each prefix, below B. Queries may be missing.
        node: [R] int64, the prefix's node in the tree, ascending in each row; -1 for prefixes that are not in
            the tree, which only `validity` asks about.
        codes: [R, l] int64, the codes of the prefix.
        parent: [R] int64, the position of each prefix's parent in the previous beam (of length l - 1); 0..R-1
            in the first beam.
    """

    row: Tensor
    node: Tensor
    codes: Tensor
    parent: Tensor


class NextCodeScorer(Protocol):
    """A model bound to a batch of B queries, called once a level.

    It returns log-probabilities [R, K] of each prefix's next code, and a state that it gets back at the next
    level; the first state is None. A tower per level needs no state and reads `beam.row` and `beam.codes`; a
    decoder returns its cached keys [R, ...] and first reorders those it gets: `cache[beam.parent]`. The state
    must not be changed in place.
    """

    def __call__(self, beam: Beam, state: Any) -> tuple[Tensor, Any]:
        """Return log-probabilities [R, K] of the next codes, and the state."""


def next_code_log_probs(
    scorer: NextCodeScorer, beam: Beam, state: Any, codebook_size: int
) -> tuple[Tensor, Any]:
    """Call a scorer and check its log-probabilities.

    Args:
        scorer: the model.
        beam: R prefixes.
        state: returned by the scorer at the previous level; None at the first.
        codebook_size: K.

    Returns:
        log-probabilities [R, K], float32 or float64, and the scorer's state.

    Raises:
        ValueError: they are not [R, K], or hold NaN or +inf.
    """
    log_probs, state = scorer(beam, state)
    expected, level = (len(beam.row), codebook_size), beam.codes.size(1)
    if log_probs.shape != expected:
        raise ValueError(
            f"the scorer must return {list(expected)} at level {level}, {list(log_probs.shape)} came"
        )
    if log_probs.dtype not in (torch.float32, torch.float64):
        log_probs = log_probs.float()
    if not bool(log_probs.max() < torch.inf):
        raise ValueError(f"the scorer returned NaN or +inf at level {level}")
    return log_probs, state
