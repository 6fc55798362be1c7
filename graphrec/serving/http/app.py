"""The application: routes, errors and the gate before them."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.types import ASGIApp

from graphrec.serving.http import operating, reading, writing
from graphrec.serving.http.context import Context
from graphrec.serving.http.errors import add_handlers
from graphrec.serving.http.gate import Gate
from graphrec.serving.http.limits import Limits
from graphrec.serving.http.metrics import Metrics
from graphrec.serving.http.tokens import Tokens
from graphrec.serving.served_bundle import ServedBundle

DESCRIPTION = (
    "Suggestions of people to people, fresh to the last event. Ids are text or integers in requests, and "
    "text in answers; times are seconds."
)


def build_app(
    served: ServedBundle,
    metrics: Metrics,
    *,
    limits: Limits | None = None,
    tokens: Tokens | None = None,
    hosts: Sequence[str] = (),
) -> ASGIApp:
    """The application of a served bundle.

    Args:
        served: the bundle, which stays open as long as the application is used.
        metrics: whose `on_batch` the bundle's engine calls.
        limits: of requests.
        tokens: of clients; None if there are none.
        hosts: see `Gate`.
    """
    limits = limits or Limits()
    app = FastAPI(
        title="graphrec",
        version="1",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.state.context = Context(served, limits, metrics)
    metrics.watch(served)
    for router in (reading.router, writing.router, operating.router):
        app.include_router(router)
    add_handlers(app, lambda code: metrics.refusals.labels(code).inc())
    return Gate(app, limits, metrics, tokens, hosts)
