"""Events, users, and the friend graph they make."""

import sys
from typing import TYPE_CHECKING

from graphrec.lazy import lazy_names

if TYPE_CHECKING:
    from graphrec.data.digest import digest_code as digest_code
    from graphrec.data.digest import digest_graph as digest_graph
    from graphrec.data.digest import digest_log as digest_log
    from graphrec.data.digest import digest_source as digest_source
    from graphrec.data.digest import digest_value as digest_value
    from graphrec.data.draws import hashed as hashed
    from graphrec.data.errors import DataError as DataError
    from graphrec.data.events import EventLog as EventLog
    from graphrec.data.events import reverse_of as reverse_of
    from graphrec.data.graph import FRIEND as FRIEND
    from graphrec.data.graph import USER as USER
    from graphrec.data.graph import Events as Events
    from graphrec.data.graph import FriendGraph as FriendGraph
    from graphrec.data.graph import as_indices as as_indices
    from graphrec.data.ids import Id as Id
    from graphrec.data.ids import UserIds as UserIds
    from graphrec.data.ids import id_list as id_list
    from graphrec.data.ids import id_pairs as id_pairs
    from graphrec.data.ids import id_text as id_text
    from graphrec.data.ids import parse_id as parse_id
    from graphrec.data.query import OUTCOMES as OUTCOMES
    from graphrec.data.query import Outcome as Outcome
    from graphrec.data.query import Query as Query
    from graphrec.data.read import read_events as read_events
    from graphrec.data.read import read_users as read_users
    from graphrec.data.roles import ROLES as ROLES
    from graphrec.data.roles import Role as Role
    from graphrec.data.roles import Roles as Roles
    from graphrec.data.roles import commonest_action as commonest_action
    from graphrec.data.roles import wanted_events as wanted_events
    from graphrec.data.split import Part as Part
    from graphrec.data.split import TemporalSplit as TemporalSplit
    from graphrec.data.text import printable as printable
    from graphrec.data.users import UserTable as UserTable
else:
    __getattr__, __dir__ = lazy_names(sys.modules[__name__])
