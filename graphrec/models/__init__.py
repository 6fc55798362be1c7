"""Recommenders: heuristics and models that answer the same calls."""

from graphrec.models.bidirectional import Bidirectional as Bidirectional
from graphrec.models.clustered import CLUSTERED as CLUSTERED
from graphrec.models.clustered import Clustered as Clustered
from graphrec.models.fair_load import FairLists as FairLists
from graphrec.models.fair_load import fair_load as fair_load
from graphrec.models.generative import GENERATIVE as GENERATIVE
from graphrec.models.generative import GenerativeSTU as GenerativeSTU
from graphrec.models.heuristics import HEURISTICS as HEURISTICS
from graphrec.models.heuristics import Heuristic as Heuristic
from graphrec.models.heuristics import Random as Random
from graphrec.models.hybrid import Hybrid as Hybrid
from graphrec.models.nearest import Nearest as Nearest
from graphrec.models.neighborhood import NeighborhoodModel as NeighborhoodModel
from graphrec.models.oracle import Oracle as Oracle
from graphrec.models.reciprocity import Reciprocity as Reciprocity
from graphrec.models.recommender import Recommender as Recommender
from graphrec.models.registry import MODELS as MODELS
from graphrec.models.registry import build as build
from graphrec.models.registry import load_recommender as load_recommender
from graphrec.models.suggest import Suggestions as Suggestions
from graphrec.models.suggest import suggest as suggest
from graphrec.models.suggest import suggested as suggested
from graphrec.models.two_tower import LEARNED as LEARNED
from graphrec.models.two_tower import TwoTower as TwoTower
