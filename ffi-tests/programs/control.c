/* Ending long operations: opening by a control, jobs by a deadline; and rates that change. */
#include "check.h"

#include <poll.h>
#include <pthread.h>

/* A bit that no flag uses. */
#define BAD 0x80000000u
#define OPTIONS_OF(name) "driver=luks,key-secret=s,file.filename=" name

static platter_secrets *secrets;
static platter_control *control;

/* Creates a volume whose header requires minutes of key derivation. */
static void make_slow_volume(const char *name)
{
    static const unsigned char iterations[] = {0x10, 0, 0, 0};
    platter_create *create;
    platter_options *bag;
    platter_job *job;
    OK(platter_create_new(&create, name, "luks", 0, &err));
    OK(platter_create_set_size(create, 1 << 20, 0, &err));
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_parse(bag, "key-secret=s,iter-time=10", 0, &err));
    OK(platter_create_set_options(create, bag, 0, &err));
    OK(platter_create_set_secrets(create, secrets, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_options_free(bag);
    platter_create_free(create);
    int fd = open(name, O_WRONLY);
    CHECK(pwrite(fd, iterations, sizeof iterations, 212) == sizeof iterations);
    CHECK(close(fd) == 0);
}

static platter_open_options *options_with_control(void)
{
    platter_policy *policy;
    platter_open_options *options;
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_open_options_set_secrets(options, secrets, 0, &err));
    OK(platter_open_options_set_control(options, control, 0, &err));
    platter_policy_free(policy);
    return options;
}

static void *cancel(void *unused)
{
    (void)unused;
    platter_control_cancel(control);
    return NULL;
}

static void openings(void)
{
    platter_image *image;
    platter_report *report;
    OK(platter_control_new(&control, 0, &err));
    platter_open_options *options = options_with_control();
    /* A deadline that has been lifted no longer matters. */
    OK(platter_control_set_deadline(control, 1, 0, &err));
    usleep(2000);
    OK(platter_control_set_deadline(control, 0, 0, &err));
    OK(platter_image_open(&image, "disk.raw", options, 0, &err));
    OK(platter_image_close(image, 0, &err));

    OK(platter_control_set_deadline(control, 50, 0, &err));
    platter_error *error = NULL;
    CHECK(platter_image_open(&image, OPTIONS_OF("slow.luks"), options,
                             PLATTER_LOCATION_IMAGE_OPTS, &error) == PLATTER_STATUS_CANCELLED);
    CHECK(image == NULL && platter_error_errno(error) == ETIMEDOUT);
    platter_error_free(error);
    OK(platter_control_set_deadline(control, 0, 0, &err));

    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, cancel, NULL) == 0);
    FAILS(platter_image_open(&image, OPTIONS_OF("slow.luks"), options, PLATTER_LOCATION_IMAGE_OPTS,
                             &err),
          PLATTER_STATUS_CANCELLED, "slow.luks");
    CHECK(pthread_join(thread, NULL) == 0);
    /* It stays cancelled for its users, even after the handle has been freed. */
    platter_control_free(control);
    FAILS(platter_image_describe(&report, "disk.raw", options, 0, &err), PLATTER_STATUS_CANCELLED,
          "");
    OK(platter_open_options_set_control(options, NULL, 0, &err));
    OK(platter_image_open(&image, "disk.raw", options, 0, &err));
    OK(platter_image_close(image, 0, &err));
    platter_open_options_free(options);
}

/* A job can be ended while it opens its images: by its own deadline, and by the control in its options. */
static void jobs_that_open(void)
{
    for (int own = 0; own < 2; own++) {
        platter_convert *convert;
        platter_job *job;
        OK(platter_control_new(&control, 0, &err));
        platter_open_options *options = options_with_control();
        OK(platter_convert_new(&convert, 0, &err));
        OK(platter_convert_add_source(convert, OPTIONS_OF("slow.luks"), PLATTER_LOCATION_IMAGE_OPTS,
                                      &err));
        OK(platter_convert_set_source_options(convert, options, 0, &err));
        OK(platter_convert_set_target(convert, "out.raw", "raw", 0, &err));
        OK(platter_convert_job_new(&job, convert, 0, &err));
        if (own)
            OK(platter_job_set_deadline(job, 50, 0, &err));
        else
            OK(platter_control_set_deadline(control, 50, 0, &err));
        FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_CANCELLED, "deadline");
        CHECK(access("out.raw", F_OK) != 0);
        platter_job_free(job);
        platter_convert_free(convert);
        platter_open_options_free(options);
        platter_control_free(control);
    }
}

