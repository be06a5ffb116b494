// Numbers and times in words, as edldist/wording.py says them: a test compares the two.

/** Seconds as a person says them: 8s, 2m05s, 3h07m. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "-";
  const whole = halfEven(seconds);
  const two = (value) => String(value).padStart(2, "0");
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  return `${Math.floor(whole / 3600)}h${two(Math.floor((whole % 3600) / 60))}m`;
}

/** A figure in few digits. */
export function number(value) {
  if (value === null || value === undefined) return "-";
  const size = Math.abs(value);
  const short = value === 0 || (size >= 1e-3 && size < 1e6);
  const [digits, power] = (short ? value.toPrecision(4) : value.toExponential(3)).split("e");
  const kept = short && digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits;
  return power === undefined ? kept : `${kept}e${power[0]}${power.slice(1).padStart(2, "0")}`;
}

/** A number a second, in few characters. */
export function rate(value) {
  if (value === null || value === undefined) return "-";
  if (value >= 100_000) return `${grouped(value / 1000)}k`;
  return value >= 100 ? grouped(value) : value.toFixed(1);
}

/** A count, in groups of three digits. */
export function whole(value) {
  return value === null || value === undefined ? "-" : value.toLocaleString("en-US");
}

/** A share in per cent. */
export function share(value) {
  return value === null || value === undefined ? "-" : `${halfEven(value * 100)}%`;
}

/** A count with its noun, in the plural unless it is one. */
export function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** The time of day here, of unix seconds; with the day where a span is longer than one. */
export function clock(t, spanS = 0, withSeconds = true) {
  const date = new Date(t * 1000);
  const time = date.toLocaleTimeString([], {
    hour: "2-digit", minute: "2-digit", ...(withSeconds ? { second: "2-digit" } : {}), hourCycle: "h23",
  });
  return spanS > 86_400 ? `${date.toLocaleDateString([], { month: "short", day: "numeric" })} ${time}` : time;
}

function grouped(value) {
  return halfEven(value).toLocaleString("en-US");
}

function halfEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
