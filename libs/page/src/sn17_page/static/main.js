/** Starts the page: log-in, polling, and what is shown on the stage. */

import * as api from "./api.js";
import { Requests } from "./ask.js";
import { at, setText } from "./dom.js";
import { AssetList, Events, facts, showSuccess, showWorkers } from "./lists.js";
import { Thumbs } from "./thumbs.js";
import { Viewer } from "./viewer.js";

const POLL_MS = 2000;
const MAX_WAIT_MS = 30_000;
const ASSETS = 200;

const viewer = new Viewer(at("view"));
const thumbs = new Thumbs(at("list"));
const list = new AssetList(thumbs, (asset) => show({ n: asset.n, task_id: asset.task_id }, asset));
const events = new Events();
const requests = new Requests((request) => show({ id: request.id, task_id: request.id }, known(request.id) ?? describe(request)));

let current = null;
let loading = null;
let last = null;

/** A request of this page in the shape of the list's assets. */
const describe = (request) => ({
  kind: request.kind, prompt: request.prompt, door: "this page", outcome: null, state: "ready", score: null,
  reason: null, seed: request.seed, seconds: (Date.now() - request.since) / 1000, lane: null, repaired: false, attempts: 1,
});

/** What the fleet says of a task, if anything. */
const known = (id) => last?.assets.find((asset) => asset.task_id === id);

async function show(source, asset) {
  loading?.abort();
  loading = new AbortController();
  const { signal } = loading;
  setText(at("view-note"), "Loading…");
  facts(asset, null);
  thumbs.held = true;
  try {
    const [form, viewed] = api.shownAs(source);
    const bytes = await api.asset(source, form, signal);
    const gaussians = await viewer.show(bytes, viewed);
    if (signal.aborted) return;
    current = { source, name: source.n ? `task-${source.n}` : "asset", gaussians };
    facts(known(source.task_id) ?? asset, gaussians);
    setText(at("view-note"), "");
    at("view").setAttribute("aria-label", `3D view of ${asset.kind === "image" ? "an asset from a picture" : asset.prompt}`);
    at("save-ply").disabled = at("save-spz").disabled = false;
  } catch (error) {
    if (signal.aborted) return;
    current = null;
    viewer.clear();
    at("view").setAttribute("aria-label", "No asset is shown");
    at("save-ply").disabled = at("save-spz").disabled = true;
    setText(at("view-note"), `It cannot be shown: ${error.message}`);
  } finally {
    // A newer one that took its place goes on to hold them.
    if (loading.signal === signal) thumbs.held = false;
  }
}

async function save(form) {
  if (!current) return;
  try {
    api.save(await api.asset(current.source, form), `${current.name}.${form}`);
  } catch (error) {
    setText(at("view-note"), `It cannot be downloaded: ${error.message}`);
  }
}

function update(state) {
  last = state;
  setText(at("node"), state.node === "sn17" ? "" : state.node);
  const queue = state.queue ? `${state.queue.waiting} waiting, ${state.queue.working} at work` : "";
  const trouble = state.miner ? `Nothing is known of the fleet: ${state.miner}.` : "";
  const idle = state.not_pulling ? `Validators are not asked: ${state.not_pulling}.` : "";
  setText(at("summary"), [queue, trouble, idle].filter(Boolean).join(". "));
  list.show(state.assets);
  showWorkers(state.workers, state.now);
  events.show(state.workers, state.now);
  showSuccess(state);
  requests.progress(state);
  const shown = current && known(current.source.task_id);
  if (shown) facts(shown, current.gaussians);
  const newest = loading ? null : list.newest();
  if (newest) list.choose(newest);
}

async function poll() {
  let wait = POLL_MS;
  for (;;) {
    if (!document.hidden) {
      try {
        update(await api.state(ASSETS));
        wait = POLL_MS;
      } catch (error) {
        if (error.status === 401 || error.status === 400) return logIn("This key is not valid any more.");
        setText(at("summary"), `${error.message ?? error} Trying again.`);
        wait = Math.min(MAX_WAIT_MS, wait * 2);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

function logIn(message) {
  api.forgetKey();
  at("main").hidden = true;
  at("login").hidden = false;
  setText(at("login-error"), message);
  setText(at("summary"), "");
  at("key").focus();
}

async function enter() {
  at("login").hidden = true;
  at("main").hidden = false;
  await poll();
}

at("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  api.storeKey(at("key").value.trim());
  try {
    await api.state(1);
    at("key").value = "";
    await enter();
  } catch (error) {
    logIn(error.status === 401 ? "The gateway does not know this key." : error.message);
  }
});

at("door").addEventListener("change", () => last && list.show(last.assets));
at("save-ply").addEventListener("click", () => save("ply"));
at("save-spz").addEventListener("click", () => save("spz"));
at("turn").setAttribute("aria-pressed", String(viewer.turning));
at("turn").addEventListener("click", () => {
  viewer.turning = !viewer.turning;
  at("turn").setAttribute("aria-pressed", String(viewer.turning));
});

async function start() {
  for (let wait = 500; ; wait = Math.min(MAX_WAIT_MS, wait * 2)) {
    try {
      const session = await api.session();
      api.setGuestKey(session.guest_key);
      if (session.login && !api.storedKey()) return logIn("");
      return await enter();
    } catch (error) {
      setText(at("summary"), `${error.message} Trying again.`);
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

start();
