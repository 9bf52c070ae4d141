# SPDX-License-Identifier: Apache-2.0
"""The dashboard of a real server process: what it says, to whom, and what a device's text cannot do there."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from edgefl.server_stub.pages.charts import Axis, Series, bars, lines
from edgefl.server_stub.pages.figures import Snapshot
from edgefl.server_stub.pages.view import overview
from edgefl.server_stub.values import Traffic
from edgefl.wire import EvaluationInfo, RoundInfo, Status
from tests.server.conftest import HOSTILE
from tests.server.test_metrics import admin, basic, get


class Reader(HTMLParser):
    """A page's words, and what it would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.inline: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.fetched += [
            v for k, v in attributes if k in ("src", "href") and tag in ("link", "script", "img")
        ]
        self.inline += [k for k, _ in attributes if k == "style" or k.startswith("on")]

    def handle_data(self, data):
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


def page(server, path: str = "/", **headers: str) -> Reader:
    status, _, body = get(server, path, **headers)
    assert status == 200, body
    return Reader(body.decode())


def test_rounds_devices_and_refusals_are_told(played):
    text = page(played).text

    assert "round 2 of 3" in text and "Round 2 is open" in text
    assert "0 of 2" in text and "1 malformed-frame" in text and "1.5000" in text
    for i in range(4):
        assert f"watch-{i}" in text
    inside = page(played, "/rounds/1").text
    assert "Round 1 is closed" in inside and "declined" in inside and "accepted" in inside
    assert get(played, "/rounds/9")[0] == 404 and get(played, "/rounds/x")[0] == 400


@pytest.mark.parametrize("path", ["/", "/rounds/1"])
def test_what_devices_say_stays_text(played, path):
    found = page(played, path)

    assert HOSTILE in found.text
    assert "img" not in found.tags and found.tags.count("script") == 1 and found.inline == []


def test_pages_fetch_nothing_from_elsewhere_and_run_nothing_else(played):
    headers = get(played, "/")[1]
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))

    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
    for path in ("/", "/rounds/1", "/docs"):
        for address in page(played, path).fetched:
            assert address.startswith(("/pages/", "data:"))
            assert address.startswith("data:") or get(played, address)[0] == 200
    assert get(played, "/pages/..%2frender.py")[0] == 404


def test_who_looks_adds_nothing_to_the_bytes_of_the_rounds(played):
    before = played.status()
    for path in ("/", "/metrics", "/docs", "/healthz", "/pages/edgefl.css"):
        get(played, path)
    after = played.status()

    assert after.bytes_up - before.bytes_up < 1000 and after.bytes_down - before.bytes_down < 3000


@pytest.mark.parametrize("path", ["/", "/rounds/1"])
def test_an_enrolled_server_shows_itself_to_its_administrator_and_no_secret(serve, path):
    server = serve(enrolled=True)

    status, headers, body = get(server, path)
    assert status == 401 and headers["www-authenticate"].startswith("Basic") and b"mlp" not in body
    for each in (path, "/docs", "/metrics"):
        body = get(server, each, **basic(admin(server)))[2]
        assert b"mlp" in body or each == "/docs"
        assert admin(server).encode() not in body


def test_the_protocol_is_a_page_without_a_network(shared):
    found = page(shared, "/docs")

    assert "POST /v1/check-in" in found.text and "CheckInAnswer" in found.text
    document = get(shared, "/openapi.json")[2].decode()
    for path in re.findall(r'"(/v1/[^"]*)"', document):
        assert path in found.text
    assert '"/metrics"' not in document


def info(number: int, **more) -> RoundInfo:
    known = {
        "round": number, "state": "closed", "base_version": number - 1, "version": number, "goal": 2,
        "minimum": 1, "assigned": 3, "declined": 0, "updates": 2, "loss": 1.0 / number, "extensions": 0,
        "opened_at": 10.0 * number, "deadline": 10.0 * number + 60, "closed_at": 10.0 * number + 2,
        "frame_bytes": 100, "bytes_up": 1000, "bytes_down": 2000,
    }  # fmt: skip
    return RoundInfo(**{**known, **more})


def snapshot(rounds: int, **more) -> Snapshot:
    status = Status("m", "0" * 16, rounds, rounds, rounds, True, None, 3, 0, 0)
    done = tuple(info(number) for number in range(1, rounds + 1))
    return Snapshot(10.0 * rounds + 5, status, done, 0, Traffic(), 4_000_000, **more)


def test_bytes_are_told_against_dense_float32():
    """Per round two updates of 4 MB dense came in 1,000 bytes."""
    shown = overview(snapshot(5), ())

    assert next(tile.note for tile in shown["tiles"] if tile.name == "received") == "8,000 x less than dense"
    assert shown["rounds"][0]["ratio"] == "8,000 x" and shown["rounds"][0]["late"] == 1


def test_versions_that_were_measured_have_their_own_charts():
    evaluations = (
        *(EvaluationInfo(v, "closed", 3, 3, 100, 1 / v, 1 / v, 1 - 1 / v, 0.0, 1.0) for v in range(1, 6)),
        EvaluationInfo(6, "closed", 3, 0, 0, None, None, None, 0.0, 1.0),
    )

    shown = overview(snapshot(6, evaluations=evaluations), ())
    titles = [chart.title for chart in shown["charts"]]
    tile = next(tile for tile in shown["tiles"] if "held" in tile.name)

    assert "Accuracy on held-out examples" in titles and "Loss on held-out examples" in titles
    assert (tile.name, tile.value, tile.note) == ("held-out accuracy", "80.0 %", "version 5, on 100 examples")


@pytest.mark.parametrize("rounds", [0, 1, 2, 500])
def test_charts_of_any_length_stay_within_their_frame(rounds):
    axis = Axis(range(1, rounds + 1), "round")
    series = [Series("a", [float(i % 7) for i in range(rounds)]), Series("b", [None] * rounds)]

    for made in (
        lines(axis, series, str),
        bars(axis, series, str),
        lines(axis, series, str, logarithmic=True),
    ):
        for name, most in (("x", 400), ("cx", 400), ("y", 190), ("cy", 190)):
            assert all(0 <= float(v) <= most for v in re.findall(rf' {name}="([^"]*)"', made))
        assert made.count("<circle") <= 120 and made.count("<rect") <= 120 and "nan" not in made
