// The sample browser: its controls, a list that draws only the rows in sight, and one sample.

const ROW = 56; // pixels, as in the style sheet
const MAX_COLUMNS = 8;
const state = { columns: [], query: "", subset: "", scorer: "", outcome: "", flag: "", order: "", marking: true };
const view = { rows: [], selected: -1, shown: new Map() };
const byId = (id) => document.getElementById(id);
const list = byId("list"), rowsOf = byId("rows"), sample = byId("sample");

// Takes new responses; what the reader selected stays selected where it still exists.
function showResponses(data) {
  const first = !responses.data;
  const columns = state.columns.map((c) => responses.data.policies[c].id);
  const selected = responses.data?.prompts[view.selected]?.id;
  const top = list.scrollTop;
  setResponses(data);
  byId("browser").hidden = !data.prompts.length || !data.policies.length;
  byId("unpacking")?.remove();
  if (byId("browser").hidden) return;
  state.columns = columns.map((id) => responses.index.get(id)).filter((c) => c !== undefined);
  if (state.columns.length < 2) state.columns = defaultColumns();
  fillChoices(byId("subset"), [["", "all"], ...unique(data.prompts.map((p) => p.subset)).map((s) => [s, s])], "subset");
  fillChoices(byId("scorer"), data.scorers.map((s) => [s.name, s.title]), "scorer");
  byId("subset").parentElement.hidden = byId("subset").options.length < 2;
  showColumns();
  view.selected = data.prompts.findIndex((prompt) => prompt.id === selected);
  refresh({ keep: !first });
  list.scrollTop = top;
  if (first) {
    performance.mark("responses-ready");
    selectFromAddress();
    whenIdle(() => searchTextsOf(state.columns));
  }
}

function unique(values) {
  return [...new Set(values)].filter(Boolean).sort();
}

// The baseline and one finished policy per method.
function defaultColumns() {
  const methods = new Set(), columns = [];
  const { policies } = responses.data;
  for (const isWanted of [(p) => !p.color || p.final, () => true]) {
    policies.forEach((policy, place) => {
      if (isWanted(policy) && !methods.has(policy.method) && columns.length < MAX_COLUMNS) {
        methods.add(policy.method);
        columns.push(place);
      }
    });
  }
  if (columns.length < 2) policies.forEach((_, place) => columns.length < 2 && !columns.includes(place) && columns.push(place));
  return columns;
}

function fillChoices(select, choices, key) {
  select.replaceChildren(...choices.map(([value, title]) => new Option(title, value)));
  if (!choices.some(([value]) => value === state[key])) state[key] = choices[0]?.[0] ?? "";
  select.value = state[key];
}

function letter(place) {
  return String.fromCharCode(65 + place);
}

// One selector per column; the first two are A and B, which outcomes and orders compare.
function showColumns() {
  const { policies } = responses.data;
  const labels = state.columns.map((column, place) => {
    const select = element("select");
    const groups = new Map();
    policies.forEach((policy, index) => {
      if (!groups.has(policy.method)) groups.set(policy.method, element("optgroup"));
      const group = groups.get(policy.method);
      group.label = policy.method;
      group.append(new Option(policy.title, index, false, index === column));
    });
    select.append(...groups.values());
    select.dataset.column = place;
    const label = element("label", "", element("strong", "", letter(place)), select);
    label.style.setProperty("--c", `var(--m${policies[column].color})`);
    if (place >= 2) {
      const remove = element("button", "plain", "×");
      remove.type = "button";
      remove.dataset.remove = place;
      remove.setAttribute("aria-label", `Remove ${policies[column].title}`);
      label.append(remove);
    }
    return label;
  });
  const tools = [];
  if (state.columns.length > 1) tools.push(tool("swap", "A ⇄ B"));
  if (state.columns.length < Math.min(MAX_COLUMNS, policies.length)) tools.push(tool("add", "+ policy"));
  byId("columns").replaceChildren(...labels, ...tools);
}

function tool(does, title) {
  const button = element("button", "plain", title);
  button.type = "button";
  button.dataset.does = does;
  return button;
}

// Applies the filters. A new filter or order selects the first row; where only the responses or the
// columns changed, the selected sample stays if it still matches.
function refresh({ keep = false } = {}) {
  view.rows = matchingRows(state);
  const total = responses.data.prompts.length;
  byId("count").textContent = `${view.rows.length.toLocaleString("en-GB")} of ${total.toLocaleString("en-GB")} prompts`;
  if (!keep || !view.rows.includes(view.selected)) view.selected = view.rows[0] ?? -1;
  rowsOf.style.height = `${view.rows.length * ROW}px`;
  if (!keep) list.scrollTop = 0;
  view.shown.forEach((row) => row.remove());
  view.shown.clear();
  drawRows();
  showSample();
}

// Draws the visible rows and a few beyond, and removes the others.
function drawRows() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
  const last = Math.min(view.rows.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 5);
  for (const [place, row] of view.shown) {
    if (place < first || place >= last) {
      row.remove();
      view.shown.delete(place);
    }
  }
  const fresh = [];
  for (let place = first; place < last; place += 1) {
    if (!view.shown.has(place)) {
      const row = rowElement(place);
      view.shown.set(place, row);
      fresh.push(row);
    }
  }
  rowsOf.append(...fresh);
  list.setAttribute("aria-activedescendant", view.selected >= 0 ? `row-${view.selected}` : "");
}

