// The work on one queue: the next pair, an answer, back and forward, and what is fetched ahead.

import { $, showOnly } from "./elements.js";
import { Form } from "./form.js";
import { PairView } from "./pair.js";
import { Outbox } from "./outbox.js";
import { Refused, request } from "./server.js";

const AHEAD = 2; // pairs to have ready, so that nobody waits for the next one
const WORDS = { a: "A is better", b: "B is better", tie: "About the same", both_bad: "Both are bad" };
const KINDS = { training: "Practice", adjudication: "Adjudication", corrections: "Corrections" };

export class Desk {
  constructor(person, { signedOut, finished }) {
    this.person = person;
    this.finished = finished;
    this.view = new PairView();
    this.form = new Form($("#questions"), (values) => this.keepDraft(values));
    this.outbox = new Outbox(person, () => this.drawSaving(), (answer, error) => this.takeBack(answer, error), signedOut);
    this.answered = new Set();
    this.back = 0; // how many answered pairs back the page is; 0: the pair to answer now
    this.busy = false;
    this.refusal = ""; // what to say with the next pair about an answer that was not accepted
  }

  async open(queue) {
    this.queue = queue;
    this.ready = [];
    this.current = null;
    this.shown = null;
    this.progress = queue.progress;
    this.form.ask(queue.questions);
    $("#campaign").textContent = queue.name;
    $("#kind").textContent = KINDS[queue.kind] ?? "";
    $("#kind").hidden = !KINDS[queue.kind];
    document.title = `Labelling: ${queue.name}`;
    await this.next();
  }

  // Shows the next pair that waits, or says that there is none.
  async next() {
    this.back = 0;
    this.current = null;
    if (!this.ready.length) await this.fetchAhead();
    if (!this.ready.length && (this.outbox.waiting().length || this.refusal)) {
      await this.outbox.flush(); // the server may still count these as open, or refuse one
      await this.fetchAhead();
    }
    this.current = this.ready.shift() ?? null;
    if (this.current === null) {
      this.shown = null;
      this.finished(this.queue);
      return;
    }
    this.show(this.current);
    if (this.ready.length < AHEAD) this.fetchAhead().catch(() => {}); // tried again when needed
  }

  fetchAhead() {
    this.fetching ??= this.fetchRecords().finally(() => {
      this.fetching = null;
    });
    return this.fetching;
  }

  async fetchRecords() {
    const unsaved = this.outbox.waiting().length;
    const limit = Math.min(10, AHEAD + 1 + this.ready.length + unsaved);
    const queue = this.queue;
    const reply = await request("GET", `/labelling/queues/${queue.id}/records?limit=${limit}`);
    if (queue !== this.queue) return;
    const known = new Set(this.ready.map((record) => record.id));
    if (this.current) known.add(this.current.id);
    const isNew = ({ id }) => !known.has(id) && !this.answered.has(id) && !this.outbox.has(id);
    this.ready.push(...reply.records.filter(isNew));
    // Answers that were on their way when the server counted are counted here.
    const late = reply.records.filter(({ id }) => this.answered.has(id)).length;
    this.progress = { answered: reply.progress.answered + late, open: reply.progress.open - late };
    this.drawProgress();
  }

  show(record, notice = "") {
    showOnly("desk");
    this.shown = record;
    // Texts to correct are there to be edited, until somebody has answered with others.
    const given = { ...record.start, ...record.answer?.values };
    this.form.start(this.draft(record.id) ?? given);
    this.view.show(record);
    this.notice(this.refusal || notice, this.refusal ? "problem" : "");
    this.refusal = "";
    document.activeElement?.blur();
    $("#desk").classList.remove("more");
    $("#desk").classList.toggle("before", this.back > 0);
    $("#forward").hidden = this.back === 0;
    this.drawProgress();
    if (performance.getEntriesByName("submit").length) {
      requestAnimationFrame(() => setTimeout(() => {
        performance.measure("submit-to-next", "submit");
        performance.clearMarks("submit");
      }));
    }
  }

