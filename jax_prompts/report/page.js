// Theme, figures, and the data that both scripts decode. No text of a run is ever parsed as HTML.

// What a data block holds: deflated JSON in base64; null where it is empty.
window.decoded = async (id) => {
  const text = document.getElementById(id).textContent.trim();
  if (!text) return null;
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
};

window.made = (name, text = "", attributes = {}) => {
  const element = document.createElement(name);
  element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

window.failed = (error) => {
  const place = document.getElementById("failure");
  place.hidden = false;
  place.textContent = "DecompressionStream" in window
    ? `This page is damaged: ${error.message}. Make it again with t5x report.`
    : "Charts and predictions need a browser of 2023 or later.";
};

const wantsDark = matchMedia("(prefers-color-scheme: dark)");
const button = document.getElementById("theme");
const shown = [];  // {draw} of every figure
let dark = wantsDark.matches;

function applyTheme() {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  button.textContent = dark ? "Light" : "Dark";
  button.setAttribute("aria-pressed", dark);
  button.setAttribute("aria-label", dark ? "Use light colours" : "Use dark colours");
}
async function setTheme(value) {
  dark = value;
  applyTheme();
  for (const figure of shown) await figure.draw();
}
button.addEventListener("click", () => setTheme(!dark));
wantsDark.addEventListener("change", (event) => setTheme(event.matches));
applyTheme();

// Selects beside a figure: one for each control in which its views differ. Choosing keeps the other choices where it can.
function controls(figure, place, draw) {
  let current = figure.views[0];
  const selects = figure.controls.map((name, number) => {
    const select = made("select");
    const label = made("label", name);
    label.append(select);
    select.addEventListener("change", () => {
      const wanted = selects.map((each) => each.value);
      const likeness = (view) => view.labels.reduce((sum, text, i) => sum + (text === wanted[i]), 0);
      const fitting = figure.views.filter((view) => view.labels[number] === select.value);
      current = fitting.reduce((best, view) => (likeness(view) > likeness(best) ? view : best));
      fill();
      draw(current);
    });
    if (new Set(figure.views.map((view) => view.labels[number])).size > 1) place.append(label);
    return select;
  });
  // A select offers what goes together with the choices before it.
  function fill() {
    selects.forEach((select, number) => {
      const before = (view) => view.labels.slice(0, number).every((text, i) => text === current.labels[i]);
      const texts = new Set(figure.views.filter(before).map((view) => view.labels[number]));
      select.replaceChildren(...[...texts].map((text) => made("option", text, { value: text })));
      select.value = current.labels[number];
    });
  }
  fill();
  return () => current;
}

function numbersTable(rows, title) {
  const most = 500;
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const table = made("table");
  table.append(made("caption", `Data of ${title}`, { class: "unseen" }));
  const head = table.createTHead().insertRow();
  for (const name of names) head.append(made("th", name, { scope: "col" }));
  const body = table.createTBody();
  for (const row of rows.slice(0, most)) {
    const line = body.insertRow();
    for (const name of names) line.insertCell().textContent = row[name] ?? "";
  }
  const place = made("div", "", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Data of ${title}` });
  place.append(table);
  if (rows.length > most) place.append(made("p", `${rows.length - most} more rows`, { class: "caption" }));
  return place;
}

// A legend has room for words where the chart has.
function themed(config, width) {
  return { ...config, legend: { ...config.legend, labelLimit: Math.max(120, width - 100), columns: Math.max(1, Math.floor(width / 260)) } };
}

function prepare(figure, data) {
  const element = document.getElementById(figure.id);
  const title = element.querySelector("h3").textContent;
  const chart = element.querySelector(".chart");
  const details = element.querySelector("details.data");
  let view = null;
  let drawn = null;
  async function draw(wanted) {
    view = wanted ?? view;
    drawn?.finalize();
    const spec = { ...view.spec, datasets: { rows: data.rows[view.rows] } };
    drawn = await vegaEmbed(chart, spec, {
      ast: true,  // the page's own policy forbids code made of text
      renderer: view.canvas ? "canvas" : "svg",
      config: themed(data.themes[dark ? "dark" : "light"], chart.clientWidth),
      tooltip: { theme: dark ? "dark" : "light" },
      actions: { export: true, source: false, compiled: false, editor: false },
      downloadFileName: figure.id,
    });
    const picture = chart.querySelector(".chart-wrapper");  // its marks one by one say nothing to a listener
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", view.spec.description);
    chart.querySelector("details").title = `Save ${title} as a picture`;
    chart.querySelector("summary").setAttribute("aria-label", `Save ${title} as a picture`);
    if (details.open) fillData();
  }
  function fillData() {
    details.querySelector(".scroll")?.remove();
    details.append(numbersTable(data.rows[view.rows], title));
  }
  details.addEventListener("toggle", () => details.open && fillData());
  view = controls(figure, element.querySelector(".controls"), draw)();
  shown.push({ draw });
}

try {
  const data = await decoded("figures-data");
  if (data) {
    for (const figure of data.figures) prepare(figure, data);
    for (const figure of shown) {
      await new Promise((resolve) => setTimeout(resolve));  // predictions and clicks have their turn
      await figure.draw();
    }
  }
  document.documentElement.dataset.drawn = "true";
} catch (error) {
  failed(error);
}
