"""Mini-batches that cannot see the future, and an audit that tests it."""

from graphrec.loader.audit import Audit as Audit
from graphrec.loader.audit import Auditable as Auditable
from graphrec.loader.audit import LeakageError as LeakageError
from graphrec.loader.audit import audit_leakage as audit_leakage
from graphrec.loader.audit import rewrite_future as rewrite_future
from graphrec.loader.batches import EpochShuffle as EpochShuffle
from graphrec.loader.batches import TimelineBatches as TimelineBatches
from graphrec.loader.loaders import EventLoader as EventLoader
from graphrec.loader.loaders import QueryLoader as QueryLoader
from graphrec.loader.seeds import LoaderOptions as LoaderOptions
from graphrec.loader.temporal_sampler import EVENT_TYPE as EVENT_TYPE
from graphrec.loader.temporal_sampler import TemporalSampler as TemporalSampler
from graphrec.loader.temporal_sampler import message_graph as message_graph
