/** Small helpers. Text of others only ever becomes text nodes, never markup. */

export const at = (id) => document.getElementById(id);

/** An element with attributes and children; a string becomes a text node. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Replace an element's children only where they differ, so that focus and selection stay. */
export function fill(element, children) {
  const now = make(element.tagName, {}, ...children);
  if (now.innerHTML !== element.innerHTML) element.replaceChildren(...now.childNodes);
}

export const setText = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

export const percent = (share) => (share == null ? "-" : `${Math.round(share * 100)} %`);
export const count = (number) => (number == null ? "-" : Math.round(number).toLocaleString("en"));
export const seconds = (value) => (value == null ? "-" : `${value.toFixed(value < 10 ? 1 : 0)} s`);

/** How long ago, in words. */
export function ago(then, now) {
  const passed = Math.max(0, now - then);
  if (passed < 90) return `${Math.round(passed)} s ago`;
  if (passed < 5400) return `${Math.round(passed / 60)} min ago`;
  return `${Math.round(passed / 3600)} h ago`;
}

export const short = (name) => (name.length > 14 ? `${name.slice(0, 8)}…${name.slice(-4)}` : name);
