// Charts of the continuum page. The tables beside them hold the same numbers and need no script.

const overview = JSON.parse(document.getElementById("overview")?.textContent ?? "null");
const words = (name) => name.replaceAll("_", " ");
const dark = matchMedia("(prefers-color-scheme: dark)");

function layout(extra) {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim();
  const line = style.getPropertyValue("--line").trim();
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, family: "system-ui, sans-serif" },
    margin: { t: 10, r: 10, b: 40, l: 50 }, legend: { orientation: "h", y: -0.2 },
    xaxis: { gridcolor: line, automargin: true }, yaxis: { gridcolor: line, automargin: true }, ...extra,
  };
}

function draw(id, traces, extra) {
  const place = document.getElementById(id);
  if (!place || traces.length === 0) return;
  Plotly.react(place, traces, layout(extra), { displayModeBar: false, responsive: true });
}

function channelGraph({ transitions }) {
  if (transitions.length === 0) return [];
  const left = [...new Set(transitions.map((t) => t.source))];
  const right = [...new Set(transitions.map((t) => t.target))];
  return [{
    type: "sankey", orientation: "h",
    node: { label: [...left, ...right].map(words), pad: 12, thickness: 14 },
    link: {
      source: transitions.map((t) => left.indexOf(t.source)),
      target: transitions.map((t) => left.length + right.indexOf(t.target)),
      value: transitions.map((t) => t.count),
      color: "rgba(110, 150, 143, 0.4)",
    },
  }];
}

function momentsOverTime(days, kinds) {
  return kinds.map(({ moment }) => {
    const own = days.filter((d) => d.moment === moment);
    return { type: "scatter", mode: "lines", name: words(moment), x: own.map((d) => d.day), y: own.map((d) => d.count) };
  });
}

function credits(rows) {
  return [...new Set(rows.map((r) => r.method))].map((method) => {
    const own = rows.filter((r) => r.method === method);
    return { type: "bar", name: method, x: own.map((r) => words(r.channel)), y: own.map((r) => r.share) };
  });
}

function drawAll() {
  if (!overview) return;
  if (overview.journeys) draw("sankey", channelGraph(overview.journeys), { margin: { t: 10, r: 10, b: 10, l: 10 } });
  draw("moment-days", momentsOverTime(overview.moment_days, overview.moments), {});
  draw("credit", credits(overview.credits), { barmode: "group", yaxis: { tickformat: ".0%", automargin: true } });
}

drawAll();
dark.addEventListener("change", drawAll);
