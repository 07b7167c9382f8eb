// Job source that misbehaves as its configuration says: trap, spin, bomb, slow, or fine.

import { fetch, plugin } from "./weir_plugin.js";

let config = {};

// Without `plugin` on purpose: an Error that nobody catches is a trap.
export const lifecycle = {
  describe() {
    return { name: "unruly-js", version: "0.1.0", configSchema: null };
  },
  open(context) {
    config = JSON.parse(context.config);
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

export const jobs = {
  poll() {
    if (config.do === "trap") throw new TypeError("the cause in the crash report");
    if (config.do === "raise") return guarded.poll();
    while (config.do === "spin");
    for (let heap = []; config.do === "bomb"; heap.push(new Uint8Array(1 << 20).fill(1)));
    if (config.do === "slow") fetch("GET", config.url);
    return { observations: [], cursor: null, coverage: "complete" };
  },
};
