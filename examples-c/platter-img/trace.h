/* --trace: accepted as QEMU's tools accept it; this tool has no events to trace. */
#ifndef TRACE_H
#define TRACE_H

#include <stdbool.h>

enum trace_outcome { TRACE_ACCEPTED, TRACE_LISTED, TRACE_REFUSED };

/* Checks "[[enable=]PATTERN][,events=FILE][,file=FILE]"; a refusal was reported already. */
enum trace_outcome trace_accept(const char *text);

#endif
