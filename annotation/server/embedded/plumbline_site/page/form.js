// The questions about a pair: what is asked now, what is answered, and which one the number keys are
// for.

import { create } from "./elements.js";

const ONE = new Set(["label_selection", "rating"]);

export class Form {
  // `changed` is called with the answers so far whenever one changes.
  constructor(root, changed) {
    this.root = root;
    this.changed = changed;
    this.questions = [];
    this.values = {};
    this.active = null;
  }

  // Builds the form of a queue.
  ask(questions) {
    this.questions = questions;
    this.parts = new Map();
    const ones = create("div", { class: "ones" }); // one answer each, in the first row
    const others = create("div", { class: "others" });
    this.root.replaceChildren(ones, others);
    for (const question of questions) {
      const part = create("fieldset", { class: `question kind-${question.kind}`, id: `question-${question.name}` });
      part.append(create("legend", { title: question.description ?? "" }, question.title));
      part.append(question.kind === "text" ? this.textarea(question) : this.buttons(question));
      this.parts.set(question.name, part);
      (ONE.has(question.kind) ? ones : others).append(part);
    }
  }

  textarea(question) {
    const area = create("textarea", { rows: 1, placeholder: question.description ?? "", "aria-label": question.title, enterkeyhint: "send" });
    area.addEventListener("input", () => this.set(question, area.value.trim() ? area.value : undefined));
    area.addEventListener("focus", () => this.activate(question.name));
    return area;
  }

  buttons(question) {
    const box = create("div", { class: "options", role: question.kind === "multi_label_selection" ? "group" : "radiogroup", "aria-label": question.title });
    question.options.forEach((option, i) => {
      const role = ONE.has(question.kind) ? "radio" : "checkbox";
      const button = create("button", { type: "button", class: "option", role, "aria-checked": "false" });
      button.append(create("kbd", {}, String(i + 1)), create("span", {}, option.text));
      button.addEventListener("click", () => {
        this.activate(question.name);
        this.choose(question, i);
      });
      box.append(button);
    });
    return box;
  }

  // Starts a pair, with the answers that were given before if there are any.
  start(values = {}) {
    this.values = { ...values };
    for (const question of this.questions) {
      const area = this.parts.get(question.name).querySelector("textarea");
      if (area) area.value = this.values[question.name] ?? "";
    }
    this.active = this.asked().find((question) => ONE.has(question.kind))?.name ?? null;
    this.draw();
  }

  isAsked(question) {
    const condition = question.only_after;
    return !condition || condition.values.map(String).includes(String(this.values[condition.question]));
  }

  asked() {
    return this.questions.filter((question) => this.isAsked(question));
  }

  // Returns what to submit: answers to questions that are not asked do not count.
  answers() {
    const given = this.asked().filter((question) => this.values[question.name] !== undefined);
    return Object.fromEntries(given.map((question) => [question.name, this.values[question.name]]));
  }

  missing() {
    return this.asked().find((question) => question.required && this.values[question.name] === undefined);
  }

  // Answers the active question with its n-th option, from 0. Returns whether there is one.
  press(n) {
    const question = this.questions.find((each) => each.name === this.active);
    if (!question || n >= question.options.length) return false;
    this.choose(question, n);
    return true;
  }

  // Answers the first question, which is the choice, by the letter of a response.
  prefer(letter) {
    const question = this.questions.find((each) => each.options.some((option) => option.value === letter));
    if (!question) return;
    this.activate(question.name);
    this.choose(question, question.options.findIndex((option) => option.value === letter));
  }

  choose(question, n) {
    const { value } = question.options[n];
    if (ONE.has(question.kind)) {
      this.set(question, value);
      this.advance(question);
      return;
    }
    const before = this.values[question.name] ?? [];
    const after = before.includes(value) ? before.filter((other) => other !== value) : [...before, value];
    this.set(question, after.length ? after : undefined);
  }

  set(question, value) {
    if (value === undefined) delete this.values[question.name];
    else this.values[question.name] = value;
    this.draw();
    this.changed(this.values);
  }

  // After an answer, the number keys are for the next question with one answer that has none yet.
  advance(question) {
    const asked = this.asked();
    const later = asked.slice(asked.indexOf(question) + 1);
    const next = later.find((each) => ONE.has(each.kind) && this.values[each.name] === undefined);
    if (next) this.activate(next.name);
  }

  activate(name) {
    this.active = name;
    this.draw();
  }

  // Moves to the question before or after the active one.
  move(step) {
    const asked = this.asked();
    const now = asked.findIndex((question) => question.name === this.active);
    const next = asked[Math.max(0, Math.min(asked.length - 1, now + step))];
    this.activate(next.name);
    const area = this.parts.get(next.name).querySelector("textarea");
    if (area) area.focus();
    else document.activeElement?.blur();
  }

  // Makes a question of a kind the active one, and goes into its text where it has one.
  goTo(kind) {
    const question = this.asked().find((each) => each.kind === kind);
    if (!question) return false;
    this.activate(question.name);
    this.parts.get(question.name).querySelector("textarea")?.focus();
    return true;
  }

  draw() {
    for (const question of this.questions) {
      const part = this.parts.get(question.name);
      part.hidden = !this.isAsked(question);
      part.classList.toggle("active", question.name === this.active);
      const value = this.values[question.name];
      part.querySelectorAll(".option").forEach((button, i) => {
        const option = question.options[i].value;
        const chosen = Array.isArray(value) ? value.includes(option) : value === option;
        button.setAttribute("aria-checked", String(chosen));
      });
    }
  }
}
