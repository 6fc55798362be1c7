"""Writing STUs down the tree, for a batch of queries: teacher forcing, everyone, and what a search sees."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.decode import Beam, Forest, score_candidates
from graphrec.models.circles import Codes, Sweep
from graphrec.models.favours import TINY
from graphrec.models.neighborhood import Asked
from graphrec.nn import GenerativeNet, node_features, query_pace, segment_logsumexp
from graphrec.temporal import Timeline, run_starts

FEWEST = 1e-12


class Prefixes(NamedTuple):
    """R prefixes of one length l: the query [R], ascending, the node [R], codes [R, l], decoder's state."""

    row: Tensor
    node: Tensor
    codes: Tensor
    state: Tensor | None


class Below(NamedTuple):
    """The people around who are below prefixes: which [V], below which prefix [V] and child [V] (int64)."""

    person: Tensor
    prefix: Tensor
    child: Tensor


class Nexts(NamedTuple):
    """The children of R prefixes: whose [T], ascending, node [T], log-probability [T]; the new state [R].

    `below` is who was found to vote, where circles do.
    """

    at: Tensor
    child: Tensor
    log_p: Tensor
    state: Tensor | None
    below: Below | None

    def prefixes(self, old: Prefixes, forest: Forest) -> Prefixes:
        """All of them as prefixes."""
        codes = torch.cat([old.codes[self.at], forest.code[self.child][:, None]], dim=1)
        state = None if self.state is None else self.state[self.at]
        return Prefixes(old.row[self.at], self.child, codes, state)


class Writer:
    """The generator, bound to B queries.

    Args:
        network: what writes.
        codes: everyone's.
        timeline: the index.
        asked: the queries.
        everyone: whether all people will be asked about, the queries being in order of time.
    """

    def __init__(
        self,
        network: GenerativeNet,
        codes: Codes,
        timeline: Timeline,
        asked: Asked,
        *,
        everyone: bool = False,
    ) -> None:
        self._network, self.asked, self.codes = network, asked, codes
        self.number = codes.number(asked.tick)
        self._pace = query_pace(timeline, asked.query)
        self._place = None if asked.stands is None else asked.stands.vector
        self._sweep = self._everyone() if everyone else None
        around = asked.around
        self.person = torch.empty(0, dtype=torch.int64)
        if around is None:
            return
        number = self.number[around.row]
        path = self.codes.forest.path(number.clamp(min=0), around.user)
        self.has = (number >= 0) & (path[:, 0] >= 0)
        self.person = self.has.nonzero().squeeze(1)
        self.row, self.path = around.row[self.person], path[self.person]
        if around.circle is not None:
            self._is_contact, circle = around.contact[self.person], around.circle[self.person]
            total = segment_logsumexp(circle, self.row, len(asked.query))
            self._weight = (circle - total[self.row]).exp()

    def has_stu(self) -> tuple[Tensor, Tensor]:
        """Log-probability [B] that it is somebody with an STU, and that of each who has none [B]."""
        num_users = self.codes.codes.size(1)
        members = torch.where(self.number >= 0, self.codes.num_members[self.number.clamp(min=0)], 0)
        without = (num_users - members).clamp(min=1).float()
        said = torch.cat([self.asked.features, without.log()[:, None] / 10], dim=1)
        logit = self._network.has_stu(said).squeeze(1)
        logit = torch.where(members == num_users, 30.0, torch.where(members == 0, -30.0, logit))
        return F.logsigmoid(logit), F.logsigmoid(-logit) - without.log()

    def step(self, prefixes: Prefixes) -> Nexts:
        """The next codes of R prefixes, all of one length."""
        row, node, codes, state = prefixes
        network, forest, level = self._network, self.codes.forest, codes.size(1)
        logits, state = network.codes(self.asked.vector, row, codes, state)
        at, child = forest.children(node)
        logit = logits[at, forest.code[child]]
        if network.nodes is not None:
            features = self._node_features(row[at], child, leaves=level == forest.num_codebooks - 1)
            logit = logit + network.nodes[level](features, self.asked.vector, row[at])
        log_p, below = logit - segment_logsumexp(logit, at, len(row))[at], None
        if self.asked.around is not None and self.asked.around.circle is not None:
            below = self.below(prefixes, at)
            log_p = self._with_votes(prefixes, at, log_p, below)
        return Nexts(at, child, log_p, state, below)

    def below(self, prefixes: Prefixes, at: Tensor) -> Below:
        """Which of the people around with an STU are below R prefixes, whose children have rows `at` [T]."""
        row, node, codes, _ = prefixes
        forest, level = self.codes.forest, codes.size(1)
        key = row * forest.num_nodes + node
        asked = self.row * forest.num_nodes + self.path[:, level]
        prefix = torch.searchsorted(key, asked).clamp(max=len(key) - 1)
        person = (key[prefix] == asked).nonzero().squeeze(1)
        prefix = prefix[person]
        start = torch.searchsorted(at, torch.arange(len(row)))
        child = start[prefix] + self.path[person, level + 1] - forest.first_child(node[prefix])
        return Below(person, prefix, child)

    def _with_votes(self, prefixes: Prefixes, at: Tensor, log_p: Tensor, below: Below) -> Tensor:
        """Circles' votes, interpolated: a level counts on them as far as there are any below a prefix."""
        row, _, codes, _ = prefixes
        network, level = self._network, codes.size(1)
        person, prefix, child = below
        weight = self._weight[person]
        if level == self.codes.forest.num_codebooks - 1:
            weight = weight * ~self._is_contact[person]  # who is known already is left to the pointer
        votes = torch.zeros_like(log_p).index_add(0, child, weight)
        total = log_p.new_zeros(len(row)).index_add(0, prefix, weight)
        count = torch.bincount(prefix, minlength=len(row)).float()
        said = torch.stack([count.log1p() / 4, (total + FEWEST).log() / 8], dim=1)
        trust = network.trust[level](torch.cat([self.asked.features[row], said], dim=1)).squeeze(1)
        trust = trust.sigmoid() * (total > 0)
        mixed = trust[at] * votes / (total + FEWEST)[at] + (1.0 - trust[at]) * log_p.exp()
        out: Tensor = (mixed + FEWEST).log()
        return out

    def _everyone(self) -> Sweep:
        number, asked = self.number.clamp(min=0), self.asked
        return self.codes.sweep(self._place, number, asked.tick, asked.query.time)

    def _node_features(self, row: Tensor, node: Tensor, *, leaves: bool) -> Tensor:
        query, codes = self.asked.query, self.codes
        if leaves and self._sweep is not None:
            activity, near = self._sweep.of(row, codes.forest.first_user[node])
        else:
            place = None if self._place is None else self._place[row]
            near = codes.near(place, self.number[row], node, leaves=leaves)
            activity = codes.activity(node, self.asked.tick[row], query.time[row])
        return node_features(query.time[row], self._pace[row], activity, codes.forest.size[node], near)


