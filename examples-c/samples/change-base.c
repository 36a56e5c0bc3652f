/* Gives an overlay another backing file, or none, without changing what the guest sees:
 * change-base OVERLAY DIRECTORY-OF-BACKING-FILES [BASE FORMAT] */
#include <platter.h>
#include <stdio.h>

static int options_for(platter_open_options **out, const char *directory, platter_error **error)
{
    platter_policy *policy = NULL;
    int status = platter_policy_new(&policy, PLATTER_POLICY_STRICT, 0, error);

    /* The files of both chains, the current one and the new one, must be in this directory. */
    if (status == PLATTER_OK)
        status = platter_policy_add_directory(policy, directory, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_new(out, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_format(*out, "qcow2", 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_policy(*out, policy, 0, error);
    platter_policy_free(policy);
    return status;
}

static int change(const char *overlay, const char *directory, const char *base, const char *format,
                  platter_error **error)
{
    platter_open_options *options = NULL;
    platter_job *job = NULL;
    int status = options_for(&options, directory, error);

    if (status == PLATTER_OK)
        status = platter_rebase_job_new(&job, overlay, base, format, NULL, options, PLATTER_LOCATION_PATH,
                                        error);
    if (status == PLATTER_OK)
        status = platter_job_run(job, 0, error);
    platter_job_free(job);
    platter_open_options_free(options);
    return status;
}

int main(int argc, char **argv)
{
    platter_error *error = NULL;

    if (argc != 3 && argc != 5) {
        fprintf(stderr, "Usage: %s OVERLAY DIRECTORY-OF-BACKING-FILES [BASE FORMAT]\n", argv[0]);
        return 2;
    }
    if (change(argv[1], argv[2], argc == 5 ? argv[3] : NULL, argc == 5 ? argv[4] : NULL, &error) ==
        PLATTER_OK)
        return 0;
    fprintf(stderr, "%s\n", platter_error_message(error));
    platter_error_free(error);
    return 1;
}