/* A creation can be ended before and during its job. */
static void creations(void)
{
    platter_create *create;
    platter_options *bag;
    platter_job *job;
    OK(platter_control_new(&control, 0, &err));
    OK(platter_create_new(&create, "new.luks", "luks", 0, &err));
    OK(platter_create_set_size(create, 1 << 20, 0, &err));
    OK(platter_options_new(&bag, 0, &err));
    /* Half a minute of key derivation. */
    OK(platter_options_parse(bag, "key-secret=s,iter-time=30000", 0, &err));
    OK(platter_create_set_options(create, bag, 0, &err));
    OK(platter_create_set_secrets(create, secrets, 0, &err));
    OK(platter_create_set_control(create, control, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_control_set_deadline(control, 300, 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_CANCELLED, "deadline");
    CHECK(access("new.luks", F_OK) != 0);
    platter_job_free(job);
    platter_options_free(bag);
    platter_create_free(create);

    platter_control_cancel(control);
    OK(platter_create_new(&create, "new.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_backing(create, "disk.raw", "raw", 0, &err));
    OK(platter_create_set_control(create, control, 0, &err));
    FAILS(platter_create_job_new(&job, create, 0, &err), PLATTER_STATUS_CANCELLED, "");
    OK(platter_create_set_control(create, NULL, 0, &err));
    platter_create_free(create);
    platter_control_free(control);
}

/* Calls on an open image can be ended by the control of the image; earlier writes are kept. */
static void calls_on_an_image(void)
{
    unsigned char bytes[512], seen[512];
    platter_extent extent;
    platter_report *report;
    platter_image *image;
    uint32_t inconsistent;
    make_image("calls.qcow2", "qcow2", 1 << 20, NULL);
    image = open_image("calls.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_control_new(&control, 0, &err));
    FAILS(platter_image_set_control(image, control, BAD, &err), PLATTER_STATUS_INVALID,
          "unknown bits");
    OK(platter_image_set_control(image, control, 0, &err));
    OK(platter_bitmap_add(image, "b", 0, 0, &err));
    fill_pattern(bytes, sizeof bytes, 1);
    OK(platter_image_write(image, bytes, sizeof bytes, 0, 0, &err));
    platter_control_cancel(control);
    FAILS(platter_bitmap_add(image, "c", 0, 0, &err), PLATTER_STATUS_CANCELLED, "");
    FAILS(platter_bitmap_clear(image, "b", 0, &err), PLATTER_STATUS_CANCELLED, "");
    FAILS(platter_bitmap_merge(image, "b", NULL, "b", 0, &err), PLATTER_STATUS_CANCELLED, "");
    FAILS(platter_bitmap_dirty(&report, image, "b", 0, UINT64_MAX, 0, &err),
          PLATTER_STATUS_CANCELLED, "");
    FAILS(platter_image_write_zeroes(image, 0, 512, 0, &err), PLATTER_STATUS_CANCELLED, "");
    FAILS(platter_image_discard(image, 0, 1 << 20, 0, &err), PLATTER_STATUS_CANCELLED, "");
    FAILS(platter_image_extent(&extent, image, 0, 1 << 20, 0, &err), PLATTER_STATUS_CANCELLED, "");
    FAILS(platter_image_flush(image, 0, &err), PLATTER_STATUS_CANCELLED, "");
    OK(platter_image_set_control(image, NULL, 0, &err));
    OK(platter_image_flush(image, 0, &err));
    OK(platter_image_write_zeroes(image, 4096, 512, 0, &err));
    OK(platter_image_set_control(image, control, 0, &err));
    platter_control_free(control);
    FAILS(platter_image_close(image, 0, &err), PLATTER_STATUS_CANCELLED, "");

    image = open_image("calls.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_image_read(image, seen, sizeof seen, 0, 0, &err));
    CHECK(memcmp(seen, bytes, sizeof seen) == 0);
    OK(platter_bitmap_list(&report, image, 0, &err));
    OK(platter_report_bool(&inconsistent, report, 0, "inconsistent", 0, &err));
    CHECK(inconsistent);
    platter_report_free(report);
    OK(platter_image_close(image, 0, &err));
}

/* Lifting a rate limit wakes the job that is waiting because of it. */
static void rates(void)
{
    platter_job *job;
    platter_image *a = open_image("disk.raw", "raw", 0), *b = open_image("other.raw", "raw", 0);
    OK(platter_compare_job_new(&job, a, b, 0, &err));
    OK(platter_job_set_rate(job, 1, 0, &err));
    int fd;
    OK(platter_job_fd(&fd, job, 0, &err));
    OK(platter_job_start(job, 0, &err));
    struct pollfd ended = {.fd = fd, .events = POLLIN};
    CHECK(poll(&ended, 1, 100) == 0);
    OK(platter_job_set_rate(job, 0, 0, &err));
    CHECK(poll(&ended, 1, 60000) == 1);
    OK(platter_job_result(NULL, job, 0, &err));
    platter_job_free(job);

    /* A rate that cannot be honoured is rejected. */
    OK(platter_map_job_new(&job, a, 0, PLATTER_LENGTH_ALL, 0, &err));
    FAILS(platter_job_set_rate(job, 1, 0, &err), PLATTER_STATUS_UNSUPPORTED, "'map'");
    OK(platter_job_set_rate(job, 0, 0, &err));
    platter_job_free(job);
    OK(platter_image_close(a, 0, &err));
    OK(platter_image_close(b, 0, &err));
}

/* The progress reported by a job. */
struct steps {
    uint64_t done, total, longest;
    int count;
};

static int on_progress(const platter_progress *progress, void *user_data)
{
    struct steps *steps = user_data;
    CHECK(progress->done >= steps->done);
    if (progress->done - steps->done > steps->longest)
        steps->longest = progress->done - steps->done;
    steps->done = progress->done;
    steps->total = progress->total;
    steps->count++;
    return 0;
}

/* Progress counts the data to be moved, not the size of the images, and advances as it is moved. */
static void progress(void)
{
    static unsigned char chunk[1 << 20];
    platter_policy *policy;
    platter_open_options *options;
    platter_create *create;
    platter_job *job;
    platter_image *image;
    make_image("base.qcow2", "qcow2", 1ull << 40, NULL);
    OK(platter_create_new(&create, "top.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_backing(create, "base.qcow2", "qcow2", 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_open_options_set_format(options, "qcow2", 0, &err));
    OK(platter_image_open(&image, "top.qcow2", options, PLATTER_OPEN_WRITE, &err));
    fill_pattern(chunk, sizeof chunk, 0);
    for (uint64_t n = 0; n < 40; n++)
        OK(platter_image_write(image, chunk, sizeof chunk, n * sizeof chunk, 0, &err));
    OK(platter_image_close(image, 0, &err));

    struct steps steps = {0};
    OK(platter_commit_job_new(&job, "top.qcow2", NULL, options, PLATTER_LOCATION_PATH, &err));
    OK(platter_job_set_progress(job, on_progress, &steps, NULL, 0, &err));
    /* Slow enough that every thread of the job gets a share. */
    OK(platter_job_set_rate(job, 64 << 20, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    CHECK_U64(steps.total, 40 << 20);
    CHECK_U64(steps.done, 40 << 20);
    CHECK(steps.count > 4 && steps.longest < 40 << 20);

    /* With little data to move, and with none. */
    static const size_t lengths[] = {512, 65536, 0};
    for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++) {
        platter_progress end;
        OK(platter_image_open(&image, "top.qcow2", options, PLATTER_OPEN_WRITE, &err));
        OK(platter_image_write(image, chunk, lengths[n], 0, 0, &err));
        OK(platter_image_close(image, 0, &err));
        OK(platter_commit_job_new(&job, "top.qcow2", NULL, options, PLATTER_LOCATION_PATH, &err));
        OK(platter_job_run(job, 0, &err));
        OK(platter_job_progress(&end, job, 0, &err));
        CHECK_U64(end.total, lengths[n] == 0 ? 1 : 65536);
        CHECK_U64(end.done, end.total);
        platter_job_free(job);
    }
    platter_open_options_free(options);
    platter_policy_free(policy);
}

static void arguments(void)
{
    platter_open_options *options;
    platter_create *create;
    FAILS(platter_control_new(NULL, 0, &err), PLATTER_STATUS_INVALID, "'out'");
    FAILS(platter_control_new(&control, 0x80, &err), PLATTER_STATUS_INVALID, "flags");
    CHECK(control == NULL);
    FAILS(platter_control_set_deadline(NULL, 1, 0, &err), PLATTER_STATUS_INVALID, "'control'");
    platter_control_cancel(NULL);
    platter_control_free(NULL);
    OK(platter_open_options_new(&options, 0, &err));
    FAILS(platter_open_options_set_control(NULL, NULL, 0, &err), PLATTER_STATUS_INVALID,
          "'options'");
    FAILS(platter_open_options_set_control(options, NULL, 0x80, &err), PLATTER_STATUS_INVALID,
          "flags");
    platter_open_options_free(options);
    OK(platter_create_new(&create, "c", "raw", 0, &err));
    FAILS(platter_create_set_control(NULL, NULL, 0, &err), PLATTER_STATUS_INVALID, "'create'");
    FAILS(platter_create_set_control(create, NULL, 0x80, &err), PLATTER_STATUS_INVALID, "flags");
    platter_create_free(create);
}

static void fill(const char *name)
{
    static unsigned char chunk[1 << 20];
    platter_image *image = open_image(name, "raw", PLATTER_OPEN_WRITE);
    fill_pattern(chunk, sizeof chunk, 0);
    for (uint64_t at = 0; at < 8 << 20; at += sizeof chunk)
        OK(platter_image_write(image, chunk, sizeof chunk, at, 0, &err));
    OK(platter_image_close(image, 0, &err));
}

int main(void)
{
    OK(platter_secrets_new(&secrets, 0, &err));
    OK(platter_secrets_add(secrets, "s", "x", 1, 0, &err));
    make_image("disk.raw", "raw", 8 << 20, NULL);
    make_image("other.raw", "raw", 8 << 20, NULL);
    fill("disk.raw");
    fill("other.raw");
    make_slow_volume("slow.luks");
    arguments();
    openings();
    jobs_that_open();
    creations();
    calls_on_an_image();
    rates();
    progress();
    platter_secrets_free(secrets);
    passed();
    return 0;
}
