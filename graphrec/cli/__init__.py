"""The command line: parses arguments, calls `graphrec.service`, and prints."""

import sys
from typing import TYPE_CHECKING

from graphrec.lazy import lazy_names

if TYPE_CHECKING:
    from graphrec.cli.reading import build_graph as build_graph
    from graphrec.cli.reading import parse_log as parse_log
    from graphrec.cli.reading_options import EVENTS_HELP as EVENTS_HELP
    from graphrec.cli.reading_options import add_reading_options as add_reading_options
    from graphrec.cli.reading_options import add_roles_option as add_roles_option
else:
    __getattr__, __dir__ = lazy_names(sys.modules[__name__])
