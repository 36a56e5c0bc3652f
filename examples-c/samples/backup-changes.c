/* Copies what has changed since the last run into an existing raw copy: backup-changes IMAGE COPY
 * The first run finds no bitmap, copies everything, and adds one. */
#include <platter.h>
#include <stdio.h>
#include <stdlib.h>

#define PART ((uint64_t)1 << 20)

static int copy(const platter_image *from, const platter_image *to, uint64_t offset, uint64_t length,
                platter_error **error)
{
    unsigned char *part = malloc(PART);
    int status = part != NULL ? PLATTER_OK : PLATTER_STATUS_OS;

    while (status == PLATTER_OK && length > 0) {
        const size_t len = (size_t)(length < PART ? length : PART);

        status = platter_image_read(from, part, len, offset, 0, error);
        if (status == PLATTER_OK)
            status = platter_image_write(to, part, len, offset, 0, error);
        offset += len;
        length -= len;
    }
    free(part);
    return status;
}

static int copy_changes(const platter_image *from, const platter_image *to, uint64_t size, platter_error **error)
{
    platter_report *dirty = NULL;
    size_t count = 0;
    int status = platter_bitmap_dirty(&dirty, from, "backup", 0, size, 0, error);

    if (status == PLATTER_OK)
        status = platter_report_count(&count, dirty, 0, error);
    for (size_t i = 0; status == PLATTER_OK && i < count; i++) {
        platter_extent run;

        status = platter_report_extent(&run, dirty, i, 0, error);
        if (status == PLATTER_OK)
            status = copy(from, to, run.offset, run.length, error);
    }
    platter_report_free(dirty);
    return status;
}

/* The bitmap is cleared last: a run that fails leaves it unchanged, and the next one copies the same data again. */
static int back_up(const platter_image *image, const platter_image *target, platter_error **error)
{
    uint64_t size = 0;
    int status = platter_image_size(&size, image, 0, error);
    int first = 0;

    if (status == PLATTER_OK)
        status = copy_changes(image, target, size, error);
    if (status == PLATTER_STATUS_NOT_FOUND) {
        platter_error_free(*error);
        *error = NULL;
        first = 1;
        status = copy(image, target, 0, size, error);
    }
    if (status == PLATTER_OK)
        status = platter_image_flush(target, 0, error);
    if (status == PLATTER_OK)
        status = first ? platter_bitmap_add(image, "backup", 0, 0, error)
                       : platter_bitmap_clear(image, "backup", 0, error);
    return status;
}

static int open_for_writing(platter_image **out, const char *path, const char *format, platter_error **error)
{
    platter_open_options *options = NULL;
    int status = platter_open_options_new(&options, 0, error);

    if (status == PLATTER_OK)
        status = platter_open_options_set_format(options, format, 0, error);
    if (status == PLATTER_OK)
        status = platter_image_open(out, path, options, PLATTER_OPEN_WRITE | PLATTER_LOCATION_PATH, error);
    platter_open_options_free(options);
    return status;
}

int main(int argc, char **argv)
{
    platter_image *image = NULL, *target = NULL;
    platter_error *error = NULL;

    if (argc != 3) {
        fprintf(stderr, "Usage: %s IMAGE COPY\n", argv[0]);
        return 2;
    }
    if (open_for_writing(&image, argv[1], "qcow2", &error) == PLATTER_OK &&
        open_for_writing(&target, argv[2], "raw", &error) == PLATTER_OK &&
        back_up(image, target, &error) == PLATTER_OK &&
        platter_image_close(target, 0, &error) == PLATTER_OK) {
        target = NULL;
        if (platter_image_close(image, 0, &error) == PLATTER_OK)
            return 0;
        image = NULL;
    }
    fprintf(stderr, "%s\n", error != NULL ? platter_error_message(error) : "Out of memory");
    platter_error_free(error);
    return 1;
}
