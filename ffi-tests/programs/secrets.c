/* Secrets: an encrypted image is created, not opened without its secret, and read with it. */
#include "check.h"

static platter_image *open_disk(platter_secrets *secrets, int expected, const char *text)
{
    platter_open_options *options;
    platter_image *image = NULL;
    platter_policy *policy;
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_open_options_set_secrets(options, secrets, 0, &err));
    const char *location = "driver=luks,key-secret=disk,file.filename=disk.luks";
    if (expected == PLATTER_OK)
        OK(platter_image_open(&image, location, options, PLATTER_LOCATION_IMAGE_OPTS, &err));
    else
        FAILS(platter_image_open(&image, location, options, PLATTER_LOCATION_IMAGE_OPTS, &err),
              expected, text);
    platter_open_options_free(options);
    platter_policy_free(policy);
    return image;
}

/* State of a callback that knows the secret. */
struct vault {
    const unsigned char *key;
    size_t len;
    int asked;
    int left;
};

/* A bit that no flag uses. */
#define BAD 0x80000000u

static void ask(platter_secret_answer *answer, const char *id, void *user_data)
{
    struct vault *vault = user_data;
    CHECK_STR(id, "disk");
    vault->asked++;
    FAILS(platter_secret_answer_set(answer, NULL, 1, 0, &err), PLATTER_STATUS_INVALID, "'data' is NULL");
    FAILS(platter_secret_answer_set(answer, "x", 1, BAD, &err), PLATTER_STATUS_INVALID, "bits");
    if (vault->key != NULL)
        OK(platter_secret_answer_set(answer, vault->key, vault->len, 0, &err));
}

static void leave(void *user_data)
{
    struct vault *vault = user_data;
    vault->left++;
}

/* An image without a name is unlocked like any other: an option refers to the secret. */
static void by_descriptor(const platter_secrets *secrets)
{
    platter_open_options *options;
    platter_image *image;
    const int fd = open("disk.luks", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "luks", 0, &err));
    OK(platter_open_options_set_secrets(options, secrets, 0, &err));
    FAILS(platter_image_open_fd(&image, fd, NULL, options, 0, &err), PLATTER_STATUS_NEEDS_SECRET,
          "key-secret");
    OK(platter_open_options_set_option(options, "key-secret", "disk", 0, &err));
    OK(platter_image_open_fd(&image, fd, NULL, options, 0, &err));
    OK(platter_image_close(image, 0, &err));
    platter_open_options_free(options);
    CHECK(close(fd) == 0);
}

