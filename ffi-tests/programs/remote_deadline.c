/* A job whose server no longer responds ends when its deadline has passed. The arguments are the kind of job, the
 * image, and `first` if the deadline counts from the start; otherwise it counts from a line on standard input, which
 * the program waits for once the job is partly done. */
#include "check.h"

static platter_open_options *options;

static platter_job *job_of(const char *kind, const char *image)
{
    platter_convert *convert;
    platter_job *job;
    if (strcmp(kind, "commit") == 0) {
        OK(platter_commit_job_new(&job, image, NULL, options, 0, &err));
    } else if (strcmp(kind, "rebase") == 0) {
        OK(platter_rebase_job_new(&job, image, NULL, NULL, NULL, options, 0, &err));
    } else {
        CHECK(strcmp(kind, "convert") == 0);
        OK(platter_convert_new(&convert, 0, &err));
        OK(platter_convert_set_source_options(convert, options, 0, &err));
        OK(platter_convert_add_source(convert, image, 0, &err));
        OK(platter_convert_set_target(convert, "late.raw", "raw", 0, &err));
        OK(platter_convert_job_new(&job, convert, 0, &err));
        platter_convert_free(convert);
    }
    return job;
}

static void wait_for_the_middle(platter_job *job)
{
    platter_progress progress = {0};
    while (progress.done == 0 || progress.done == progress.total) {
        uint32_t state;
        OK(platter_job_progress(&progress, job, 0, &err));
        OK(platter_job_state(&state, job, 0, &err));
        CHECK(state == PLATTER_JOB_STATE_RUNNING);
        usleep(2000);
    }
    puts("begun");
    CHECK(fflush(stdout) == 0);
    CHECK(getchar() == '\n');
}

int main(int argc, char **argv)
{
    platter_policy *policy;
    platter_error *error = NULL;
    CHECK(argc == 3 || (argc == 4 && strcmp(argv[3], "first") == 0));
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_open_options_set_format(options, "qcow2", 0, &err));
    platter_job *job = job_of(argv[1], argv[2]);
    OK(platter_job_set_rate(job, 1 << 20, 0, &err));
    if (argc == 4)
        OK(platter_job_set_deadline(job, 500, 0, &err));
    OK(platter_job_start(job, 0, &err));
    if (argc == 3) {
        wait_for_the_middle(job);
        OK(platter_job_set_rate(job, 0, 0, &err));
        OK(platter_job_set_deadline(job, 500, 0, &err));
    }
    int status = platter_job_result(NULL, job, PLATTER_JOB_WAIT, &error);
    if (status != PLATTER_STATUS_CANCELLED || platter_error_errno(error) != ETIMEDOUT) {
        fprintf(stderr, "%s: %s\n", platter_status_name(status), platter_error_message(error));
        return 1;
    }
    CHECK(strchr(platter_error_message(error), '\n') == NULL);
    platter_error_free(error);
    platter_job_free(job);
    platter_open_options_free(options);
    platter_policy_free(policy);
    puts("late");
    return 0;
}
