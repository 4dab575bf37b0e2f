/** Pictures of the list's assets: drawn one after another, only of those that are in sight. */

import * as api from "./api.js";
import { Strips } from "./strips.js";

const KEPT = 200;

export class Thumbs {
  #strips = new Strips(); #pictures = new Map(); #waiting = new Map(); #observer; #running = false;

  constructor(root) {
    this.#observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const n = Number(target.dataset.n);
        if (isIntersecting) this.#waiting.set(n, target);
        else this.#waiting.delete(n);
      }
      this.#run();
    }, { root });
  }

  /** Draw the asset of `element` when it comes into sight. */
  watch(element, n) {
    element.dataset.n = n;
    const picture = this.#pictures.get(n);
    if (picture) this.#set(element, picture);
    else if (picture === undefined) this.#observer.observe(element);
  }

  forget(element) {
    this.#observer.unobserve(element);
    this.#waiting.delete(Number(element.dataset.n));
  }

  #set(element, picture) {
    element.style.backgroundImage = `url("${picture}")`;
    element.classList.add("ready");
  }

  async #run() {
    if (this.#running) return;
    this.#running = true;
    while (this.#waiting.size && !document.hidden) {
      const [n, element] = this.#waiting.entries().next().value;
      this.#waiting.delete(n);
      this.#observer.unobserve(element);
      try {
        const [form, viewed] = api.shownAs({ n });
        const strip = await this.#strips.draw(await api.asset({ n }, form), viewed);
        this.#keep(n, URL.createObjectURL(strip));
        this.#set(element, this.#pictures.get(n));
      } catch (error) {
        // Nothing is kept of it, or it is broken: the list says so when it is chosen.
        if (error.status !== 0 && error.status !== 503) this.#pictures.set(n, null);
      }
    }
    this.#running = false;
  }

  #keep(n, url) {
    this.#pictures.set(n, url);
    for (const [oldest, picture] of this.#pictures) {
      if (this.#pictures.size <= KEPT) break;
      if (picture) URL.revokeObjectURL(picture);
      this.#pictures.delete(oldest);
    }
  }
}
