/* Cancel, pause, resume and rate from a signal handler; the library's threads receive no signals. */
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>

/* The job that the handlers act on; NULL once they must not touch it any more. */
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

/* Creates a conversion to the file `target` or, if that is NULL, to a descriptor. */
static platter_job *conversion_to(const char *target, int fd)
{
    platter_convert *convert;
    platter_open_options *options;
    platter_job *made;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "raw", 0, &err));
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "disk.raw", 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    if (target != NULL)
        OK(platter_convert_set_target(convert, target, "qcow2", 0, &err));
    else
        OK(platter_convert_set_target_fd(convert, fd, 0, &err));
    OK(platter_convert_job_new(&made, convert, 0, &err));
    platter_convert_free(convert);
    platter_open_options_free(options);
    return made;
}

static platter_job *conversion(const char *target)
{
    return conversion_to(target, -1);
}

static volatile sig_atomic_t refused;

static void accept(int status)
{
    if (status != PLATTER_OK)
        refused = status;
}

static void on_pause(int number)
{
    (void)number;
    accept(platter_job_pause(job, 0, NULL));
}

static void on_resume(int number)
{
    (void)number;
    accept(platter_job_resume(job, 0, NULL));
}

static void on_lift(int number)
{
    (void)number;
    accept(platter_job_set_rate(job, 0, 0, NULL));
}

/* A period, in microseconds, that suffices for some of the work, even if that runs a hundred times more slowly. */
#ifdef SLOW_RUN
enum { MOMENT = 20000 };
#else
enum { MOMENT = 700 };
#endif

static void tick(void)
{
    struct itimerval timer = {{0, 0}, {0, MOMENT}};
    accept(setitimer(ITIMER_REAL, &timer, NULL) == 0 ? PLATTER_OK : PLATTER_STATUS_OS);
}

/* Calls each function in turn, whatever the interrupted thread is doing. The next call comes a moment later. */
static void on_tick(int number)
{
    (void)number;
    switch (handled++ % 4) {
    case 0:
        accept(platter_job_pause(job, 0, NULL));
        break;
    case 1:
        accept(platter_job_resume(job, 0, NULL));
        break;
    case 2:
        accept(platter_job_set_rate(job, 64 << 20, 0, NULL));
        break;
    default:
        accept(platter_job_set_rate(job, 0, 0, NULL));
    }
    tick();
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    CHECK(sigaction(number, &action, NULL) == 0);
}

