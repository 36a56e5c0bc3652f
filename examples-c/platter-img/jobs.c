#include "jobs.h"

#include <stdio.h>
#include <string.h>

#include "print.h"
#include "progress.h"
#include "signals.h"

/* Whether it is a message about an unreadable snapshot table, which qemu-img prefixes with its own name. */
static bool names_itself(const char *line)
{
    static const char unread[] = "ERROR failed to read the snapshot table";
    static const char refused[] = "ERROR snapshot table ";

    return strncmp(line, unread, sizeof unread - 1) == 0 ||
           (strncmp(line, refused, sizeof refused - 1) == 0 &&
            strstr(line, " is incomplete") == NULL);
}

static void show_message(const platter_message *message, void *user_data)
{
    const struct job_display *display = user_data;

    if (message->kind == PLATTER_MESSAGE_NOTE) {
        if (names_itself(message->text))
            print_error("%s", message->text);
        else {
            print_flush();
            print_advice(message->text);
        }
    } else if (!display->hide_warnings) {
        print_warning(message->text);
    }
}

platter_report *jobs_run(platter_job *job, const struct job_display *display, platter_error **error)
{
    platter_report *report = NULL;
    /* A copy, because user data is not const; the callback only reads it. */
    struct job_display shown = *display;

    if (display->output_optional)
        print_output_is_optional();
    if (platter_job_set_progress(job, progress_callback, NULL, NULL, 0, error) == PLATTER_OK &&
        platter_job_set_message(job, show_message, &shown, NULL, 0, error) == PLATTER_OK) {
        signals_watch(job, display->progress_by_signal);
        if (platter_job_run(job, 0, error) == PLATTER_OK)
            platter_job_result(&report, job, 0, error);
        else if (display->left != NULL)
            platter_job_failure_report(display->left, job, 0, NULL);
        if (report != NULL)
            progress_reach_end();
        signals_unwatch();
    }
    platter_job_free(job);
    if (signals_caught()) {
        progress_end();
        print_flush();
        signals_die();
    }
    return report;
}
