"use strict";
// Puts the parts of the page in place as they come. What they hold is escaped by the server.
const link = document.getElementById("link");
const held = new Map();
let source = null;

function chosen() {
  return decodeURIComponent(location.hash.slice(1));
}

function put(name, html) {
  const place = document.getElementById(name);
  if (!place) return;
  // Nobody loses what they are typing: the part is put in place when the field is left.
  if (place.contains(document.activeElement) && document.activeElement.tagName === "INPUT") {
    held.set(name, html);
    return;
  }
  held.delete(name);
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.job : undefined;
  const open = [...place.querySelectorAll("details[open] > summary")].map((each) => each.textContent);
  const log = place.querySelector("pre");
  const read = log && log.scrollTop + log.clientHeight < log.scrollHeight - 4 ? log.scrollTop : null;
  place.innerHTML = html;
  // The newest line is in sight unless the reader has scrolled up.
  const now = place.querySelector("pre");
  if (now) now.scrollTop = read === null ? now.scrollHeight : read;
  for (const each of place.querySelectorAll("details > summary")) {
    if (open.includes(each.textContent)) each.parentElement.open = true;
  }
  if (focused) place.querySelector(`[data-job="${CSS.escape(focused)}"]`)?.focus();
}

function listen() {
  if (source) source.close();
  source = new EventSource("/events?job=" + encodeURIComponent(chosen()));
  source.onopen = () => { link.textContent = "Up to date."; };
  source.onerror = () => { link.textContent = "The connection is lost; the command may have ended."; };
  source.onmessage = (event) => {
    for (const [name, html] of Object.entries(JSON.parse(event.data))) put(name, html);
  };
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-job]");
  if (button) location.hash = encodeURIComponent(button.dataset.job);
});
document.addEventListener("focusout", (event) => {
  // After the click that took the focus away: it may have been the form's own button.
  if (event.target.tagName === "INPUT") setTimeout(() => held.forEach((html, name) => put(name, html)), 300);
});
addEventListener("hashchange", listen);
listen();
