"""Nearest-neighbor search: users with the largest inner products, exact or approximate."""

from graphrec.retrieval.approximate import ApproximateIndex as ApproximateIndex
from graphrec.retrieval.exact import ExactIndex as ExactIndex
from graphrec.retrieval.index import Index as Index
from graphrec.retrieval.index import recall as recall
from graphrec.retrieval.topk import select_rows as select_rows
