"""Training networks: the one room that knows the training engine."""

from graphrec.train.checkpoint import ReplacedRunWarning as ReplacedRunWarning
from graphrec.train.fit import train as train
from graphrec.train.optim import RowSparseAdamW as RowSparseAdamW
from graphrec.train.optim import adamw as adamw
from graphrec.train.share import num_processes as num_processes
