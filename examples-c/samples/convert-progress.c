/* Converts an image and shows the progress: convert-progress SOURCE TARGET FORMAT */
#include <platter.h>
#include <stdio.h>

static int show(const platter_progress *progress, void *user_data)
{
    (void)user_data;
    if (progress->total > 0)
        fprintf(stderr, "\r%3u %%", (unsigned)(progress->done * 100 / progress->total));
    return 0; /* anything else cancels */
}

static int convert(const char *source, const char *target, const char *format, platter_error **error)
{
    platter_convert *convert = NULL;
    platter_job *job = NULL;
    int status = platter_convert_new(&convert, 0, error);

    if (status == PLATTER_OK)
        status = platter_convert_add_source(convert, source, 0, error);
    if (status == PLATTER_OK)
        status = platter_convert_set_target(convert, target, format, 0, error);
    if (status == PLATTER_OK)
        status = platter_convert_job_new(&job, convert, 0, error);
    if (status == PLATTER_OK)
        status = platter_job_set_progress(job, show, NULL, NULL, 0, error);
    if (status == PLATTER_OK)
        status = platter_job_run(job, 0, error);
    platter_job_free(job);
    platter_convert_free(convert);
    return status;
}

int main(int argc, char **argv)
{
    platter_error *error = NULL;

    if (argc != 4) {
        fprintf(stderr, "Usage: %s SOURCE TARGET FORMAT\n", argv[0]);
        return 2;
    }
    if (convert(argv[1], argv[2], argv[3], &error) != PLATTER_OK) {
        fprintf(stderr, "\n%s\n", platter_error_message(error));
        platter_error_free(error);
        return 1;
    }
    fputc('\n', stderr);
    return 0;
}
