"""Alert handler: push messages by a Gotify server.

config: { "url": "https://gotify.example.net", "credential": "gotify" }
credentials: { "gotify": Header(name: "X-Gotify-Key", file: "gotify.token", origins: ["https://gotify.example.net"]) }
"""

from typing import Optional

from weir_plugin import answer_json, fetch, plugin, read_config, transient
from wit_world.exports import alerts, lifecycle

SCHEMA = """{
  "type": "object", "additionalProperties": false, "required": ["url", "credential"],
  "properties": {
    "url": {"type": "string", "description": "Where Gotify answers"},
    "credential": {"type": "string", "description": "The credential with the application's token"}
  }
}"""
MESSAGE_MAX = 8000
# 8 and more rings on a phone.
PRIORITIES = {
    alerts.Severity.INFO: 2,
    alerts.Severity.WARNING: 5,
    alerts.Severity.ERROR: 8,
    alerts.Severity.CRITICAL: 10,
}
config = {}


@plugin
class Lifecycle:
    def describe(self) -> lifecycle.Manifest:
        return lifecycle.Manifest("gotify", "0.1.0", SCHEMA)

    def open(self, context: lifecycle.Context) -> None:
        config.update(read_config(context, required={"url": str, "credential": str}))

    def check(self) -> str:
        health = answer_json(fetch("GET", address("/health")))
        if health.get("health") != "green":
            raise transient(f"Gotify says that it is {health.get('health')}")
        return f"Gotify at {config['url']}"


@plugin
class Alerts:
    def deliver(self, notification: alerts.Notification, prior: Optional[str]) -> Optional[str]:
        message = {
            "title": notification.title,
            "message": text_of(notification),
            "priority": priority_of(notification),
        }
        if notification.external_url:
            message["extras"] = {"client::notification": {"click": {"url": notification.external_url}}}
        answer = answer_json(fetch("POST", address("/message"), json=message, credential=config["credential"]))
        return str(answer.get("id", ""))


def address(path):
    return config["url"].rstrip("/") + path


def priority_of(notification):
    if notification.status == alerts.Status.RESOLVED:
        return 2
    return PRIORITIES[notification.severity]


def text_of(notification):
    text = notification.text or notification.title
    if len(text) > MESSAGE_MAX:
        lines = text[:MESSAGE_MAX].splitlines()[:-1]
        left_out = len(text.splitlines()) - len(lines)
        text = "\n".join(lines) + f"\n+{left_out} more"
    return text
