"""STUs for newcomers: users first seen after the fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphrec.data import USER, FriendGraph
from graphrec.tokenizer.canonical import renumber_users, user_hashes
from graphrec.tokenizer.fit import distances, embed_checked
from graphrec.tokenizer.id_positions import append_ids
from graphrec.tokenizer.members import Members

if TYPE_CHECKING:
    from graphrec.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Admission:
    """The result of `admit_newcomers`.

    Attributes:
        members: the members, followed by the newcomers among the users.
        users: [m] int64, the users with events or features, in canonical order.
        codes: [m, L] int64, their STUs.
    """

    members: Members
    users: Tensor
    codes: Tensor


def admit_newcomers(tokenizer: Tokenizer, graph: FriendGraph, users: Tensor, time: int) -> Admission:
    """Give STUs to users with events or features strictly before a time.

    Members among the users, whose STU was assigned later than `time`, get codes from the events before `time`
    and keep their STU.

    Args:
        tokenizer: fitted; not changed.
        graph: may have users who are not members.
        users: [n] int64, distinct.
        time: seconds.
    """
    members, position = tokenizer.members, tokenizer.member_positions(graph)
    past = graph.snapshot(time)
    events = past.events()
    seen = torch.zeros(graph.num_users, dtype=torch.bool)
    seen[events.src] = seen[events.dst] = True
    if "x" in past[USER]:
        seen |= past[USER].join_time >= 0 if "join_time" in past[USER] else True
    users = users[seen[users]]
    if not len(users):
        return Admission(members, users, tokenizer.prior[:0])
    order = torch.full((len(members),), -1)
    order[position[position >= 0]] = (position >= 0).nonzero().squeeze(1)
    fresh = (seen & (position < 0)).nonzero().squeeze(1)
    fresh = fresh[user_hashes(past)[fresh].argsort(stable=True)]
    order = torch.cat([order, fresh])
    known = renumber_users(past, order)
    known[USER].raw_id = append_ids(members.ids, past[USER].raw_id[fresh]).raw
    number = torch.full((graph.num_users,), -1)
    number[order[order >= 0]] = (order >= 0).nonzero().squeeze(1)
    users = users[number[users].argsort()]
    vectors = embed_checked(tokenizer, known, number[users], time)
    embedded = vectors.any(1)
    users, vectors = users[embedded], vectors[embedded]
    raw_codes = tokenizer.quantizer.encode(vectors)
    codes = raw_codes
    if tokenizer.unique:
        codes = members.stus.place(vectors, tokenizer.quantizer, raw_codes)
    new = position[users] < 0
    distance = distances(vectors, tokenizer.quantizer, codes)
    if bool(new.any()):
        members = members.append(
            past[USER].raw_id[users[new]],
            codes=codes[new],
            raw_codes=raw_codes[new],
            distance=distance[new],
            time=time,
        )
    return Admission(members, users, codes)
