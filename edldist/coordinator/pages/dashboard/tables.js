// Who is here: tables that are sorted by their headings.

import { element } from "./dom.js";
import { counted, duration, rate, share, whole } from "./format.js";

const MOST_ROWS = 500;

const stat = (member, name) => {
  const value = member.stats[name];
  return typeof value === "number" ? value : null;
};
const chip = (member) => element("span", { class: `chip ${member.tone}` }, member.state);

function meter(value, most, words) {
  if (value === null) return "-";
  const full = most > 0 ? Math.min(1, value / most) : 0;
  const track = element("span", { class: "meter", "aria-hidden": "true" }, element("span", {}));
  track.firstChild.style.width = `${(100 * full).toFixed(0)}%`;
  return element("span", { class: "metered" }, track, words);
}

/** {heading, of: (member) => what sorts it, cell: (member) => what is shown, text: whether it is words}. */
export const WORKERS = [
  { heading: "worker", of: (m) => m.id, text: true, head: true },
  { heading: "teacher", of: (m) => m.group, text: true },
  { heading: "state", of: (m) => m.state, cell: chip, text: true },
  { heading: "samples/s", of: (m) => m.samples_per_s, cell: (m) => rate(m.samples_per_s) },
  { heading: "share", of: (m) => m.share, cell: (m) => meter(m.share, 1, share(m.share)) },
  { heading: "samples", of: (m) => stat(m, "samples"), cell: (m) => whole(stat(m, "samples")) },
  { heading: "held", of: (m) => stat(m, "held"), cell: (m) => whole(stat(m, "held")), title: "samples in its hands" },
  { heading: "serves", of: (m) => m.links.length, cell: (m) => whole(m.links.length), title: "student ranks" },
  { heading: "device", of: (m) => String(m.info.device ?? m.stats.device ?? "-"), text: true },
  { heading: "host", of: (m) => m.host, text: true },
  { heading: "up", of: (m) => m.joined_s, cell: (m) => duration(m.joined_s) },
];

export const STUDENTS = [
  { heading: "rank", of: (m) => (typeof m.info.rank === "number" ? m.info.rank : -1), cell: (m) => String(m.info.rank ?? "-"), head: true },
  { heading: "state", of: (m) => m.state, cell: chip, text: true },
  { heading: "samples/s", of: (m) => m.samples_per_s, cell: (m) => rate(m.samples_per_s) },
  { heading: "buffer", of: (m) => stat(m, "buffered"), cell: (m) => meter(stat(m, "buffered"), m.high_watermark || stat(m, "buffered") || 1, counted(stat(m, "buffered") ?? 0, "batch").replace("batchs", "batches")) },
  { heading: "starved", of: (m) => stat(m, "starved_s"), cell: (m) => (stat(m, "starved_s") === null ? "-" : `${stat(m, "starved_s").toFixed(1)} s`), title: "time that its loop waited for labels" },
  { heading: "buffer full", of: (m) => stat(m, "backpressure_s"), cell: (m) => (stat(m, "backpressure_s") === null ? "-" : `${stat(m, "backpressure_s").toFixed(1)} s`), title: "time that its queue was full" },
  { heading: "batches", of: (m) => stat(m, "batches"), cell: (m) => whole(stat(m, "batches")) },
  { heading: "workers", of: (m) => stat(m, "teachers"), cell: (m) => whole(stat(m, "teachers")), title: "that are connected" },
  { heading: "host", of: (m) => m.host, text: true },
  { heading: "up", of: (m) => m.joined_s, cell: (m) => duration(m.joined_s) },
];

export class MemberTable {
  constructor(table, caption, columns, none) {
    this.table = table;
    this.columns = columns;
    this.none = none;
    this.by = 0;
    this.falling = false;
    this.members = [];
    this.buttons = columns.map((column, i) => {
      const button = element("button", { type: "button", title: column.title }, column.heading);
      button.addEventListener("click", () => this.#sort(i));
      return button;
    });
    this.heads = columns.map((column, i) => element("th", { scope: "col", class: column.text || column.head ? "text" : null }, this.buttons[i]));
    this.body = element("tbody");
    table.replaceChildren(element("caption", { class: "unseen" }, `${caption}; the headings sort it`),
      element("thead", {}, element("tr", {}, ...this.heads)), this.body);
  }

  show(members) {
    this.members = members;
    this.#draw();
  }

  #sort(i) {
    this.falling = i === this.by ? !this.falling : !this.columns[i].text;
    this.by = i;
    this.#draw();
  }

  #draw() {
    const { of } = this.columns[this.by];
    const order = (a, b) => {
      const [x, y] = [of(a), of(b)];
      if (x === y) return a.id < b.id ? -1 : 1;
      if (x === null || x === undefined) return 1;
      if (y === null || y === undefined) return -1;
      const less = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
      return this.falling ? -less : less;
    };
    const rows = [...this.members].sort(order);
    this.heads.forEach((head, i) => {
      if (i === this.by) head.setAttribute("aria-sort", this.falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    this.body.replaceChildren(...rows.slice(0, MOST_ROWS).flatMap((member) => this.#rows(member)));
    const left = rows.length - MOST_ROWS;
    if (!rows.length || left > 0) {
      this.body.append(element("tr", {}, element("td", { colspan: this.columns.length, class: "text quiet" },
        rows.length ? `and ${left} more` : this.none)));
    }
  }

  #rows(member) {
    const cells = this.columns.map((column) => {
      const content = column.cell ? column.cell(member) : String(column.of(member));
      const attributes = { class: column.text ? "text" : null };
      return column.head ? element("th", { ...attributes, scope: "row" }, content) : element("td", attributes, content);
    });
    const row = element("tr", {}, ...cells);
    if (!member.notes.length) return [row];
    return [row, element("tr", { class: "note" }, element("td", { colspan: this.columns.length, class: "text" }, member.notes.join("; ")))];
  }
}
