"""The hashes that number users: those of the definition, event by event."""

from __future__ import annotations

import torch
from graphs import Row, checked, graph_of, logs
from hypothesis import given

from graphrec.data.draws import hashed, mix
from graphrec.tokenizer import canonical

USERS = 6


@checked
@given(logs())
def test_hashes_of_users_are_sums_over_their_events(rows: list[Row]) -> None:
    graph = graph_of(rows, USERS)
    events = graph.events()
    names = torch.tensor([canonical._text_hash(name) for name in graph.actions])
    wanted = hashed(torch.zeros(USERS, dtype=torch.int64))
    event = hashed(events.time, names[events.action])
    for _ in range(canonical.HASH_ROUNDS):
        around = torch.zeros(USERS, dtype=torch.int64)
        around.index_add_(0, events.src, mix(event + wanted[events.dst]))
        around.index_add_(0, events.dst, mix(~event + wanted[events.src]))
        wanted = hashed(wanted, around)
    assert torch.equal(canonical.user_hashes(graph), wanted)
