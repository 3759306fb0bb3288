// The search runs in a worker, which browsers refuse to start from a file. Where the site is opened
// from a folder, this runs the same script in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(address) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      this.inside = this.frame.contentWindow;
      this.inside.postMessage = (data) => this.send((event) => this.onmessage?.(event), data);
      const script = this.inside.document.createElement("script");
      script.src = new URL(address, document.baseURI).href;
      this.loaded = new Promise((resolve) => (script.onload = resolve));
      this.inside.document.documentElement.append(script);
    }

    // As between threads: a copy of the data, and never before the sender is done.
    send(receive, data) {
      const event = new MessageEvent("message", { data: structuredClone(data) });
      setTimeout(() => receive(event));
    }

    async postMessage(data) {
      await this.loaded;
      this.send((event) => this.inside.dispatchEvent(event), data);
    }

    terminate() {
      this.frame.remove();
    }
  };
}
