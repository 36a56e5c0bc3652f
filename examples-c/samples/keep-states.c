/* Keeps earlier states of a disk as snapshots within its image: keep-states IMAGE, which lists them, or
 * keep-states IMAGE take|return|drop NAME */
#include <platter.h>
#include <stdio.h>
#include <string.h>

static int begin(platter_job **out, const platter_image *image, const char *verb, const char *name,
                 platter_error **error)
{
    if (strcmp(verb, "take") == 0)
        return platter_snapshot_create_job_new(out, image, name, 0, error);
    if (strcmp(verb, "return") == 0)
        return platter_snapshot_apply_job_new(out, image, name, 0, error);
    return platter_snapshot_delete_job_new(out, image, name, 0, error);
}

static int change(const platter_image *image, const char *verb, const char *name, platter_error **error)
{
    platter_job *job = NULL;
    int status = begin(&job, image, verb, name, error);

    if (status == PLATTER_OK)
        status = platter_job_run(job, 0, error);
    platter_job_free(job);
    return status;
}

/* Prints the ID, the time in seconds since 1970, and the name of each. */
static int list(const platter_image *image, platter_error **error)
{
    platter_report *report = NULL;
    size_t count = 0;
    int status = platter_snapshot_list(&report, image, 0, error);

    if (status == PLATTER_OK)
        status = platter_report_count(&count, report, 0, error);
    for (size_t i = 0; status == PLATTER_OK && i < count; i++) {
        const char *id = NULL, *name = NULL;
        uint64_t seconds = 0;

        status = platter_report_string(&id, report, i, PLATTER_KEY_ID, 0, error);
        if (status == PLATTER_OK)
            status = platter_report_u64(&seconds, report, i, PLATTER_KEY_DATE_SEC, 0, error);
        if (status == PLATTER_OK)
            status = platter_report_string(&name, report, i, PLATTER_KEY_NAME, 0, error);
        if (status == PLATTER_OK)
            printf("%s %llu %s\n", id, (unsigned long long)seconds, name);
    }
    platter_report_free(report);
    return status;
}

int main(int argc, char **argv)
{
    const uint32_t access = argc == 4 ? PLATTER_OPEN_WRITE : 0;
    platter_open_options *options = NULL;
    platter_image *image = NULL;
    platter_error *error = NULL;
    int status;

    if (argc != 2 && (argc != 4 || (strcmp(argv[2], "take") != 0 && strcmp(argv[2], "return") != 0 &&
                                    strcmp(argv[2], "drop") != 0))) {
        fprintf(stderr, "Usage: %s IMAGE [take|return|drop NAME]\n", argv[0]);
        return 2;
    }
    status = platter_open_options_new(&options, 0, &error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_format(options, "qcow2", 0, &error);
    if (status == PLATTER_OK)
        status = platter_image_open(&image, argv[1], options, PLATTER_LOCATION_PATH | access, &error);
    platter_open_options_free(options);
    if (status == PLATTER_OK)
        status = argc == 4 ? change(image, argv[2], argv[3], &error) : list(image, &error);
    if (status == PLATTER_OK)
        status = platter_image_close(image, 0, &error);
    else
        platter_image_close(image, 0, NULL);
    if (status != PLATTER_OK)
        fprintf(stderr, "%s\n", platter_error_message(error));
    platter_error_free(error);
    return status != PLATTER_OK;
}
