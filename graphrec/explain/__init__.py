"""Reasons for a suggestion: the events that move its score, as data and as one plain sentence.

Every claim is tested. A piece of evidence stands for some events of the past; these are taken out of a copy
of the index, the recommender scores the pair again on the remaining events (the same parameters), and the
evidence is kept only if the score falls. The sentence addresses the user, so it mentions events
between the user and others, and the tie of two others only where it is mutual: both have acted.
"""

from graphrec.explain.evidence import CandidateActivity as CandidateActivity
from graphrec.explain.evidence import Evidence as Evidence
from graphrec.explain.evidence import PastEvents as PastEvents
from graphrec.explain.evidence import SharedContact as SharedContact
from graphrec.explain.evidence import SharedPrefixGroup as SharedPrefixGroup
from graphrec.explain.explanation import Explanation as Explanation
from graphrec.explain.search import explain as explain
