"""What was known before a moment: the strictly-past index of users and pairs."""

from graphrec.sampler.timeline import NEVER as NEVER
from graphrec.sampler.timeline import Contacts as Contacts
from graphrec.sampler.timeline import TimedAdjacency as TimedAdjacency
from graphrec.sampler.timeline import Timeline as Timeline
from graphrec.sampler.timeline import ragged as ragged
