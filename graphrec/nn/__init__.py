"""The parts that models are made of."""

from graphrec.nn.features import NUM_PRESENCE_FEATURES as NUM_PRESENCE_FEATURES
from graphrec.nn.features import NUM_QUERY_FEATURES as NUM_QUERY_FEATURES
from graphrec.nn.features import pair_features as pair_features
from graphrec.nn.features import path_features as path_features
from graphrec.nn.features import person_features as person_features
from graphrec.nn.features import presence_features as presence_features
from graphrec.nn.features import query_features as query_features
from graphrec.nn.history import HistoryEncoder as HistoryEncoder
from graphrec.nn.history import Timelines as Timelines
from graphrec.nn.layers import Standardize as Standardize
from graphrec.nn.layers import mlp as mlp
from graphrec.nn.layers import segment_logsumexp as segment_logsumexp
from graphrec.nn.mixture import SOURCES as SOURCES
from graphrec.nn.mixture import NeighborhoodMixture as NeighborhoodMixture
from graphrec.nn.mixture import Votes as Votes
from graphrec.nn.towers import PRESENCE as PRESENCE
from graphrec.nn.towers import STRUCTURE as STRUCTURE
from graphrec.nn.towers import TwoTowerNet as TwoTowerNet
