"""Serving a bundle over HTTP: durable writes, answers in small batches, and a server."""

import sys
from typing import TYPE_CHECKING

from graphrec.lazy import lazy_names

if TYPE_CHECKING:
    from graphrec.serving.compaction import save_fit as save_fit
    from graphrec.serving.questions import Answer as Answer
    from graphrec.serving.questions import Asked as Asked
    from graphrec.serving.served_bundle import ServedBundle as ServedBundle
    from graphrec.serving.served_bundle import ServingConfig as ServingConfig
else:
    __getattr__, __dir__ = lazy_names(sys.modules[__name__])
