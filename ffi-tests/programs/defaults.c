/* The defaults that introspection reports are those that the formats use, and each value that it lists is
 * accepted. */
#include "check.h"

#define SIZE "4194304"

static platter_secrets *secrets;

/* The prefix of LUKS options within another format. */
#define INNER "encrypt."

static void give_key(platter_options *bag, const char *inner)
{
    char name[64];
    snprintf(name, sizeof name, "%s" PLATTER_OPT_KEY_SECRET, inner);
    OK(platter_options_set(bag, name, "key", 0, &err));
    snprintf(name, sizeof name, "%s" PLATTER_OPT_ITER_TIME, inner);
    OK(platter_options_set(bag, name, "10", 0, &err));
}

/* Whether it is an option of LUKS within another format. */
static bool is_inner(const char *key)
{
    return strncmp(key, INNER, strlen(INNER)) == 0 && strcmp(key, PLATTER_OPT_ENCRYPT_FORMAT) != 0;
}

/* Whether creating the last image failed because a cipher, a hash or the like is unknown. */
static bool unknown;

/* `value` may be NULL: the option is not given. */
static int make(const char *path, const char *format, const char *key, const char *value)
{
    platter_create *create;
    platter_options *bag;
    platter_job *job;
    OK(platter_create_new(&create, path, format, 0, &err));
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_set(bag, "size", SIZE, 0, &err));
    if (strcmp(format, "luks") == 0)
        give_key(bag, "");
    if (is_inner(key)) {
        OK(platter_options_set(bag, PLATTER_OPT_ENCRYPT_FORMAT, "luks", 0, &err));
        give_key(bag, INNER);
    }
    if (value != NULL)
        OK(platter_options_set(bag, key, value, 0, &err));
    OK(platter_create_set_options(create, bag, 0, &err));
    OK(platter_create_set_secrets(create, secrets, 0, &err));
    platter_error *error = NULL;
    int status = platter_create_job_new(&job, create, 0, &error);
    if (status == PLATTER_OK)
        status = platter_job_run(job, 0, &error);
    unknown = error != NULL && strstr(platter_error_message(error), "does not accept") != NULL;
    platter_error_free(error);
    platter_job_free(job);
    platter_options_free(bag);
    platter_create_free(create);
    return status;
}

/* The report on an image as JSON, with the values masked that are random in each. */
static char *described(const char *path, const char *format)
{
    platter_open_options *options;
    platter_report *report;
    const char *json;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, format, 0, &err));
    OK(platter_image_describe(&report, path, options, 0, &err));
    OK(platter_report_json(&json, report, 0, &err));
    char *kept = strdup(json);
    CHECK(kept != NULL);
    platter_report_free(report);
    platter_open_options_free(options);
    for (const char *const *key = (const char *const[]){"\"cid\": ", "iters\": ", "\"uuid\": ", NULL}; *key; key++)
        for (char *at = kept; (at = strstr(at, *key)) != NULL;)
            for (at += strlen(*key); *at != '\n' && *at != '\0'; at++)
                *at = '.';
    return kept;
}

/* Checks that they are equal except for the number of digits of random numbers. */
static void same(const char *a, const char *b)
{
    for (; *a != '\0' && *b != '\0'; a++, b++) {
        while (*a == '.')
            a++;
        while (*b == '.')
            b++;
        CHECK(*a == *b);
    }
}

/* Maximum number of random bytes in an image: identifiers, and the checksums over them. */
#define RANDOM 160

static unsigned char *contents(const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    *len = (size_t)ftell(file);
    unsigned char *bytes = malloc(*len);
    rewind(file);
    CHECK(bytes != NULL && fread(bytes, 1, *len, file) == *len);
    fclose(file);
    return bytes;
}

/* Checks that two images are the same except for random bytes. */
static void same_bytes(const unsigned char *a, size_t a_len, const unsigned char *b, size_t b_len)
{
    size_t other = 0;
    CHECK_U64(a_len, b_len);
    for (size_t i = 0; i < a_len; i++)
        other += a[i] != b[i];
    CHECK(other <= RANDOM);
}

