"""Job source that cannot say what it is."""

from wit_world.exports import jobs, lifecycle


class Lifecycle:
    def describe(self) -> lifecycle.Manifest:
        raise ValueError("the cause in the crash report")

    def open(self, context: lifecycle.Context) -> None:
        pass

    def check(self) -> str:
        return "fine"


class Jobs:
    def poll(self, cursor, open) -> jobs.Page:
        return jobs.Page([], None, jobs.Coverage.COMPLETE)
