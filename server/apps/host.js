"use strict";
// The host speaks JSON-RPC over postMessage (MCP Apps, 2026-01-26). The page gives `render(result)`.
const show = (id, text) => { document.getElementById(id).textContent = text; resized(); };
const send = (message) => parent.postMessage({ jsonrpc: "2.0", ...message }, "*");
const waiting = new Map();
let nextId = 1;

function request(method, params) {
  const id = nextId++;
  send({ id, method, params });
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

function resized() {
  const height = Math.ceil(document.documentElement.getBoundingClientRect().height);
  send({ method: "ui/notifications/size-changed", params: { height } });
}

addEventListener("message", (event) => {
  if (event.source !== parent) return;
  const message = event.data || {};
  if (message.id !== undefined && waiting.has(message.id) && message.method === undefined) {
    const { resolve, reject } = waiting.get(message.id);
    waiting.delete(message.id);
    if (message.error) reject(new Error(message.error.message)); else resolve(message.result || {});
  } else if (message.method === "ui/notifications/tool-result") {
    render(message.params || {});
  } else if (message.method === "ui/notifications/tool-cancelled") {
    show("headline", "The call was cancelled.");
  } else if (message.method === "ui/resource-teardown" || message.method === "ping") {
    send({ id: message.id, result: {} });
  }
});

request("ui/initialize", {
  protocolVersion: "2026-01-26",
  appInfo: { name: document.title, version: "1" },
  appCapabilities: {},
}).then(() => send({ method: "ui/notifications/initialized", params: {} }));
