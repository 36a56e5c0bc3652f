#include "signals.h"

#include <signal.h>
#include <stddef.h>

static const int stopping[] = {SIGINT, SIGTERM, SIGHUP};
enum { STOPPING_COUNT = sizeof stopping / sizeof stopping[0] };

static const platter_job *volatile watched;
static volatile sig_atomic_t caught;
static volatile sig_atomic_t progress_wanted;

static void on_stop(int number)
{
    const platter_job *job = watched;

    caught = number;
    if (job != NULL)
        platter_job_cancel(job); /* only stores an atomic, so it is safe here */
}

static void on_progress_request(int number)
{
    (void)number;
    progress_wanted = 1;
}

static void mask_progress_signal(int how)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(how, &set, NULL);
}

void signals_start(void)
{
    struct sigaction ignore = {0};

    ignore.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &ignore, NULL);
    /* Exceeding the file size limit is then a write error, after which we clean up, and does not kill us. */
    sigaction(SIGXFSZ, &ignore, NULL);
    mask_progress_signal(SIG_BLOCK);
}

void signals_watch(const platter_job *job, bool progress_by_signal)
{
    watched = job;
    for (size_t i = 0; i < STOPPING_COUNT; i++) {
        struct sigaction old = {0};
        struct sigaction action = {0};

        sigaction(stopping[i], NULL, &old);
        if (old.sa_handler == SIG_IGN)
            continue; /* stays ignored, for example under nohup */
        action.sa_handler = on_stop;
        sigemptyset(&action.sa_mask);
        /* A second Ctrl-C kills immediately, in case the first takes too long. */
        action.sa_flags = (int)(SA_RESTART | (int)SA_RESETHAND);
        sigaction(stopping[i], &action, NULL);
    }
    if (progress_by_signal) {
        struct sigaction action = {0};

        action.sa_handler = on_progress_request;
        sigemptyset(&action.sa_mask);
        action.sa_flags = SA_RESTART;
        sigaction(SIGUSR1, &action, NULL);
        mask_progress_signal(SIG_UNBLOCK);
    }
}

void signals_unwatch(void)
{
    watched = NULL;
    for (size_t i = 0; i < STOPPING_COUNT; i++) {
        struct sigaction action = {0};

        sigaction(stopping[i], NULL, &action);
        if (action.sa_handler != on_stop)
            continue;
        /* Without a job to cancel, a signal ends the process immediately. */
        action.sa_handler = SIG_DFL;
        sigaction(stopping[i], &action, NULL);
    }
}

bool signals_take_progress_request(void)
{
    if (!progress_wanted)
        return false;
    progress_wanted = 0;
    return true;
}

bool signals_caught(void)
{
    return caught != 0;
}

void signals_die(void)
{
    struct sigaction action = {0};

    action.sa_handler = SIG_DFL;
    sigaction(caught, &action, NULL);
    raise(caught);
}
