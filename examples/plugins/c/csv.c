// Job source: a job list as CSV, written by a cron job, a render farm or a spreadsheet. C without a C library.
//
//   config: { "url": "http://farm:8080/jobs.csv", "credential": "farm" }                   (credential: optional)
//
// The first line names the columns, in any order: id and state must be there; name, workflow, created, started,
// finished and error may be. Times are RFC 3339 in UTC or seconds since 1970. Every unfinished job must be listed.
#include "plugin.h"

#define COLUMNS_MAX 32
#define ROWS_MAX 5000

enum column { ID, STATE, NAME, WORKFLOW, CREATED, STARTED, FINISHED, ERROR, COLUMNS };
static const char *const column_names[COLUMNS] = {"id",      "state",   "name",     "workflow",
                                                  "created", "started", "finished", "error"};
// In the order of the contract's job-state.
static const char *const state_names[] = {"pending", "queued",     "initializing", "running", "completing", "paused",
                                          "cancelling", "completed", "partial",  "failed",  "cancelled",  "timeout"};

static text_t url, credential;

void plugin_describe(exports_weir_plugin_lifecycle_manifest_t *manifest) {
  manifest->name = T("csv");
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

// ---- CSV ------------------------------------------------------------------------------------------------------------

typedef struct {
  text_t rest;
} csv_t;

// The next field; `last` says that its row ends with it. Quotes are resolved.
static text_t next_field(csv_t *csv, bool *last) {
  buffer_t quoted = {0};
  size_t at = 0;
  bool is_quoted = csv->rest.len > 0 && csv->rest.ptr[0] == '"';
  if (is_quoted) {
    for (at = 1; at < csv->rest.len; at++) {
      if (csv->rest.ptr[at] == '"') {
        at++;
        if (at >= csv->rest.len || csv->rest.ptr[at] != '"') break;
      }
      put(&quoted, (text_t){csv->rest.ptr + at, 1});
    }
  }
  size_t start = is_quoted ? at : 0;
  for (at = start; at < csv->rest.len && csv->rest.ptr[at] != ',' && csv->rest.ptr[at] != '\n';) at++;
  text_t field = is_quoted ? text_of(&quoted) : (text_t){csv->rest.ptr, at};
  if (!is_quoted && field.len > 0 && field.ptr[field.len - 1] == '\r') field.len--;
  *last = at >= csv->rest.len || csv->rest.ptr[at] == '\n';
  size_t skip = at < csv->rest.len ? at + 1 : at;
  csv->rest = (text_t){csv->rest.ptr + skip, csv->rest.len - skip};
  return field;
}

// Reads one row into `fields`, which may be fewer than there are; returns how many there were.
static size_t next_row(csv_t *csv, text_t fields[COLUMNS_MAX]) {
  size_t count = 0;
  bool last = false;
  while (!last) {
    text_t field = next_field(csv, &last);
    if (count < COLUMNS_MAX) fields[count] = field;
    count++;
  }
  return count < COLUMNS_MAX ? count : COLUMNS_MAX;
}

// ---- Times ----------------------------------------------------------------------------------------------------------

static bool digits(text_t text, size_t at, size_t count, int64_t *number) {
  if (at + count > text.len) return false;
  uint64_t parsed;
  if (!json_uint((text_t){text.ptr + at, count}, &parsed)) return false;
  *number = (int64_t)parsed;
  return true;
}

// Days from 1970-01-01 to a date of the Gregorian calendar, counted in years that begin in March.
static int64_t days(int64_t year, int64_t month, int64_t day) {
  year -= month <= 2;
  int64_t era = year / 400, of_era = year % 400;
  int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

// Milliseconds; none where the text is empty or no time.
static weir_plugin_types_option_timestamp_t time_of(text_t text) {
  weir_plugin_types_option_timestamp_t none = {false, 0};
  uint64_t seconds;
  if (json_uint(text, &seconds)) return (weir_plugin_types_option_timestamp_t){true, seconds * 1000};
  int64_t year, month, day, hour, minute, second;
  if (text.len < 20 || text.ptr[text.len - 1] != 'Z') return none;
  if (!digits(text, 0, 4, &year) || !digits(text, 5, 2, &month) || !digits(text, 8, 2, &day)) return none;
  if (!digits(text, 11, 2, &hour) || !digits(text, 14, 2, &minute) || !digits(text, 17, 2, &second)) return none;
  if (year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60)
    return none;
  int64_t at = (days(year, month, day) * 24 + hour) * 3600 + minute * 60 + second;
  return (weir_plugin_types_option_timestamp_t){true, (uint64_t)at * 1000};
}

// ---- Jobs -----------------------------------------------------------------------------------------------------------

static bool state_of(text_t text, uint8_t *state) {
  for (size_t i = 0; i < sizeof state_names / sizeof *state_names; i++) {
    if (text_is(text, state_names[i])) {
      *state = (uint8_t)i;
      return true;
    }
  }
  return false;
}

static weir_option_string_t some_unless_empty(text_t text) {
  return (weir_option_string_t){text.len > 0, text};
}

static bool get(response_t *response, failure_t *failure) {
  return fetch("GET", url, NULL, T(""), credential, response, failure);
}

// Finds the columns by the first line; a web page instead of a table has no `id`.
static bool read_head(csv_t *csv, size_t place[COLUMNS], failure_t *failure) {
  text_t fields[COLUMNS_MAX];
  size_t count = next_row(csv, fields);
  for (size_t column = 0; column < COLUMNS; column++) {
    place[column] = COLUMNS_MAX;
    for (size_t i = 0; i < count; i++)
      if (text_is(fields[i], column_names[column])) place[column] = i;
  }
  if (place[ID] < COLUMNS_MAX && place[STATE] < COLUMNS_MAX) return true;
  return transient(failure, T("the answer is no CSV with the columns `id` and `state`"));
}

bool plugin_check(text_t *answer, failure_t *failure) {
  response_t response;
  size_t place[COLUMNS];
  if (!get(&response, failure)) return false;
  csv_t csv = {{response.body.ptr, response.body.len}};
  if (!read_head(&csv, place, failure)) return false;
  *answer = T("a job list in CSV");
  return true;
}

static bool job_of(const text_t fields[COLUMNS_MAX], size_t count, const size_t place[COLUMNS],
                   weir_plugin_types_job_t *job) {
  text_t of[COLUMNS];
  for (size_t column = 0; column < COLUMNS; column++)
    of[column] = place[column] < count ? fields[place[column]] : T("");
  if (of[ID].len == 0 || !state_of(of[STATE], &job->state)) return false;
  job->id = of[ID];
  job->name = some_unless_empty(of[NAME]);
  job->workflow = some_unless_empty(of[WORKFLOW]);
  job->created = time_of(of[CREATED]);
  job->started = time_of(of[STARTED]);
  job->finished = time_of(of[FINISHED]);
  job->error = some_unless_empty(of[ERROR]);
  job->detail = T("{}");
  return true;
}

bool plugin_poll(text_t *cursor, exports_weir_plugin_jobs_list_job_ref_t *open, exports_weir_plugin_jobs_page_t *page,
                 failure_t *failure) {
  (void)cursor;
  (void)open;
  response_t response;
  size_t place[COLUMNS];
  if (!get(&response, failure)) return false;
  csv_t csv = {{response.body.ptr, response.body.len}};
  if (!read_head(&csv, place, failure)) return false;

  size_t rows = 0;
  for (size_t i = 0; i < csv.rest.len; i++) rows += csv.rest.ptr[i] == '\n';
  rows = rows + 1 < ROWS_MAX ? rows + 1 : ROWS_MAX;
  page->observations.ptr = malloc(rows * sizeof *page->observations.ptr);
  memset(page->observations.ptr, 0, rows * sizeof *page->observations.ptr);

  size_t unreadable = 0;
  while (csv.rest.len > 0 && page->observations.len < rows) {
    text_t fields[COLUMNS_MAX];
    size_t count = next_row(&csv, fields);
    if (count == 1 && fields[0].len == 0) continue;
    weir_plugin_types_observation_t *observation = &page->observations.ptr[page->observations.len];
    observation->tag = WEIR_PLUGIN_TYPES_OBSERVATION_JOB;
    if (job_of(fields, count, place, &observation->val.job)) page->observations.len++;
    else unreadable++;
  }
  // What was left out may be an unfinished job: then nobody may be called missing.
  bool whole = unreadable == 0 && csv.rest.len == 0;
  page->coverage = whole ? EXPORTS_WEIR_PLUGIN_JOBS_COVERAGE_COMPLETE : EXPORTS_WEIR_PLUGIN_JOBS_COVERAGE_PARTIAL;
  if (unreadable > 0) {
    buffer_t message = {0};
    put_uint(&message, unreadable);
    put(&message, T(" rows without an id or with an unknown state were left out"));
    say(WEIR_PLUGIN_HOST_LEVEL_WARN, text_of(&message));
  }
  return true;
}
