"""What was known before a moment: the strictly-past index of users and pairs."""

from graphrec.sampler.answers import Answers as Answers
from graphrec.sampler.answers import Record as Record
from graphrec.sampler.groups import GroupActivity as GroupActivity
from graphrec.sampler.neighborhood import Neighborhood as Neighborhood
from graphrec.sampler.neighborhood import Reach as Reach
from graphrec.sampler.popularity import Popularity as Popularity
from graphrec.sampler.popularity import popularity_half_life as popularity_half_life
from graphrec.sampler.structure import Standing as Standing
from graphrec.sampler.structure import Structure as Structure
from graphrec.sampler.structure import moments as moments
from graphrec.sampler.temporal import EVENT_TYPE as EVENT_TYPE
from graphrec.sampler.temporal import TemporalSampler as TemporalSampler
from graphrec.sampler.temporal import message_graph as message_graph
from graphrec.sampler.timeline import NEVER as NEVER
from graphrec.sampler.timeline import Activity as Activity
from graphrec.sampler.timeline import Contacts as Contacts
from graphrec.sampler.timeline import TimedAdjacency as TimedAdjacency
from graphrec.sampler.timeline import Timeline as Timeline
from graphrec.sampler.timeline import contains as contains
from graphrec.sampler.timeline import ragged as ragged
from graphrec.sampler.timeline import run_starts as run_starts
