// Notes of the reader: on the page and on single prompts. They live in the browser while they are
// written, and in the file once a copy with them is saved.

const pristine = document.querySelector("main").innerHTML;
const notes = { texts: {}, changed: false, key: `plumbline-notes ${document.title} ${location.pathname}` };

function startNotes() {
  notes.texts = readJson("kept-notes");
  try {
    const draft = JSON.parse(localStorage.getItem(notes.key) || "null");
    if (draft) {
      notes.texts = draft;
      notes.changed = true;
    }
  } catch { /* a browser may keep nothing for a file */ }
  fillNotes(document);
  showNoteState();
}

// A field with `data-note` holds the note of that prompt; without a value, that of the page.
function fillNotes(root) {
  for (const field of root.querySelectorAll("[data-note]")) field.value = notes.texts[field.dataset.note] || "";
}

function noteField(promptId) {
  const field = element("textarea", "own-note");
  field.rows = 2;
  field.dataset.note = `prompt ${promptId}`;
  field.placeholder = "Your note on this prompt";
  field.setAttribute("aria-label", "Your note on this prompt");
  field.value = notes.texts[field.dataset.note] || "";
  return field;
}

document.addEventListener("input", (event) => {
  const name = event.target.dataset?.note;
  if (name === undefined) return;
  if (event.target.value) notes.texts[name] = event.target.value;
  else delete notes.texts[name];
  notes.changed = true;
  try {
    localStorage.setItem(notes.key, JSON.stringify(notes.texts));
  } catch { /* see above */ }
  showNoteState();
});

function showNoteState() {
  const line = document.getElementById("note-state");
  if (!line) return;
  const count = Object.keys(notes.texts).length;
  const where = notes.changed ? "not in the file yet" : "in this file";
  line.textContent = count ? `${count} note${count > 1 ? "s" : ""}, ${where}.` : "";
}

// The page as it was opened, with the notes in it. What scripts drew is left out: they draw it anew.
function savePage() {
  const copy = document.documentElement.cloneNode(true);
  copy.removeAttribute("style");
  copy.querySelector("main").innerHTML = pristine;
  copy.querySelector("#kept-notes").textContent = JSON.stringify(notes.texts).replaceAll("<", "\\u003c");
  const name = decodeURIComponent(location.pathname.split("/").pop() || "report.html");
  download(new Blob([`<!doctype html>\n${copy.outerHTML}\n`], { type: "text/html" }), name);
  notes.changed = false;
  try {
    localStorage.removeItem(notes.key);
  } catch { /* see above */ }
  showNoteState();
}
