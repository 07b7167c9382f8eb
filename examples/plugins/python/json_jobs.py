"""Job source: any JSON list of jobs, by a mapping of its fields. The defaults read Celery's jobs from Flower.

config: { "url": "http://127.0.0.1:5555/api/tasks?limit=1000", "complete": false }
config: { "url": "http://farm/api/jobs", "items": "data.jobs",
          "fields": { "id": "uid", "state": "status.phase", "started": "status.startTime" },
          "states": { "Succeeded": "completed", "Error": "failed" }, "labels": { "queue": "spec.queue" } }

Paths are dotted; a list of paths means the first one that holds something; "$key" is the key of a job where the jobs
are the values of an object. `complete` says that the list names every unfinished job.
"""

import json
import re
from datetime import datetime, timezone

from weir_plugin import Level, answer_json, fetch, log, misconfigured, plugin, read_config, transient
from wit_world.exports import jobs, lifecycle
from wit_world.imports.types import Job, JobState, Observation_Job

SCHEMA = """{
  "type": "object", "additionalProperties": false, "required": ["url"],
  "properties": {
    "url": {"type": "string", "description": "Answers GET with JSON"},
    "credential": {"type": "string"},
    "items": {"type": "string", "description": "Path of the list of jobs, or of the object whose values are jobs"},
    "fields": {"type": "object", "description": "Paths of id, state, name, workflow, created, started, finished, error"},
    "states": {"type": "object", "description": "The provider's words for weir's states"},
    "labels": {"type": "object", "description": "Paths of labels, by their names"},
    "complete": {"type": "boolean", "description": "The list names every unfinished job"}
  }
}"""
FIELDS = {
    "id": ["uuid", "id", "$key"],
    "state": ["state", "status"],
    "name": ["name"],
    "workflow": ["name", "workflow"],
    "created": ["received", "created", "created_at"],
    "started": ["started", "started_at"],
    "finished": ["succeeded", "failed", "revoked", "finished", "finished_at"],
    "error": ["exception", "error"],
}
# Lower case. Celery's words, and those that many others use.
STATES = {
    **{state.name.lower(): state for state in JobState},
    "received": JobState.QUEUED,
    "waiting": JobState.QUEUED,
    "scheduled": JobState.PENDING,
    "starting": JobState.INITIALIZING,
    "started": JobState.RUNNING,
    "active": JobState.RUNNING,
    "retry": JobState.PENDING,
    "success": JobState.COMPLETED,
    "succeeded": JobState.COMPLETED,
    "done": JobState.COMPLETED,
    "failure": JobState.FAILED,
    "error": JobState.FAILED,
    "revoked": JobState.CANCELLED,
    "canceled": JobState.CANCELLED,
}
JOBS_MAX = 5000
config = {}
states = dict(STATES)
fields = dict(FIELDS)


@plugin
class Lifecycle:
    def describe(self) -> lifecycle.Manifest:
        return lifecycle.Manifest("json-jobs", "0.1.0", SCHEMA)

    def open(self, context: lifecycle.Context) -> None:
        optional = {"credential": str, "items": str, "fields": dict, "states": dict, "labels": dict, "complete": bool}
        config.update(read_config(context, required={"url": str}, optional=optional))
        for field, paths in config.get("fields", {}).items():
            if field not in FIELDS:
                raise misconfigured(f"config.fields.{field}: unknown, expected one of {', '.join(FIELDS)}")
            fields[field] = [paths] if isinstance(paths, str) else list(paths)
        for word, state in config.get("states", {}).items():
            if str(state).upper() not in JobState.__members__:
                known = ", ".join(state.name.lower() for state in JobState)
                raise misconfigured(f"config.states.{word}: expected one of {known}")
            states[word.lower()] = JobState[state.upper()]

    def check(self) -> str:
        return f"{sum(1 for _ in listed())} jobs at {config['url']}"


@plugin
class Jobs:
    def poll(self, cursor, open) -> jobs.Page:
        observations, unknown = [], set()
        whole = config.get("complete", True)
        for key, item in listed():
            if len(observations) == JOBS_MAX:
                whole = False
                break
            job = job_of(key, item, unknown)
            if job is None:
                whole = False
            else:
                observations.append(Observation_Job(job))
        if unknown:
            words = ", ".join(sorted(unknown)[:5])
            log(f"jobs left out, no id or an unknown state: {words}; see config.states", Level.WARN)
        return jobs.Page(observations, None, jobs.Coverage.COMPLETE if whole else jobs.Coverage.PARTIAL)


def listed():
    """Pairs of key (none in a list) and job."""
    answer = answer_json(fetch("GET", config["url"], credential=config.get("credential")))
    items = at(answer, config["items"]) if config.get("items") else answer
    if isinstance(items, dict):
        return items.items()
    if isinstance(items, list):
        return ((None, item) for item in items)
    where = f"at `{config['items']}`" if config.get("items") else "in the answer"
    raise transient(f"there is no list of jobs {where}")


def job_of(key, item, unknown):
    if not isinstance(item, dict):
        unknown.add(type(item).__name__)
        return None
    word = text(first(key, item, "state"))
    state = states.get((word or "").lower())
    job_id = text(first(key, item, "id"))
    if state is None or not job_id:
        unknown.add(word or "no state")
        return None
    labels = [(name, text(at(item, path))) for name, path in config.get("labels", {}).items()]
    return Job(
        id=job_id,
        run=None,
        workflow=text(first(key, item, "workflow")),
        state=state,
        name=text(first(key, item, "name")),
        position=None,
        created=time_of(first(key, item, "created")),
        started=time_of(first(key, item, "started")),
        finished=time_of(first(key, item, "finished")),
        steps=[],
        error=text(first(key, item, "error")),
        labels=[(name, value) for name, value in labels if value],
        detail="{}",
    )


def first(key, item, field):
    for path in fields[field]:
        value = key if path == "$key" else at(item, path)
        if value not in (None, "", [], {}):
            return value
    return None


def at(value, path):
    for part in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def text(value):
    if value is None:
        return None
    return value if isinstance(value, str) else json.dumps(value)


def time_of(value):
    """Milliseconds, from seconds or milliseconds since 1970 or RFC 3339."""
    if isinstance(value, str):
        try:
            if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
                return time_of(float(value))
            moment = datetime.fromisoformat(value)
            # A time without a zone is read as UTC.
            moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
            return max(0, int(moment.timestamp() * 1000))
        except ValueError:
            return None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        # Seconds reach this number in the year 5138.
        return int(value * 1000) if value < 1e11 else int(value)
    return None
