// Words: the terms of a search, and the words that are in one of two texts only.

const MAX_LENGTH = 20000; // characters; longer responses are shown without marks
const MAX_CELLS = 1e7;
const segmenter = window.Intl?.Segmenter ? new Intl.Segmenter("und", { granularity: "word" }) : null;

// Case, width and composition do not matter to a search.
function fold(text) {
  return text.normalize("NFKC").toLowerCase();
}

// The terms of a query: words, and phrases in quotes.
function termsOf(query) {
  const terms = [];
  for (const [whole, phrase] of query.matchAll(/"([^"]*)"?|[^\s"]+/g)) {
    const term = fold(phrase === undefined ? whole : phrase).trim();
    if (term) terms.push(term);
  }
  return terms;
}

const segmented = new Map(); // of the last few texts: every column is compared with the first

// The places [start, end] of the words of a text; white space is not compared.
function wordsOf(text) {
  if (!segmented.has(text)) {
    if (segmented.size > 20) segmented.clear();
    segmented.set(text, cutIntoWords(text));
  }
  return segmented.get(text);
}

function cutIntoWords(text) {
  const places = [];
  if (segmenter) {
    for (const { segment, index } of segmenter.segment(text)) {
      if (segment.trim()) places.push([index, index + segment.length]);
    }
  } else {
    for (const match of text.matchAll(/[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu)) {
      places.push([match.index, match.index + match[0].length]);
    }
  }
  return places;
}

// The words that are not in the longest common subsequence of two texts: [places in a, places in
// b], or null for texts that are too long.
function differences(textA, textB) {
  if (textA === textB) return [[], []];
  if (textA.length > MAX_LENGTH || textB.length > MAX_LENGTH) return null;
  const placesA = wordsOf(textA), placesB = wordsOf(textB);
  const a = placesA.map(([s, e]) => textA.slice(s, e)), b = placesB.map(([s, e]) => textB.slice(s, e));
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail) === b.at(-1 - tail)) tail += 1;
  const n = a.length - head - tail, m = b.length - head - tail;
  if (n * m > MAX_CELLS) return null;
  // longest[i * wide + j]: length of the longest common subsequence after word i of a and word j of b.
  const wide = m + 1, longest = new Uint16Array((n + 1) * wide);
  for (let i = n - 1; i >= 0; i -= 1) {
    for (let j = m - 1; j >= 0; j -= 1) {
      longest[i * wide + j] = a[head + i] === b[head + j]
        ? longest[(i + 1) * wide + j + 1] + 1
        : Math.max(longest[(i + 1) * wide + j], longest[i * wide + j + 1]);
    }
  }
  const onlyIn = [[], []];
  let i = 0, j = 0;
  while (i < n || j < m) {
    if (i < n && j < m && a[head + i] === b[head + j]) {
      i += 1;
      j += 1;
    } else if (j >= m || (i < n && longest[(i + 1) * wide + j] >= longest[i * wide + j + 1])) {
      onlyIn[0].push(placesA[head + i++]);
    } else {
      onlyIn[1].push(placesB[head + j++]);
    }
  }
  return [joined(onlyIn[0], textA), joined(onlyIn[1], textB)];
}

// Neighboring places with only white space between them become one.
function joined(places, text) {
  const merged = [];
  for (const [start, end] of places) {
    const last = merged.at(-1);
    if (last && !text.slice(last[1], start).trim()) last[1] = end;
    else merged.push([start, end]); // a new pair, since the places of the words are kept
  }
  return merged;
}

// The places of the terms of a search in a text.
function hitsIn(text, terms) {
  const lowered = text.toLowerCase();
  if (!terms.length || lowered.length !== text.length) return [];
  const places = [];
  for (const term of terms) {
    for (let at = lowered.indexOf(term); at >= 0; at = lowered.indexOf(term, at + term.length)) {
      places.push([at, at + term.length]);
    }
  }
  places.sort((x, y) => x[0] - y[0]);
  const merged = [];
  for (const [start, end] of places) {
    if (merged.length && start <= merged.at(-1)[1]) merged.at(-1)[1] = Math.max(merged.at(-1)[1], end);
    else merged.push([start, end]);
  }
  return merged;
}

// A text as nodes: different words in <ins> or <del>, search terms in <mark>.
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
