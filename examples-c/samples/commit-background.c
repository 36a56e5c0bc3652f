/* Commits an overlay into its backing file on a thread of the library, while this one stays free to do other work:
 * commit-background OVERLAY DIRECTORY-OF-BACKING-FILES */
#include <platter.h>
#include <poll.h>
#include <stdio.h>

static int begin(platter_job **out, const char *overlay, const char *directory, platter_error **error)
{
    platter_open_options *options = NULL;
    platter_policy *policy = NULL;
    int status = platter_policy_new(&policy, PLATTER_POLICY_STRICT, 0, error);

    if (status == PLATTER_OK)
        status = platter_policy_add_directory(policy, directory, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_new(&options, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_format(options, "qcow2", 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_policy(options, policy, 0, error);
    if (status == PLATTER_OK)
        status = platter_commit_job_new(out, overlay, NULL, options, PLATTER_LOCATION_PATH, error);
    platter_open_options_free(options);
    platter_policy_free(policy);
    return status;
}

/* Waits for the end and shows how far it is; a program with a loop of events adds the descriptor to that. */
static int watch(platter_job *job, platter_error **error)
{
    struct pollfd end = {.events = POLLIN};
    int status = platter_job_fd(&end.fd, job, 0, error);

    while (status == PLATTER_OK && poll(&end, 1, 500) == 0) {
        platter_progress progress;

        status = platter_job_progress(&progress, job, 0, error);
        if (status == PLATTER_OK)
            fprintf(stderr, "%llu of %llu\n", (unsigned long long)progress.done,
                    (unsigned long long)progress.total);
        /* Here platter_job_pause(), platter_job_set_rate() and platter_job_cancel() may be called. */
    }
    return status == PLATTER_OK ? platter_job_result(NULL, job, PLATTER_JOB_WAIT, error) : status;
}

int main(int argc, char **argv)
{
    platter_job *job = NULL;
    platter_error *error = NULL;
    int status;

    if (argc != 3) {
        fprintf(stderr, "Usage: %s OVERLAY DIRECTORY-OF-BACKING-FILES\n", argv[0]);
        return 2;
    }
    status = begin(&job, argv[1], argv[2], &error);
    if (status == PLATTER_OK)
        status = platter_job_start(job, 0, &error);
    if (status == PLATTER_OK)
        status = watch(job, &error);
    if (status != PLATTER_OK)
        fprintf(stderr, "%s\n", platter_error_message(error));
    platter_error_free(error);
    platter_job_free(job);
    return status != PLATTER_OK;
}
