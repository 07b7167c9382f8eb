// Alert handler {{name}}: posts each notification as JSON.
//
//   config: { "url": "https://chat.example.net/hook" }
#include "plugin.h"

static text_t url, credential;

void plugin_describe(exports_weir_plugin_lifecycle_manifest_t *manifest) {
  manifest->name = T("{{name}}");
  manifest->version = T("0.1.0");
  manifest->config_schema = some(T("{\"type\":\"object\",\"required\":[\"url\"],\"additionalProperties\":false,"
                                   "\"properties\":{\"url\":{\"type\":\"string\"},\"credential\":{\"type\":\"string\"}}}"));
}

bool plugin_open(exports_weir_plugin_lifecycle_context_t *context, failure_t *failure) {
  if (!config_string(context->config, "url", &url, failure)) return false;
  text_t value;
  if (json_field(context->config, "credential", &value) && !json_string(value, &credential))
    return misconfigured(failure, T("config.credential: expected a string"));
  return true;
}

bool plugin_check(text_t *answer, failure_t *failure) {
  // Reach the far side if that can be done without sending anything.
  (void)failure;
  *answer = T("posts to config.url");
  return true;
}

bool plugin_deliver(exports_weir_plugin_alerts_notification_t *notification, text_t *prior,
                    weir_option_string_t *receipt, failure_t *failure) {
  // *receipt = some(...) would come back as `prior` with the next notification of the same `key`.
  (void)prior;
  (void)receipt;
  buffer_t body = {0};
  put(&body, T("{\"title\":"));
  put_json(&body, notification->title);
  put(&body, T(",\"text\":"));
  put_json(&body, notification->text);
  put(&body, notification->status == EXPORTS_WEIR_PLUGIN_ALERTS_STATUS_RESOLVED ? T(",\"status\":\"resolved\"")
                                                                                : T(",\"status\":\"firing\""));
  put(&body, T("}"));
  response_t response;
  // An answer of 300 or more is a failure already: true means delivered.
  return fetch("POST", url, "application/json", text_of(&body), credential, &response, failure);
}
