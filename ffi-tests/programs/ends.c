/* Every call that takes an image accepts it in each way: as a path, as a descriptor, as callbacks of the program, and
 * within the disk of an open image. A table of calls and ways, each also with options of the image. */
#include "memory.h"

#include <sys/mman.h>
#include <sys/stat.h>

#define SIZE ((uint64_t)2 << 20)
#define ROOM ((uint64_t)8 << 20)

/* A way in which the program provides a file. */
struct way {
    const char *name;
    void (*add)(platter_storages *storages, const char *name);
};

#ifndef SLOW_RUN
static void add_path(platter_storages *storages, const char *name)
{
    (void)storages;
    (void)name;
}

static void add_fd(platter_storages *storages, const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    CHECK(fd >= 0);
    OK(platter_storages_add_fd(storages, name, fd, 0, &err));
    close(fd);
}
#endif

static void add_callbacks(platter_storages *storages, const char *name)
{
    OK(platter_storages_add_storage(storages, name, &mem_ops, heap_memory(0, ROOM), mem_destroy, 0, &err));
}

#ifndef SLOW_RUN
static void add_image(platter_storages *storages, const char *name)
{
    char outer[64];
    CHECK(snprintf(outer, sizeof outer, "%s.outer", name) > 0);
    add_fd(storages, outer);
    platter_create *create;
    platter_job *job;
    OK(platter_create_new(&create, outer, "qcow2", 0, &err));
    OK(platter_create_set_storages(create, storages, 0, &err));
    OK(platter_create_set_size(create, ROOM, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
    platter_open_options *options;
    platter_image *image;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "qcow2", 0, &err));
    OK(platter_open_options_set_storages(options, storages, 0, &err));
    OK(platter_image_open(&image, outer, options, PLATTER_OPEN_WRITE, &err));
    platter_open_options_free(options);
    OK(platter_storages_add_image(storages, name, image, 0, &err));
    OK(platter_image_close(image, 0, &err));
}
#endif

static const struct way ways[] = {
    {"callbacks", add_callbacks},
#ifndef SLOW_RUN
    {"path", add_path},
    {"descriptor", add_fd},
    {"image", add_image},
#endif
};

/* The files of a call, all provided in the same way. */
struct files {
    platter_storages *storages;
    platter_open_options *qcow2;
};

static platter_open_options *opening(const struct files *files, const char *format)
{
    platter_open_options *options;
    platter_policy *policy;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, format, 0, &err));
    OK(platter_open_options_set_storages(options, files->storages, 0, &err));
    OK(platter_open_options_set_cache(options, "unsafe", 0, &err));
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    platter_policy_free(policy);
    return options;
}

