// The course of a run, put together of what /history tells: all of it once, then what is new.
// Bounded as the coordinator's: rows older than ten minutes are those of the whole run.

const RECENT_S = 600;
export const STUDENTS = ["samples_per_s", "students", "buffered", "starved", "backpressure"];
export const GROUPS = ["samples_per_s", "workers", "wanted"];

/** Rows {t, step, values} of a course, where values has "name" and "group\0name". */
function rows(course) {
  const columns = STUDENTS.map((name) => [name, course[name]]);
  for (const [group, told] of Object.entries(course.groups)) {
    for (const name of GROUPS) columns.push([`${group}\0${name}`, told[name]]);
  }
  return course.t.map((t, i) => {
    const values = {};
    for (const [name, column] of columns) if (column[i] !== null && column[i] !== undefined) values[name] = column[i];
    return { t, step: course.step_s, values };
  });
}

export class Course {
  constructor() {
    this.incarnation = null;
    this.since = 0;
    this.began = null;
    this.whole = [];
    this.recent = [];
    this.figures = new Map();
    this.progress = [];
    this.happenings = [];
  }

  /** Take in an answer of /history; whether it is of another life of the coordinator than the one before. */
  take(answer) {
    const restarted = this.incarnation !== null && answer.incarnation !== this.incarnation;
    this.incarnation = answer.incarnation;
    if (answer.whole !== null) this.#begin(answer);
    else this.#go(answer);
    this.since = answer.wall_s;
    this.progress = answer.progress;
    return restarted;
  }

  /** A coordinator that was told nothing by the one before knows less than this page: that is kept. */
  #begin(answer) {
    const fresh = this.began !== null && answer.began_s > this.since;
    const before = (list) => (fresh ? list.filter((each) => each.t < answer.began_s) : []);
    const whole = before(this.rows("whole"));
    const recent = before(this.recent);
    const happenings = before(this.happenings);
    const figures = fresh ? this.figures : new Map();
    this.began = fresh ? this.began : answer.began_s;
    this.whole = [...whole, ...rows(answer.whole)];
    this.recent = [...recent, ...rows(answer.recent)];
    this.happenings = [...happenings, ...answer.happenings];
    this.figures = new Map();
    for (const [key, known] of figures) this.figures.set(key, known);
    this.#figures(answer);
  }

  #go(answer) {
    this.recent.push(...rows(answer.recent));
    const oldest = answer.wall_s - RECENT_S;
    const first = this.recent.findIndex((row) => row.t >= oldest);
    if (first > 0) this.recent.splice(0, first);
    this.happenings.push(...answer.happenings);
    this.#figures(answer);
  }

  #figures(answer) {
    for (const told of answer.figures) {
      const key = `${told.job}\0${told.name}`;
      const known = this.figures.get(key) ?? { job: told.job, name: told.name, kind: told.kind, points: [] };
      for (let i = 0; i < told.t.length; i += 1) {
        known.points.push({ t: told.t[i], step: told.step[i], value: told.value[i] });
      }
      known.last = told.last;
      known.every = told.every;
      this.figures.set(key, known);
    }
  }

  /** The rows to draw: of the last minutes, or of the whole run with the last minutes in detail. */
  rows(range) {
    if (range === "recent" || this.whole.length === 0) return this.recent;
    const detailed = this.recent.length > 0 ? this.recent[0].t : Infinity;
    return [...this.whole.filter((row) => row.t < detailed), ...this.recent];
  }

  /** Names of the teacher groups of some rows. */
  groups(found) {
    const names = new Set();
    for (const row of found) for (const key of Object.keys(row.values)) {
      const cut = key.indexOf("\0");
      if (cut > 0) names.add(key.slice(0, cut));
    }
    return [...names].sort();
  }
}
