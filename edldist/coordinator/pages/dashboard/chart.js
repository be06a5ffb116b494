// One chart: lines over time as SVG, with a cursor for mouse and keys, words for who does not see it, and a table.

import { drawn, element, say } from "./dom.js";
import { clock, whole } from "./format.js";
import { TimeScale, levels } from "./scale.js";

const HEIGHT = 190;
const LEFT = 52;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 24;
const BREAK_STEPS = 2.6; // a line is broken where so many rows would have fitted
const TABLE_ROWS = 40;

/**
 * A series: {name, points: [{t, step, value}], style: number, dashed, stepped, faint}.
 * What to show: {series, rows, from, to, marks: [{t, tone}], format, axis, fromZero, top}.
 */
export class Chart {
  constructor(title, unit, moved) {
    this.shown = null;
    this.moved = moved;
    this.at = null;
    this.heading = element("h3", {}, title, unit ? element("small", {}, ` ${unit}`) : null);
    this.title = title;
    this.legend = element("ul", { class: "legend", "aria-hidden": "true" });
    this.picture = element("div", {
      class: "picture", tabindex: "0", role: "img", "aria-describedby": "keys", "aria-label": title,
    });
    this.readout = element("div", { class: "readout", hidden: true });
    this.aloud = element("div", { class: "unseen", "aria-live": "polite" });
    this.table = element("table", {}, element("caption", { class: "unseen" }, title));
    this.details = element("details", {}, element("summary", {}, "as a table"),
      element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, as a table` }, this.table));
    this.root = element("figure", { class: "chart" }, element("figcaption", {}, this.heading, this.legend),
      this.picture, this.readout, this.aloud, this.details);
    this.details.addEventListener("toggle", () => this.#fillTable());
    this.picture.addEventListener("pointermove", (event) => this.#point(event));
    this.picture.addEventListener("pointerleave", () => this.moved(null));
    this.picture.addEventListener("blur", () => this.moved(null));
    this.picture.addEventListener("keydown", (event) => this.#key(event));
  }

  show(shown) {
    this.shown = shown;
    this.width = Math.max(220, this.picture.clientWidth || 480);
    this.scale = new TimeScale(shown.rows, shown.from, shown.to, LEFT, this.width - RIGHT);
    this.#drawAll();
    this.#words();
    if (this.details.open) this.#fillTable();
    if (this.at !== null) this.cursor(this.at);
  }

  /** Mark a moment, as all charts do when one of them is pointed at; null for none. */
  cursor(t) {
    this.at = t;
    if (!this.hair) return;
    const none = t === null || t < this.shown.from || t > this.shown.to;
    this.hair.setAttribute("visibility", none ? "hidden" : "visible");
    this.readout.hidden = none;
    this.dots.replaceChildren();
    if (none) return;
    const x = this.scale.x(t);
    this.hair.setAttribute("x1", x);
    this.hair.setAttribute("x2", x);
    const parts = [];
    for (const series of this.shown.series) {
      const point = near(series.points, t);
      if (!point || point.value === null) continue;
      this.dots.append(drawn("circle", { cx: x, cy: this.#y(point.value), r: 3.5, class: `s${series.style}` }));
      const step = point.at === undefined || point.at === null ? "" : ` (step ${whole(Math.round(point.at))})`;
      parts.push(element("span", { class: `key s${series.style}` }, `${series.name} ${this.shown.format(point.value)}${step}`));
    }
    this.readout.replaceChildren(element("time", {}, clock(t, this.shown.to - this.shown.from)), ...parts);
    this.readout.classList.toggle("left", x > this.width / 2);
    if (document.activeElement === this.picture) say(this.aloud, this.readout.innerText.replaceAll("\n", ", "));
  }

  #y(value) {
    const { low, high } = this.levels;
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low));
  }

  #drawAll() {
    const { series, from, to, marks, axis, fromZero, top } = this.shown;
    const values = series.flatMap((each) => each.points.filter((p) => p.t >= from && p.value !== null).map((p) => p.value));
    const least = values.reduce((a, b) => Math.min(a, b), Infinity);
    const most = values.reduce((a, b) => Math.max(a, b), -Infinity);
    this.levels = levels(least, Math.max(most, top ?? -Infinity), 4, fromZero);
    const bottom = HEIGHT - BOTTOM;
    const parts = [];
    for (const tick of this.levels.ticks) {
      const y = this.#y(tick);
      parts.push(drawn("line", { x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y, class: "grid" }));
      parts.push(drawn("text", { x: LEFT - 6, y: y + 4, class: "label end" }, axis(tick)));
    }
    const ticks = this.scale.ticks(90);
    for (const t of ticks.times) {
      const x = this.scale.x(t);
      if (x < LEFT + 18 || x > this.width - RIGHT - 18) continue;
      parts.push(drawn("line", { x1: x, x2: x, y1: bottom, y2: bottom + 4, class: "axis" }));
      parts.push(drawn("text", { x, y: HEIGHT - 6, class: "label middle" }, clock(t, to - from, ticks.step < 60)));
    }
    parts.push(drawn("line", { x1: LEFT, x2: this.width - RIGHT, y1: bottom, y2: bottom, class: "axis" }));
    for (const [begin] of this.scale.gaps) {
      const x = this.scale.x(begin);
      parts.push(drawn("rect", { x: x + 1, y: TOP, width: 16, height: bottom - TOP, class: "pause" }));
    }
    for (const mark of marks) {
      if (mark.t < from || mark.t > to) continue;
      const x = this.scale.x(mark.t);
      parts.push(drawn("line", { x1: x, x2: x, y1: TOP, y2: bottom, class: `mark ${mark.tone}` }));
    }
    for (const each of series) parts.push(...this.#line(each));
    this.hair = drawn("line", { y1: TOP, y2: bottom, class: "hair", visibility: "hidden" });
    this.dots = drawn("g", {});
    if (!values.length) parts.push(drawn("text", { x: (LEFT + this.width) / 2, y: HEIGHT / 2, class: "label middle" }, "nothing yet"));
    this.picture.replaceChildren(drawn("svg", {
      viewBox: `0 0 ${this.width} ${HEIGHT}`, width: this.width, height: HEIGHT, "aria-hidden": "true", focusable: "false",
    }, ...parts, this.hair, this.dots));
    this.legend.replaceChildren(...(series.length > 1 ? series : []).map((each) =>
      element("li", { class: `key s${each.style}${each.dashed ? " dashed" : ""}` }, each.name)));
  }

  #line(series) {
    const { from } = this.shown;
    let path = "";
    let before = null;
    let lonely = null;
    const points = series.points;
    const parts = [];
    for (let i = 0; i < points.length; i += 1) {
      const point = points[i];
      if (point.t < from) continue;
      if (point.value === null) {
        if (!point.step) before = null; // a figure that was no number; a row may lack one that is not known yet
        continue;
      }
      const x = round(this.scale.x(point.t));
      const y = round(this.#y(point.value));
      const together = before !== null && (!point.step || point.t - before.t <= BREAK_STEPS * Math.max(point.step, before.step))
        && !this.scale.gaps.some(([begin, end]) => before.t <= begin + 1e-3 && point.t >= end);
      if (!together) {
        if (lonely) parts.push(drawn("circle", { ...lonely, r: 1.8, class: `dot s${series.style}` }));
        path += `M${x} ${y}`;
        lonely = { cx: x, cy: y };
      } else {
        path += series.stepped ? `H${x}V${y}` : `L${x} ${y}`;
        lonely = null;
      }
      before = point;
    }
    if (lonely) parts.push(drawn("circle", { ...lonely, r: 2.5, class: `dot s${series.style}` }));
    parts.unshift(drawn("path", { d: path || "M0 0", class: `line s${series.style}${series.dashed ? " dashed" : ""}${series.faint ? " faint" : ""}` }));
    return parts;
  }

  /** What the picture shows, in words. */
  #words() {
    const { series, from, to, format } = this.shown;
    const said = series.map((each) => {
      const values = each.points.filter((p) => p.t >= from && p.value !== null).map((p) => p.value);
      if (!values.length) return `${each.name}: nothing yet`;
      const least = values.reduce((a, b) => Math.min(a, b));
      const most = values.reduce((a, b) => Math.max(a, b));
      return `${each.name}: now ${format(values[values.length - 1])}, least ${format(least)}, most ${format(most)}`;
    });
    const span = `${clock(from, to - from)} to ${clock(to, to - from)}`;
    const text = `${this.title}, ${span}. ${said.join(". ")}`;
    if (this.picture.getAttribute("aria-label") !== text) this.picture.setAttribute("aria-label", text);
  }

  #fillTable() {
    if (!this.details.open || !this.shown) return;
    const { series, from, to, format } = this.shown;
    const times = [...new Set(series.flatMap((each) => each.points.filter((p) => p.t >= from).map((p) => p.t)))].sort((a, b) => a - b);
    const every = Math.max(1, Math.ceil(times.length / TABLE_ROWS));
    const chosen = times.filter((_, i) => (times.length - 1 - i) % every === 0).reverse();
    this.table.replaceChildren(this.table.caption,
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "time"),
        ...series.map((each) => element("th", { scope: "col" }, each.name)))),
      element("tbody", {}, ...chosen.map((t) => element("tr", {}, element("th", { scope: "row" }, clock(t, to - from)),
        ...series.map((each) => {
          const point = near(each.points, t);
          return element("td", {}, point && point.value !== null ? format(point.value) : "-");
        })))));
  }

  #point(event) {
    if (!this.scale) return;
    const box = this.picture.getBoundingClientRect();
    const x = (event.clientX - box.left) * (this.width / box.width);
    this.moved(Math.min(Math.max(this.scale.t(x), this.shown.from), this.shown.to));
  }

  #key(event) {
    if (!this.shown) return;
    const { from, to } = this.shown;
    const at = this.at ?? to;
    const stride = (to - from) / (event.shiftKey ? 10 : 60);
    const targets = { ArrowLeft: at - stride, ArrowRight: at + stride, Home: from, End: to, Escape: null };
    if (!(event.key in targets)) return;
    event.preventDefault();
    const t = targets[event.key];
    this.moved(t === null ? null : Math.min(Math.max(t, from), to));
  }
}

/** The last point that is not after a moment. */
export function near(points, t) {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].t <= t + 1e-6) low = middle + 1;
    else high = middle;
  }
  return points[low - 1] ?? null;
}

function round(value) {
  return Math.round(value * 10) / 10;
}
