/* Errors: status, errno, message, hints, offset. */
#include "check.h"

static platter_error *opening(const char *path, const char *format, uint32_t flags)
{
    platter_open_options *options;
    platter_image *image = (platter_image *)1;
    platter_error *error = NULL;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, format, PLATTER_NAME_UNCHECKED, &err));
    int status = platter_image_open(&image, path, options, flags, &error);
    CHECK(status != 0 && image == NULL && error != NULL);
    CHECK(platter_error_status(error) == status);
    CHECK(platter_error_errno(error) != 0);
    platter_open_options_free(options);
    return error;
}

static void write_file(const char *path, const void *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(bytes, 1, len, file) == len && fclose(file) == 0);
}

/* Makes the strdup below fail, which the library uses to copy strings for the caller. */
static bool no_memory;

char *strdup(const char *text)
{
    const size_t size = strlen(text) + 1;
    char *copy = no_memory ? NULL : malloc(size);
    return copy == NULL ? NULL : memcpy(copy, text, size);
}

/* If a string cannot be copied for the caller, the call fails instead of succeeding without it. */
static void without_memory(void)
{
    char *text = (char *)1;
    no_memory = true;
    FAILS(platter_size_format(&text, 1, 0, &err), PLATTER_STATUS_OS, "memory");
    CHECK(text == NULL);
    text = (char *)1;
    FAILS(platter_option_help(&text, "qcow2", PLATTER_OPERATION_CREATE, NULL, 0, &err),
          PLATTER_STATUS_OS, "memory");
    CHECK(text == NULL);
    no_memory = false;
    OK(platter_size_format(&text, 1, 0, &err));
    CHECK_STR(text, "1 B");
    platter_free(text);
}

struct failing {
    bool read, extent;
};

static int failing_read(void *buf, size_t len, uint64_t offset, void *user_data)
{
    const struct failing *failing = user_data;
    (void)offset;
    memset(buf, 1, len);
    return failing->read ? -EIO : 0;
}

static int failing_size(uint64_t *size, void *user_data)
{
    (void)user_data;
    *size = 65536;
    return 0;
}

static int failing_extent(uint64_t offset, uint64_t len, uint64_t *run, uint32_t *flags,
                          void *user_data)
{
    const struct failing *failing = user_data;
    (void)offset;
    *run = len;
    *flags = PLATTER_EXTENT_DATA;
    return failing->extent ? -EIO : 0;
}

/* An error has a field for the stage at which a comparison failed, so that its text need not be parsed. */
static void compare_stage(struct failing failing, uint32_t stage, const char *text)
{
    static const platter_storage_ops ops = {
        .read = failing_read, .size = failing_size, .extent = failing_extent};
    struct failing bad = {0}, good = {0};
    platter_open_options *options;
    platter_image *left, *right;
    platter_job *job;
    platter_error *error = NULL;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "raw", 0, &err));
    OK(platter_image_open_storage(&left, &ops, "a", &bad, NULL, options, 0, &err));
    OK(platter_image_open_storage(&right, &ops, "b", &good, NULL, options, 0, &err));
    bad = failing;
    OK(platter_compare_job_new(&job, left, right, 0, &err));
    CHECK(platter_job_run(job, 0, &error) != 0);
    CHECK(platter_error_stage(error) == stage);
    CHECK(strstr(platter_error_message(error), text) != NULL);
    platter_error_free(error);
    platter_job_free(job);
    OK(platter_image_close(left, 0, &err));
    OK(platter_image_close(right, 0, &err));
    platter_open_options_free(options);
}

/* Number of log lines about failed calls and jobs. */
static int told;

static void on_line(uint32_t level, const char *line, void *user_data)
{
    const char *first = strstr(line, "nope");
    (void)level, (void)user_data;
    if (first == NULL)
        return;
    told++;
    if (strstr(first + 1, "nope") != NULL) {
        fprintf(stderr, "the log says: %s\n", line);
        exit(1);
    }
}

