// Small helpers over the document. Text only ever becomes text, never markup.

export const $ = (id) => document.getElementById(id);

/** An element with properties, listeners (`onclick`), attributes (`aria-…`, `data-…`, `role`) and children. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && !name.includes("-")) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** One of the drawings at the head of the page. */
export function icon(name) {
  const SVG = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** A button that is a drawing with a word. */
export function action(name, label, onclick) {
  return el("button", { type: "button", className: "quiet", onclick }, icon(name), label);
}

/** Says something to those who do not see it happen. */
export function announce(text) {
  $("announcer").textContent = text;
}

/** Copies, and says so on the button. */
export async function copy(text, button) {
  const label = button.lastChild;
  const before = label.textContent;
  let outcome = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Browsers give the clipboard to secure contexts only, and to those that are allowed.
    outcome = "Not allowed";
  }
  label.textContent = outcome;
  announce(outcome);
  setTimeout(() => { label.textContent = before; }, 1500);
}

/** A text field as high as its text. */
export function growing(area) {
  const fit = () => {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 2}px`;
  };
  area.addEventListener("input", fit);
  new ResizeObserver(fit).observe(area.parentElement);
  return fit;
}

/** Puts a text into a field as if it were typed. */
export function fill(field, text) {
  field.value = text;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}
