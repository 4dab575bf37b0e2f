/** The form, and the requests that were made on this page, from the queue to the finished asset. */

import * as api from "./api.js";
import { at, make, setText } from "./dom.js";

const MAX_REQUESTS = 12;
const POLL_MS = 700;

export class Requests {
  #requests = []; #finished; #polling = false;

  /** `finished` is called with a request that has an asset. */
  constructor(finished) {
    this.#finished = finished;
    at("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
  }

  async #send() {
    const prompt = at("prompt").value.trim();
    const picture = at("picture").files[0] ?? null;
    const seed = at("seed").value === "" ? null : Number(at("seed").value);
    setText(at("ask-error"), "");
    if (!prompt && !picture) return setText(at("ask-error"), "Describe the asset, or choose a picture.");
    if (prompt && picture) return setText(at("ask-error"), "Give words or a picture, not both.");
    at("send").disabled = true;
    try {
      this.#add(await api.ask({ prompt, picture, seed }), prompt || "(a picture)", picture ? "image" : "text", seed);
      at("picture").value = "";
    } catch (error) {
      setText(at("ask-error"), api.hasKey() || error.status !== 401 ? error.message
        : "Asking needs an API key, and this gateway has none for guests.");
    } finally {
      at("send").disabled = false;
    }
  }

  #add(id, prompt, kind, seed) {
    const note = make("span");
    const bar = make("progress", { max: 1, "aria-label": `progress of ${prompt}` });
    const row = make("li", {}, make("strong", {}, prompt), " ", note, bar);
    this.#requests.unshift({ id, prompt, kind, seed, row, note, bar, since: Date.now(), done: false });
    at("steps").prepend(row);
    for (const old of this.#requests.splice(MAX_REQUESTS)) old.row.remove();
    this.#poll();
  }

  /** Stages from the fleet's own view: queue, generation with its steps, repair, delivery. */
  progress(state) {
    for (const request of this.#requests.filter((each) => !each.done)) {
      const task = state.assets.find((asset) => asset.task_id === request.id);
      if (!task) {
        setText(request.note, state.queue ? `waiting, ${state.queue.waiting} in the queue` : "waiting");
        continue;
      }
      const job = state.workers.map((worker) => worker.job).find((each) => each?.key && each.key === task.key);
      const [words, share] = stage(task, job);
      setText(request.note, words);
      request.bar.value = share;
    }
  }

  async #poll() {
    if (this.#polling) return;
    this.#polling = true;
    while (this.#requests.some((request) => !request.done)) {
      for (const request of this.#requests.filter((each) => !each.done)) await this.#check(request);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    this.#polling = false;
  }

  async #check(request) {
    let answer;
    try {
      answer = await api.status(request.id);
    } catch (error) {
      if (error.status >= 400 && error.status < 500 && error.status !== 429) this.#end(request, error.message);
      else setText(request.note, `${error.message} Trying again.`);
      return;
    }
    if (answer.status === "Failure") this.#end(request, answer.reason || "It failed.");
    else if (answer.status === "Success" || answer.status.startsWith("PartialResult")) {
      this.#end(request, `ready after ${((Date.now() - request.since) / 1000).toFixed(1)} s`);
      this.#finished(request);
    }
  }

  #end(request, words) {
    request.done = true;
    setText(request.note, words);
    request.bar.remove();
  }
}

function stage(task, job) {
  if (task.state === "done") return ["delivered", 1];
  if (task.state === "submitting") return ["delivering", 0.95];
  if (task.state === "fixed" || task.state === "generated") return ["checking and repairing", 0.9];
  if (!job) return ["at a worker", 0.1];
  if (!job.steps) return [job.stage, 0.3];
  return [`${job.stage} ${job.step} of ${job.steps}`, 0.1 + (0.75 * job.step) / job.steps];
}
