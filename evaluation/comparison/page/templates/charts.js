// Charts: drawn when they come near the window, the others when the browser is idle.

const charts = { specs: {}, titles: {}, drawn: new WeakMap(), waiting: new Set() };
const chartNote = document.getElementById("chart-note");

const nearby = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
  { rootMargin: "400px" },
);

function readJson(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

// Registers the place of every chart. A chart with a new specification is drawn beside the old one
// until it is ready, so that nothing flickers or jumps.
function setCharts(specs, titles) {
  charts.titles = titles;
  for (const name of Object.keys(specs)) {
    const text = JSON.stringify(specs[name]);
    if (charts.specs[name]?.text !== text) charts.specs[name] = { text, spec: specs[name] };
  }
  for (const place of document.querySelectorAll("[data-chart]")) {
    if (charts.drawn.get(place) === charts.specs[place.dataset.chart]) continue;
    charts.waiting.add(place);
    nearby.observe(place);
  }
  whenIdle(drawRest);
}

function whenIdle(work) {
  (window.requestIdleCallback || ((f) => setTimeout(f, 60)))(work);
}

async function drawRest() {
  const place = [...charts.waiting].find((candidate) => candidate.isConnected && candidate.clientWidth > 0);
  if (place) {
    await draw(place);
    whenIdle(drawRest);
  } else if (!charts.waiting.size) {
    performance.mark("charts-drawn");
  }
}

async function draw(place) {
  const entry = charts.specs[place.dataset.chart];
  nearby.unobserve(place);
  charts.waiting.delete(place);
  if (!entry || charts.drawn.get(place) === entry || !place.isConnected) return;
  charts.drawn.set(place, entry);
  const before = [...place.children];
  const holder = document.createElement("div");
  holder.style.width = "100%";
  if (before.length || settings.live) Object.assign(holder.style, { position: "absolute", visibility: "hidden" });
  place.append(holder);
  const focused = place.contains(document.activeElement) && datumOf(document.activeElement);
  try {
    const embedded = await window.vegaEmbed(holder, entry.spec, {
      actions: false, renderer: "svg", tooltip: showNote,
    });
    embedded.view.addEventListener("click", (event, item) => {
      if (item?.datum?.policy) selectPolicy(item.datum.policy);
    });
    const show = () => {
      before.forEach((old) => old.remove());
      holder.removeAttribute("style");
      holder.style.width = "100%";
      enableKeys(place);
      addExports(place);
    };
    if (settings.live) keepingPlace(show); // it may be higher or lower than what stood there
    else show();
    embedded.view.addResizeListener(() => setTimeout(() => enableKeys(place), 100));
    if (focused) pointsOf(place).find((p) => datumOf(p).policy === focused.policy)?.focus();
  } catch (error) {
    holder.removeAttribute("style");
    holder.textContent = `This chart could not be drawn: ${error.message}`;
  }
}

// The row of data of a drawn element, as the SVG renderer of Vega keeps it.
function datumOf(element) {
  return element.__data__?.datum;
}

function pointsOf(place) {
  return [...place.querySelectorAll(".mark-symbol.role-mark path")].filter(
    (path) => datumOf(path)?.policy,
  );
}

// One Tab stop per chart; arrows move between its points, in the order of x.
function enableKeys(place) {
  const points = pointsOf(place);
  points.forEach((point, index) => {
    const datum = datumOf(point);
    point.setAttribute("tabindex", index ? "-1" : "0");
    point.setAttribute("role", "button");
    point.setAttribute("aria-label", `${titleOf(datum.policy)}: ${described(datum).join(", ")}`);
  });
}

function titleOf(policy) {
  return charts.titles[policy] || policy;
}

const METRIC_TITLES = { kl: "KL", score: "score", value: "value", progress: "training", step: "step" };

function described(datum) {
  return Object.keys(METRIC_TITLES)
    .filter((key) => typeof datum[key] === "number")
    .map((key) => key === "progress"
      ? `${Math.round(100 * datum[key])} % of the training`
      : `${METRIC_TITLES[key]} ${Number(datum[key].toPrecision(4)).toLocaleString("en-GB")}`);
}

// The note beside the mark under the pointer: the policy, its metrics and two responses.
function showNote(handler, event, item, value) {
  if (value === null || value === undefined || value === "" || !item?.datum) {
    chartNote.hidden = true;
    return;
  }
  fillNote(item.datum, event.clientX, event.clientY);
}

function fillNote(datum, x, y) {
  const head = element("p", "", element("strong", "", datum.policy ? titleOf(datum.policy) : datum.stage || ""));
  chartNote.replaceChildren(head, element("p", "prompt-line", described(datum).join(" · ")));
  if (datum.policy) chartNote.append(...examples(datum.policy));
  chartNote.hidden = false;
  const { offsetWidth: width, offsetHeight: height } = chartNote;
  const left = x + 16 + width < innerWidth ? x + 16 : x - width - 16;
  chartNote.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  chartNote.style.top = `${Math.max(8, Math.min(y + 14, innerHeight - height - 8))}px`;
}

document.addEventListener("focusin", (event) => {
  const datum = event.target.closest?.("[data-chart]") && datumOf(event.target);
  if (!datum?.policy) {
    chartNote.hidden = true;
    return;
  }
  const box = event.target.getBoundingClientRect();
  fillNote(datum, box.right, box.bottom);
});

document.addEventListener("keydown", (event) => {
  const place = event.target.closest?.("[data-chart]");
  if (!place || !datumOf(event.target)?.policy) return;
  const points = pointsOf(place).sort((a, b) => xOf(a) - xOf(b));
  const here = points.indexOf(event.target);
  const to = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: points.length - 1 }[event.key];
  if (event.key === "Enter" || event.key === " ") {
    selectPolicy(datumOf(event.target).policy);
  } else if (event.key === "Escape") {
    chartNote.hidden = true;
  } else if (to !== undefined) {
    const next = points[Math.max(0, Math.min(points.length - 1, to))];
    points.forEach((point) => point.setAttribute("tabindex", point === next ? "0" : "-1"));
    next.focus();
  } else {
    return;
  }
  event.preventDefault();
});

function xOf(point) {
  return point.getBoundingClientRect().x;
}

// Not while a mark has the keyboard focus, since the focus itself may have scrolled to it.
addEventListener("scroll", () => {
  if (!(document.activeElement instanceof SVGElement)) chartNote.hidden = true;
}, { passive: true });

// An element with text; text is never read as HTML.
function element(name, className, ...content) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...content);
  return node;
}
