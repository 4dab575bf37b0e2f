/** The canvas that shows one asset and turns it. */

import { Stage } from "./stage.js";

const TURN_PER_SECOND = 0.5;
/** The renderer loads and sorts on its own time: it draws so many frames after the last change, however slow. */
const SETTLE_FRAMES = 20;
/** Slower frames get fewer pixels, quick ones more again. */
const SLOW_MS = 90;
const QUICK_MS = 30;
const LEAST_RATIO = 0.6;
const KEYS = { ArrowLeft: [0.15, 0], ArrowRight: [-0.15, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };

export class Viewer {
  #canvas; #stage; #yaw = 0; #pitch = 0.3; #distance = 2; #last = 0; #drag = null; #running = false;
  #visible = true; #left = 0; #pace = QUICK_MS; #ratio = Infinity; #turning;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#stage = new Stage(canvas);
    this.#turning = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    new IntersectionObserver(([{ isIntersecting }]) => { this.#visible = isIntersecting; }).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => {
      this.#drag = [event.clientX, event.clientY];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.#drag) return;
      this.#move((this.#drag[0] - event.clientX) / 150, (event.clientY - this.#drag[1]) / 150);
      this.#drag = [event.clientX, event.clientY];
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, () => { this.#drag = null; });
    }
    canvas.addEventListener("keydown", (event) => {
      if (KEYS[event.key]) this.#move(...KEYS[event.key]);
      else if (event.key === "+") this.#zoom(0.9);
      else if (event.key === "-") this.#zoom(1.1);
      else return;
      event.preventDefault();
    });
  }

  get turning() {
    return this.#turning;
  }

  set turning(value) {
    this.#turning = value;
    this.#left = SETTLE_FRAMES;
  }

  #zoom(factor) {
    this.#distance *= factor;
    this.#left = SETTLE_FRAMES;
  }

  #move(yaw, pitch) {
    this.#left = SETTLE_FRAMES;
    this.#yaw += yaw;
    this.#pitch = Math.min(1.4, Math.max(-1.4, this.#pitch + pitch));
  }

  /** Show an asset in place of the one before; resolves to its number of gaussians. */
  async show(bytes, form) {
    const { gaussians, distance } = await this.#stage.load(bytes, form);
    this.#distance = distance;
    this.#left = SETTLE_FRAMES;
    if (!this.#running) {
      this.#running = true;
      requestAnimationFrame((time) => this.#frame(time));
    }
    return gaussians;
  }

  /** Show nothing. */
  clear() {
    this.#stage.clear();
  }

  #frame(time) {
    requestAnimationFrame((next) => this.#frame(next));
    if (document.hidden || !this.#visible || !this.#stage.ready || this.#stage.busy) return;
    const passed = time - this.#last;
    this.#last = time;
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (this.turning && !this.#drag) {
      this.#yaw += TURN_PER_SECOND * Math.min(0.1, passed / 1000);
      this.#follow(passed);
    } else if (this.#left === 0 && this.#stage.sorted && this.#stage.fits(width, height)) {
      return;
    }
    this.#left = Math.max(0, this.#left - 1);
    this.#stage.size(width, height, Math.min(this.#ratio, 2, devicePixelRatio));
    this.#stage.draw(this.#yaw, this.#pitch, this.#distance);
  }

  /** Fewer pixels where frames take long, so that it still turns without a graphics card. */
  #follow(passed) {
    this.#pace += (Math.min(passed, 4 * SLOW_MS) - this.#pace) * 0.15;
    const most = Math.min(2, devicePixelRatio);
    const ratio = Math.min(this.#ratio, most);
    if (this.#pace > SLOW_MS && ratio > LEAST_RATIO) this.#ratio = Math.max(LEAST_RATIO, ratio * 0.75);
    else if (this.#pace < QUICK_MS && ratio < most) this.#ratio = Math.min(most, ratio * 1.25);
    else return;
    this.#pace = (SLOW_MS + QUICK_MS) / 2;
  }
}