int main(void)
{
    /* A passphrase is text, so that every other tool can supply it too. */
    static const unsigned char key[] = {'k', 'e', 0xc3, 0xbf, 1};
    static const unsigned char binary[] = {0, 1, 2, 0, 255};
    platter_secrets *secrets;
    OK(platter_secrets_new(&secrets, 0, &err));
    OK(platter_secrets_add(secrets, "disk", key, sizeof key, 0, &err));
    FAILS(platter_secrets_add(secrets, "disk", key, sizeof key, 0, &err), PLATTER_STATUS_EXISTS,
          "disk");

    const char *limits[] = {"limits.bps-total", "1048576", "x-iops-read", "7", NULL};
    const char *unsuited[] = {"data", "1", NULL};
    const char *wrong[] = {"limits.bps-total", "1", "limits.bps-read", "1", NULL};
    OK(platter_secrets_add_throttle_group(secrets, "group", limits, 0, &err));
    FAILS(platter_secrets_add_throttle_group(secrets, "group", limits, 0, &err),
          PLATTER_STATUS_EXISTS, "group");
    FAILS(platter_secrets_add_throttle_group(secrets, "disk", limits, 0, &err),
          PLATTER_STATUS_EXISTS, "disk");
    FAILS(platter_secrets_add(secrets, "group", key, sizeof key, 0, &err), PLATTER_STATUS_EXISTS,
          "group");
    FAILS(platter_secrets_add_throttle_group(secrets, "other", wrong, 0, &err),
          PLATTER_STATUS_INVALID, "at the same time");
    FAILS(platter_secrets_add_throttle_group(secrets, "other", unsuited, 0, &err),
          PLATTER_STATUS_INVALID, "'data'");

    const char *keys[] = {"keys", "qemu:00ff", NULL};
    const char *no_text[] = {"ca-cert", "none", NULL};
    const char *nowhere[] = {"dir", "/nonexistent", NULL};
    const char *identity[] = {"identity", "CN=client", NULL};
    const char *rules[] = {"policy", "allow", "rules.0.match", "CN=*", "rules.0.policy", "deny",
                           "rules.0.format", "glob", NULL};
    FAILS(platter_secrets_add_tls_x509(secrets, "tls", no_text, 0, &err), PLATTER_STATUS_INVALID,
          "Unable to import CA certificate list ca-cert");
    FAILS(platter_secrets_add_tls_x509(secrets, "tls", nowhere, 0, &err), PLATTER_STATUS_NOT_FOUND,
          "Unable to access credentials /nonexistent/ca-cert.pem");
    FAILS(platter_secrets_add_tls_x509(secrets, "disk", no_text, 0, &err), PLATTER_STATUS_EXISTS,
          "disk");
    platter_error *lack = NULL;
    const int made = platter_secrets_add_tls_psk(secrets, "tls", keys, 0, &lack);
    if (made == PLATTER_STATUS_UNSUPPORTED) {
        CHECK(strstr(platter_error_message(lack), "libssl.so.3") != NULL);
        platter_error_free(lack);
    } else {
        CHECK(made == PLATTER_OK);
        FAILS(platter_secrets_add_tls_psk(secrets, "tls", keys, 0, &err), PLATTER_STATUS_EXISTS,
              "tls");
    }
    OK(platter_secrets_add_authorization(secrets, "one", identity, 0, &err));
    OK(platter_secrets_add_authorization(secrets, "many", rules, 0, &err));
    FAILS(platter_secrets_add_authorization(secrets, "one", rules, 0, &err), PLATTER_STATUS_EXISTS,
          "one");

    const char *coded[] = {"data", "a2XDvwE=", "format", "base64", NULL};
    const char *neither[] = {"format", "raw", NULL};
    const char *unknown[] = {"data", "hunter22", "colour", "red", NULL};
    const char *odd[] = {"data", NULL};
    const char *sealed[] = {"data", "hunter22", "keyid", "nobody", "iv", "x", NULL};
    FAILS(platter_secrets_define(secrets, "x", neither, 0, &err), PLATTER_STATUS_INVALID,
          "Either 'file' or 'data' must be provided");
    FAILS(platter_secrets_define(secrets, "x", unknown, 0, &err), PLATTER_STATUS_INVALID, "colour");
    FAILS(platter_secrets_define(secrets, "x", odd, 0, &err), PLATTER_STATUS_INVALID,
          "'properties' has no value for 'data'");
    FAILS(platter_secrets_define(secrets, "x", sealed, 0, &err), PLATTER_STATUS_NEEDS_SECRET,
          "nobody");

    platter_options *bag;
    platter_create *create;
    platter_job *job;
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_parse(bag, "key-secret=disk,iter-time=10", 0, &err));
    OK(platter_create_new(&create, "disk.luks", "luks", 0, &err));
    OK(platter_create_set_size(create, 1 << 20, 0, &err));
    OK(platter_create_set_options(create, bag, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_NEEDS_SECRET, "No secret with id 'disk'");
    platter_job_free(job);
    CHECK(access("disk.luks", F_OK) != 0);
    platter_secrets *others;
    OK(platter_secrets_new(&others, 0, &err));
    OK(platter_secrets_add(others, "disk", binary, sizeof binary, 0, &err));
    OK(platter_create_set_secrets(create, others, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_INVALID,
          "Data from secret disk is not valid UTF-8");
    platter_job_free(job);
    platter_secrets_free(others);
    CHECK(access("disk.luks", F_OK) != 0);
    OK(platter_create_set_secrets(create, secrets, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
    platter_options_free(bag);
    platter_secrets_free(secrets);

    open_disk(NULL, PLATTER_STATUS_NEEDS_SECRET, "No secret with id 'disk'");
    OK(platter_secrets_new(&secrets, 0, &err));
    OK(platter_secrets_define(secrets, "disk", coded, 0, &err));
    platter_image *image = open_disk(secrets, PLATTER_OK, NULL);
    OK(platter_image_close(image, 0, &err));
    by_descriptor(secrets);
    platter_secrets_free(secrets);

    OK(platter_secrets_new(&secrets, 0, &err));
    OK(platter_secrets_add(secrets, "disk", "wrong", 5, 0, &err));
    open_disk(secrets, PLATTER_STATUS_WRONG_SECRET, "Invalid password");
    platter_secrets_free(secrets);

    /* The callback that knows it is called once each time that it is needed. */
    struct vault vault = {key, sizeof key, 0, 0};
    OK(platter_secrets_new(&secrets, 0, &err));
    OK(platter_secrets_set_callback(secrets, ask, &vault, leave, 0, &err));
    image = open_disk(secrets, PLATTER_OK, NULL);
    CHECK(vault.asked == 1);
    OK(platter_image_close(image, 0, &err));
    vault.len = 2;
    open_disk(secrets, PLATTER_STATUS_WRONG_SECRET, "Invalid password");
    vault.key = NULL;
    open_disk(secrets, PLATTER_STATUS_NEEDS_SECRET, "No secret with id 'disk'");
    CHECK(vault.asked == 3 && vault.left == 0);
    platter_secrets_free(secrets);
    CHECK(vault.left == 1);
    unlink("disk.luks");
    passed();
    return 0;
}
