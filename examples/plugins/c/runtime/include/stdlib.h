// What the generated bindings want of <stdlib.h>, without a C library. plugin.c has the bodies.
#ifndef WEIR_STDLIB_H
#define WEIR_STDLIB_H

#include <stddef.h>

void *malloc(size_t size);
void *realloc(void *old, size_t size);
void free(void *ptr);
_Noreturn void abort(void);

#endif
