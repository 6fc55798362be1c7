"""From next-code probabilities to people: search and sampling down the tree of the STUs that exist."""

from graphrec.decode.forest import Forest as Forest
from graphrec.decode.sample import sample as sample
from graphrec.decode.search import Beam as Beam
from graphrec.decode.search import Scorer as Scorer
from graphrec.decode.search import beam_search as beam_search
from graphrec.decode.search import score_all as score_all
from graphrec.decode.search import score_candidates as score_candidates
from graphrec.decode.search import validity as validity
from graphrec.decode.tree import PrefixTree as PrefixTree
