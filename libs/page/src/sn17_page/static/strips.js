/**
 * A worker that draws pictures of one turn around an asset, side by side, from what the gateway serves as "view".
 * It needs no graphics card: a list of 200 assets holds no GPU objects, and the page itself never waits for it.
 */

const FRAMES = 8;
const SIDE = 128;
const PITCH = 0.3;
const FOCAL = SIDE / 2 / Math.tan((20 * Math.PI) / 180);
/** Of more gaussians every second, third... is drawn, larger. */
const MAX_DRAWN = 60_000;
const MAGIC = 0x5053474e;
const HEADER_BYTES = 16;
/** Bytes of one gaussian in the arrays that follow the header, before its harmonics. */
const BYTES = 19;
const DEPTHS = 1024;
const OPAQUE = 0.03;

onmessage = async ({ data: bytes }) => {
  try {
    postMessage(await draw(cloud(await inflate(bytes))));
  } catch {
    postMessage(null);
  }
};

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Positions, colours (0 to 1), opacities and radii of the gaussians, and a good distance. */
function cloud(payload) {
  const header = new DataView(payload.buffer);
  const total = header.getUint32(8, true);
  if (header.getUint32(0, true) !== MAGIC || payload.length < HEADER_BYTES + total * BYTES) throw new Error("no SPZ");
  const step = Math.ceil(total / MAX_DRAWN);
  const count = Math.floor(total / step);
  const unit = 2 ** -header.getUint8(13);
  const [alphas, colors, scales] = [9, 10, 13].map((offset) => HEADER_BYTES + total * offset);
  const found = {
    count, positions: new Float32Array(3 * count), colors: new Float32Array(3 * count),
    opacities: new Float32Array(count), radii: new Float32Array(count), distance: 2,
  };
  const lengths = new Float32Array(count);
  for (let i = 0; i < count; i += 1) {
    const from = i * step;
    let square = 0;
    for (let axis = 0; axis < 3; axis += 1) {
      const at = HEADER_BYTES + 3 * (3 * from + axis);
      const fixed = ((payload[at] << 8) | (payload[at + 1] << 16) | (payload[at + 2] << 24)) >> 8;
      found.positions[3 * i + axis] = fixed * unit;
      square += (fixed * unit) ** 2;
      const color = 0.5 + 0.2820948 * ((payload[colors + 3 * from + axis] / 255 - 0.5) / 0.15);
      found.colors[3 * i + axis] = Math.min(1, Math.max(0, color));
    }
    lengths[i] = Math.sqrt(square);
    found.opacities[i] = payload[alphas + from] / 255;
    found.radii[i] = radius(payload, scales + 3 * from) * Math.sqrt(step);
  }
  // A few strays far away do not make the rest small.
  found.distance = Math.min(50, Math.max(0.2, 3 * lengths.sort()[Math.floor(0.99 * (count - 1))]));
  return found;
}

/** Of a sphere that covers about as much as the gaussian does: its two larger half-axes. */
function radius(payload, at) {
  const [a, b, c] = [payload[at], payload[at + 1], payload[at + 2]];
  return Math.exp((a + b + c - Math.min(a, b, c)) / 32 - 10);
}

async function draw(found) {
  const target = new OffscreenCanvas(SIDE * FRAMES, SIDE);
  const context = target.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  for (let frame = 0; frame < FRAMES; frame += 1) {
    paint(found, (frame / FRAMES) * 2 * Math.PI, image.data);
    context.putImageData(image, frame * SIDE, 0);
  }
  return target.convertToBlob({ type: "image/webp", quality: 0.8 });
}

/** Fill `pixels` (RGBA) with the view from `yaw`, nearest gaussians first. */
function paint(found, yaw, pixels) {
  const { count, positions, distance } = found;
  const [sin, cos, up, flat] = [Math.sin(yaw), Math.cos(yaw), Math.sin(PITCH), Math.cos(PITCH)];
  const seen = new Float32Array(3 * count);
  for (let i = 0; i < count; i += 1) {
    const [x, y, z] = [positions[3 * i], positions[3 * i + 1], positions[3 * i + 2]];
    const toward = sin * x + cos * z;
    const depth = distance - (flat * toward + up * y);
    seen[3 * i] = SIDE / 2 + (FOCAL * (cos * x - sin * z)) / depth;
    seen[3 * i + 1] = SIDE / 2 - (FOCAL * (flat * y - up * toward)) / depth;
    seen[3 * i + 2] = depth;
  }
  const light = new Float32Array(SIDE * SIDE).fill(1);
  const sums = new Float32Array(3 * SIDE * SIDE);
  for (const i of byDepth(seen, count, distance)) {
    if (seen[3 * i + 2] > 0.01) splat(found, i, seen, light, sums);
  }
  for (let at = 0; at < SIDE * SIDE; at += 1) {
    const covered = 1 - light[at];
    for (let c = 0; c < 3; c += 1) pixels[4 * at + c] = covered ? (255 * sums[3 * at + c]) / covered : 0;
    pixels[4 * at + 3] = 255 * covered;
  }
}

/** Indices from near to far, by counting. */
function byDepth(seen, count, distance) {
  const bin = (i) => Math.min(DEPTHS - 1, Math.max(0, ((seen[3 * i + 2] / distance) * DEPTHS) >> 1));
  const starts = new Uint32Array(DEPTHS + 1);
  for (let i = 0; i < count; i += 1) starts[bin(i) + 1] += 1;
  for (let at = 0; at < DEPTHS; at += 1) starts[at + 1] += starts[at];
  const order = new Uint32Array(count);
  for (let i = 0; i < count; i += 1) order[starts[bin(i)]++] = i;
  return order;
}

/** Add one gaussian to the pixels that still let light through. */
function splat({ colors, opacities, radii }, i, seen, light, sums) {
  const [x, y] = [seen[3 * i], seen[3 * i + 1]];
  const sigma = Math.max(0.4, (FOCAL * radii[i]) / seen[3 * i + 2]);
  const reach = Math.min(SIDE, 2 * sigma);
  const [left, right] = [Math.max(0, Math.ceil(x - reach)), Math.min(SIDE - 1, Math.floor(x + reach))];
  const [top, bottom] = [Math.max(0, Math.ceil(y - reach)), Math.min(SIDE - 1, Math.floor(y + reach))];
  for (let row = top; row <= bottom; row += 1) {
    for (let column = left; column <= right; column += 1) {
      const at = row * SIDE + column;
      if (light[at] < OPAQUE) continue;
      const alpha = opacities[i] * Math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * sigma * sigma));
      const share = light[at] * alpha;
      for (let c = 0; c < 3; c += 1) sums[3 * at + c] += share * colors[3 * i + c];
      light[at] -= share;
    }
  }
}
