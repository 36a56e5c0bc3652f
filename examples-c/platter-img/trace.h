/* --trace: enables the library's trace events and logs them, as QEMU's tools do. */
#ifndef TRACE_H
#define TRACE_H

#include <stdbool.h>

enum trace_outcome { TRACE_ACCEPTED, TRACE_LISTED, TRACE_REFUSED };

/* Carries out "[[enable=]PATTERN][,events=FILE][,file=FILE]"; prints the error if it is rejected. */
enum trace_outcome trace_accept(const char *text);

#endif
