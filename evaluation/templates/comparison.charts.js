// Charts: drawn as they come near the window, the rest when the browser has nothing to do.

const charts = { specs: {}, titles: {}, drawn: new WeakMap(), waiting: new Set() };
const pointed = document.getElementById("pointed");

const nearby = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
  { rootMargin: "400px" },
);

function readJson(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

// Takes up every chart's place; a chart whose specification is new is drawn anew, beside the old
// one until it is ready, so that nothing flickers or jumps.
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
  const place = [...charts.waiting].find((one) => one.isConnected && one.clientWidth > 0);
  if (place) {
    await draw(place);
    whenIdle(drawRest);
  } else if (!charts.waiting.size) {
    performance.mark("charts-drawn");
  }
}

async function draw(place) {
  const wanted = charts.specs[place.dataset.chart];
  nearby.unobserve(place);
  charts.waiting.delete(place);
  if (!wanted || charts.drawn.get(place) === wanted || !place.isConnected) return;
  charts.drawn.set(place, wanted);
  const before = [...place.children];
  const holder = document.createElement("div");
  holder.style.width = "100%";
  if (before.length) Object.assign(holder.style, { position: "absolute", visibility: "hidden" });
  place.append(holder);
  const focused = place.contains(document.activeElement) && datumOf(document.activeElement);
  try {
    const made = await window.vegaEmbed(holder, wanted.spec, {
      actions: false, renderer: "svg", tooltip: showPointed,
    });
    made.view.addEventListener("click", (event, item) => {
      if (item?.datum?.policy) chooseAnswers(item.datum.policy);
    });
    before.forEach((old) => old.remove());
    holder.removeAttribute("style");
    holder.style.width = "100%";
    reachByKeys(place);
    made.view.addResizeListener(() => setTimeout(() => reachByKeys(place), 100));
    if (focused) pointsOf(place).find((p) => datumOf(p).policy === focused.policy)?.focus();
  } catch (error) {
    holder.textContent = `This chart could not be drawn: ${error.message}`;
  }
}

// The drawn element's own row of data, as Vega's SVG renderer keeps it.
function datumOf(element) {
  return element.__data__?.datum;
}

function pointsOf(place) {
  return [...place.querySelectorAll(".mark-symbol.role-mark path")].filter(
    (path) => datumOf(path)?.policy,
  );
}

// One stop of the Tab key a chart; arrows go from point to point, in the order of x.
function reachByKeys(place) {
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

const FIGURES = { kl: "KL", score: "score", value: "value", progress: "training", step: "step" };

function described(datum) {
  return Object.keys(FIGURES)
    .filter((key) => typeof datum[key] === "number")
    .map((key) => key === "progress"
      ? `${Math.round(100 * datum[key])} % of the training`
      : `${FIGURES[key]} ${Number(datum[key].toPrecision(4)).toLocaleString("en-GB")}`);
}

// What stands beside a mark that is pointed at: the policy, its figures, and what it says.
function showPointed(handler, event, item, value) {
  if (value === null || value === undefined || value === "" || !item?.datum) {
    pointed.hidden = true;
    return;
  }
  fillPointed(item.datum, event.clientX, event.clientY);
}

function fillPointed(datum, x, y) {
  const head = element("p", "", element("strong", "", datum.policy ? titleOf(datum.policy) : datum.stage || ""));
  pointed.replaceChildren(head, element("p", "asked", described(datum).join(" · ")));
  if (datum.policy) pointed.append(...spoken(datum.policy));
  pointed.hidden = false;
  const { offsetWidth: width, offsetHeight: height } = pointed;
  const left = x + 16 + width < innerWidth ? x + 16 : x - width - 16;
  pointed.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  pointed.style.top = `${Math.max(8, Math.min(y + 14, innerHeight - height - 8))}px`;
}

document.addEventListener("focusin", (event) => {
  const datum = event.target.closest?.("[data-chart]") && datumOf(event.target);
  if (!datum?.policy) {
    pointed.hidden = true;
    return;
  }
  const box = event.target.getBoundingClientRect();
  fillPointed(datum, box.right, box.bottom);
});

document.addEventListener("keydown", (event) => {
  const place = event.target.closest?.("[data-chart]");
  if (!place || !datumOf(event.target)?.policy) return;
  const points = pointsOf(place).sort((a, b) => across(a) - across(b));
  const here = points.indexOf(event.target);
  const to = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: points.length - 1 }[event.key];
  if (event.key === "Enter" || event.key === " ") {
    chooseAnswers(datumOf(event.target).policy);
  } else if (event.key === "Escape") {
    pointed.hidden = true;
  } else if (to !== undefined) {
    const next = points[Math.max(0, Math.min(points.length - 1, to))];
    points.forEach((point) => point.setAttribute("tabindex", point === next ? "0" : "-1"));
    next.focus();
  } else {
    return;
  }
  event.preventDefault();
});

function across(point) {
  return point.getBoundingClientRect().x;
}

// Not while a mark has the keyboard's focus, which may itself have scrolled to it.
addEventListener("scroll", () => {
  if (!(document.activeElement instanceof SVGElement)) pointed.hidden = true;
}, { passive: true });

// An element with text; text is never read as HTML.
function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content);
  return made;
}
