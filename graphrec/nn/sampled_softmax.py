"""The softmax over all users, estimated from the candidates of a training step."""

from __future__ import annotations

import torch
from torch import Tensor


def sampled_log_softmax(goal: Tensor, others: Tensor, log_q: Tensor, excluded: Tensor) -> Tensor:
    """Estimate each target's log-probability in the softmax over all users from sampled negatives.

    Each negative is weighted 1 / q, where q is its probability of being drawn, so that the estimated
    partition function is unbiased (Horvitz & Thompson 1952; with popular users drawn more often, the logQ
    correction of Yi et al. 2019, https://doi.org/10.1145/3298689.3346996). The target is weighted 1.

    Args:
        goal: [B] logits of the targets.
        others: [B, C] logits of the candidates.
        log_q: [C] log-probabilities of being drawn.
        excluded: [B, C] bool, candidates that are not negatives: the query's user, the target, users not
            drawn, users outside the event's slice.

    Returns:
        [B]; 0 if no negative is left.
    """
    logits = (others - log_q).masked_fill(excluded, -torch.inf)
    return goal - torch.logaddexp(goal, logits.logsumexp(1))
