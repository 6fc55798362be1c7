"""Heuristics of the contact graph around both users: common contacts and degrees."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.models.direct_candidates import COMMON_CONTACTS, DECAYED_CONTACTS, JACCARD
from graphrec.models.heuristic_lists import DirectRule, Measured
from graphrec.models.heuristics.base import Heuristic
from graphrec.models.wanted import Wanted
from graphrec.temporal import dense
from graphrec.temporal.contacts import FIXED_POINT

DECAYED = DirectRule(candidates=DECAYED_CONTACTS)


class CommonNeighbors(Heuristic):
    """Number of common contacts of user and candidate; ties are broken by recent popularity."""

    name = "common_neighbors"
    direct = DirectRule(candidates=COMMON_CONTACTS)
    reads_contacts = True

    def _score_in_order(self, query: Query) -> Tensor:
        return self._fallback(query).add_(self._two_hop(query))

    def _two_hop(self, query: Query) -> Tensor:
        """Sums of `_weight` over common contacts with every user: [B, N] float64, exact whole numbers."""
        if self._far_apart(query):
            middle = len(query) // 2
            return torch.cat([self._two_hop(query[:middle]), self._two_hop(query[middle:])])
        ticks = self._timeline.tick(query.time)
        if self._changes is not None:
            own = torch.zeros(self.graph.num_users, len(query), dtype=torch.float64)
            own[query.user, torch.arange(len(query))] = 1.0
            weights = self._weight(self._degrees(query)).T.double()
            spread = self._contact_graph(query)
            return spread(spread(own).mul_(weights)).T.contiguous()
        row, person = self._timeline.contacts.before(query.user, ticks)
        weight = self._weight(self._timeline.degree(person, ticks[row]))
        reached = weight.new_zeros(self.graph.num_users, len(query))
        reached[person, row] = weight
        return dense.ContactGraph(self._timeline, ticks).spread(reached).T.contiguous().double()


class Jaccard(CommonNeighbors):
    """Common contacts over the union of both users' contacts (Jaccard 1901); ties by recent popularity."""

    name = "jaccard"
    direct = DirectRule(candidates=JACCARD)

    def _score_in_order(self, query: Query) -> Tensor:
        common = self._two_hop(query)
        degree = self._degrees(query)
        union = degree.add_(degree.gather(1, query.user[:, None])).sub_(common)
        # Two distinct fractions of integers up to N differ by at least 1 / N^2.
        squared = float(self.graph.num_users) ** 2
        return self._fallback(query).add_((common / union.clamp_(min=1.0)).mul_(squared))


class AdamicAdar(CommonNeighbors):
    """Common contacts, weighted 1 / ln(max(degree, 2)) (Adamic & Adar 2003); ties by recent popularity."""

    name = "adamic_adar"

    def _weight(self, degree: Tensor) -> Tensor:
        return (FIXED_POINT / degree.clamp(min=2).double().log()).round()


class DecayedAdamicAdar(Heuristic):
    """Adamic-Adar of contacts that decay; ties by recent popularity.

    A common contact w counts d(u, w) d(w, v) / ln(max(degree of w, 2)), with d = 2^(-age / half-life) + 0.02.
    The age of a contact is the number of events of the log since the pair's last one; the half-life is a
    twentieth of the events so far.
    """

    name = "decayed_adamic_adar"
    direct = DECAYED

    def _score_in_order(self, query: Query) -> Tensor:
        return self._fallback(query).add_(self._lists_of(DECAYED).decayed(query))

    def _weight(self, degree: Tensor) -> Tensor:
        return (FIXED_POINT / degree.clamp(min=2).double().log()).round() / FIXED_POINT


class PreferentialAttachment(Heuristic):
    """Product of both users' degrees (Barabasi & Albert 1999); ties by recent popularity."""

    name = "preferential_attachment"
    direct = DirectRule(measure=Measured.DEGREE)
    reads_contacts = True

    def _score_in_order(self, query: Query) -> Tensor:
        degree = self._degrees(query)
        return self._fallback(query).add_(degree.mul_(degree.gather(1, query.user[:, None])))

    def _list_directly(
        self, rule: DirectRule, query: Query, wanted: Wanted, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        own = self._timeline.degree(query.user, self._timeline.tick(query.time)).double()
        users, scores = super()._list_directly(rule, query, wanted, own)
        strangers = (own == 0).nonzero().squeeze(1)
        if len(strangers):  # popularity alone tells users apart
            part = query[strangers], wanted.select(strangers, len(query)), scale[strangers]
            users[strangers], scores[strangers] = super()._list_directly(DirectRule(), *part)
        return users, scores
