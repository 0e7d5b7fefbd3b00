"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.getElementById("report");
root.textContent = "";
const colors = ["#3b7dd8", "#d9822b", "#2e9e6b", "#a45bc9", "#c94f5d", "#7a8b2f", "#3aa3b0", "#8a6d5b"];
const W = 1140, H = 210, L = 58, R = 14, T = 12, B = 26;
const make = (tag, attributes = {}, text) => {
  const svg = ["svg", "g", "path", "line", "text", "circle", "title"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
};
const add = (parent, ...arguments_) => parent.appendChild(make(...arguments_));
const round = (x, digits = 3) => x === null || x === undefined ? "–" : Number(x.toPrecision(digits)).toLocaleString("en");
// For axes: 100,000 as 100K.
const short = (x) => Math.abs(x) < 1e4 ? round(x) : x.toLocaleString("en", { notation: "compact" });
const percent = (x) => (100 * x).toFixed(x > 0.99 && x < 1 ? 2 : 1) + " %";
const clock = (s) => {
  const span = spanS;
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  const two = (n) => String(n).padStart(2, "0");
  if (span > 2 * 86400) return `${d} d ${two(h)} h`;
  return span > 5400 ? `${two(d * 24 + h)}:${two(m)}` : `${two(Math.floor(s / 60))}:${two(Math.floor(s % 60))}`;
};
const spanS = Math.max(data.workload.span_s, ...data.runs.map((run) => run.series.t_s.at(-1) + run.series.slot_s), 1);
const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];
const charts = [];

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough || 1));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough) || power;
  const list = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) list.push(v);
  return list;
}

