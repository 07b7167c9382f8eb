// The helper's bodies, and the way from the generated exports to the plugin's functions.
#include "plugin.h"

// ---- Memory: one heap that is cut back when a call begins -----------------------------------------------------------

#define PAGE 65536u

extern uint8_t __heap_base;
static uintptr_t top;
// Everything below was allocated by `open` and stays.
static uintptr_t kept;
// The last call is over, and the host has read its results by the time anything is allocated again.
static bool call_is_over;

static void *take(size_t size, size_t align) {
  if (top == 0) top = kept = (uintptr_t)&__heap_base;
  if (call_is_over) {
    top = kept;
    call_is_over = false;
  }
  if (align < 8) align = 8;
  uintptr_t at = (top + align - 1) & ~(uintptr_t)(align - 1);
  if (at < top || at + size < at) abort();
  size_t have = __builtin_wasm_memory_size(0) * PAGE;
  if (at + size > have) {
    size_t pages = (at + size - have + PAGE - 1) / PAGE;
    if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) abort();
  }
  top = at + size;
  return (void *)at;
}

void *malloc(size_t size) { return take(size, 8); }
void free(void *ptr) { (void)ptr; }
_Noreturn void abort(void) { __builtin_trap(); }

// The bindings' own is weak and knows no old size.
__attribute__((__export_name__("cabi_realloc")))
void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
  if (size == 0) return (void *)align;
  if (old_size != 0 && size <= old_size) return old;
  if (old_size != 0 && (uintptr_t)old + old_size == top && !call_is_over) {
    // The last block grows where it stands.
    take(size - old_size, 1);
    top = (uintptr_t)old + size;
    return old;
  }
  void *moved = take(size, align);
  if (old_size != 0) memcpy(moved, old, old_size);
  return moved;
}

// Only the bindings' weak cabi_realloc would call it.
void *realloc(void *old, size_t size) {
  (void)old;
  (void)size;
  abort();
}

void *memcpy(void *restrict to, const void *restrict from, size_t len) {
  uint8_t *a = to;
  const uint8_t *b = from;
  for (size_t i = 0; i < len; i++) a[i] = b[i];
  return to;
}

void *memmove(void *to, const void *from, size_t len) {
  uint8_t *a = to;
  const uint8_t *b = from;
  if (a < b) return memcpy(to, from, len);
  while (len-- > 0) a[len] = b[len];
  return to;
}

void *memset(void *to, int byte, size_t len) {
  uint8_t *a = to;
  for (size_t i = 0; i < len; i++) a[i] = (uint8_t)byte;
  return to;
}

int memcmp(const void *a, const void *b, size_t len) {
  const uint8_t *x = a, *y = b;
  for (size_t i = 0; i < len; i++)
    if (x[i] != y[i]) return x[i] - y[i];
  return 0;
}

size_t strlen(const char *text) {
  size_t len = 0;
  while (text[len] != 0) len++;
  return len;
}

// ---- Texts ----------------------------------------------------------------------------------------------------------

text_t text(const char *zero_terminated) {
  return (text_t){(uint8_t *)zero_terminated, strlen(zero_terminated)};
}

bool text_is(text_t text, const char *other) {
  return text.len == strlen(other) && memcmp(text.ptr, other, text.len) == 0;
}

bool text_starts(text_t text, const char *start) {
  size_t len = strlen(start);
  return text.len >= len && memcmp(text.ptr, start, len) == 0;
}

weir_option_string_t some(text_t text) { return (weir_option_string_t){true, text}; }

static void put_byte(buffer_t *buffer, uint8_t byte) { put(buffer, (text_t){&byte, 1}); }

void put(buffer_t *buffer, text_t text) {
  if (text.len > buffer->capacity - buffer->len) {
    size_t wanted = (buffer->len + text.len) * 2;
    buffer->ptr = cabi_realloc(buffer->ptr, buffer->capacity, 1, wanted);
    buffer->capacity = wanted;
  }
  memcpy(buffer->ptr + buffer->len, text.ptr, text.len);
  buffer->len += text.len;
}

void put_uint(buffer_t *buffer, uint64_t number) {
  uint8_t digits[20];
  size_t at = sizeof digits;
  do digits[--at] = (uint8_t)('0' + number % 10);
  while ((number /= 10) != 0);
  put(buffer, (text_t){digits + at, sizeof digits - at});
}

