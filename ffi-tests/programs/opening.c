/* Introspection lists exactly the options for opening that each driver takes, with the default and the accepted values
 * of each. */
#include "check.h"

#include <sys/stat.h>

#define LONGEST 1024
#define MOST_KEYS 512
/* What filters are placed below. */
#define FILTERED "\"driver\": \"raw\", \"offset\": 0, \"file\": {"

/* The minimum description of a node with which its options' values are checked; no server answers there. */
static const struct {
    const char *driver, *rest;
} places[] = {
    {"file", ", \"filename\": \"raw.disk\""},
    {"vvfat", ", \"dir\": \"folder\""},
    {"quorum", ", \"vote-threshold\": 1"},
    {"null-aio", ""},
    {"null-co", ""},
    {"nbd", ", \"server\": {\"type\": \"unix\", \"path\": \"no-such-socket\"}"},
    {"ssh", ", \"server\": {\"host\": \"127.0.0.1\", \"port\": \"1\"}, \"path\": \"/x\", \"user\": \"u\""},
};

/* Describes a node of a driver; returns whether that suffices for the values of its options to be checked. */
static bool describe(char *location, const platter_driver_info *driver)
{
    bool whole = driver->kind == PLATTER_DRIVER_FILTER || (driver->features & PLATTER_FEATURE_CREATE);
    const char *rest = "";
    if (driver->kind == PLATTER_DRIVER_PROTOCOL)
        whole = false;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (strcmp(places[i].driver, driver->name) == 0) {
            rest = places[i].rest;
            whole = true;
        }
    /* With a filter at the top, an option would be taken for one of the image in the file. */
    const bool below = driver->kind == PLATTER_DRIVER_FILTER;
    snprintf(location, LONGEST, "json:{%s\"driver\": \"%s\"%s",
             below ? FILTERED : "", driver->name, rest);
    const platter_child_info *child;
    for (size_t i = 0; platter_child_describe(&child, driver->name, i, 0, NULL) == PLATTER_OK; i++) {
        char *end = location + strlen(location);
        const size_t left = LONGEST - strlen(location);
        if (driver->kind == PLATTER_DRIVER_FORMAT) {
            if (child->properties & PLATTER_CHILD_REQUIRED)
                snprintf(end, left, ", \"%s\": {\"driver\": \"file\", \"filename\": \"%s.disk\"}",
                         child->name, driver->name);
        } else if (child->properties & PLATTER_CHILD_LIST) {
            snprintf(end, left, ", \"%s\": [{\"driver\": \"null-co\"}]", child->name);
        } else {
            snprintf(end, left, ", \"%s\": {\"driver\": \"null-co\"}", child->name);
        }
    }
    strcat(location, below ? "}}" : "}");
    return whole;
}

/* The status of opening with one additional option; `says` receives the error message. */
static int try(const char *location, const char *key, const char *value, char *says)
{
    platter_open_options *options;
    platter_image *image;
    platter_error *error = NULL;
    char at[LONGEST];
    size_t len = strstr(location, FILTERED) != NULL ? (size_t)snprintf(at, sizeof at, "file.") : 0;
    /* The first element of each list. */
    for (const char *from = key; *from != '\0'; from++)
        at[len++] = *from == '*' ? '0' : *from;
    at[len] = '\0';
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_option(options, at, value, 0, &err));
    const int status = platter_image_open(&image, location, options, 0, &error);
    snprintf(says, LONGEST, "%s", status == PLATTER_OK ? "" : platter_error_message(error));
    platter_error_free(error);
    if (status == PLATTER_OK)
        OK(platter_image_close(image, 0, &err));
    platter_open_options_free(options);
    return status;
}

/* Whether an error says that a driver does not have the option. */
static bool is_unknown(const char *says)
{
    return strstr(says, " support the option '") != NULL;
}

/* Whether an error says that an option does not accept its value. */
static bool is_refused(const char *says)
{
    static const char *const words[] = {"accept value", "invalid parameter value", "nsupported value",
                                        "may be '",     "Invalid discard",         "Invalid size calc",
                                        "expects",      "expected",                "nknown compression",
                                        "unknown"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(says, words[i]) != NULL)
            return true;
    return false;
}

/* A check that prints what was opened if it fails. */
static void expect(bool holds, const char *location, const char *key, const char *says)
{
    if (!holds)
        fprintf(stderr, "%s with %s: \"%s\"\n", location, key, says);
    CHECK(holds);
}

static const char *some_value(const platter_option_info *option)
{
    if (option->allowed != NULL)
        return option->allowed[0];
    if (option->default_value != NULL)
        return option->default_value;
    switch (option->kind) {
    case PLATTER_OPTION_NUMBER:
        return "1";
    case PLATTER_OPTION_SIZE:
        return "65536";
    case PLATTER_OPTION_BOOL:
        return "on";
    default:
        return "some";
    }
}

/* Each value that is reported is accepted, and another word is rejected. */
static void try_values(const char *location, const platter_option_info *option)
{
    char says[LONGEST];
    const char *const standard = option->default_value;
    bool is_listed = standard == NULL || option->allowed == NULL;
    if (standard != NULL) {
        try(location, option->name, standard, says);
        expect(!is_refused(says), location, option->name, says);
    }
    for (const char *const *value = option->allowed; value != NULL && *value != NULL; value++) {
        is_listed = is_listed || strcmp(*value, standard) == 0;
        try(location, option->name, *value, says);
        expect(!is_refused(says), location, option->name, says);
    }
    CHECK(is_listed);
    if (option->allowed != NULL) {
        const int status = try(location, option->name, "no-such", says);
        expect(status == PLATTER_STATUS_INVALID, location, option->name, says);
    }
}

