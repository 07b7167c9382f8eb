"""Alert handler {{name}}: posts each notification as JSON.

config: { "url": "https://chat.example.net/hook" }
"""

from typing import Optional

from weir_plugin import fetch, plugin, read_config
from wit_world.exports import alerts, lifecycle

SCHEMA = """{
  "type": "object", "additionalProperties": false, "required": ["url"],
  "properties": {
    "url": {"type": "string", "description": "Where messages are posted"},
    "credential": {"type": "string", "description": "Name of a credential of this receiver"}
  }
}"""
config = {}


@plugin
class Lifecycle:
    def describe(self) -> lifecycle.Manifest:
        return lifecycle.Manifest("{{name}}", "0.1.0", SCHEMA)

    def open(self, context: lifecycle.Context) -> None:
        config.update(read_config(context, required={"url": str}, optional={"credential": str}))

    def check(self) -> str:
        # Reach the far side if that can be done without sending anything.
        return f"posts to {config['url']}"


@plugin
class Alerts:
    def deliver(self, notification: alerts.Notification, prior: Optional[str]) -> Optional[str]:
        message = {
            "title": notification.title,
            "text": notification.text,
            "status": notification.status.name.lower(),
            "severity": notification.severity.name.lower(),
            "more": notification.truncated,
        }
        # An answer of 300 or more is raised as a failure: what returns from here was delivered.
        fetch("POST", config["url"], json=message, credential=config.get("credential"))
        # What is returned comes back as `prior` with the next notification of the same `key`.
        return None