static void create(const struct files *files, const char *name, const char *format,
                   const char *backing)
{
    platter_create *create;
    platter_job *job;
    OK(platter_create_new(&create, name, format, 0, &err));
    OK(platter_create_set_storages(create, files->storages, 0, &err));
    OK(platter_create_set_size(create, SIZE, 0, &err));
    if (backing != NULL)
        OK(platter_create_set_backing(create, backing, "qcow2", 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    run(job);
    platter_create_free(create);
}

static platter_image *open_one(const struct files *files, const char *name, uint32_t flags)
{
    platter_image *image;
    OK(platter_image_open(&image, name, files->qcow2, flags, &err));
    return image;
}

/* Creates "disk": a qcow2 image with one part of data. */
static void with_data(const struct files *files)
{
    create(files, "disk", "qcow2", NULL);
    platter_image *image = open_one(files, "disk", PLATTER_OPEN_WRITE);
    write_part(image, PART);
    OK(platter_image_close(image, 0, &err));
}

static void check_file(const struct files *files, const char *name)
{
    platter_image *image = open_one(files, name, 0);
    check_part(image, PART);
    OK(platter_image_close(image, 0, &err));
}

/* Creates "over", with data of its own, over "disk". */
static void with_overlay(const struct files *files)
{
    with_data(files);
    create(files, "over", "qcow2", "disk");
    platter_image *image = open_one(files, "over", PLATTER_OPEN_WRITE);
    write_part(image, 4 * PART);
    OK(platter_image_close(image, 0, &err));
}

static void call_create(const struct files *files)
{
    create(files, "disk", "qcow2", NULL);
    platter_image *image = open_one(files, "disk", 0);
    uint64_t size;
    OK(platter_image_size(&size, image, 0, &err));
    CHECK_U64(size, SIZE);
    OK(platter_image_close(image, 0, &err));
}

static void call_convert(const struct files *files)
{
    with_data(files);
    platter_convert *convert;
    platter_job *job;
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "disk", 0, &err));
    OK(platter_convert_set_source_options(convert, files->qcow2, 0, &err));
    OK(platter_convert_set_target(convert, "copy", "qcow2", 0, &err));
    OK(platter_convert_set_storages(convert, files->storages, 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    run(job);
    check_file(files, "copy");
    platter_convert_free(convert);
}

static void call_convert_into_existing(const struct files *files)
{
    with_data(files);
    create(files, "copy", "qcow2", NULL);
    platter_convert *convert;
    platter_job *job;
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "disk", 0, &err));
    OK(platter_convert_set_source_options(convert, files->qcow2, 0, &err));
    OK(platter_convert_set_target(convert, "copy", "qcow2", 0, &err));
    OK(platter_convert_set_storages(convert, files->storages, 0, &err));
    OK(platter_convert_job_new(&job, convert, PLATTER_CONVERT_TARGET_EXISTS, &err));
    run(job);
    check_file(files, "copy");
    platter_convert_free(convert);
}

static void call_dd(const struct files *files)
{
    with_data(files);
    platter_dd *dd;
    platter_job *job;
    OK(platter_dd_new(&dd, 0, &err));
    OK(platter_dd_set_input(dd, "disk", 0, &err));
    OK(platter_dd_set_input_options(dd, files->qcow2, 0, &err));
    OK(platter_dd_set_output(dd, "copy", "qcow2", 0, &err));
    OK(platter_dd_set_output_storages(dd, files->storages, 0, &err));
    OK(platter_dd_job_new(&job, dd, 0, &err));
    run(job);
    check_file(files, "copy");
    platter_dd_free(dd);
}

static void call_describe(const struct files *files)
{
    with_overlay(files);
    platter_report *report;
    size_t layers;
    uint64_t size;
    OK(platter_image_describe(&report, "over", files->qcow2, PLATTER_INFO_CHAIN, &err));
    OK(platter_report_count(&layers, report, 0, &err));
    CHECK_U64(layers, 2);
    OK(platter_report_u64(&size, report, 1, PLATTER_KEY_VIRTUAL_SIZE, 0, &err));
    CHECK_U64(size, SIZE);

    /* The getters also reach values nested deep in the JSON. */
    uint64_t number;
    const char *string;
    uint32_t truth;
    OK(platter_report_u64(&number, report, 0, "format-specific.data.refcount-bits", 0, &err));
    CHECK_U64(number, 16);
    OK(platter_report_string(&string, report, 0, "format-specific.type", 0, &err));
    CHECK_STR(string, "qcow2");
    OK(platter_report_string(&string, report, 0, "format-specific.data.compat", 0, &err));
    CHECK_STR(string, "1.1");
    OK(platter_report_bool(&truth, report, 0, "format-specific.data.lazy-refcounts", 0, &err));
    CHECK(!truth);
    OK(platter_report_u64(&number, report, 0, PLATTER_KEY_CHILD_COUNT, 0, &err));
    CHECK_U64(number, 1);
    OK(platter_report_string(&string, report, 0, "children.0.name", 0, &err));
    CHECK_STR(string, "file");
    OK(platter_report_u64(&number, report, 0, "children.0.info.virtual-size", 0, &err));
    CHECK(number > 0);
    FAILS(platter_report_u64(&number, report, 0, "children.1.info.virtual-size", 0, &err),
          PLATTER_STATUS_NOT_FOUND, "children.1");
    FAILS(platter_report_u64(&number, report, 0, "format-specific.data.compat", 0, &err),
          PLATTER_STATUS_INVALID, "number");
    FAILS(platter_report_u64(&number, report, 0, "format-specific.data..", 0, &err),
          PLATTER_STATUS_NOT_FOUND, "");

    /* An open image is described in the same way. */
    platter_image *image = open_one(files, "over", 0);
    platter_report *of_open;
    const char *json, *json_of_open;
    OK(platter_image_info(&of_open, image, PLATTER_INFO_CHAIN, &err));
    OK(platter_report_json(&json, report, 0, &err));
    OK(platter_report_json(&json_of_open, of_open, 0, &err));
    CHECK_STR(json_of_open, json);
    platter_report_free(of_open);
    OK(platter_image_info(&of_open, image, 0, &err));
    OK(platter_report_count(&layers, of_open, 0, &err));
    CHECK_U64(layers, 1);
    platter_report_free(of_open);
    OK(platter_image_close(image, 0, &err));
    platter_report_free(report);
}

