// The page: asks /status and /history again and again, and shows what they tell.

import { Chart } from "./chart.js";
import { Course } from "./course.js";
import { byId, element, say } from "./dom.js";
import { counted, duration, number, rate, share, whole } from "./format.js";
import { MemberTable, STUDENTS, WORKERS } from "./tables.js";
import { Timeline, list } from "./timeline.js";

const EVERY_MS = 1000;
const BUSY = 10; // answers may take a tenth of the time
const ANEW_S = 60; // all of the history is asked for again, in the coordinator's steps
const PATIENCE_MS = 8000;
const RECENT_S = 600;
const LEAST_SPAN_S = 30;
const MOST_FIGURES = 12;
const STALE_S = 3;
const LINKS = { sealed: "good", local: "quiet", insecure: "bad" };

const course = new Course();
const charts = new Map();
let answered = null; // when, in this page's time
let complete = -Infinity;
let status = null;
let range = "whole";
let told = ""; // the last state of the connection that was said
let unseenHappenings = null;

const move = (t) => {
  for (const { chart } of charts.values()) chart.cursor(t);
  timeline.cursor(t);
};
const timeline = new Timeline(move);
byId("timeline").append(timeline.root);
const workers = new MemberTable(byId("workers"), "Teacher workers", WORKERS, "no worker is here");
const students = new MemberTable(byId("students"), "Student ranks", STUDENTS, "no student rank is here");

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw new Error(`${path} answers ${answer.status}`);
  return answer.json();
}

async function look() {
  const now = performance.now();
  const all = course.incarnation === null || now - complete > ANEW_S * 1000;
  const [state, first] = await Promise.all([ask("status"), ask(all ? "history" : `history?since=${course.since}`)]);
  let news = first;
  let anew = all;
  if (!all && news.incarnation !== course.incarnation) {
    news = await ask("history"); // another life, with steps of its own
    anew = true;
  }
  if (anew) complete = now;
  status = state;
  course.take(news);
  answered = performance.now();
}

async function turn() {
  const began = performance.now();
  try {
    await look();
  } catch (error) {
    console.debug(`edldist: ${error.message}`);
  }
  if (!document.hidden) show();
  setTimeout(turn, Math.max(EVERY_MS, BUSY * (performance.now() - began)));
}

// --- what is shown ---------------------------------------------------------------------------

function show() {
  connection();
  if (status === null || course.incarnation === null) return;
  const rows = course.rows(range);
  const to = course.since;
  const from = Math.min(range === "recent" ? Math.max(to - RECENT_S, firstOf(rows, to)) : firstOf(rows, to), to - LEAST_SPAN_S);
  head(to);
  tiles(rows);
  drawCharts(rows, from, to);
  timeline.show({ happenings: course.happenings, rows, from, to });
  list(byId("events"), course.happenings, byId("shown").value);
  members();
  announce();
}

function firstOf(rows, to) {
  return rows.length ? rows[0].t - rows[0].step : to;
}

function connection() {
  const chip = byId("connection");
  const banner = byId("stale");
  const silentS = answered === null ? Infinity : (performance.now() - answered) / 1000;
  const stale = silentS > STALE_S;
  document.body.classList.toggle("stale", stale && status !== null);
  let word = "live";
  if (stale) word = status === null ? "connecting" : "out of date";
  if (word !== told) {
    told = word;
    chip.className = `chip ${stale ? (status === null ? "quiet" : "bad") : "good"}`;
    say(chip, word);
  }
  banner.hidden = !stale || status === null;
  if (!banner.hidden) {
    const rounded = silentS < 60 ? Math.floor(silentS / 5) * 5 : silentS; // an alert that is not read anew each second
    say(banner, `The coordinator has not answered for ${duration(rounded)}: what is shown is out of date. The job goes on without it, and this page goes on when it is back.`);
  }
}

