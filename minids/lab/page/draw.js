"use strict";
// Colours and small drawing helpers that the panels share.

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)").matches;
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (systemDark.matches ? "dark" : "light")) === "dark";

const HUES = [250, 55, 155, 330, 25, 200, 105, 290];

/** An expert's colour: a hue for its group (in V3 a node), paler and stronger within the group; letters are read on all. */
function expertColour(expert, strength = 1) {
  const size = config.n_routed_experts / config.n_group;
  const group = Math.floor(expert / size);
  const place = size > 1 ? (expert % size) / (size - 1) : 0.5;
  const hue = config.n_group > 1 ? HUES[group % HUES.length] + 22 * (place - 0.5) : (360 * expert) / config.n_routed_experts;
  const light = isDark() ? 0.34 + 0.15 * place : 0.93 - 0.16 * place;
  const chroma = isDark() ? 0.06 + 0.05 * place : 0.05 + 0.08 * place;
  return `oklch(${light.toFixed(3)} ${chroma.toFixed(3)} ${hue.toFixed(0)} / ${strength})`;
}

/** The same hue, strong: for lines, rings and bars. */
function groupColour(group) {
  const hue = config.n_group > 1 ? HUES[group % HUES.length] : 250;
  return isDark() ? `oklch(0.74 0.12 ${hue})` : `oklch(0.55 0.14 ${hue})`;
}

/** The expert with the largest gate. */
function firstExpert(route) {
  let best = 0;
  route.gates.forEach((gate, i) => gate > route.gates[best] && (best = i));
  return route.chosen[best];
}

/** Colour of a number with a sign: orange above 0, blue below, at most at ±1. */
function signed(value) {
  const size = Math.min(Math.abs(value), 1);
  const hue = value > 0 ? 55 : 250;
  return isDark()
    ? `oklch(${0.25 + 0.55 * size} ${0.02 + 0.13 * size} ${hue})`
    : `oklch(${0.96 - 0.42 * size} ${0.01 + 0.15 * size} ${hue})`;
}

const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** A picture; `role` is "group" where its parts are controls. */
function svg(width, height, content, label, extra = "", role = "img") {
  return `<svg viewBox="0 0 ${width} ${height}" role="${role}" aria-label="${escaped(label)}" ${extra}>${content}</svg>`;
}

const rect = (x, y, w, h, attributes = "") =>
  `<rect x="${x.toFixed(2)}" y="${y.toFixed(2)}" width="${Math.max(w, 0).toFixed(2)}" height="${Math.max(h, 0).toFixed(2)}" ${attributes}/>`;
const label = (x, y, text, attributes = "") =>
  `<text x="${x.toFixed(2)}" y="${y.toFixed(2)}" ${attributes}>${escaped(text)}</text>`;

/** Set markup only where it is another, so that focus and pointing survive. */
function put(element, markup) {
  if (element.dataset.key === markup) return;
  const focused = element.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  element.dataset.key = markup;
  element.innerHTML = markup;
  if (focused) element.querySelector(`[data-focus="${focused}"]`)?.focus();
}

/** A canvas as sharp as the screen: `draw(context)` in CSS pixels. */
function paint(canvas, width, height, draw) {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  draw(context);
}

const integer = (value) => Math.round(value).toLocaleString("en");
const percent = (value) =>
  value >= 0.1 ? `${(100 * value).toFixed(0)} %` : value >= 0.0005 ? `${(100 * value).toFixed(1)} %` : "< 0.1 %";

/** Bytes for people; 1 GB = 10⁹ bytes. */
function bytes(value) {
  for (const [unit, size] of [
    ["TB", 1e12],
    ["GB", 1e9],
    ["MB", 1e6],
    ["kB", 1e3],
  ]) {
    if (value >= size) return `${(value / size).toPrecision(value / size >= 100 ? 4 : 3)} ${unit}`;
  }
  return `${integer(value)} bytes`;
}

/** Buttons of which one is chosen: arrow keys go round, as in any radio group. */
function radios(container, options, chosen, choose) {
  put(
    container,
    options
      .map(([value, name, attributes = ""]) => {
        const on = String(value) === String(chosen);
        return `<button type="button" role="radio" aria-checked="${on}" tabindex="${on ? 0 : -1}" data-value="${value}" data-focus="${value}" ${attributes}>${name}</button>`;
      })
      .join(""),
  );
  if (container.dataset.wired) return;
  container.dataset.wired = "yes";
  container.addEventListener("click", (event) => {
    const button = event.target.closest("[data-value]");
    if (button) choose(button.dataset.value);
  });
  container.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    const buttons = [...container.querySelectorAll("[data-value]")];
    const at = buttons.indexOf(document.activeElement);
    const next = buttons[(at + by + buttons.length) % buttons.length];
    next.focus();
    choose(next.dataset.value);
  });
}
