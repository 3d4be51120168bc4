// Each link and form is a plain GET. This script only replaces the content in place, so that the list can be seen to move.
"use strict";

const content = () => document.getElementById("content");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let running = null;

function places() {
  const rows = document.querySelectorAll("[data-row]");
  return new Map([...rows].map((row) => [row.dataset.row, row.getBoundingClientRect().top]));
}

// Rows glide from where they were, and new ones fade in.
function glide(before) {
  if (calm.matches || before.size === 0) return;
  for (const row of document.querySelectorAll("[data-row]")) {
    const top = before.get(row.dataset.row);
    const from = top === undefined
      ? { opacity: 0 }
      : { transform: `translateY(${top - row.getBoundingClientRect().top}px)` };
    row.animate([from, {}], { duration: 300, easing: "ease-out" });
  }
}

// The same control again or, if it is gone, the heading: the keyboard stays where it was.
function focus(id, key) {
  const same = id ? document.getElementById(id) : key && document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  const target = same || document.getElementById("history-title") || document.getElementById("user");
  if (target) target.focus({ preventScroll: true });
}

async function swap(address, { push = true, id = null, key = null } = {}) {
  if (running) running.abort();
  const mine = (running = new AbortController());
  content().setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(address, { signal: mine.signal });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("content");
    const before = places();
    content().replaceWith(fresh);
    document.title = page.title;
    document.getElementById("status").textContent = page.getElementById("status").textContent;
    if (push) history.pushState(null, "", fresh.dataset.address);
    glide(before);
    focus(id, key);
  } catch (error) {
    if (mine.signal.aborted) return;
    content().removeAttribute("aria-busy");
    document.getElementById("status").textContent = "batchrec explore has ended.";
    document.getElementById("status").className = "alarm";
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-swap]");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  swap(link.href, { key: link.dataset.key });
});

document.addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = event.target.querySelector("input:not([type=hidden])");
  swap(`/?${new URLSearchParams(new FormData(event.target))}`, { id: typed.id });
});

addEventListener("popstate", () => swap(location.href, { push: false }));
