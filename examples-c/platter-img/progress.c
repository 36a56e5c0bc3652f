#include "progress.h"

#include <stdio.h>

#include "print.h"
#include "signals.h"

static bool enabled;
static double last_shown;

static void show(double percent)
{
    if (!enabled)
        return;
    print_progress("    (%.2f/100%%)\r", percent);
    last_shown = percent;
}

void progress_enable(bool shown)
{
    enabled = shown;
}

bool progress_is_shown(void)
{
    return enabled;
}

void progress_start(void)
{
    show(0.0);
}

int progress_callback(const platter_progress *progress, void *user_data)
{
    double percent = 0.0;

    (void)user_data;
    if (progress->total > 0)
        percent = 100.0 * (double)progress->done / (double)progress->total;
    if (percent > 100.0)
        percent = 100.0;
    if (percent >= last_shown + 1.0 || (percent >= 100.0 && last_shown < 100.0))
        show(percent);
    if (signals_take_progress_request()) {
        fprintf(stderr, "    (%.2f/100%%)\n", percent);
        fflush(stderr);
    }
    return 0;
}

void progress_reach_end(void)
{
    /* If there was nothing to move, no progress was reported. */
    if (last_shown < 100.0)
        show(100.0);
}

void progress_complete(void)
{
    show(100.0);
}

void progress_end(void)
{
    if (enabled)
        print_progress("\n");
}
