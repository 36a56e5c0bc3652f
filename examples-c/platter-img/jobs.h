/* Runs jobs of the library, with progress, messages and signals. */
#ifndef JOBS_H
#define JOBS_H

#include <platter.h>
#include <stdbool.h>

/* What is displayed of a job. */
struct job_display {
    bool progress_by_signal; /* SIGUSR1 prints the progress */
    bool hide_warnings;
    platter_report **left; /* unless NULL, receives the report of a job that failed, if there is one */
    bool output_optional; /* stdout gets only progress and the like */
};

/* Runs a job and frees it; returns its report, or NULL with `*error` set. If a signal cancelled the job,
 * the process ends here. */
platter_report *jobs_run(platter_job *job, const struct job_display *display, platter_error **error);

#endif
