/* create, convert, check, map, compare, commit, rebase and resize, end to end. */
#include "check.h"

#include <pthread.h>

#define SIZE ((uint64_t)8 << 20)

static uint64_t number(const platter_report *report, const char *key)
{
    uint64_t value;
    OK(platter_report_u64(&value, report, 0, key, 0, &err));
    return value;
}

static void compare(const char *a, const char *fa, const char *b, const char *fb, int identical)
{
    platter_image *left = open_image(a, fa, 0), *right = open_image(b, fb, 0);
    platter_job *job;
    OK(platter_compare_job_new(&job, left, right, 0, &err));
    platter_report *report = result_of(job);
    int code;
    OK(platter_report_exit_code(&code, report, 0, &err));
    CHECK(code == !identical);
    uint32_t same;
    OK(platter_report_bool(&same, report, 0, "identical", 0, &err));
    CHECK((same != 0) == identical);
    platter_report_free(report);
    OK(platter_image_close(left, 0, &err));
    OK(platter_image_close(right, 0, &err));
}

static void check_clean(const char *path)
{
    platter_image *image = open_image(path, "qcow2", PLATTER_OPEN_FOR_CHECK);
    platter_job *job;
    OK(platter_check_job_new(&job, image, 0, &err));
    platter_report *report = result_of(job);
    int code;
    OK(platter_report_exit_code(&code, report, 0, &err));
    CHECK(code == 0);
    CHECK(number(report, "check-errors") == 0 && number(report, "corruptions") == 0);
    CHECK(number(report, "leaks") == 0);
    platter_report_free(report);
    OK(platter_image_close(image, 0, &err));
}

