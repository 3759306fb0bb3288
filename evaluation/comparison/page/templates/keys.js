// The actions of the reader: typing, selecting, clicking, and single-letter shortcuts.

const FIELDS = { search: "query", subset: "subset", scorer: "scorer", outcome: "outcome", flag: "flag", order: "order" };

const does = {
  help: () => byId("help").showModal(),
  swap: () => {
    if (state.columns.length < 2) return;
    [state.columns[0], state.columns[1]] = [state.columns[1], state.columns[0]];
    showColumns();
    refresh({ keep: true });
  },
  add: () => {
    const free = responses.data.policies.findIndex((_, index) => !state.columns.includes(index));
    if (free < 0 || state.columns.length >= MAX_COLUMNS) return;
    state.columns.push(free);
    showColumns();
    refresh({ keep: true });
  },
  reset: () => {
    Object.assign(state, { query: "", subset: "", outcome: "", flag: "", order: "" });
    for (const [id, key] of Object.entries(FIELDS)) byId(id).value = state[key];
    refresh();
  },
  mark: () => {
    state.marking = !state.marking;
    byId("marking").checked = state.marking;
    showSample();
  },
  order: () => {
    const select = byId("order");
    select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
    state.order = select.value;
    refresh();
  },
  search: () => byId("search").focus(),
  next: () => selectPlace(place() + 1, { focus: true }),
  previous: () => selectPlace(place() - 1, { focus: true }),
  note: () => sample.querySelector("[data-note]")?.focus(),
  save: savePage,
  frontier: () => document.querySelector("#frontier path[tabindex='0']")?.focus(),
};

const LETTERS = {
  "/": "search", j: "next", k: "previous", d: "mark", x: "swap", a: "add", o: "order", r: "reset",
  f: "frontier", n: "note", "?": "help",
};
const WITHOUT_RESPONSES = new Set(["help", "frontier"]);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
  const typing = event.target.matches?.("input:not([type=checkbox]), select, textarea");
  if (typing || byId("help").open || !byId("keys-on").checked) return;
  const action = LETTERS[event.key];
  if (!action || (!WITHOUT_RESPONSES.has(action) && byId("browser").hidden)) return;
  event.preventDefault();
  does[action]();
});

list.addEventListener("keydown", (event) => {
  const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
  const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }[event.key];
  if (by) selectPlace(place() + by);
  else if (event.key === "Home") selectPlace(0);
  else if (event.key === "End") selectPlace(view.rows.length - 1);
  else return;
  event.preventDefault();
});

list.addEventListener("click", (event) => {
  const row = event.target.closest(".row");
  if (row) selectPlace(Number(row.dataset.place), { focus: true });
});

let drawing = 0;
list.addEventListener("scroll", () => {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    drawRows();
  });
}, { passive: true });

byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("controls").addEventListener("input", (event) => {
  const key = FIELDS[event.target.id];
  if (key) {
    state[key] = event.target.value;
    refresh();
  } else if (event.target.id === "marking") {
    does.mark();
  } else if (event.target.dataset.column) {
    state.columns[Number(event.target.dataset.column)] = Number(event.target.value);
    showColumns();
    byId("columns").querySelectorAll("select")[Number(event.target.dataset.column)].focus();
    refresh({ keep: true });
  }
});

byId("search").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "Enter") list.focus({ preventScroll: true });
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.does) does[button.dataset.does]();
  if (button.dataset.policy) selectPolicy(button.dataset.policy);
  if (button.dataset.remove) {
    state.columns.splice(Number(button.dataset.remove), 1);
    showColumns();
    refresh({ keep: true });
  }
});

document.addEventListener("toggle", (event) => {
  if (event.target.open) setCharts({}, charts.titles);
}, true);

addEventListener("hashchange", selectFromAddress);
addEventListener("resize", () => responses.data && drawRows());
addEventListener("beforeprint", () => {
  document.querySelectorAll("details:not(#all-settings)").forEach((details) => { details.open = true; });
});
