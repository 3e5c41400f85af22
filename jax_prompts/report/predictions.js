// The browser of predictions: filters, and a page of rows at a time.

const PAGE = 50;
const by = (id) => document.getElementById(id);

// One number for each prediction: which source it is of, and which of its rows.
function rowsOf(data) {
  const rows = [];
  data.sources.forEach((source, number) => {
    const { first, count } = source.examples;
    const examples = first === undefined ? source.examples : Array.from({ length: count }, (_, i) => first + i);
    examples.forEach((example, row) => {
      rows.push({
        source: number,
        run: source.run,
        task: source.task,
        example,
        answer: source.answers[row],
        right: source.right[row] === "1",
        agreement: source.agreement?.[row],
      });
    });
  });
  return rows.sort((a, b) => a.right - b.right || a.task - b.task || a.example - b.example || a.source - b.source);
}

function options(select, all, names) {
  select.replaceChildren(made("option", all, { value: "" }));
  names.forEach(([value, text]) => select.append(made("option", text, { value })));
  select.closest("label").hidden = names.length < 2;
}

function browse(data) {
  const rows = rowsOf(data);
  const lower = data.examples.input.map((text) => text.toLowerCase());
  const answers = data.texts.map((text) => text.toLowerCase());
  const unique = (values) => [...new Set(values)];
  const filters = ["run", "task", "label", "right", "agreement", "text"].map((name) => by(`filter-${name}`));
  const [run, task, label, right, agreement, text] = filters;
  let found = rows;
  let page = 0;

  options(run, "all", unique(data.sources.map((source) => source.run)).map((name) => [name, name]));
  options(task, "all", data.tasks.map((name, number) => [number, name]));
  agreement.closest("label").hidden = !data.sources.some((source) => source.agreement);
  function offerLabels() {
    const chosen = label.value;
    const labels = task.value === "" ? data.labels.flat() : data.labels[task.value];
    options(label, "all", unique(labels).sort().map((name) => [name, name]));
    if (labels.includes(chosen)) label.value = chosen;
  }

  const agrees = {
    split: (row) => row.agreement < 100,
    half: (row) => row.agreement <= 50,
    whole: (row) => row.agreement === 100,
  };
  function filter() {
    const words = text.value.trim().toLowerCase();
    const { task: tasks, target: targets } = data.examples;
    found = rows.filter((row) =>
      (run.value === "" || row.run === run.value)
      && (task.value === "" || tasks[row.example] === Number(task.value))
      && (label.value === "" || data.texts[targets[row.example]] === label.value)
      && (right.value === "" || row.right === (right.value === "1"))
      && (agreement.value === "" || agrees[agreement.value](row))
      && (words === "" || lower[row.example].includes(words) || answers[row.answer].includes(words)
        || answers[targets[row.example]].includes(words)));
    page = 0;
    show();
  }

  function cell(line, head, content, kind = "") {
    const place = made("td", content, { role: "cell", "data-head": head, class: kind });
    line.append(place);
    return place;
  }
  function show() {
    const body = by("rows").tBodies[0];
    const slice = found.slice(page * PAGE, (page + 1) * PAGE);
    body.replaceChildren(...slice.map((row) => {
      const source = data.sources[row.source];
      const line = made("tr", "", { role: "row" });
      cell(line, "Example", String(data.examples.index[row.example]));
      cell(line, "Input", data.examples.input[row.example]);
      cell(line, "Target", data.texts[data.examples.target[row.example]]);
      const answer = cell(line, "Answer", data.texts[row.answer] || "(empty)", row.right ? "right" : "wrong");
      answer.append(made("span", row.right ? "✓ right" : "✗ wrong", { class: "aside" }));
      if (row.agreement !== undefined) answer.append(made("span", `${row.agreement} % agree`, { class: "aside" }));
      const who = cell(line, "By", source.run);
      who.append(made("span", [data.tasks.length > 1 && source.of, source.who, source.when].filter(Boolean).join(", "), { class: "aside" }));
      return line;
    }));
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    const wrong = found.filter((row) => !row.right).length;
    const from = found.length ? page * PAGE + 1 : 0;
    by("count").textContent = `${from.toLocaleString("en")}–${(page * PAGE + slice.length).toLocaleString("en")} of `
      + `${found.length.toLocaleString("en")} predictions, ${wrong.toLocaleString("en")} of them wrong`;
    by("page").textContent = `Page ${page + 1} of ${pages}`;
    by("previous").disabled = page === 0;
    by("next").disabled = page + 1 >= pages;
  }
  function turn(step) {
    page += step;
    show();
    by("predictions-heading").scrollIntoView();
  }

  let waiting;
  for (const control of filters.slice(0, 5)) control.addEventListener("change", filter);
  task.addEventListener("change", offerLabels);
  text.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 150);
  });
  by("filters").addEventListener("submit", (event) => event.preventDefault());
  by("previous").addEventListener("click", () => turn(-1));
  by("next").addEventListener("click", () => turn(1));
  offerLabels();
  for (const id of ["filters", "rows", "pager"]) by(id).hidden = false;
  show();
}

if (by("predictions")) {
  try {
    browse(await decoded("predictions-data"));
  } catch (error) {
    failed(error);
  }
}
