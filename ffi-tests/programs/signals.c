/* Cancel from a signal handler; the library's threads take no signals. */
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

/* What the handler cancels; NULL once no job is to be touched any more. */
static platter_job *volatile job;
static pthread_t main_thread;
static volatile sig_atomic_t handled, elsewhere;

static void on_signal(int number)
{
    (void)number;
    handled++;
    if (!pthread_equal(pthread_self(), main_thread))
        elsewhere = 1;
    platter_job_cancel(job);
}

static platter_job *conversion(const char *target)
{
    platter_convert *convert;
    platter_open_options *options;
    platter_job *made;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "raw", 0, &err));
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "disk.raw", 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_set_target(convert, target, "qcow2", 0, &err));
    OK(platter_convert_job_new(&made, convert, 0, &err));
    platter_convert_free(convert);
    platter_open_options_free(options);
    return made;
}

int main(void)
{
    main_thread = pthread_self();
    make_image("disk.raw", "raw", 16 << 20, NULL);
    platter_image *image = open_image("disk.raw", "raw", PLATTER_OPEN_WRITE);
    static unsigned char chunk[1 << 20];
    for (uint64_t at = 0; at < 16 << 20; at += sizeof chunk) {
        fill_pattern(chunk, sizeof chunk, at * 3);
        OK(platter_image_write(image, chunk, sizeof chunk, at, 0, &err));
    }
    OK(platter_image_close(image, 0, &err));

    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    struct itimerval timer = {{0, 5000}, {0, 20000}};

    /* On the caller's thread: the signal goes to it, not to the workers. */
    job = conversion("a.qcow2");
    OK(platter_job_set_rate(job, 2 << 20, &err));
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_CANCELLED, "");
    CHECK(handled > 0 && !elsewhere);
    CHECK(access("a.qcow2", F_OK) != 0);
    platter_job *ended = job;

    /* On a thread of the library. */
    handled = 0;
    platter_job *next = conversion("b.qcow2");
    OK(platter_job_set_rate(next, 2 << 20, &err));
    OK(platter_job_start(next, 0, &err));
    job = next;
    platter_job_free(ended);
    FAILS(platter_job_result(NULL, job, PLATTER_JOB_WAIT, &err), PLATTER_STATUS_CANCELLED, "");
    CHECK(handled > 0 && !elsewhere);
    CHECK(access("b.qcow2", F_OK) != 0);
    struct itimerval stop = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &stop, NULL) == 0);
    /* A signal of the stopped timer may still be on its way. */
    job = NULL;
    platter_job_free(next);
    passed();
    return 0;
}
