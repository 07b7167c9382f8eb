"""Job source {{name}}: reads a JSON list of jobs, [{"id": "7", "state": "running", "name": "render"}, ...].

config: { "url": "http://127.0.0.1:9000/jobs" }
"""

from weir_plugin import answer_json, fetch, plugin, read_config, transient
from wit_world.exports import jobs, lifecycle
from wit_world.imports.types import Job, JobState, Observation_Job

SCHEMA = """{
  "type": "object", "additionalProperties": false, "required": ["url"],
  "properties": {
    "url": {"type": "string", "description": "Answers with the list of jobs"},
    "credential": {"type": "string", "description": "Name of a credential of this source"}
  }
}"""
# The provider's words for the states of weir.
STATES = {
    "queued": JobState.QUEUED,
    "running": JobState.RUNNING,
    "done": JobState.COMPLETED,
    "completed": JobState.COMPLETED,
    "failed": JobState.FAILED,
    "cancelled": JobState.CANCELLED,
}
config = {}


@plugin
class Lifecycle:
    def describe(self) -> lifecycle.Manifest:
        return lifecycle.Manifest("{{name}}", "0.1.0", SCHEMA)

    def open(self, context: lifecycle.Context) -> None:
        config.update(read_config(context, required={"url": str}, optional={"credential": str}))

    def check(self) -> str:
        return f"{len(listed())} jobs at {config['url']}"


@plugin
class Jobs:
    def poll(self, cursor, open) -> jobs.Page:
        observations = [Observation_Job(view(item)) for item in listed()]
        # COMPLETE says that every unfinished job was named. Where the provider shows only the newest: PARTIAL.
        return jobs.Page(observations, None, jobs.Coverage.COMPLETE)


def listed():
    items = answer_json(fetch("GET", config["url"], credential=config.get("credential")))
    # Never take a strange answer for an empty list: every job would be missing.
    if not isinstance(items, list):
        raise transient("the answer is no list of jobs")
    return items


def view(item):
    # All that is known of the job now; the host finds out what changed. Times are milliseconds since 1970.
    return Job(
        id=str(item["id"]),
        run=None,
        workflow=item.get("name"),
        state=STATES[item["state"]],
        name=item.get("name"),
        position=None,
        created=item.get("created_ms"),
        started=item.get("started_ms"),
        finished=item.get("finished_ms"),
        steps=[],
        error=item.get("error"),
        labels=[],
        detail="{}",
    )
