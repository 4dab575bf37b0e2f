/** Pictures of one turn around an asset, side by side, drawn out of sight on a small canvas of their own. */

import { Stage } from "./stage.js";

const FRAMES = 8;
/** Draws until the renderer shows the new asset and nothing of the one before. */
const FIRST_DRAWS = 3;
const SIDE = 96;
const PITCH = 0.3;

export class Strips {
  #canvas = new OffscreenCanvas(SIDE, SIDE); #stage;

  constructor() {
    // The renderer sets sizes as a page's canvas has them.
    this.#canvas.style = { width: "", height: "" };
    this.#stage = new Stage(this.#canvas);
  }

  /** A picture of `FRAMES` views; a blob. */
  async draw(bytes, form) {
    const { distance } = await this.#stage.load(bytes, form);
    try {
      this.#stage.size(SIDE, SIDE, 1);
      const target = new OffscreenCanvas(SIDE * FRAMES, SIDE);
      const context = target.getContext("2d");
      for (let draw = 0; draw < FIRST_DRAWS; draw += 1) await this.#stage.drawSorted(0, PITCH, distance);
      for (let frame = 0; frame < FRAMES; frame += 1) {
        await this.#stage.drawSorted((frame / FRAMES) * 2 * Math.PI, PITCH, distance);
        context.drawImage(this.#canvas, frame * SIDE, 0);
      }
      return await target.convertToBlob({ type: "image/webp", quality: 0.8 });
    } finally {
      this.#stage.clear();
    }
  }
}
