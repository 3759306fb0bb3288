// Keys, on the main keyboard and on the keypad, and the list of them.

// Each row: keys, keys of the keypad, and what they do.
const KEYS = [
  ["1 … 9", "1 … 9", "answer the question that is marked"],
  ["A, B", "", "A is better, B is better"],
  ["Enter", "Enter", "submit"],
  ["↓, ↑", "", "the next question, the one before"],
  ["R", "", "write a reason (Esc leaves it; Shift+Enter makes a new line)"],
  ["F", "", "report something"],
  ["Z", "−", "go back to the pair before"],
  ["Y", "", "forward again"],
  ["X", "/", "discard: nobody can judge this pair"],
  ["P", "*", "pause"],
  ["Space, Page Down", "0", "scroll both responses down"],
  ["Shift+Space, Page Up", ".", "scroll both responses up"],
  ["D", "+", "mark the words that differ"],
  ["M", "", "plain text: as it was written"],
  ["C", "", "fold the conversation"],
  ["G", "", "the guidelines"],
  ["?", "", "this list"],
];

const LETTERS = {
  a: "preferA", b: "preferB", r: "reason", f: "flags", z: "back", y: "forward", x: "discard", p: "pause",
  d: "differences", m: "source", c: "fold", g: "guidelines", "?": "keys", h: "keys",
  enter: "submit", arrowdown: "down", arrowup: "up", pagedown: "scrollDown", pageup: "scrollUp",
};
const KEYPAD = {
  NumpadSubtract: "back", NumpadDivide: "discard", NumpadMultiply: "pause", NumpadAdd: "differences",
  Numpad0: "scrollDown", NumpadDecimal: "scrollUp", NumpadEnter: "submit",
};

// Returns what a key means here: {digit}, {action}, or null. The keypad works with Num Lock off, too.
export function meaning(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  if (KEYPAD[event.code]) return { action: KEYPAD[event.code] };
  const digit = event.code.match(/^(?:Digit|Numpad)([1-9])$/)?.[1];
  if (digit && (event.code.startsWith("Numpad") || !event.shiftKey || event.key === digit)) return { digit: Number(digit) };
  if (event.key === " ") return { action: event.shiftKey ? "scrollUp" : "scrollDown" };
  const action = LETTERS[event.key.toLowerCase()];
  return action ? { action } : null;
}

export function listKeys(table, create) {
  const head = create("tr");
  for (const title of ["key", "keypad", "what it does"]) head.append(create("th", {}, title));
  table.replaceChildren(head);
  for (const [keys, keypad, does] of KEYS) {
    const row = create("tr");
    const cell = create("td");
    for (const key of keys.split(", ")) cell.append(create("kbd", {}, key), " ");
    const pad = create("td");
    if (keypad) pad.append(create("kbd", {}, keypad));
    row.append(cell, pad, create("td", {}, does));
    table.append(row);
  }
}
