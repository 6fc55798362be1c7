"""The command that serves a bundle over HTTP."""

from __future__ import annotations

import argparse

from graphrec.data.errors import DataError
from graphrec.evaluate.list_questions import parse_length


def serve(options: argparse.Namespace) -> None:
    """Serve a bundle until the process is asked to end."""
    if not 1 <= options.port <= 65_535:
        raise DataError(f"--port must be between 1 and 65535, got {options.port}")
    if options.rate < 1:
        raise DataError(f"--rate must be at least 1, got {options.rate}")
    try:
        from graphrec.serving.http.limits import Limits
        from graphrec.serving.http.run import serve as run
        from graphrec.serving.served_bundle import ServingConfig
    except ModuleNotFoundError as error:
        raise DataError(f"{error.name} is missing: pip install 'graphrec[serve]'") from None
    run(
        options.bundle,
        host=options.host,
        port=options.port,
        tokens=options.tokens,
        limits=Limits(rate=float(options.rate)),
        config=ServingConfig(
            rest=parse_length(options.rest, "--rest"),
            save_seconds=(every := float(parse_length(options.save_every, "--save-every"))),
            forget_seconds=min(every, ServingConfig.forget_seconds),
        ),
        access_log=options.access_log,
    )
