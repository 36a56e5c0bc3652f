/* Checks an image and reclaims leaked space; a damaged image is left as it is:
 * check-disk IMAGE FORMAT
 * Exits with 0 if the image is now consistent, with 2 if it is damaged. */
#include <platter.h>
#include <stdio.h>

struct findings {
    uint64_t errors, corruptions, leaks, leaks_fixed;
};

static void show(const platter_message *message, void *user_data)
{
    (void)user_data;
    fprintf(stderr, "%s\n", message->text);
}

static int count(struct findings *found, const platter_report *report, platter_error **error)
{
    int status = platter_report_u64(&found->errors, report, 0, PLATTER_KEY_CHECK_ERRORS, 0, error);

    if (status == PLATTER_OK)
        status = platter_report_u64(&found->corruptions, report, 0, PLATTER_KEY_CORRUPTIONS, 0, error);
    if (status == PLATTER_OK)
        status = platter_report_u64(&found->leaks, report, 0, PLATTER_KEY_LEAKS, 0, error);
    if (status == PLATTER_OK)
        status = platter_report_u64(&found->leaks_fixed, report, 0, PLATTER_KEY_LEAKS_FIXED, 0, error);
    return status;
}

static int open_it(platter_image **out, const char *path, const char *format, uint32_t access,
                   platter_error **error)
{
    platter_open_options *options = NULL;
    int status = platter_open_options_new(&options, 0, error);

    if (status == PLATTER_OK)
        status = platter_open_options_set_format(options, format, 0, error);
    if (status == PLATTER_OK)
        status = platter_image_open(out, path, options,
                                    PLATTER_OPEN_FOR_CHECK | PLATTER_LOCATION_PATH | access, error);
    platter_open_options_free(options);
    return status;
}

/* `repair` is 0, or the permitted repairs, PLATTER_CHECK_REPAIR_*. */
static int check(struct findings *found, char **argv, uint32_t repair, platter_error **error)
{
    platter_image *image = NULL;
    platter_job *job = NULL;
    platter_report *report = NULL;
    int status = open_it(&image, argv[1], argv[2], repair != 0 ? PLATTER_OPEN_WRITE : 0, error);

    if (status == PLATTER_OK)
        status = platter_check_job_new(&job, image, repair, error);
    if (status == PLATTER_OK)
        status = platter_job_set_message(job, show, NULL, NULL, 0, error);
    if (status == PLATTER_OK)
        status = platter_job_run(job, 0, error);
    if (status == PLATTER_OK)
        status = platter_job_result(&report, job, 0, error);
    if (status == PLATTER_OK)
        status = count(found, report, error);
    platter_report_free(report);
    platter_job_free(job);
    /* The repair has taken effect only once closing has succeeded. */
    if (status == PLATTER_OK)
        return platter_image_close(image, 0, error);
    platter_image_close(image, 0, NULL);
    return status;
}

int main(int argc, char **argv)
{
    struct findings found;
    platter_error *error = NULL;
    int status;

    if (argc != 3) {
        fprintf(stderr, "Usage: %s IMAGE FORMAT\n", argv[0]);
        return 2;
    }
    status = check(&found, argv, 0, &error);
    /* Leaked space is used by nothing, so reclaiming it is safe; anything else needs a human decision. */
    if (status == PLATTER_OK && found.leaks > 0 && found.corruptions == 0 && found.errors == 0) {
        status = check(&found, argv, PLATTER_CHECK_REPAIR_LEAKS, &error);
        if (status == PLATTER_OK)
            printf("%llu leaked clusters given back\n", (unsigned long long)found.leaks_fixed);
    }
    if (status != PLATTER_OK) {
        fprintf(stderr, "%s\n", platter_error_message(error));
        platter_error_free(error);
        return status == PLATTER_STATUS_CORRUPT ? 2 : 1;
    }
    return found.corruptions > 0 || found.errors > 0 ? 2 : 0;
}
