/** The list of assets, the tables of workers and validators, and what happens to workers. */

import { ago, at, count, fill, make, percent, seconds, setText, short } from "./dom.js";

const MAX_EVENTS = 8;

export const verdict = (asset) => {
  if (!asset.outcome) return asset.state;
  const score = asset.score == null ? "" : ` (score ${asset.score.toFixed(2)})`;
  return `${asset.outcome.replaceAll("_", " ")}${asset.reason ? `: ${asset.reason.replaceAll("_", " ")}` : ""}${score}`;
};

const tone = (asset) => ({ accepted: "verdict good", rejected: "verdict bad", given_up: "verdict bad" })[asset.outcome] ?? "verdict";
export const title = (asset) => (asset.kind === "image" ? "(a picture)" : asset.prompt);
export const door = (asset) => (asset.door === "validators" ? `validator ${asset.uid ?? short(asset.validator)}` : asset.door);

/** Keeps one element for each asset, so that focus, scroll position and pictures stay. */
export class AssetList {
  #items = new Map(); #thumbs; #choose; #chosen = null;

  constructor(thumbs, choose) {
    this.#thumbs = thumbs;
    this.#choose = choose;
  }

  show(assets) {
    const list = at("list");
    const names = [...new Set(assets.map((asset) => asset.door))].sort();
    this.#offer(names);
    const wanted = at("door").value;
    const shown = assets.filter((asset) => !wanted || asset.door === wanted);
    const seen = new Set();
    shown.forEach((asset, place) => {
      const id = `${asset.n} ${asset.task_id}`;
      seen.add(id);
      let item = this.#items.get(id);
      if (!item) {
        item = this.#add(asset);
        this.#items.set(id, item);
      }
      this.#update(item, asset);
      if (list.children[place] !== item.row) list.insertBefore(item.row, list.children[place] ?? null);
    });
    for (const [id, item] of this.#items) {
      if (seen.has(id)) continue;
      this.#thumbs.forget(item.thumb);
      item.row.remove();
      this.#items.delete(id);
    }
    setText(at("list-empty"), shown.length ? "" : "No task has come through this door yet.");
  }

  #offer(names) {
    const select = at("door");
    const now = [...select.options].slice(1).map((option) => option.value);
    if (now.join("\n") === names.join("\n")) return;
    const chosen = select.value;
    select.replaceChildren(make("option", { value: "" }, "all"), ...names.map((name) => make("option", { value: name }, name)));
    select.value = names.includes(chosen) ? chosen : "";
  }

  #add(asset) {
    const thumb = make("span", { class: "thumb", "aria-hidden": true });
    const prompt = make("span", { class: "prompt" });
    const said = make("span", { class: "verdict" });
    const from = make("span", { class: "verdict" });
    const button = make("button", { type: "button" }, thumb, prompt, said, " ", from);
    const item = { row: make("li", {}, button), thumb, prompt, said, from, button, asset, watched: false };
    button.addEventListener("click", () => this.choose(item));
    return item;
  }

  #update(item, asset) {
    item.asset = asset;
    setText(item.prompt, title(asset));
    setText(item.said, verdict(asset));
    setText(item.from, door(asset));
    setText(item.thumb, asset.kept ? "" : asset.outcome ? "no asset" : "…");
    item.said.className = tone(asset);
    if (asset.kept && !item.watched) {
      item.watched = true;
      this.#thumbs.watch(item.thumb, asset);
    }
  }

  choose(item) {
    if (this.#chosen) this.#chosen.button.removeAttribute("aria-current");
    this.#chosen = item;
    item.button.setAttribute("aria-current", "true");
    this.#choose(item.asset);
  }

  /** The newest asset that is kept, as the list has it now. */
  newest() {
    return [...this.#items.values()].filter((item) => item.asset.kept).sort((a, b) => b.asset.n - a.asset.n)[0];
  }
}

export function showWorkers(workers, now) {
  fill(at("workers"), workers.length ? workers.map((worker) => make("tr", {},
    make("th", { scope: "row" }, worker.name),
    make("td", {}, stateOf(worker)),
    make("td", {}, ...memoryOf(worker)),
    make("td", {}, count(worker.gaussians_mean)),
    make("td", {}, recycleOf(worker, now)))) : [make("tr", {}, make("td", { colspan: 5 }, "No worker is known."))]);
}

function stateOf(worker) {
  if (worker.recycling) return `${worker.state ?? "unknown"}, ${worker.recycling} under way`;
  if (worker.job) {
    return worker.job.steps ? `${worker.job.stage} ${worker.job.step} of ${worker.job.steps}` : worker.job.stage;
  }
  // Of a worker that is ready, the reason says for whom the miner holds it.
  if (worker.state === "ready") return "ready";
  return [...new Set([worker.state ?? "no answer", worker.reason])].filter(Boolean).join(": ");
}

function memoryOf(worker) {
  if (worker.memory == null) return ["-"];
  return [make("progress", { max: 1, value: worker.memory.toFixed(3), "aria-label": `memory of ${worker.name}` }),
    ` ${percent(worker.memory)}`];
}

const recycleOf = (worker, now) => (worker.recycled
  ? `${worker.recycled} ${worker.recycle_outcome.replaceAll("_", " ")}, ${ago(worker.recycled_at, now)}` : "-");

export function showSuccess(state) {
  const lines = [...state.validators, ...state.gateways];
  fill(at("success"), lines.length ? lines.map((line) => make("tr", {},
    make("th", { scope: "row", title: line.name }, line.uid == null ? short(line.name) : `${line.uid} (${short(line.name)})`),
    make("td", {}, count(line.accepted)), make("td", {}, count(line.ended)),
    make("td", {}, percent(line.success)))) : [make("tr", {}, make("td", { colspan: 4 }, "No task has ended yet."))]);
}

/** Says each recycle once, when it begins and when it ends; at first the last one of each worker. */
export class Events {
  #before = null;

  show(workers, now) {
    const lines = [];
    for (const worker of workers) {
      const before = this.#before?.get(worker.name);
      if (worker.recycling && !before?.recycling) lines.push([now, `${worker.name}: ${worker.recycling} has begun`]);
      if (worker.recycled_at && worker.recycled_at !== before?.recycled_at) {
        const how = `${worker.recycled} ${worker.recycle_outcome.replaceAll("_", " ")}`;
        lines.push([worker.recycled_at, `${worker.name}: ${how}, ${worker.recycle_reason}`]);
      }
    }
    this.#before = new Map(workers.map((worker) => [worker.name, worker]));
    const clock = (when) => new Date(when * 1000).toLocaleTimeString("en-GB");
    at("events").prepend(...lines.map(([when, line]) => make("li", {}, `${clock(when)} ${line}`)));
    while (at("events").children.length > MAX_EVENTS) at("events").lastChild.remove();
  }
}

export function facts(asset, gaussians) {
  const rows = [
    ["Prompt", title(asset)], ["Door", door(asset)], ["Verdict", verdict(asset)],
    ["Gaussians", gaussians == null ? "-" : count(gaussians)], ["Seed", asset.seed ?? "-"],
    ["Time", seconds(asset.seconds)], ["Lane", asset.lane ?? "-"], ["Repaired", asset.repaired ? "yes" : "no"],
    ["Attempts", asset.attempts],
  ];
  fill(at("facts"), rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
}
