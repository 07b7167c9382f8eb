"""Job source that misbehaves as its configuration says, or is fine."""

import json

import weir_plugin
from weir_plugin import fetch, log
from wit_world.exports import jobs, lifecycle
from wit_world.imports.types import Job, JobRef, JobState, Observation_Gone, Observation_Job

config = {}


# Without the decorator on purpose: an exception that nobody catches is a trap.
class Lifecycle:
    def describe(self) -> lifecycle.Manifest:
        return lifecycle.Manifest("unruly-python", "0.1.0", None)

    def open(self, context: lifecycle.Context) -> None:
        config.update(json.loads(context.config))
        while config["do"] == "hang":
            pass

    def check(self) -> str:
        return "fine"


class Jobs:
    def poll(self, cursor, open) -> jobs.Page:
        what = config["do"]
        if what == "trap":
            raise ValueError("the cause in the crash report")
        if what == "raise":
            return guarded.poll()
        while what == "spin":
            pass
        heap = []
        while what == "bomb":
            heap.append(bytes(1 << 20))
        if what == "slow":
            fetch("GET", config["url"])
        if what == "huge":
            return page([Observation_Gone(JobRef(str(n), None)) for n in range(5001)])
        if what == "detail":
            return page([Observation_Job(job("1", '{"a": ')), Observation_Job(job("2", "{}"))])
        if what == "talk":
            for _ in range(1_000_000):
                log("and another thing")
        return page([])


def page(observations):
    return jobs.Page(observations, None, jobs.Coverage.COMPLETE)


def job(id, detail):
    return Job(id, None, None, JobState.RUNNING, None, None, None, None, None, [], None, [], detail)


@weir_plugin.plugin
class Guarded:
    def poll(self):
        raise ValueError("the cause in the failure")


guarded = Guarded()
