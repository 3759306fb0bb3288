// Draws every chart, again when the color scheme of the reader changes.
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function theme() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const axis = {
    labelColor: color("--text"), titleColor: color("--text"), gridColor: color("--line"),
    domainColor: color("--line"), tickColor: color("--line"), titleFontWeight: "normal",
    labelFontSize: 12, titleFontSize: 12,
  };
  return {
    background: "transparent",
    font: "system-ui, sans-serif",
    view: { stroke: "transparent" },
    axis,
    legend: { labelColor: color("--text"), titleColor: color("--text"), labelFontSize: 12 },
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