/* A lost refcount: repairing only leaks is not possible, repairing everything is. */
static void check_lost(const char *path)
{
    static unsigned char file[1 << 20], after[1 << 20];
    FILE *stream = fopen(path, "r+b");
    CHECK(stream != NULL);
    const size_t len = fread(file, 1, sizeof file, stream);
    /* The refcount table is at 0x1000, its first block at 0x2000. */
    CHECK(len > 0x2008 && fseek(stream, 0x2000 + 2 * 3, SEEK_SET) == 0);
    CHECK(fwrite("\0\0", 1, 2, stream) == 2 && fseek(stream, 0, SEEK_SET) == 0);
    CHECK(fread(file, 1, len, stream) == len && fclose(stream) == 0);

    platter_image *image =
        open_image(path, "qcow2", PLATTER_OPEN_FOR_CHECK | PLATTER_OPEN_WRITE);
    platter_job *job;
    platter_report *report = NULL;
    int code;
    OK(platter_check_job_new(&job, image, PLATTER_CHECK_REPAIR_LEAKS, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_CORRUPT, "repair all of it");
    FAILS(platter_job_result(&report, job, 0, &err), PLATTER_STATUS_CORRUPT, path);
    CHECK(report == NULL);
    OK(platter_job_failure_report(&report, job, 0, &err));
    CHECK(platter_report_kind(report) == PLATTER_REPORT_CHECK);
    CHECK(number(report, "corruptions") > 0 && number(report, "leaks-fixed") == 0);
    OK(platter_report_exit_code(&code, report, 0, &err));
    CHECK(code == 1);
    platter_report_free(report);
    platter_job_free(job);
    OK(platter_image_close(image, 0, &err));
    stream = fopen(path, "rb");
    CHECK(stream != NULL && fread(after, 1, sizeof after, stream) == len);
    CHECK(fclose(stream) == 0 && memcmp(file, after, len) == 0);

    image = open_image(path, "qcow2", PLATTER_OPEN_FOR_CHECK | PLATTER_OPEN_WRITE);
    OK(platter_check_job_new(&job, image, PLATTER_CHECK_REPAIR_ALL, &err));
    report = result_of(job);
    CHECK(number(report, "corruptions-fixed") > 0);
    platter_report_free(report);
    OK(platter_image_close(image, 0, &err));
    check_clean(path);
}

/* An image that is written to during a check. */
struct live {
    platter_image *image;
    int expected; /* status of each change */
    bool done;
};

static void *write_there(void *user_data)
{
    struct live *live = user_data;
    int status = platter_image_write(live->image, "x", 1, 512 << 10, 0, NULL);
    CHECK(status == live->expected);
    status = platter_image_flush(live->image, 0, NULL);
    CHECK(status == live->expected);
    live->done = true;
    return NULL;
}

static int write_from_a_thread(const platter_progress *progress, void *user_data)
{
    struct live *live = user_data;
    pthread_t writer;
    (void)progress;
    if (live->done)
        return 0;
    CHECK(pthread_create(&writer, NULL, write_there, live) == 0);
    CHECK(pthread_join(writer, NULL) == 0);
    return 0;
}

static int write_from_here(const platter_progress *progress, void *user_data)
{
    (void)progress;
    write_there(user_data);
    return 0;
}

/* A check reports on one consistent state of the image, or fails. */
static void check_live(const char *path)
{
    struct live live = {open_image(path, "qcow2", PLATTER_OPEN_WRITE), 0, false};
    platter_job *job;
    platter_report *report = NULL;
    OK(platter_check_job_new(&job, live.image, 0, &err));
    OK(platter_job_set_progress(job, write_from_a_thread, &live, NULL, 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_BUSY, "was changed meanwhile");
    CHECK(live.done);
    FAILS(platter_job_result(&report, job, 0, &err), PLATTER_STATUS_BUSY, path);
    CHECK(report == NULL);
    FAILS(platter_job_failure_report(&report, job, 0, &err), PLATTER_STATUS_NOT_FOUND, "");
    platter_job_free(job);

    live.expected = PLATTER_STATUS_BUSY;
    OK(platter_check_job_new(&job, live.image, PLATTER_CHECK_HOLD_CHANGES, &err));
    OK(platter_job_set_progress(job, write_from_here, &live, NULL, 0, &err));
    report = result_of(job);
    CHECK(number(report, "corruptions") == 0 && number(report, "leaks") == 0);
    platter_report_free(report);
    OK(platter_image_close(live.image, 0, &err));
    check_clean(path);
}

static void make_small(const char *path)
{
    platter_create *create;
    platter_options *bag;
    platter_job *job;
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_parse(bag, "cluster_size=4k", 0, &err));
    OK(platter_create_new(&create, path, "qcow2", 0, &err));
    OK(platter_create_set_size(create, 1 << 20, 0, &err));
    OK(platter_create_set_options(create, bag, 0, &err));
    platter_options_free(bag);
    OK(platter_create_job_new(&job, create, 0, &err));
    platter_create_free(create);
    platter_report_free(result_of(job));
    platter_image *image = open_image(path, "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_image_write(image, "x", 1, 0, 0, &err));
    OK(platter_image_close(image, 0, &err));
}

struct walk {
    const platter_report *report;
    size_t seen, stop_after;
    int frees;
};

static int next_run(const platter_extent *extent, const char *filename, void *user_data)
{
    struct walk *walk = user_data;
    platter_extent expected;
    OK(platter_report_extent(&expected, walk->report, walk->seen, 0, &err));
    CHECK(memcmp(extent, &expected, sizeof expected) == 0);
    CHECK_STR(filename, extent->depth == 0 ? "top.qcow2" : "base.qcow2");
    return ++walk->seen == walk->stop_after;
}

static void walked(void *user_data)
{
    ((struct walk *)user_data)->frees++;
}

/* The runs of a map passed one by one are those of its report. */
static void map_one_by_one(platter_image *image, const platter_report *whole, size_t runs)
{
    struct walk walk = {.report = whole};
    platter_job *job;
    OK(platter_map_each_job_new(&job, image, 0, PLATTER_LENGTH_ALL, next_run, &walk, walked, 0,
                                &err));
    CHECK(walk.seen == 0 && walk.frees == 0);
    platter_report *report = result_of(job);
    CHECK(platter_report_kind(report) == PLATTER_REPORT_DONE);
    platter_report_free(report);
    CHECK(walk.seen == runs && walk.frees == 1);

    /* The callback may stop the job; a job that is never run frees the user data too, and so does a call that fails. */
    walk = (struct walk){.report = whole, .stop_after = 2};
    OK(platter_map_each_job_new(&job, image, 0, PLATTER_LENGTH_ALL, next_run, &walk, walked, 0,
                                &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_CANCELLED, "");
    platter_job_free(job);
    CHECK(walk.seen == 2 && walk.frees == 1);
    OK(platter_map_each_job_new(&job, image, 0, 1, next_run, &walk, walked, 0, &err));
    platter_job_free(job);
    CHECK(walk.seen == 2 && walk.frees == 2);
    FAILS(platter_map_each_job_new(&job, image, 0, 1, NULL, &walk, walked, 0, &err),
          PLATTER_STATUS_INVALID, "extent_fn");
    CHECK(walk.frees == 3);
}

int main(void)
{
    make_small("lost.qcow2");
    check_lost("lost.qcow2");
    make_small("live.qcow2");
    check_live("live.qcow2");

    /* create: the summary is available before anything is touched. */
    platter_create *create;
    platter_options *bag;
    platter_job *job;
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_parse(bag, "cluster_size=4k", 0, &err));
    OK(platter_create_new(&create, "base.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_size(create, SIZE, 0, &err));
    OK(platter_create_set_options(create, bag, 0, &err));
    platter_options_free(bag);
    OK(platter_create_job_new(&job, create, 0, &err));
    platter_create_free(create);
    CHECK_STR(platter_job_summary(job),
              "Formatting 'base.qcow2', fmt=qcow2 cluster_size=4096 extended_l2=off "
              "compression_type=zlib size=8388608 lazy_refcounts=off refcount_bits=16");
    CHECK(access("base.qcow2", F_OK) != 0);
    platter_report *report = result_of(job);
    CHECK(platter_report_kind(report) == PLATTER_REPORT_CREATE);
    const char *text;
    OK(platter_report_string(&text, report, 0, "summary", 0, &err));
    CHECK(strncmp(text, "Formatting 'base.qcow2'", 23) == 0);
    platter_report_free(report);

    platter_image *image = open_image("base.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    static unsigned char data[1 << 20];
    fill_pattern(data, sizeof data, 0);
    OK(platter_image_write(image, data, sizeof data, 1 << 20, 0, &err));
    OK(platter_image_write(image, data, sizeof data, 5 << 20, 0, &err));
    OK(platter_image_close(image, 0, &err));
    check_clean("base.qcow2");

    /* convert: to raw, and back compressed; the report counts. */
    platter_convert *convert;
    platter_open_options *open;
    OK(platter_open_options_new(&open, 0, &err));
    OK(platter_open_options_set_format(open, "qcow2", 0, &err));
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "base.qcow2", 0, &err));
    OK(platter_convert_set_source_options(convert, open, 0, &err));
    OK(platter_convert_set_target(convert, "flat.raw", "raw", 0, &err));
    OK(platter_convert_set_number(convert, PLATTER_CONVERT_PARALLEL, 2, 0, &err));
    OK(platter_convert_set_number(convert, PLATTER_CONVERT_SPARSE_SIZE, 4096, 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    report = result_of(job);
    CHECK(platter_report_kind(report) == PLATTER_REPORT_CONVERT);
    CHECK_U64(number(report, "virtual-size"), SIZE);
    OK(platter_report_text(&text, report, 0, &err));
    CHECK_STR(text, "");
    OK(platter_report_json(&text, report, 0, &err));
    CHECK(strstr(text, "\"virtual-size\": 8388608") != NULL);
    platter_report_free(report);
    compare("base.qcow2", "qcow2", "flat.raw", "raw", 1);

    OK(platter_convert_set_target(convert, "small.qcow2", "qcow2", 0, &err));
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_set(bag, "compression_type", "zstd", 0, &err));
    OK(platter_convert_set_target_options(convert, bag, 0, &err));
    platter_options_free(bag);
    OK(platter_convert_set_target_cache(convert, "writeback", 0, &err));

    /* Conflicting options are reported in advance, and rejected with the same text. */
    static const struct {
        uint32_t flags, conflict;
    } cases[] = {
        {PLATTER_CONVERT_COMPRESS | PLATTER_CONVERT_OUT_OF_ORDER, PLATTER_CONVERT_CONFLICT_NONE},
        {PLATTER_CONVERT_TARGET_EXISTS, PLATTER_CONVERT_CONFLICT_OPTIONS_OF_EXISTING},
        {PLATTER_CONVERT_TARGET_IS_ZERO, PLATTER_CONVERT_CONFLICT_ZERO_OF_NEW},
        {PLATTER_CONVERT_SKIP_BROKEN_BITMAPS, PLATTER_CONVERT_CONFLICT_SKIP_WITHOUT_BITMAPS},
        {PLATTER_CONVERT_COPY_RANGE, PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_SPARSE_SIZE},
        {PLATTER_CONVERT_COPY_RANGE | PLATTER_CONVERT_COMPRESS,
         PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_COMPRESS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t conflict = 99;
        OK(platter_convert_check(&conflict, convert, cases[i].flags, &err));
        CHECK_U64(conflict, cases[i].conflict);
        if (conflict != PLATTER_CONVERT_CONFLICT_NONE)
            FAILS(platter_convert_job_new(&job, convert, cases[i].flags, &err),
                  PLATTER_STATUS_INVALID, platter_convert_conflict_text(conflict));
    }
    OK(platter_convert_job_new(&job, convert, PLATTER_CONVERT_COMPRESS | PLATTER_CONVERT_OUT_OF_ORDER,
                               &err));
    platter_convert_free(convert);
    platter_open_options_free(open);
    report = result_of(job);
    CHECK(number(report, "compressed-units") > 0 && number(report, "compressed-bytes") > 0);
    platter_report_free(report);
    check_clean("small.qcow2");
    compare("small.qcow2", "qcow2", "flat.raw", "raw", 1);

    /* A difference is a report, not an error. */
    image = open_image("flat.raw", "raw", PLATTER_OPEN_WRITE);
    OK(platter_image_write(image, "x", 1, 3000000, 0, &err));
    OK(platter_image_close(image, 0, &err));
    compare("base.qcow2", "qcow2", "flat.raw", "raw", 0);

    /* Strict: the images are allocated differently. */
    platter_image *a = open_image("base.qcow2", "qcow2", 0), *b = open_image("flat.raw", "raw", 0);
    OK(platter_compare_job_new(&job, a, b, PLATTER_COMPARE_STRICT, &err));
    report = result_of(job);
    OK(platter_report_string(&text, report, 0, PLATTER_KEY_REASON, 0, &err));
    CHECK(strcmp(text, PLATTER_REASON_STATUS) == 0 || strcmp(text, PLATTER_REASON_CONTENT) == 0);
    platter_report_free(report);
    OK(platter_image_close(a, 0, &err));
    OK(platter_image_close(b, 0, &err));

    /* An overlay: data of the base shows through, and the map reports the layer. */
    platter_policy *policy;
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_create_new(&create, "top.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_backing(create, "base.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_policy(create, policy, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    platter_create_free(create);
    platter_report_free(result_of(job));
    OK(platter_open_options_new(&open, 0, &err));
    OK(platter_open_options_set_policy(open, policy, 0, &err));
    OK(platter_image_open(&image, "top.qcow2", open, 0, &err));
    OK(platter_map_job_new(&job, image, 0, PLATTER_LENGTH_ALL, 0, &err));
    report = result_of(job);
    CHECK(platter_report_kind(report) == PLATTER_REPORT_MAP);
    size_t runs;
    OK(platter_report_count(&runs, report, 0, &err));
    CHECK(runs >= 4);
    uint64_t at = 0;
    for (size_t i = 0; i < runs; i++) {
        platter_extent run;
        OK(platter_report_extent(&run, report, i, 0, &err));
        CHECK(run.offset == at);
        at += run.length;
        if (run.flags & PLATTER_EXTENT_DATA)
            CHECK(run.depth == 1);
    }
    CHECK_U64(at, SIZE);
    OK(platter_report_text_end(report, 0, &err));
    map_one_by_one(image, report, runs);
    platter_report_free(report);
    OK(platter_image_close(image, 0, &err));

    /* A commit moves the overlay's data into the base, which then holds it by itself. */
    OK(platter_image_open(&image, "top.qcow2", open, PLATTER_OPEN_WRITE, &err));
    OK(platter_image_write(image, "down", 4, 70000, 0, &err));
    OK(platter_image_close(image, 0, &err));
    OK(platter_commit_job_new(&job, "top.qcow2", "nope", open, 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_NOT_FOUND, "Did not find 'nope'");
    platter_job_free(job);
    OK(platter_commit_job_new(&job, "top.qcow2", NULL, open, 0, &err));
    report = result_of(job);
    CHECK(platter_report_kind(report) == PLATTER_REPORT_DONE);
    platter_report_free(report);
    char down[4];
    image = open_image("base.qcow2", "qcow2", 0);
    OK(platter_image_read(image, down, 4, 70000, 0, &err));
    CHECK(memcmp(down, "down", 4) == 0);
    OK(platter_image_close(image, 0, &err));
    check_clean("base.qcow2");

    /* Rebased to no backing file, the overlay itself holds all data. */
    OK(platter_rebase_job_new(&job, "top.qcow2", NULL, NULL, NULL, open, 0, &err));
    platter_report_free(result_of(job));
    check_clean("top.qcow2");
    compare("top.qcow2", "qcow2", "base.qcow2", "qcow2", 1);

    /* The map of a compressed image has no complete human-readable form, which is reported. */
    image = open_image("small.qcow2", "qcow2", 0);
    OK(platter_map_job_new(&job, image, 0, PLATTER_LENGTH_ALL, 0, &err));
    report = result_of(job);
    OK(platter_report_text(&text, report, 0, &err));
    CHECK(strncmp(text, "Offset ", 7) == 0);
    platter_error *error = NULL;
    CHECK(platter_report_text_end(report, 0, &error) != 0);
    CHECK(strstr(platter_error_message(error), "compressed clusters") != NULL);
    platter_error_free(error);
    platter_report_free(report);
    OK(platter_image_close(image, 0, &err));

    /* A format that does not support checks reports that. */
    image = open_image("flat.raw", "raw", PLATTER_OPEN_FOR_CHECK);
    OK(platter_check_job_new(&job, image, 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_UNSUPPORTED, "does not support checks");
    platter_job_free(job);
    OK(platter_image_close(image, 0, &err));

    /* Resizing: an image can always grow, but shrinks only if that is allowed. */
    image = open_image("flat.raw", "raw", PLATTER_OPEN_WRITE);
    OK(platter_resize_job_new(&job, image, 1000, "off", PLATTER_RESIZE_MORE, &err));
    report = result_of(job);
    CHECK(platter_report_kind(report) == PLATTER_REPORT_DONE);
    CHECK_U64(number(report, "virtual-size"), SIZE + 1024);
    platter_report_free(report);
    OK(platter_resize_job_new(&job, image, SIZE, NULL, 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_INVALID, "shrinking was not asked for");
    platter_job_free(job);
    OK(platter_resize_job_new(&job, image, 1024, NULL, PLATTER_RESIZE_LESS | PLATTER_RESIZE_SHRINK,
                              &err));
    platter_report_free(result_of(job));
    uint64_t size;
    OK(platter_image_size(&size, image, 0, &err));
    CHECK_U64(size, SIZE);
    OK(platter_image_close(image, 0, &err));

    platter_open_options_free(open);
    platter_policy_free(policy);
    passed();
    return 0;
}
