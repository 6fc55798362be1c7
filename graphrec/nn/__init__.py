"""The parts that models are made of."""

from graphrec.nn.features import NUM_PAIR_FEATURES as NUM_PAIR_FEATURES
from graphrec.nn.features import NUM_PRESENCE_FEATURES as NUM_PRESENCE_FEATURES
from graphrec.nn.features import NUM_QUERY_FEATURES as NUM_QUERY_FEATURES
from graphrec.nn.features import pair_features as pair_features
from graphrec.nn.features import presence_features as presence_features
from graphrec.nn.features import query_features as query_features
from graphrec.nn.history import HistoryEncoder as HistoryEncoder
from graphrec.nn.history import Timelines as Timelines
from graphrec.nn.pointer import NeighborPointer as NeighborPointer
from graphrec.nn.pointer import Standardize as Standardize
from graphrec.nn.pointer import mlp as mlp
from graphrec.nn.pointer import segment_log_softmax as segment_log_softmax
