// The answers: unpacked once, filtered and put in order as often as the reader types.

const answers = { data: null, index: new Map(), lowered: [], asked: null, searched: null, last: null };

// Gzip in base64, as the page carries it, or JSON, as a server gives it.
async function unpack(packed) {
  const letters = atob(packed);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i += 1) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

function setAnswers(data) {
  answers.data = data;
  answers.index = new Map(data.policies.map((policy, place) => [policy.id, place]));
  answers.lowered = data.policies.map(() => null);
  answers.asked = null;
  answers.searched = null;
  answers.last = null;
  answers.cut = data.cut.map((rows) => new Set(rows));
}

// Folding takes longer than searching, so it is done once and ahead of the first letter typed.
function loweredOf(policy) {
  answers.lowered[policy] ||= answers.data.texts[policy].map((text) => (text ? fold(text) : ""));
  return answers.lowered[policy];
}

function askedFolded() {
  answers.asked ||= answers.data.prompts.map((prompt) =>
    fold(`${prompt.id} ${prompt.messages.map((turn) => turn[1]).join(" ")}`));
  return answers.asked;
}

// All that a search looks through, a text a row: to look once in a long text is faster than often in
// short ones. No term holds a line break, so none reaches from one text into the next.
function searchedOf(columns) {
  const key = columns.join();
  if (answers.searched?.key !== key) {
    const parts = [askedFolded(), ...columns.map(loweredOf)];
    const rows = parts[0].map((_, row) => parts.map((part) => part[row]).join("\n"));
    answers.searched = { key, rows };
  }
  return answers.searched.rows;
}

function scoreOf(policy, row, scorer) {
  return policy === undefined ? null : answers.data.scores[policy][scorer]?.[row] ?? null;
}

// B minus A: positive where B is better; equal texts tie; null where either is unknown.
function gainOf(a, b, row, scorer) {
  if (a === undefined || b === undefined) return null;
  const { texts } = answers.data;
  if (texts[a][row] === null || texts[b][row] === null) return null;
  if (texts[a][row] === texts[b][row]) return 0;
  const ours = scoreOf(b, row, scorer), theirs = scoreOf(a, row, scorer);
  return ours === null || theirs === null ? null : ours - theirs;
}

const OUTCOMES = {
  win: (gain) => gain !== null && gain > 0,
  loss: (gain) => gain !== null && gain < 0,
  tie: (gain) => gain === 0,
};

const FLAGS = {
  all: (columns, row) => columns.every((c) => answers.data.texts[c][row] !== null),
  cut: (columns, row) => columns.some((c) => answers.cut[c].has(row)),
  empty: (columns, row) => columns.some((c) => answers.data.texts[c][row]?.trim() === ""),
  missing: (columns, row) => columns.some((c) => answers.data.texts[c][row] === null),
  same: ([a, b], row) => b !== undefined && answers.data.texts[a][row] !== null && answers.data.texts[a][row] === answers.data.texts[b][row],
  different: ([a, b], row) => b !== undefined && answers.data.texts[a][row] !== answers.data.texts[b][row],
};

// The rows that pass every filter, in the order asked for.
function found(state) {
  const { columns, scorer } = state;
  const [a, b] = columns;
  const { prompts } = answers.data;
  const outcome = OUTCOMES[state.outcome], flag = FLAGS[state.flag];
  const hits = search(state.query, columns);
  const rows = [];
  for (let row = 0; row < prompts.length; row += 1) {
    if (hits && !hits[row]) continue;
    if (state.subset && prompts[row].subset !== state.subset) continue;
    if (outcome && !outcome(gainOf(a, b, row, scorer))) continue;
    if (flag && !flag(columns, row)) continue;
    rows.push(row);
  }
  return ordered(rows, state);
}

// A flag for every row in which all terms stand, in the prompt or in an answer that is shown.
function search(query, columns) {
  const terms = termsOf(query);
  if (!terms.length) {
    answers.last = null;
    return null;
  }
  const key = columns.join();
  const before = answers.last;
  // Letters were added: what did not hold before does not hold now.
  const narrower = before && before.key === key && query.startsWith(before.query);
  const texts = searchedOf(columns);
  const hits = new Uint8Array(texts.length);
  for (let row = 0; row < hits.length; row += 1) {
    if (narrower && !before.hits[row]) continue;
    let all = 1;
    for (let t = 0; t < terms.length && all; t += 1) all = texts[row].includes(terms[t]) ? 1 : 0;
    hits[row] = all;
  }
  answers.last = { key, query, hits };
  return hits;
}

const ORDERS = {
  gain: (gain) => -gain,
  loss: (gain) => gain,
  apart: (gain) => -Math.abs(gain),
};

// Rows without a score come last; equal ones keep the order of the prompts.
function ordered(rows, { order, columns, scorer }) {
  if (!order) return rows;
  const [a, b] = columns;
  const keys = new Float64Array(answers.data.prompts.length);
  for (const row of rows) {
    let key;
    if (ORDERS[order]) {
      const gain = gainOf(a, b, row, scorer);
      key = gain === null ? null : ORDERS[order](gain);
    } else {
      const score = scoreOf(b ?? a, row, scorer);
      key = score === null ? null : order === "high" ? -score : score;
    }
    keys[row] = key === null ? Infinity : key;
  }
  return rows.sort((x, y) => (keys[x] < keys[y] ? -1 : keys[x] > keys[y] ? 1 : x - y));
}

// What a policy says to the first two prompts, short, for beside a chart.
function spoken(policyId) {
  const policy = answers.index.get(policyId);
  if (!answers.data || policy === undefined) return [];
  const rows = [];
  for (let row = 0; row < answers.data.prompts.length && rows.length < 2; row += 1) {
    if (answers.data.texts[policy][row] !== null) rows.push(row);
  }
  return rows.flatMap((row) => {
    const asked = element("p", "asked", short(lastTurn(row), 90));
    const said = element("p", "", short(answers.data.texts[policy][row] || "(empty)", 180));
    asked.dir = said.dir = "auto";
    return [asked, said];
  });
}

function lastTurn(row) {
  const turns = answers.data.prompts[row].messages;
  return (turns.findLast((turn) => turn[0] === "user") || turns.at(-1) || ["", ""])[1];
}

// The start of a text in one line, never half of a character.
function short(text, length) {
  const start = text.slice(0, 4 * length).replace(/\s+/g, " ").trim();
  const letters = [...start];
  return letters.length > length ? `${letters.slice(0, length).join("")} …` : start;
}
