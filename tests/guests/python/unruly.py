"""Job source that misbehaves as its configuration says: trap, spin, bomb, slow, or fine."""

import json

import weir_plugin
from weir_plugin import fetch
from wit_world.exports import jobs, lifecycle

config = {}


# Without the decorator on purpose: an exception that nobody catches is a trap.
class Lifecycle:
    def describe(self) -> lifecycle.Manifest:
        return lifecycle.Manifest("unruly-python", "0.1.0", None)

    def open(self, context: lifecycle.Context) -> None:
        config.update(json.loads(context.config))

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
        return jobs.Page([], None, jobs.Coverage.COMPLETE)


@weir_plugin.plugin
class Guarded:
    def poll(self):
        raise ValueError("the cause in the failure")


guarded = Guarded()