// One chart over time. Lines: { name, color, values, t, stepped, dash, width }. Limits are horizontal lines.
function chart(title, unit, lines, { limits = [], log = false, note = "" } = {}) {
  add(root, "h2", {}, title);
  if (note) add(root, "p", {}, note);
  const legend = add(root, "div", { class: "legend" });
  for (const line of lines.filter((line) => !line.twin)) {
    const item = add(legend, "span");
    add(item, "span", { class: "swatch", style: `background:${line.color};opacity:${line.dash ? 0.55 : 1}` });
    item.append(line.name + (line.dash ? " (dashed)" : ""));
  }
  const values = lines.flatMap((line) => line.values).filter((v) => v !== null && (!log || v > 0));
  let high = Math.max(...values, ...limits.map((limit) => limit.value), log ? 1 : 0) || 1;
  let low = log ? Math.min(...values, ...limits.map((limit) => limit.value)) : 0;
  if (log) { low = 10 ** Math.floor(Math.log10(low)); high = 10 ** Math.ceil(Math.log10(high * 1.0001)); } else high *= 1.05;
  const x = (t) => L + (W - L - R) * t / spanS;
  const y = (v) => log
    ? T + (H - T - B) * (1 - Math.log(Math.max(v, low) / low) / Math.log(high / low))
    : T + (H - T - B) * (1 - v / high);
  const svg = add(root, "svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title });
  const marks = log ? Array.from({ length: Math.round(Math.log10(high / low)) + 1 }, (_, i) => low * 10 ** i) : ticks(0, high, 5);
  for (const v of marks) {
    add(svg, "line", { class: "grid", x1: L, x2: W - R, y1: y(v), y2: y(v) });
    add(svg, "text", { x: L - 6, y: y(v) + 4, "text-anchor": "end" }, short(v));
  }
  const step = steps.find((s) => spanS / s <= 10) || 604800;
  for (let t = 0; t <= spanS; t += step) add(svg, "text", { x: x(t), y: H - 8, "text-anchor": "middle" }, clock(t));
  add(svg, "text", { x: L, y: T + 2 }, unit);
  for (const limit of limits) {
    add(svg, "line", { class: "limit", x1: L, x2: W - R, y1: y(limit.value), y2: y(limit.value) });
  }
  for (const line of lines) {
    let path = "", open = false, before = 0;
    line.values.forEach((v, i) => {
      if (v === null) { open = false; return; }
      const px = x(line.t[i]).toFixed(1), py = y(v).toFixed(1);
      path += open ? (line.stepped ? `H${px}V${py}` : `L${px} ${py}`) : `M${px} ${py}`;
      open = true; before = i;
    });
    if (line.stepped && open) path += `H${x(Math.min(spanS, line.t[before] + (line.t[1] - line.t[0] || 0))).toFixed(1)}`;
    add(svg, "path", { d: path, fill: "none", stroke: line.color, "stroke-width": line.width || 1.6,
      "stroke-dasharray": line.dash ? "4 3" : "none", "stroke-opacity": line.dash ? 0.65 : 1 });
  }
  // After the lines, so that none crosses it.
  for (const limit of limits) add(svg, "text", { class: "named", x: W - R - 4, y: y(limit.value) - 5, "text-anchor": "end" }, limit.name);
  const cursor = add(svg, "line", { class: "cursor", y1: T, y2: H - B });
  const tip = add(root, "div", { class: "tip" });
  charts.push({ svg, cursor, tip, lines, x, unit });
  svg.addEventListener("mousemove", (event) => {
    const box = svg.getBoundingClientRect();
    const t = ((event.clientX - box.left) / box.width * W - L) / (W - L - R) * spanS;
    for (const other of charts) point(other, Math.max(0, Math.min(spanS, t)));
  });
}

function point(one, t) {
  one.cursor.setAttribute("x1", one.x(t));
  one.cursor.setAttribute("x2", one.x(t));
  one.cursor.style.visibility = "visible";
  const parts = one.lines.map((line) => {
    const i = Math.min(line.t.length - 1, Math.floor(t / (line.t[1] - line.t[0] || 1)));
    return `${line.name}: ${round(line.values[i])}`;
  });
  one.tip.textContent = `${clock(t)}  ${parts.join("  ·  ")}  ${one.unit}`;
}

function table(parent, head, rows) {
  const node = add(add(parent, "div", { class: "scroll" }), "table");
  const line = add(node, "tr");
  for (const cell of head) add(line, "th", cell.text ? { class: "text" } : {}, cell.name);
  for (const row of rows) {
    const line = add(node, "tr");
    row.forEach((cell, i) => {
      const td = add(line, "td", head[i].text ? { class: "text" } : cell.bad ? { class: "bad" } : {});
      if (cell.color) add(td, "span", { class: "swatch", style: `background:${cell.color}` });
      td.append(cell.text ?? cell);
    });
  }
  return node;
}

function scatter(points) {
  add(root, "h2", {}, "Attainment against GPU-hours");
  add(root, "p", {}, "Right and below is worse: more GPU-hours, fewer requests within their SLO. The dashed line is the goal.");
  const goal = data.slo.goal, miss = (p) => Math.max(1 - p.attained, 1e-4);
  const most = Math.max(...points.map((p) => p.gpu_hours)) * 1.08;
  const HH = 300, x = (v) => L + (W - L - R) * v / most;
  const y = (m) => T + (HH - T - B) * (Math.log10(Math.max(m, 1e-4)) + 4) / 4;
  const svg = add(root, "svg", { viewBox: `0 0 ${W} ${HH}`, role: "img", "aria-label": "Attainment against GPU-hours" });
  for (const m of [1, 0.5, 0.1, 0.05, 0.01, 0.001, 1e-4]) {
    add(svg, "line", { class: m === 1 - goal ? "limit" : "grid", x1: L, x2: W - R, y1: y(m), y2: y(m) });
    add(svg, "text", { x: L - 6, y: y(m) + 4, "text-anchor": "end" }, m === 1e-4 ? "≥ 99.99 %" : percent(1 - m));
  }
  add(svg, "line", { class: "limit", x1: L, x2: W - R, y1: y(1 - goal), y2: y(1 - goal) });
  for (const v of ticks(0, most, 8)) add(svg, "text", { x: x(v), y: HH - 8, "text-anchor": "middle" }, round(v));
  for (const p of points) {
    const dot = add(svg, "circle", { cx: x(p.gpu_hours), cy: y(miss(p)), r: p.color ? 6 : 4, fill: p.color || "none", stroke: p.color || "#8892a0" });
    add(dot, "title", {}, `${p.name}: ${percent(p.attained)} at ${round(p.gpu_hours, 4)} GPU-hours`);
    add(svg, "text", { x: x(p.gpu_hours) + 8, y: y(miss(p)) - 5 }, p.name);
  }
}

add(root, "h1", {}, data.title);
const w = data.workload;
add(root, "p", {}, `${w.requests.toLocaleString("en")} requests in ${clock(w.span_s)}, mean ${round(w.mean_rps)} and peak ${round(w.peak_rps)} a second; ` +
  `ISL mean ${round(w.isl.mean, 4)}, p99 ${round(w.isl.p99, 5)}; OSL mean ${round(w.osl.mean, 4)}, p99 ${round(w.osl.p99, 5)} tokens.`);
const limit = (name, value) => value === null ? [] : [{ name: `SLO ${round(value / 1000)} ms`, value: value / 1000 }];
add(root, "p", {}, `SLO: TTFT ≤ ${data.slo.ttft === null ? "–" : round(data.slo.ttft / 1e3) + " ms"}, mean ITL ≤ ${data.slo.itl === null ? "–" : round(data.slo.itl / 1e3) + " ms"}, for ${percent(data.slo.goal)} of requests.`);
add(root, "p", {}, data.world.map(([name, value]) => `${name} ${value}`).join(" · "));

const runs = data.runs.map((run, i) => ({ ...run, color: colors[i % colors.length], attained: run.score.attained ? run.score.attained.low : 1 }));
if (data.static_best) {
  const best = data.static_best;
  add(root, "p", {}, best.replicas ? `The smallest static fleet that keeps the SLO: ${best.replicas.join(" + ")} replicas.` : "No static fleet keeps the SLO.");
}
if (runs.length) {
  add(root, "h2", {}, "Result");
  const head = ["policy", "attained", "GPU-hours", "of it starting, draining", "goodput /s", "minutes below goal", "in a row", "actions", "reversals /h", "TTFT p50, p99 ms", "ITL p50, p99 ms", "aborted", "unfinished"];
  table(root, head.map((name, i) => ({ name, text: i === 0 })), runs.map((run) => [
    { text: run.policy, color: run.color }, { text: percent(run.attained), bad: run.attained < data.slo.goal }, round(run.score.gpu_hours.total, 4),
    `${round(run.score.gpu_hours.starting, 2)}, ${round(run.score.gpu_hours.draining, 2)}`, round(run.score.goodput_rps), `${run.score.violations.certain} of ${run.score.violations.minutes}`,
    round(run.score.violations.longest / 6e7), run.score.actions, round(run.score.reversals_per_hour, 2), `${round(run.ttft_ms.p50)}, ${round(run.ttft_ms.p99)}`,
    `${round(run.itl_ms.p50)}, ${round(run.itl_ms.p99)}`, { text: String(run.aborted), bad: run.aborted > 0 }, { text: String(run.unfinished), bad: run.unfinished > 0 }]));
  const lines = (field, extra = {}) => runs.map((run) => ({ name: run.policy, color: run.color, t: run.series.t_s, values: run.series[field], ...extra }));
  chart("Requests", "a second", [{ name: "arrivals", color: "#8892a0", t: runs[0].series.t_s, values: runs[0].series.rate }]);
  chart("GPUs held", "GPUs", lines("gpus", { stepped: true }), { note: "Starting and draining replicas hold GPUs too, and are billed." });
  const tails = (p50, p99) => [...lines(p99), ...lines(p50, { dash: true, twin: true, width: 1.2 })];
  chart("TTFT, p99 and median (dashed)", "ms", tails("ttft_p50_ms", "ttft_p99_ms"), { limits: limit("TTFT", data.slo.ttft), log: true });
  chart("Mean ITL of requests, p99 and median (dashed)", "ms", tails("itl_p50_ms", "itl_p99_ms"), { limits: limit("ITL", data.slo.itl), log: true });
  chart("GPU-hours so far", "GPU-hours", lines("gpu_hours"));
  for (const run of runs) {
    for (const pool of run.series.pools) {
      const line = (name, color, values, extra = {}) => ({ name, color, values, t: run.series.t_s, stepped: true, ...extra });
      chart(`${run.policy}: replicas of ${pool.name}`, "replicas", [line("ready", run.color, pool.ready, { width: 2.2 }),
        line("wanted", "#8892a0", pool.wanted, { dash: true }), line("starting", "#c9a227", pool.starting)]);
    }
  }
}
const points = runs.map((run) => ({ name: run.policy, color: run.color, attained: run.attained, gpu_hours: run.score.gpu_hours.total }));
for (const p of data.static_best ? data.static_best.tried : []) points.push({ name: p.replicas.join("+"), attained: p.attained, gpu_hours: p.gpu_hours });
if (points.length > 1) scatter(points);
for (const run of runs.filter((run) => run.actions.length)) {
  add(root, "h2", {}, `Actions of ${run.policy}` + (run.actions_left_out ? `, the first ${run.actions.length}` : ""));
  const head = [{ name: "at" }, { name: "pool" }, { name: "from" }, { name: "to" }, { name: "why", text: true }];
  const names = run.series.pools.map((pool) => pool.name);
  table(add(root, "div", { class: "actions" }), head, run.actions.map((a) => [clock(a.at / 1e6), names[a.pool], a.from, a.to, a.reason]));
}
