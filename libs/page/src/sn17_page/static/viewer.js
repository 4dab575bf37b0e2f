/** The canvas that shows one asset and turns it. */

import { Stage } from "./stage.js";

const TURN_PER_SECOND = 0.5;
const KEYS = { ArrowLeft: [0.15, 0], ArrowRight: [-0.15, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };

export class Viewer {
  #canvas; #stage; #yaw = 0; #pitch = 0.3; #distance = 2; #last = 0; #drag = null; #running = false;
  turning = !matchMedia("(prefers-reduced-motion: reduce)").matches;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#stage = new Stage(canvas);
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
      else if (event.key === "+") this.#distance *= 0.9;
      else if (event.key === "-") this.#distance *= 1.1;
      else return;
      event.preventDefault();
    });
  }

  #move(yaw, pitch) {
    this.#yaw += yaw;
    this.#pitch = Math.min(1.4, Math.max(-1.4, this.#pitch + pitch));
  }

  /** Show an asset in place of the one before; resolves to its number of gaussians. */
  async show(bytes, form) {
    const { gaussians, distance } = await this.#stage.load(bytes, form);
    this.#distance = distance;
    if (!this.#running) {
      this.#running = true;
      requestAnimationFrame((time) => this.#frame(time));
    }
    return gaussians;
  }

  #frame(time) {
    requestAnimationFrame((next) => this.#frame(next));
    if (document.hidden || !this.#stage.ready) return;
    const passed = Math.min(0.1, (time - this.#last) / 1000);
    this.#last = time;
    if (this.turning && !this.#drag) this.#yaw += TURN_PER_SECOND * passed;
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const ratio = Math.min(2, devicePixelRatio);
    if (this.#canvas.width !== Math.floor(width * ratio) || this.#canvas.height !== Math.floor(height * ratio)) {
      this.#stage.size(width, height, ratio);
    }
    this.#stage.draw(this.#yaw, this.#pitch, this.#distance);
  }
}
