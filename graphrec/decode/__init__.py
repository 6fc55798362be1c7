"""From next-code probabilities to users: search and sampling down the tree of existing STUs."""

from graphrec.decode.forest import Forest as Forest
from graphrec.decode.sample import sample as sample
from graphrec.decode.scorer import Beam as Beam
from graphrec.decode.scorer import NextCodeScorer as NextCodeScorer
from graphrec.decode.scoring import score_all as score_all
from graphrec.decode.scoring import score_candidates as score_candidates
from graphrec.decode.search import beam_search as beam_search
from graphrec.decode.search import validity as validity
from graphrec.decode.tree import PrefixTree as PrefixTree
