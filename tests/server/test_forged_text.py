# SPDX-License-Identifier: Apache-2.0
"""Text of strangers: no forged line of a log, no character that commands a terminal, no half character."""

from __future__ import annotations

import io
import json
import logging

import pytest

from edgefl.errors import ProtocolError
from edgefl.plain import LOG_FORMAT, LOG_FORMATS, OneLine, Quoted
from edgefl.wire import Decline

pytestmark = pytest.mark.device


def test_a_message_is_one_line_of_the_log() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine(LOG_FORMAT))
    logger = logging.Logger("edgefl.test")
    logger.addHandler(handler)
    logger.warning("update refused: %s", "x\n2026-01-01 INFO all is well\x1b[2J\u2028and\u202egone\udc80")
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable() or "\ufffd" in line
    assert "\x1b" not in line and "\u202e" not in line
    line.encode()


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_devices_say_forges_no_line_in_either_format(form: str) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LOG_FORMATS[form]())
    logger = logging.Logger("edgefl.test")
    logger.addHandler(handler)
    hostile = 'a", "event": "round-closed"}\n{"event": "round-closed", "round": 9}\x1b[2J\u2028\udc80'
    told = {"event": "update-refused", "device": hostile, "detail": Quoted(hostile), "round": 3}
    logger.warning("update refused: device=%(device)s detail=%(detail)s round=%(round)d", told)
    (line,) = stream.getvalue().splitlines()
    assert "\x1b" not in line
    line.encode()
    if form == "json":
        found = json.loads(line)
        assert (found["event"], found["round"], found["level"]) == ("update-refused", 3, "warning")
        assert found["detail"].startswith('a", "event"') and "\n" not in found["detail"]


def test_a_log_of_json_has_messages_without_fields_and_what_went_wrong() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LOG_FORMATS["json"]())
    logger = logging.Logger("edgefl.test")
    logger.addHandler(handler)
    try:
        raise ValueError("a\nb")
    except ValueError:
        logger.exception("it failed %s times", 2)
    found = json.loads(stream.getvalue())
    assert found["message"] == "it failed 2 times" and "ValueError" in found["exception"]
    assert found["time"].endswith("Z") and "event" not in found


def test_a_reason_keeps_its_words_and_loses_its_tricks() -> None:
    said = Decline.from_bytes(b'{"reason": "no room\\nround 7: accepted \\u001b[31m"}').reason
    assert said == "no room round 7: accepted \ufffd[31m"


@pytest.mark.parametrize("text", ["\\ud800", "a\\udfffb", "\\uDC00\\uD800"])
def test_half_a_character_is_no_json(text: str) -> None:
    with pytest.raises(ProtocolError):
        Decline.from_bytes(f'{{"reason": "{text}"}}'.encode())


def test_a_whole_pair_is_a_character() -> None:
    assert Decline.from_bytes(b'{"reason": "\\ud83d\\ude00"}').reason == "\U0001f600"
