/** One canvas that shows one asset and turns it, and pictures of others for the list. */

const FRAMES = 12;
const SIDE = 96;
const SETTLE_MS = 4000;
const TURN_PER_SECOND = 0.5;

/** Loads the vendored renderer when the first asset is shown, not before. */
const library = () => import("/page/static/vendor/splat-viewer.js");
const nextFrame = () => new Promise((resolve) => requestAnimationFrame(resolve));

export class Viewer {
  #canvas; #lib; #renderer; #scene; #camera; #spark; #mesh = null; #reframe = false;
  #yaw = 0; #pitch = 0.3; #distance = 2; #last = 0; #busy = Promise.resolve(); #drag = null;
  turning = !matchMedia("(prefers-reduced-motion: reduce)").matches;

  constructor(canvas) {
    this.#canvas = canvas;
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
      const step = { ArrowLeft: [0.15, 0], ArrowRight: [-0.15, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
      if (step) this.#move(...step);
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

  async #open() {
    if (this.#renderer) return;
    this.#lib = await library();
    const { WebGLRenderer, Scene, PerspectiveCamera, SparkRenderer } = this.#lib;
    try {
      this.#renderer = new WebGLRenderer({ canvas: this.#canvas, antialias: false, alpha: true });
    } catch {
      throw new Error("This browser has no WebGL 2, which the viewer needs. Downloads work without it.");
    }
    this.#scene = new Scene();
    this.#camera = new PerspectiveCamera(40, 4 / 3, 0.01, 100);
    this.#spark = new SparkRenderer({ renderer: this.#renderer, enableLod: false });
    this.#scene.add(this.#spark);
    this.#renderer.setAnimationLoop((time) => this.#frame(time));
  }

  /** Runs one thing at a time: loading, or drawing a picture. */
  #alone(work) {
    const run = this.#busy.then(work, work);
    this.#busy = run.catch(() => {});
    return run;
  }

  async #decode(bytes, form) {
    const mesh = new this.#lib.SplatMesh({ fileBytes: bytes, fileName: `asset.${form}`, lod: false });
    await mesh.initialized;
    if (!mesh.packedSplats?.numSplats) {
      mesh.dispose();
      throw new Error("The file holds no gaussians.");
    }
    // Assets have z up; the renderer has y up.
    mesh.rotation.x = -Math.PI / 2;
    return mesh;
  }

  #distanceFor(mesh) {
    const size = mesh.getBoundingBox(true).getSize(new this.#lib.Vector3()).length();
    return Math.min(50, Math.max(0.2, size * 1.5));
  }

  /** Show an asset in place of the one before; resolves to its number of gaussians. */
  show(bytes, form) {
    return this.#alone(async () => {
      await this.#open();
      const mesh = await this.#decode(bytes, form);
      this.#clear();
      this.#mesh = mesh;
      this.#scene.add(mesh);
      this.#distance = this.#distanceFor(mesh);
      return mesh.packedSplats.numSplats;
    });
  }

  #clear() {
    if (!this.#mesh) return;
    this.#scene.remove(this.#mesh);
    this.#mesh.dispose();
    this.#mesh = null;
  }

  #frame(time) {
    if (this.#reframe || document.hidden) return;
    const passed = Math.min(0.1, (time - this.#last) / 1000);
    this.#last = time;
    if (this.turning && !this.#drag && this.#mesh) this.#yaw += TURN_PER_SECOND * passed;
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const ratio = Math.min(2, devicePixelRatio);
    if (this.#canvas.width !== Math.floor(width * ratio) || this.#canvas.height !== Math.floor(height * ratio)) {
      this.#renderer.setPixelRatio(ratio);
      this.#renderer.setSize(width, height, false);
      this.#camera.aspect = width / Math.max(1, height);
      this.#camera.updateProjectionMatrix();
    }
    this.#look(this.#yaw, this.#pitch, this.#distance);
    this.#renderer.render(this.#scene, this.#camera);
  }

  #look(yaw, pitch, distance) {
    this.#camera.position.set(
      Math.sin(yaw) * Math.cos(pitch) * distance, Math.sin(pitch) * distance,
      Math.cos(yaw) * Math.cos(pitch) * distance,
    );
    this.#camera.lookAt(0, 0, 0);
  }

  /** A strip of pictures of one turn around the shown asset or, with `bytes`, another; a blob. */
  strip(bytes, form) {
    return this.#alone(async () => {
      await this.#open();
      const other = bytes ? await this.#decode(bytes, form) : null;
      const shown = this.#mesh;
      this.#reframe = true;
      try {
        if (other) {
          if (shown) this.#scene.remove(shown);
          this.#scene.add(other);
        }
        return await this.#drawStrip(this.#distanceFor(other ?? shown));
      } finally {
        if (other) {
          this.#scene.remove(other);
          other.dispose();
          if (shown) this.#scene.add(shown);
        }
        this.#reframe = false;
        this.#canvas.width = 0;
      }
    });
  }

  async #drawStrip(distance) {
    const target = new OffscreenCanvas(SIDE * FRAMES, SIDE);
    const context = target.getContext("2d");
    this.#renderer.setPixelRatio(1);
    this.#renderer.setSize(SIDE, SIDE, false);
    this.#camera.aspect = 1;
    this.#camera.updateProjectionMatrix();
    for (let frame = 0; frame < FRAMES; frame += 1) {
      this.#look((frame / FRAMES) * 2 * Math.PI, 0.3, distance);
      await this.#settle();
      context.drawImage(this.#canvas, frame * SIDE, 0);
    }
    return target.convertToBlob({ type: "image/webp", quality: 0.8 });
  }

  /** Render until the renderer has sorted the gaussians for this view. */
  async #settle() {
    const until = performance.now() + SETTLE_MS;
    let calm = 0;
    while (calm < 2 && performance.now() < until) {
      this.#renderer.render(this.#scene, this.#camera);
      await nextFrame();
      calm = this.#spark.sorting || this.#spark.sortDirty || this.#spark.dirty ? 0 : calm + 1;
    }
    this.#renderer.render(this.#scene, this.#camera);
  }
}
