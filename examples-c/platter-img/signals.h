/* Signals: Ctrl-C ends a job cleanly, SIGUSR1 asks for its progress. */
#ifndef SIGNALS_H
#define SIGNALS_H

#include <platter.h>
#include <stdbool.h>

/* At the start of the process: SIGPIPE becomes an error of write, SIGUSR1 waits. */
void signals_start(void);
/* SIGINT, SIGTERM and SIGHUP cancel `job` from here on; SIGUSR1 asks for progress if wanted. */
void signals_watch(const platter_job *job, bool progress_by_signal);
/* Ends signals_watch; must come before the job is freed. */
void signals_unwatch(void);
/* Whether SIGUSR1 came since the last call. */
bool signals_take_progress_request(void);
/* Whether a signal asked to end, and dying by it. */
bool signals_caught(void);
void signals_die(void);

#endif
