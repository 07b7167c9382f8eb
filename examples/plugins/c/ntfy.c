// Alert handler: one push message per notification on an ntfy topic. C without a C library.
//
//   config: { "server": "https://ntfy.sh", "topic": "my-topic", "credential": "ntfy" }      (credential: optional)
#include "plugin.h"

static text_t server, topic, credential;

void plugin_describe(exports_weir_plugin_lifecycle_manifest_t *manifest) {
  manifest->name = T("ntfy-c");
  manifest->version = T("0.1.0");
  manifest->config_schema = some(T("{\"type\":\"object\",\"required\":[\"server\",\"topic\"],\"additionalProperties\":false,"
                                   "\"properties\":{\"server\":{\"type\":\"string\"},\"topic\":{\"type\":\"string\"},"
                                   "\"credential\":{\"type\":\"string\"}}}"));
}

bool plugin_open(exports_weir_plugin_lifecycle_context_t *context, failure_t *failure) {
  if (!config_string(context->config, "server", &server, failure)) return false;
  if (!config_string(context->config, "topic", &topic, failure)) return false;
  if (!text_starts(server, "http://") && !text_starts(server, "https://"))
    return misconfigured(failure, T("config.server: expected an absolute http:// or https:// URL"));
  while (server.len > 0 && server.ptr[server.len - 1] == '/') server.len--;
  text_t value;
  if (json_field(context->config, "credential", &value) && !json_string(value, &credential))
    return misconfigured(failure, T("config.credential: expected a string"));
  return true;
}

bool plugin_check(text_t *answer, failure_t *failure) {
  buffer_t url = {0};
  put(&url, server);
  put(&url, T("/v1/health"));
  response_t response;
  if (!fetch("GET", text_of(&url), NULL, T(""), credential, &response, failure)) return false;
  text_t healthy, body = {response.body.ptr, response.body.len};
  if (!json_field(body, "healthy", &healthy)) return transient(failure, T("this does not answer as ntfy does"));
  if (!text_is(healthy, "true")) return transient(failure, T("ntfy says that it is not healthy"));
  buffer_t said = {0};
  put(&said, T("ntfy topic "));
  put(&said, topic);
  *answer = text_of(&said);
  return true;
}

// At most `max` bytes, cut between characters.
static text_t cut(text_t text, size_t max) {
  if (text.len <= max) return text;
  while (max > 0 && (text.ptr[max] & 0xc0) == 0x80) max--;
  return (text_t){text.ptr, max};
}

bool plugin_deliver(exports_weir_plugin_alerts_notification_t *notification, text_t *prior,
                    weir_option_string_t *receipt, failure_t *failure) {
  (void)prior;
  (void)receipt;
  static const uint64_t priorities[] = {2, 3, 4, 5};
  bool resolved = notification->status == EXPORTS_WEIR_PLUGIN_ALERTS_STATUS_RESOLVED;
  // As JSON to the server's root: ntfy's headers carry ASCII only, and titles do not.
  buffer_t body = {0};
  put(&body, T("{\"topic\":"));
  put_json(&body, topic);
  put(&body, T(",\"title\":"));
  put_json(&body, cut(notification->title, 250));
  // ntfy turns longer messages into attachments.
  put(&body, T(",\"message\":"));
  put_json(&body, cut(notification->text, 4000));
  put(&body, T(",\"priority\":"));
  put_uint(&body, resolved ? 3 : priorities[notification->severity & 3]);
  put(&body, resolved ? T(",\"tags\":[\"white_check_mark\"]") : T(",\"tags\":[\"warning\"]"));
  if (notification->external_url.is_some) {
    put(&body, T(",\"click\":"));
    put_json(&body, notification->external_url.val);
  }
  put(&body, T("}"));
  response_t response;
  return fetch("POST", server, "application/json", text_of(&body), credential, &response, failure);
}
