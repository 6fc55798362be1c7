"""The index of events, whose look-ups see only events strictly before a query, and data derived from it."""

from graphrec.temporal.adjacency import TimedAdjacency as TimedAdjacency
from graphrec.temporal.blocks import blocked_users as blocked_users
from graphrec.temporal.blocks import with_blocked as with_blocked
from graphrec.temporal.contacts import NEVER as NEVER
from graphrec.temporal.contacts import Contacts as Contacts
from graphrec.temporal.contacts import UserActivity as UserActivity
from graphrec.temporal.group_activity import GroupActivity as GroupActivity
from graphrec.temporal.neighborhood import Neighborhood as Neighborhood
from graphrec.temporal.neighborhood import NeighborhoodConfig as NeighborhoodConfig
from graphrec.temporal.ordinary import ContactChanges as ContactChanges
from graphrec.temporal.ordinary import ordinary_graph as ordinary_graph
from graphrec.temporal.out_of_core.parquet_index import IndexedLog as IndexedLog
from graphrec.temporal.out_of_core.parquet_index import index_parquet as index_parquet
from graphrec.temporal.popularity import DecayedPopularity as DecayedPopularity
from graphrec.temporal.popularity import popularity_half_life as popularity_half_life
from graphrec.temporal.ragged import contains as contains
from graphrec.temporal.ragged import ragged as ragged
from graphrec.temporal.ragged import run_starts as run_starts
from graphrec.temporal.replies import ReplyHistory as ReplyHistory
from graphrec.temporal.replies import ReplyIndex as ReplyIndex
from graphrec.temporal.replies import Role as Role
from graphrec.temporal.spectral import SpectralEmbeddings as SpectralEmbeddings
from graphrec.temporal.spectral import SpectralQuery as SpectralQuery
from graphrec.temporal.spectral import snapshot_ticks as snapshot_ticks
from graphrec.temporal.timeline import Timeline as Timeline