/* A job on another thread is paused, sped up and resumed. */
static void steered(void)
{
    uint32_t state;
    handle(SIGUSR1, on_pause);
    handle(SIGUSR2, on_resume);
    handle(SIGHUP, on_lift);
    job = conversion("steered.qcow2");
    /* It would take half a year. */
    OK(platter_job_set_rate(job, 1, 0, &err));
    OK(platter_job_start(job, 0, &err));
    CHECK(raise(SIGUSR1) == 0);
    OK(platter_job_state(&state, job, 0, &err));
    CHECK(state == PLATTER_JOB_STATE_PAUSED);
    CHECK(raise(SIGHUP) == 0);
    OK(platter_job_state(&state, job, 0, &err));
    CHECK(state == PLATTER_JOB_STATE_PAUSED);
    CHECK(raise(SIGUSR2) == 0);
    OK(platter_job_result(NULL, job, PLATTER_JOB_WAIT, &err));
    CHECK(refused == 0);
    platter_job_free(job);

    /* Without an error parameter, a rejection is reported by the status alone. */
    platter_create *create;
    platter_job *still;
    OK(platter_create_new(&create, "still.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_size(create, 1 << 20, 0, &err));
    OK(platter_create_job_new(&still, create, 0, &err));
    CHECK(platter_job_set_rate(still, 1, 0, NULL) == PLATTER_STATUS_UNSUPPORTED);
    CHECK(platter_job_set_rate(still, 1, 1, NULL) == PLATTER_STATUS_INVALID);
    CHECK(platter_job_pause(still, 1, NULL) == PLATTER_STATUS_INVALID);
    CHECK(platter_job_resume(NULL, 0, NULL) == PLATTER_STATUS_INVALID);
    platter_job_free(still);
    platter_create_free(create);
}

/* A job that runs on the interrupted thread. */
static void interrupted(void)
{
    struct itimerval stop = {{0, 0}, {0, 0}};
    handle(SIGALRM, on_tick);
    handled = 0;
    for (int n = 0; handled < 400; n++) {
        char name[32];
        snprintf(name, sizeof name, "tick-%d.qcow2", n);
        job = conversion(name);
        tick();
        OK(platter_job_run(job, 0, &err));
        platter_job *ended = job;
        handle(SIGALRM, SIG_IGN);
        CHECK(setitimer(ITIMER_REAL, &stop, NULL) == 0);
        CHECK(refused == 0);
        platter_job_free(ended);
        handle(SIGALRM, on_tick);
        unlink(name);
    }
}

static void on_limit(int number)
{
    (void)number;
    handled++;
}

/* Exceeding the file size limit is an error, and the program's SIGXFSZ handler is not called. */
static void limited(void)
{
    static unsigned char data[1 << 20];
    struct sigaction action;
    struct rlimit before, limit;
    platter_open_options *options;
    platter_image *image;
    platter_job *growth;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_limit;
    CHECK(sigaction(SIGXFSZ, &action, NULL) == 0);
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    limit = before;
    limit.rlim_cur = 3 << 20;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    handled = 0;
    static const char *const caches[] = {"writeback", "none"};
    for (size_t i = 0; i < 2; i++) {
        unlink("small.raw");
        make_image("small.raw", "raw", 2 << 20, NULL);
        OK(platter_open_options_new(&options, 0, &err));
        OK(platter_open_options_set_format(options, "raw", 0, &err));
        OK(platter_open_options_set_cache(options, caches[i], 0, &err));
        OK(platter_image_open(&image, "small.raw", options, PLATTER_OPEN_WRITE, &err));
        platter_open_options_free(options);
        OK(platter_image_write(image, data, sizeof data, 1 << 20, 0, &err));
        OK(platter_resize_job_new(&growth, image, 8 << 20, NULL, 0, &err));
        FAILS(platter_job_run(growth, 0, &err), PLATTER_STATUS_OS, "File too large");
        platter_job_free(growth);
        OK(platter_image_close(image, 0, &err));
    }
    platter_job *file = conversion("c.qcow2");
    FAILS(platter_job_run(file, 0, &err), PLATTER_STATUS_OS, "File too large");
    platter_job_free(file);
    CHECK(access("c.qcow2", F_OK) != 0);
    /* Sequentially, to a descriptor of the program. */
    int to = open("stream.raw", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(to >= 0);
    platter_job *stream = conversion_to(NULL, to);
    FAILS(platter_job_run(stream, 0, &err), PLATTER_STATUS_OS, "File too large");
    platter_job_free(stream);
    close(to);
    CHECK(handled == 0);
    CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
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

    /* On the caller's thread: the signal is delivered to it, not to the workers. */
    job = conversion("a.qcow2");
    OK(platter_job_set_rate(job, 2 << 20, 0, &err));
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_CANCELLED, "");
    CHECK(handled > 0 && !elsewhere);
    CHECK(access("a.qcow2", F_OK) != 0);
    platter_job *ended = job;

    /* On a thread of the library. */
    handled = 0;
    platter_job *next = conversion("b.qcow2");
    OK(platter_job_set_rate(next, 2 << 20, 0, &err));
    OK(platter_job_start(next, 0, &err));
    job = next;
    platter_job_free(ended);
    FAILS(platter_job_result(NULL, job, PLATTER_JOB_WAIT, &err), PLATTER_STATUS_CANCELLED, "");
    CHECK(handled > 0 && !elsewhere);
    CHECK(access("b.qcow2", F_OK) != 0);
    struct itimerval stop = {{0, 0}, {0, 0}};
    CHECK(setitimer(ITIMER_REAL, &stop, NULL) == 0);
    /* A signal from the stopped timer may still be pending and would cancel the next job. */
    handle(SIGALRM, SIG_IGN);
    job = NULL;
    platter_job_free(next);
    steered();
    interrupted();
    limited();
    passed();
    return 0;
}
