/* Reads the first sector of an encrypted qcow2 image from a descriptor; the passphrase is requested when it is
 * needed: open-encrypted PASSPHRASE-FILE < IMAGE */
#include <platter.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Supplies the passphrase, the first line of the file; nothing if it cannot be read. */
static void give(platter_secret_answer *answer, const char *id, void *user_data)
{
    FILE *file = fopen(user_data, "r");
    char line[1024];

    if (file == NULL || strcmp(id, "passphrase") != 0 || fgets(line, sizeof line, file) == NULL)
        line[0] = '\0';
    if (file != NULL)
        fclose(file);
    if (line[0] != '\0')
        platter_secret_answer_set(answer, line, strcspn(line, "\n"), 0, NULL);
    explicit_bzero(line, sizeof line);
}

static int open_it(platter_image **out, char *passphrase_file, platter_error **error)
{
    platter_open_options *options = NULL;
    platter_secrets *secrets = NULL;
    int status = platter_secrets_new(&secrets, 0, error);

    if (status == PLATTER_OK)
        status = platter_secrets_set_callback(secrets, give, passphrase_file, NULL, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_new(&options, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_format(options, "qcow2", 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_secrets(options, secrets, 0, error);
    /* An option refers to the secret by its ID; options are set beside the descriptor, so no description is needed. */
    if (status == PLATTER_OK)
        status = platter_open_options_set_option(options, PLATTER_OPEN_OPT_ENCRYPT_FORMAT, "luks", 0,
                                                 error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_option(options, PLATTER_OPEN_OPT_ENCRYPT_KEY_SECRET,
                                                 "passphrase", 0, error);
    if (status == PLATTER_OK)
        status = platter_image_open_fd(out, STDIN_FILENO, NULL, options, 0, error);
    platter_open_options_free(options);
    platter_secrets_free(secrets);
    return status;
}

int main(int argc, char **argv)
{
    platter_image *image = NULL;
    platter_error *error = NULL;
    unsigned char sector[512];
    int status;

    if (argc != 2) {
        fprintf(stderr, "Usage: %s PASSPHRASE-FILE < IMAGE\n", argv[0]);
        return 2;
    }
    status = open_it(&image, argv[1], &error);
    if (status == PLATTER_OK)
        status = platter_image_read(image, sector, sizeof sector, 0, 0, &error);
    if (status == PLATTER_OK)
        fwrite(sector, sizeof sector, 1, stdout);
    else
        fprintf(stderr, "%s\n", platter_error_message(error));
    platter_error_free(error);
    platter_image_close(image, 0, NULL);
    return status == PLATTER_STATUS_WRONG_SECRET ? 3 : status != PLATTER_OK;
}
