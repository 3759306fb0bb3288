// Saving a chart as SVG, PNG or CSV: drawn once more, with the colors of the page in place of names.

const EXPORTS = { SVG: exportSvg, PNG: exportPng, CSV: exportCsv };

function addExports(place) {
  const caption = place.parentElement.querySelector("figcaption");
  if (!caption || caption.querySelector(".exports")) return;
  const buttons = Object.keys(EXPORTS).map((kind) => {
    const button = element("button", "plain", kind);
    button.type = "button";
    button.dataset.export = kind;
    button.setAttribute("aria-label", `Save this chart as ${kind}`);
    return button;
  });
  caption.append(element("span", "exports", ...buttons));
}

document.addEventListener("click", async (event) => {
  const kind = event.target.dataset?.export;
  if (!kind) return;
  const place = event.target.closest("figure").querySelector("[data-chart]");
  await EXPORTS[kind](place.dataset.chart, charts.specs[place.dataset.chart].spec, place.clientWidth);
});

// The specification with colors as values: a file of its own knows no style sheet.
function standalone(spec, width) {
  const style = getComputedStyle(document.documentElement);
  const text = JSON.stringify(spec).replace(/var\((--[a-z0-9]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
  const plain = JSON.parse(text);
  return { ...plain, width, autosize: { type: "fit-x", contains: "padding" }, background: style.getPropertyValue("--ground").trim() };
}

async function drawnApart(spec, width, work) {
  const holder = element("div");
  const { view } = await window.vegaEmbed(holder, standalone(spec, width), { actions: false, renderer: "svg" });
  try {
    return await work(view);
  } finally {
    view.finalize();
  }
}

async function exportSvg(name, spec, width) {
  const text = await drawnApart(spec, width, (view) => view.toSVG());
  download(new Blob([text], { type: "image/svg+xml" }), `${name}.svg`);
}

async function exportPng(name, spec, width) {
  const canvas = await drawnApart(spec, width, (view) => view.toCanvas(2));
  canvas.toBlob((blob) => download(blob, `${name}.png`), "image/png");
}

// All rows of all layers; a row that two layers share is written once.
async function exportCsv(name, spec) {
  const rows = new Map();
  for (const layer of spec.layer) for (const row of layer.data.values) rows.set(JSON.stringify(row), row);
  const keys = [...new Set([...rows.values()].flatMap(Object.keys))];
  const lines = [keys, ...[...rows.values()].map((row) => keys.map((key) => row[key]))];
  const text = lines.map((cells) => cells.map(csvCell).join(",")).join("\n");
  download(new Blob([`${text}\n`], { type: "text/csv" }), `${name}.csv`);
}

// A text that a spreadsheet reads as a formula gets an apostrophe.
function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download(blob, name) {
  const link = element("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
