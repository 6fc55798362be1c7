"""graphrec recommends people to people, with graph models on PyTorch Geometric.

A friend graph is a PyG `HeteroData` whose edges carry time (`graphrec.data`, `graphrec.datasets`); an index
gives the state strictly before any moment (`graphrec.temporal`); recommenders (`graphrec.models`) are
evaluated on later events, in both directions of a tie (`graphrec.evaluate`), and served from a bundle
(`graphrec.service`).
"""

import sys
from typing import TYPE_CHECKING

from graphrec.lazy import lazy_names

if TYPE_CHECKING:
    from graphrec.data import DataError as DataError
    from graphrec.data import EventLog as EventLog
    from graphrec.data import FriendGraph as FriendGraph
    from graphrec.data import Query as Query
    from graphrec.data import TemporalSplit as TemporalSplit
    from graphrec.data import UserTable as UserTable
    from graphrec.data import read_events as read_events
    from graphrec.data import read_users as read_users
    from graphrec.datasets import load_dataset as load_dataset
    from graphrec.evaluate import evaluate_mutual as evaluate_mutual
    from graphrec.evaluate import evaluate_streaming as evaluate_streaming
    from graphrec.models import Recommender as Recommender
    from graphrec.models import suggest as suggest
    from graphrec.service import Bundle as Bundle
else:
    __getattr__, __dir__ = lazy_names(sys.modules[__name__])

__version__ = "0.1.0"
