"""The README's example: fit a learned model, evaluate it, suggest."""

from graphrec import TemporalSplit, evaluate_streaming, load_dataset, suggest
from graphrec.models import TwoTower

graph = load_dataset("Copenhagen")  # or FriendGraph.from_events(read_events("my.csv"))
split = TemporalSplit.of(graph)
model = TwoTower(max_epochs=1, epoch_batches=25, progress=False)
model.fit(graph, until=split.t_val, validate_until=split.t_test)

for row in evaluate_streaming(model, graph, part="test").rows()[:4]:
    print(f"{row['slice']:8} n={row['n']:<6} MRR {row['mrr']:.3f}  Hits@10 {row['hits@10']:.3f}")
for given in suggest(model, [706, 323], k=5):
    print(given.user, "may know", given.people)
