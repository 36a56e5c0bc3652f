/* Every kind of job: started in the background, waited for with poll, paused and resumed, cancelled,
 * with a rate, and with a deadline. */
#include "check.h"

#include <poll.h>

#define SIZE ((uint64_t)1 << 20)

/* The images that a job uses; closed once it is freed. */
static platter_image *images[2];
static platter_open_options *options;

static void make_disks(void)
{
    static unsigned char data[256 << 10];
    static const char *const names[] = {"base.qcow2", "other.qcow2"};
    platter_create *create;
    platter_policy *policy;
    platter_job *job;
    fill_pattern(data, sizeof data, 3);
    unlink("new.qcow2");
    for (size_t i = 0; i < 2; i++) {
        unlink(names[i]);
        make_image(names[i], "qcow2", SIZE, NULL);
        platter_image *image = open_image(names[i], "qcow2", PLATTER_OPEN_WRITE);
        OK(platter_image_write(image, data, sizeof data, 128 << 10, 0, &err));
        OK(platter_snapshot_create_job_new(&job, image, "old", 0, &err));
        OK(platter_job_run(job, 0, &err));
        platter_job_free(job);
        OK(platter_image_close(image, 0, &err));
    }
    unlink("top.qcow2");
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_create_new(&create, "top.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_policy(create, policy, 0, &err));
    OK(platter_create_set_backing(create, "base.qcow2", "qcow2", 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
    platter_policy_free(policy);
    platter_image *image;
    OK(platter_image_open(&image, "top.qcow2", options, PLATTER_OPEN_WRITE, &err));
    OK(platter_image_write(image, data, sizeof data, 512 << 10, 0, &err));
    OK(platter_image_close(image, 0, &err));
}

static platter_job *make_create(void)
{
    platter_create *create;
    platter_job *job;
    OK(platter_create_new(&create, "new.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_size(create, SIZE, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    platter_create_free(create);
    return job;
}

static platter_job *make_convert(void)
{
    platter_convert *convert;
    platter_job *job;
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "base.qcow2", 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_set_target(convert, "new.qcow2", "qcow2", 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    platter_convert_free(convert);
    return job;
}

static platter_job *make_compare(void)
{
    platter_job *job;
    images[0] = open_image("base.qcow2", "qcow2", 0);
    images[1] = open_image("other.qcow2", "qcow2", 0);
    OK(platter_compare_job_new(&job, images[0], images[1], 0, &err));
    return job;
}

static platter_job *make_check(void)
{
    platter_job *job;
    images[0] = open_image("base.qcow2", "qcow2", PLATTER_OPEN_FOR_CHECK);
    OK(platter_check_job_new(&job, images[0], 0, &err));
    return job;
}

static platter_job *make_repair(void)
{
    platter_job *job;
    images[0] = open_image("base.qcow2", "qcow2", PLATTER_OPEN_FOR_CHECK | PLATTER_OPEN_WRITE);
    OK(platter_check_job_new(&job, images[0], PLATTER_CHECK_REPAIR_ALL, &err));
    return job;
}

static platter_job *make_commit(void)
{
    platter_job *job;
    OK(platter_commit_job_new(&job, "top.qcow2", NULL, options, 0, &err));
    return job;
}

static platter_job *make_rebase(void)
{
    platter_job *job;
    OK(platter_rebase_job_new(&job, "top.qcow2", "other.qcow2", "qcow2", NULL, options, 0, &err));
    return job;
}

static platter_job *make_resize(void)
{
    platter_job *job;
    images[0] = open_image("other.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_resize_job_new(&job, images[0], SIZE, NULL, PLATTER_RESIZE_MORE, &err));
    return job;
}

static platter_job *make_measure(void)
{
    platter_job *job;
    images[0] = open_image("base.qcow2", "qcow2", 0);
    OK(platter_measure_job_new(&job, images[0], 0, "qcow2", NULL, 0, &err));
    return job;
}

static platter_job *make_map(void)
{
    platter_job *job;
    images[0] = open_image("base.qcow2", "qcow2", 0);
    OK(platter_map_job_new(&job, images[0], 0, PLATTER_LENGTH_ALL, 0, &err));
    return job;
}

static platter_job *make_snapshot_create(void)
{
    platter_job *job;
    images[0] = open_image("base.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_snapshot_create_job_new(&job, images[0], "new", 0, &err));
    return job;
}

static platter_job *make_snapshot_apply(void)
{
    platter_job *job;
    images[0] = open_image("base.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_snapshot_apply_job_new(&job, images[0], "old", 0, &err));
    return job;
}

static platter_job *make_snapshot_delete(void)
{
    platter_job *job;
    images[0] = open_image("base.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_snapshot_delete_job_new(&job, images[0], "old", 0, &err));
    return job;
}

static platter_job *make_bench(void)
{
    platter_bench bench;
    platter_job *job;
    images[0] = open_image("base.qcow2", "qcow2", 0);
    OK(platter_bench_defaults(&bench, 0, &err));
    CHECK(bench.count == 75000 && bench.depth == 64 && bench.buffer_size == 4096);
    bench.count = 100;
    OK(platter_bench_job_new(&job, images[0], &bench, 0, &err));
    CHECK_STR(platter_job_summary(job), "Sending 100 read requests, 4096 bytes each, 64 in parallel "
                                        "(starting at offset 0, step size 4096)");
    return job;
}

static const struct {
    const char *name;
    platter_job *(*make)(void);
} jobs[] = {
    {"create", make_create},
    {"convert", make_convert},
    {"compare", make_compare},
    {"check", make_check},
    {"repair", make_repair},
    {"commit", make_commit},
    {"rebase", make_rebase},
    {"resize", make_resize},
    {"measure", make_measure},
    {"map", make_map},
    {"snapshot create", make_snapshot_create},
    {"snapshot apply", make_snapshot_apply},
    {"snapshot delete", make_snapshot_delete},
    {"bench", make_bench},
};

static void stands(const platter_job *job, uint32_t expected)
{
    uint32_t state;
    OK(platter_job_state(&state, job, 0, &err));
    CHECK_U64(state, expected);
}

/* Whether the job ends within the time. */
static bool ends_within(platter_job *job, int milliseconds)
{
    struct pollfd poller = {.fd = -1, .events = POLLIN};
    OK(platter_job_fd(&poller.fd, job, 0, &err));
    return poll(&poller, 1, milliseconds) == 1;
}

static void finish(platter_job *job)
{
    platter_job_free(job);
    for (size_t i = 0; i < 2; i++) {
        OK(platter_image_close(images[i], 0, &err));
        images[i] = NULL;
    }
}

static void ends_well(platter_job *job)
{
    platter_report *report;
    CHECK(ends_within(job, 60000));
    OK(platter_job_result(&report, job, 0, &err));
    CHECK(report != NULL);
    stands(job, PLATTER_JOB_STATE_DONE);
    platter_report_free(report);
    finish(job);
}

static void ends_cancelled(platter_job *job, int os_errno)
{
    platter_error *err = NULL;
    CHECK(ends_within(job, 60000));
    CHECK(platter_job_result(NULL, job, 0, &err) == PLATTER_STATUS_CANCELLED);
    CHECK(platter_error_errno(err) == os_errno);
    if (os_errno == ETIMEDOUT)
        CHECK(strstr(platter_error_message(err), "its deadline has passed") != NULL);
    platter_error_free(err);
    stands(job, PLATTER_JOB_STATE_CANCELLED);
    finish(job);
    CHECK(access("new.qcow2", F_OK) != 0);
}

int main(void)
{
    platter_policy *policy;
    /* Stacks with which no thread could start, if the library took them from the environment. */
    CHECK(setenv("RUST_MIN_STACK", "99999999999999", 1) == 0);
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    platter_policy_free(policy);
    make_disks();
    for (size_t i = 0; i < sizeof jobs / sizeof jobs[0]; i++) {
        /* Names the job that a failed check is about. */
        fprintf(stderr, "%s\n", jobs[i].name);

        platter_job *job = jobs[i].make();
        stands(job, PLATTER_JOB_STATE_NEW);
        platter_job_cancel(job);
        OK(platter_job_start(job, 0, &err));
        ends_cancelled(job, ECANCELED);

        job = jobs[i].make();
        OK(platter_job_pause(job, 0, &err));
        OK(platter_job_set_deadline(job, 20, 0, &err));
        OK(platter_job_start(job, 0, &err));
        ends_cancelled(job, ETIMEDOUT);

        /* All that was cancelled has left the images as they were: it can still be done. */
        job = jobs[i].make();
        OK(platter_job_pause(job, 0, &err));
        OK(platter_job_set_deadline(job, 1, 0, &err));
        OK(platter_job_set_deadline(job, 0, 0, &err));
        OK(platter_job_start(job, 0, &err));
        CHECK(!ends_within(job, 20));
        FAILS(platter_job_result(NULL, job, 0, &err), PLATTER_STATUS_BUSY, "not ended");
        stands(job, PLATTER_JOB_STATE_PAUSED);
        OK(platter_job_resume(job, 0, &err));
        ends_well(job);
        make_disks();

        job = jobs[i].make();
        /* Jobs that move no guest data refuse a rate. */
        const int limited = platter_job_set_rate(job, 1 << 30, 0, NULL);
        CHECK(limited == PLATTER_OK || limited == PLATTER_STATUS_UNSUPPORTED);
        OK(platter_job_set_deadline(job, 3600000, 0, &err));
        OK(platter_job_start(job, 0, &err));
        ends_well(job);
        make_disks();
    }
    platter_open_options_free(options);
    passed();
    return 0;
}
