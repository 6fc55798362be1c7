"""What was known before a moment: the strictly-past index of users and pairs."""

from graphrec.temporal.group_activity import GroupActivity as GroupActivity
from graphrec.temporal.neighborhood import Neighborhood as Neighborhood
from graphrec.temporal.neighborhood import Reach as Reach
from graphrec.temporal.popularity import Popularity as Popularity
from graphrec.temporal.popularity import popularity_half_life as popularity_half_life
from graphrec.temporal.replies import Answers as Answers
from graphrec.temporal.replies import Record as Record
from graphrec.temporal.spectral import Standing as Standing
from graphrec.temporal.spectral import Structure as Structure
from graphrec.temporal.spectral import moments as moments
from graphrec.temporal.timeline import NEVER as NEVER
from graphrec.temporal.timeline import Activity as Activity
from graphrec.temporal.timeline import Contacts as Contacts
from graphrec.temporal.timeline import TimedAdjacency as TimedAdjacency
from graphrec.temporal.timeline import Timeline as Timeline
from graphrec.temporal.timeline import contains as contains
from graphrec.temporal.timeline import ragged as ragged
from graphrec.temporal.timeline import run_starts as run_starts
