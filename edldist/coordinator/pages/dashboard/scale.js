// Where a moment lies on a chart: times in which nobody looked for long are cut out, and marked.

const CUT_PX = 18;
const WORTH_CUTTING = 0.12; // of the time that is shown
const LEAST_CUT_S = 30;

export class TimeScale {
  /**
   * @param {{t: number, step: number}[]} rows in the order of time
   * @param {number} from, to unix seconds
   * @param {number} left, right where these lie
   */
  constructor(rows, from, to, left, right) {
    this.from = from;
    this.to = Math.max(to, from + 1);
    const gaps = [];
    for (let i = 1; i < rows.length; i += 1) {
      const begin = rows[i - 1].t;
      const end = rows[i].t - rows[i].step;
      if (begin >= from && end - begin > Math.max(LEAST_CUT_S, WORTH_CUTTING * (this.to - from))) gaps.push([begin, end]);
    }
    this.gaps = gaps;
    const cut = gaps.reduce((sum, [begin, end]) => sum + end - begin, 0);
    const perSecond = (right - left - CUT_PX * gaps.length) / (this.to - from - cut);
    this.pieces = [];
    let t = from;
    let x = left;
    for (const [begin, end] of [...gaps, [this.to, this.to]]) {
      this.pieces.push({ t0: t, t1: begin, x0: x, perSecond });
      x += (begin - t) * perSecond + CUT_PX;
      t = end;
    }
    this.perSecond = perSecond;
  }

  x(t) {
    let found = this.pieces[0];
    for (const piece of this.pieces) if (piece.t0 <= t) found = piece;
    return found.x0 + (Math.min(t, found.t1) - found.t0) * found.perSecond;
  }

  t(x) {
    let found = this.pieces[0];
    for (const piece of this.pieces) if (piece.x0 <= x) found = piece;
    return Math.min(found.t0 + (x - found.x0) / found.perSecond, found.t1);
  }

  /** Round moments, not closer than so many pixels, by the clock of this place. */
  ticks(apartPx) {
    const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400];
    const least = apartPx / this.perSecond;
    const step = steps.find((each) => each >= least) ?? Math.ceil(least / 86_400) * 86_400;
    const offset = new Date(this.from * 1000).getTimezoneOffset() * 60;
    const found = [];
    for (const piece of this.pieces) {
      let t = Math.ceil((piece.t0 - offset) / step) * step + offset;
      for (; t <= piece.t1; t += step) found.push(t);
    }
    return { step, times: found };
  }
}

/** Bounds and round ticks of values; from zero where that is asked for. */
export function levels(least, most, count = 4, fromZero = true) {
  let low = fromZero ? Math.min(0, least) : least;
  let high = most;
  if (!Number.isFinite(low) || !Number.isFinite(high)) [low, high] = [0, 1];
  if (low === 0 && high === 0) high = 1;
  if (high - low < 1e-12) [low, high] = fromZero ? [low, low + 1] : [low - Math.abs(low || 1) / 10, high + Math.abs(high || 1) / 10];
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= raw * 0.999);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  const ticks = [];
  for (let i = first; i <= last; i += 1) ticks.push(Number((i * step).toPrecision(12)));
  return { low: ticks[0], high: ticks[ticks.length - 1], ticks };
}
