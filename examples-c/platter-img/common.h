/* What the commands share: the options that most of them take, and their exit status. */
#ifndef COMMON_H
#define COMMON_H

#include <platter.h>
#include <stdbool.h>

#include "jobs.h"
#include "open.h"

/* Values of the options that most commands take. */
struct common {
    struct open_request image; /* -f, --image-opts, -U */
    bool json;                 /* --output */
    bool progress;             /* -p */
    bool quiet;                /* -q */
};

/* Entries for the option tables. */
#define OPTION_FORMAT {'f', "format", "FMT", "the format of the image; guessed if not given"}
#define OPTION_IMAGE_OPTS                                                                        \
    {OPT_IMAGE_OPTS, "image-opts", NULL,                                                         \
     "IMAGE is a list such as driver=qcow2,file.filename=PATH;\nnot together with --format"}
#define OPTION_FORCE_SHARE                                                                       \
    {'U', "force-share", NULL, "also when another process is writing to the image"}
#define OPTION_OUTPUT {OPT_OUTPUT, "output", "human|json", "the form of the report (human)"}
#define OPTION_QUIET {'q', "quiet", NULL, "print nothing but errors"}
#define OPTION_PROGRESS {'p', "progress", NULL, "show the progress"}

/* Stores an option of the kind above; any other is left to the command. */
void common_option(struct common *common, int code);
/* Whether the options for opening the image are valid; prints an error if not. */
bool common_image_is_valid(const struct common *common);

/* Prints a report and frees it; returns false after printing an error. */
bool common_print(platter_report *report, bool json);
/* The same, but prints nothing if `quiet`; returns the report's exit status, or `failure` after printing an error. */
int common_judge(platter_report *report, bool json, bool quiet, int failure);

/* How a job is displayed: SIGUSR1 prints the progress unless there is a progress line. */
struct job_display common_display(bool output_optional);
/* Runs the job created by a call that returned `status`, for callers that need no report, and ends the
 * progress line; returns false after printing an error. */
bool common_run(int status, platter_job *job, const struct job_display *display, platter_error *error);

#endif
