/** Pictures of the list's assets: fetched and drawn one after another, only of those in sight, after the stage. */

import * as api from "./api.js";

const KEPT = 200;
const AGAIN_MS = 5000;

export class Thumbs {
  #worker = null; #drawn = null; #pictures = new Map(); #watched = new Map(); #waiting = new Set(); #observer; #running = false;
  #held = false;

  constructor(root) {
    this.#observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) this.#waiting.add(target);
        else this.#waiting.delete(target);
      }
      this.#run();
    }, { root, rootMargin: "100px" });
    document.addEventListener("visibilitychange", () => this.#run());
  }

  /** Draw the asset in `element` when it comes into sight. */
  watch(element, asset) {
    this.#watched.set(element, asset);
    const picture = this.#pictures.get(asset.task_id);
    if (picture) this.#set(element, picture);
    else if (picture === undefined) this.#observer.observe(element);
  }

  /** Begin no picture while the stage has something to show. */
  set held(value) {
    this.#held = value;
    if (!value) this.#run();
  }

  forget(element) {
    this.#observer.unobserve(element);
    this.#watched.delete(element);
    this.#waiting.delete(element);
  }

  #set(element, picture) {
    element.style.backgroundImage = `url("${picture}")`;
    element.classList.add("ready");
  }

  async #run() {
    if (this.#running) return;
    this.#running = true;
    while (this.#waiting.size && !document.hidden && !this.#held) {
      const element = this.#waiting.values().next().value;
      this.#waiting.delete(element);
      this.#observer.unobserve(element);
      await this.#fill(element, this.#watched.get(element));
    }
    this.#running = false;
  }

  async #fill(element, asset) {
    try {
      const [form] = api.shownAs(asset);
      const strip = await this.#draw(await api.asset(asset, form));
      this.#keep(asset.task_id, strip && URL.createObjectURL(strip));
      if (strip) this.#set(element, this.#pictures.get(asset.task_id));
    } catch (error) {
      // Not kept any more, or broken: the list says so when it is chosen. Anything else may pass.
      if (error.status === 404 || error.status === 502) this.#keep(asset.task_id, null);
      else setTimeout(() => this.#watched.has(element) && this.#observer.observe(element), AGAIN_MS);
    }
  }

  /** A picture of several views, as a blob; null where the bytes hold no asset. */
  #draw(bytes) {
    if (!this.#worker) {
      this.#worker = new Worker("/page/static/strips.js");
      this.#worker.onmessage = ({ data }) => this.#drawn(data);
      this.#worker.onerror = () => this.#drawn(null);
    }
    return new Promise((resolve) => {
      this.#drawn = resolve;
      this.#worker.postMessage(bytes, [bytes.buffer]);
    });
  }

  #keep(id, url) {
    this.#pictures.set(id, url);
    for (const [oldest, picture] of this.#pictures) {
      if (this.#pictures.size <= KEPT) break;
      if (picture) URL.revokeObjectURL(picture);
      this.#pictures.delete(oldest);
    }
  }
}