void put_json(buffer_t *buffer, text_t text) {
  static const char hex[] = "0123456789abcdef";
  put_byte(buffer, '"');
  for (size_t i = 0; i < text.len; i++) {
    uint8_t byte = text.ptr[i];
    if (byte == '"' || byte == '\\') {
      put_byte(buffer, '\\');
      put_byte(buffer, byte);
    } else if (byte == '\n') {
      put(buffer, T("\\n"));
    } else if (byte < 0x20) {
      put(buffer, T("\\u00"));
      put_byte(buffer, (uint8_t)hex[byte >> 4]);
      put_byte(buffer, (uint8_t)hex[byte & 15]);
    } else {
      put_byte(buffer, byte);
    }
  }
  put_byte(buffer, '"');
}

text_t text_of(const buffer_t *buffer) { return (text_t){buffer->ptr, buffer->len}; }

// ---- Failures -------------------------------------------------------------------------------------------------------

static bool fail(failure_t *failure, weir_plugin_types_failure_kind_t kind, text_t message) {
  *failure = (failure_t){message, {true, kind}, {false, 0}};
  return false;
}

bool transient(failure_t *failure, text_t message) {
  return fail(failure, WEIR_PLUGIN_TYPES_FAILURE_KIND_TRANSIENT, message);
}

bool permanent(failure_t *failure, text_t message) {
  return fail(failure, WEIR_PLUGIN_TYPES_FAILURE_KIND_PERMANENT, message);
}

bool misconfigured(failure_t *failure, text_t message) {
  return fail(failure, WEIR_PLUGIN_TYPES_FAILURE_KIND_MISCONFIGURED, message);
}

// ---- JSON: enough to read a configuration and a flat answer ---------------------------------------------------------

#define DEPTH_MAX 32

static size_t skip_blank(text_t json, size_t at) {
  while (at < json.len && (json.ptr[at] == ' ' || json.ptr[at] == '\n' || json.ptr[at] == '\r' || json.ptr[at] == '\t'))
    at++;
  return at;
}

// Past a string that begins at `at`; 0 where there is none.
static size_t skip_string(text_t json, size_t at) {
  if (at >= json.len || json.ptr[at] != '"') return 0;
  for (at++; at < json.len; at++) {
    if (json.ptr[at] == '\\') at++;
    else if (json.ptr[at] == '"') return at + 1;
  }
  return 0;
}

// Past any value; 0 where there is none. Brackets are counted, not matched: the host only sends whole documents.
static size_t skip_value(text_t json, size_t at) {
  at = skip_blank(json, at);
  if (at >= json.len) return 0;
  if (json.ptr[at] == '"') return skip_string(json, at);
  size_t depth = 0, start = at;
  while (at < json.len) {
    uint8_t byte = json.ptr[at];
    if (byte == '"') {
      at = skip_string(json, at);
      if (at == 0) return 0;
      continue;
    }
    if (byte == '{' || byte == '[') {
      if (++depth > DEPTH_MAX) return 0;
    } else if (byte == '}' || byte == ']') {
      if (depth == 0) break;
      if (--depth == 0) return at + 1;
    } else if (depth == 0 && (byte == ',' || byte == ' ' || byte == '\n')) {
      break;
    }
    at++;
  }
  return depth == 0 && at > start ? at : 0;
}

bool json_field(text_t object, const char *key, text_t *value) {
  size_t at = skip_blank(object, 0);
  if (at >= object.len || object.ptr[at] != '{') return false;
  for (at = skip_blank(object, at + 1); at < object.len && object.ptr[at] == '"';) {
    size_t name = at, end = skip_string(object, at);
    if (end == 0) return false;
    text_t found = {object.ptr + name + 1, end - name - 2};
    at = skip_blank(object, end);
    if (at >= object.len || object.ptr[at] != ':') return false;
    size_t start = skip_blank(object, at + 1);
    end = skip_value(object, start);
    if (end == 0) return false;
    if (text_is(found, key)) {
      *value = (text_t){object.ptr + start, end - start};
      return true;
    }
    at = skip_blank(object, end);
    if (at < object.len && object.ptr[at] == ',') at = skip_blank(object, at + 1);
  }
  return false;
}

// Four hexadecimal digits; -1 where they are none.
static int32_t hex4(text_t json, size_t at) {
  if (at + 4 > json.len) return -1;
  int32_t code = 0;
  for (size_t i = at; i < at + 4; i++) {
    uint8_t c = json.ptr[i];
    int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
    if (digit < 0) return -1;
    code = code * 16 + digit;
  }
  return code;
}

