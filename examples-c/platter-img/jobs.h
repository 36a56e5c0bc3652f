/* Running a job of the library with progress, messages and signals. */
#ifndef JOBS_H
#define JOBS_H

#include <platter.h>
#include <stdbool.h>

/* What of a job is shown. */
struct job_display {
    bool progress_by_signal; /* SIGUSR1 prints the progress */
    bool hide_warnings;
    platter_report **left; /* where not NULL: takes the report of a job that failed, if it left one */
    bool output_optional; /* stdout has progress and the like alone */
};

/* Runs a job and frees it; gives its report, or NULL and the error. A signal that cancelled it ends the
 * process here. */
platter_report *jobs_run(platter_job *job, const struct job_display *display, platter_error **error);

#endif
