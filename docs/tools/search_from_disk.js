// A page opened from disk may start no worker. Search asks for one: here it gets a frame of its page, which reads the same file.
globalThis.Worker = class {
  constructor(address) {
    this.frame = document.createElement("iframe");
    this.frame.hidden = true;
    document.body.append(this.frame);
    const inside = this.frame.contentWindow, script = inside.document.createElement("script");
    inside.postMessage = (data) => this.onmessage?.({ data: structuredClone(data) });
    this.ready = new Promise((done, failed) => Object.assign(script, { onload: done, onerror: failed, src: address }));
    this.ready.catch((error) => this.onerror?.(error));
    inside.document.body.append(script);
  }
  postMessage(data) {
    this.ready.then(() => this.frame.contentWindow?.onmessage({ data: structuredClone(data) }), () => {});
  }
  terminate() {
    this.frame.remove();
  }
};
