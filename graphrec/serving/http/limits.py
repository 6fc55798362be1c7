"""What one client may ask for, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of requests.

    Attributes:
        max_k: people for each user.
        max_users: users of one request.
        max_rows: events, or entries of feedback, of one request.
        max_explained: suggestions of one request that are explained.
        max_body_bytes: of one request.
        rate: requests a second of one token, or of one address where there are no tokens; twice as many at
            once.
        body_seconds: for sending a body.
        header_seconds: for sending the head of a request.
        answer_seconds: after which a request that waits is given up.
        max_ahead_seconds: that an event may lie in the future.
        max_late_seconds: that an event may be older than the last one.
    """

    max_k: int = 200
    max_users: int = 1000
    max_rows: int = 1000
    max_explained: int = 5
    max_body_bytes: int = 2**20
    rate: float = 2000.0
    body_seconds: float = 10.0
    header_seconds: float = 10.0
    answer_seconds: float = 30.0
    max_ahead_seconds: int = 300
    max_late_seconds: int = 3600