/* Each listed value is accepted, unless it conflicts with the other defaults; an unlisted one is rejected. */
static void try_values(const char *format, const platter_option_info *option)
{
    static const char *const listed[] = {"subformat",   "adapter_type", "cipher-alg",    "cipher-mode",
                                         "hash-alg",    "ivgen-alg",    "ivgen-hash-alg",
                                         "logical_sector_size", "physical_sector_size"};
    const char *const inner = is_inner(option->name) ? option->name + strlen(INNER) : option->name;
    bool few = false;
    for (size_t i = 0; i < sizeof listed / sizeof *listed; i++)
        few = few || strcmp(inner, listed[i]) == 0;
    CHECK(!few || option->allowed != NULL);
    /* Values of inner volumes are tried only with LUKS itself; a generator's hash is checked only where it is used. */
    if (!few || inner != option->name || strcmp(inner, "ivgen-hash-alg") == 0)
        return;
    for (const char *const *value = option->allowed; *value != NULL; value++) {
        fprintf(stderr, "%s %s=%s\n", format, option->name, *value);
        const int status = make("disk", format, option->name, *value);
        CHECK(status == PLATTER_OK || (strcmp(format, "luks") == 0 && !unknown));
    }
    CHECK(make("disk", format, option->name, "no-such") == PLATTER_STATUS_INVALID);
    CHECK(unknown || strcmp(format, "luks") != 0);
}

static void try_option(const char *format, const platter_option_info *option)
{
    /* The former need further options, and the time spent on key derivation is not visible in the image. */
    static const char *const left_out[] = {"data_file_raw", "detached-header", "iter-time",
                                           "encrypt.iter-time", "encrypt.key-secret"};
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        if (strcmp(option->name, left_out[i]) == 0)
            return;
    if (option->default_value != NULL) {
        fprintf(stderr, "%s %s=%s\n", format, option->name, option->default_value);
        CHECK(make("disk", format, option->name, option->default_value) == PLATTER_OK);
        size_t given_len, without_len;
        unsigned char *bytes = contents("disk", &given_len);
        char *given = described("disk", format);
        CHECK(make("disk", format, option->name, NULL) == PLATTER_OK);
        char *without = described("disk", format);
        same(given, without);
        unsigned char *bytes_without = contents("disk", &without_len);
        /* An encrypted volume has a random key, so all of it is random. */
        if (strcmp(format, "luks") != 0 && !is_inner(option->name))
            same_bytes(bytes, given_len, bytes_without, without_len);
        free(bytes);
        free(bytes_without);
        free(given);
        free(without);
    }
    try_values(format, option);
}

/* Key derivation takes long where every instruction does. */
static bool is_slow(const char *key)
{
#ifdef SLOW_RUN
    return is_inner(key);
#else
    (void)key;
    return false;
#endif
}

static const platter_option_info *find(const char *driver, uint32_t operation, const char *key)
{
    const platter_option_info *option;
    for (size_t at = 0;; at++) {
        OK(platter_option_describe(&option, driver, operation, at, 0, &err));
        if (strcmp(option->name, key) == 0)
            return option;
    }
}

/* Checks the default value of an option. */
static void expect(const char *driver, const char *key, const char *expected)
{
    CHECK_STR(find(driver, PLATTER_OPERATION_CREATE, key)->default_value, expected);
}

/* The defaults of options for amending. */
static void of_amendments(void)
{
    /* Options that are not given stay as they are, so only those for creating a new key have defaults. */
    const platter_option_info *option =
        find("qcow2", PLATTER_OPERATION_AMEND, PLATTER_OPT_ENCRYPT_ITER_TIME);
    CHECK_STR(option->default_value, "2000");
    CHECK(find("qcow2", PLATTER_OPERATION_AMEND, PLATTER_OPT_COMPAT)->default_value == NULL);
}

int main(void)
{
    const platter_driver_info *driver;
    const platter_option_info *option;
    OK(platter_secrets_new(&secrets, 0, &err));
    OK(platter_secrets_add(secrets, "key", "secret", 6, 0, &err));
    for (size_t i = 0; platter_driver_describe(&driver, i, 0, NULL) == PLATTER_OK; i++) {
        if (driver->kind != PLATTER_DRIVER_FORMAT || !(driver->features & PLATTER_FEATURE_CREATE))
            continue;
#ifdef SLOW_RUN
        /* Key derivation takes long here. */
        if (strcmp(driver->name, "luks") == 0)
            continue;
#endif
        for (size_t at = 0; platter_option_describe(&option, driver->name, PLATTER_OPERATION_CREATE,
                                                    at, 0, NULL) == PLATTER_OK;
             at++)
            if (!is_slow(option->name))
                try_option(driver->name, option);
    }
    expect("qcow2", PLATTER_OPT_CLUSTER_SIZE, "65536");
    expect("qcow2", PLATTER_OPT_PREALLOCATION, "off");
    expect("vmdk", PLATTER_OPT_SUBFORMAT, "monolithicSparse");
    expect("luks", PLATTER_OPT_CIPHER_ALG, "aes-256");
    expect("qcow2", PLATTER_OPT_ENCRYPT_HASH_ALG, "sha256");
    of_amendments();
    platter_secrets_free(secrets);
    passed();
    return 0;
}
