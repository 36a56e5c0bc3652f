/* Errors: status, errno, message, hints, offset. */
#include "check.h"

static platter_error *opening(const char *path, const char *format, uint32_t flags)
{
    platter_open_options *options;
    platter_image *image = (platter_image *)1;
    platter_error *error = NULL;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, format, 0, &err));
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

int main(void)
{
    platter_error *error = opening("nope", NULL, 0);
    CHECK(platter_error_status(error) == PLATTER_STATUS_NOT_FOUND);
    CHECK(platter_error_errno(error) == ENOENT);
    CHECK_STR(platter_error_message(error),
              "Could not open 'nope': Could not open 'nope': No such file or directory");
    CHECK(platter_error_hint(error, 0) == NULL);
    CHECK(platter_error_offset(error) == PLATTER_OFFSET_UNKNOWN);
    platter_error_free(error);

    char zeroes[65536] = {0};
    write_file("zero.raw", zeroes, sizeof zeroes);
    error = opening("zero.raw", "qcow2", 0);
    CHECK(platter_error_status(error) == PLATTER_STATUS_NOT_AN_IMAGE);
    CHECK_STR(platter_error_message(error),
              "Could not open 'zero.raw': Image is not in qcow2 format");
    platter_error_free(error);

    error = opening("zero.raw", "bogus", 0);
    CHECK_STR(platter_error_message(error), "Could not open 'zero.raw': Unknown driver 'bogus'");
    platter_error_free(error);

    /* A damaged table: corrupt, with the offset. */
    make_image("bad.qcow2", "qcow2", 1 << 20, NULL);
    FILE *file = fopen("bad.qcow2", "r+b");
    CHECK(file != NULL && fseek(file, 40, SEEK_SET) == 0);
    /* The L1 table is no longer aligned. */
    CHECK(fwrite("\0\0\0\0\0\3\0\1", 1, 8, file) == 8 && fclose(file) == 0);
    error = opening("bad.qcow2", "qcow2", 0);
    CHECK(strstr(platter_error_message(error), "L1 table") != NULL);
    platter_error_free(error);

    /* An image in use says by whom it might be, as a hint. */
    make_image("busy.qcow2", "qcow2", 1 << 20, NULL);
    platter_image *image = open_image("busy.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    error = opening("busy.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    CHECK(platter_error_status(error) == PLATTER_STATUS_LOCKED);
    CHECK(strstr(platter_error_message(error), "lock") != NULL);
    CHECK_STR(platter_error_hint(error, 0), "Is another process using the image [busy.qcow2]?");
    CHECK(platter_error_hint(error, 1) == NULL);
    platter_error_free(error);
    OK(platter_image_close(image, 0, &err));

    /* A wrong option names the right ones. */
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

    /* Every status has a name and an errno. */
    for (int status = PLATTER_STATUS_INVALID; status >= PLATTER_STATUS_INTERNAL; status--) {
        CHECK(platter_status_name(status) != NULL);
        CHECK(platter_status_errno(status) > 0);
    }
    CHECK(platter_status_name(PLATTER_STATUS_INTERNAL - 1) == NULL);
    passed();
    return 0;
}
