/* Jobs: progress, cancel, pause, rate, threads, eventfd. */
#include "check.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#define SIZE ((uint64_t)16 << 20)

static int frees;

static void count_free(void *user_data)
{
    (void)user_data;
    frees++;
}

/* Creates a conversion of the test disk. */
static platter_job *conversion(const char *target, const char *format, uint32_t flags)
{
    platter_convert *convert;
    platter_open_options *options;
    platter_job *job;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "raw", 0, &err));
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "disk.raw", 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_set_target(convert, target, format, 0, &err));
    OK(platter_convert_job_new(&job, convert, flags, &err));
    platter_convert_free(convert);
    platter_open_options_free(options);
    return job;
}

struct watch {
    int calls;
    uint64_t last, total;
    int cancel_at;
    pthread_t thread;
};

static int on_progress(const platter_progress *progress, void *user_data)
{
    struct watch *watch = user_data;
    CHECK(progress->done >= watch->last);
    CHECK(progress->total == 0 || progress->done <= progress->total);
    watch->last = progress->done;
    watch->total = progress->total;
    watch->calls++;
    watch->thread = pthread_self();
    return watch->cancel_at != 0 && watch->calls >= watch->cancel_at;
}

static void runs_with_progress(void)
{
    struct watch watch = {0};
    platter_job *job = conversion("a.qcow2", "qcow2", 0);
    frees = 0;
    OK(platter_job_set_progress(job, on_progress, &watch, count_free, 0, &err));
    /* A second callback replaces the first. */
    OK(platter_job_set_progress(job, on_progress, &watch, count_free, 0, &err));
    CHECK(frees == 1);
    platter_progress progress;
    OK(platter_job_progress(&progress, job, 0, &err));
    CHECK(progress.done == 0);
    CHECK(access("a.qcow2", F_OK) != 0);
    OK(platter_job_run(job, 0, &err));
    CHECK(watch.calls >= 1 && watch.last == watch.total && watch.total > 0);
    CHECK(pthread_equal(watch.thread, pthread_self()));
    OK(platter_job_progress(&progress, job, 0, &err));
    CHECK(progress.done == watch.total && progress.total == watch.total);
    CHECK(frees == 1);
    platter_job_free(job);
    CHECK(frees == 2);
}

static void cancelled_by_the_callback(void)
{
    struct watch watch = {.cancel_at = 1};
    platter_job *job = conversion("b.qcow2", "qcow2", 0);
    OK(platter_job_set_progress(job, on_progress, &watch, NULL, 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_CANCELLED, "");
    platter_report *report;
    FAILS(platter_job_result(&report, job, 0, &err), PLATTER_STATUS_CANCELLED, "");
    CHECK(report == NULL);
    platter_job_free(job);
    /* No partial target is left. */
    CHECK(access("b.qcow2", F_OK) != 0);
}

static void wait_readable(int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    CHECK(poll(&poller, 1, 60000) == 1);
    CHECK(poller.revents == POLLIN);
}

static void started(void)
{
    struct watch watch = {0};
    platter_job *job = conversion("c.qcow2", "qcow2", PLATTER_CONVERT_COMPRESS);
    OK(platter_job_set_progress(job, on_progress, &watch, NULL, 0, &err));
    int fd, again;
    OK(platter_job_fd(&fd, job, 0, &err));
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    uint64_t count;
    CHECK(read(fd, &count, sizeof count) == -1 && errno == EAGAIN);
    OK(platter_job_start(job, 0, &err));
    wait_readable(fd);
    CHECK(read(fd, &count, sizeof count) == sizeof count && count == 1);
    platter_report *report;
    OK(platter_job_result(&report, job, 0, &err));
    CHECK(platter_report_kind(report) == PLATTER_REPORT_CONVERT);
    CHECK(!pthread_equal(watch.thread, pthread_self()));
    OK(platter_job_fd(&again, job, 0, &err));
    CHECK(again == fd);
    platter_job_free(job);
    platter_report_free(report);

    /* An eventfd requested after the job has ended is readable immediately. */
    job = conversion("d.raw", "raw", 0);
    OK(platter_job_start(job, 0, &err));
    OK(platter_job_result(NULL, job, PLATTER_JOB_WAIT, &err));
    OK(platter_job_fd(&fd, job, 0, &err));
    wait_readable(fd);
    platter_job_free(job);

    /* Freeing a running job cancels it and waits for it to end. */
    job = conversion("e.qcow2", "qcow2", 0);
    OK(platter_job_set_rate(job, 1 << 20, 0, &err));
    OK(platter_job_start(job, 0, &err));
    platter_job_free(job);
    CHECK(access("e.qcow2", F_OK) != 0);

    /* A job that was never run can be freed as well. */
    job = conversion("f.qcow2", "qcow2", 0);
    platter_job_free(job);
    CHECK(access("f.qcow2", F_OK) != 0);
}

static void *cancel_later(void *job)
{
    platter_progress progress = {0};
    while (progress.done == 0)
        OK(platter_job_progress(&progress, job, 0, &err));
    platter_job_cancel(job);
    return NULL;
}

static void cancelled_by_a_thread(void)
{
    platter_job *job = conversion("g.qcow2", "qcow2", 0);
    /* Slow enough for the other thread to see it running. */
    OK(platter_job_set_rate(job, 4 << 20, 0, &err));
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, cancel_later, job) == 0);
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_CANCELLED, "");
    CHECK(pthread_join(thread, NULL) == 0);
    platter_job_free(job);
    CHECK(access("g.qcow2", F_OK) != 0);
}

static void paused(void)
{
    platter_job *job = conversion("h.qcow2", "qcow2", 0);
    OK(platter_job_pause(job, 0, &err));
    OK(platter_job_start(job, 0, &err));
    int fd;
    OK(platter_job_fd(&fd, job, 0, &err));
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    CHECK(poll(&poller, 1, 100) == 0);
    FAILS(platter_job_result(NULL, job, 0, &err), PLATTER_STATUS_BUSY, "not ended");
    OK(platter_job_resume(job, 0, &err));
    OK(platter_job_result(NULL, job, PLATTER_JOB_WAIT, &err));
    platter_job_free(job);

    /* A paused job can be cancelled. */
    job = conversion("i.qcow2", "qcow2", 0);
    OK(platter_job_pause(job, 0, &err));
    OK(platter_job_start(job, 0, &err));
    platter_job_cancel(job);
    FAILS(platter_job_result(NULL, job, PLATTER_JOB_WAIT, &err), PLATTER_STATUS_CANCELLED, "");
    platter_job_free(job);
    CHECK(access("i.qcow2", F_OK) != 0);
}

int main(void)
{
    make_image("disk.raw", "raw", SIZE, NULL);
    platter_image *image = open_image("disk.raw", "raw", PLATTER_OPEN_WRITE);
    static unsigned char chunk[1 << 20];
    for (uint64_t at = 0; at < SIZE; at += sizeof chunk) {
        fill_pattern(chunk, sizeof chunk, at * 3);
        OK(platter_image_write(image, chunk, sizeof chunk, at, 0, &err));
    }
    OK(platter_image_close(image, 0, &err));
    runs_with_progress();
    cancelled_by_the_callback();
    started();
    cancelled_by_a_thread();
    paused();
    passed();
    return 0;
}
