// Which words of two texts differ, and marks for them.

const MOST_CELLS = 16e6; // words of one text times words of the other

const segmenter = globalThis.Intl?.Segmenter ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;

function words(text) {
  if (segmenter) return [...segmenter.segment(text)].map((part) => part.segment);
  return text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
}

// Returns, for each word of `a` and of `b`, whether it is in the other text at the same place: they
// are what a longest common subsequence leaves over.
export function compare(a, b) {
  const keptA = new Uint8Array(a.length);
  const keptB = new Uint8Array(b.length);
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) {
    keptA[start] = keptB[start] = 1;
    start += 1;
  }
  let endA = a.length;
  let endB = b.length;
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) {
    endA -= 1;
    endB -= 1;
    keptA[endA] = keptB[endB] = 1;
  }
  const rows = endA - start;
  const columns = endB - start;
  if (rows * columns > MOST_CELLS) {
    // Too long to align: a word counts as the same where the other text has it anywhere.
    const inA = new Set(a);
    const inB = new Set(b);
    return [a.map((word) => !inB.has(word)), b.map((word) => !inA.has(word))];
  }
  const length = new Uint16Array((rows + 1) * (columns + 1));
  for (let i = rows - 1; i >= 0; i -= 1) {
    for (let j = columns - 1; j >= 0; j -= 1) {
      const here = i * (columns + 1) + j;
      length[here] = a[start + i] === b[start + j]
        ? length[here + columns + 2] + 1
        : Math.max(length[here + columns + 1], length[here + 1]);
    }
  }
  for (let i = 0, j = 0; i < rows && j < columns;) {
    const here = i * (columns + 1) + j;
    if (a[start + i] === b[start + j]) {
      keptA[start + i] = keptB[start + j] = 1;
      i += 1;
      j += 1;
    } else if (length[here + columns + 1] >= length[here + 1]) i += 1;
    else j += 1;
  }
  return [Array.from(keptA, (kept) => !kept), Array.from(keptB, (kept) => !kept)];
}

// Marks the words in which two elements differ.
export function mark(first, second) {
  const parts = [first, second].map(pieces);
  const marks = compare(...parts.map((found) => found.map((piece) => piece.word)));
  parts.forEach((found, side) => wrap(found, marks[side]));
}

// Returns the words of an element that can be seen, each with its text node.
function pieces(element) {
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    let offset = 0;
    for (const word of words(node.data)) {
      if (word.trim()) found.push({ word, node, offset });
      offset += word.length;
    }
  }
  return found;
}

function wrap(found, differs) {
  const byNode = new Map();
  found.forEach((piece, i) => {
    if (!differs[i]) return;
    const ranges = byNode.get(piece.node) ?? [];
    byNode.set(piece.node, ranges);
    const last = ranges.at(-1);
    const end = piece.offset + piece.word.length;
    if (last && !piece.node.data.slice(last[1], piece.offset).trim()) last[1] = end;
    else ranges.push([piece.offset, end]);
  });
  for (const [node, ranges] of byNode) {
    if (node.parentElement?.closest("math")) {
      node.parentElement.closest("math").classList.add("differs");
      continue;
    }
    for (const [from, to] of ranges.reverse()) {
      const middle = node.splitText(from);
      middle.splitText(to - from);
      const mark = document.createElement("mark");
      middle.replaceWith(mark);
      mark.append(middle);
    }
  }
}
