/* Signals: Ctrl-C cancels a job cleanly, SIGUSR1 requests its progress. */
#ifndef SIGNALS_H
#define SIGNALS_H

#include <platter.h>
#include <stdbool.h>

/* To be called at startup: SIGPIPE becomes a write error, SIGUSR1 is blocked. */
void signals_start(void);
/* From here on, SIGINT, SIGTERM and SIGHUP cancel `job`; SIGUSR1 requests its progress if `progress_by_signal`. */
void signals_watch(const platter_job *job, bool progress_by_signal);
/* Undoes signals_watch; must be called before the job is freed. */
void signals_unwatch(void);
/* Whether SIGUSR1 has arrived since the last call. */
bool signals_take_progress_request(void);
/* Whether a signal has requested termination; and terminating by that signal. */
bool signals_caught(void);
void signals_die(void);

#endif
