"""From an event log to a service: one bundle of files, its rules, and suggestions for everybody."""

from graphrec.service.bundle import DEFAULT_MODEL as DEFAULT_MODEL
from graphrec.service.bundle import Bundle as Bundle
from graphrec.service.export import suggest_everyone as suggest_everyone
from graphrec.service.rules import Rules as Rules