static void call_inspect(const struct files *files)
{
    with_overlay(files);
    platter_report *report;
    const char *format;
    uint64_t names;
    OK(platter_inspect(&report, "over", files->qcow2, 0, &err));
    OK(platter_report_string(&format, report, 0, "format", 0, &err));
    CHECK_STR(format, "qcow2");
    OK(platter_report_u64(&names, report, 0, "reference-count", 0, &err));
    CHECK_U64(names, 1);
    platter_report_free(report);
}

static void call_inspect_for_profile(const struct files *files)
{
    with_data(files);
    platter_report *report;
    const char *profile;
    uint64_t objections;
    OK(platter_inspect_for_profile(&report, "disk", "azure", files->qcow2, 0, &err));
    OK(platter_report_string(&profile, report, 0, "profile", 0, &err));
    CHECK_STR(profile, "azure");
    OK(platter_report_u64(&objections, report, 0, "objection-count", 0, &err));
    CHECK(objections > 0);
    platter_report_free(report);
}

static void call_check(const struct files *files)
{
    with_data(files);
    platter_image *image = open_one(files, "disk", PLATTER_OPEN_FOR_CHECK);
    platter_job *job;
    platter_report *report;
    int code;
    OK(platter_check_job_new(&job, image, 0, &err));
    OK(platter_job_run(job, 0, &err));
    OK(platter_job_result(&report, job, 0, &err));
    OK(platter_report_exit_code(&code, report, 0, &err));
    CHECK(code == 0);
    platter_report_free(report);
    platter_job_free(job);
    OK(platter_image_close(image, 0, &err));
}

static void call_compare(const struct files *files)
{
    with_overlay(files);
    platter_image *a = open_one(files, "over", 0), *b = open_one(files, "disk", 0);
    platter_job *job;
    platter_report *report;
    uint64_t offset;
    OK(platter_compare_job_new(&job, a, b, 0, &err));
    OK(platter_job_run(job, 0, &err));
    OK(platter_job_result(&report, job, 0, &err));
    OK(platter_report_u64(&offset, report, 0, "offset", 0, &err));
    CHECK(offset >= 4 * PART && offset < 5 * PART);
    platter_report_free(report);
    platter_job_free(job);
    OK(platter_image_close(a, 0, &err));
    OK(platter_image_close(b, 0, &err));
}

static void call_commit(const struct files *files)
{
    with_overlay(files);
    platter_job *job;
    OK(platter_commit_job_new(&job, "over", NULL, files->qcow2, 0, &err));
    run(job);
    platter_image *image = open_one(files, "disk", 0);
    check_part(image, 4 * PART);
    OK(platter_image_close(image, 0, &err));
}

static void call_rebase(const struct files *files)
{
    with_overlay(files);
    platter_job *job;
    OK(platter_rebase_job_new(&job, "over", NULL, NULL, NULL, files->qcow2, 0, &err));
    run(job);
    platter_image *image = open_one(files, "over", PLATTER_OPEN_NO_BACKING);
    check_part(image, PART);
    check_part(image, 4 * PART);
    OK(platter_image_close(image, 0, &err));
}

