/* Accepts an image from an untrusted sender on standard input: check-upload FORMAT TARGET < UPLOAD
 * What is inspected is what is converted, whatever happens to the file's name in the meantime. */
#include <platter.h>
#include <stdio.h>
#include <unistd.h>

/* Whether the upload may be used: 0, or a status with an error or after printing a report of the problems. */
static int inspect(const char *format, platter_error **error)
{
    platter_open_options *options = NULL;
    platter_report *report = NULL;
    int exit_code = 0, status;

    status = platter_open_options_new(&options, 0, error);
    /* The format is never guessed, because then the sender of the file could choose it. */
    if (status == PLATTER_OK)
        status = platter_open_options_set_format(options, format, 0, error);
    if (status == PLATTER_OK)
        status = platter_inspect_fd(&report, STDIN_FILENO, "the upload", options, 0, error);
    if (status == PLATTER_OK)
        status = platter_report_exit_code(&exit_code, report, 0, error);
    if (status == PLATTER_OK && exit_code != 0) {
        const char *text = NULL;

        if (platter_report_text(&text, report, 0, NULL) == PLATTER_OK)
            fputs(text, stderr);
        status = PLATTER_STATUS_DENIED;
    }
    platter_report_free(report);
    platter_open_options_free(options);
    return status;
}

/* Copies what the guest sees, and nothing else of the upload, into a new image. */
static int keep(const char *format, const char *target, platter_error **error)
{
    platter_open_options *options = NULL;
    platter_storages *storages = NULL;
    platter_policy *policy = NULL;
    platter_convert *convert = NULL;
    platter_job *job = NULL;
    int status = platter_storages_new(&storages, 0, error);

    if (status == PLATTER_OK)
        status = platter_storages_add_fd(storages, "the upload", STDIN_FILENO, 0, error);
    /* No file that the image names is opened, and no disk is larger than 1 TiB. */
    if (status == PLATTER_OK)
        status = platter_policy_new(&policy, PLATTER_POLICY_STRICT, 0, error);
    if (status == PLATTER_OK)
        status = platter_policy_set_limit(policy, PLATTER_LIMIT_VIRTUAL_SIZE, (uint64_t)1 << 40, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_new(&options, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_format(options, format, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_policy(options, policy, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_storages(options, storages, 0, error);
    if (status == PLATTER_OK)
        status = platter_convert_new(&convert, 0, error);
    if (status == PLATTER_OK)
        status = platter_convert_set_source_options(convert, options, 0, error);
    if (status == PLATTER_OK)
        status = platter_convert_add_source(convert, "the upload", PLATTER_LOCATION_PATH, error);
    if (status == PLATTER_OK)
        status = platter_convert_set_target(convert, target, "qcow2", PLATTER_LOCATION_PATH, error);
    if (status == PLATTER_OK)
        status = platter_convert_job_new(&job, convert, 0, error);
    if (status == PLATTER_OK)
        status = platter_job_set_deadline(job, 10 * 60 * 1000, 0, error);
    if (status == PLATTER_OK)
        status = platter_job_run(job, 0, error);
    platter_job_free(job);
    platter_convert_free(convert);
    platter_open_options_free(options);
    platter_policy_free(policy);
    platter_storages_free(storages);
    return status;
}

int main(int argc, char **argv)
{
    platter_error *error = NULL;

    if (argc != 3) {
        fprintf(stderr, "Usage: %s FORMAT TARGET < UPLOAD\n", argv[0]);
        return 2;
    }
    if (inspect(argv[1], &error) == PLATTER_OK && keep(argv[1], argv[2], &error) == PLATTER_OK)
        return 0;
    fprintf(stderr, "Refused: %s\n", error != NULL ? platter_error_message(error) : "see above");
    platter_error_free(error);
    return 1;
}
