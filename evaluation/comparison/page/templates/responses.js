// The responses: unpacked once, filtered and sorted on every key press.

const responses = { data: null, index: new Map(), folded: [], foldedPrompts: null, searchTexts: null, lastSearch: null };

// Gzip in base64, as the page carries it, or JSON, as a server gives it.
async function unpack(packed) {
  const binary = atob(packed);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

function setResponses(data) {
  responses.data = data;
  responses.index = new Map(data.policies.map((policy, place) => [policy.id, place]));
  responses.folded = data.policies.map(() => null);
  responses.foldedPrompts = null;
  responses.searchTexts = null;
  responses.lastSearch = null;
  responses.cut = data.cut.map((rows) => new Set(rows));
}

// Folding takes longer than searching, so it is done once, before the first letter is typed.
function foldedResponses(policy) {
  responses.folded[policy] ||= responses.data.texts[policy].map((text) => (text ? fold(text) : ""));
  return responses.folded[policy];
}

function foldedPrompts() {
  responses.foldedPrompts ||= responses.data.prompts.map((prompt) =>
    fold(`${prompt.id} ${prompt.messages.map((turn) => turn[1]).join(" ")}`));
  return responses.foldedPrompts;
}

// What a search reads, one text per row: one search in a long text is faster than many in short
// ones. No term holds a line break, so none matches across two texts.
function searchTextsOf(columns) {
  const key = columns.join();
  if (responses.searchTexts?.key !== key) {
    const parts = [foldedPrompts(), ...columns.map(foldedResponses)];
    const rows = parts[0].map((_, row) => parts.map((part) => part[row]).join("\n"));
    responses.searchTexts = { key, rows };
  }
  return responses.searchTexts.rows;
}

function scoreOf(policy, row, scorer) {
  return policy === undefined ? null : responses.data.scores[policy][scorer]?.[row] ?? null;
}

// B minus A: positive where B is better; equal texts tie; null where either is unknown.
function gainOf(a, b, row, scorer) {
  if (a === undefined || b === undefined) return null;
  const { texts } = responses.data;
  if (texts[a][row] === null || texts[b][row] === null) return null;
  if (texts[a][row] === texts[b][row]) return 0;
  const scoreA = scoreOf(a, row, scorer), scoreB = scoreOf(b, row, scorer);
  return scoreA === null || scoreB === null ? null : scoreB - scoreA;
}

const OUTCOMES = {
  win: (gain) => gain !== null && gain > 0,
  loss: (gain) => gain !== null && gain < 0,
  tie: (gain) => gain === 0,
};

const FLAGS = {
  all: (columns, row) => columns.every((c) => responses.data.texts[c][row] !== null),
  cut: (columns, row) => columns.some((c) => responses.cut[c].has(row)),
  empty: (columns, row) => columns.some((c) => responses.data.texts[c][row]?.trim() === ""),
  missing: (columns, row) => columns.some((c) => responses.data.texts[c][row] === null),
  same: ([a, b], row) => b !== undefined && responses.data.texts[a][row] !== null && responses.data.texts[a][row] === responses.data.texts[b][row],
  different: ([a, b], row) => b !== undefined && responses.data.texts[a][row] !== responses.data.texts[b][row],
};

// The rows that pass every filter, in the selected order.
function matchingRows(state) {
  const { columns, scorer } = state;
  const [a, b] = columns;
  const { prompts } = responses.data;
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
  return sortedRows(rows, state);
}

// A flag for every row that holds all terms, in the prompt or in a response that is shown.
function search(query, columns) {
  const terms = termsOf(query);
  if (!terms.length) {
    responses.lastSearch = null;
    return null;
  }
  const key = columns.join();
  const previous = responses.lastSearch;
  // Letters were added: a row that did not match before does not match now.
  const narrower = previous && previous.key === key && query.startsWith(previous.query);
  const texts = searchTextsOf(columns);
  const hits = new Uint8Array(texts.length);
  for (let row = 0; row < hits.length; row += 1) {
    if (narrower && !previous.hits[row]) continue;
    let all = 1;
    for (let t = 0; t < terms.length && all; t += 1) all = texts[row].includes(terms[t]) ? 1 : 0;
    hits[row] = all;
  }
  responses.lastSearch = { key, query, hits };
  return hits;
}

const ORDERS = {
  gain: (gain) => -gain,
  loss: (gain) => gain,
  difference: (gain) => -Math.abs(gain),
};

// Rows without a score come last; rows with equal scores keep the order of the prompts.
function sortedRows(rows, { order, columns, scorer }) {
  if (!order) return rows;
  const [a, b] = columns;
  const keys = new Float64Array(responses.data.prompts.length);
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

// The first two responses of a policy, shortened, for the note beside a chart.
function examples(policyId) {
  const policy = responses.index.get(policyId);
  if (!responses.data || policy === undefined) return [];
  const rows = [];
  for (let row = 0; row < responses.data.prompts.length && rows.length < 2; row += 1) {
    if (responses.data.texts[policy][row] !== null) rows.push(row);
  }
  return rows.flatMap((row) => {
    const prompt = element("p", "prompt-line", short(lastTurn(row), 90));
    const response = element("p", "", short(responses.data.texts[policy][row] || "(empty)", 180));
    prompt.dir = response.dir = "auto";
    return [prompt, response];
  });
}

function lastTurn(row) {
  const turns = responses.data.prompts[row].messages;
  return (turns.findLast((turn) => turn[0] === "user") || turns.at(-1) || ["", ""])[1];
}

// The start of a text in one line, never half of a character.
function short(text, length) {
  const start = text.slice(0, 4 * length).replace(/\s+/g, " ").trim();
  const characters = [...start];
  return characters.length > length ? `${characters.slice(0, length).join("")} …` : start;
}