/* With open images: the job takes ownership of them, and closes them. */
static void call_commit_open(const struct files *files)
{
    with_overlay(files);
    platter_image *image = open_one(files, "over", PLATTER_OPEN_WRITE);
    platter_job *job;
    write_part(image, 8 * PART);
    OK(platter_commit_image_job_new(&job, image, NULL, files->qcow2, 0, &err));
    run(job);
    image = open_one(files, "disk", 0);
    check_part(image, 4 * PART);
    check_part(image, 8 * PART);
    OK(platter_image_close(image, 0, &err));

    /* A job that is never run also closes it. */
    image = open_one(files, "over", PLATTER_OPEN_WRITE);
    OK(platter_commit_image_job_new(&job, image, NULL, files->qcow2, PLATTER_COMMIT_KEEP, &err));
    platter_job_free(job);
    image = open_one(files, "over", PLATTER_OPEN_WRITE);
    OK(platter_image_close(image, 0, &err));
}

static void call_rebase_open(const struct files *files)
{
    with_overlay(files);
    platter_image *image = open_one(files, "over", PLATTER_OPEN_WRITE);
    platter_job *job;
    write_part(image, 8 * PART);
    OK(platter_rebase_image_job_new(&job, image, NULL, NULL, NULL, files->qcow2, 0, &err));
    run(job);
    image = open_one(files, "over", PLATTER_OPEN_NO_BACKING);
    check_part(image, PART);
    check_part(image, 4 * PART);
    check_part(image, 8 * PART);
    OK(platter_image_close(image, 0, &err));
}

/* An image that is in use, read-only, or open for a check or without its chain is left as it is. */
static void refuse_open(const struct files *files)
{
    static const struct {
        uint32_t flags;
        int status;
        const char *word;
    } unfit[] = {
        {0, PLATTER_STATUS_READ_ONLY, "read-only"},
        {PLATTER_OPEN_WRITE | PLATTER_OPEN_NO_BACKING, PLATTER_STATUS_INVALID, "backing file"},
        {PLATTER_OPEN_WRITE | PLATTER_OPEN_FOR_CHECK, PLATTER_STATUS_INVALID, "for a check"},
    };
    platter_job *job, *other;
    platter_image *image;
    with_overlay(files);
    for (size_t u = 0; u < sizeof unfit / sizeof *unfit; u++)
        for (int rebase = 0; rebase < 2; rebase++) {
            image = open_one(files, "over", unfit[u].flags);
            if (rebase)
                OK(platter_rebase_image_job_new(&job, image, NULL, NULL, NULL, files->qcow2, 0,
                                                &err));
            else
                OK(platter_commit_image_job_new(&job, image, NULL, files->qcow2, 0, &err));
            FAILS(platter_job_run(job, 0, &err), unfit[u].status, unfit[u].word);
            platter_job_free(job);
        }
    image = open_one(files, "over", PLATTER_OPEN_WRITE);
    OK(platter_map_job_new(&other, image, 0, PLATTER_LENGTH_ALL, 0, &err));
    FAILS(platter_commit_image_job_new(&job, image, NULL, files->qcow2, 0, &err),
          PLATTER_STATUS_BUSY, "in use");
    FAILS(platter_rebase_image_job_new(&job, image, NULL, NULL, NULL, files->qcow2, 0, &err),
          PLATTER_STATUS_BUSY, "in use");
    platter_job_free(other);
    check_part(image, PART);
    check_part(image, 4 * PART);
    OK(platter_image_close(image, 0, &err));
}

static void call_resize(const struct files *files)
{
    with_data(files);
    platter_image *image = open_one(files, "disk", PLATTER_OPEN_WRITE);
    platter_job *job;
    uint64_t size;
    OK(platter_resize_job_new(&job, image, 2 * SIZE, NULL, 0, &err));
    run(job);
    OK(platter_image_size(&size, image, 0, &err));
    CHECK_U64(size, 2 * SIZE);
    OK(platter_image_close(image, 0, &err));
}