function head(now) {
  const jobs = [...new Set(status.members.map((m) => m.job).filter(Boolean)), ...course.progress.map((p) => p.job).filter(Boolean)];
  const job = [...new Set(jobs)].join(", ") || "no job yet";
  say(byId("job"), job);
  link();
  const place = course.progress[0];
  byId("progress").hidden = !place || place.step === null;
  const last = lastRow();
  if (place && place.step !== null) {
    const bar = byId("bar");
    bar.max = place.steps ?? Math.max(place.step, 1);
    bar.value = Math.min(place.step, bar.max);
    bar.hidden = place.steps === null;
    const epoch = place.epoch === null ? "" : ` · epoch ${whole(place.epoch)}${place.epochs === null ? "" : ` of ${whole(place.epochs)}`}`;
    say(byId("place"), `step ${whole(place.step)}${place.steps === null ? "" : ` of ${whole(place.steps)}`}${epoch}`);
  }
  say(byId("about"), `${duration(now - course.began)} since it began · this coordinator is up ${duration(status.uptime_s)}`);
  document.title = `${last ? `${rate(last.values.samples_per_s)} samples/s · ` : ""}${job} · edldist`;
}

/** Whether others may take part and listen: as `edldist status` says it. */
function link() {
  const chip = byId("link");
  chip.hidden = !status.link;
  chip.className = `chip ${LINKS[status.link] ?? "quiet"}`;
  chip.title = status.link_words;
  say(chip, status.link === "insecure" ? status.link_words : status.link);
}

function lastRow() {
  return course.recent[course.recent.length - 1] ?? null;
}

function tiles(rows) {
  const last = lastRow()?.values ?? {};
  const here = status.groups.reduce((sum, group) => sum + group.workers, 0);
  const wanted = status.groups.every((group) => group.wanted !== null) ? status.groups.reduce((sum, group) => sum + group.wanted, 0) : null;
  const made = status.groups.map((group) => last[`${group.name}\0samples_per_s`] ?? 0).reduce((a, b) => a + b, 0);
  const loss = figures().find(([kind]) => kind === "loss")?.[1][0];
  const best = rows.reduce((most, row) => Math.max(most, row.values.samples_per_s ?? 0), 0);
  const shown = [
    ["throughput", rate(last.samples_per_s), "samples/s", `at most ${rate(best)}`],
    ["labels made", rate(made), "samples/s", "by all teachers"],
    ["teacher workers", String(here), wanted === null ? "" : `of ${wanted}`, wanted === null ? "here" : "wanted", here < (wanted ?? 0) ? "wait" : ""],
    ["student ranks", number(last.students ?? 0), "", counted(new Set(status.members.filter((m) => m.role === "student").map((m) => m.host)).size, "host")],
    ["buffered", number(last.buffered), last.buffered === undefined ? "" : "batches", "in the emptiest buffer"],
    ["starved", share(last.starved), "", "of the last second", (last.starved ?? 0) > 0.2 ? "wait" : ""],
    ["buffer full", share(last.backpressure), "", "of the last second"],
    ...(loss ? [[loss.name, number(loss.last), "", `after ${counted(loss.points.length * loss.every, "report")}`]] : []),
  ];
  const target = byId("tiles");
  if (target.children.length !== shown.length) {
    target.replaceChildren(...shown.map(() => element("div", {}, element("dt"), element("dd", {}, element("b"), element("span"), element("small")))));
  }
  shown.forEach(([name, value, unit, note, tone], i) => {
    const tile = target.children[i];
    tile.className = tone || "";
    const [figure, of, small] = tile.lastChild.children;
    say(tile.firstChild, name);
    say(figure, value ?? "-");
    say(of, unit ? ` ${unit}` : "");
    say(small, note);
  });
}

/** Reported figures by their kind, losses first. */
function figures() {
  const kinds = new Map();
  for (const figure of course.figures.values()) {
    if (!kinds.has(figure.kind)) kinds.set(figure.kind, []);
    kinds.get(figure.kind).push(figure);
  }
  const first = ["loss", "accuracy"].filter((kind) => kinds.has(kind));
  return [...new Set([...first, ...kinds.keys()])].map((kind) => [kind, kinds.get(kind)]);
}

function points(rows, key) {
  return rows.map((row) => ({ t: row.t, step: row.step, value: row.values[key] ?? null }));
}

