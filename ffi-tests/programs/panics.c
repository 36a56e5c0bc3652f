/* A panic in the library becomes a status, and the object in which it happened rejects further use. */
#include "check.h"

#include <poll.h>

#ifdef PLATTER_TESTING
/* Only in builds with debug assertions; not in any header. */
void platter_testing_panic_at(uint32_t nth);

static int frees;

static void count_free(void *user_data)
{
    (void)user_data;
    frees++;
}

int main(void)
{
    make_image("a.qcow2", "qcow2", 1 << 20, NULL);

    uint64_t size = 7;
    platter_testing_panic_at(1);
    FAILS(platter_size_parse(&size, "1k", 0, &err), PLATTER_STATUS_INTERNAL, "injected by a test");
    CHECK(size == 0);
    OK(platter_size_parse(&size, "1k", 0, &err));

    /* A set of options is poisoned permanently, but can still be freed. */
    platter_options *bag;
    OK(platter_options_new(&bag, 0, &err));
    platter_testing_panic_at(1);
    FAILS(platter_options_set(bag, "a", "b", 0, &err), PLATTER_STATUS_INTERNAL, "injected");
    FAILS(platter_options_set(bag, "a", "b", 0, &err), PLATTER_STATUS_INTERNAL, "unusable");
    platter_options_free(bag);

    /* An image is no longer written: its contents on disk stay as they were. */
    platter_image *image = open_image("a.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_image_write(image, "x", 1, 0, PLATTER_WRITE_FUA, &err));
    platter_testing_panic_at(1);
    FAILS(platter_image_write(image, "y", 1, 0, 0, &err), PLATTER_STATUS_INTERNAL, "injected");
    char byte;
    FAILS(platter_image_read(image, &byte, 1, 0, 0, &err), PLATTER_STATUS_INTERNAL, "unusable");
    FAILS(platter_image_close(image, 0, &err), PLATTER_STATUS_INTERNAL, "unusable");
    /* Its locks have been released with it. */
    image = open_image("a.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_image_read(image, &byte, 1, 0, 0, &err));
    CHECK(byte == 'x');

    /* A job: the first guard is the call, the second the work. */
    platter_job *job;
    OK(platter_map_job_new(&job, image, 0, PLATTER_LENGTH_ALL, 0, &err));
    platter_testing_panic_at(2);
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_INTERNAL, "injected");
    FAILS(platter_job_result(NULL, job, 0, &err), PLATTER_STATUS_INTERNAL, "injected");
    FAILS(platter_image_read(image, &byte, 1, 0, 0, &err), PLATTER_STATUS_INTERNAL, "unusable");
    platter_job_free(job);
    FAILS(platter_image_close(image, 0, &err), PLATTER_STATUS_INTERNAL, "unusable");

    /* A job on a thread of the library. */
    image = open_image("a.qcow2", "qcow2", 0);
    OK(platter_map_job_new(&job, image, 0, PLATTER_LENGTH_ALL, 0, &err));
    struct pollfd poller = {.fd = -1, .events = POLLIN};
    OK(platter_job_fd(&poller.fd, job, 0, &err));
    platter_testing_panic_at(2);
    OK(platter_job_start(job, 0, &err));
    /* Another call from here could trigger the panic instead of the work. */
    CHECK(poll(&poller, 1, 60000) == 1);
    FAILS(platter_job_result(NULL, job, 0, &err), PLATTER_STATUS_INTERNAL, "injected");
    platter_job_free(job);
    FAILS(platter_image_close(image, 0, &err), PLATTER_STATUS_INTERNAL, "unusable");

    /* A request still yields a completion, and both the queue and its image reject further requests. */
    image = open_image("a.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    platter_queue *queue;
    platter_completion done;
    size_t count;
    OK(platter_queue_new(&queue, image, 1, 0, &err));
    platter_testing_panic_at(1);
    platter_queue_read(queue, &byte, 1, 0, &byte, 0);
    for (int i = 0; i < 2; i++) {
        OK(platter_queue_reap(&count, queue, &done, 1, 1, 0, 0, &err));
        CHECK(count == 1 && done.user_data == &byte && done.status == PLATTER_STATUS_INTERNAL);
        platter_queue_flush(queue, &byte, 0);
    }
    FAILS(platter_image_close(image, 0, &err), PLATTER_STATUS_INTERNAL, "unusable");
    platter_queue_free(queue);

    /* The third guard is the cleanup after the work: the job ends nevertheless, on either thread. */
    image = open_image("a.qcow2", "qcow2", 0);
    OK(platter_map_job_new(&job, image, 0, PLATTER_LENGTH_ALL, 0, &err));
    platter_testing_panic_at(3);
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_INTERNAL, "injected");
    FAILS(platter_job_result(NULL, job, PLATTER_JOB_WAIT, &err), PLATTER_STATUS_INTERNAL, "injected");
    platter_job_free(job);
    OK(platter_map_job_new(&job, image, 0, PLATTER_LENGTH_ALL, 0, &err));
    OK(platter_job_fd(&poller.fd, job, 0, &err));
    platter_testing_panic_at(3);
    OK(platter_job_start(job, 0, &err));
    CHECK(poll(&poller, 1, 60000) == 1);
    FAILS(platter_job_result(NULL, job, PLATTER_JOB_WAIT, &err), PLATTER_STATUS_INTERNAL, "injected");
    platter_job_free(job);

    /* A getter returns what it returns for NULL. */
    platter_testing_panic_at(1);
    CHECK(platter_image_format(image) == NULL);
    CHECK_STR(platter_image_format(image), "qcow2");
    platter_testing_panic_at(1);
    CHECK(platter_image_filename(image) == NULL);
    CHECK_STR(platter_image_filename(image), "a.qcow2");
    platter_error *error = NULL;
    CHECK(platter_size_parse(&size, "x", 0, &error) == PLATTER_STATUS_INVALID);
    platter_testing_panic_at(1);
    CHECK(platter_error_status(error) == 0);
    CHECK(platter_error_status(error) == PLATTER_STATUS_INVALID);
    platter_testing_panic_at(1);
    CHECK_STR(platter_error_message(error), "");
    CHECK_STR(platter_error_message(error), "'x' is no size");
    platter_error_free(error);
    OK(platter_image_close(image, 0, &err));

    /* A registration that panics still frees the user data once. */
    image = open_image("a.qcow2", "qcow2", 0);
    OK(platter_map_job_new(&job, image, 0, PLATTER_LENGTH_ALL, 0, &err));
    platter_testing_panic_at(1);
    FAILS(platter_log_set(NULL, NULL, count_free, 0, 0, &err), PLATTER_STATUS_INTERNAL, "injected");
    CHECK(frees == 1);
    platter_job_free(job);
    OK(platter_image_close(image, 0, &err));
    passed();
    return 0;
}
#else
int main(void)
{
    passed();
    return 0;
}
#endif
