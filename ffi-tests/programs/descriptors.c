/* The library keeps away from the descriptors 0 to 2, also while they are closed. */
#include "check.h"

#include <poll.h>

/* What the program prints in the end; 0 to 2 stay closed until then. */
static int output;

static bool closed(int fd)
{
    return fcntl(fd, F_GETFD) == -1 && errno == EBADF;
}

static void standard_streams_are_closed(int line)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (!closed(fd)) {
            dprintf(output, "line %d: descriptor %d is open\n", line, fd);
            exit(1);
        }
    }
}
#define UNTOUCHED() standard_streams_are_closed(__LINE__)

/* Gives the backing file by a descriptor, which has the lowest number that is free. */
static int give_low_fd(const platter_implicit_file *file, int *fd, void *user_data)
{
    (void)user_data;
    *fd = open(file->name, O_RDONLY | O_CLOEXEC);
    if (*fd < 0 || *fd > 2)
        return PLATTER_ANSWER_DENY;
    return PLATTER_ANSWER_FD;
}

static int stop(const platter_progress *progress, void *user_data)
{
    (void)progress, (void)user_data;
    standard_streams_are_closed(__LINE__);
    return 0;
}

static void queue_requests(platter_image *image)
{
    static const uint32_t backends[] = {0, PLATTER_QUEUE_THREADS, PLATTER_QUEUE_NO_FD};
    static unsigned char buf[65536];

    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
        platter_queue *queue;
        platter_completion completion;
        size_t count = 0;
        int event = 3;
        OK(platter_queue_new(&queue, image, 0, backends[i], &err));
        if (backends[i] != PLATTER_QUEUE_NO_FD)
            OK(platter_queue_fd(&event, queue, 0, &err));
        CHECK(event > 2);
        UNTOUCHED();
        /* In place the second time, where a ring takes it, and durable. */
        platter_queue_write(queue, buf, sizeof buf, 1 << 20, NULL, 0);
        platter_queue_flush(queue, NULL, 0);
        for (int left = 2; left > 0; left -= (int)count) {
            OK(platter_queue_reap(&count, queue, &completion, 1, 1, -1, 0, &err));
            CHECK(completion.status == PLATTER_OK);
            UNTOUCHED();
        }
        platter_queue_free(queue);
    }
}

static void make_overlay(const char *path, const char *base)
{
    platter_policy *policy;
    platter_create *create;
    platter_job *job;
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_create_new(&create, path, "qcow2", 0, &err));
    OK(platter_create_set_policy(create, policy, 0, &err));
    OK(platter_create_set_backing(create, base, "qcow2", 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
    platter_policy_free(policy);
}

int main(void)
{
    make_image("base.raw", "raw", 4 << 20, NULL);
    make_image("base.qcow2", "qcow2", 4 << 20, NULL);
    make_overlay("top.qcow2", "base.qcow2");
    int raw = open("base.raw", O_RDWR | O_CLOEXEC);
    output = fcntl(1, F_DUPFD_CLOEXEC, 10);
    int errors = fcntl(2, F_DUPFD_CLOEXEC, 10);
    CHECK(output >= 10 && errors >= 10 && raw > 2);
    for (int fd = 0; fd <= 2; fd++)
        close(fd);

    /* By name, by descriptor, and by a descriptor below 3. */
    platter_image *image = open_image("base.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    UNTOUCHED();
    queue_requests(image);
    OK(platter_image_close(image, 0, &err));
    platter_open_options *options;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "raw", 0, &err));
    OK(platter_image_open_fd(&image, raw, NULL, options, PLATTER_OPEN_WRITE, &err));
    UNTOUCHED();
    OK(platter_image_close(image, 0, &err));
    int low = open("base.raw", O_RDWR | O_CLOEXEC);
    CHECK(low == 0);
    OK(platter_image_open_fd(&image, low, NULL, options, PLATTER_OPEN_WRITE, &err));
    close(low);
    UNTOUCHED();
    OK(platter_image_close(image, 0, &err));

    /* What a policy gives away is moved. */
    platter_policy *policy;
    OK(platter_policy_new(&policy, PLATTER_POLICY_STRICT, 0, &err));
    OK(platter_policy_set_callback(policy, give_low_fd, NULL, NULL, 0, &err));
    OK(platter_open_options_set_format(options, "qcow2", 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_image_open(&image, "top.qcow2", options, 0, &err));
    UNTOUCHED();
    OK(platter_image_close(image, 0, &err));
    platter_policy_free(policy);
    platter_open_options_free(options);

    /* Files that a job makes, its event, and streams. */
    for (int streams = 0; streams <= 1; streams++) {
        platter_convert *convert;
        platter_job *job;
        OK(platter_convert_new(&convert, 0, &err));
        if (streams) {
            int from = open("base.raw", O_RDONLY | O_CLOEXEC);
            int to = open("copy.raw", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
            CHECK(from == 0 && to == 1);
            OK(platter_convert_set_source_fd(convert, from, 0, &err));
            OK(platter_convert_set_target_fd(convert, to, 0, &err));
            close(from);
            close(to);
        } else {
            OK(platter_convert_add_source(convert, "base.qcow2", 0, &err));
            OK(platter_convert_set_target(convert, "copy.qcow2", "qcow2", 0, &err));
        }
        OK(platter_convert_job_new(&job, convert, 0, &err));
        OK(platter_job_set_progress(job, stop, NULL, NULL, 0, &err));
        int event;
        OK(platter_job_fd(&event, job, 0, &err));
        CHECK(event > 2);
        OK(platter_job_start(job, 0, &err));
        struct pollfd ended = {event, POLLIN, 0};
        while (poll(&ended, 1, -1) != 1)
            ;
        OK(platter_job_result(NULL, job, PLATTER_JOB_WAIT, &err));
        platter_job_free(job);
        platter_convert_free(convert);
        UNTOUCHED();
    }

    CHECK(open("/dev/null", O_RDONLY) == 0);
    CHECK(dup2(output, 1) == 1 && dup2(errors, 2) == 2);
    passed();
    return 0;
}