static void names_once(int status, platter_error *error)
{
    const char *first = strstr(platter_error_message(error), "nope");
    CHECK(status == PLATTER_STATUS_NOT_FOUND);
    CHECK(first != NULL);
    if (strstr(first + 1, "nope") != NULL) {
        fprintf(stderr, "the message is: %s\n", platter_error_message(error));
        exit(1);
    }
    platter_error_free(error);
}

static void job_names_once(platter_job *job)
{
    platter_error *error = NULL;
    const int status = platter_job_run(job, 0, &error);
    names_once(status, error);
    platter_job_free(job);
}

/* Whatever opens a file that does not exist names it exactly once. */
static void each_call_names_a_file_once(void)
{
    platter_error *error = NULL;
    platter_image *image;
    platter_report *report;
    platter_job *job;
    platter_convert *convert;
    platter_dd *dd;
    OK(platter_log_set(on_line, NULL, NULL, PLATTER_LOG_DEBUG, 0, &err));
    int status = platter_image_open(&image, "nope", NULL, 0, &error);
    names_once(status, error);
    status = platter_image_describe(&report, "nope", NULL, 0, &error);
    names_once(status, error);
    status = platter_inspect(&report, "nope", NULL, 0, &error);
    names_once(status, error);
    OK(platter_commit_job_new(&job, "nope", NULL, NULL, 0, &err));
    job_names_once(job);
    OK(platter_rebase_job_new(&job, "nope", NULL, NULL, NULL, NULL, 0, &err));
    job_names_once(job);
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "nope", 0, &err));
    OK(platter_convert_set_target(convert, "copy", "raw", 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    job_names_once(job);
    platter_convert_free(convert);
    make_image("there.raw", "raw", 512, NULL);
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "there.raw", 0, &err));
    OK(platter_convert_set_target(convert, "nope", "raw", 0, &err));
    OK(platter_convert_job_new(&job, convert, PLATTER_CONVERT_TARGET_EXISTS, &err));
    job_names_once(job);
    platter_convert_free(convert);
    OK(platter_dd_new(&dd, 0, &err));
    OK(platter_dd_set_input(dd, "nope", 0, &err));
    OK(platter_dd_set_output(dd, "copy", "raw", 0, &err));
    OK(platter_dd_job_new(&job, dd, 0, &err));
    job_names_once(job);
    platter_dd_free(dd);
    OK(platter_log_set(NULL, NULL, NULL, 0, 0, &err));
    CHECK(told == 8);
}

