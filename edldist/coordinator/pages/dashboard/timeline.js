// What happened: marks on lanes under the charts, and the same as a list.

import { drawn, element } from "./dom.js";
import { clock } from "./format.js";
import { TimeScale } from "./scale.js";

const LANES = { workers: "workers", students: "students", checkpoints: "checkpoints", other: "job" };
const LANE_PX = 26;
const LEFT = 92;
const RIGHT = 12;
const BOTTOM = 22;
const MOST_LISTED = 300;

/** Which lane an event belongs to. */
export function laneOf(event) {
  if (event.startsWith("teacher_") || event.startsWith("labels_")) return "workers";
  if (event.startsWith("student_") || event === "node_ended") return "students";
  return event.startsWith("checkpoint_") ? "checkpoints" : "other";
}

/** A shape for each kind, so that colours are not all that tells them apart. */
function shapeOf(happening, x, y) {
  const { event, tone } = happening;
  const path = (d) => drawn("path", { d, class: `event ${tone}` });
  if (/_(joined|back|readmitted)$/.test(event)) return path(`M${x - 5} ${y + 4}L${x} ${y - 5}L${x + 5} ${y + 4}Z`);
  if (/_(left|ended)$/.test(event)) return path(`M${x - 5} ${y - 4}L${x} ${y + 5}L${x + 5} ${y - 4}Z`);
  if (tone === "bad") return drawn("path", { d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8`, class: `event cross ${tone}` });
  if (event === "scaled") return path(`M${x} ${y - 5}l5 5l-5 5l-5 -5Z`);
  if (event === "coordinator_started" || event === "keys_changed") return drawn("rect", { x: x - 4, y: y - 4, width: 8, height: 8, class: `event ${tone}` });
  return drawn("circle", { cx: x, cy: y, r: event === "checkpoint_saved" ? 3 : 4.5, class: `event ${tone}` });
}

export class Timeline {
  constructor(moved) {
    this.moved = moved;
    this.picture = element("div", { class: "picture", role: "img", "aria-label": "Events" });
    this.root = element("figure", { class: "chart wide" },
      element("figcaption", {}, element("h3", {}, "Events"), element("ul", { class: "legend", "aria-hidden": "true" },
        ...[["▲", "came", "good"], ["▼", "left", "quiet"], ["✕", "lost or failed, as the red lines above", "bad"], ["●", "checkpoint", "good"], ["◆", "scaled", "quiet"], ["■", "coordinator", "quiet"]]
          .map(([sign, word, tone]) => element("li", {}, element("span", { class: `sign ${tone}` }, sign), word)))),
      this.picture);
    this.picture.addEventListener("pointermove", (event) => {
      if (!this.scale) return;
      const box = this.picture.getBoundingClientRect();
      this.moved(this.scale.t((event.clientX - box.left) * (this.width / box.width)));
    });
    this.picture.addEventListener("pointerleave", () => this.moved(null));
  }

  show({ happenings, rows, from, to }) {
    this.width = Math.max(220, this.picture.clientWidth || 480);
    const lanes = Object.keys(LANES);
    const height = lanes.length * LANE_PX + BOTTOM;
    this.scale = new TimeScale(rows, from, to, LEFT, this.width - RIGHT);
    const parts = lanes.flatMap((lane, i) => {
      const y = i * LANE_PX + LANE_PX / 2;
      return [drawn("line", { x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y, class: "grid" }),
        drawn("text", { x: LEFT - 10, y: y + 4, class: "label end" }, LANES[lane])];
    });
    const ticks = this.scale.ticks(90);
    for (const t of ticks.times) {
      const x = this.scale.x(t);
      if (x < LEFT + 18 || x > this.width - RIGHT - 18) continue;
      parts.push(drawn("text", { x, y: height - 6, class: "label middle" }, clock(t, to - from, ticks.step < 60)));
    }
    const seen = happenings.filter((each) => each.t >= from && each.t <= to);
    for (const each of seen) {
      const y = lanes.indexOf(laneOf(each.event)) * LANE_PX + LANE_PX / 2;
      const shape = shapeOf(each, Math.round(this.scale.x(each.t) * 10) / 10, y);
      shape.append(drawn("title", {}, `${clock(each.t, to - from)} ${each.text}`));
      parts.push(shape);
    }
    this.hair = drawn("line", { y1: 0, y2: lanes.length * LANE_PX, class: "hair", visibility: "hidden" });
    this.picture.replaceChildren(drawn("svg", {
      viewBox: `0 0 ${this.width} ${height}`, width: this.width, height, "aria-hidden": "true", focusable: "false",
    }, ...parts, this.hair));
    const bad = seen.filter((each) => each.tone === "bad").length;
    const said = `${seen.length} events from ${clock(from, to - from)} to ${clock(to, to - from)}, ${bad} of them trouble; the list below has them in words`;
    if (this.picture.getAttribute("aria-label") !== said) this.picture.setAttribute("aria-label", said);
  }

  cursor(t) {
    if (!this.hair) return;
    this.hair.setAttribute("visibility", t === null ? "hidden" : "visible");
    if (t === null) return;
    const x = this.scale.x(t);
    this.hair.setAttribute("x1", x);
    this.hair.setAttribute("x2", x);
  }
}

/** The list: the latest first, as many as a person reads. */
export function list(target, happenings, shown) {
  const wanted = (each) => shown === "all" || (shown === "bad" ? each.tone === "bad" || each.tone === "wait" : laneOf(each.event) === shown);
  const chosen = happenings.filter(wanted).slice(-MOST_LISTED).reverse();
  const key = `${shown} ${happenings.length} ${chosen.length ? chosen[0].t : 0}`;
  if (target.dataset.key === key) return;
  target.dataset.key = key;
  const span = happenings.length ? happenings[happenings.length - 1].t - happenings[0].t : 0;
  target.replaceChildren(...chosen.map((each) => element("li", { class: each.tone },
    element("time", { datetime: new Date(each.t * 1000).toISOString() }, clock(each.t, span)),
    element("span", { class: "dot", "aria-hidden": "true" }), element("span", { class: "words" }, each.text))));
  if (!chosen.length) target.append(element("li", { class: "quiet" }, "nothing of that kind"));
}
