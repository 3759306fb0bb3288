// The sample browser: its controls, a list that draws only the rows in sight, and one sample.

const ROW = 56; // pixels, as in the style sheet
const MOST_COLUMNS = 8;
const state = { columns: [], query: "", subset: "", scorer: "", outcome: "", flag: "", order: "", marking: true };
const view = { rows: [], chosen: -1, shown: new Map() };
const byId = (id) => document.getElementById(id);
const list = byId("list"), rowsOf = byId("rows"), sample = byId("sample");

// Takes new answers; what the reader had chosen stays chosen as far as it is still there.
function showAnswers(data) {
  const first = !answers.data;
  const columns = state.columns.map((c) => answers.data.policies[c].id);
  const chosen = answers.data?.prompts[view.chosen]?.id;
  const top = list.scrollTop;
  setAnswers(data);
  byId("browser").hidden = !data.prompts.length || !data.policies.length;
  byId("unpacking")?.remove();
  if (byId("browser").hidden) return;
  state.columns = columns.map((id) => answers.index.get(id)).filter((c) => c !== undefined);
  if (state.columns.length < 2) state.columns = usualColumns();
  fillChoices(byId("subset"), [["", "all"], ...unique(data.prompts.map((p) => p.subset)).map((s) => [s, s])], "subset");
  fillChoices(byId("scorer"), data.scorers.map((s) => [s.name, s.title]), "scorer");
  byId("subset").parentElement.hidden = byId("subset").options.length < 2;
  showColumns();
  view.chosen = data.prompts.findIndex((prompt) => prompt.id === chosen);
  refresh({ keep: !first });
  list.scrollTop = top;
  if (first) {
    performance.mark("answers-ready");
    whenIdle(() => searchedOf(state.columns));
  }
}

function unique(values) {
  return [...new Set(values)].filter(Boolean).sort();
}

// The baseline and one finished policy of every method.
function usualColumns() {
  const seen = new Set(), found = [];
  const { policies } = answers.data;
  for (const wanted of [(p) => !p.look || p.final, () => true]) {
    policies.forEach((policy, place) => {
      if (wanted(policy) && !seen.has(policy.method) && found.length < MOST_COLUMNS) {
        seen.add(policy.method);
        found.push(place);
      }
    });
  }
  if (found.length < 2) policies.forEach((_, place) => found.length < 2 && !found.includes(place) && found.push(place));
  return found;
}

function fillChoices(select, choices, key) {
  select.replaceChildren(...choices.map(([value, title]) => new Option(title, value)));
  if (!choices.some(([value]) => value === state[key])) state[key] = choices[0]?.[0] ?? "";
  select.value = state[key];
}

function letter(place) {
  return String.fromCharCode(65 + place);
}

// One selector a column; the first two are A and B, which outcomes and orders speak of.
function showColumns() {
  const { policies } = answers.data;
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
    label.style.setProperty("--c", `var(--m${policies[column].look})`);
    if (place >= 2) {
      const remove = element("button", "plain", "×");
      remove.type = "button";
      remove.dataset.remove = place;
      remove.setAttribute("aria-label", `Take ${policies[column].title} away`);
      label.append(remove);
    }
    return label;
  });
  const tools = [];
  if (state.columns.length > 1) tools.push(tool("swap", "A ⇄ B"));
  if (state.columns.length < Math.min(MOST_COLUMNS, policies.length)) tools.push(tool("add", "+ policy"));
  byId("columns").replaceChildren(...labels, ...tools);
}

function tool(does, title) {
  const button = element("button", "plain", title);
  button.type = "button";
  button.dataset.does = does;
  return button;
}

// Filters anew. A new filter or order leads to the first of its list; where only the answers or
// the columns changed, the chosen sample stays if it passes.
function refresh({ keep = false } = {}) {
  view.rows = found(state);
  const total = answers.data.prompts.length;
  byId("count").textContent = `${view.rows.length.toLocaleString("en-GB")} of ${total.toLocaleString("en-GB")} prompts`;
  if (!keep || !view.rows.includes(view.chosen)) view.chosen = view.rows[0] ?? -1;
  rowsOf.style.height = `${view.rows.length * ROW}px`;
  if (!keep) list.scrollTop = 0;
  view.shown.forEach((row) => row.remove());
  view.shown.clear();
  drawRows();
  showSample();
}

// Draws the rows in sight and a few beyond, and forgets the others.
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
  list.setAttribute("aria-activedescendant", view.chosen >= 0 ? `row-${view.chosen}` : "");
}

function rowElement(place) {
  const row = view.rows[place];
  const made = element("div", "row", element("span", "", short(lastTurn(row), 90) || "(no prompt)"), element("span", "small", summary(row)));
  made.firstChild.dir = "auto";
  made.id = `row-${row}`;
  made.dataset.place = place;
  made.style.top = `${place * ROW}px`;
  made.setAttribute("role", "option");
  made.setAttribute("aria-posinset", place + 1);
  made.setAttribute("aria-setsize", view.rows.length);
  made.setAttribute("aria-selected", row === view.chosen);
  return made;
}

