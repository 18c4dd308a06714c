"use strict";
// Figures with their units. What isn't known is a dash.

const DASH = "–";
const known = (x) => x !== null && x !== undefined;
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const count = (n) => (known(n) ? whole.format(n) : DASH);

const several = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;

/** [figure, unit] of bytes: three digits. */
function bytes(n) {
  if (!known(n)) return [DASH, ""];
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (Math.abs(n) >= 999.5 && unit + 1 < units.length) [n, unit] = [n / 1024, unit + 1];
  return [unit === 0 || Math.abs(n) >= 99.5 ? n.toFixed(0) : n.toFixed(1), units[unit]];
}

/** [figure, unit] of a time that is measured. */
function seconds(s) {
  if (!known(s)) return [DASH, ""];
  if (s < 10) return [s.toFixed(1), "s"];
  if (s < 120) return [s.toFixed(0), "s"];
  return [lasting(s), ""];
}

/** A time in words: at most two units. */
function lasting(s) {
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let rest = Math.max(0, Math.round(s));
  const first = parts.findIndex(([, size]) => rest >= size);
  if (first < 0) return "0 s";
  return parts.slice(first, first + 2).map(([unit, size]) => {
    const n = Math.floor(rest / size);
    rest -= n * size;
    return n > 0 ? `${n} ${unit}` : "";
  }).filter(Boolean).join(" ");
}

const rate = (n) => (known(n) ? [n < 10 && n > 0 ? n.toFixed(1) : whole.format(n), "rows/s"] : [DASH, ""]);
/** Never 100 before it is done. */
const percent = (fraction) => `${Math.floor(fraction * 100)} %`;
const text = (figure) => figure.filter(Boolean).join("\u00a0");

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minute = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
/** A time of the status: the hour, and the day if it isn't today's. */
function when(rfc3339) {
  const date = new Date(rfc3339);
  if (isNaN(date)) return DASH;
  return date.toDateString() === new Date().toDateString() ? clock.format(date) : day.format(date);
}
const ago = (rfc3339, now) => {
  const age = (now - new Date(rfc3339)) / 1000;
  return age < 60 ? "just now" : `${lasting(age - (age % 60))} ago`;
};

const at = (id) => document.getElementById(id);
/** Writes a text, if it is another one: a screen reader isn't told twice. */
function write(node, value) {
  if (node.textContent !== value) node.textContent = value;
}
function figure(node, [number, unit]) {
  const parts = [number];
  if (unit) {
    const span = document.createElement("span");
    span.className = "unit";
    span.textContent = unit;
    parts.push(span);
  }
  node.replaceChildren(...parts);
}
/** An element with a class and what is in it. */
function element(name, kind, ...content) {
  const node = document.createElement(name);
  if (kind) node.className = kind;
  node.append(...content);
  return node;
}
function meter(node, fraction) {
  const part = Math.min(1, Math.max(0, fraction));
  node.firstElementChild.style.width = `${part * 100}%`;
  node.setAttribute("aria-valuenow", String(Math.floor(part * 100)));
}
