# SPDX-License-Identifier: Apache-2.0
"""Text of strangers: no forged line of a log, no character that commands a terminal, no half character."""

from __future__ import annotations

import io
import logging

import pytest

from edgefl.errors import ProtocolError
from edgefl.plain import LOG_FORMAT, OneLine
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


def test_a_reason_keeps_its_words_and_loses_its_tricks() -> None:
    said = Decline.from_bytes(b'{"reason": "no room\\nround 7: accepted \\u001b[31m"}').reason
    assert said == "no room round 7: accepted \ufffd[31m"


@pytest.mark.parametrize("text", ["\\ud800", "a\\udfffb", "\\uDC00\\uD800"])
def test_half_a_character_is_no_json(text: str) -> None:
    with pytest.raises(ProtocolError):
        Decline.from_bytes(f'{{"reason": "{text}"}}'.encode())


def test_a_whole_pair_is_a_character() -> None:
    assert Decline.from_bytes(b'{"reason": "\\ud83d\\ude00"}').reason == "\U0001f600"
