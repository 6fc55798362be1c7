"""Heuristics as recommenders: the baselines that a learned model has to beat."""

from graphrec.models.heuristics.base import Heuristic as Heuristic
from graphrec.models.heuristics.catalog import HEURISTICS as HEURISTICS
from graphrec.models.heuristics.chance import Random as Random
from graphrec.models.heuristics.popularity import Popularity as Popularity
from graphrec.models.heuristics.walks import PPR as PPR
