/* What the commands have in common: options that most of them take, and how they end. */
#ifndef COMMON_H
#define COMMON_H

#include <platter.h>
#include <stdbool.h>

#include "jobs.h"
#include "open.h"

/* What the options say that most commands take. */
struct common {
    struct open_request image; /* -f, --image-opts, -U */
    bool json;                 /* --output */
    bool progress;             /* -p */
    bool quiet;                /* -q */
};

/* Entries for the tables of options. */
#define OPTION_FORMAT {'f', "format", "FMT", "the format of the image; guessed if not given"}
#define OPTION_IMAGE_OPTS                                                                        \
    {OPT_IMAGE_OPTS, "image-opts", NULL,                                                         \
     "IMAGE is a list such as driver=qcow2,file.filename=PATH;\nnot together with --format"}
#define OPTION_FORCE_SHARE                                                                       \
    {'U', "force-share", NULL, "also when another process is writing to the image"}
#define OPTION_OUTPUT {OPT_OUTPUT, "output", "human|json", "the form of the report (human)"}
#define OPTION_QUIET {'q', "quiet", NULL, "print nothing but errors"}
#define OPTION_PROGRESS {'p', "progress", NULL, "show the progress"}

/* Keeps an option of the kind above; any other is left to the command. */
void common_option(struct common *common, int code);
/* Whether the image may be opened as the options say; false after a message. */
bool common_image_is_valid(const struct common *common);

/* Prints a report and frees it; false after a message. */
bool common_print(platter_report *report, bool json);
/* The same, unless `quiet`, and gives the exit status that the report asks for; `failure` after a message. */
int common_judge(platter_report *report, bool json, bool quiet, int failure);

/* What is shown of a job: SIGUSR1 prints the progress where no progress line does. */
struct job_display common_display(bool output_optional);
/* Runs the job that a call with this status has made, for those who need no report, and ends the
 * progress line; false after a message. */
bool common_run(int status, platter_job *job, const struct job_display *display, platter_error *error);

#endif
