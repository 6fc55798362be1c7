"""Protocols that evaluate recommenders on later events, in both directions of a tie."""

from graphrec.evaluate.delayed_feedback import ReplyDelayCurve as ReplyDelayCurve
from graphrec.evaluate.initiations import Initiations as Initiations
from graphrec.evaluate.initiations import default_reply_window as default_reply_window
from graphrec.evaluate.list_questions import ListOutcomes as ListOutcomes
from graphrec.evaluate.list_questions import ListQuestions as ListQuestions
from graphrec.evaluate.lists import LIST_METRICS as LIST_METRICS
from graphrec.evaluate.lists import LIST_SLICES as LIST_SLICES
from graphrec.evaluate.lists import ListResult as ListResult
from graphrec.evaluate.lists import evaluate_lists as evaluate_lists
from graphrec.evaluate.lists import judge_lists as judge_lists
from graphrec.evaluate.mutual import evaluate_mutual as evaluate_mutual
from graphrec.evaluate.mutual import mutual_ranks as mutual_ranks
from graphrec.evaluate.protocol import SAMPLE_SIZE as SAMPLE_SIZE
from graphrec.evaluate.protocol import EvaluationError as EvaluationError
from graphrec.evaluate.protocol import Row as Row
from graphrec.evaluate.protocol import Scorer as Scorer
from graphrec.evaluate.snapshot import SNAPSHOT_SLICES as SNAPSHOT_SLICES
from graphrec.evaluate.snapshot import Snapshot as Snapshot
from graphrec.evaluate.snapshot import SuggestionLists as SuggestionLists
from graphrec.evaluate.snapshot import evaluate_snapshot as evaluate_snapshot
from graphrec.evaluate.snapshot import evaluate_snapshot_lists as evaluate_snapshot_lists
from graphrec.evaluate.snapshot import snapshot_query as snapshot_query
from graphrec.evaluate.streaming import SLICES as SLICES
from graphrec.evaluate.streaming import StreamingRanks as StreamingRanks
from graphrec.evaluate.streaming import evaluate_streaming as evaluate_streaming
from graphrec.evaluate.streaming import rank_events as rank_events
