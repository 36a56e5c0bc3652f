/* Commits an overlay into its backing file on a thread of the library, while this thread reads one-letter commands
 * from standard input: p to pause, r to resume, s for 1 MiB per second, f for full speed, c to cancel:
 * commit-background OVERLAY DIRECTORY-OF-BACKING-FILES */
#include <platter.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

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

/* Each takes effect immediately, whatever the job is doing or waiting for. */
static int obey(platter_job *job, char command, platter_error **error)
{
    switch (command) {
    case 'p':
        return platter_job_pause(job, 0, error);
    case 'r':
        return platter_job_resume(job, 0, error);
    case 's':
        return platter_job_set_rate(job, 1 << 20, 0, error);
    case 'f':
        return platter_job_set_rate(job, 0, 0, error);
    case 'c':
        platter_job_cancel(job);
    }
    return PLATTER_OK;
}

static int show(platter_job *job, platter_error **error)
{
    platter_progress progress;
    uint32_t state = 0;
    int status = platter_job_progress(&progress, job, 0, error);

    if (status == PLATTER_OK)
        status = platter_job_state(&state, job, 0, error);
    if (status == PLATTER_OK)
        fprintf(stderr, "%llu of %llu%s\n", (unsigned long long)progress.done,
                (unsigned long long)progress.total, state == PLATTER_JOB_STATE_PAUSED ? ", paused" : "");
    return status;
}

/* Waits until the job has ended; a program with an event loop adds both descriptors to it instead. */
static int watch(platter_job *job, platter_error **error)
{
    enum { END, COMMANDS };
    struct pollfd events[] = {{.events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    int status = platter_job_fd(&events[END].fd, job, 0, error);

    while (status == PLATTER_OK) {
        char command;

        poll(events, 2, 500);
        if (events[END].revents != 0)
            break;
        if (events[COMMANDS].revents == 0)
            status = show(job, error);
        else if (read(STDIN_FILENO, &command, 1) == 1)
            status = obey(job, command, error);
        else
            events[COMMANDS].fd = -1;
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
