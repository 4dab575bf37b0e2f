/** A canvas with a camera that circles around one asset, drawn by the vendored renderer. */

const FIELD_OF_VIEW = 40;

/** Loads the renderer when the first asset is drawn, not before. */
const library = () => import("/page/static/vendor/splat-viewer.js");

export class Stage {
  #canvas; #renderer; #scene; #camera; #spark; #mesh = null; #size = [0, 0, 0]; #fence = null;

  constructor(canvas) {
    this.#canvas = canvas;
  }

  /** Whether the gaussians are in order for the view that was drawn last. */
  get sorted() {
    return !this.#spark.sorting && !this.#spark.sortDirty;
  }

  get ready() {
    return this.#mesh !== null;
  }

  /** Whether the last picture is still being drawn: frames that queue up would delay every click. */
  get busy() {
    if (!this.#fence) return false;
    const gl = this.#renderer.getContext();
    if (!gl.isContextLost() && gl.getSyncParameter(this.#fence, gl.SYNC_STATUS) === gl.UNSIGNALED) return true;
    gl.deleteSync(this.#fence);
    this.#fence = null;
    return false;
  }

  async open() {
    if (this.#renderer) return;
    const { WebGLRenderer, Scene, PerspectiveCamera, SparkRenderer } = await library();
    try {
      this.#renderer = new WebGLRenderer({
        canvas: this.#canvas, antialias: false, alpha: true, preserveDrawingBuffer: true,
      });
    } catch {
      throw new Error("This browser has no WebGL 2, which the viewer needs. Downloads work without it.");
    }
    this.#scene = new Scene();
    this.#camera = new PerspectiveCamera(FIELD_OF_VIEW, 1, 0.01, 100);
    this.#spark = new SparkRenderer({ renderer: this.#renderer, enableLod: false });
    this.#scene.add(this.#spark);
  }

  /** Show an asset in place of the one before; resolves to gaussians and a good distance. */
  async load(bytes, form) {
    await this.open();
    const { SplatMesh, Vector3 } = await library();
    const mesh = new SplatMesh({ fileBytes: bytes, fileName: `asset.${form}`, lod: false });
    await mesh.initialized;
    const gaussians = mesh.packedSplats?.numSplats ?? 0;
    if (!gaussians) {
      mesh.dispose();
      throw new Error("The file holds no gaussians.");
    }
    this.clear();
    this.#mesh = mesh;
    this.#scene.add(mesh);
    const size = mesh.getBoundingBox(true).getSize(new Vector3()).length();
    return { gaussians, distance: Math.min(50, Math.max(0.2, size * 1.5)) };
  }

  clear() {
    if (!this.#mesh) return;
    this.#scene.remove(this.#mesh);
    this.#mesh.dispose();
    this.#mesh = null;
    this.#renderer.clear();
  }

  /** Whether the picture is as large as a canvas of this size has it. */
  fits(width, height) {
    return this.#size[0] === width && this.#size[1] === height;
  }

  size(width, height, ratio) {
    const wanted = [width, height, ratio];
    if (wanted.every((value, at) => value === this.#size[at])) return;
    this.#size = wanted;
    this.#renderer.setPixelRatio(ratio);
    this.#renderer.setSize(width, height, false);
    this.#camera.aspect = width / Math.max(1, height);
    this.#camera.updateProjectionMatrix();
  }

  /** Draw the asset from an angle (radians) and a distance. */
  draw(yaw, pitch, distance) {
    this.#camera.position.set(
      Math.sin(yaw) * Math.cos(pitch) * distance, Math.sin(pitch) * distance,
      Math.cos(yaw) * Math.cos(pitch) * distance,
    );
    this.#camera.lookAt(0, 0, 0);
    this.#renderer.render(this.#scene, this.#camera);
    const gl = this.#renderer.getContext();
    this.#fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
  }
}
