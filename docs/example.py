"""The README's library example."""

from graphrec import FriendGraph, TemporalSplit, evaluate_streaming, load_dataset, suggest
from graphrec.models import HEURISTICS

graph = load_dataset("Copenhagen")  # or FriendGraph.from_events(read_events("my.csv"))
assert isinstance(graph, FriendGraph)
split = TemporalSplit.of(graph)

model = HEURISTICS["reply_recency"]().fit(graph, until=split.t_val)
ranks = evaluate_streaming(model, graph, part="test")
for row in ranks.rows()[:4]:
    print(f"{row['slice']:8} n={row['n']:<6} MRR {row['mrr']:.3f}  Hits@10 {row['hits@10']:.3f}")

for given in suggest(HEURISTICS["common_neighbors"]().fit(graph, until=split.t_val), [706, 323], k=5):
    print(given.user, "may know", given.people)
