"""Training networks: the one room that knows the training engine."""

from graphrec.train.fit import train as train
