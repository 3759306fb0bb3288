// The labelling page: signing in, choosing a queue, and what keys and buttons do at the desk.

import { Desk } from "./desk.js";
import { $, create, showOnly } from "./elements.js";
import { listKeys, meaning } from "./keys.js";
import { Refused, forget, request, signIn, signOut, signedIn } from "./server.js";

const ORDER = ["training", "labels", "adjudication"];
const TITLES = { training: "practice round", labels: "pairs", adjudication: "adjudication" };

let desk = null;

async function start() {
  const who = signedIn();
  if (!who) {
    showOnly("sign-in");
    $("#sign-in input").focus();
    return;
  }
  try {
    const reply = await request("GET", "/labelling/queues");
    if (desk?.person !== who.name) {
      desk = new Desk(who.name, { signedOut: expired, finished: done });
    }
    desk.outbox.flush();
    await chooseQueue(reply);
  } catch (error) {
    if (error instanceof Refused && error.status === 401) expired();
    else {
      showOnly("sign-in");
      problem(`${error.message} Load the page again in a moment.`);
    }
  }
}

function expired() {
  forget();
  showOnly("sign-in");
  problem("Please sign in again. Nothing is lost.");
}

function problem(words) {
  const line = $("#sign-in .problem");
  line.textContent = words;
  line.hidden = !words;
}

// Opens the only campaign's next queue, or lets the person choose.
async function chooseQueue(reply, { always = false } = {}) {
  const queues = reply.queues.toSorted((one, other) => ORDER.indexOf(one.kind) - ORDER.indexOf(other.kind));
  const open = queues.filter((queue) => queue.progress.open > 0 && !waits(queue, queues));
  const campaigns = new Set(open.map((queue) => queue.name));
  if (!always && campaigns.size === 1) {
    await desk.open(open[0]);
    return;
  }
  listQueues(queues, reply.role);
}

// Real pairs come after the practice round of their campaign.
function waits(queue, queues) {
  const practice = queues.find((other) => other.kind === "training" && other.name === queue.name);
  return queue.kind === "labels" && practice && practice.progress.open > 0;
}

function listQueues(queues, role) {
  showOnly("queues");
  const list = $("#queues .list");
  list.replaceChildren();
  for (const queue of queues) {
    const { answered, open } = queue.progress;
    const button = create("button", { type: "button", class: "queue" });
    const state = waits(queue, queues) ? "after the practice round" : open ? `${answered} of ${answered + open} answered` : `all ${answered} answered`;
    button.append(create("b", {}, queue.name), create("span", {}, TITLES[queue.kind] ?? ""), create("span", { class: "soft" }, state));
    button.disabled = Boolean(waits(queue, queues));
    button.addEventListener("click", () => desk.guarded(() => desk.open(queue)));
    list.append(button);
  }
  if (!queues.length) list.append(create("p", {}, "Nothing waits for you yet. Come back when you are told that there are pairs."));
  $("#queues .administration").hidden = role === "annotator";
}

function done(queue) {
  showOnly("done");
  const practice = queue.kind === "training";
  $("#done h1").textContent = practice ? "The practice round is done" : "All done";
  $("#done .words").textContent = practice
    ? "From now on your answers count, and nobody tells you what others think."
    : "Nothing waits for you here now. Thank you. More pairs may come later.";
  $("#done .again").textContent = practice ? "Begin" : "Look again";
}

const actions = {
  submit: () => desk.submit(),
  discard: () => desk.submit("discarded"),
  back: () => desk.guarded(() => desk.step(1)),
  forward: () => desk.guarded(() => desk.step(-1)),
  preferA: () => desk.form.prefer("a"),
  preferB: () => desk.form.prefer("b"),
  down: () => desk.form.move(1),
  up: () => desk.form.move(-1),
  reason: () => more(true) && desk.form.goTo("text"),
  flags: () => more(true) && desk.form.goTo("multi_label_selection"),
  pause: () => pause(),
  differences: () => desk.view.toggleDifferences(),
  source: () => desk.view.togglePlain(),
  fold: () => desk.view.fold(),
  scrollDown: () => desk.view.scroll(0.8),
  scrollUp: () => desk.view.scroll(-0.8),
  keys: () => openDialog($("#keys")),
  guidelines: () => {
    $("#guidelines .text").innerHTML = desk.queue.guidelines;
    openDialog($("#guidelines"));
  },
};

// The button at a dialog's end has the focus, and the dialog is read from its beginning.
function openDialog(dialog) {
  dialog.showModal();
  dialog.scrollTop = 0;
}

function more(open) {
  $("#desk").classList.toggle("more", open);
  $("#more").setAttribute("aria-expanded", String(open));
  return true;
}

function pause() {
  showOnly("paused");
  document.title = "Paused";
  $("#paused button").focus();
}

function resume() {
  showOnly("desk");
  document.title = `Labelling: ${desk.queue.name}`;
}

document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.repeat && event.key === "Enter") return;
  const section = document.body.dataset.section;
  if (section === "paused" && event.key.toLowerCase() === "p") resume();
  if (section === "done" && event.key.toLowerCase() === "z") actions.back();
  if (section !== "desk" || document.querySelector("dialog[open]")) return;
  const target = event.target;
  if (target.matches("textarea")) {
    if (event.key === "Escape") target.blur();
    else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      actions.submit();
    }
    return;
  }
  // A button that was reached by Tab is pressed by Enter and Space, as everywhere.
  if (target.matches("button, a") && (event.key === "Enter" || event.key === " ")) return;
  // A text that was clicked or reached by Tab scrolls by itself.
  const scrolls = target.matches("#responses .text, .turns, .last, pre, #votes");
  if (scrolls && /^( |Arrow|Page)/.test(event.key)) return;
  const means = meaning(event);
  if (!means) return;
  if (means.digit ? desk.form.press(means.digit - 1) : (actions[means.action](), true)) event.preventDefault();
});

// A click leaves no button with the focus: Enter then submits, as it does for keys.
document.addEventListener("click", (event) => {
  if (event.detail > 0) event.target.closest("#desk button")?.blur();
});

for (const [id, action] of Object.entries({
  back: "back", forward: "forward", pause: "pause", "show-guidelines": "guidelines", "show-keys": "keys", discard: "discard",
})) {
  $(`#${id}`).addEventListener("click", actions[action]);
}
$("#more").addEventListener("click", () => more(!$("#desk").classList.contains("more")));
$("#answer").addEventListener("submit", (event) => {
  event.preventDefault();
  actions.submit();
});
$("#to-queues").addEventListener("click", async () => {
  await desk.guarded(async () => chooseQueue(await request("GET", "/labelling/queues"), { always: true }));
});
$("#paused button").addEventListener("click", resume);
$("#done .back").addEventListener("click", actions.back);
$("#done .again").addEventListener("click", start);
for (const button of document.querySelectorAll(".sign-out")) {
  button.addEventListener("click", async () => {
    await signOut().catch(() => forget());
    location.reload();
  });
}
$("#sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  try {
    problem("");
    await signIn(form.username.value.trim(), form.password.value);
    form.password.value = "";
    await start();
  } catch (error) {
    problem(error instanceof Refused && error.status === 401 ? "This name and password do not belong together." : error.message);
  }
});
window.addEventListener("beforeunload", (event) => {
  if (desk?.outbox.waiting().length) event.preventDefault();
});
listKeys($("#keys table"), create);
start();