static void call_amend(const struct files *files)
{
    with_data(files);
    platter_image *image = open_one(files, "disk", PLATTER_OPEN_WRITE);
    platter_options *bag;
    platter_job *job;
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_set(bag, "lazy_refcounts", "on", 0, &err));
    OK(platter_amend_job_new(&job, image, bag, NULL, 0, &err));
    run(job);
    platter_options_free(bag);
    OK(platter_image_close(image, 0, &err));
    check_file(files, "disk");
}

static void call_snapshot(const struct files *files)
{
    with_data(files);
    platter_image *image = open_one(files, "disk", PLATTER_OPEN_WRITE);
    platter_job *job;
    platter_report *report;
    size_t snapshots;
    OK(platter_snapshot_create_job_new(&job, image, "before", 0, &err));
    run(job);
    write_part(image, 0);
    OK(platter_snapshot_apply_job_new(&job, image, "before", 0, &err));
    run(job);
    OK(platter_snapshot_list(&report, image, 0, &err));
    OK(platter_report_count(&snapshots, report, 0, &err));
    CHECK_U64(snapshots, 1);
    platter_report_free(report);
    OK(platter_snapshot_delete_job_new(&job, image, "before", 0, &err));
    run(job);
    OK(platter_image_close(image, 0, &err));
    check_file(files, "disk");
}

static void call_bitmap(const struct files *files)
{
    with_data(files);
    platter_image *image = open_one(files, "disk", PLATTER_OPEN_WRITE);
    platter_report *report;
    platter_extent extent;
    OK(platter_bitmap_add(image, "since", 0, 0, &err));
    write_part(image, 8 * PART);
    OK(platter_image_close(image, 0, &err));
    image = open_one(files, "disk", 0);
    OK(platter_bitmap_dirty(&report, image, "since", 0, SIZE, 0, &err));
    OK(platter_report_extent(&extent, report, 0, 0, &err));
    CHECK_U64(extent.offset, 8 * PART);
    CHECK_U64(extent.length, PART);
    platter_report_free(report);
    OK(platter_image_close(image, 0, &err));
}

static void call_measure(const struct files *files)
{
    with_data(files);
    platter_image *image = open_one(files, "disk", 0);
    platter_job *job;
    platter_report *report;
    uint64_t required;
    OK(platter_measure_job_new(&job, image, 0, "qcow2", NULL, 0, &err));
    OK(platter_job_run(job, 0, &err));
    OK(platter_job_result(&report, job, 0, &err));
    OK(platter_report_u64(&required, report, 0, "required", 0, &err));
    CHECK(required > PART && required < SIZE);
    platter_report_free(report);
    platter_job_free(job);
    OK(platter_image_close(image, 0, &err));
}

static void call_map(const struct files *files)
{
    with_overlay(files);
    platter_image *image = open_one(files, "over", 0);
    platter_job *job;
    platter_report *report;
    platter_extent extent;
    OK(platter_map_job_new(&job, image, PART, SIZE - PART, 0, &err));
    OK(platter_job_run(job, 0, &err));
    OK(platter_job_result(&report, job, 0, &err));
    OK(platter_report_extent(&extent, report, 0, 0, &err));
    CHECK_U64(extent.offset, PART);
    CHECK_U64(extent.depth, 1);
    CHECK((extent.flags & PLATTER_EXTENT_DATA) != 0);
    platter_report_free(report);
    platter_job_free(job);
    OK(platter_image_close(image, 0, &err));
}

static int add_length(const platter_extent *extent, const char *filename, void *user_data)
{
    CHECK(extent->length == 0 || filename != NULL);
    *(uint64_t *)user_data += extent->length;
    return 0;
}

