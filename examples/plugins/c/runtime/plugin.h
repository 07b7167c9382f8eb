// Helper for weir plugins in C: memory, texts, JSON and http without a C library.
//
// A plugin includes this file and defines the functions under "You write these". Memory needs no care: what `open`
// allocated stays, what any other call allocated is gone when the next call begins. Nothing is ever freed by hand.
#ifndef WEIR_PLUGIN_H
#define WEIR_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Generated from wit/plugin.wit: of the world alert-handler or job-source, whichever folder the compiler is shown.
#include "weir.h"

typedef weir_string_t text_t;
typedef weir_plugin_types_failure_t failure_t;
typedef weir_plugin_http_response_t response_t;

// ---- You write these ------------------------------------------------------------------------------------------------

// Name, version and the JSON schema of the configuration. Pure: called before plugin_open.
void plugin_describe(exports_weir_plugin_lifecycle_manifest_t *manifest);
// Once per instance. Like every function here: true, or false with the failure filled in.
bool plugin_open(exports_weir_plugin_lifecycle_context_t *context, failure_t *failure);
// Reaches the far side and changes nothing; says what is there.
bool plugin_check(text_t *answer, failure_t *failure);
#ifdef WEIR_ALERT_HANDLER
// `prior` and `receipt` may be left alone: no receipt is set unless receipt->is_some is.
bool plugin_deliver(exports_weir_plugin_alerts_notification_t *notification, text_t *prior,
                    weir_option_string_t *receipt, failure_t *failure);
#else
bool plugin_poll(text_t *cursor, exports_weir_plugin_jobs_list_job_ref_t *open,
                 exports_weir_plugin_jobs_page_t *page, failure_t *failure);
#endif

// ---- Texts ----------------------------------------------------------------------------------------------------------

// A text_t of a literal, without its length being counted at run time.
#define T(literal) ((text_t){(uint8_t *)(literal), sizeof(literal) - 1})

text_t text(const char *zero_terminated);
bool text_is(text_t text, const char *other);
bool text_starts(text_t text, const char *start);
weir_option_string_t some(text_t text);

// A text that grows.
typedef struct {
  uint8_t *ptr;
  size_t len;
  size_t capacity;
} buffer_t;

void put(buffer_t *buffer, text_t text);
void put_uint(buffer_t *buffer, uint64_t number);
// `text` as a JSON string, quotes included. Control characters are escaped.
void put_json(buffer_t *buffer, text_t text);
text_t text_of(const buffer_t *buffer);

// ---- Failures -------------------------------------------------------------------------------------------------------

// Fills the failure and returns false, so that `return transient(failure, "...")` ends a call.
bool transient(failure_t *failure, text_t message);
bool permanent(failure_t *failure, text_t message);
bool misconfigured(failure_t *failure, text_t message);

// ---- JSON -----------------------------------------------------------------------------------------------------------

// The raw value of a key of a JSON object; false where the object has no such key or is none.
bool json_field(text_t object, const char *key, text_t *value);
// The string of a raw value, its escapes resolved; false where the value is none.
bool json_string(text_t value, text_t *string);
// The number of a raw value of digits alone; false where it is none.
bool json_uint(text_t value, uint64_t *number);
// A string of the configuration; false with a failure that names the key where it is absent or no string.
bool config_string(text_t config, const char *key, text_t *string, failure_t *failure);

// ---- The world ------------------------------------------------------------------------------------------------------

// One request whose answer of 300 or more is a failure already. `body` and `credential` may be of length 0: none.
bool fetch(const char *method, text_t url, const char *content_type, text_t body, text_t credential,
           response_t *response, failure_t *failure);
// level: WEIR_PLUGIN_HOST_LEVEL_INFO and its like.
void say(weir_plugin_host_level_t level, text_t message);

#endif