int main(void)
{
    without_memory();
    compare_stage((struct failing){.read = true}, PLATTER_STAGE_READ, "Error while reading offset 0");
    compare_stage((struct failing){.extent = true}, PLATTER_STAGE_BLOCK_STATUS,
                  "Sector allocation test failed");
    platter_error *error = opening("nope", NULL, 0);
    CHECK(platter_error_status(error) == PLATTER_STATUS_NOT_FOUND);
    CHECK(platter_error_errno(error) == ENOENT);
    CHECK_STR(platter_error_message(error),
              "Could not open 'nope': No such file or directory");
    CHECK(platter_error_hint(error, 0) == NULL);
    CHECK(platter_error_offset(error) == PLATTER_OFFSET_UNKNOWN);
    CHECK(platter_error_stage(error) == PLATTER_STAGE_OPEN);
    platter_error_free(error);
    each_call_names_a_file_once();

    /* The message is one line of UTF-8, whatever the name is. */
    error = opening("odd\xff\n\x1bname", NULL, 0);
    CHECK_STR(platter_error_message(error),
              "Could not open 'odd\xef\xbf\xbd\\u{a}\\u{1b}name': No such file or directory");
    platter_error_free(error);

    char zeroes[65536] = {0};
    write_file("zero.raw", zeroes, sizeof zeroes);
    error = opening("zero.raw", "qcow2", 0);
    CHECK(platter_error_status(error) == PLATTER_STATUS_NOT_AN_IMAGE);
    CHECK_STR(platter_error_message(error),
              "Could not open 'zero.raw': Image is not in qcow2 format");
    CHECK(platter_error_stage(error) == PLATTER_STAGE_OTHER);
    platter_error_free(error);

    error = opening("zero.raw", "bogus", 0);
    CHECK_STR(platter_error_message(error), "Could not open 'zero.raw': Unknown driver 'bogus'");
    platter_error_free(error);

    /* A damaged table: the status is corrupt, and the offset is set. */
    make_image("bad.qcow2", "qcow2", 1 << 20, NULL);
    FILE *file = fopen("bad.qcow2", "r+b");
    CHECK(file != NULL && fseek(file, 40, SEEK_SET) == 0);
    /* The L1 table is no longer aligned. */
    CHECK(fwrite("\0\0\0\0\0\3\0\1", 1, 8, file) == 8 && fclose(file) == 0);
    error = opening("bad.qcow2", "qcow2", 0);
    CHECK(strstr(platter_error_message(error), "L1 table") != NULL);
    CHECK(platter_error_status(error) == PLATTER_STATUS_CORRUPT);
    CHECK_U64(platter_error_offset(error), 40);
    platter_error_free(error);

    /* For an image in use, a hint says who might be using it. */
    make_image("busy.qcow2", "qcow2", 1 << 20, NULL);
    platter_image *image = open_image("busy.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    error = opening("busy.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    CHECK(platter_error_status(error) == PLATTER_STATUS_LOCKED);
    CHECK(strstr(platter_error_message(error), "lock") != NULL);
    CHECK_STR(platter_error_hint(error, 0), "Is another process using the image [busy.qcow2]?");
    CHECK(platter_error_hint(error, 1) == NULL);
    platter_error_free(error);
    OK(platter_image_close(image, 0, &err));

    /* The error about an unknown option lists the known ones. */
    platter_create *create;
    platter_options *bag;
    platter_job *job;
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_set(bag, "bogus", "1", 0, &err));
    OK(platter_create_new(&create, "x.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_size(create, 512, 0, &err));
    OK(platter_create_set_options(create, bag, 0, &err));
    error = NULL;
    CHECK(platter_create_job_new(&job, create, 0, &error) == PLATTER_STATUS_INVALID);
    CHECK(job == NULL);
    CHECK(strstr(platter_error_message(error), "Invalid parameter 'bogus'") != NULL);
    CHECK(strstr(platter_error_hint(error, 0), "cluster_size") != NULL);
    platter_error_free(error);
    platter_options_free(bag);
    platter_create_free(create);

    /* So does that about an option for opening, of a format or a protocol. */
    platter_open_options *how;
    OK(platter_open_options_new(&how, 0, &err));
    OK(platter_open_options_set_format(how, "qcow2", 0, &err));
    OK(platter_open_options_set_option(how, "bogus", "1", 0, &err));
    error = NULL;
    CHECK(platter_image_open(&image, "busy.qcow2", how, 0, &error) == PLATTER_STATUS_INVALID);
    CHECK(strstr(platter_error_message(error), "'bogus'") != NULL);
    CHECK(strstr(platter_error_hint(error, 0), "lazy-refcounts") != NULL);
    platter_error_free(error);
    OK(platter_open_options_set_option(how, "bogus", NULL, 0, &err));
    OK(platter_open_options_set_option(how, "file.bogus", "1", 0, &err));
    error = NULL;
    CHECK(platter_image_open(&image, "busy.qcow2", how, 0, &error) == PLATTER_STATUS_INVALID);
    CHECK(strstr(platter_error_message(error), "'bogus'") != NULL);
    CHECK(strstr(platter_error_hint(error, 0), "locking") != NULL);
    platter_error_free(error);
    platter_open_options_free(how);

    /* Every status has a name and an errno. */
    for (int status = PLATTER_STATUS_INVALID; status >= PLATTER_STATUS_INTERNAL; status--) {
        CHECK(platter_status_name(status) != NULL);
        CHECK(platter_status_errno(status) > 0);
    }
    CHECK(platter_status_name(PLATTER_STATUS_INTERNAL - 1) == NULL);
    passed();
    return 0;
}
