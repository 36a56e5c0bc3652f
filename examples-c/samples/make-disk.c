/* Creates the disk of a new virtual machine: an overlay over a template, whose data takes no extra space. No existing
 * file is overwritten: make-disk TEMPLATE DISK BYTES */
#include <platter.h>
#include <stdio.h>
#include <stdlib.h>

/* Any options that platter_option_describe() lists for qcow2; with these, small writes copy less of the template. */
static int add_options(platter_create *create, platter_error **error)
{
    platter_options *options = NULL;
    int status = platter_options_new(&options, 0, error);

    if (status == PLATTER_OK)
        status = platter_options_set(options, PLATTER_OPT_CLUSTER_SIZE, "128K", 0, error);
    if (status == PLATTER_OK)
        status = platter_options_set(options, PLATTER_OPT_EXTENDED_L2, "on", 0, error);
    if (status == PLATTER_OK)
        status = platter_create_set_options(create, options, 0, error);
    platter_options_free(options);
    return status;
}

static int make(const char *template, const char *disk, uint64_t size, platter_error **error)
{
    platter_create *create = NULL;
    platter_job *job = NULL;
    int status = platter_create_new(&create, disk, "qcow2", PLATTER_LOCATION_PATH, error);

    if (status == PLATTER_OK)
        status = platter_create_set_backing(create, template, "qcow2", 0, error);
    if (status == PLATTER_OK)
        status = platter_create_set_size(create, size, 0, error);
    if (status == PLATTER_OK)
        status = add_options(create, error);
    /* This checks everything, without touching anything yet. */
    if (status == PLATTER_OK)
        status = platter_create_job_new(&job, create, PLATTER_CREATE_EXCLUSIVE, error);
    if (status == PLATTER_OK) {
        puts(platter_job_summary(job));
        status = platter_job_run(job, 0, error);
    }
    platter_job_free(job);
    platter_create_free(create);
    return status;
}

int main(int argc, char **argv)
{
    platter_error *error = NULL;
    int status;

    if (argc != 4) {
        fprintf(stderr, "Usage: %s TEMPLATE DISK BYTES\n", argv[0]);
        return 2;
    }
    status = make(argv[1], argv[2], strtoull(argv[3], NULL, 10), &error);
    if (status != PLATTER_OK)
        fprintf(stderr, "%s\n", platter_error_message(error));
    platter_error_free(error);
    return status == PLATTER_STATUS_EXISTS ? 3 : status != PLATTER_OK;
}
