// What the compiler and the generated bindings want of <string.h>, without a C library. plugin.c has the bodies.
#ifndef WEIR_STRING_H
#define WEIR_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t len);
void *memmove(void *to, const void *from, size_t len);
void *memset(void *to, int byte, size_t len);
int memcmp(const void *a, const void *b, size_t len);
size_t strlen(const char *text);

#endif
