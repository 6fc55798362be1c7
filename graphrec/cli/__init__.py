"""From an event log to a service: one bundle of files, on the command line and in Python."""

from graphrec.cli.batch import suggest_everyone as suggest_everyone
from graphrec.cli.bundle import DEFAULT_MODEL as DEFAULT_MODEL
from graphrec.cli.bundle import Bundle as Bundle
from graphrec.cli.rules import Rules as Rules
