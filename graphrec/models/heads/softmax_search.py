"""The search of the softmax over users: a shortlist and the neighborhood are scored, not all users."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphrec.data import Events, Query
from graphrec.data.draws import below, hashed
from graphrec.features import presence_features, presence_features_of_pairs
from graphrec.inference import lasting_tensors
from graphrec.models.heads.groups import groups_of
from graphrec.models.heads.layer_kernel import add_layer_scores
from graphrec.models.heads.shortlist import Shortlist, Shortlists
from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.models.mixture.profile_parts import add_profile_logits, map_people
from graphrec.models.recommender import MAX_SCORES
from graphrec.retrieval.topk import select_rows, stable_topk, tie_order
from graphrec.temporal import SpectralQuery

if TYPE_CHECKING:
    from graphrec.models.heads.softmax import BoundSoftmaxHead

MIN_PROBABILITY = 1e-30
TYPICAL_USERS = 64
"""Users whose mean query vector orders the shortlist."""

QUERIES_PER_SEARCH = 256
COSINE = 4
"""The row of the cosine in `presence_features`."""


class SoftmaxSearch:
    """Finds the likeliest users of a `BoundSoftmaxHead` at a cost that does not grow with their number.

    Two stages: a shortlist of the users with the highest logits for a typical query, renewed at regular
    moments (`Shortlists`), then exact logits of these and of the neighbors. The sum over all users, which
    turns logits into probabilities, is estimated from a sample of the users who are not listed. In networks
    of at most 4,096 users the search is exact.

    Args:
        head: the bound head.

    Attributes:
        head: as given.
        shortlists: of the graph.
    """

    def __init__(self, head: BoundSoftmaxHead) -> None:
        self.head = head
        self.shortlists = Shortlists(head.view, self._typical_logits)
        self._embeddings: tuple[Shortlist, int, Tensor] | None = None
        self._features: tuple[Shortlist, Events, int, Tensor] | None = None

    def follow(self, head: BoundSoftmaxHead) -> SoftmaxSearch:
        """Return the search of this head on a graph that has grown."""
        out = SoftmaxSearch(head)
        out.shortlists.take_over(self.shortlists)
        return out

    def query_groups(self, tick: Tensor) -> list[Tensor]:
        """See `Searches`: groups of queries with one shortlist."""
        return groups_of(self.shortlists.number(tick), QUERIES_PER_SEARCH)

    def search(
        self, encoded: EncodedQuery, k: int, exclude: tuple[Tensor, Tensor], exclude_users: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Searches`: the neighborhood, and the best of the shortlist."""
        num_users, neighbors = self.head.view.graph.num_users, encoded.neighbors
        listed = self.shortlists[int(self.shortlists.number(encoded.tick[:1]))]
        log_p = self._logits(encoded, listed).cpu()
        log_total = torch.logsumexp(log_p + listed.log_weight, 1)
        log_p -= log_total[:, None]
        if neighbors is not None:
            inside, beyond = (part.cpu() for part in neighbors.shares())
            near_row, near = neighbors.row.cpu(), neighbors.user.cpu()
            log_beyond = beyond.log()
            log_p += log_beyond[:, None]
            log_p.clamp_(min=math.log(MIN_PROBABILITY))
            own = self._logits_of_pairs(encoded, near_row, near).cpu()
            own = inside + (own - log_total[near_row] + log_beyond[near_row]).exp()
            own = own.clamp(min=MIN_PROBABILITY).log()
            barred, exclude = exclude, (torch.cat([near_row, exclude[0]]), torch.cat([near, exclude[1]]))
        found, column = listed.columns(exclude[1], num_users)
        log_p[exclude[0][found], column[found]] = -torch.inf
        if len(exclude_users):
            found, column = listed.columns(exclude_users, num_users)
            log_p[:, column[found]] = -torch.inf
        row, user, score = _best(log_p, listed.user, k)
        if neighbors is not None:
            row, user, score = torch.cat([near_row, row]), torch.cat([near, user]), torch.cat([own, score])
        if self.shortlists.covers_all or log_p.size(1) - len(exclude[0]) - len(exclude_users) >= 2 * k:
            return row, user, score
        candidates = (log_p > -torch.inf).sum(1)
        if neighbors is not None:
            excluded = torch.isin(near_row * num_users + near, barred[0] * num_users + barred[1])
            excluded |= torch.isin(near, exclude_users)
            candidates += torch.bincount(near_row[~excluded], minlength=len(encoded))
        short = candidates < 2 * k
        if not bool(short.any()):
            return row, user, score
        # Each query by itself, so that no other of the batch changes its list.
        kept = ~short[row]
        parts = [(row[kept], user[kept], score[kept])]
        all_users = short.nonzero().squeeze(1)
        all_users = all_users[encoded.query.time[all_users].argsort(stable=True)]
        for rows in all_users.split(max(1, MAX_SCORES // num_users)):
            parts.append(self._search_all(encoded, rows, k, exclude, exclude_users))
        row, user, score = (torch.cat(part) for part in zip(*parts, strict=True))
        return row, user, score

    def _search_all(
        self,
        encoded: EncodedQuery,
        rows: Tensor,
        k: int,
        exclude: tuple[Tensor, Tensor],
        exclude_users: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `search`, among all users, for the queries `rows` [b] int64, in order of time.

        Neighbors are in `exclude`, as they are found anyway.
        """
        size, neighbors = len(encoded), encoded.neighbors
        order = tie_order(self.head.view.graph.num_users)
        p, found = self.head.log_probs(encoded.select(rows)).cpu().exp_(), []
        if neighbors is not None:
            inside, beyond = (part.cpu() for part in neighbors.shares())
            place = torch.full((size,), -1).index_copy(0, rows, torch.arange(len(rows)))
            here = (place[neighbors.row.cpu()] >= 0).nonzero().squeeze(1)
            near_row, near = neighbors.row.cpu()[here], neighbors.user.cpu()[here]
            p.mul_(beyond[rows, None])
            p[place[near_row], near] += inside[here]
        log_p = p.clamp_(min=MIN_PROBABILITY).log_()
        if neighbors is not None:
            found.append((near_row, near, log_p[place[near_row], near]))
        log_p[select_rows(*exclude, rows, size)] = -torch.inf
        log_p[:, exclude_users] = -torch.inf
        row, user, score = _best(log_p[:, order], order, k)
        found.append((rows[row], user, score))
        row, user, score = (torch.cat(part) for part in zip(*found, strict=True))
        return row, user, score

    def _logits(self, encoded: EncodedQuery, listed: Shortlist) -> Tensor:
        """Logits of the users of a shortlist for B queries: [B, C]."""
        head, view, presence = self.head, self.head.view, self.head.table.presence
        if presence is None or head.network.device.type != "cpu":
            return head.logits(encoded, listed.user)
        out = head.table_logits(encoded, listed.user)
        out = add_profile_logits(view, head.network, out, encoded, listed.user).contiguous()
        # The features of a user at a time are those of all queries of that time, but for the cosine.
        query, size = encoded.query, len(listed.user)
        time, moment = query.time.unique(return_inverse=True)
        features, (weight, bias) = self._presence(listed, time), presence.folded()
        embeddings, vector = out.new_zeros(0, len(time) * size), out.new_zeros(len(query), 0)
        if encoded.spectral is not None:
            snapshot = torch.empty_like(time)
            snapshot[moment] = encoded.spectral.snapshot
            parts = [self._spectral(encoded.spectral, listed, number) for number in snapshot.tolist()]
            embeddings, vector = torch.cat(parts, dim=1), encoded.spectral.vector
        row = torch.arange(len(query))
        arrays = (
            moment * size,
            row * size,
            torch.full_like(row, size),
            row,
            weight @ features.flatten(1),
            embeddings,
            bias.expand(len(query), -1),
            vector,
            weight[:, COSINE],
            presence.score.weight.squeeze(0),
            out.view(-1).add_(presence.score.bias),
        )
        add_layer_scores(*(array.contiguous().numpy() for array in arrays))
        return out

    def _presence(self, listed: Shortlist, time: Tensor) -> Tensor:
        """Features of the users of a shortlist, [F, T, C], at T times; the last ones of one time are kept."""
        timeline, last = self.head.view.timeline, self._features
        same = last is not None and last[0] is listed and last[1] is timeline.events
        if last is not None and same and len(time) == 1 and last[2] == int(time):
            return last[3]
        query = Query(torch.zeros_like(time), time, torch.zeros_like(time))
        with lasting_tensors():
            out = torch.cat(list(presence_features(timeline, query, listed.user)), dim=1)
        if len(time) == 1:
            self._features = listed, timeline.events, int(time), out
        return out

    def _spectral(self, spectral: SpectralQuery, listed: Shortlist, snapshot: int) -> Tensor:
        """Spectral embeddings of the users of a shortlist in a snapshot: [dim, C]; the last ones are kept."""
        last = self._embeddings
        if last is None or last[0] is not listed or last[1] != snapshot:
            with lasting_tensors():
                embeddings = spectral.embedding[snapshot, listed.user].T.contiguous()
            last = self._embeddings = listed, snapshot, embeddings
        return last[2]

    def _logits_of_pairs(self, encoded: EncodedQuery, row: Tensor, user: Tensor) -> Tensor:
        """Logits of M (query, user) pairs, `row`, `user` [M] int64: [M]."""
        head, view, network = self.head, self.head.view, self.head.network
        query, table, at = encoded.query, head.table, row.to(network.device)
        rows = head.rows_at(user, encoded.tick[row]).to(network.device)
        out: Tensor = (encoded.vector[at] * table.target(rows)).sum(1) + table.bias(rows).squeeze(1)
        if network.profile is not None and encoded.profile is not None:
            more = map_people(view, network.profile, user, query.time[row])
            own = torch.cat([encoded.vector, encoded.profile, torch.ones_like(encoded.vector[:, :1])], 1)
            out = out + (own[at] * more).sum(1)
        if table.presence is not None:
            parts = query, row, user, encoded.spectral, encoded.activity
            features = presence_features_of_pairs(view.timeline, *parts)
            out = out + table.presence(features[:, None].to(network.device))[0]
        return out

    def _typical_logits(self, tick: int) -> Tensor:
        """Logits of all users before a tick for the mean vector of queries without a history: [N]."""
        head, view, tower = self.head, self.head.view, self.head.network.tower
        device, actions = head.network.device, tower.action.num_embeddings
        num_rows = head.table.actor.num_embeddings - 1
        rows = 1 + below(hashed(view.seed, torch.arange(TYPICAL_USERS)), max(1, num_rows))
        actor = head.table.actor(rows.clamp(max=num_rows).to(device)).repeat(actions, 1)
        action = torch.arange(actions, device=device).repeat_interleave(TYPICAL_USERS)
        features = actor.new_zeros(len(actor), tower.standardize_query.mean.numel())
        vector = tower(tower.no_history.expand(len(actor), -1), actor, action, features).mean(0, keepdim=True)
        profile = None
        if head.network.profile is not None:
            profile = vector.new_zeros(1, head.network.profile.num_factors)
        none = torch.zeros(1, dtype=torch.int64)
        now = torch.tensor([tick])
        query = Query(none, torch.tensor([view.just_before(now[0])]), none)
        encoded = EncodedQuery(query, now, vector, features[:1], profile, None, None)
        out: Tensor = head.logits(encoded, None)[0].cpu()
        return out


def _best(log_p: Tensor, user: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k best of users [C] by log-probabilities [B, C], excluded ones at -inf: (row, user, score)."""
    best, column = stable_topk(log_p, min(k, log_p.size(1)))
    row, place = (best > -torch.inf).nonzero(as_tuple=True)
    return row, user[column[row, place]], best[row, place]
