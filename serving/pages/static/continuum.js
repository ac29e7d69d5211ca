// Charts of the continuum page. The tables beside them hold the same numbers and need no script.

const overview = JSON.parse(document.getElementById("overview")?.textContent ?? "null");
const words = (name) => name.replaceAll("_", " ");
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 40rem)");

// One colour for one channel wherever it appears; readable on both grounds.
const COLOURS = ["#3f8f86", "#c9803b", "#6f7fc4", "#b3567a", "#7f9a3f", "#4d9cc4", "#a678b5", "#b59a2f", "#cf6d5b", "#5aa06a", "#8d7b6a", "#7a8794"];
const SMALL = 0.02; // Channels with less of all moves are drawn together.
const DAY = 86400000;

function colour(name) {
  const channels = overview.channels ?? [];
  return COLOURS[Math.max(0, channels.indexOf(name)) % COLOURS.length];
}

function variable(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function layout(extra) {
  const line = variable("--line");
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: variable("--ink"), family: "system-ui, sans-serif", size: 13 },
    hoverlabel: { bgcolor: variable("--sheet"), bordercolor: line, font: { color: variable("--ink") } },
    margin: { t: 10, r: 10, b: 40, l: 50 }, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    xaxis: { gridcolor: line, zerolinecolor: line, automargin: true }, yaxis: { gridcolor: line, zerolinecolor: line, automargin: true },
    ...extra,
  };
}

function draw(id, traces, extra) {
  const place = document.getElementById(id);
  if (!place || traces.length === 0) return;
  place.style.height = extra.height ? `${extra.height}px` : "";
  Plotly.react(place, traces, layout(extra), { displayModeBar: false, responsive: true });
}

function gathered(transitions) {
  // Small channels become one, so that names do not lie upon each other.
  const moves = {};
  let all = 0;
  for (const t of transitions) {
    all += t.count;
    for (const name of [t.source, t.target]) moves[name] = (moves[name] ?? 0) + t.count / 2;
  }
  const small = Object.keys(moves).filter((name) => moves[name] < SMALL * all);
  const of = (name) => (small.length > 1 && small.includes(name) ? "other" : name);
  const sums = {};
  for (const t of transitions) {
    const key = `${of(t.source)}\n${of(t.target)}`;
    sums[key] = (sums[key] ?? 0) + t.count;
  }
  const links = Object.entries(sums).map(([key, count]) => {
    const [source, target] = key.split("\n");
    return { source, target, count };
  });
  return { links, small: small.length > 1 ? small : [] };
}

function channelGraph({ transitions }) {
  if (transitions.length === 0) return [];
  const { links, small } = gathered(transitions);
  const names = [...new Set(links.flatMap((t) => [t.source, t.target]))];
  const left = names.filter((name) => links.some((t) => t.source === name));
  const right = names.filter((name) => links.some((t) => t.target === name));
  const note = document.getElementById("sankey-other");
  if (note && small.length) note.textContent = `“other” is ${small.map(words).sort().join(", ")}.`;
  const tint = (name) => (name === "other" ? variable("--quiet") : colour(name));
  return [{
    type: "sankey", orientation: "h", arrangement: "fixed",
    textfont: { color: variable("--ink"), size: 13, shadow: "none" },
    node: {
      label: [...left, ...right].map(words), color: [...left, ...right].map(tint), pad: 14, thickness: 12, line: { width: 0 },
      hovertemplate: "%{label}: %{value:,} moves<extra></extra>",
    },
    link: {
      source: links.map((t) => left.indexOf(t.source)), target: links.map((t) => left.length + right.indexOf(t.target)),
      value: links.map((t) => t.count), color: links.map((t) => `${tint(t.source)}${tint(t.source).length === 7 ? "59" : ""}`),
      hovertemplate: "%{source.label} → %{target.label}: %{value:,} times<extra></extra>",
    },
  }];
}

function weekly(days, first, last) {
  // Sums of whole weeks, counted back from the last day; a part of a week at the start is left out.
  const start = Date.parse(first), end = Date.parse(last);
  const step = (end - start) / DAY >= 42 ? 7 : 1;
  const count = Math.floor(((end - start) / DAY + 1) / step);
  const sums = new Array(count).fill(0);
  for (const d of days) {
    const place = count - 1 - Math.floor((end - Date.parse(d.day)) / DAY / step);
    if (place >= 0) sums[place] += d.count;
  }
  const x = sums.map((_, n) => new Date(end - ((count - n) * step - 1) * DAY).toISOString().slice(0, 10));
  return { x, y: sums, step };
}

