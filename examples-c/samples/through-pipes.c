/* Creates a qcow2 image from raw bytes on standard input, or writes the contents of an image to standard output:
 * through-pipes in IMAGE < DISK, through-pipes out IMAGE > DISK */
#include <platter.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int convert(int in, const char *path, platter_error **error)
{
    platter_convert *convert = NULL;
    platter_job *job = NULL;
    int status = platter_convert_new(&convert, 0, error);

    if (status == PLATTER_OK)
        status = in ? platter_convert_set_source_fd(convert, STDIN_FILENO, 0, error)
                    : platter_convert_add_source(convert, path, PLATTER_LOCATION_PATH, error);
    if (status == PLATTER_OK)
        status = in ? platter_convert_set_target(convert, path, "qcow2", PLATTER_LOCATION_PATH, error)
                    : platter_convert_set_target_fd(convert, STDOUT_FILENO, 0, error);
    if (status == PLATTER_OK)
        status = platter_convert_job_new(&job, convert, 0, error);
    if (status == PLATTER_OK)
        status = platter_job_run(job, 0, error);
    platter_job_free(job);
    platter_convert_free(convert);
    return status;
}

int main(int argc, char **argv)
{
    platter_error *error = NULL;

    if (argc != 3 || (strcmp(argv[1], "in") != 0 && strcmp(argv[1], "out") != 0)) {
        fprintf(stderr, "Usage: %s in|out IMAGE\n", argv[0]);
        return 2;
    }
    if (convert(strcmp(argv[1], "in") == 0, argv[2], &error) == PLATTER_OK)
        return 0;
    fprintf(stderr, "%s\n", platter_error_message(error));
    platter_error_free(error);
    return 1;
}
