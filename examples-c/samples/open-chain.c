/* Reads an overlay whose backing files are opened only by this program itself:
 * open-chain OVERLAY DIRECTORY */
#include <errno.h>
#include <fcntl.h>
#include <platter.h>
#include <stdio.h>
#include <string.h>

/* Resolves names only to files of one directory, and opens those itself. */
static int answer(const platter_implicit_file *file, int *fd, void *user_data)
{
    const int *directory = user_data;

    if (file->role != PLATTER_ROLE_BACKING || file->writable || strchr(file->name, '/') != NULL)
        return PLATTER_ANSWER_DENY;
    *fd = openat(*directory, file->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    /* On failure, the library's error reports the errno of openat(). */
    return *fd < 0 ? -errno : PLATTER_ANSWER_FD;
}

static int open_overlay(platter_image **out, const char *path, int *directory, platter_error **error)
{
    platter_open_options *options = NULL;
    platter_policy *policy = NULL;
    int status = platter_policy_new(&policy, PLATTER_POLICY_STRICT, 0, error);

    /* The callback is called for each file that an image names; the rest limits the formats and depth of the chain. */
    if (status == PLATTER_OK)
        status = platter_policy_set_callback(policy, answer, directory, NULL, 0, error);
    if (status == PLATTER_OK)
        status = platter_policy_allow_format(policy, "qcow2", 0, error);
    if (status == PLATTER_OK)
        status = platter_policy_allow_format(policy, "raw", 0, error);
    if (status == PLATTER_OK)
        status = platter_policy_set_limit(policy, PLATTER_LIMIT_CHAIN_DEPTH, 8, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_new(&options, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_format(options, "qcow2", 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_policy(options, policy, 0, error);
    if (status == PLATTER_OK)
        status = platter_image_open(out, path, options, PLATTER_LOCATION_PATH, error);
    platter_open_options_free(options);
    platter_policy_free(policy);
    return status;
}

int main(int argc, char **argv)
{
    platter_image *image = NULL;
    platter_error *error = NULL;
    unsigned char sector[512];
    int directory, failed;

    if (argc != 3) {
        fprintf(stderr, "Usage: %s OVERLAY DIRECTORY\n", argv[0]);
        return 2;
    }
    directory = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {
        perror(argv[2]);
        return 1;
    }
    if (open_overlay(&image, argv[1], &directory, &error) == PLATTER_OK &&
        platter_image_read(image, sector, sizeof sector, 0, 0, &error) == PLATTER_OK)
        fwrite(sector, sizeof sector, 1, stdout);
    failed = error != NULL;
    if (failed)
        fprintf(stderr, "%s\n", platter_error_message(error));
    platter_error_free(error);
    platter_image_close(image, 0, NULL);
    return failed;
}
