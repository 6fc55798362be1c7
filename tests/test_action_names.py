"""Names of edge types that are derived from actions collide with no action."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from batches import check_batch
from graphs import checked, graph_of, random_rows
from hypothesis import given
from hypothesis import strategies as st
from recommenders import SMALL
from torch_geometric.nn import HeteroConv, SAGEConv

from graphrec.data import USER, DataError, EventLog, Query, reverse_of
from graphrec.data.events import RESERVED_ACTIONS, forbid_reserved
from graphrec.loader import EventLoader, QueryLoader, audit_leakage, message_graph
from graphrec.models import TwoTower
from graphrec.tokenizer import GNNRQVAE

ODD = (
    "msg",
    "rev_msg",
    "_b",
    "b",
    "rev_rev_msg",
    "rev",
    "of_b",
    "from_b",
    "a b",
    "a.b",
    "a/b",
)
ODD += (
    "a-b",
    "a:b",
    "user",
    "keys",
    "x" * 200,
    "\u00e9\u4e2d\U0001f600",
    "line\nend",
    "<msg>",
    "rev:msg",
    "reverse",
)


def names() -> st.SearchStrategy[str]:
    """Odd names, and pieces of derived ones put together."""
    pieces = st.lists(st.sampled_from(["rev", "_", "of", "from", "a", "b"]), min_size=1, max_size=6)
    return st.one_of(st.sampled_from(ODD), pieces.map("".join), st.text(min_size=1, max_size=5))


def allowed(name: str) -> bool:
    try:
        forbid_reserved(name, "a test")
    except DataError:
        return False
    return True


@checked
@given(st.sets(names().filter(allowed), min_size=2, max_size=8))
def test_no_two_edge_types_share_a_name(actions: set[str]) -> None:
    derived = {reverse_of(name) for name in actions}
    assert len(derived) == len(actions)
    assert not derived & {*actions, *RESERVED_ACTIONS}
    assert not any(allowed(name) for name in derived)
    for name in actions:
        if name.isidentifier():
            assert reverse_of(name).isidentifier()
            assert "__" not in reverse_of(name)


def test_what_is_suggested_for_a_reserved_name_is_allowed() -> None:
    misread = ("b_", "rev_", "_", "a#b", "#", "_#_", "rev_of#", "rev#of_x", "\u00e9_")
    for name in (*RESERVED_ACTIONS, "a__b", "a____b", "__", "a__", *misread, *map(reverse_of, ODD[:6])):
        with pytest.raises(DataError, match="rename it, for example to") as caught:
            forbid_reserved(name, "the log")
        assert allowed(str(caught.value).rsplit("'", 2)[1])


@pytest.mark.parametrize("actions", [("msg", "rev_msg"), ODD], ids=["two", "all"])
def test_loaders_keep_every_edge(actions: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = graph_of(random_rows(5, users=6, events=150, actions=actions))
        graph.validate()
        assert set(graph.actions) == set(actions)
        assert len(message_graph(graph).edge_types) == 2 * len(actions)
        late = int(graph.events().time[-1]) + 1
        loader = QueryLoader(graph, Query.of(graph, torch.arange(6), late), [-1], batch_size=6)
        (batch,) = loader
        check_batch(graph, batch, [-1])
        assert sum(store.time.numel() for store in batch.edge_stores) == 2 * graph.num_events
        audit_leakage(loader, num_moments=3)
        audit_leakage(EventLoader.of_events(graph, [3, 2], batch_size=50), num_moments=3)


@checked
@given(names())
def test_layers_of_pyg_read_every_allowed_name(action: str) -> None:
    """PyG's `HeteroConv` leaves out, in silence, the edges of names that it cannot tell apart."""
    kinds = [(USER, action, USER), (USER, reverse_of(action), USER)]
    layer = HeteroConv({kind: SAGEConv(2, 2) for kind in kinds})
    edges = torch.tensor([[0, 1], [1, 2]])
    if allowed(action):
        assert set(layer.convs.keys()) == set(kinds)
        assert USER in layer({USER: torch.randn(3, 2)}, {kinds[0]: edges})
        assert USER in layer({USER: torch.randn(3, 2)}, {kinds[1]: edges})


def test_layers_of_pyg_take_such_a_batch() -> None:
    graph = graph_of(random_rows(5, users=6, events=150, actions=ODD))
    (batch,) = QueryLoader(graph, Query.of(graph, torch.arange(6)), [-1], batch_size=6)
    layer = HeteroConv({kind: SAGEConv((4, 4), 4) for kind in batch.edge_types})
    out = layer({USER: torch.randn(batch[USER].num_nodes, 4)}, batch.edge_index_dict)
    out[USER].sum().backward()
    assert all(conv.lin_l.weight.grad is not None for conv in layer.convs.values())
    assert set(layer.convs.keys()) == set(batch.edge_types)


def test_a_log_with_a_name_that_pyg_misreads_is_refused() -> None:
    for name in ("b_", "a#b"):
        with pytest.raises(DataError, match=r"column 'action'.*HeteroConv.*rename it, for example to"):
            EventLog.from_arrays(["u"], ["v"], [1], [name])


@pytest.mark.parametrize("actions", [("msg", "rev_msg"), ODD], ids=["two", "all"])
def test_models_fit(actions: tuple[str, ...]) -> None:
    rows = random_rows(6, users=12, events=300, times=100, actions=actions)
    graph = graph_of(rows)
    until = int(graph.events().time[-1]) + 1
    model = TwoTower(**SMALL).fit(graph, until=until)
    query = Query.of(graph, torch.arange(12), action=actions[0])
    assert bool(torch.isfinite(model.score(query)).all())
    tokenizer = GNNRQVAE(codebook_size=4, num_codebooks=2, max_epochs=1).fit(graph, until=until)
    assert tokenizer.encode(graph, torch.arange(12)).shape[0] == 12


def test_thousands_of_actions_are_named_and_loaded() -> None:
    """Work that grows with the square of the number of actions takes minutes here."""
    size = 3000
    src, dst = torch.arange(size) % 40, (torch.arange(size) + 1 + torch.arange(size) // 40) % 40
    src, dst = src[src != dst], dst[src != dst]
    action = [f"a{i}" for i in range(len(src))]
    graph = graph_of(list(zip(src.tolist(), dst.tolist(), range(len(src)), action, strict=True)))
    query = Query.of(graph, torch.arange(8))
    loader = QueryLoader(graph, query, [-1], batch_size=8)
    calls = itertools.count()
    walked = type(graph).edge_items

    def counted(self: object) -> object:
        next(calls)
        return walked(self)

    type(graph).edge_items = counted
    try:
        loader = QueryLoader(graph, query, [-1], batch_size=8)
        (batch,) = loader
    finally:
        del type(graph).edge_items
    assert next(calls) < 20
    assert len(batch.edge_types) == 2 * len(action)
    drawn = {int(store.event_id[0]) for store in batch.edge_stores if store.event_id.numel()}
    ends = (src < 8) | (dst < 8)
    assert drawn == set(ends.nonzero().flatten().tolist())