static const platter_option_info *find(const char *driver, const char *key)
{
    const platter_option_info *option;
    for (size_t i = 0; platter_option_describe(&option, driver, PLATTER_OPERATION_OPEN, i, 0, NULL) == PLATTER_OK;
         i++)
        if (strcmp(option->name, key) == 0)
            return option;
    return NULL;
}

/* An empty file, for formats that cannot be created; it is not a valid image of any of them. */
static void make_empty(const char *format)
{
    char path[LONGEST];
    snprintf(path, sizeof path, "%s.disk", format);
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && close(fd) == 0);
}

static void make(const char *format)
{
    char path[LONGEST];
    platter_create *create;
    platter_options *bag;
    platter_secrets *secrets;
    platter_job *job;
    snprintf(path, sizeof path, "%s.disk", format);
    OK(platter_create_new(&create, path, format, 0, &err));
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_set(bag, "size", "4194304", 0, &err));
    OK(platter_secrets_new(&secrets, 0, &err));
    if (strcmp(format, "luks") == 0) {
        OK(platter_secrets_add(secrets, "key", "secret", 6, 0, &err));
        OK(platter_options_set(bag, PLATTER_OPT_KEY_SECRET, "key", 0, &err));
        OK(platter_options_set(bag, PLATTER_OPT_ITER_TIME, "10", 0, &err));
    }
    OK(platter_create_set_secrets(create, secrets, 0, &err));
    OK(platter_create_set_options(create, bag, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    run(job);
    platter_secrets_free(secrets);
    platter_options_free(bag);
    platter_create_free(create);
}

/* Tries every driver, with every key that it does not have; where every instruction takes long, only a few. */
#ifdef SLOW_RUN
#define DRIVERS_APART 5
#define KEYS_APART 32
#else
#define DRIVERS_APART 1
#define KEYS_APART 1
#endif

/* The keys of all drivers. */
static const char *keys[MOST_KEYS];
static size_t key_count;

static void note(const char *key)
{
    for (size_t i = 0; i < key_count; i++)
        if (strcmp(keys[i], key) == 0)
            return;
    CHECK(key_count < MOST_KEYS);
    keys[key_count++] = key;
}

/* Whether a key specifies where a node is located. */
static bool is_place(const char *driver, const char *key)
{
    const platter_child_info *child;
    for (size_t i = 0; platter_child_describe(&child, driver, i, 0, NULL) == PLATTER_OK; i++)
        if (strcmp(child->name, key) == 0)
            return true;
    return strcmp(key, PLATTER_OPEN_OPT_FILENAME) == 0;
}

static void known(const platter_driver_info *driver)
{
    char location[LONGEST], says[LONGEST];
    const platter_option_info *option;
    const bool whole = describe(location, driver);
    for (size_t i = 0;
         platter_option_describe(&option, driver->name, PLATTER_OPERATION_OPEN, i, 0, NULL) == PLATTER_OK; i++) {
        note(option->name);
        try(location, option->name, some_value(option), says);
        expect(!is_unknown(says), location, option->name, says);
        if (whole)
            try_values(location, option);
    }
}

static void unknown(const platter_driver_info *driver)
{
    char location[LONGEST], says[LONGEST];
    describe(location, driver);
    const int status = try(location, "no-such-option", "1", says);
    expect(status == PLATTER_STATUS_INVALID && is_unknown(says), location, "no-such-option", says);
    for (size_t i = 0; i < key_count; i += KEYS_APART) {
        if (find(driver->name, keys[i]) != NULL || is_place(driver->name, keys[i]))
            continue;
        try(location, keys[i], "1", says);
        expect(is_unknown(says), location, keys[i], says);
    }
}

/* The properties of some options. */
static void properties(void)
{
    const platter_option_info *option = find("qcow2", PLATTER_OPEN_OPT_ENCRYPT_KEY_SECRET);
    CHECK(option->properties == (PLATTER_OPTION_PROPERTY_SECRET | PLATTER_OPTION_PROPERTY_SELECTS));
    option = find("gluster", "server.*.host");
    CHECK(option->properties == (PLATTER_OPTION_PROPERTY_LIST | PLATTER_OPTION_PROPERTY_SELECTS));
    option = find("nbd", PLATTER_OPEN_OPT_RECONNECT_DELAY);
    CHECK(option->properties == 0 && strcmp(option->default_value, "0") == 0);
    option = find("http", PLATTER_OPEN_OPT_READ_ONLY);
    CHECK(option->properties == PLATTER_OPTION_PROPERTY_COMMON && strcmp(option->default_value, "off") == 0);
    CHECK(option->kind == PLATTER_OPTION_BOOL);
    option = find("ssh", PLATTER_OPEN_OPT_HOST_KEY_CHECK_MODE);
    CHECK(option->allowed != NULL && strcmp(option->allowed[0], "none") == 0 && option->allowed[3] == NULL);
    CHECK(find("luks", PLATTER_OPEN_OPT_KEY_SECRET) != NULL && find("vdi", PLATTER_OPEN_OPT_KEY_SECRET) == NULL);
}

int main(void)
{
    const platter_driver_info *driver;
    CHECK(mkdir("folder", 0700) == 0);
    for (size_t i = 0; platter_driver_describe(&driver, i, 0, NULL) == PLATTER_OK; i++)
        if (driver->kind == PLATTER_DRIVER_FORMAT)
            (driver->features & PLATTER_FEATURE_CREATE ? make : make_empty)(driver->name);
    for (size_t i = 0; platter_driver_describe(&driver, i, 0, NULL) == PLATTER_OK; i += DRIVERS_APART)
        known(driver);
    for (size_t i = 0; platter_driver_describe(&driver, i, 0, NULL) == PLATTER_OK; i += DRIVERS_APART)
        unknown(driver);
    properties();
    passed();
    return 0;
}