  async submit(status = "submitted") {
    if (this.busy || !this.shown) return;
    const missing = status === "submitted" ? this.form.missing() : null;
    if (missing) {
      this.form.activate(missing.name);
      this.notice(`Answer first: ${missing.title}`, "problem");
      return;
    }
    performance.clearMarks("submit");
    performance.mark("submit");
    const record = this.shown;
    const entries = Object.entries(this.form.answers()).map(([name, value]) => [name, { value }]);
    const saved = this.outbox.add({ record_id: record.id, status, values: Object.fromEntries(entries) });
    localStorage.removeItem(this.draftKey(record.id));
    if (!record.answer && !this.answered.has(record.id)) {
      this.progress = { answered: this.progress.answered + 1, open: this.progress.open - 1 };
    }
    this.answered.add(record.id);
    this.drawProgress();
    await this.guarded(async () => {
      if (this.queue.kind === "training" && status === "submitted") {
        await saved;
        await this.giveFeedback(record, this.form.answers());
      }
      if (this.back > 0) await this.step(-1);
      else await this.next();
      if (status === "discarded") this.notice("Discarded. Z brings the pair back.");
    });
  }

  // Shows what the pair's answer is, after the person's own.
  async giveFeedback(record, answers) {
    const reply = await request("GET", `/labelling/records/${record.id}/feedback`);
    if (!reply.feedback) return;
    const { choice, explanation } = reply.feedback;
    const right = answers.choice === choice;
    const dialog = $("#feedback");
    dialog.classList.toggle("right", right);
    $("h2", dialog).textContent = right ? "We see it the same way" : `We would say: ${WORDS[choice] ?? choice}`;
    $(".words", dialog).textContent = explanation || (right ? "" : "Compare the two again before you go on, and look at the guidelines.");
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  }

  // Goes so many answered pairs back; a negative number goes forward again.
  async step(by) {
    const back = this.back + by;
    if (back < 0) return;
    if (back === 0) {
      this.back = 0;
      if (this.current && !this.answered.has(this.current.id)) this.show(this.current);
      else await this.next();
      return;
    }
    await this.outbox.flush();
    const reply = await request("GET", `/labelling/queues/${this.queue.id}/answered?back=${back}`);
    if (reply.record === null) {
      this.notice("There is no pair before this one.");
      return;
    }
    this.back = back;
    const discarded = reply.record.answer.status === "discarded";
    this.show(reply.record, discarded ? "You discarded this pair." : "You have answered this pair. Submit changes the answer.");
  }

  // Does one thing at a time, and says what went wrong.
  async guarded(work) {
    if (this.busy) return;
    this.busy = true;
    try {
      await work();
    } catch (error) {
      if (error instanceof Refused && error.status === 401) this.outbox.signedOut();
      else this.notice(`${error.message} Nothing is lost; try again.`, "problem");
    } finally {
      this.busy = false;
    }
  }

  takeBack(answer, error) {
    this.answered.delete(answer.record_id);
    const values = Object.entries(answer.values).map(([name, { value }]) => [name, value]);
    localStorage.setItem(this.draftKey(answer.record_id), JSON.stringify(Object.fromEntries(values)));
    this.refusal = `An answer was not accepted, and its pair comes again: ${error.message}`;
    if (this.shown) this.notice(this.refusal, "problem");
    else this.guarded(() => this.next());
  }

  notice(words, kind = "") {
    const line = $("#notice");
    line.textContent = words;
    line.className = kind;
    line.hidden = !words;
  }

  drawProgress() {
    const { answered, open } = this.progress;
    const total = answered + Math.max(0, open);
    $("#count").textContent = `${answered} of ${total}`;
    $(".progress span").style.width = `${total ? (100 * answered) / total : 0}%`;
    $(".progress").setAttribute("aria-valuenow", String(total ? Math.round((100 * answered) / total) : 0));
  }

  drawSaving() {
    const count = this.outbox.waiting().length;
    const line = $("#saving");
    line.textContent = this.outbox.problem && count
      ? `${count} answer${count > 1 ? "s" : ""} not saved yet: ${this.outbox.problem} Trying again …`
      : "";
    line.hidden = !line.textContent;
  }

  draftKey(record) {
    return `plumbline.draft.${this.person}.${record}`;
  }

  draft(record) {
    return JSON.parse(localStorage.getItem(this.draftKey(record)));
  }

  keepDraft(values) {
    if (this.shown) localStorage.setItem(this.draftKey(this.shown.id), JSON.stringify(values));
    this.notice("");
  }
}
