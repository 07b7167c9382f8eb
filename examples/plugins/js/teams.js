// Alert handler: an Adaptive Card in Microsoft Teams, through the webhook of a workflow.
//
//   config: { "url": "credential:", "credential": "teams" }
//   credentials: { "teams": Url(file: "teams-webhook-url") }      (whoever knows the URL may post)

import { Failure, fetch, plugin, readConfig } from "./weir_plugin.js";

const SCHEMA = JSON.stringify({
  type: "object",
  additionalProperties: false,
  required: ["url"],
  properties: {
    url: { type: "string", description: "The webhook of the workflow, or credential: for that of a credential" },
    credential: { type: "string", description: "A credential of the kind Url" },
  },
});
// Teams refuses messages of more than 28 KB.
const ALERTS_MAX = 10;
const TEXT_MAX = 500;
const COLORS = { info: "accent", warning: "warning", error: "attention", critical: "attention" };

let config = {};

export const lifecycle = plugin({
  describe() {
    return { name: "teams", version: "0.1.0", configSchema: SCHEMA };
  },
  open(context) {
    config = readConfig(context, { url: "string" }, { credential: "string" });
    if (!/^(https?:\/\/|credential:)/.test(config.url)) {
      throw new Failure("config.url: expected an absolute http:// or https:// URL, or credential:", "misconfigured");
    }
  },
  check() {
    return "a webhook of Teams can only be tried by sending to it";
  },
});

export const alerts = plugin({
  deliver(notification) {
    const message = { type: "message", attachments: [attachment(notification)] };
    fetch("POST", config.url, { json: message, credential: config.credential ?? null });
    return null;
  },
});

function attachment(notification) {
  const shown = notification.alerts.slice(0, ALERTS_MAX);
  const leftOut = notification.alerts.length - shown.length + notification.truncated;
  const body = [heading(notification), ...shown.map(block)];
  if (shown.length === 0) body.push(textBlock(notification.text));
  if (leftOut > 0) body.push(textBlock(`+${leftOut} more`));
  const content = {
    $schema: "http://adaptivecards.io/schemas/adaptive-card.json",
    type: "AdaptiveCard",
    version: "1.4",
    body,
  };
  if (notification.externalUrl) {
    content.actions = [{ type: "Action.OpenUrl", title: "Open weir", url: notification.externalUrl }];
  }
  return { contentType: "application/vnd.microsoft.card.adaptive", contentUrl: null, content };
}

function heading(notification) {
  const resolved = notification.status === "resolved";
  return {
    ...textBlock(notification.title),
    weight: "bolder",
    size: "medium",
    color: resolved ? "good" : COLORS[notification.severity],
  };
}

function block(alert) {
  return textBlock(alert.count > 1 ? `${alert.body || alert.title} (${alert.count} times)` : alert.body || alert.title);
}

function textBlock(text) {
  return { type: "TextBlock", wrap: true, text: escape(cut(text, TEXT_MAX)) };
}

// A card's text is a piece of Markdown.
function escape(text) {
  return text.replace(/[\\`*_[\]<>]/g, (character) => `\\${character}`);
}

function cut(text, max) {
  const characters = Array.from(text);
  return characters.length > max ? `${characters.slice(0, max - 1).join("")}…` : text;
}
