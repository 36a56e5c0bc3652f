/* --trace: switches the library's trace events on and writes them out, as QEMU's tools do. */
#ifndef TRACE_H
#define TRACE_H

#include <stdbool.h>

enum trace_outcome { TRACE_ACCEPTED, TRACE_LISTED, TRACE_REFUSED };

/* Does what "[[enable=]PATTERN][,events=FILE][,file=FILE]" says; a refusal was reported already. */
enum trace_outcome trace_accept(const char *text);

#endif
