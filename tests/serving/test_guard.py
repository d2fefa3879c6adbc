"""Who may ask, how often and how much, and what is written down."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest

from resnetkit.serving.guard import Access, Rates, is_loopback, names_of
from resnetkit.serving.refusal import Refused
from servers import form_of, living


def refusal(access: Access, path: str = "/predict", **headers: str) -> int:
    """The status with which a request is refused, or 0."""
    given = {name.replace("_", "-").encode(): [value.encode()] for name, value in headers.items()}
    try:
        access.refuse(path, given)
    except Refused as refused:
        return refused.status
    return 0


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 0),
        ("LOCALHOST", 0),
        ("127.0.0.1:8000", 0),
        ("[::1]:8000", 0),
        ("192.168.1.5:8000", 0),
        ("photos.example", 0),
        ("photos.example:443", 0),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.nip.example", 403),
        ("photos.example.evil", 403),
        ("a@localhost", 403),
        ("", 403),
    ],
)
def test_only_under_its_own_names(host: str, status: int) -> None:
    """I30: a name that was made to lead here is not ours; an address cannot be."""
    assert refusal(Access(hosts=frozenset({"photos.example"})), host=host) == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 0),
        ("https://localhost:8000", 0),
        ("https://photos.example", 0),
        ("http://localhost:9000", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("chrome-extension://abc", 403),
    ],
)
def test_pages_of_others_may_not_ask(origin: str, status: int) -> None:
    """I30."""
    access = Access(hosts=frozenset({"photos.example"}))
    assert refusal(access, host="localhost:8000", origin=origin) == status


def test_the_token() -> None:
    access = Access(token="a-long-token")
    assert refusal(access, host="localhost") == 401
    assert refusal(access, host="localhost", authorization="Bearer another") == 401
    assert refusal(access, host="localhost", authorization="Bearer a-long-token") == 0
    for path in ("/", "/page/page.js", "/v2/health/live", "/v2/health/ready"):
        assert refusal(access, path, host="localhost") == 0
    for path in ("/info", "/metrics", "/openapi.json", "/v2", "/page/../info", "/v2/models/a"):
        assert refusal(access, path, host="localhost") == 401


def test_names() -> None:
    assert names_of("127.0.0.1", ["A.example"]) == {"a.example"}
    assert "10.0.0.1" in names_of("10.0.0.1", ())
    assert [is_loopback(host) for host in ("localhost", "127.0.0.9", "::1", "0.0.0.0", "example.org")] == [
        *(True, True, True, False, False)
    ]


def test_rates() -> None:
    """I16: ten seconds' worth at once, then as they grow again; each client has its own."""
    rates = Rates(2)
    for _ in range(20):
        rates.refuse("a", 100.0)
    with pytest.raises(Refused) as caught:
        rates.refuse("a", 100.0)
    assert caught.value.status == 429 and caught.value.retry_after >= 1
    rates.refuse("b", 100.0)
    rates.refuse("a", 101.0)
    free = Rates(0)
    for _ in range(1000):
        free.refuse("a", 0.0)


def test_a_server_with_all_of_it(trained: Path, photo: bytes, capfd) -> None:
    """I10, I16, I30, I32: what a client sends stands in no answer and in no log."""
    access = Access(token="a-long-token", prefix="/photos")
    name = '"}\n{"x": "<script>.png'
    with living(trained, access=access, rate=0.5) as live:
        known = {"authorization": "Bearer a-long-token", "x-request-id": "mine-1"}
        kind, body = form_of([photo], names=[name.replace('"', "%22").replace("\n", " ")])
        found = live.ask(
            "POST", "/photos/predict?top=1", body, {**known, "content-type": kind, "user-agent": "secret-agent"}
        )
        assert found.status == 200 and found.headers["x-request-id"] == "mine-1"
        strange = live.ask("GET", "/v2/health/live", None, {"x-request-id": "a b"})
        assert strange.headers["x-request-id"] != "a b"
        assert live.get("/info").status == 401 and live.get("/info").headers["www-authenticate"] == "Bearer"
        assert live.ask("GET", "/info", None, {**known, "host": "evil.example"}).status == 403
        assert live.ask("POST", "/predict", photo, {**known, "origin": "http://evil.example"}).status == 403
        many = [live.post("/predict", photo, **known).status for _ in range(8)]
        assert 429 in many and many[0] == 200
        assert live.get("/v2/health/live").status == 200
    log = capfd.readouterr().err
    lines = [json.loads(line) for line in log.splitlines()]
    (told,) = [line for line in lines if line.get("request") == "mine-1" and line["status"] == 200 and line["ms"]][:1]
    assert told["route"] == "/predict" and len(told["sha256"]) == 12 and told["inputs"] == 1
    for secret in ("script", "secret-agent", "a-long-token", "127.0.0.1:", str(trained)):
        assert not any(secret in json.dumps(line) for line in lines if line["event"] == "request"), secret


def test_headers_of_every_answer(server) -> None:
    """I31."""
    for path in ("/", "/page/page.js", "/info", "/nowhere"):
        headers = server.get(path).headers
        assert (
            headers["x-content-type-options"] == "nosniff"
            and "frame-ancestors 'none'" in headers["content-security-policy"]
        )
        assert "default-src 'none'" in headers["content-security-policy"] and "server" not in headers
        assert "access-control-allow-origin" not in headers


def test_an_encoded_body_is_refused(server, photo: bytes) -> None:
    """I4: a bomb never unfolds, since nothing is unfolded."""
    for name in ("gzip", "deflate", "br", "gzip, gzip"):
        found = server.post("/predict", gzip.compress(photo), **{"content-encoding": name})
        assert (found.status, found.json["code"]) == (415, "encoding")


def test_all_bodies_together_have_a_limit(trained: Path, photo: bytes) -> None:
    with living(trained, max_waiting=100) as live:
        found = live.post("/predict", photo)
        assert found.status == 503 and int(found.headers["retry-after"]) >= 1
        deadline = time.monotonic() + 5
        while live.running.guard.held.visits and time.monotonic() < deadline:
            time.sleep(0.01)  # the answer may be here before the visit is over
        assert live.running.guard.held.bytes == 0
