/** Requests to the gateway. The key lives in this tab only. */

const KEY = "sn17-key";
let guestKey = null;

export const setGuestKey = (key) => { guestKey = key; };
export const storedKey = () => sessionStorage.getItem(KEY);
export const storeKey = (key) => sessionStorage.setItem(KEY, key);
export const forgetKey = () => sessionStorage.removeItem(KEY);
export const hasKey = () => Boolean(storedKey() ?? guestKey);

/** An answer that is no success: `status`, and a sentence for people. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function request(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = storedKey() ?? guestKey;
  if (key) headers.set("x-api-key", key);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The gateway does not answer.");
  }
  if (!answer.ok) throw new Refused(answer.status, await sentence(answer));
  return answer;
}

async function sentence(answer) {
  const text = (await answer.text()).slice(0, 400);
  try {
    const body = JSON.parse(text);
    const said = body.detail ?? body.message ?? body.error;
    if (typeof said === "string") return said;
  } catch {
    // Not JSON: the text itself is the sentence.
  }
  return text || `The gateway answers ${answer.status}.`;
}

export const session = async () => (await request("/page/v1/session")).json();
export const state = async (limit) => (await request(`/page/v1/state?limit=${limit}`)).json();
export const status = async (id) => (await request(`/get_status?id=${encodeURIComponent(id)}`)).json();

/** The form in which an asset is fetched to be shown, and what the viewer calls it. */
export const shownAs = ({ n }) => (n ? ["view", "spz"] : ["ply", "ply"]);

/** The bytes of an asset: of task `n` of any door (its id tells it from others of that number in the browser's
 * cache), or of the request `id` made on this page. */
export async function asset({ n, task_id, id }, form, signal) {
  const path = n ? `/page/v1/assets/${n}.${form}?task=${encodeURIComponent(task_id)}`
    : `/get_result?id=${encodeURIComponent(id)}&compress=${form === "spz"}`;
  return new Uint8Array(await (await request(path, { signal })).arrayBuffer());
}

/** Ask for an asset; resolves to the task's id. */
export async function ask({ prompt, picture, seed }) {
  const headers = { "x-client-origin": "api" };
  let body;
  if (picture) {
    body = new FormData();
    body.append("image", picture);
    if (seed !== null) body.append("seed", String(seed));
  } else {
    headers["content-type"] = "application/json";
    body = JSON.stringify(seed === null ? { prompt } : { prompt, seed });
  }
  return (await (await request("/add_task", { method: "POST", headers, body })).json()).id;
}

/** Hand bytes to the browser as a file. */
export function save(bytes, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
