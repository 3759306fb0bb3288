// Words: what a search asks for, and which words stand in one text only.

const LONGEST = 20000; // characters; longer answers are shown without marks
const MOST_CELLS = 1e7;
const segmenter = window.Intl?.Segmenter ? new Intl.Segmenter("und", { granularity: "word" }) : null;

// Case, width and composition do not matter to a search.
function fold(text) {
  return text.normalize("NFKC").toLowerCase();
}

// The terms of a query: words, and phrases in quotes.
function termsOf(query) {
  const found = [];
  for (const [whole, phrase] of query.matchAll(/"([^"]*)"?|[^\s"]+/g)) {
    const term = fold(phrase === undefined ? whole : phrase).trim();
    if (term) found.push(term);
  }
  return found;
}

const segmented = new Map(); // of the last few texts: every column is compared with the first

// Places [start, end] of a text's words; white space is not compared.
function wordsOf(text) {
  if (!segmented.has(text)) {
    if (segmented.size > 20) segmented.clear();
    segmented.set(text, cutIntoWords(text));
  }
  return segmented.get(text);
}

function cutIntoWords(text) {
  const found = [];
  if (segmenter) {
    for (const { segment, index } of segmenter.segment(text)) {
      if (segment.trim()) found.push([index, index + segment.length]);
    }
  } else {
    for (const match of text.matchAll(/[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu)) {
      found.push([match.index, match.index + match[0].length]);
    }
  }
  return found;
}

// Which words of two texts are not in their longest common subsequence: [places in one, places in
// other], or null where the texts are too long to say.
function apart(one, other) {
  if (one === other) return [[], []];
  if (one.length > LONGEST || other.length > LONGEST) return null;
  const ours = wordsOf(one), theirs = wordsOf(other);
  const a = ours.map(([s, e]) => one.slice(s, e)), b = theirs.map(([s, e]) => other.slice(s, e));
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail += 1;
  const n = a.length - head - tail, m = b.length - head - tail;
  if (n * m > MOST_CELLS) return null;
  // longest[i * wide + j]: of what comes after word i of one and word j of the other.
  const wide = m + 1, longest = new Uint16Array((n + 1) * wide);
  for (let i = n - 1; i >= 0; i -= 1) {
    for (let j = m - 1; j >= 0; j -= 1) {
      longest[i * wide + j] = a[head + i] === b[head + j]
        ? longest[(i + 1) * wide + j + 1] + 1
        : Math.max(longest[(i + 1) * wide + j], longest[i * wide + j + 1]);
    }
  }
  const alone = [[], []];
  let i = 0, j = 0;
  while (i < n || j < m) {
    if (i < n && j < m && a[head + i] === b[head + j]) {
      i += 1;
      j += 1;
    } else if (j >= m || (i < n && longest[(i + 1) * wide + j] >= longest[i * wide + j + 1])) {
      alone[0].push(ours[head + i++]);
    } else {
      alone[1].push(theirs[head + j++]);
    }
  }
  return [joined(alone[0], one), joined(alone[1], other)];
}

// Neighbouring places with only white space between them become one.
function joined(places, text) {
  const found = [];
  for (const [start, end] of places) {
    const last = found.at(-1);
    if (last && !text.slice(last[1], start).trim()) last[1] = end;
    else found.push([start, end]); // a new pair: the words' own places are kept
  }
  return found;
}

// Where the terms of a search stand in a text.
function hitsIn(text, terms) {
  const lowered = text.toLowerCase();
  if (!terms.length || lowered.length !== text.length) return [];
  const found = [];
  for (const term of terms) {
    for (let at = lowered.indexOf(term); at >= 0; at = lowered.indexOf(term, at + term.length)) {
      found.push([at, at + term.length]);
    }
  }
  found.sort((x, y) => x[0] - y[0]);
  const merged = [];
  for (const [start, end] of found) {
    if (merged.length && start <= merged.at(-1)[1]) merged.at(-1)[1] = Math.max(merged.at(-1)[1], end);
    else merged.push([start, end]);
  }
  return merged;
}

// A text as nodes: differing words in <ins> or <del>, what was searched for in <mark>.
function marked(text, places, tag, terms) {
  const fragment = document.createDocumentFragment();
  const hits = hitsIn(text, terms);
  const plain = (from, to) => {
    const nodes = [];
    let at = from;
    for (const [start, end] of hits) {
      const first = Math.max(start, at), last = Math.min(end, to);
      if (first >= last) continue;
      if (first > at) nodes.push(text.slice(at, first));
      nodes.push(element("mark", "", text.slice(first, last)));
      at = last;
    }
    if (at < to) nodes.push(text.slice(at, to));
    return nodes;
  };
  let at = 0;
  for (const [start, end] of places) {
    fragment.append(...plain(at, start));
    fragment.append(element(tag, "", ...plain(start, end)));
    at = end;
  }
  fragment.append(...plain(at, text.length));
  return fragment;
}
