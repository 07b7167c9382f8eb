// Job source {{name}}: reads lines of "ID STATE NAME", for example "7 running render".
//
//   config: { "url": "http://127.0.0.1:9000/jobs.txt" }
#include "plugin.h"

#define JOBS_MAX 1000

static text_t url;

void plugin_describe(exports_weir_plugin_lifecycle_manifest_t *manifest) {
  manifest->name = T("{{name}}");
  manifest->version = T("0.1.0");
  manifest->config_schema = some(T("{\"type\":\"object\",\"required\":[\"url\"],\"additionalProperties\":false,"
                                   "\"properties\":{\"url\":{\"type\":\"string\"}}}"));
}

bool plugin_open(exports_weir_plugin_lifecycle_context_t *context, failure_t *failure) {
  return config_string(context->config, "url", &url, failure);
}

bool plugin_check(text_t *answer, failure_t *failure) {
  response_t response;
  if (!fetch("GET", url, NULL, T(""), T(""), &response, failure)) return false;
  *answer = T("a list of jobs");
  return true;
}

// The next word before `end`; what is left stays in `rest`.
static text_t word(text_t *rest, uint8_t end) {
  size_t len = 0;
  while (len < rest->len && rest->ptr[len] != end) len++;
  text_t found = {rest->ptr, len};
  size_t skip = len < rest->len ? len + 1 : len;
  *rest = (text_t){rest->ptr + skip, rest->len - skip};
  return found;
}

static bool state_of(text_t word, uint8_t *state) {
  if (text_is(word, "queued")) *state = WEIR_PLUGIN_TYPES_JOB_STATE_QUEUED;
  else if (text_is(word, "running")) *state = WEIR_PLUGIN_TYPES_JOB_STATE_RUNNING;
  else if (text_is(word, "done")) *state = WEIR_PLUGIN_TYPES_JOB_STATE_COMPLETED;
  else if (text_is(word, "failed")) *state = WEIR_PLUGIN_TYPES_JOB_STATE_FAILED;
  else return false;
  return true;
}

bool plugin_poll(text_t *cursor, exports_weir_plugin_jobs_list_job_ref_t *open, exports_weir_plugin_jobs_page_t *page,
                 failure_t *failure) {
  (void)cursor;
  (void)open;
  response_t response;
  if (!fetch("GET", url, NULL, T(""), T(""), &response, failure)) return false;
  // Never take a strange answer for an empty list: every job would be missing.
  if (response.status != 200) return transient(failure, T("the answer holds no list"));
  page->observations.ptr = malloc(JOBS_MAX * sizeof *page->observations.ptr);
  memset(page->observations.ptr, 0, JOBS_MAX * sizeof *page->observations.ptr);
  text_t rest = {response.body.ptr, response.body.len};
  while (rest.len > 0) {
    text_t line = word(&rest, '\n');
    if (line.len == 0) continue;
    if (page->observations.len == JOBS_MAX) return permanent(failure, T("more than 1000 jobs"));
    weir_plugin_types_observation_t *observation = &page->observations.ptr[page->observations.len++];
    observation->tag = WEIR_PLUGIN_TYPES_OBSERVATION_JOB;
    weir_plugin_types_job_t *job = &observation->val.job;
    job->id = word(&line, ' ');
    // Never guess: a page of a proxy has no states, and no job is missing because of it.
    if (!state_of(word(&line, ' '), &job->state)) return transient(failure, T("a line without a known state"));
    job->name = (weir_option_string_t){line.len > 0, line};
    job->workflow = job->name;
    job->detail = T("{}");
  }
  // COMPLETE says that every unfinished job was named. Where the provider shows only the newest: PARTIAL.
  page->coverage = EXPORTS_WEIR_PLUGIN_JOBS_COVERAGE_COMPLETE;
  return true;
}
