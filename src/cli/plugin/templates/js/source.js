// Job source {{name}}: reads a JSON list of jobs, [{"id": "7", "state": "running", "name": "render"}, ...].
//
//   config: { "url": "http://127.0.0.1:9000/jobs" }

import { Failure, answerJson, fetch, plugin, readConfig } from "./weir_plugin.js";

const SCHEMA = JSON.stringify({
  type: "object",
  additionalProperties: false,
  required: ["url"],
  properties: {
    url: { type: "string", description: "Answers with the list of jobs" },
    credential: { type: "string", description: "Name of a credential of this source" },
  },
});
// The provider's words for the states of weir.
const STATES = {
  queued: "queued",
  running: "running",
  done: "completed",
  completed: "completed",
  failed: "failed",
  cancelled: "cancelled",
};

let config = {};

export const lifecycle = plugin({
  describe() {
    return { name: "{{name}}", version: "0.1.0", configSchema: SCHEMA };
  },
  open(context) {
    config = readConfig(context, { url: "string" }, { credential: "string" });
  },
  check() {
    return `${listed().length} jobs at ${config.url}`;
  },
});

export const jobs = plugin({
  poll(cursor, open) {
    const observations = listed().map((item) => ({ tag: "job", val: view(item) }));
    // "complete" says that every unfinished job was named. Where the provider shows only the newest: "partial".
    return { observations, cursor: null, coverage: "complete" };
  },
});

function listed() {
  const items = answerJson(fetch("GET", config.url, { credential: config.credential ?? null }));
  // Never take a strange answer for an empty list: every job would be missing.
  if (!Array.isArray(items)) throw new Failure("the answer is no list of jobs", "transient");
  return items;
}

function view(item) {
  const state = STATES[item.state];
  if (!state) throw new Failure(`unknown state ${item.state}`, "transient");
  // All that is known of the job now; the host finds out what changed. Times are milliseconds since 1970.
  return {
    id: String(item.id),
    run: null,
    workflow: item.name ?? null,
    state,
    name: item.name ?? null,
    position: null,
    created: item.created_ms ?? null,
    started: item.started_ms ?? null,
    finished: item.finished_ms ?? null,
    steps: [],
    error: item.error ?? null,
    labels: [],
    detail: "{}",
  };
}
