// Job source that misbehaves as its configuration says: trap, spin, bomb, slow, or fine.
#include "plugin.h"

static text_t what, url;

void plugin_describe(exports_weir_plugin_lifecycle_manifest_t *manifest) {
  manifest->name = T("unruly-c");
  manifest->version = T("0.1.0");
}

bool plugin_open(exports_weir_plugin_lifecycle_context_t *context, failure_t *failure) {
  return config_string(context->config, "do", &what, failure) && config_string(context->config, "url", &url, failure);
}

bool plugin_check(text_t *answer, failure_t *failure) {
  (void)failure;
  *answer = T("fine");
  return true;
}

bool plugin_poll(text_t *cursor, exports_weir_plugin_jobs_list_job_ref_t *open, exports_weir_plugin_jobs_page_t *page,
                 failure_t *failure) {
  (void)cursor;
  (void)open;
  if (text_is(what, "trap")) {
    say(WEIR_PLUGIN_HOST_LEVEL_ERROR, T("the cause in the crash report"));
    abort();
  }
  if (text_is(what, "raise")) return transient(failure, T("the cause in the failure"));
  for (volatile int turning = text_is(what, "spin"); turning;);
  while (text_is(what, "bomb")) *(volatile uint8_t *)malloc(1 << 20) = 1;
  response_t response;
  if (text_is(what, "slow") && !fetch("GET", url, NULL, T(""), T(""), &response, failure)) return false;
  page->coverage = EXPORTS_WEIR_PLUGIN_JOBS_COVERAGE_COMPLETE;
  return true;
}
