// A live page: asks its server what is new, and renews that and nothing else.

const EVERY = 2000; // milliseconds
const live = { version: "", samples: "" };

async function follow() {
  try {
    const answer = await fetch(`parts.json?have=${encodeURIComponent(live.version)}`, { cache: "no-store" });
    if (answer.status === 200) renew(await answer.json());
    else if (answer.status !== 204) throw new Error(`the server said ${answer.status}`);
    else sayState(live.state, live.since);
  } catch (error) {
    sayState("lost", live.since);
  }
  setTimeout(follow, document.hidden ? 5 * EVERY : EVERY);
}

function renew(parts) {
  live.version = parts.version;
  live.state = parts.status;
  live.trouble = parts.trouble;
  live.since = new Date();
  keepingPlace(() => {
    for (const [name, html] of Object.entries(parts.sections)) renewSection(name, html);
    setCharts(parts.charts, parts.titles);
  });
  sayState(live.state, live.since);
  if (parts.samples !== live.samples) {
    live.samples = parts.samples;
    fetch(`samples.json?version=${encodeURIComponent(parts.samples)}`)
      .then((answer) => answer.json())
      .then((data) => keepingPlace(() => showAnswers(data)))
      .catch(() => { live.samples = ""; });
  }
}

// Only what changed is replaced; charts move over, and details that were open stay open.
function renewSection(name, html) {
  const section = byId(name), body = section?.querySelector(".body");
  if (!body || section.dataset.html === html) return;
  const fresh = element("template");
  fresh.innerHTML = html; // made by the server's own templates, which escape
  if (section.dataset.html === undefined && fresh.innerHTML.trim() === body.innerHTML.trim()) {
    section.dataset.html = html;
    return;
  }
  section.dataset.html = html;
  for (const place of fresh.content.querySelectorAll("[data-chart]")) {
    const old = body.querySelector(`[data-chart="${CSS.escape(place.dataset.chart)}"]`);
    if (old) place.replaceWith(old);
  }
  for (const old of body.querySelectorAll("details[id]")) {
    const same = fresh.content.getElementById(old.id);
    if (same) same.open = old.open;
  }
  const scrolled = [...body.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  body.replaceChildren(fresh.content);
  body.querySelectorAll(".scroll").forEach((one, i) => { one.scrollLeft = scrolled[i] || 0; });
  if (answers.data) byId("unpacking")?.remove();
  section.hidden = !html;
  const link = document.querySelector(`nav a[href="#${name}"]`);
  if (link) link.hidden = !html;
}

// What the reader looks at stays where it is in the window, and the focus where it was.
function keepingPlace(work) {
  const focused = document.activeElement;
  const policy = focused?.dataset?.policy;
  const seen = [...document.querySelectorAll("main > section")].find(
    (section) => section.getBoundingClientRect().bottom > 0,
  );
  const before = seen?.getBoundingClientRect().top;
  work();
  if (policy && !focused.isConnected) document.querySelector(`button[data-policy="${CSS.escape(policy)}"]`)?.focus({ preventScroll: true });
  if (seen && before < 0) scrollBy({ top: seen.getBoundingClientRect().top - before, behavior: "instant" });
}

function sayState(status, since) {
  const line = byId("state");
  const time = since ? since.toLocaleTimeString("en-GB") : "–";
  const words = {
    running: `Live: the run is going on. Last change at ${time}.`,
    lost: `The server does not answer; plumbline watch may have been stopped. This is how things stood at ${time}.`,
    finished: `The run has finished; this page is complete as of ${time}.`,
  };
  const text = (words[status] || `The run has ended: ${status}. This is how things stood at ${time}.`) + (live.trouble ? ` ${live.trouble}` : "");
  if (line.textContent !== text) line.textContent = text;
  line.className = `state ${status === "running" ? "live" : status === "lost" ? "lost" : ""}`;
  line.hidden = false;
}
