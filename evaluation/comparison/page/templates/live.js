// A live page: asks its server for changes and updates only what changed.

const EVERY = 2000; // milliseconds
const live = { version: "", samples: "" };

async function follow() {
  try {
    const reply = await fetch(`parts.json?have=${encodeURIComponent(live.version)}`, { cache: "no-store" });
    if (reply.status === 200) update(await reply.json());
    else if (reply.status !== 204) throw new Error(`the server replied with ${reply.status}`);
    else showState(live.state, live.since);
  } catch (error) {
    showState("lost", live.since);
  }
  setTimeout(follow, document.hidden ? 5 * EVERY : EVERY);
}

function update(parts) {
  live.version = parts.version;
  live.state = parts.status;
  live.problem = parts.problem;
  live.since = new Date();
  keepingPlace(() => {
    for (const [name, html] of Object.entries(parts.sections)) updateSection(name, html);
    setCharts(parts.charts, parts.titles);
  });
  showState(live.state, live.since);
  if (parts.samples !== live.samples) {
    live.samples = parts.samples;
    fetch(`samples.json?version=${encodeURIComponent(parts.samples)}`)
      .then((reply) => reply.json())
      .then((data) => keepingPlace(() => showResponses(data)))
      .catch(() => { live.samples = ""; });
  }
}

// Replaces only what changed; charts are kept, and open details stay open.
function updateSection(name, html) {
  const section = byId(name), body = section?.querySelector(".body");
  if (!body || section.dataset.html === html) return;
  const fresh = element("template");
  fresh.innerHTML = html; // made by the templates of the server, which escape
  if (section.dataset.html === undefined && fresh.innerHTML.trim() === body.innerHTML.trim()) {
    section.dataset.html = html;
    return;
  }
  section.dataset.html = html;
  for (const place of fresh.content.querySelectorAll("[data-chart]")) {
    const old = body.querySelector(`[data-chart="${CSS.escape(place.dataset.chart)}"]`);
    if (!old) continue;
    place.replaceWith(old);
    if (charts.drawn.has(old)) addExports(old); // now, since a line that comes later moves the page
  }
  for (const old of body.querySelectorAll("details[id]")) {
    const same = fresh.content.getElementById(old.id);
    if (same) same.open = old.open;
  }
  const scrolled = [...body.querySelectorAll(".scroll")].map((table) => table.scrollLeft);
  body.replaceChildren(fresh.content);
  fillNotes(body);
  body.querySelectorAll(".scroll").forEach((table, i) => { table.scrollLeft = scrolled[i] || 0; });
  if (responses.data) byId("unpacking")?.remove();
  section.hidden = !html;
  const link = document.querySelector(`nav a[href="#${name}"]`);
  if (link) link.hidden = !html;
}

// What the reader looks at keeps its place in the window, and the focus stays.
function keepingPlace(work) {
  const focused = document.activeElement;
  const policy = focused?.dataset?.policy;
  const visible = [...document.querySelectorAll("main > section")].find(
    (section) => section.getBoundingClientRect().bottom > 0,
  );
  const before = visible?.getBoundingClientRect().top;
  const scrolled = scrollY > 0; // at the top of the page, what is new there is what one wants to see
  work();
  if (policy && !focused.isConnected) document.querySelector(`button[data-policy="${CSS.escape(policy)}"]`)?.focus({ preventScroll: true });
  if (visible && scrolled) scrollBy({ top: visible.getBoundingClientRect().top - before, behavior: "instant" });
}

function showState(status, since) {
  const line = byId("state");
  const time = since ? since.toLocaleTimeString("en-GB") : "–";
  const words = {
    running: `Live: the run is in progress. Last change at ${time}.`,
    lost: `The server does not respond; plumbline watch may have been stopped. This is the state at ${time}.`,
    finished: `The run has finished; this page is complete (${time}).`,
  };
  const text = (words[status] || `The run has ended: ${status}. This is the state at ${time}.`) + (live.problem ? ` ${live.problem}` : "");
  if (line.textContent !== text) line.textContent = text;
  line.className = `state ${status === "running" ? "live" : status === "lost" ? "lost" : ""}`;
  line.hidden = false;
}