static void call_map_each(const struct files *files)
{
    with_overlay(files);
    platter_image *image = open_one(files, "over", 0);
    platter_job *job;
    uint64_t length = 0;
    OK(platter_map_each_job_new(&job, image, 0, PLATTER_LENGTH_ALL, add_length, &length, NULL, 0,
                                &err));
    run(job);
    CHECK_U64(length, SIZE);
    OK(platter_image_close(image, 0, &err));
}

static void call_bench(const struct files *files)
{
    with_data(files);
    platter_image *image = open_one(files, "disk", 0);
    platter_bench bench;
    platter_job *job;
    OK(platter_bench_defaults(&bench, 0, &err));
    bench.count = 8;
    bench.depth = 2;
    OK(platter_bench_job_new(&job, image, &bench, 0, &err));
    run(job);
    OK(platter_image_close(image, 0, &err));
}

static void call_serve(const struct files *files)
{
    with_data(files);
    platter_image *image = open_one(files, "disk", 0);
    platter_export *export;
    platter_server *server;
    platter_offered offered;
    OK(platter_export_new(&export, image, 0, &err));
    CHECK_U64(platter_export_size(export), SIZE);
    OK(platter_server_new(&server, NULL, 0, &err));
    OK(platter_server_add_export(server, export, 0, &err));
    OK(platter_server_get_export(&offered, server, NULL, 0, &err));
    CHECK_U64(offered.size, SIZE);
    platter_server_free(server);
    platter_export_free(export);
    OK(platter_image_close(image, 0, &err));
}

/* Options of the image can be set with each way, and are rejected if the image does not have them. */
static void call_options(const struct files *files)
{
    with_overlay(files);
    platter_open_options *options = opening(files, "qcow2");
    platter_image *image;
    OK(platter_open_options_set_option(options, "backing", "", 0, &err));
    OK(platter_image_open(&image, "over", options, 0, &err));
    unsigned char byte = 1;
    OK(platter_image_read(image, &byte, 1, PART + 1, 0, &err));
    CHECK(byte == 0);
    OK(platter_image_close(image, 0, &err));
    OK(platter_open_options_set_option(options, "backing", NULL, 0, &err));
    OK(platter_open_options_set_option(options, "backing.driver", "raw", 0, &err));
    OK(platter_image_open(&image, "over", options, 0, &err));
    OK(platter_image_read(image, &byte, 1, 0, 0, &err));
    CHECK(byte == 'Q');
    OK(platter_image_close(image, 0, &err));
    OK(platter_open_options_set_option(options, "no-such", "1", 0, &err));
    FAILS(platter_image_open(&image, "over", options, 0, &err), PLATTER_STATUS_INVALID, "no-such");
    OK(platter_open_options_set_option(options, "no-such", NULL, 0, &err));
    OK(platter_image_open(&image, "over", options, 0, &err));
    OK(platter_image_close(image, 0, &err));
    platter_open_options_free(options);
}

