// Job source that misbehaves as its configuration says, or is fine.

import { fetch, log, plugin } from "./weir_plugin.js";

let config = {};

// Without `plugin` on purpose: an Error that nobody catches is a trap.
export const lifecycle = {
  describe() {
    return { name: "unruly-js", version: "0.1.0", configSchema: null };
  },
  open(context) {
    config = JSON.parse(context.config);
    while (config.do === "hang");
  },
  check() {
    return "fine";
  },
};

const guarded = plugin({
  poll() {
    throw new TypeError("the cause in the failure");
  },
});

function job(id, detail) {
  const none = { run: null, workflow: null, name: null, position: null, created: null, started: null, finished: null };
  return { tag: "job", val: { id, ...none, state: "running", steps: [], error: null, labels: [], detail } };
}

export const jobs = {
  poll() {
    if (config.do === "trap") throw new TypeError("the cause in the crash report");
    if (config.do === "raise") return guarded.poll();
    while (config.do === "spin");
    for (let heap = []; config.do === "bomb"; heap.push(new Uint8Array(1 << 20).fill(1)));
    if (config.do === "slow") fetch("GET", config.url);
    for (let n = 0; config.do === "talk" && n < 1_000_000; n++) log("and another thing");
    const observations = [];
    for (let n = 0; config.do === "huge" && n < 5001; n++) {
      observations.push({ tag: "gone", val: { id: String(n), run: null } });
    }
    if (config.do === "detail") observations.push(job("1", '{"a": '), job("2", "{}"));
    return { observations, cursor: null, coverage: "complete" };
  },
};