function momentsOverTime({ moment_days: days, moments, first_day: first, last_day: last }) {
  // Small multiples, one row for each bad kind in the order of the table: the worst on top, each on its own scale.
  const kinds = moments.filter((m) => m.bad);
  const shown = kinds.length ? kinds : moments;
  const line = variable("--line");
  const traces = [], extra = { height: 50 + 74 * shown.length, showlegend: false, annotations: [], margin: { t: 8, r: 12, b: 30, l: 44 } };
  shown.forEach(({ moment }, n) => {
    const { x, y, step } = weekly(days.filter((d) => d.moment === moment), first, last);
    const axis = n === 0 ? "" : n + 1;
    const top = 1 - n / shown.length, size = 1 / shown.length;
    traces.push({
      type: "scatter", mode: "lines", line: { color: variable("--warn"), width: 2 }, fill: "tozeroy", fillcolor: "rgba(201,128,59,0.18)",
      name: words(moment), x, y, yaxis: `y${axis}`, hovertemplate: `%{y} ${words(moment)}, ${step === 7 ? "week of " : ""}%{x|%d %b %Y}<extra></extra>`,
    });
    extra[`yaxis${axis}`] = { domain: [top - size * 0.78, top - size * 0.22], rangemode: "tozero", nticks: 3, gridcolor: line, zerolinecolor: line };
    extra.annotations.push({ text: words(moment), x: 0, xref: "paper", y: top - size * 0.02, yref: "paper", xanchor: "left", yanchor: "top", showarrow: false, font: { size: 13 } });
  });
  extra.xaxis = { gridcolor: line, anchor: `y${shown.length > 1 ? shown.length : ""}`, type: "date", tickangle: 0, nticks: narrow.matches ? 4 : 10, tickformat: narrow.matches ? "%b" : "%b %Y" };
  return [traces, extra];
}

function credits(rows) {
  const methods = [...new Set(rows.map((r) => r.method))];
  const sums = {};
  for (const r of rows) sums[r.channel] = (sums[r.channel] ?? 0) + r.share;
  const channels = Object.keys(sums).sort((a, b) => sums[a] - sums[b]); // The largest ends on top.
  const tones = ["#9db8b3", "#6f9d96", "#3f8f86", "#2d6f68"];
  const traces = methods.map((method, n) => {
    const own = Object.fromEntries(rows.filter((r) => r.method === method).map((r) => [r.channel, r.share]));
    const cause = method.startsWith("causal");
    return {
      type: "bar", orientation: "h", name: method, y: channels.map(words), x: channels.map((c) => own[c] ?? null),
      marker: { color: cause ? "#c9803b" : tones[n % tones.length] }, hovertemplate: `%{y}: %{x:.1%} (${method})<extra></extra>`,
    };
  });
  const legend = document.getElementById("credit-legend");
  legend?.replaceChildren(...traces.map(({ name, marker }) => {
    const item = document.createElement("li"), swatch = document.createElement("span");
    swatch.style.background = marker.color;
    item.append(swatch, name);
    return item;
  }));
  const height = 50 + channels.length * (narrow.matches ? 46 : 40);
  const axis = { gridcolor: variable("--line"), zerolinecolor: variable("--line"), automargin: true };
  return [traces.reverse(), {
    barmode: "group", bargap: 0.25, height, xaxis: { ...axis, tickformat: ".0%", nticks: narrow.matches ? 4 : 8, tickangle: 0 }, yaxis: { ...axis, gridcolor: "rgba(0,0,0,0)" },
    showlegend: false, margin: { t: 4, r: 12, b: 34, l: 10 },
  }];
}

function drawAll() {
  if (!overview) return;
  const seen = {};
  for (const t of overview.journeys?.transitions ?? []) seen[t.source] = (seen[t.source] ?? 0) + t.count;
  overview.channels = Object.keys(seen).sort((a, b) => seen[b] - seen[a]);
  if (overview.journeys) draw("sankey", channelGraph(overview.journeys), { margin: { t: 10, r: 10, b: 10, l: 10 }, height: narrow.matches ? 420 : 460 });
  draw("moment-days", ...momentsOverTime(overview));
  draw("credit", ...credits(overview.credits));
}

drawAll();
dark.addEventListener("change", drawAll);
narrow.addEventListener("change", drawAll);