function rowElement(place) {
  const row = view.rows[place];
  const line = element("div", "row", element("span", "", short(lastTurn(row), 90) || "(no prompt)"), element("span", "small", summary(row)));
  line.firstChild.dir = "auto";
  line.id = `row-${row}`;
  line.dataset.place = place;
  line.style.top = `${place * ROW}px`;
  line.setAttribute("role", "option");
  line.setAttribute("aria-posinset", place + 1);
  line.setAttribute("aria-setsize", view.rows.length);
  line.setAttribute("aria-selected", row === view.selected);
  return line;
}

// The second line of a row: the difference, the subset, and where the search term is.
function summary(row) {
  const gain = gainOf(state.columns[0], state.columns[1], row, state.scorer);
  const parts = [];
  if (gain !== null) parts.push(gain === 0 ? "tie" : `${gain > 0 ? "B +" : "A +"}${Math.abs(gain).toFixed(2)}`);
  if (state.columns.some((c) => responses.cut[c].has(row))) parts.push("cut off");
  const [term] = termsOf(state.query);
  if (term && !foldedPrompts()[row].includes(term)) {
    const column = state.columns.find((c) => foldedResponses(c)[row].includes(term));
    if (column !== undefined) {
      const text = foldedResponses(column)[row], at = text.indexOf(term);
      parts.push(`… ${short(text.slice(Math.max(0, at - 8), at + 40), 48)}`);
    }
  }
  const subset = responses.data.prompts[row].subset;
  if (subset) parts.push(subset);
  return parts.join(" · ");
}

function selectPlace(place, { focus = false } = {}) {
  if (!view.rows.length) return;
  const next = Math.max(0, Math.min(view.rows.length - 1, place));
  view.selected = view.rows[next];
  const top = next * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  drawRows();
  view.shown.forEach((row) => row.setAttribute("aria-selected", row.id === `row-${view.selected}`));
  if (focus) list.focus({ preventScroll: true });
  showSample();
}

function place() {
  return view.rows.indexOf(view.selected);
}

// The selected prompt in full, with the responses of every column side by side.
function showSample() {
  const row = view.selected;
  if (row < 0 || !responses.data) {
    sample.replaceChildren(element("p", "note", "No prompt passes these filters."));
    return;
  }
  const prompt = responses.data.prompts[row];
  const terms = termsOf(state.query);
  const link = element("a", "", `prompt ${row + 1}`);
  link.href = `#prompt=${row + 1}`;
  link.title = "A link to this prompt";
  const head = element("p", "note", link, [`, ${place() + 1} of ${view.rows.length}`, prompt.id, prompt.subset].filter(Boolean).join(" · "));
  const turns = prompt.messages.map(([role, text]) => {
    const content = element("span", "", marked(text, [], "ins", terms));
    content.dir = "auto";
    return element("p", `turn ${role === "assistant" ? "assistant" : ""}`, element("span", "role", role), " ", content);
  });
  const grid = element("div", "responses", ...columnsOf(row, terms));
  sample.replaceChildren(element("div", "prompt", head, ...turns), grid, noteField(prompt.id));
  sample.scrollTop = 0;
}

function columnsOf(row, terms) {
  const { texts, policies, scorers, tokens } = responses.data;
  const [a, b] = state.columns;
  return state.columns.map((column, place) => {
    const text = texts[column][row];
    const scores = scorers.map((s) => [s.name, scoreOf(column, row, s.name)]).filter(([, value]) => value !== null);
    const facts = scores.map(([name, value]) => `${name} ${value.toFixed(2)}`);
    if (tokens[column][row] !== null) facts.push(`${tokens[column][row]} tokens`);
    const head = element("p", "who", `${policies[column].sign} ${letter(place)}: ${policies[column].title} `, element("span", "", facts.join(" · ")));
    if (responses.cut[column].has(row)) head.append(" ", element("span", "badge", "cut off"));
    const body = element("p", "text");
    body.dir = "auto";
    body.tabIndex = 0;
    let note = null;
    if (text === null) body.append(element("span", "empty", "no response"));
    else if (!text.trim()) body.append(element("span", "empty", "(empty)"));
    else {
      const other = texts[place ? a : b]?.[row];
      const places = state.marking && typeof other === "string" ? differences(text, other) : [[], []];
      if (!places) note = element("p", "note", "Too long to mark the differences.");
      body.append(marked(text, places ? places[0] : [], place ? "ins" : "del", terms));
    }
    const cell = element("div", "answer", head, body);
    if (note) cell.append(note);
    cell.style.setProperty("--c", `var(--m${policies[column].color})`);
    return cell;
  });
}

// The address of the page may name a prompt: #prompt=17, counted from 1.
function selectFromAddress() {
  const found = location.hash.match(/^#prompt=(\d+)$/);
  const row = found ? Number(found[1]) - 1 : -1;
  if (!responses.data?.prompts[row]) return;
  if (!view.rows.includes(row)) does.reset();
  selectPlace(view.rows.indexOf(row));
  (innerWidth > 760 ? byId("responses") : sample).scrollIntoView();
}

// A policy from a chart or a table becomes B, beside the baseline, and the page scrolls there.
function selectPolicy(policyId) {
  const policy = responses.index.get(policyId);
  chartNote.hidden = true;
  if (policy === undefined) return;
  const baseline = responses.data.policies.findIndex((other) => other.color === 0);
  const rest = [baseline >= 0 ? baseline : 0, ...state.columns].filter((c) => c !== policy);
  state.columns = rest.length ? [rest[0], policy] : [policy];
  // Earlier checkpoints respond to a part of the prompts; the list then shows only these.
  state.flag = responses.data.texts[policy].includes(null) ? "all" : "";
  byId("flag").value = state.flag;
  showColumns();
  refresh();
  byId("responses").scrollIntoView();
  list.focus({ preventScroll: true });
}
