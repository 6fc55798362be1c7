"""Routes for those who run the server: health, metrics, status, reload."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from graphrec.serving.http.context import ERRORS, Context, context, json_response
from graphrec.serving.http.errors import ApiError
from graphrec.serving.http.schemas import StatusOut
from graphrec.serving.live_bundle import LiveBundle

router = APIRouter(tags=["operating"], responses=ERRORS)

Shared = Annotated[Context, Depends(context)]

MAX_LAG_SECONDS = 30.0
"""Age of a write that is not taken in, from which on the server counts as stuck."""


@router.get("/healthz", summary="Whether the process answers")
async def healthz() -> Response:
    """Answer."""
    return json_response({"status": "ok"})


@router.get("/readyz", summary="Whether requests are to be sent here")
async def readyz(shared: Shared) -> Response:
    """Tell whether requests are answered and writes are taken in."""
    if not shared.served.is_alive or shared.served.engine.lag_seconds > MAX_LAG_SECONDS:
        raise ApiError(503, "not_ready", "requests are not answered now", retry=True)
    return json_response({"status": "ready"})


@router.get("/metrics", summary="Metrics for Prometheus")
async def metrics(shared: Shared) -> Response:
    """All metrics, in Prometheus' text format."""
    return Response(shared.metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/v1/status", summary="The state of the server", responses={200: {"model": StatusOut}})
async def status(shared: Shared) -> Response:
    """Tell what is served, what waits, and what was saved and reloaded."""
    served = shared.served
    of_bundle = await shared.wait(served.engine.call(_of_bundle, bounded=True))
    return json_response(
        {
            **of_bundle,
            "position": served.committer.position,
            "saved_position": served.saved_position,
            "log_bytes": served.committer.num_bytes,
            "waiting_requests": served.engine.num_waiting,
            "waiting_writes": served.committer.num_waiting,
            "write_lag_seconds": served.engine.lag_seconds,
            "saves": served.num_saves,
            "failed_saves": served.num_failed_saves,
            "reloads": served.num_reloads,
            "failed_reloads": served.num_failed_reloads,
            "reloading": served.is_reloading,
        }
    )


@router.post("/v1/reload", summary="Take over the version in the bundle's folder", status_code=202)
async def reload(shared: Shared) -> Response:
    """Load the version in the folder, and go on with it; `/v1/status` tells when."""
    shared.served.reload_soon()
    return json_response({"status": "loading"}, 202)


def _of_bundle(live: LiveBundle) -> dict[str, Any]:
    """What `/v1/status` tells of the bundle, after all writes."""
    graph = live.bundle.graph
    return {
        "users": graph.num_users,
        "events": graph.num_events,
        "model": live.bundle.model,
        "last_event_time": live.last_time,
    }