/* Exclusive creation creates a new image and never overwrites one. */
static void call_exclusive(const struct files *files)
{
    platter_create *create;
    platter_job *job;
    OK(platter_create_new(&create, "disk", "qcow2", 0, &err));
    OK(platter_create_set_storages(create, files->storages, 0, &err));
    OK(platter_create_set_size(create, SIZE, 0, &err));
    OK(platter_create_job_new(&job, create, PLATTER_CREATE_EXCLUSIVE, &err));
    int made = platter_job_run(job, 0, NULL);
    platter_job_free(job);
    /* The disk of an open image always has a size, so creation there finds it existing. */
    CHECK(made == 0 || made == PLATTER_STATUS_EXISTS);
    if (made != 0)
        with_data(files);
    platter_image *image = open_one(files, "disk", PLATTER_OPEN_WRITE);
    write_part(image, PART);
    OK(platter_image_close(image, 0, &err));
    OK(platter_create_job_new(&job, create, PLATTER_CREATE_EXCLUSIVE, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_EXISTS, "disk");
    uint32_t state;
    OK(platter_job_state(&state, job, 0, &err));
    CHECK_U64(state, PLATTER_JOB_STATE_FAILED);
    platter_job_free(job);
    platter_create_free(create);
    check_file(files, "disk");

    make_image("source.raw", "raw", SIZE, NULL);
    platter_convert *convert;
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "source.raw", 0, &err));
    OK(platter_convert_set_target(convert, "disk", "qcow2", 0, &err));
    OK(platter_convert_set_storages(convert, files->storages, 0, &err));
    OK(platter_convert_job_new(&job, convert, PLATTER_CONVERT_EXCLUSIVE, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_EXISTS, "disk");
    platter_job_free(job);
    FAILS(platter_convert_job_new(&job, convert,
                                  PLATTER_CONVERT_EXCLUSIVE | PLATTER_CONVERT_TARGET_EXISTS, &err),
          PLATTER_STATUS_INVALID, "new");
    platter_convert_free(convert);

    platter_dd *dd;
    OK(platter_dd_new(&dd, 0, &err));
    OK(platter_dd_set_input(dd, "source.raw", 0, &err));
    OK(platter_dd_set_output(dd, "disk", "qcow2", 0, &err));
    OK(platter_dd_set_output_storages(dd, files->storages, 0, &err));
    OK(platter_dd_job_new(&job, dd, PLATTER_DD_EXCLUSIVE, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_EXISTS, "disk");
    platter_job_free(job);
    platter_dd_free(dd);
    check_file(files, "disk");
}

static const struct {
    const char *name;
    void (*call)(const struct files *files);
} calls[] = {
    {"create", call_create},
    {"convert", call_convert},
    {"convert into what exists", call_convert_into_existing},
    {"dd", call_dd},
    {"describe", call_describe},
    {"inspect", call_inspect},
    {"inspect for a profile", call_inspect_for_profile},
    {"check", call_check},
    {"compare", call_compare},
    {"commit", call_commit},
    {"rebase", call_rebase},
    {"commit of an open image", call_commit_open},
    {"rebase of an open image", call_rebase_open},
    {"refused of an open image", refuse_open},
    {"resize", call_resize},
    {"amend", call_amend},
    {"snapshot", call_snapshot},
    {"bitmap", call_bitmap},
    {"measure", call_measure},
    {"map", call_map},
    {"map, each run", call_map_each},
    {"bench", call_bench},
    {"serve", call_serve},
    {"options", call_options},
    {"exclusive", call_exclusive},
};

static void a_table_of_calls_by_ways(void)
{
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++)
        for (size_t c = 0; c < sizeof calls / sizeof *calls; c++) {
            fprintf(stderr, "%s by %s\n", calls[c].name, ways[w].name);
            static const char *const names[] = {"disk", "over", "copy"};
            struct files files = {0};
            OK(platter_storages_new(&files.storages, 0, &err));
            for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
                unlink(names[n]);
                ways[w].add(files.storages, names[n]);
            }
            files.qcow2 = opening(&files, "qcow2");
            calls[c].call(&files);
            platter_open_options_free(files.qcow2);
            platter_storages_free(files.storages);
        }
}

