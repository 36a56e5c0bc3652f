/* Describes an image, each of its layers, and how much of its disk is data: describe-disk IMAGE DIRECTORY */
#include <platter.h>
#include <stdio.h>

/* Prints the name, the format and two sizes of each layer, the image first. */
static int layers(const platter_image *image, platter_error **error)
{
    platter_report *report = NULL;
    size_t count = 0;
    int status = platter_image_info(&report, image, PLATTER_INFO_CHAIN, error);

    if (status == PLATTER_OK)
        status = platter_report_count(&count, report, 0, error);
    for (size_t i = 0; status == PLATTER_OK && i < count; i++) {
        const char *name = NULL, *format = NULL;
        uint64_t size = 0, space = 0;

        status = platter_report_string(&name, report, i, PLATTER_KEY_FILENAME, 0, error);
        if (status == PLATTER_OK)
            status = platter_report_string(&format, report, i, PLATTER_KEY_FORMAT, 0, error);
        if (status == PLATTER_OK)
            status = platter_report_u64(&size, report, i, PLATTER_KEY_VIRTUAL_SIZE, 0, error);
        /* Not every storage knows how much space it occupies. */
        if (status == PLATTER_OK &&
            platter_report_u64(&space, report, i, PLATTER_KEY_ACTUAL_SIZE, 0, NULL) != PLATTER_OK)
            space = 0;
        if (status == PLATTER_OK)
            printf("%s: %s, %llu bytes, %llu on disk\n", name, format, (unsigned long long)size,
                   (unsigned long long)space);
    }
    platter_report_free(report);
    return status;
}

/* Counts the bytes that some layer holds as data, one run at a time, so that a large map needs no memory. */
static int data(const platter_image *image, platter_error **error)
{
    uint64_t size = 0, bytes = 0;
    int status = platter_image_size(&size, image, 0, error);

    for (uint64_t at = 0; status == PLATTER_OK && at < size;) {
        platter_extent run;

        status = platter_image_extent(&run, image, at, size - at, 0, error);
        if (status != PLATTER_OK)
            break;
        if (run.flags & PLATTER_EXTENT_DATA)
            bytes += run.length;
        at += run.length;
    }
    if (status == PLATTER_OK)
        printf("%llu of %llu bytes are data\n", (unsigned long long)bytes, (unsigned long long)size);
    return status;
}

static int open_it(platter_image **out, const char *path, const char *directory, platter_error **error)
{
    platter_open_options *options = NULL;
    platter_policy *policy = NULL;
    int status = platter_policy_new(&policy, PLATTER_POLICY_STRICT, 0, error);

    if (status == PLATTER_OK)
        status = platter_policy_add_directory(policy, directory, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_new(&options, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_policy(options, policy, 0, error);
    if (status == PLATTER_OK)
        status = platter_image_open(out, path, options, PLATTER_LOCATION_PATH, error);
    platter_open_options_free(options);
    platter_policy_free(policy);
    return status;
}

int main(int argc, char **argv)
{
    platter_image *image = NULL;
    platter_error *error = NULL;
    int status;

    if (argc != 3) {
        fprintf(stderr, "Usage: %s IMAGE DIRECTORY\n", argv[0]);
        return 2;
    }
    status = open_it(&image, argv[1], argv[2], &error);
    if (status == PLATTER_OK)
        status = layers(image, &error);
    if (status == PLATTER_OK)
        status = data(image, &error);
    if (status != PLATTER_OK)
        fprintf(stderr, "%s\n", platter_error_message(error));
    platter_error_free(error);
    platter_image_close(image, 0, NULL);
    return status != PLATTER_OK;
}