class Mixed:
    """The mixture as a search sees it (`graphrec.decode.NextCodeScorer`): queries of one moment, one tree.

    Going down, it keeps what share of a prefix's probability is the generator's; the rest is that of the
    people around who are below it. So what the search multiplies is the mixture's exact probability; only in
    a bucket of several people, those around share what is theirs with the others (see `exact`).

    Attributes:
        tree: of the moment.
        log_root: [B], log-probability that it is somebody with an STU, which is what the search starts from.
    """

    def __init__(self, writer: Writer, number: int) -> None:
        self._writer, self._forest, self._number = writer, writer.codes.forest, number
        asked = self._asked = writer.asked
        self.tree = self._forest.trees[max(0, number)]
        self._inside, self._beyond = torch.zeros(0), torch.ones(len(asked.query))
        if asked.around is not None:
            self._inside, self._beyond = asked.around.shares()
        self._log_has, self._log_none = writer.has_stu()
        self._generated = self._beyond * self._log_has.exp()
        root = self._generated
        if len(self._inside):
            root = root.index_add(0, writer.row, self._inside[writer.person])
        self.log_root = root.clamp(min=TINY).log()

    def alone(self) -> Mixed:
        """The generator's share of it, as if there were no sources around; circles go on voting."""
        out = copy.copy(self)
        out._inside, out._generated = self._inside[:0], torch.ones_like(self._generated)
        out.log_root = torch.zeros_like(self.log_root)
        return out

    def exact(self, row: Tensor, user: Tensor) -> Tensor:
        """The log-probabilities [V] of users [V] for queries [V]."""
        num_users, around = len(self.tree.place), self._asked.around
        log_p = self._log_none[row]
        if self._number >= 0:
            has = self.tree.place[user] >= 0
            written = score_candidates(self.alone(), self.tree, row, user) + self._log_has[row]
            log_p = torch.where(has, written, log_p)
        p = self._beyond[row] * log_p.exp()
        if around is not None and len(around.row):
            key, asked = around.row * num_users + around.user, row * num_users + user
            at = torch.searchsorted(key, asked).clamp(max=len(key) - 1)
            p = p + torch.where(key[at] == asked, self._inside[at], 0.0)
        return p.clamp(min=TINY).log()

    def without_stu(
        self, k: int, exclude: tuple[Tensor, Tensor], exclude_users: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Whoever of those without STU may be among the best k: (row [V], user [V], log-probability [V]).

        That is those around, and as many of the others, who are all as likely, that k are left of them.
        """
        around, size = self._asked.around, len(self._asked.query)
        num_users, others = len(self.tree.place), self._writer.codes.without_stu(self._number)
        others = others[~torch.isin(others, exclude_users)]
        row, user = (part[:0] for part in exclude)
        if around is not None:
            person = (~self._writer.has).nonzero().squeeze(1)
            row, user = around.row[person], around.user[person]
        taken = torch.bincount(torch.cat([row, exclude[0]]), minlength=size)
        others = others[: k + int(taken.max())]
        log_none = self._beyond.log() + self._log_none
        key = (torch.arange(size)[:, None] * num_users + others).flatten()
        key = key[~torch.isin(key, row * num_users + user)]
        log_p = log_none[key // num_users]
        if around is not None:
            near = (self._inside[person] + log_none[row].exp()).clamp(min=TINY).log()
            log_p = torch.cat([near, log_p])
        return torch.cat([row, key // num_users]), torch.cat([user, key % num_users]), log_p

    def nearest(self, k: int) -> tuple[Tensor, Tensor]:
        """The k people around with an STU whom the sources around hold likeliest: (row [V], user [V])."""
        around, person = self._asked.around, self._writer.person
        if around is None:
            return person, person
        order = person[self._inside[person].argsort(descending=True, stable=True)]
        order = order[around.row[order].argsort(stable=True)]
        order = order[torch.arange(len(order)) - run_starts(around.row[order]) < k]
        return around.row[order], around.user[order]

    def __call__(self, beam: Beam, state: tuple[Tensor, Tensor | None] | None) -> tuple[Tensor, Any]:
        """Log-probabilities [R, K] of the next codes."""
        if state is None:
            generated, decoder = self._generated[beam.row], None
        else:
            generated = state[0][beam.parent, beam.codes[:, -1]]
            decoder = None if state[1] is None else state[1][beam.parent]
        prefixes = Prefixes(beam.row, beam.node + self._forest.root[self._number], beam.codes, decoder)
        nexts = self._writer.step(prefixes)
        written = generated[nexts.at] * nexts.log_p.exp()
        mass = written
        if len(self._inside):
            below = nexts.below
            if below is None:
                below = self._writer.below(prefixes, nexts.at)
            mass = mass.index_add(0, below.child, self._inside[self._writer.person[below.person]])
        mass = mass.clamp(min=TINY)
        total = mass.new_zeros(len(beam.row)).index_add(0, nexts.at, mass)
        place = nexts.at, self._forest.code[nexts.child]
        shape = len(beam.row), self.tree.codebook_size
        log_p = mass.new_full(shape, -torch.inf).index_put(place, (mass / total[nexts.at]).log())
        kept = mass.new_zeros(shape).index_put(place, written)
        return log_p, (kept, nexts.state)


class Bare:
    """The decoder alone, over all codes."""

    def __init__(self, network: GenerativeNet, vector: Tensor) -> None:
        self._network, self._vector = network, vector

    def __call__(self, beam: Beam, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities [R, K] of the next codes, existing or not."""
        state = None if state is None else state[beam.parent]
        logits, state = self._network.codes(self._vector, beam.row, beam.codes, state)
        return logits.log_softmax(1), state


@dataclass(frozen=True)
class Written:
    """How likely the targets' STUs are, code by code.

    Attributes:
        total: [B], log-probability of the targets.
        said: what there is to log.
    """

    total: Tensor
    said: dict[str, Tensor]

    @classmethod
    def of(cls, writer: Writer, target: Tensor) -> Written:
        """With teacher forcing."""
        forest = writer.codes.forest
        log_has, lobby = writer.has_stu()
        path = forest.path(writer.number.clamp(min=0), target)
        has = (path[:, 0] >= 0) & (writer.number >= 0)
        row = has.nonzero().squeeze(1)
        total = torch.where(has, log_has, lobby)
        said: dict[str, Tensor] = {}
        if not len(row):
            return cls(total, said)
        path, right = path[row], torch.ones_like(row, dtype=torch.bool)
        codes, state = forest.code[path], None
        for level in range(forest.num_codebooks):
            nexts = writer.step(Prefixes(row, path[:, level], codes[:, 1 : level + 1], state))
            start = torch.searchsorted(nexts.at, torch.arange(len(row)))
            goal = nexts.log_p[start + path[:, level + 1] - forest.first_child(path[:, level])]
            best = torch.full_like(goal, -torch.inf).scatter_reduce(0, nexts.at, nexts.log_p.detach(), "amax")
            total = total.index_add(0, row, goal)
            said[f"loss_{level + 1}"] = -goal.detach().mean()
            said[f"accuracy_{level + 1}"] = (goal >= best).float().mean()
            right &= goal >= best
            state = nexts.state
        total = total.index_add(0, row, -forest.size[path[:, -1]].float().log())
        return cls(total, said | {"accuracy": right.float().mean()})

    def log_p(self, rows: Tensor, people: tuple[Tensor, Tensor] | None) -> Tensor:
        """See `Everyone`; who is no candidate keeps the little that the generator gives them."""
        return self.total[rows]

    def metrics(self) -> dict[str, Tensor]:
        """Losses and accuracies, level by level."""
        return self.said
