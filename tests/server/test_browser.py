# SPDX-License-Identifier: Apache-2.0
"""The dashboard in a real browser: it fits a phone, is readable in both themes, and follows the server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from edgefl.wire import CheckIn
from tests.browser import Page, browsing, chromium
from tests.server.conftest import HOSTILE

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium here: scripts/browser.sh installs it")

CONTRAST = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (each) => {
    for (; each; each = each.parentElement) {
      const found = parse(getComputedStyle(each).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const each of document.querySelectorAll("body *")) {
    if (![...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    if (each.closest("title") || !each.getClientRects().length) continue;
    const style = getComputedStyle(each);
    const drawn = each.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [a, b] = [light(parse(drawn)), light(behind(each))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(`${each.tagName} ${each.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return low;
})()
"""
UNNAMED = """
[...document.querySelectorAll("a, button, summary, [role], svg, img, table, html")].filter((each) => {
  if (each.closest("[aria-hidden=true]")) return false;
  if (each.tagName === "HTML") return !each.lang || !document.title;
  if (each.tagName === "TABLE") return !each.querySelector("th[scope]");
  if (each.getAttribute("role") === "status") return false;
  const heading = each.getAttribute("aria-labelledby");
  const named = each.getAttribute("aria-label") || (heading && document.getElementById(heading));
  return !(named || each.textContent.trim());
}).map((each) => each.outerHTML.slice(0, 80))
"""


@pytest.fixture(scope="module")
def screen() -> Iterator[Page]:
    with browsing() as page:
        yield page


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_pages_fit_and_can_be_read(played, screen, theme, width):
    for path in ("/", "/rounds/1", "/docs"):
        screen.open(played.url + path, width, 800, theme)
        screen.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")

        assert screen.errors == []
        assert screen.run("document.documentElement.scrollWidth") <= width, path
        assert screen.run("matchMedia('(prefers-color-scheme: dark)').matches") == (theme == "dark")
        assert screen.run(CONTRAST) == [], path
        assert screen.run(UNNAMED) == [], path
        assert screen.run("document.querySelectorAll('h1').length") == 1
        assert screen.run("new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size"
                          " == document.querySelectorAll('[id]').length")  # fmt: skip


def test_themes_differ(played, screen):
    found = []
    for theme in ("light", "dark"):
        screen.open(played.url + "/", 1280, 800, theme)
        found.append(screen.run("getComputedStyle(document.body).backgroundColor"))

    assert len(set(found)) == 2


def test_the_page_follows_the_rounds_and_says_when_it_cannot(played, screen, bundle, make_frame):
    screen.open(played.url + "/")
    screen.run("document.getElementById('people').open = true")
    remote = played.remote()
    for i in range(2):
        task = remote.check_in(CheckIn(f"watch-{i}", bundle.schema().id.hex(), HOSTILE, 10)).task
        remote.upload(2, task.assignment, make_frame(i + 5, version=1))
    played.wait_for_version(2)

    until(screen, "document.querySelector('h2').textContent.includes('Round 3')")
    assert screen.run("document.getElementById('people').open")
    assert "round 3 of 3" in screen.run("document.title")
    assert screen.errors == []

    played.kill()
    until(screen, "document.getElementById('stale').textContent.includes('does not answer')")
    assert screen.run("document.querySelector('h2').textContent.includes('Round 3')")


def test_versions_are_promoted_and_gone_back_to_from_the_page(played, screen):
    screen.open(played.url + "/")
    screen.run("window.confirm = (text) => { window.asked = text; return true; }")
    screen.run("document.getElementById('promote-1').click()")
    until(screen, "document.getElementById('versions').textContent.includes('pulled by default')")
    assert screen.run("window.asked") == "Have version 1 pulled by default?"
    assert played.status().promoted == 1

    screen.run("document.getElementById('restore-0').click()")
    until(screen, "document.getElementById('versions').textContent.includes('version 0 again')")
    assert played.status().version == 2 and screen.errors == []


def until(screen: Page, condition: str) -> None:
    deadline = time.monotonic() + 60
    while not screen.run(condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.2)