static void put_char(buffer_t *out, uint32_t code) {
  if (code < 0x80) {
    put_byte(out, (uint8_t)code);
  } else if (code < 0x800) {
    put_byte(out, (uint8_t)(0xc0 | code >> 6));
    put_byte(out, (uint8_t)(0x80 | (code & 63)));
  } else if (code < 0x10000) {
    put_byte(out, (uint8_t)(0xe0 | code >> 12));
    put_byte(out, (uint8_t)(0x80 | (code >> 6 & 63)));
    put_byte(out, (uint8_t)(0x80 | (code & 63)));
  } else {
    put_byte(out, (uint8_t)(0xf0 | code >> 18));
    put_byte(out, (uint8_t)(0x80 | (code >> 12 & 63)));
    put_byte(out, (uint8_t)(0x80 | (code >> 6 & 63)));
    put_byte(out, (uint8_t)(0x80 | (code & 63)));
  }
}

bool json_string(text_t value, text_t *string) {
  if (value.len < 2 || value.ptr[0] != '"') return false;
  buffer_t out = {0};
  for (size_t at = 1; at + 1 < value.len; at++) {
    if (value.ptr[at] != '\\') {
      put_byte(&out, value.ptr[at]);
      continue;
    }
    uint8_t c = value.ptr[++at];
    if (c != 'u') {
      put_byte(&out, c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'b' ? '\b' : c == 'f' ? '\f' : c);
      continue;
    }
    int32_t code = hex4(value, at + 1);
    if (code < 0) return false;
    at += 4;
    if (code >= 0xd800 && code < 0xdc00 && at + 6 < value.len && value.ptr[at + 1] == '\\') {
      int32_t low = hex4(value, at + 3);
      if (low < 0xdc00 || low > 0xdfff) return false;
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      at += 6;
    } else if (code >= 0xd800 && code < 0xe000) {
      return false;
    }
    put_char(&out, (uint32_t)code);
  }
  *string = text_of(&out);
  return true;
}

bool json_uint(text_t value, uint64_t *number) {
  if (value.len == 0 || value.len > 18) return false;
  *number = 0;
  for (size_t i = 0; i < value.len; i++) {
    if (value.ptr[i] < '0' || value.ptr[i] > '9') return false;
    *number = *number * 10 + (uint64_t)(value.ptr[i] - '0');
  }
  return true;
}

bool config_string(text_t config, const char *key, text_t *string, failure_t *failure) {
  text_t value;
  if (json_field(config, key, &value) && json_string(value, string)) return true;
  buffer_t message = {0};
  put(&message, T("config."));
  put(&message, text(key));
  put(&message, T(": expected a string"));
  return misconfigured(failure, text_of(&message));
}

// ---- The world ------------------------------------------------------------------------------------------------------

bool fetch(const char *method, text_t url, const char *content_type, text_t body, text_t credential,
           response_t *response, failure_t *failure) {
  weir_plugin_http_header_t header = {T("content-type"), text(content_type == NULL ? "" : content_type)};
  weir_plugin_http_request_t request = {0};
  request.method = text(method);
  request.url = url;
  if (content_type != NULL) {
    request.headers.ptr = &header;
    request.headers.len = 1;
  }
  request.body.is_some = body.len > 0;
  request.body.val.ptr = body.ptr;
  request.body.val.len = body.len;
  request.credential = (weir_option_string_t){credential.len > 0, credential};
  return weir_plugin_http_fetch(&request, response, failure);
}

void say(weir_plugin_host_level_t level, text_t message) { weir_plugin_host_log(level, &message); }

// ---- From the exports to the plugin ---------------------------------------------------------------------------------

void exports_weir_plugin_lifecycle_describe(exports_weir_plugin_lifecycle_manifest_t *ret) {
  memset(ret, 0, sizeof *ret);
  plugin_describe(ret);
  call_is_over = true;
}

bool exports_weir_plugin_lifecycle_open(exports_weir_plugin_lifecycle_context_t *context, failure_t *err) {
  bool ok = plugin_open(context, err);
  kept = top;
  call_is_over = true;
  return ok;
}

bool exports_weir_plugin_lifecycle_check(text_t *ret, failure_t *err) {
  bool ok = plugin_check(ret, err);
  call_is_over = true;
  return ok;
}

#ifdef WEIR_ALERT_HANDLER
bool exports_weir_plugin_alerts_deliver(exports_weir_plugin_alerts_notification_t *notification, text_t *maybe_prior,
                                        weir_option_string_t *ret, failure_t *err) {
  ret->is_some = false;
  bool ok = plugin_deliver(notification, maybe_prior, ret, err);
  call_is_over = true;
  return ok;
}
#else
bool exports_weir_plugin_jobs_poll(text_t *maybe_cursor, exports_weir_plugin_jobs_list_job_ref_t *open,
                                   exports_weir_plugin_jobs_page_t *ret, failure_t *err) {
  memset(ret, 0, sizeof *ret);
  bool ok = plugin_poll(maybe_cursor, open, ret, err);
  call_is_over = true;
  return ok;
}
#endif
