// One pair on the page: the conversation, both responses, and what others answered.

import { mark } from "./differences.js";
import { $, create } from "./elements.js";

const WHO = { user: "User", assistant: "Assistant", system: "System", tool: "Tool", passage: "Text" };

export class PairView {
  constructor() {
    this.record = null;
    this.marked = false;
    this.plain = false;
    $("#conversation .fold").addEventListener("click", () => this.fold());
    $("#differences").addEventListener("click", () => this.toggleDifferences());
    $("#source").addEventListener("click", () => this.togglePlain());
    for (const article of document.querySelectorAll("#responses article")) {
      $(".grow", article).addEventListener("click", () => this.grow(article));
      $(".text", article).addEventListener("scroll", () => markMore(article), { passive: true });
    }
    for (const part of [$(".turns"), $(".last")]) {
      part.addEventListener("scroll", () => markMoreTurns(), { passive: true });
    }
    new ResizeObserver(() => this.markMore()).observe($("#responses"));
  }

  show(record) {
    this.record = record;
    this.marked = false;
    this.draw();
    this.drawVotes(record.votes);
    for (const article of document.querySelectorAll("#responses article")) article.classList.remove("grown");
    this.toTop();
  }

  // The next pair starts at its top: the page, and each part that scrolls by itself.
  toTop() {
    for (const part of document.querySelectorAll("#pair, .turns, .last, #responses .text, #votes")) part.scrollTop = 0;
    window.scrollTo(0, 0);
    this.markMore();
  }

  draw() {
    const { turns, a, b } = this.record;
    const shown = turns.map((turn) => {
      const element = create("div", { class: `turn ${turn.role}` });
      if (turns.length > 1 || turn.role !== "user") element.append(create("b", {}, WHO[turn.role] ?? turn.role));
      const text = create("div", { class: "text" });
      this.fill(text, turn);
      element.append(text);
      return element;
    });
    // The last message is what the responses answer: it stays in view while the others scroll.
    $(".last").replaceChildren(...shown.splice(-1));
    if (this.record.doubt) $(".last").prepend(create("p", { class: "doubt" }, `In doubt: the question ${this.record.doubt}.`));
    $(".turns").replaceChildren(...shown);
    $(".turns").hidden = !shown.length;
    const editing = a === null; // texts to correct: there are no responses
    $("#desk").classList.toggle("editing", editing);
    $("#conversation .title").textContent = editing ? "Text" : turns.length > 1 ? `Conversation (${turns.length} messages)` : "Prompt";
    $("#conversation .gist").textContent = turns.at(-1)?.text.slice(0, 200) ?? "";
    if (!editing) this.fill($("#response-a .text"), a);
    if (!editing) this.fill($("#response-b .text"), b);
    if (this.marked && !editing) mark($("#response-a .text"), $("#response-b .text"));
    $("#differences").setAttribute("aria-pressed", String(this.marked));
    $("#source").setAttribute("aria-pressed", String(this.plain));
    this.markMore();
  }

  // The HTML is the server's own; nothing of a text's HTML is in it.
  fill(element, written) {
    element.classList.toggle("as-written", this.plain);
    if (this.plain) element.textContent = written.text;
    else element.innerHTML = written.html;
    for (const block of element.children) block.dir = "auto";
    if (!written.text.trim()) element.append(create("p", { class: "soft" }, "(nothing but white space)"));
  }

  drawVotes(votes) {
    const box = $("#votes");
    box.hidden = !votes;
    $("#desk").classList.toggle("with-votes", Boolean(votes));
    box.replaceChildren();
    if (!votes) return;
    box.append(create("h2", {}, "What others answered"));
    let list = null;
    for (const line of votes.split("\n")) {
      if (line.startsWith("- ")) {
        list ??= box.appendChild(create("ul"));
        const item = list.appendChild(create("li"));
        const [, who, said] = line.match(/^- ([^:]{1,80}): (.*)$/) ?? [null, "", line.slice(2)];
        const [, choice, why] = said.match(/^([^:“]*)(?:: (.*))?$/) ?? [null, said, ""];
        item.append(create("b", {}, choice), create("span", { class: "who" }, who));
        if (why) item.append(create("p", { dir: "auto" }, why));
      } else box.append(create("p", {}, line));
    }
  }

  fold(folded = !$("#conversation").classList.contains("folded")) {
    $("#conversation").classList.toggle("folded", folded);
    $("#conversation .fold").setAttribute("aria-expanded", String(!folded));
    $("#conversation .arrow").textContent = folded ? "▸" : "▾";
    this.markMore();
  }

  toggleDifferences() {
    this.marked = !this.marked;
    this.draw();
  }

  togglePlain() {
    this.plain = !this.plain;
    this.draw();
  }

  grow(article) {
    article.classList.toggle("grown");
    markMore(article);
  }

  // Scrolls both responses, by a share of their height.
  scroll(share) {
    for (const text of document.querySelectorAll("#responses .text")) {
      text.scrollBy({ top: share * text.clientHeight, behavior: "instant" });
    }
    if (isStacked()) {
      window.scrollBy({ top: share * window.innerHeight, behavior: "instant" });
    }
  }

  markMore() {
    giveRoom();
    for (const article of document.querySelectorAll("#responses article")) markMore(article);
    markMoreTurns();
  }
}

function markMore(article) {
  article.classList.toggle("has-more", isCut($(".text", article)));
}

function markMoreTurns() {
  $("#conversation").classList.toggle("has-more", isCut($(".turns")) || isCut($(".last")));
}

function isStacked() {
  return getComputedStyle($("#responses")).flexDirection === "column";
}

function isCut(text) {
  return text.scrollHeight - text.clientHeight - text.scrollTop > 8;
}

// The conversation may be as high as the style says, and takes what the responses leave free.
function giveRoom() {
  const conversation = $("#conversation"), pair = $("#pair");
  conversation.style.removeProperty("--most");
  const articles = [...document.querySelectorAll("#responses article")];
  const end = pair.getBoundingClientRect().bottom - parseFloat(getComputedStyle(pair).paddingBottom);
  const used = Math.max(...articles.map((article) => article.getBoundingClientRect().bottom));
  // On a narrow page the strength is asked in a row of its own, which comes after the choice.
  const comes = isStacked() && $("#question-strength")?.hidden ? 50 : 0;
  const free = end - used - comes;
  if (free > 0) conversation.style.setProperty("--most", `${conversation.offsetHeight + free}px`);
}
