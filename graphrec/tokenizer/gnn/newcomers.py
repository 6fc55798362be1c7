"""Spectral embeddings of newcomers of the default tokenizer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.temporal import Timeline

MAX_CONTACTS = 16
"""Latest contacts whose mean is a newcomer's spectral embedding."""


def place_newcomers(spectral: Tensor, timeline: Timeline) -> Tensor:
    """Fill in spectral embeddings of newcomers: the mean of those of their latest contacts.

    Contacts with many contacts weigh less.

    Args:
        spectral: [N, D], rows of 0 for users without one; changed in place, except where no contact has one.
        timeline: the index of the contacts.

    Returns:
        [N] bool, the users whose row was filled in.
    """
    fresh = (~spectral.any(1)).nonzero().squeeze(1)
    end = torch.tensor(len(timeline.instants))
    row, contact = timeline.last_half_edges(fresh, end.expand(len(fresh)), MAX_CONTACTS)
    other = timeline.other_of(contact)
    degree = timeline.activity(other, end.expand(len(other))).degree
    near = spectral[other] / (1.0 + degree[:, None]).sqrt()
    mean = F.normalize(torch.zeros(len(fresh), spectral.size(1)).index_add_(0, row, near), dim=1)
    spectral[fresh] = mean
    new = torch.zeros(len(spectral), dtype=torch.bool)
    new[fresh] = mean.any(1)
    return new