/* An image opened over a file of the program accepts options for itself, but none for the file. */
static void options_beside_what_is_open(void)
{
    make_image("open.qcow2", "qcow2", SIZE, NULL);
    int fd = open("open.qcow2", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    platter_open_options *options;
    platter_image *image;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_option(options, "driver", "qcow2", 0, &err));
    OK(platter_open_options_set_option(options, "lazy-refcounts", "on", 0, &err));
    OK(platter_image_open_fd(&image, fd, NULL, options, PLATTER_OPEN_WRITE, &err));
    CHECK_STR(platter_image_format(image), "qcow2");
    OK(platter_image_close(image, 0, &err));
    OK(platter_open_options_set_option(options, "lazy-refcounts", "perhaps", 0, &err));
    FAILS(platter_image_open_fd(&image, fd, NULL, options, PLATTER_OPEN_WRITE, &err),
          PLATTER_STATUS_INVALID, "lazy-refcounts");
    OK(platter_open_options_set_option(options, "lazy-refcounts", NULL, 0, &err));
    OK(platter_open_options_set_option(options, "file.locking", "off", 0, &err));
    FAILS(platter_image_open_fd(&image, fd, NULL, options, 0, &err), PLATTER_STATUS_INVALID,
          "file.locking");
    OK(platter_image_open(&image, "open.qcow2", options, PLATTER_OPEN_WRITE, &err));
    OK(platter_image_close(image, 0, &err));

    /* An option given in the location cannot be set again. */
    FAILS(platter_image_open(&image, "driver=qcow2,file.locking=on,file.filename=open.qcow2", options,
                             PLATTER_LOCATION_IMAGE_OPTS, &err),
          PLATTER_STATUS_INVALID, "'locking'");
    OK(platter_open_options_set_format(options, "raw", 0, &err));
    FAILS(platter_image_open(&image, "open.qcow2", options, 0, &err), PLATTER_STATUS_INVALID,
          "'raw'");

    /* A key must be complete, which the setter checks. */
    FAILS(platter_open_options_set_option(options, "file.", "x", 0, &err), PLATTER_STATUS_INVALID,
          "key");
    FAILS(platter_open_options_set_option(options, "file.locking.x", "x", 0, &err),
          PLATTER_STATUS_INVALID, "");

    /* A set of options can hold numbers and booleans. */
    platter_options *bag;
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_set_bool(bag, "lazy-refcounts", 1, 0, &err));
    OK(platter_options_set_u64(bag, "l2-cache-size", 1 << 20, 0, &err));
    OK(platter_open_options_set_format(options, "qcow2", 0, &err));
    OK(platter_open_options_set_options(options, bag, 0, &err));
    platter_options_free(bag);
    OK(platter_image_open_fd(&image, fd, NULL, options, PLATTER_OPEN_WRITE, &err));
    OK(platter_image_close(image, 0, &err));
    OK(platter_open_options_set_options(options, NULL, 0, &err));

    /* A stream is a plain sequence of bytes and has no options. */
    int ends[2];
    CHECK(pipe(ends) == 0);
    close(ends[1]);
    OK(platter_open_options_set_format(options, "raw", 0, &err));
    OK(platter_open_options_set_option(options, "size", "512", 0, &err));
    platter_convert *convert;
    platter_job *job;
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_set_source_fd(convert, ends[0], 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_set_target(convert, "from-pipe", "raw", 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_INVALID, "'size'");
    CHECK(access("from-pipe", F_OK) != 0);
    platter_job_free(job);
    platter_convert_free(convert);
    close(ends[0]);
    platter_open_options_free(options);
    close(fd);
}

/* A name in the set refers to its storage, even if a pipe has the same name. */
static void a_storage_called_as_a_pipe(void)
{
    CHECK(mkfifo("fifo", 0600) == 0);
    platter_storages *storages;
    platter_open_options *options;
    OK(platter_storages_new(&storages, 0, &err));
    struct memory *m = heap_memory(SIZE, ROOM);
    m->bytes[0] = 'x';
    OK(platter_storages_add_storage(storages, "fifo", &mem_ops, m, mem_destroy, 0, &err));
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "raw", 0, &err));
    OK(platter_open_options_set_storages(options, storages, 0, &err));
    platter_convert *convert;
    platter_job *job;
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "fifo", 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_set_target(convert, "from-storage", "raw", 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    run(job);
    platter_convert_free(convert);
    platter_open_options_free(options);
    platter_storages_free(storages);
    int fd = open("from-storage", O_RDONLY | O_CLOEXEC);
    char byte;
    CHECK(fd >= 0 && read(fd, &byte, 1) == 1 && byte == 'x');
    CHECK_U64((uint64_t)lseek(fd, 0, SEEK_END), SIZE);
    close(fd);
}

int main(void)
{
    a_table_of_calls_by_ways();
    options_beside_what_is_open();
    a_storage_called_as_a_pipe();
    passed();
    return 0;
}
