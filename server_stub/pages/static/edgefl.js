// SPDX-License-Identifier: Apache-2.0
// Fetches the page again and puts its new content in place; scrolled and opened things stay as they are.
"use strict";
const every = 3000, stale = document.getElementById("stale");
async function renew() {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const opened = [...document.querySelectorAll("details[open]")].map((each) => each.id);
    const scrolled = new Map([...document.querySelectorAll(".wide")].map((each) => [each.id, each.scrollLeft]));
    const here = document.activeElement && document.activeElement.id;
    document.getElementById("live").replaceWith(fresh.getElementById("live"));
    opened.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
    scrolled.forEach((left, id) => { const each = document.getElementById(id); if (each) each.scrollLeft = left; });
    if (here) document.getElementById(here)?.focus({ preventScroll: true });
    document.title = fresh.title;
    stale.textContent = "";
  } catch (failure) {
    stale.textContent = "the server does not answer; this is what it said last";
  }
}
async function decide(button) {
  if (!confirm(button.dataset.ask)) return;
  const answer = await fetch(button.dataset.path, { method: button.dataset.method });
  if (!answer.ok) alert((await answer.json()).detail);
  await renew();
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-path]");
  if (button) decide(button);
});
setInterval(renew, every);
