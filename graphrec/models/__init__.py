"""Recommenders: heuristics and models that answer the same calls."""

from graphrec.models.heuristics import HEURISTICS as HEURISTICS
from graphrec.models.heuristics import Heuristic as Heuristic
from graphrec.models.heuristics import Random as Random
from graphrec.models.oracle import Oracle as Oracle
from graphrec.models.recommender import Recommender as Recommender
from graphrec.models.suggest import Suggestions as Suggestions
from graphrec.models.suggest import suggest as suggest
from graphrec.models.two_tower import LEARNED as LEARNED
from graphrec.models.two_tower import TwoTower as TwoTower
