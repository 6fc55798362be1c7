"""Training of networks; the only package that imports pytorch-lightning."""

from graphrec.train.checkpoint import ReplacedRunWarning as ReplacedRunWarning
from graphrec.train.fit import train as train
from graphrec.train.optim import RowSparseAdamW as RowSparseAdamW
from graphrec.train.optim import adamw as adamw
from graphrec.train.optim import clip_gradients as clip_gradients
from graphrec.train.processes import num_processes as num_processes