// The second line of a row: who is ahead by how much, the subset, and where a search was found.
function summary(row) {
  const gain = gainOf(state.columns[0], state.columns[1], row, state.scorer);
  const parts = [];
  if (gain !== null) parts.push(gain === 0 ? "tie" : `${gain > 0 ? "B +" : "A +"}${Math.abs(gain).toFixed(2)}`);
  if (state.columns.some((c) => answers.cut[c].has(row))) parts.push("cut off");
  const [term] = termsOf(state.query);
  if (term && !askedFolded()[row].includes(term)) {
    const column = state.columns.find((c) => loweredOf(c)[row].includes(term));
    if (column !== undefined) {
      const text = loweredOf(column)[row], at = text.indexOf(term);
      parts.push(`… ${short(text.slice(Math.max(0, at - 8), at + 40), 48)}`);
    }
  }
  const subset = answers.data.prompts[row].subset;
  if (subset) parts.push(subset);
  return parts.join(" · ");
}

function choose(place, { focus = false } = {}) {
  if (!view.rows.length) return;
  const next = Math.max(0, Math.min(view.rows.length - 1, place));
  view.chosen = view.rows[next];
  const top = next * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  drawRows();
  view.shown.forEach((row) => row.setAttribute("aria-selected", row.id === `row-${view.chosen}`));
  if (focus) list.focus({ preventScroll: true });
  showSample();
}

function place() {
  return view.rows.indexOf(view.chosen);
}

// The chosen prompt in full and the answers of every column beside each other.
function showSample() {
  const row = view.chosen;
  if (row < 0 || !answers.data) {
    sample.replaceChildren(element("p", "note", "No prompt passes these filters."));
    return;
  }
  const prompt = answers.data.prompts[row];
  const terms = termsOf(state.query);
  const head = element("p", "note", [`${place() + 1} of ${view.rows.length}`, prompt.id, prompt.subset].filter(Boolean).join(" · "));
  const turns = prompt.messages.map(([role, text]) => {
    const said = element("span", "", marked(text, [], "ins", terms));
    said.dir = "auto";
    return element("p", `turn ${role === "assistant" ? "assistant" : ""}`, element("span", "role", role), " ", said);
  });
  const grid = element("div", "answers", ...columnsOf(row, terms));
  sample.replaceChildren(element("div", "prompt", head, ...turns), grid);
  sample.scrollTop = 0;
}

function columnsOf(row, terms) {
  const { texts, policies, scorers, tokens } = answers.data;
  const [a, b] = state.columns;
  return state.columns.map((column, place) => {
    const text = texts[column][row];
    const scores = scorers.map((s) => [s.name, scoreOf(column, row, s.name)]).filter(([, value]) => value !== null);
    const facts = scores.map(([name, value]) => `${name} ${value.toFixed(2)}`);
    if (tokens[column][row] !== null) facts.push(`${tokens[column][row]} tokens`);
    const who = element("p", "who", `${policies[column].sign} ${letter(place)}: ${policies[column].title} `, element("span", "", facts.join(" · ")));
    if (answers.cut[column].has(row)) who.append(" ", element("span", "badge", "cut off"));
    const body = element("p", "text");
    body.dir = "auto";
    body.tabIndex = 0;
    let note = null;
    if (text === null) body.append(element("span", "empty", "no answer"));
    else if (!text.trim()) body.append(element("span", "empty", "(empty)"));
    else {
      const other = texts[place ? a : b]?.[row];
      const places = state.marking && typeof other === "string" ? apart(text, other) : [[], []];
      if (!places) note = element("p", "note", "Too long to mark the differences.");
      body.append(marked(text, places ? places[0] : [], place ? "ins" : "del", terms));
    }
    const made = element("div", "answer", who, body);
    if (note) made.append(note);
    made.style.setProperty("--c", `var(--m${policies[column].look})`);
    return made;
  });
}

// A policy from a chart or a table: it becomes B, beside the baseline, and the reader is taken there.
function chooseAnswers(policyId) {
  const policy = answers.index.get(policyId);
  pointed.hidden = true;
  if (policy === undefined) return;
  const baseline = answers.data.policies.findIndex((one) => one.look === 0);
  const rest = [baseline >= 0 ? baseline : 0, ...state.columns].filter((c) => c !== policy);
  state.columns = rest.length ? [rest[0], policy] : [policy];
  // Checkpoints on the way answer a part of the prompts; only those are of interest then.
  state.flag = answers.data.texts[policy].includes(null) ? "all" : "";
  byId("flag").value = state.flag;
  showColumns();
  refresh();
  byId("answers").scrollIntoView();
  list.focus({ preventScroll: true });
}
