/* Every kind of job: started in the background, waited for with poll, paused and resumed, cancelled,
 * with a rate limit, and with a deadline; each of these also applied while the job is waiting. */
#include "check.h"

#include <poll.h>

#define SIZE ((uint64_t)8 << 20)

/* Bytes of data in each disk: enough that a rate-limited job has to wait, whatever the size of its requests. */
#define DATA (SIZE - (256 << 10))

/* The images that a job uses; closed after it is freed. */
static platter_image *images[2];
static platter_open_options *options;

/* Nothing here has to survive a power failure. */
static platter_image *open_for_writing(const char *name)
{
    platter_image *image;
    OK(platter_image_open(&image, name, options, PLATTER_OPEN_WRITE, &err));
    return image;
}

static void make_disks(void)
{
    static unsigned char data[DATA];
    static const char *const names[] = {"base.qcow2", "other.qcow2"};
    platter_create *create;
    platter_policy *policy;
    platter_job *job;
    fill_pattern(data, sizeof data, 3);
    unlink("new.qcow2");
    for (size_t i = 0; i < 2; i++) {
        unlink(names[i]);
        make_image(names[i], "qcow2", SIZE, NULL);
        platter_image *image = open_for_writing(names[i]);
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
    platter_image *image = open_for_writing("top.qcow2");
    /* Half of the disk: a commit moves this half, a rebase the other. */
    OK(platter_image_write(image, data, SIZE / 2, 0, 0, &err));
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

static platter_job *make_dd(void)
{
    platter_dd *dd;
    platter_job *job;
    OK(platter_dd_new(&dd, 0, &err));
    OK(platter_dd_set_input(dd, "base.qcow2", 0, &err));
    OK(platter_dd_set_input_options(dd, options, 0, &err));
    OK(platter_dd_set_output(dd, "new.qcow2", "qcow2", 0, &err));
    OK(platter_dd_job_new(&job, dd, 0, &err));
    platter_dd_free(dd);
    return job;
}

/* Converts to a descriptor, sequentially. */
static platter_job *make_stream(void)
{
    platter_convert *convert;
    platter_job *job;
    const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    CHECK(null >= 0);
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "base.qcow2", 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_set_target_fd(convert, null, 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    platter_convert_free(convert);
    CHECK(close(null) == 0);
    return job;
}

/* Opens a descriptor for converting from, sequentially. */
static int open_plain(void)
{
    static unsigned char data[SIZE];
    int plain = open("plain.raw", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (plain < 0)
        return open("plain.raw", O_RDONLY | O_CLOEXEC);
    fill_pattern(data, sizeof data, 5);
    CHECK(pwrite(plain, data, sizeof data, 0) == sizeof data);
    return plain;
}

static platter_job *convert_from(int fd)
{
    platter_convert *convert;
    platter_job *job;
    CHECK(fd >= 0);
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_set_source_fd(convert, fd, 0, &err));
    OK(platter_convert_set_target(convert, "new.qcow2", "qcow2", 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    platter_convert_free(convert);
    CHECK(close(fd) == 0);
    return job;
}

static platter_job *dd_from(int fd)
{
    platter_dd *dd;
    platter_job *job;
    CHECK(fd >= 0);
    OK(platter_dd_new(&dd, 0, &err));
    OK(platter_dd_set_input_fd(dd, fd, 0, &err));
    OK(platter_dd_set_output(dd, "new.qcow2", "qcow2", 0, &err));
    OK(platter_dd_set_number(dd, PLATTER_DD_INPUT_SIZE, SIZE, 0, &err));
    OK(platter_dd_job_new(&job, dd, 0, &err));
    platter_dd_free(dd);
    CHECK(close(fd) == 0);
    return job;
}

static platter_job *make_stream_in(void)
{
    return convert_from(open_plain());
}

static platter_job *make_dd_in(void)
{
    return dd_from(open_plain());
}

/* Converts an open image, which is added under a name. */
static platter_job *make_convert_image(void)
{
    platter_storages *storages;
    platter_open_options *raw;
    platter_convert *convert;
    platter_job *job;
    images[0] = open_image("base.qcow2", "qcow2", 0);
    OK(platter_storages_new(&storages, 0, &err));
    OK(platter_storages_add_image(storages, "guest", images[0], 0, &err));
    OK(platter_open_options_new(&raw, 0, &err));
    OK(platter_open_options_set_format(raw, "raw", 0, &err));
    OK(platter_open_options_set_storages(raw, storages, 0, &err));
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "guest", 0, &err));
    OK(platter_convert_set_source_options(convert, raw, 0, &err));
    OK(platter_convert_set_target(convert, "new.qcow2", "qcow2", 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    platter_convert_free(convert);
    platter_open_options_free(raw);
    platter_storages_free(storages);
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

/* The job takes ownership of the image. */
static platter_job *make_commit_image(void)
{
    platter_job *job;
    OK(platter_commit_image_job_new(&job, open_for_writing("top.qcow2"), NULL, options, 0, &err));
    return job;
}

static platter_job *make_rebase_image(void)
{
    platter_job *job;
    OK(platter_rebase_image_job_new(&job, open_for_writing("top.qcow2"), NULL, NULL, NULL, options, 0, &err));
    return job;
}

static platter_job *make_rebase(void)
{
    platter_job *job;
    OK(platter_rebase_job_new(&job, "top.qcow2", NULL, NULL, NULL, options, 0, &err));
    return job;
}

static platter_job *make_resize(void)
{
    platter_job *job;
    images[0] = open_for_writing("other.qcow2");
    OK(platter_resize_job_new(&job, images[0], SIZE, NULL, PLATTER_RESIZE_MORE, &err));
    return job;
}

static platter_job *make_amend(void)
{
    platter_options *bag;
    platter_job *job;
    images[0] = open_for_writing("other.qcow2");
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_set(bag, PLATTER_OPT_LAZY_REFCOUNTS, "on", 0, &err));
    OK(platter_amend_job_new(&job, images[0], bag, NULL, 0, &err));
    platter_options_free(bag);
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

static int next_run(const platter_extent *extent, const char *filename, void *user_data)
{
    (void)extent, (void)filename, (void)user_data;
    return 0;
}

static platter_job *make_map_each(void)
{
    platter_job *job;
    images[0] = open_image("base.qcow2", "qcow2", 0);
    OK(platter_map_each_job_new(&job, images[0], 0, PLATTER_LENGTH_ALL, next_run, NULL, NULL, 0,
                                &err));
    return job;
}

static platter_job *make_snapshot_create(void)
{
    platter_job *job;
    images[0] = open_for_writing("base.qcow2");
    OK(platter_snapshot_create_job_new(&job, images[0], "new", 0, &err));
    return job;
}

static platter_job *make_snapshot_apply(void)
{
    platter_job *job;
    images[0] = open_for_writing("base.qcow2");
    OK(platter_snapshot_apply_job_new(&job, images[0], "old", 0, &err));
    return job;
}

static platter_job *make_snapshot_delete(void)
{
    platter_job *job;
    images[0] = open_for_writing("base.qcow2");
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

struct kind {
    const char *name;
    platter_job *(*make)(void);
    bool rated;   /* moves guest data, at a rate if one is set */
    bool changes; /* modifies the existing disks */
    bool twin;    /* waits in the same way as another kind */
};

static const struct kind kinds[] = {
    {"create", make_create, false, false, false},
    {"convert", make_convert, true, false, false},
    {"dd", make_dd, true, false, false},
    {"stream", make_stream, true, false, false},
    {"stream in", make_stream_in, true, false, false},
    {"dd of a stream", make_dd_in, true, false, true},
    {"convert of an open image", make_convert_image, true, false, true},
    {"compare", make_compare, true, false, false},
    {"check", make_check, false, false, false},
    {"repair", make_repair, false, false, false},
    {"commit", make_commit, true, true, false},
    {"commit of an open image", make_commit_image, true, true, true},
    {"rebase", make_rebase, true, true, false},
    {"rebase of an open image", make_rebase_image, true, true, true},
    {"resize", make_resize, false, true, false},
    {"amend", make_amend, false, true, false},
    {"measure", make_measure, false, false, false},
    {"map", make_map, false, false, false},
    {"map of each", make_map_each, false, false, false},
    {"snapshot create", make_snapshot_create, false, true, false},
    {"snapshot apply", make_snapshot_apply, false, true, false},
    {"snapshot delete", make_snapshot_delete, false, true, false},
    {"bench", make_bench, true, false, false},
};

static void stands(const platter_job *job, uint32_t expected)
{
    uint32_t state;
    OK(platter_job_state(&state, job, 0, &err));
    CHECK_U64(state, expected);
}

/* Whether the job ends within that time. */
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
    platter_error *error = NULL;
    CHECK(ends_within(job, 60000));
    FAILS(platter_job_result(NULL, job, 0, &err), PLATTER_STATUS_CANCELLED,
          os_errno == ETIMEDOUT ? "its deadline has passed" : "");
    CHECK(platter_job_result(NULL, job, 0, &error) != PLATTER_OK);
    CHECK(platter_error_errno(error) == os_errno);
    platter_error_free(error);
    stands(job, PLATTER_JOB_STATE_CANCELLED);
    finish(job);
    CHECK(access("new.qcow2", F_OK) != 0);
}

/* Restores the disks if the job has modified them. */
static void renew(const struct kind *kind)
{
    unlink("new.qcow2");
    if (kind->changes)
        make_disks();
}

static platter_job *begun_at_rest(const struct kind *kind)
{
    platter_job *job = kind->make();
    OK(platter_job_pause(job, 0, &err));
    OK(platter_job_start(job, 0, &err));
    return job;
}

/* A paused job can be ended by cancelling and by a deadline. */
static void changes_in_a_pause(const struct kind *kind)
{
    platter_job *job = begun_at_rest(kind);
    CHECK(!ends_within(job, 5));
    platter_job_cancel(job);
    ends_cancelled(job, ECANCELED);

    job = begun_at_rest(kind);
    CHECK(!ends_within(job, 5));
    OK(platter_job_set_deadline(job, 1, 0, &err));
    ends_cancelled(job, ETIMEDOUT);
}

/* Starts a job that would take weeks. */
static platter_job *begun_slowly(const struct kind *kind)
{
    platter_job *job = kind->make();
    OK(platter_job_set_rate(job, 1, 0, &err));
    OK(platter_job_start(job, 0, &err));
    CHECK(!ends_within(job, 5));
    return job;
}

/* A job waiting because of its rate limit reacts to cancelling, a deadline, a pause and a new rate. */
static void changes_in_a_wait(const struct kind *kind)
{
    platter_job *job = begun_slowly(kind);
    platter_job_cancel(job);
    ends_cancelled(job, ECANCELED);
    /* Otherwise data that has been moved would not be moved again. */
    renew(kind);

    job = begun_slowly(kind);
    OK(platter_job_set_deadline(job, 1, 0, &err));
    ends_cancelled(job, ETIMEDOUT);
    renew(kind);

    job = begun_slowly(kind);
    OK(platter_job_pause(job, 0, &err));
    OK(platter_job_set_rate(job, 0, 0, &err));
    CHECK(!ends_within(job, 5));
    stands(job, PLATTER_JOB_STATE_PAUSED);
    OK(platter_job_resume(job, 0, &err));
    ends_well(job);
    renew(kind);

    job = begun_slowly(kind);
    OK(platter_job_set_rate(job, 1 << 30, 0, &err));
    ends_well(job);
    renew(kind);
}

/* The progress advances while data is moved. */
static void moves(const struct kind *kind)
{
    platter_job *job = kind->make();
    platter_progress now;
    /* At this rate, each request but the first takes a second or more. */
    OK(platter_job_set_rate(job, 1 << 20, 0, &err));
    OK(platter_job_start(job, 0, &err));
    do {
        CHECK(!ends_within(job, 1));
        OK(platter_job_progress(&now, job, 0, &err));
        CHECK(now.total == 0 || now.done < now.total);
    } while (now.done == 0);
    OK(platter_job_set_rate(job, 0, 0, &err));
    ends_well(job);
    renew(kind);
}

static platter_job *make_full_pipe(int fd)
{
    platter_convert *convert;
    platter_job *job;
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "base.qcow2", 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_set_target_fd(convert, fd, 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    platter_convert_free(convert);
    CHECK(close(fd) == 0);
    return job;
}

/* A job blocked on a pipe that is empty, or full and not read, can be ended by cancelling and by a deadline. */
static void waits_for_pipes(void)
{
    static platter_job *(*const makes[])(int fd) = {convert_from, dd_from, make_full_pipe};
    for (size_t i = 0; i < sizeof makes / sizeof *makes; i++)
        for (int late = 0; late < 2; late++) {
            int ends[2];
            CHECK(pipe(ends) == 0);
            const int writes = makes[i] == make_full_pipe;
            platter_job *job = makes[i](ends[writes]);
            OK(platter_job_start(job, 0, &err));
            CHECK(!ends_within(job, 5));
            if (late)
                OK(platter_job_set_deadline(job, 1, 0, &err));
            else
                platter_job_cancel(job);
            ends_cancelled(job, late ? ETIMEDOUT : ECANCELED);
            CHECK(close(ends[!writes]) == 0);
        }
}

int main(void)
{
    platter_policy *policy;
    /* A stack size with which no thread could start, if the library took it from the environment. */
    CHECK(setenv("RUST_MIN_STACK", "99999999999999", 1) == 0);
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_open_options_set_format(options, "qcow2", 0, &err));
    OK(platter_open_options_set_cache(options, "unsafe", 0, &err));
    platter_policy_free(policy);
    make_disks();
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const struct kind *const kind = &kinds[i];
#ifdef SLOW_RUN
        if (kind->twin)
            continue;
#endif
        /* Identifies the job if a check fails. */
        fprintf(stderr, "%s\n", kind->name);

        platter_job *job = kind->make();
        stands(job, PLATTER_JOB_STATE_NEW);
        platter_job_cancel(job);
        OK(platter_job_start(job, 0, &err));
        ends_cancelled(job, ECANCELED);

        job = kind->make();
        OK(platter_job_pause(job, 0, &err));
        OK(platter_job_set_deadline(job, 20, 0, &err));
        OK(platter_job_start(job, 0, &err));
        ends_cancelled(job, ETIMEDOUT);

        /* The cancelled jobs have left the images intact: the job can still be carried out. */
        job = kind->make();
        OK(platter_job_pause(job, 0, &err));
        OK(platter_job_set_deadline(job, 1, 0, &err));
        OK(platter_job_set_deadline(job, 0, 0, &err));
        OK(platter_job_start(job, 0, &err));
        CHECK(!ends_within(job, 20));
        FAILS(platter_job_result(NULL, job, 0, &err), PLATTER_STATUS_BUSY, "not ended");
        stands(job, PLATTER_JOB_STATE_PAUSED);
        OK(platter_job_resume(job, 0, &err));
        ends_well(job);
        renew(kind);

        changes_in_a_pause(kind);
        if (kind->rated) {
            changes_in_a_wait(kind);
            moves(kind);
        }

        job = kind->make();
        /* A job that moves no guest data rejects a rate. */
        if (kind->rated)
            OK(platter_job_set_rate(job, 1 << 30, 0, &err));
        else
            FAILS(platter_job_set_rate(job, 1 << 30, 0, &err), PLATTER_STATUS_UNSUPPORTED, "");
        OK(platter_job_set_deadline(job, 3600000, 0, &err));
        OK(platter_job_start(job, 0, &err));
        ends_well(job);
        renew(kind);
    }
    waits_for_pipes();
    platter_open_options_free(options);
    passed();
    return 0;
}
