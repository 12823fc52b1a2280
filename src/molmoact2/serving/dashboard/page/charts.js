// Small charts on canvases: every joint over time, and how long answers took. Colours come from the style sheet.
const PAST_S = 6;
const LEAST_FUTURE_S = 0.6;
const ROOM = 0.1;
const LEAST_BARS = 40;
const MOST_BARS = 150;
const LEAST_SPAN = { deg: 6, rad: 0.1, m: 0.03, fraction: 0.2, percent: 10 };
const SIGNS = { deg: "°", rad: " rad", m: " m", percent: " %" };

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// The drawing context of a canvas, as large as it is shown, in CSS pixels, empty.
export function fresh(canvas) {
  const { width, height } = canvas.getBoundingClientRect(), scale = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

function stroke(pen, points, { ink, width, alpha = 1, dash = [] }) {
  pen.globalAlpha = alpha;
  pen.strokeStyle = ink;
  pen.lineWidth = width;
  pen.setLineDash(dash);
  pen.beginPath();
  for (const [x, y] of points) pen.lineTo(x, y);
  pen.stroke();
  pen.globalAlpha = 1;
  pen.setLineDash([]);
}

// A command holds until the next one.
const held = (line) => line.flatMap(([at, y], i) => (i ? [[at, line[i - 1][1]], [at, y]] : [[at, y]]));

const number = (value, unit) => {
  const digits = unit === "deg" || unit === "percent" ? 1 : 2;
  return `${value.toFixed(digits)}${SIGNS[unit] ?? ""}`.replace("-", "−");
};

export class Joints {
  constructor(place) {
    this.place = place;
    this.robot = null;
    this.charts = [];
    this.clear();
  }

  clear() {
    this.plans = [];
    this.motion = [];
    this.offset = null;
  }

  // A robot with other joints: make a figure for each.
  meet(robot) {
    if (JSON.stringify(robot) === JSON.stringify(this.robot)) return;
    this.robot = robot;
    this.charts = (robot?.names ?? []).map((name) => {
      const figure = document.createElement("figure"), caption = document.createElement("figcaption");
      const label = document.createElement("span"), value = document.createElement("b");
      const canvas = document.createElement("canvas");
      label.textContent = label.title = name.replaceAll("_", " ").replace(/\.pos$/, "");
      canvas.setAttribute("role", "img");
      caption.append(label, value);
      figure.append(caption, canvas);
      return { figure, canvas, value, name: label.textContent };
    });
    this.place.replaceChildren(...this.charts.map((chart) => chart.figure));
    this.place.classList.toggle("many", this.charts.length > 8);
  }

  // News of a session. Without telemetry the states that the robot sent are all that is known of its motion.
  add({ plans, motion, robot }) {
    this.meet(robot);
    this.plans.push(...plans);
    motion.times.forEach((at, i) => this.motion.push({ at, executed: motion.executed[i], measured: motion.measured[i] }));
    const times = [...plans.map((plan) => plan.at), ...motion.times];
    if (!times.length) return;
    const sample = Math.max(...times) - performance.now() / 1000;
    const isFar = this.offset === null || Math.abs(sample - this.offset) > 3;
    this.offset = isFar ? sample : Math.max(sample, this.offset - 0.005);
    const oldest = this.now() - PAST_S - 2;
    this.motion = this.motion.filter((tick) => tick.at > oldest);
    this.plans = this.plans.filter((plan) => plan.at > oldest);
  }

  // The robot's clock, as far as we can tell.
  now() {
    const newest = Math.max(...this.plans.map((plan) => plan.at), ...this.motion.map((tick) => tick.at));
    return Math.min(performance.now() / 1000 + this.offset, newest + 1);
  }

  draw() {
    const plans = this.plans.filter((plan) => plan.actions);
    if (!this.charts.length || (!plans.length && !this.motion.length)) return;
    const now = this.now(), period = 1 / (this.robot.hz || 15), last = plans.at(-1);
    const future = last ? last.at + last.actions.length * period : now;
    const times = { now, period, from: now - PAST_S, to: Math.max(future, now + LEAST_FUTURE_S) };
    this.charts.forEach((chart, joint) => this.drawJoint(chart, joint, plans, times));
  }

  // What is known of one joint: [time, value] of commands and of measurements.
  lines(joint) {
    const column = this.robot.measured[joint], has = column !== null && column !== undefined;
    if (!this.motion.length) {
      return { executed: [], measured: has ? this.plans.map((plan) => [plan.at, plan.state[column]]) : [] };
    }
    return {
      executed: this.motion.map((tick) => [tick.at, tick.executed[joint]]),
      measured: has ? this.motion.map((tick) => [tick.at, tick.measured[column]]) : [],
    };
  }

  drawJoint({ canvas, value, name }, joint, plans, { now, period, from, to }) {
    const { pen, width, height } = fresh(canvas), unit = this.robot.units[joint];
    const stairs = plans.map((plan) => plan.actions.flatMap((row, i) => {
      const at = plan.at + i * period;
      return [[at, row[joint]], [at + period, row[joint]]];
    }));
    const { executed, measured } = this.lines(joint);
    const seen = [...stairs.flat(), ...executed, ...measured].filter(([at, y]) => at >= from && y !== null).map(([, y]) => y);
    if (!seen.length || !width) return;
    const [low, high] = [Math.min(...seen), Math.max(...seen)];
    const half = Math.max((high - low) / 2, (LEAST_SPAN[unit] ?? 0.1) / 2) * (1 + 2 * ROOM), middle = (low + high) / 2;
    const place = ([at, y]) => [((at - from) / (to - from)) * width, height / 2 - ((y - middle) / half) * (height / 2)];
    const [x] = place([now, middle]);
    pen.fillStyle = colour("page");
    pen.fillRect(x, 0, width - x, height);
    stroke(pen, [[x, 0], [x, height]], { ink: colour("soft"), width: 1, alpha: 0.5 });
    pen.lineJoin = "round";
    const accent = colour("accent");
    for (const line of stairs.slice(0, -1)) stroke(pen, line.map(place), { ink: accent, width: 1, alpha: 0.34 });
    stroke(pen, measured.map(place), { ink: colour("soft"), width: 1.5, dash: [2, 3] });
    stroke(pen, held(executed).map(place), { ink: colour("ink"), width: 1.4 });
    if (stairs.length) stroke(pen, stairs.at(-1).map(place), { ink: accent, width: 2.4 });
    this.scale(pen, [middle - half, middle + half], unit, height);
    const newest = (executed.at(-1) ?? measured.at(-1) ?? stairs.at(-1)?.at(0))?.[1];
    value.textContent = newest === undefined || newest === null ? "" : number(newest, unit);
    canvas.setAttribute("aria-label", `${name} at ${value.textContent}, between ${number(low, unit)} and ${number(high, unit)}`);
  }

  scale(pen, [low, high], unit, height) {
    pen.font = "10px ui-sans-serif, system-ui, sans-serif";
    pen.fillStyle = colour("soft");
    pen.strokeStyle = colour("sunken");
    pen.lineWidth = 4;
    for (const [value, y] of [[high, 13], [low, height - 6]]) {
      pen.strokeText(number(value, unit), 6, y);
      pen.fillText(number(value, unit), 6, y);
    }
  }
}

export class Tempo {
  constructor(canvas, numbers) {
    Object.assign(this, { canvas, numbers });
    this.clear();
  }

  clear() {
    this.answers = [];
  }

  add(plans) {
    this.answers.push(...plans.filter((plan) => plan.actions));
    this.answers = this.answers.slice(-MOST_BARS);
  }

  draw() {
    const { pen, width, height } = fresh(this.canvas);
    if (!this.answers.length || !width) return;
    const totals = this.answers.map((answer) => answer.total), step = width / Math.max(LEAST_BARS, this.answers.length);
    const most = Math.max(...totals) * 1.1;
    const ordered = [...totals].sort((a, b) => a - b);
    const share = (part) => 1000 * ordered[Math.min(ordered.length - 1, Math.floor(part * ordered.length))];
    this.answers.forEach(({ total, queue }, i) => {
      const x = width - (this.answers.length - i) * step, top = (value) => (value / most) * (height - 6);
      pen.fillStyle = colour("blue");
      pen.fillRect(x, height - top(total), Math.max(1, step - 1), top(total));
      pen.fillStyle = colour("soft");
      pen.fillRect(x, height - top(queue), Math.max(1, step - 1), top(queue));
    });
    const { queue, together, at } = this.answers.at(-1), first = this.answers.at(Math.max(0, this.answers.length - 20));
    const count = Math.min(19, this.answers.length - 1), rate = count && at > first.at ? count / (at - first.at) : 0;
    const facts = [
      ["median", share(0.5), "ms"], ["95 %", share(0.95), "ms"], ["99 %", share(0.99), "ms"],
      ["in queue", 1000 * queue, "ms"], ["plans", rate, "/ s"], ["batch", together, ""],
    ];
    this.numbers.replaceChildren(...facts.map(([name, value, unit]) => fact(name, value, unit)));
    this.canvas.setAttribute("aria-label", `Median answer ${share(0.5).toFixed(0)} milliseconds`);
  }
}

function fact(name, value, unit) {
  const place = document.createElement("div"), term = document.createElement("dt"), words = document.createElement("dd");
  const small = document.createElement("small");
  term.textContent = name;
  small.textContent = unit;
  words.append(Number.isInteger(value) || value >= 100 ? value.toFixed(0) : value.toFixed(1), small);
  place.append(term, words);
  return place;
}
