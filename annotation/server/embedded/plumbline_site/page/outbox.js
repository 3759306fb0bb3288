// Answers on their way to the server. An answer leaves this browser's storage only when the server
// has said that it is saved: closing the page, or a network that fails, loses nothing.

import { Refused, request } from "./server.js";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15000;

export class Outbox {
  // `changed` is told after every step; `refused(answer, error)` when the server takes one never.
  constructor(person, changed, refused, signedOut) {
    // Each answer has an entry of its own, so that two windows of a person do not write over each
    // other's.
    this.prefix = `plumbline.outbox.${person}.`;
    this.changed = changed;
    this.refused = refused;
    this.signedOut = signedOut;
    this.pause = FIRST_PAUSE;
    this.working = null;
    this.problem = null;
  }

  // Returns the answers that are not saved yet, the earliest first.
  waiting() {
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(this.prefix));
    const answers = keys.map((key) => JSON.parse(localStorage.getItem(key)));
    return answers.filter(Boolean).sort((one, other) => one.at - other.at);
  }

  has(record) {
    return localStorage.getItem(this.prefix + record) !== null;
  }

  add(content) {
    localStorage.setItem(this.prefix + content.record_id, JSON.stringify({ at: Date.now(), content }));
    this.changed();
    return this.flush();
  }

  // Resolves when nothing waits any more, or when the server refuses the sign-in.
  flush() {
    this.working ??= this.work().finally(() => {
      this.working = null;
      this.changed();
    });
    return this.working;
  }

  async work() {
    for (let queue = this.waiting(); queue.length; queue = this.waiting()) {
      try {
        await this.deliver(queue[0]);
        this.problem = null;
        this.pause = FIRST_PAUSE;
      } catch (error) {
        if (error instanceof Refused && error.status === 401) {
          this.signedOut();
          return;
        }
        if (error instanceof Refused) {
          this.remove(queue[0]);
          this.refused(queue[0].content, error);
          continue;
        }
        this.problem = error.message;
        this.changed();
        await new Promise((resolve) => setTimeout(resolve, this.pause));
        this.pause = Math.min(2 * this.pause, LONGEST_PAUSE);
      }
    }
  }

  async deliver(answer) {
    const reply = await request("POST", "/me/responses/bulk", { items: [answer.content] });
    const [saved] = reply.items;
    if (saved.item === null) throw new Refused(422, saved.error?.detail ?? "");
    this.remove(answer);
    this.changed();
  }

  // Removes an answer, unless a later one to the same pair has taken its place.
  remove(answer) {
    const key = this.prefix + answer.content.record_id;
    if (JSON.parse(localStorage.getItem(key))?.at === answer.at) localStorage.removeItem(key);
  }
}
