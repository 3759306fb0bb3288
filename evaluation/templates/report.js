// Draws every chart, anew when the reader's colour scheme changes.
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = {
    labelColor: colour("--text"), titleColor: colour("--text"), gridColor: colour("--line"),
    domainColor: colour("--line"), tickColor: colour("--line"), titleFontWeight: "normal",
    labelFontSize: 12, titleFontSize: 12,
  };
  return {
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: "transparent" },
    axis,
    legend: { labelColor: colour("--text"), titleColor: colour("--text"), labelFontSize: 12 },
  };
}

function draw() {
  for (const place of document.querySelectorAll("[data-chart]")) {
    const spec = { ...specs[place.dataset.chart], config: theme(), autosize: { type: "fit-x", contains: "padding" } };
    window.vegaEmbed(place, spec, { actions: false, renderer: "svg" });
  }
}

draw();
dark.addEventListener("change", draw);
