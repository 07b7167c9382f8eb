// Helper for weir plugins in JavaScript: any exception becomes a failure, http and failures by keyword.

import host from "weir:plugin/host@0.1.0";
import http from "weir:plugin/http@0.1.0";

// What to throw. The kind (transient, permanent, misconfigured, not-found, unsupported) says what weir shall do about it;
// without one it tries again later.
export class Failure extends Error {
  constructor(message, kind = null, retryAfterMs = null) {
    super(message);
    // The runtime hands this property, and nothing else of an Error, to the host.
    this.payload = { message: String(message), kind, retryAfterMs };
  }
}

// Wraps the functions of an exported interface: whatever they throw becomes a failure. An Error that is none of ours would
// be a trap.
export function plugin(functions) {
  const guarded = {};
  for (const [name, call] of Object.entries(functions)) {
    guarded[name] = (...args) => {
      try {
        return call(...args);
      } catch (error) {
        if (error && error.payload) throw error;
        log(`${error}\n${(error && error.stack) || ""}`, "warn");
        throw new Failure(String(error));
      }
    };
  }
  return guarded;
}

// A line in weir's log. Levels: debug, info, warn, error.
export function log(message, level = "info") {
  host.log(level, String(message));
}

function request(method, url, { json, body = null, headers = [], credential = null, timeoutMs = null } = {}) {
  if (json !== undefined) {
    body = bytes(JSON.stringify(json));
    headers = [...headers, ["content-type", "application/json"]];
  }
  return { method, url, headers, body, credential, timeoutMs };
}

// One request. An answer of 300 or more is thrown as the failure that fits.
export function fetch(method, url, options) {
  return http.fetch(request(method, url, options));
}

// As fetch, but any status is an answer.
export function send(method, url, options) {
  return http.send(request(method, url, options));
}

export function header(response, name) {
  const found = response.headers.find(([key]) => key.toLowerCase() === name);
  return found ? found[1] : null;
}

// The JSON in an answer; a web page of a proxy is a passing failure.
export function answerJson(response) {
  const answer = text(response.body);
  try {
    return JSON.parse(answer);
  } catch {
    throw new Failure(`the answer is no JSON: ${JSON.stringify(answer.slice(0, 80))}`, "transient");
  }
}

// Text as UTF-8. (The runtime has no TextEncoder and no TextDecoder.)
export function bytes(text) {
  const encoded = [];
  for (const character of text) {
    const code = character.codePointAt(0);
    if (code < 0x80) encoded.push(code);
    else if (code < 0x800) encoded.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    // Half of a pair has no place in UTF-8.
    else if (code >= 0xd800 && code < 0xe000) encoded.push(0xef, 0xbf, 0xbd);
    else if (code < 0x10000) encoded.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else encoded.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
  }
  return new Uint8Array(encoded);
}

// UTF-8 as text; what is none becomes U+FFFD.
export function text(bytes) {
  let decoded = "";
  let codes = [];
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at++];
    const more = first < 0x80 ? 0 : first >= 0xf0 && first < 0xf5 ? 3 : first >= 0xe0 ? 2 : first >= 0xc2 ? 1 : -1;
    let code = more < 0 || first >= 0xf5 ? 0xfffd : more === 0 ? first : first & (0x3f >> more);
    for (let n = 0; n < more && code !== 0xfffd; n++) {
      if ((bytes[at] & 0xc0) === 0x80) code = (code << 6) | (bytes[at++] & 63);
      else code = 0xfffd;
    }
    codes.push(code > 0x10ffff ? 0xfffd : code);
    if (codes.length === 4096) {
      decoded += String.fromCodePoint(...codes);
      codes = [];
    }
  }
  return decoded + String.fromCodePoint(...codes);
}

// `config` as an object. Both arguments map keys to what typeof says; a wrong, missing or unknown key is named.
export function readConfig(context, required, optional = {}) {
  const types = { ...required, ...optional };
  const config = JSON.parse(context.config);
  for (const [key, value] of Object.entries(config)) {
    if (!(key in types)) {
      throw new Failure(`config.${key}: unknown, expected one of ${Object.keys(types).join(", ")}`, "misconfigured");
    }
    if (typeof value !== types[key]) {
      throw new Failure(`config.${key}: expected ${types[key]}, found ${typeof value}`, "misconfigured");
    }
  }
  for (const key of Object.keys(required)) {
    if (!(key in config)) throw new Failure(`config.${key}: missing`, "misconfigured");
  }
  return config;
}
