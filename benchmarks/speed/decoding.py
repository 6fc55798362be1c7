"""How many suggestions a second does the beam search make, against other ways to get them?

python -m benchmarks.speed.decoding [--users 25000 1000000] [--requests 100000] [--dataset NAME] --out DIR

For each number of users: a simulated network of ten events a user, STUs by residual k-means, and towers that
read the user's spectral embedding and are trained for a moment on the STUs of contacts, so that logits are
about as peaked as a model's. k = 20 for each query of a batch; the user and contacts are excluded. Beside
`beam_search`: all users scored exactly by the same towers; one matrix product with every user's embedding (a
two-tower's cost); and a search as it is commonly built, with a trie of dicts, a callback for each prefix
that lists allowed codes, a mask over the codebook, and exclusions afterwards. The fastest of several passes
counts. Then requests of many users: every suggestion must exist, be allowed and be distinct. On the data
set, the same with a trained `GenerativeSTU`, and with its generator alone. Each part runs in a process of
its own and is kept in DIR; an interrupted run continues.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.speed.scale import in_own_process
from graphrec.data import FriendGraph, Query, TemporalSplit
from graphrec.datasets import SyntheticFriends, load_dataset, replacing
from graphrec.decode import Beam, PrefixTree, beam_search, score_all, validity
from graphrec.models import (
    BoundCodeHead,
    GenerativeSTU,
    MixtureRecommender,
    generators,
    unconstrained_validity,
)
from graphrec.nn import CodeTables, CodeTowers
from graphrec.temporal import Timeline, ragged
from graphrec.tokenizer import ResidualKMeans, TokenizerQualityWarning

K, BEAM, TOP, CODEBOOKS = 20, 50, 10, 3
EVENTS_A_USER = 10
WIDTH = 64
STEPS, PAIRS = 300, 1024
DENSE_SCORES = 2**22
"""Scores held at once by the matrix product."""
SEED = 0
WAY, SEARCH = "ms a query, ", "beam_search"

Figures = dict[str, float]
Trie = dict[int, Any]
Pairs = tuple[Tensor, Tensor]


class Towers(nn.Module):
    """Where a user stands, and the codes so far, to logits of the next code."""

    def __init__(self, dim: int, codebook_size: int) -> None:
        super().__init__()
        self.size = codebook_size
        self.ask = nn.Linear(dim, WIDTH)
        self.tokens = CodeTables(CODEBOOKS, codebook_size, WIDTH)
        self.decoder = CodeTowers(CODEBOOKS, WIDTH, experts=False, dropout=0.0)
        self.next = nn.Parameter(0.1 * torch.randn(CODEBOOKS, codebook_size, WIDTH))
        self.bias = nn.Parameter(torch.zeros(CODEBOOKS, codebook_size))

    def forward(self, hidden: Tensor, row: Tensor, prefix: Tensor) -> Tensor:
        """[B, WIDTH], whose prefix it is [R], and codes [R, l] to log-probabilities [R, K]."""
        level = prefix.size(1)
        z: Tensor = self.decoder(hidden, row, prefix, self.tokens, None)[0]
        return torch.addmm(self.bias[level], z, self.next[level].T).log_softmax(1)

    def learn(self, places: Tensor, pairs: Pairs, codes: Tensor) -> float:
        """Write the STUs of contacts: the mean loss of a code at the end, in nats."""
        generator = torch.Generator().manual_seed(SEED)
        optimizer = torch.optim.Adam(self.parameters(), lr=3e-3)
        losses = []
        for _ in range(STEPS):
            drawn = torch.randint(len(pairs[0]), (PAIRS,), generator=generator)
            user, goal = pairs[0][drawn], codes[pairs[1][drawn]]
            hidden, row = self.ask(places[user]), torch.arange(PAIRS)
            parts = [F.nll_loss(self(hidden, row, goal[:, :at]), goal[:, at]) for at in range(CODEBOOKS)]
            loss = torch.stack(parts).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        self.eval().requires_grad_(False)
        return sum(losses[-20:]) / len(losses[-20:])

    def asked(self, places: Tensor) -> Asked:
        """Bound to the queries of people who stand at places [B, D]."""
        return Asked(self, self.ask(places))


class Asked:
    """Towers as a search sees them."""

    def __init__(self, towers: Towers, hidden: Tensor) -> None:
        self.towers, self.hidden = towers, hidden

    def __call__(self, beam: Beam, state: None) -> tuple[Tensor, None]:
        """Log-probabilities [R, K]."""
        return self.towers(self.hidden, beam.row, beam.codes), None


def trie_of(codes: Tensor) -> Trie:
    """Nested dicts, as a generic library keeps what may follow; at the last code, whose it is."""
    trie: Trie = {}
    for user, (*prefix, last) in enumerate(codes.tolist()):
        if last >= 0:
            node = trie
            for code in prefix:
                node = node.setdefault(code, {})
            node.setdefault(last, []).append(user)
    return trie


def generic_search(scorer: Asked, trie: Trie, barred: list[set[int]]) -> list[list[int]]:
    """Beam search with a callback for each prefix, as `prefix_allowed_tokens_fn` has it."""

    def allowed(prefix: list[int]) -> list[int]:
        node = trie
        for code in prefix:
            node = node[code]
        return list(node)

    rows, size = len(scorer.hidden), scorer.towers.size
    codes, total = torch.empty(rows, 1, 0, dtype=torch.int64), torch.zeros(rows, 1)
    for _ in range(CODEBOOKS):
        beams = codes.size(1)
        row, prefix = torch.arange(rows).repeat_interleave(beams), codes.flatten(0, 1)
        log_probs = scorer(Beam(row, torch.full_like(row, -1), prefix, row), None)[0]
        mask = torch.full_like(log_probs, -torch.inf)
        alive = total.flatten() > -torch.inf
        for number in alive.nonzero().squeeze(1).tolist():
            mask[number, allowed(prefix[number].tolist())] = 0
        score = (log_probs + mask).view(rows, -1) + total.repeat_interleave(size, dim=1)
        total, at = score.topk(min(BEAM, score.size(1)))
        kept = codes.gather(1, (at // size)[..., None].expand(-1, -1, codes.size(2)))
        codes = torch.cat([kept, at[..., None] % size], 2)
    out = []
    for listed, values, gone in zip(codes.tolist(), total.tolist(), barred, strict=True):
        people: list[int] = []
        for stu, value in zip(listed, values, strict=True):
            if value > -torch.inf:
                node = trie
                for code in stu:
                    node = node[code]
                people += [user for user in node if user not in gone]
        out.append(people[:K])
    return out


def seconds(work: Callable[[], object], limit: float) -> float:
    """Of the fastest pass; the first, which warms up, counts only if there is time for no other."""
    best, began = float("inf"), time.perf_counter()
    for turn in range(1000):
        start = time.perf_counter()
        work()
        took = time.perf_counter() - start
        best = took if turn == 1 else min(best, took)
        if time.perf_counter() - began > limit:
            break
    return best


def overlap(found: Tensor, best: Tensor) -> float:
    """The share of each row's users [B, k] that is among the best [B, k]."""
    return float((found[:, :, None] == best[:, None]).any(2).float().mean())


