// Job source: the workflow runs of a GitHub repository.
//
//   config: { "url": "https://api.github.com", "repository": "owner/name", "credential": "github" }
//   credentials: { "github": Bearer(file: "github.token", origins: ["https://api.github.com"]) }
//
// One request per poll, conditional while nothing is unfinished (an unchanged list costs nothing of the rate limit), and one
// for each unfinished run that the newest hundred do not show, at most five.

import { Failure, answerJson, header, log, plugin, readConfig, send } from "./weir_plugin.js";

const SCHEMA = JSON.stringify({
  type: "object",
  additionalProperties: false,
  required: ["repository"],
  properties: {
    url: { type: "string", description: "The API, https://api.github.com if left out" },
    repository: { type: "string", description: "owner/name" },
    credential: { type: "string" },
  },
});
const PER_PAGE = 100;
const OLD_RUNS_MAX = 5;
const WAITING = { queued: "queued", in_progress: "running", requested: "pending", waiting: "pending", pending: "pending" };
const CONCLUSIONS = {
  success: "completed",
  neutral: "completed",
  skipped: "cancelled",
  cancelled: "cancelled",
  stale: "cancelled",
  failure: "failed",
  startup_failure: "failed",
  action_required: "failed",
  timed_out: "timeout",
};

let config = {};

export const lifecycle = plugin({
  describe() {
    return { name: "github-actions", version: "0.1.0", configSchema: SCHEMA };
  },
  open(context) {
    config = readConfig(context, { repository: "string" }, { url: "string", credential: "string" });
    if (!/^[\w.-]+\/[\w.-]+$/.test(config.repository)) {
      throw new Failure("config.repository: expected owner/name", "misconfigured");
    }
    config.url = (config.url ?? "https://api.github.com").replace(/\/+$/, "");
  },
  check() {
    const answer = answerJson(get(`/actions/runs?per_page=1`));
    return `${config.repository}: ${answer.total_count} runs`;
  },
});

export const jobs = plugin({
  poll(cursor, open) {
    // With something unfinished the whole list is wanted: "unchanged" would not say which runs it shows.
    const headers = cursor && open.length === 0 ? [["if-none-match", cursor]] : [];
    const response = get(`/actions/runs?per_page=${PER_PAGE}`, headers);
    if (response.status === 304) return { observations: [], cursor, coverage: "partial" };
    const runs = answerJson(response).workflow_runs;
    if (!Array.isArray(runs)) throw new Failure("the answer has no `workflow_runs`", "transient");
    const observations = [...runs.map(observation), ...oldRuns(runs, open)].filter((seen) => seen !== null);
    return { observations, cursor: header(response, "etag"), coverage: "partial" };
  },
});

// Unfinished runs that the list does not show any more: only a look at each tells.
function oldRuns(runs, open) {
  const listed = new Set(runs.map((run) => `${run.id} ${run.run_attempt ?? 1}`));
  const old = open.filter((job) => !listed.has(`${job.id} ${job.run ?? 1}`)).slice(0, OLD_RUNS_MAX);
  return old.map((job) => {
    const attempt = encodeURIComponent(job.run ?? "1");
    const response = get(`/actions/runs/${encodeURIComponent(job.id)}/attempts/${attempt}`, [], [404]);
    return response.status === 404 ? { tag: "gone", val: job } : observation(answerJson(response));
  });
}

// One GET below the repository. 304 is an answer; everything else from 300 on is a failure.
function get(path, headers = [], alsoFine = []) {
  const response = send("GET", `${config.url}/repos/${config.repository}${path}`, {
    headers: [["accept", "application/vnd.github+json"], ...headers],
    credential: config.credential ?? null,
  });
  if (response.status < 300 || response.status === 304 || alsoFine.includes(response.status)) return response;
  throw refusal(response);
}

// GitHub answers 403 or 429 for a spent rate limit, and says when it begins anew.
function refusal(response) {
  const status = response.status;
  const seconds = Number(header(response, "retry-after") ?? NaN);
  const limited = status === 429 || (status === 403 && header(response, "x-ratelimit-remaining") === "0");
  if (limited || status >= 500) {
    return new Failure(`status ${status}`, "transient", Number.isFinite(seconds) ? seconds * 1000 : null);
  }
  if (status === 401 || status === 403) return new Failure(`status ${status}: may the token see it?`, "misconfigured");
  if (status === 404) return new Failure(`there is no repository ${config.repository} for this token`, "misconfigured");
  return new Failure(`status ${status}`, "permanent");
}

function observation(run) {
  const state = run.status === "completed" ? (CONCLUSIONS[run.conclusion] ?? "failed") : WAITING[run.status];
  if (state === undefined) {
    log(`run ${run.id} left out: unknown status ${JSON.stringify(run.status)}`, "warn");
    return null;
  }
  const finished = run.status === "completed";
  return {
    tag: "job",
    val: {
      id: String(run.id),
      // A run that is started again keeps its id.
      run: String(run.run_attempt ?? 1),
      workflow: run.name ?? null,
      state,
      name: run.display_title ?? null,
      position: null,
      created: time(run.created_at),
      started: state === "pending" || state === "queued" ? null : time(run.run_started_at),
      finished: finished ? time(run.updated_at) : null,
      steps: [],
      error: finished && state === "failed" ? `conclusion: ${run.conclusion}` : null,
      labels: [["branch", run.head_branch], ["event", run.event]].filter(([, value]) => value),
      detail: JSON.stringify({ url: run.html_url ?? null, number: run.run_number ?? null }),
    },
  };
}

function time(text) {
  const at = Date.parse(text ?? "");
  return Number.isNaN(at) ? null : at;
}
