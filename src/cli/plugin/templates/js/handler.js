// Alert handler {{name}}: posts each notification as JSON.
//
//   config: { "url": "https://chat.example.net/hook" }

import { fetch, plugin, readConfig } from "./weir_plugin.js";

const SCHEMA = JSON.stringify({
  type: "object",
  additionalProperties: false,
  required: ["url"],
  properties: {
    url: { type: "string", description: "Where messages are posted" },
    credential: { type: "string", description: "Name of a credential of this receiver" },
  },
});

let config = {};

export const lifecycle = plugin({
  describe() {
    return { name: "{{name}}", version: "0.1.0", configSchema: SCHEMA };
  },
  open(context) {
    config = readConfig(context, { url: "string" }, { credential: "string" });
  },
  check() {
    // Reach the far side if that can be done without sending anything.
    return `posts to ${config.url}`;
  },
});

export const alerts = plugin({
  deliver(notification, prior) {
    const message = {
      title: notification.title,
      text: notification.text,
      status: notification.status,
      severity: notification.severity,
      more: notification.truncated,
    };
    // An answer of 300 or more is thrown as a failure: what returns from here was delivered.
    fetch("POST", config.url, { json: message, credential: config.credential ?? null });
    // What is returned comes back as `prior` with the next notification of the same `key`.
    return null;
  },
});