def violations(users: Tensor, exclude: Pairs, tree: PrefixTree, k: int) -> dict[str, float]:
    """How many of the suggestions [B, k] do not exist, are not allowed, come twice or are missing."""
    n, given = tree.num_users, users >= 0
    row, user = given.nonzero(as_tuple=True)[0], users[given]
    barred = (exclude[0] * n + exclude[1]).unique()
    key = row * n + user
    has = tree.place[barred % n] >= 0
    left = len(tree) - torch.bincount(barred[has] // n, minlength=len(users))
    return {
        "suggestions": float(len(user)),
        "do not exist": float(((user >= n) | (tree.place[user.clamp(max=n - 1)] < 0)).sum()),
        "not allowed": float(torch.isin(key, barred).sum()),
        "twice": float(len(key) - len(key.unique())),
        "missing": float((left.clamp(max=k) - given.sum(1)).abs().sum()),
    }


def summed(parts: Iterator[dict[str, float]]) -> dict[str, float]:
    """Sums by name."""
    total: dict[str, float] = {}
    for part in parts:
        total = {name: total.get(name, 0.0) + value for name, value in part.items()}
    return total


def tensor_mib(thing: object) -> float:
    """What an object's tensors take."""
    return sum(value.nbytes for value in vars(thing).values() if isinstance(value, Tensor)) / 2**20


def prepare(file: Path, users: int, codebook_size: int | None) -> None:
    """Simulate, fit and train, once; the searches start from the file."""
    warnings.simplefilter("ignore", TokenizerQualityWarning)
    torch.manual_seed(SEED)
    graph = SyntheticFriends(users, EVENTS_A_USER * users)[0]
    until = int(graph.events().time[-1]) + 1
    tokenizer = ResidualKMeans(num_codebooks=CODEBOOKS, codebook_size=codebook_size).fit(graph, until=until)
    codes, contacts = tokenizer.codes_before(graph, until), Timeline.of(graph).contacts
    places = tokenizer.quantizer.decode(codes.clamp(min=0)).detach() * (codes[:, :1] >= 0)
    towers = Towers(places.size(1), tokenizer.table.codebook_size)
    one = torch.repeat_interleave(torch.from_numpy(contacts.lists.length).long())
    loss = towers.learn(places, (one, contacts.other.long()), codes)
    ptr = torch.cat([contacts.start, torch.tensor([len(contacts.other)])])
    kept = {"codes": codes, "places": places, "ptr": ptr, "other": contacts.other}
    with replacing(file) as partial:
        torch.save(kept | {"towers": towers.state_dict(), "loss": loss}, partial)


class World:
    """What `prepare` wrote, with the tree of its STUs.

    Attributes:
        codes: [N, L] int64.
        tree: of these.
        built: seconds it took.
        towers: trained.
        loss: of a code, in nats.
    """

    def __init__(self, file: Path) -> None:
        kept = torch.load(file, weights_only=True)
        self.codes, self.loss = kept["codes"], float(kept["loss"])
        self._places, self._ptr, self._other = kept["places"], kept["ptr"], kept["other"].long()
        self.towers = Towers(self._places.size(1), kept["towers"]["bias"].size(1))
        self.towers.load_state_dict(kept["towers"])
        self.towers.eval().requires_grad_(False)
        began = time.perf_counter()
        self.tree = PrefixTree(self.codes, self.towers.size)
        self.built = time.perf_counter() - began

    def asked(self, user: Tensor) -> tuple[Asked, Pairs]:
        """The towers bound to users [B], and who is not to be suggested: these and their contacts."""
        row, at = ragged(self._ptr[user], self._ptr[user + 1])
        exclude = torch.cat([row, torch.arange(len(user))]), torch.cat([self._other[at], user])
        return self.towers.asked(self._places[user]), exclude


def some_users(num_users: int, batch: int, number: int) -> Tensor:
    """The users of a batch, [B] int64: another for each number."""
    return torch.randint(num_users, (batch,), generator=torch.Generator().manual_seed(SEED + number))


def speeds(file: Path, batch: int, limit: float) -> Figures:
    """Milliseconds a query of each way, what the beam loses, and what the tree takes."""
    world = World(file)
    tree, users = world.tree, len(world.codes)
    few = tree.users[:100]
    began = time.perf_counter()
    smaller = tree.remove(few)
    smaller.insert(few, world.codes[few])
    changed = time.perf_counter() - began
    began = time.perf_counter()
    trie = trie_of(world.codes)
    built = time.perf_counter() - began
    user = some_users(users, batch, 0)
    scorer, exclude = world.asked(user)
    barred: list[set[int]] = [set() for _ in range(batch)]
    for row, person in zip(*(part.tolist() for part in exclude), strict=True):
        barred[row].add(person)
    exact_rows = max(1, min(batch, 2**21 // tree.num_nodes))
    part, out_of = world.asked(user[:exact_rows])
    table, dense_rows = torch.randn(users, WIDTH), max(1, min(batch, DENSE_SCORES // users))

    def everyone() -> Tensor:
        return score_all(part, tree, exact_rows).index_put(out_of, torch.tensor(-torch.inf)).topk(K)[1]

    def dense() -> Tensor:
        return (scorer.hidden[:dense_rows] @ table.T).topk(K)[1]

    def searched() -> Tensor:
        return beam_search(scorer, tree, batch, K, beam_size=BEAM, exclude=exclude)[0]

    ways: dict[str, tuple[Callable[[], object], int]] = {
        SEARCH: (searched, batch),
        "a callback for each prefix": (lambda: generic_search(scorer, trie, barred), batch),
        "everyone, by the same towers": (everyone, exact_rows),
        "everyone, by one matrix product": (dense, dense_rows),
    }
    out = {WAY + name: 1e3 * seconds(work, limit) / rows for name, (work, rows) in ways.items()}
    generic = generic_search(scorer, trie, barred)
    best, log_probs = [], []
    for rows in torch.arange(min(batch, 64)).split(exact_rows):
        some, gone = world.asked(user[rows])
        value = score_all(some, tree, len(rows)).index_put(gone, torch.tensor(-torch.inf)).topk(TOP)
        best.append(value.indices)
        log_probs.append(value.values)
    return out | {
        "threads": float(torch.get_num_threads()),
        "codebook size": float(tree.codebook_size),
        "users with an STU": float(len(tree)),
        "nodes": float(tree.num_nodes),
        "tree, seconds to build": world.built,
        "tree, MiB": tensor_mib(tree),
        "100 users removed and inserted, seconds": changed,
        "trie of dicts, seconds to build": built,
        "loss of a code, nats": world.loss,
        "log of the codebook size": float(torch.tensor(tree.codebook_size).log()),
        "probability of the 10 best": float(torch.cat(log_probs).exp().sum(1).mean()),
        "overlap of the top 10 with the exact one": overlap(
            searched()[: len(torch.cat(best)), :TOP], torch.cat(best)
        ),
        "callback's lists that are too short": sum(len(people) < K for people in generic) / batch,
        "validity without constraint": float(validity(scorer, tree, batch, beam_size=BEAM).mean()),
    }


def requested(file: Path, batch: int, requests: int) -> Figures:
    """What is wrong with the suggestions of so many requests."""
    world = World(file)

    def parts() -> Iterator[dict[str, float]]:
        for number, size in enumerate(torch.arange(requests).split(batch), 1):
            user = some_users(len(world.codes), len(size), number)
            scorer, exclude = world.asked(user)
            found = beam_search(scorer, world.tree, len(user), K, beam_size=BEAM, exclude=exclude)[0]
            yield {"requests": float(len(user))} | violations(found, exclude, world.tree, K)

    return summed(parts())


@torch.no_grad()
def judged(model: MixtureRecommender[BoundCodeHead], graph: FriendGraph, batch: int, limit: float) -> Figures:
    """How fast a fitted model suggests on queries of the validation part, and what its beam loses."""
    ids = TemporalSplit.of(graph).event_ids("val")
    ids = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(SEED))[:batch].sort().values]
    query = Query.of_events(graph, ids)
    own, lost = (torch.arange(len(query)), query.user), torch.tensor(-torch.inf)
    exact = model.score(query).index_put(own, lost).topk(TOP)[1]
    found, best = [], []
    for rows, scorer in generators(model, query):
        own = torch.arange(len(rows)), query.user[rows]
        found.append(beam_search(scorer, scorer.tree, len(rows), TOP, beam_size=BEAM, exclude=own)[0])
        best.append(score_all(scorer, scorer.tree, len(rows)).index_put(own, lost).topk(TOP)[1])
    return {
        "recommend, ms a query": 1e3 * seconds(lambda: model.recommend(query, K), limit) / len(query),
        "score of everyone, ms a query": 1e3 * seconds(lambda: model.score(query), limit) / len(query),
        "recommend, overlap of the top 10": overlap(model.recommend(query, TOP)[0], exact),
        "generator alone, overlap of the top 10": overlap(torch.cat(found), torch.cat(best)),
        "validity without constraint": float(unconstrained_validity(model, query).mean()),
    }


def trained(dataset: str, sizes: dict[str, Any], batch: int, limit: float, requests: int) -> Figures:
    """The same of a `GenerativeSTU`, on queries of the validation part; requests after the end of the log."""
    warnings.simplefilter("ignore", TokenizerQualityWarning)
    graph = load_dataset(dataset)
    split, timeline, num_users = TemporalSplit.of(graph), Timeline.of(graph), graph.num_users
    model = GenerativeSTU(**sizes, beam_size=BEAM, progress=False)
    model.fit(graph, until=split.t_val, validate_until=split.t_test)

    def parts() -> Iterator[dict[str, float]]:
        everybody = PrefixTree(torch.zeros(num_users, 1, dtype=torch.int64), 1)  # STU or not
        for number, size in enumerate(torch.arange(requests).split(batch), 1):
            asked = Query.of(graph, some_users(num_users, len(size), number))
            row, person = timeline.contacts.before(asked.user, timeline.tick(asked.time))
            users = model.recommend(asked, K, exclude=(row, person))[0]
            exclude = torch.cat([row, torch.arange(len(asked))]), torch.cat([person, asked.user])
            yield {"requests": float(len(asked))} | violations(users, exclude, everybody, K)

    return judged(model, graph, batch, limit) | summed(parts())


def main() -> None:
    """Measure what is not kept yet, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.decoding", description=__doc__)
    parser.add_argument("--users", type=int, nargs="*", default=[1_000, 5_000], metavar="N")
    parser.add_argument("--codebook-size", type=int, help="the same for all; by default it follows N")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5, help="for each way")
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--dataset", default="CollegeMsg", metavar="NAME", help="or 'none'")
    parser.add_argument("--epochs", type=int, default=1, help="of training on the data set")
    parser.add_argument("--epoch-batches", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    batch, requests, limit = options.batch, options.requests, options.seconds

    def kept(name: str, function: Callable[..., Figures], *arguments: object) -> Figures:
        file = options.out / f"{name}.json"
        if not file.exists():
            file.write_text(json.dumps(in_own_process(function, *arguments), indent=1) + "\n")
            print(f"{file}: done", flush=True)
        found: Figures = json.loads(file.read_text())
        return found

    columns: dict[str, Figures] = {}
    for users in options.users:
        name = f"decoding-{users}-{options.codebook_size or 'auto'}"
        world = options.out / f"{name}.pt"
        if not world.exists():
            in_own_process(prepare, world, users, options.codebook_size)
        figures = kept(f"{name}-{batch}-speed", speeds, world, batch, limit)
        fast = figures[WAY + SEARCH]
        columns[f"{users:,} users"] = {
            "suggestions a second, beam_search": 1e3 * K / fast,
            **figures,
            **{
                f"times as fast as {name.removeprefix(WAY)}": value / fast
                for name, value in figures.items()
                if name.startswith(WAY) and name != WAY + SEARCH
            },
            **kept(f"{name}-{requests}-requests", requested, world, batch, requests),
        }
    show(columns)
    if options.dataset != "none":
        sizes = {"max_epochs": options.epochs, "epoch_batches": options.epoch_batches}
        name = "-".join(["decoding", options.dataset, *map(str, sizes.values()), str(requests)])
        figures = kept(name, trained, options.dataset, sizes, batch, limit, requests)
        show({f"GenerativeSTU, {options.dataset}": figures})


def show(columns: dict[str, Figures]) -> None:
    """A column for each."""
    if columns:
        names = list(next(iter(columns.values())))
        body = [[name, *(_text(column[name]) for column in columns.values())] for name in names]
        align = ["left", *["right"] * len(columns)]
        print(f"\n{tabulate(body, headers=['', *columns], disable_numparse=True, colalign=align)}")


def _text(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:,.3f}"


if __name__ == "__main__":
    main()
