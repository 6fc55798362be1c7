"""The HTTP server: routes, answers like the bundle's, errors that reveal nothing, limits."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from graphs import Row
from http_client import Client, Response, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_cases import HOUR, NOW, ROWS, fitted, saved
from test_record_file import FullDisk

from graphrec.data import DataError
from graphrec.service import Rules, RuleStore
from graphrec.serving.compaction import compact
from graphrec.serving.files import ServingFiles
from graphrec.serving.http.limits import Limits
from graphrec.serving.http.metrics import Metrics
from graphrec.serving.http.tokens import Tokens
from graphrec.serving.served_bundle import ServedBundle, ServingConfig

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

LIMITS = Limits(max_k=60, max_users=20, max_rows=20, max_body_bytes=4000, rate=1e6, answer_seconds=300.0)
READ, WRITE = "r" * 32, "w" * 32


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    metrics = Metrics()
    with (
        ServedBundle(saved(tmp_path / "bundle"), ServingConfig(rest=100), metrics.on_batch) as served,
        running(served, metrics, LIMITS) as client,
    ):
        yield client


def people(client: Client, user: object, **options: Any) -> list[str]:
    response = client.get(f"/v1/users/{user}/suggestions", params={"k": 50, **options})
    assert response.status_code == 200, response.text
    return [one["id"] for one in response.json()["people"]]


def add(client: Client, *rows: tuple[Any, Any, int, str], key: str | None = None) -> Response:
    body = {"events": [dict(zip(("src", "dst", "time", "action"), row, strict=True)) for row in rows]}
    return client.post("/v1/events", json=body, headers={} if key is None else {"Idempotency-Key": key})


def test_answers_are_those_of_the_bundle_at_each_moment(client: Client) -> None:
    draw, rows = random.Random(0), list(ROWS)
    for step in range(60):
        row = Row(draw.randrange(14), 20 + draw.randrange(14), NOW + step // 3, draw.choice(["call", "text"]))
        assert add(client, row).json()["accepted"] == 1
        rows.append(row)
        if step % 10:
            continue
        bundle = fitted(rows)
        users = [str(one) for one in bundle.graph.user_ids.values.to_pylist()][:20]
        many = client.post("/v1/suggestions", json={"users": [*users], "k": 6}).json()
        assert many["unknown"] == []
        for user, answer, wanted in zip(users, many["suggestions"], bundle.suggest(users, k=6), strict=True):
            single = client.get(f"/v1/users/{user}/suggestions?k=6").json()
            assert single["people"] == answer["people"]
            assert (answer["user"], single["time"]) == (user, row.time + 1)
            scores = {one["id"]: one["score"] for one in answer["people"]}
            assert scores == pytest.approx(dict(zip(map(str, wanted.people), wanted.scores, strict=True)))
            assert [one["id"] for one in answer["people"]] == [*map(str, wanted.people)]


def test_an_event_counts_for_the_next_request(client: Client) -> None:
    for number in range(100, 160):
        assert client.get(f"/v1/users/{number + 1}/suggestions").status_code == 404
        assert add(client, (number, number + 1, NOW + number, "call")).status_code == 200
        assert str(number) not in people(client, number + 1)


def test_planted_events_of_the_time_of_a_question_or_later_are_invisible(client: Client) -> None:
    before = people(client, 1, time=NOW)
    assert before
    assert (
        add(client, *[(1, int(one), NOW + late, "call") for late, one in enumerate(before)]).status_code
        == 200
    )
    assert people(client, 1, time=NOW) == before
    assert people(client, 1, time=NOW + 1) == [one for one in people(client, 1, time=NOW) if one != before[0]]


def test_a_repeated_key_counts_once(client: Client) -> None:
    first = add(client, (1, 50, NOW, "call"), key="a")
    again = add(client, (1, 50, NOW, "call"), key="a")
    assert (first.json()["repeated"], again.json()["repeated"]) == (False, True)
    assert add(client, (1, 51, NOW, "call"), key="a").json()["error"]["code"] == "key_reused"
    assert client.get("/v1/status").json()["events"] == len(ROWS) + 1
    untimed = {"events": [{"src": 1, "dst": 52, "action": "call"}]}
    for repeated in (False, True):  # the time of arrival differs
        response = client.post("/v1/events", json=untimed, headers={"Idempotency-Key": "b"})
        assert response.json()["repeated"] == repeated


def test_a_repeated_key_is_acknowledged_when_its_time_has_become_too_late(client: Client) -> None:
    assert add(client, (1, 50, NOW, "call"), key="a").json()["repeated"] is False
    add(client, (1, 2, NOW + 2 * HOUR, "call"))
    assert client.get("/v1/status").json()["last_event_time"] == NOW + 2 * HOUR
    assert add(client, (1, 50, NOW, "call"), key="b").status_code == 422
    assert add(client, (1, 50, NOW, "call"), key="a").json() == {
        "accepted": 1,
        "position": 1,
        "repeated": True,
    }
    assert add(client, (1, 51, NOW + 2 * HOUR, "call"), key="a").json()["error"]["code"] == "key_reused"
    assert client.get("/v1/status").json()["position"] == 2


def test_blocks_and_opt_outs_hold_at_once_and_are_taken_back(client: Client) -> None:
    first, second = people(client, 1)[:2]
    for _ in range(2):
        assert client.put(f"/v1/blocks/1/{first}").status_code == 204
        assert client.put(f"/v1/opt-outs/{second}").status_code == 204
    assert not {first, second} & set(people(client, 1))
    assert "1" not in people(client, first)
    assert people(client, second)
    for _ in range(2):
        assert client.delete(f"/v1/blocks/{first}/1").status_code == 204
        assert client.delete(f"/v1/opt-outs/{second}").status_code == 204
    assert people(client, 1)[:2] == [first, second]
    assert client.put("/v1/blocks/5/5").status_code == 422


def test_who_is_never_suggested_is_not_told_from_who_is_unknown(client: Client) -> None:
    add(client, *[(number, number + 1, NOW - 60, "call") for number in range(60, 66)])
    candidates = people(client, 1)
    blocked, opted_out, writer, gone, kept = candidates[:5]
    client.put(f"/v1/blocks/1/{blocked}")
    client.put(f"/v1/opt-outs/{opted_out}")
    assert add(client, (int(writer), 1, NOW, "call")).status_code == 200  # one-sided
    assert client.delete(f"/v1/users/{gone}").status_code == 204
    answers = {
        (response.status_code, response.text)
        for person in (blocked, opted_out, writer, gone, "no-such-person", "77777", "1")
        for response in [client.get(f"/v1/users/1/explanations/{person}")]
    }
    assert answers == {
        (404, '{"error": {"code": "not_suggested", "message": "this person is not suggested to this user"}}')
    }
    told = client.get(f"/v1/users/1/explanations/{kept}").json()
    assert f"ser {kept} " in told["sentence"]
    found = client.get("/v1/users/1/suggestions", params={"k": 3, "explain": 2}).json()["people"]
    assert [set(one) for one in found] == [
        {"id", "score", "reason"},
        {"id", "score", "reason"},
        {"id", "score"},
    ]
    # Deleting answers alike for a user, a forgotten one, and one who never was.
    for user in (gone, "never-there"):
        assert client.delete(f"/v1/users/{user}").status_code == 204
    for user in (gone, "never-there"):
        error = client.get(f"/v1/users/{user}/suggestions").json()["error"]
        assert error == {"code": "unknown", "message": f"unknown user id {user!r}"}


def test_feedback_lets_a_dismissed_person_rest(client: Client) -> None:
    first, second = people(client, 1)[:2]
    body = {
        "feedback": [
            {"user": 1, "person": first, "kind": "dismissed", "time": NOW},
            {"user": 1, "person": second, "kind": "shown"},
        ]
    }
    assert client.post("/v1/feedback", json=body).json()["accepted"] == 2
    assert first not in people(client, 1)
    assert second in people(client, 1)
    add(client, (2, 3, NOW + 100, "call"))
    assert first in people(client, 1)


def test_ids_of_any_text_are_found(client: Client, tmp_path: Path) -> None:
    odd = ["a/b", "ä ö", "%2F", "a?b#c", "..", "x" * 200, "-1"]
    rows = [Row(str(row.src), str(row.dst), row.time, row.action) for row in ROWS]  # type: ignore[arg-type]
    rows += [Row(one, two, NOW, "call") for one, two in pairwise(odd)]  # type: ignore[arg-type]
    bundle = fitted(rows)
    bundle.save(tmp_path / "odd")
    metrics = Metrics()
    with (
        ServedBundle(tmp_path / "odd", None, metrics.on_batch) as served,
        running(served, metrics, LIMITS) as own,
    ):
        for name in odd:
            path = "".join(f"%{byte:02X}" for byte in name.encode())
            response = own.get(f"/v1/users/{path}/suggestions")
            assert response.status_code == 200, name
            assert response.json()["user"] == name
            assert own.put(f"/v1/blocks/{path}/other").status_code == 204
    assert client.get("/v1/users/%FF/suggestions").json()["error"]["message"] == "path user: an id is UTF-8"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/events", {"events": []}, "body events: List should have at least 1 item"),
        ("/v1/events", {"events": [{"src": 1}]}, "body events 0 dst: Field required"),
        (
            "/v1/events",
            {"events": [{"src": 1, "dst": True}]},
            "body events 0 dst: an id is an integer or text",
        ),
        (
            "/v1/events",
            {"events": [{"src": 1, "dst": 2.0}]},
            "body events 0 dst: an id is an integer or text",
        ),
        (
            "/v1/events",
            {"events": [{"src": 1, "dst": "nan"}]},
            "body events 0 dst: 'nan' cannot be a user id",
        ),
        ("/v1/events", {"events": [{"src": 1, "dst": 1, "action": "call"}]}, "src and dst are the same"),
        (
            "/v1/events",
            {"events": [{"src": 1, "dst": 2}]},
            "body events 0 action: give one of call, poke, text",
        ),
        (
            "/v1/events",
            {"events": [{"src": 1, "dst": 2, "action": "wave"}]},
            "unknown; there are call, poke, text",
        ),
        ("/v1/events", {"events": [{"src": 1, "dst": "two", "action": "call"}]}, "user ids are integers"),
        ("/v1/events", {"events": [{"src": 1, "dst": 2, "action": "call", "weight": 1}]}, "events have none"),
        (
            "/v1/events",
            {"events": [{"src": 1, "dst": 2, "action": "call", "time": "1"}]},
            "body events 0 time",
        ),
        (
            "/v1/events",
            {"events": [{"src": 1, "dst": 2, "action": "call", "time": 1.5}]},
            "body events 0 time",
        ),
        (
            "/v1/events",
            {"events": [{"src": 1, "dst": 2, "action": "call", "time": 2**60}]},
            "body events 0 time",
        ),
        ("/v1/events", {"events": [{"src": 1, "dst": 2, "action": "call", "time": -9}]}, "`graphrec add`"),
        ("/v1/events", {"events": [{"src": 1, "dst": 2, "x": 1}]}, "body events 0 x: Extra inputs"),
        ("/v1/events", {"events": [{"src": 1, "dst": 2, "action": "call"}] * 21}, "body events: at most 20"),
        ("/v1/events", [1], "body: "),
        ("/v1/feedback", {"feedback": [{"user": 1, "person": 2, "kind": "liked"}]}, "body feedback 0 kind"),
        ("/v1/feedback", {"feedback": [{"user": 1, "person": 1, "kind": "shown"}]}, "are the same"),
        ("/v1/suggestions", {"users": []}, "body users"),
        ("/v1/suggestions", {"users": "12"}, "body users"),
        ("/v1/suggestions", {"users": [1] * 21}, "body users: at most 20"),
        ("/v1/suggestions", {"users": [1], "k": 0}, "body k"),
        ("/v1/suggestions", {"users": [1], "k": 61}, "k: at most 60"),
        ("/v1/suggestions", {"users": [1], "k": "5"}, "body k"),
        ("/v1/suggestions", {"users": [1], "horizon": "soon"}, "horizon must be a number and a unit"),
        ("/v1/suggestions", {"users": [1], "horizon": "7d"}, "adamic_adar knows only the next act"),
        ("/v1/suggestions", {"users": [1], "outcome": "love"}, "body outcome"),
    ],
)
def test_a_wrong_body_is_named(client: Client, path: str, body: Any, message: str) -> None:
    response = client.post(path, json=body)
    assert response.status_code == 422
    assert message in response.json()["error"]["message"]
    assert client.get("/v1/status").json()["position"] == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/users/1/suggestions?k=0", 422),
        ("GET", "/v1/users/1/suggestions?k=x", 422),
        ("GET", "/v1/users/1/suggestions?k=99999999999999999999999", 422),
        ("GET", "/v1/users/1/suggestions?explain=9", 422),
        ("GET", "/v1/users/1/suggestions?time=1e5", 422),
        ("GET", "/v1/users/1/suggestions?action=wave", 404),
        ("GET", "/v1/users/1/suggestions?outcome=tie", 422),
        ("GET", "/v1/users//suggestions", 404),
        ("GET", "/v1/users/%00/suggestions", 422),
        ("GET", f"/v1/users/{'9' * 300}/suggestions", 422),
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("POST", "/v1/users/1/suggestions", 405),
        ("DELETE", "/v1/events", 405),
        ("PATCH", "/v1/blocks/1/2", 405),
        ("BREW", "/v1/status", 400),
        ("OPTIONS", "/v1/status", 405),
    ],
)
def test_a_wrong_request_is_refused(client: Client, method: str, path: str, status: int) -> None:
    assert client.request(method, path).status_code == status


def test_bodies_are_json_and_not_too_large(client: Client) -> None:
    large = client.post("/v1/events", content=b"x" * 4001, headers={"Content-Type": "application/json"})
    assert large.status_code == 413

    def parts() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 100

    assert client.post("/v1/events", content=parts()).status_code == 413
    for content in (b"{", b"[" * 3000, b"\xff", b'{"events": ' + b"9" * 3000 + b"}", b"NaN", b""):
        response = client.post("/v1/events", content=content, headers={"Content-Type": "application/json"})
        assert response.status_code in (400, 422), content
    text = client.post("/v1/events", content=b'{"events": []}', headers={"Content-Type": "text/plain"})
    assert text.status_code == 415


def test_an_event_of_the_future_is_refused_where_times_are_those_of_the_clock(tmp_path: Path) -> None:
    now = int(time.time())
    rows = [Row(src, dst, now - 40 * HOUR + at, action) for src, dst, at, action in ROWS]
    fitted(rows).save(tmp_path / "bundle")
    metrics = Metrics()
    with ServedBundle(tmp_path / "bundle") as served, running(served, metrics) as client:
        response = add(client, (1, 2, now + 1000, "call"))
        assert response.status_code == 422
        assert "more than 300 s in the future" in response.json()["error"]["message"]
        body = {"events": [{"src": 1, "dst": 50, "action": "call"}]}
        assert client.post("/v1/events", json=body).status_code == 200
        assert now <= client.get("/v1/status").json()["last_event_time"] <= now + 60


def test_events_cannot_move_the_clock_into_the_future_step_by_step(tmp_path: Path) -> None:
    now = int(time.time())
    fitted([Row(*row[:2], now - 40 * HOUR + row[2], row[3]) for row in ROWS]).save(tmp_path / "bundle")
    metrics = Metrics()
    with ServedBundle(tmp_path / "bundle") as served, running(served, metrics) as client:
        assert add(client, (1, 2, now + 290, "call")).status_code == 200
        assert client.get("/v1/status").json()["last_event_time"] == now + 290  # it is taken in
        assert add(client, (1, 2, now + 580, "call")).status_code == 422
        assert add(client, (1, 2, int(time.time()), "call")).status_code == 200


def test_a_time_or_id_that_no_bundle_holds_is_refused(client: Client) -> None:
    before = people(client, 1)
    milliseconds = {"time": 1_700_000_000_000_000}
    for path, body in (
        ("/v1/events", {"events": [{"src": 1, "dst": 2, "action": "call", **milliseconds}]}),
        ("/v1/feedback", {"feedback": [{"user": 1, "person": 2, "kind": "shown", **milliseconds}]}),
    ):
        response = client.post(path, json=body)
        assert response.status_code == 422
        assert "time: beyond the year 9999" in response.json()["error"]["message"]
    assert add(client, (2**63, 2, NOW, "call")).status_code == 422
    assert add(client, (2**63 - 1, 2, NOW, "call")).status_code == 200
    assert people(client, 1) == [*before, str(2**63 - 1)]


def test_rules_made_after_forgetting_stay(tmp_path: Path) -> None:
    folder, metrics = saved(tmp_path / "bundle"), Metrics()
    rules = Rules.of([(3, 9), (5, 7)], [5])
    with ServedBundle(folder) as served, running(served, metrics, LIMITS) as client:
        client.put("/v1/opt-outs/5")
        assert client.delete("/v1/users/5").status_code == 204
        assert RuleStore(folder).current() == Rules.of([(3, 9)])
        client.put("/v1/opt-outs/5")
        client.put("/v1/blocks/7/5")
        add(client, (5, 1, NOW, "call"))
    with ServedBundle(folder) as served, running(served, metrics, LIMITS) as client:
        assert RuleStore(folder).current() == rules
        compact(folder)
        assert RuleStore(folder).current() == rules
        served.save()
        served.reload()
        assert "5" not in people(client, 1)
        assert "7" not in people(client, 5)


def test_a_user_without_events_is_forgotten(tmp_path: Path) -> None:
    folder, metrics = saved(tmp_path / "bundle"), Metrics()
    with ServedBundle(folder) as served, running(served, metrics, LIMITS) as client:
        shown = {"user": 424242, "person": 3, "kind": "dismissed"}
        client.post("/v1/feedback", json={"feedback": [shown]})
        served.save()
        assert client.delete("/v1/users/424242").status_code == 204
        served.save()
    for path in (*folder.rglob("*"), *ServingFiles(folder).folder.rglob("*")):
        assert path.is_dir() or b"424242" not in path.read_bytes(), path


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["src", "dst", "time", "users", "k", "events", "user", "person", "kind", "feedback"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["/v1/events", "/v1/suggestions", "/v1/feedback"]), body=json_values)
def test_no_body_is_an_error_of_the_server(client: Client, path: str, body: Any) -> None:
    content = json.dumps(body).encode()
    response = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 400, 413, 422)


def test_tokens_read_or_write(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# of the team\nread {READ}  # the page\n\nwrite {WRITE}\n")
    metrics = Metrics()
    with (
        ServedBundle(saved(tmp_path / "bundle")) as served,
        running(served, metrics, LIMITS, tokens=Tokens.read(path)) as client,
    ):
        statuses = {
            name: [
                client.request(method, where, json=body, headers=headers).status_code
                for method, where, body in (
                    ("GET", "/v1/users/1/suggestions", None),
                    ("POST", "/v1/suggestions", {"users": [1]}),
                    ("GET", "/metrics", None),
                    ("POST", "/v1/reload", None),
                    ("PUT", "/v1/blocks/1/2", None),
                    ("DELETE", "/v1/users/99", None),
                    ("GET", "/v1/nothing", None),
                    ("GET", "/healthz", None),
                )
            ]
            for name, headers in {
                "none": {},
                "wrong": {"Authorization": f"Bearer {READ}x"},
                "basic": {"Authorization": f"Basic {READ}"},
                "read": {"Authorization": f"Bearer {READ}"},
                "write": {"authorization": f"bearer {WRITE}"},
            }.items()
        }
    assert statuses["none"] == statuses["wrong"] == statuses["basic"] == [401] * 7 + [200]
    assert statuses["read"] == [200, 200, 200, 403, 403, 403, 404, 200]
    assert statuses["write"] == [200, 200, 200, 202, 204, 204, 404, 200]
    assert b'graphrec_refusals_total{code="unauthorized"} 21.0' in metrics.text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"write {WRITE}\nadmin {READ}\n", "line 2: must be"),
        (f"{WRITE}\n", "line 1: must be"),
        ("read short\n", "line 1: a token has at least 16 characters"),
        ("# nothing\n", "there is no token in it"),
    ],
)
def test_a_wrong_file_of_tokens_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        Tokens.read(path)
    assert WRITE not in str(caught.value)


def test_a_page_in_a_browser_cannot_reach_a_server_without_tokens(tmp_path: Path) -> None:
    metrics = Metrics()
    hosts = ("localhost", "127.0.0.1", "[::1]")
    with ServedBundle(saved(tmp_path / "bundle")) as served, running(served, metrics, hosts=hosts) as client:
        for host, status in (
            ("localhost:8000", 200),
            ("127.0.0.1", 200),
            ("[::1]:80", 200),
            ("evil.example", 421),
        ):
            assert client.get("/v1/status", headers={"Host": host}).status_code == status


def test_more_requests_than_the_rate_are_refused(tmp_path: Path) -> None:
    metrics = Metrics()
    limits = Limits(rate=2.0)
    with ServedBundle(saved(tmp_path / "bundle")) as served, running(served, metrics, limits) as client:
        found = [client.get("/v1/status") for _ in range(12)]
        assert [one.status_code for one in found[:4]] == [200] * 4
        assert found[-1].status_code == 429
        assert found[-1].headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200


def test_a_full_disk_refuses_writes_and_answers_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, metrics = FullDisk(10**6), Metrics()
    with (
        ServedBundle(saved(tmp_path / "bundle"), ServingConfig(storage=disk)) as served,
        running(served, metrics) as client,
    ):
        disk.room = 10
        refused = add(client, (1, 50, NOW, "call"))
        assert (refused.status_code, refused.headers["retry-after"]) == (507, "1")
        assert client.delete("/v1/users/1").status_code == 507
        assert people(client, 1)
        disk.room = 10**6
        assert add(client, (1, 50, NOW, "call")).status_code == 200

        def full(*args: object, **kwargs: object) -> None:
            raise OSError("no space left: rules.sqlite; nothing was changed")

        monkeypatch.setattr(RuleStore, "change", full)
        assert client.put("/v1/opt-outs/1").status_code == 507
        assert people(client, 50)
        assert b'graphrec_refusals_total{code="disk_full"} 3.0' in metrics.text()


def test_operators_see_health_metrics_and_the_interface(client: Client) -> None:
    add(client, (1, 50, NOW, "call"), (2, 50, NOW - 3, "call"))
    people(client, 1)
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    text = client.get("/metrics").text
    for line in (
        'graphrec_request_seconds_count{method="GET",route="/v1/users/{user}/suggestions",status="200"} 1.0',
        "graphrec_accepted_events_total 2.0",
        "graphrec_late_events_total 1.0",
        "graphrec_batch_users_count 1.0",
        "graphrec_log_position 1.0",
        "graphrec_applied_position 1.0",
        "graphrec_users 13.0",
    ):
        assert line in text.splitlines(), line
    interface = client.get("/openapi.json").json()
    assert set(interface["paths"]) == {
        "/v1/users/{user}/suggestions",
        "/v1/suggestions",
        "/v1/users/{user}/explanations/{candidate}",
        "/v1/events",
        "/v1/feedback",
        "/v1/blocks/{user}/{other}",
        "/v1/opt-outs/{user}",
        "/v1/users/{user}",
        "/v1/reload",
        "/v1/status",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    assert interface["components"]["schemas"]["EventsIn"]["examples"]
    status = client.get("/v1/status").json()
    assert (status["users"], status["position"], status["saved_position"]) == (13, 1, 0)
