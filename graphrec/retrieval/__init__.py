"""From vectors to people: whose inner product with a query is largest, exactly or about."""

from graphrec.retrieval.approximate import ApproximateIndex as ApproximateIndex
from graphrec.retrieval.exact import ExactIndex as ExactIndex
from graphrec.retrieval.index import Index as Index
from graphrec.retrieval.index import recall as recall
