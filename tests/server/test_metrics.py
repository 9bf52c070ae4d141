# SPDX-License-Identifier: Apache-2.0
"""What monitors read of a real server process: figures, health, and who may ask."""

from __future__ import annotations

import base64
import http.client

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgefl.errors import Refused


def get(server, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def figures(server, **headers: str) -> dict[str, float]:
    """Every sample by its name, with the value of its label where it has one."""
    status, _, body = get(server, "/metrics", **headers)
    assert status == 200, body
    return {
        ":".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def admin(server) -> str:
    return (server.folder / "rounds.db.admin").read_text().strip()


def basic(secret: str, user: str = "admin") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()}


def test_figures_follow_the_rounds_and_a_restart(serve, make_frame, hello):
    server = serve(goal=1, rounds=3)
    remote = server.remote()
    task = remote.check_in(hello("a")).task
    with pytest.raises(Refused):
        remote.upload(1, task.assignment, b"EFLU nothing")
    remote.upload(1, task.assignment, make_frame(1))
    server.wait_for_version(1)

    found = figures(server)

    assert found["edgefl_rounds_closed_total"] == 1 and found["edgefl_rounds_planned"] == 3
    assert found["edgefl_updates_accepted_total"] == 1 and found["edgefl_version"] == 1
    assert found["edgefl_updates_refused_total:malformed-frame"] == 1
    assert found["edgefl_devices"] == 1 and found["edgefl_devices_waiting"] == 0
    assert found["edgefl_round_closing_seconds_count"] == 1 and found["edgefl_round"] == 2
    before = server.status()
    assert 0 < found["edgefl_http_bytes_total:received"] <= before.bytes_up
    assert 0 < found["edgefl_http_bytes_total:sent"] <= before.bytes_down

    server.kill()
    again = figures(server.start())

    assert again["edgefl_updates_accepted_total"] == 1 and again["edgefl_rounds_closed_total"] == 1
    assert again["edgefl_round_closing_seconds_count"] == 0


def test_health_needs_no_credentials_and_tells_nothing_else(serve):
    assert get(serve(enrolled=True), "/healthz")[::2] == (200, b"ok\n")


def test_health_fails_with_the_database(serve, tmp_path):
    server = serve(database=str(tmp_path / "gone.db"))
    (tmp_path / "gone.db").unlink()

    assert get(server, "/healthz")[0] == 503


def test_an_enrolled_server_shows_figures_to_its_administrator_only(serve):
    server = serve(enrolled=True)

    status, headers, body = get(server, "/metrics")
    assert (status, headers["www-authenticate"]) == (401, 'Basic realm="edgefl", charset="UTF-8"')
    assert b"edgefl_version" not in body
    for wrong in (basic("no such token"), {"authorization": "Basic %%%"}, {"authorization": "Bearer x"}):
        assert get(server, "/metrics", **wrong)[0] == 401
    assert "edgefl_version" in figures(server, **basic(admin(server)))
    assert "edgefl_version" in figures(server, authorization=f"Bearer {admin(server)}")


def test_a_password_of_a_browser_opens_nothing_that_changes_something(serve):
    """A browser sends it along with requests that strangers' pages make it send."""
    server = serve(enrolled=True)

    assert get(server, "/v1/admin/tokens", **basic(admin(server)))[0] == 401


def test_an_address_that_others_reach_wants_the_admin_token(serve):
    server = serve(process={"host": "0.0.0.0", "insecure": True})

    assert get(server, "/metrics")[0] == 401
    assert "edgefl_version" in figures(server, **basic(admin(server)))


@pytest.mark.parametrize("host", ["localhost", "localhost:8017", "127.0.0.1", "[::1]:80", "::1"])
def test_open_pages_answer_to_this_machine(shared, host):
    status = get(shared, "/metrics", host=host)[0]
    assert status == (403 if host == "::1" else 200)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8017", "", "[evil"])
def test_open_pages_do_not_answer_to_a_name_of_a_strangers(shared, host):
    """By such a name, that leads here, a stranger's web page could read them in a browser on this machine."""
    assert get(shared, "/metrics", host=host)[0] in (400, 403)
