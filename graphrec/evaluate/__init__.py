"""Protocols that judge recommenders by what happened later, in both directions of the tie."""

from graphrec.evaluate.mutual import Pairs as Pairs
from graphrec.evaluate.mutual import evaluate_mutual as evaluate_mutual
from graphrec.evaluate.mutual import horizon as horizon
from graphrec.evaluate.protocol import EvaluationError as EvaluationError
from graphrec.evaluate.protocol import Row as Row
from graphrec.evaluate.protocol import Scorer as Scorer
from graphrec.evaluate.streaming import SLICES as SLICES
from graphrec.evaluate.streaming import StreamingRanks as StreamingRanks
from graphrec.evaluate.streaming import evaluate_streaming as evaluate_streaming
from graphrec.evaluate.streaming import rank_events as rank_events