function drawCharts(rows, from, to) {
  const groups = course.groups(rows);
  const marks = course.happenings.filter((each) => each.tone === "bad" && each.event !== "teacher_refused");
  const several = (group) => (groups.length > 1 ? ` ${group}` : "");
  const shown = [
    ["throughput", "Throughput", "samples/s", {
      format: (v) => rate(v), axis: (v) => (v < 1000 ? number(v) : rate(v)), fromZero: true, top: 1,
      series: [
        { name: "taken by the students", points: points(rows, "samples_per_s"), style: 0 },
        ...groups.map((group, i) => ({ name: groups.length > 1 ? `made by ${group}` : "made by the teacher", points: points(rows, `${group}\0samples_per_s`), style: 1 + (i % 5), faint: true })),
      ],
    }],
    ["workers", "Teacher workers", "", {
      format: (v) => number(Math.round(v * 10) / 10), axis: (v) => number(v), fromZero: true, top: 2,
      series: groups.flatMap((group, i) => [
        { name: `wanted${several(group)}`, points: points(rows, `${group}\0wanted`), style: i % 6, dashed: true, stepped: true, faint: true },
        { name: `here${several(group)}`, points: points(rows, `${group}\0workers`), style: i % 6, stepped: true },
      ]),
    }],
    ["waiting", "Waiting", "share of time", {
      format: (v) => share(v), axis: (v) => share(v), fromZero: true, top: 1,
      series: [
        { name: "starved: waits for labels", points: points(rows, "starved"), style: 1 },
        { name: "buffer full", points: points(rows, "backpressure"), style: 0 },
      ],
    }],
    ["buffers", "Buffer", "batches, of the rank that has fewest", {
      format: (v) => number(Math.round(v * 10) / 10), axis: (v) => number(v), fromZero: true, top: 2,
      series: [{ name: "labelled batches", points: points(rows, "buffered"), style: 2 }],
    }],
    ...figures().slice(0, MOST_FIGURES).map(([kind, all]) => [`figure ${kind}`, all.length === 1 ? all[0].name : kind, "as reported", {
      format: (v) => number(v), axis: (v) => number(v), fromZero: false,
      series: all.slice(0, 6).map((figure, i) => ({ name: figureName(figure), style: i, points: figurePoints(figure) })),
    }]),
  ];
  const target = byId("charts");
  for (const [key, title, unit, what] of shown) {
    if (!charts.has(key)) {
      const chart = new Chart(title, unit, move);
      charts.set(key, { chart });
      target.append(chart.root);
    }
    charts.get(key).chart.show({ ...what, rows, from, to, marks });
  }
}

function figureName(figure) {
  const jobs = new Set([...course.figures.values()].map((each) => each.job));
  return jobs.size > 1 ? `${figure.job}: ${figure.name}` : figure.name;
}

function figurePoints(figure) {
  return figure.points.map((point) => ({ t: point.t, value: point.value, at: point.step }));
}

function members() {
  const all = status.members;
  const total = new Map();
  for (const member of all) if (member.role === "teacher") total.set(member.group, (total.get(member.group) ?? 0) + (member.samples_per_s ?? 0));
  for (const member of all) {
    const sum = total.get(member.group);
    member.share = member.role === "teacher" && sum > 0 ? (member.samples_per_s ?? 0) / sum : null;
  }
  workers.show(all.filter((member) => member.role === "teacher"));
  students.show(all.filter((member) => member.role === "student"));
}

/** Changes of state, for who does not see the page: what is new since the last look. */
function announce() {
  const latest = course.happenings.length ? course.happenings[course.happenings.length - 1].t : 0;
  if (unseenHappenings !== null && latest > unseenHappenings) {
    const fresh = course.happenings.filter((each) => each.t > unseenHappenings && each.event !== "checkpoint_saved");
    if (fresh.length) say(byId("said"), fresh.slice(-4).map((each) => each.text).join(". "));
  }
  unseenHappenings = latest;
}

for (const input of document.querySelectorAll("input[name=range]")) {
  input.addEventListener("change", () => {
    range = input.value;
    show();
  });
}
byId("shown").addEventListener("change", show);
addEventListener("resize", () => requestAnimationFrame(show));
document.addEventListener("visibilitychange", () => !document.hidden && show());
setInterval(connection, 1000);
turn();
