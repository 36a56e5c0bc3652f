/* The formats, protocols and filters, and their options: no program has to parse help text. */
#include "check.h"

static const platter_option_info *find(const char *driver, uint32_t operation, const char *name)
{
    for (size_t i = 0;; i++) {
        const platter_option_info *option;
        if (platter_option_describe(&option, driver, operation, i, 0, NULL) != 0)
            return NULL;
        if (strcmp(option->name, name) == 0)
            return option;
    }
}

static const platter_child_info *child_of(const char *driver, const char *name)
{
    for (size_t i = 0;; i++) {
        const platter_child_info *child;
        if (platter_child_describe(&child, driver, i, 0, NULL) != 0)
            return NULL;
        if (strcmp(child->name, name) == 0)
            return child;
    }
}

int main(void)
{
    size_t counts[PLATTER_DRIVER_FILTER + 1] = {0};
    const char *previous = "";
    uint32_t kind = 0;
    for (size_t i = 0;; i++) {
        const platter_driver_info *driver;
        if (platter_driver_describe(&driver, i, 0, NULL) != 0)
            break;
        CHECK(driver->kind >= PLATTER_DRIVER_FORMAT && driver->kind <= PLATTER_DRIVER_FILTER);
        CHECK(driver->kind > kind || (driver->kind == kind && strcmp(previous, driver->name) < 0));
        kind = driver->kind;
        previous = driver->name;
        counts[driver->kind]++;
        const platter_driver_info *same;
        OK(platter_driver_find(&same, driver->name, driver->kind, 0, &err));
        CHECK(same == driver);
        /* Each table is sorted and complete. */
        for (uint32_t operation = PLATTER_OPERATION_CREATE; operation <= PLATTER_OPERATION_AMEND;
             operation++) {
            const char *last = "";
            const platter_option_info *option;
            for (size_t n = 0;
                 platter_option_describe(&option, driver->name, operation, n, 0, NULL) == 0; n++) {
                CHECK(strcmp(last, option->name) < 0);
                last = option->name;
                CHECK(option->help != NULL && *option->help != '\0');
                CHECK(option->kind >= PLATTER_OPTION_STRING && option->kind <= PLATTER_OPTION_BOOL);
            }
        }
    }
    CHECK(counts[PLATTER_DRIVER_FORMAT] >= 2 && counts[PLATTER_DRIVER_PROTOCOL] >= 2);
    CHECK(counts[PLATTER_DRIVER_FILTER] >= 4);

    const platter_driver_info *qcow2;
    OK(platter_driver_find(&qcow2, "qcow2", PLATTER_DRIVER_FORMAT, 0, &err));
    const uint32_t wanted = PLATTER_FEATURE_CREATE | PLATTER_FEATURE_WRITE | PLATTER_FEATURE_BACKING |
                            PLATTER_FEATURE_COMPRESS | PLATTER_FEATURE_CHECK;
    CHECK((qcow2->features & wanted) == wanted);

    const platter_option_info *option = find("qcow2", PLATTER_OPERATION_CREATE, "cluster_size");
    CHECK(option != NULL && option->kind == PLATTER_OPTION_SIZE);
    option = find("qcow2", PLATTER_OPERATION_CREATE, "lazy_refcounts");
    CHECK(option != NULL && option->kind == PLATTER_OPTION_BOOL);
    option = find("file", PLATTER_OPERATION_CREATE, "preallocation");
    CHECK(option != NULL && option->kind == PLATTER_OPTION_STRING && option->allowed != NULL);
    size_t values = 0;
    while (option->allowed[values] != NULL)
        values++;
    CHECK_U64(values, 3);
    CHECK(find("qcow2", PLATTER_OPERATION_CREATE, "no such option") == NULL);

    const platter_driver_info *filter;
    OK(platter_driver_find(&filter, "throttle", PLATTER_DRIVER_FILTER, 0, &err));
    CHECK(filter->kind == PLATTER_DRIVER_FILTER && filter->features == 0);
    option = find("throttle", PLATTER_OPERATION_OPEN, "throttle-group");
    CHECK(option != NULL && option->kind == PLATTER_OPTION_STRING);
    option = find("preallocate", PLATTER_OPERATION_OPEN, "prealloc-size");
    CHECK(option != NULL && option->kind == PLATTER_OPTION_SIZE);
    CHECK(strcmp(option->default_value, "128M") == 0);
    FAILS(platter_driver_find(&filter, "throttle", PLATTER_DRIVER_FORMAT, 0, &err),
          PLATTER_STATUS_NOT_FOUND, "throttle");
    FAILS(platter_driver_find(&filter, "throttle", PLATTER_DRIVER_FILTER + 1, 0, &err),
          PLATTER_STATUS_INVALID, "Unknown kind of driver");

    /* An option whose value selects further options. */
    option = find("rbd", PLATTER_OPERATION_CREATE, PLATTER_OPT_ENCRYPT_FORMAT);
    CHECK(option != NULL && option->allowed != NULL && option->default_value == NULL);
    CHECK_STR(option->allowed[0], "luks");
    CHECK_STR(option->allowed[1], "luks2");
    CHECK(option->allowed[2] == NULL);
    option = find("rbd", PLATTER_OPERATION_CREATE, PLATTER_OPT_ENCRYPT_CIPHER_ALG);
    CHECK(option != NULL && option->allowed != NULL);
    CHECK_STR(option->default_value, "aes-256");
    option = find("rbd", PLATTER_OPERATION_CREATE, PLATTER_OPT_ENCRYPT_KEY_SECRET);
    CHECK(option != NULL && option->properties == PLATTER_OPTION_PROPERTY_SECRET);

    /* The children of a node. */
    const platter_child_info *child = child_of("throttle", "file");
    CHECK(child != NULL && child->properties == PLATTER_CHILD_REQUIRED);
    child = child_of("quorum", "children");
    CHECK(child != NULL && (child->properties & PLATTER_CHILD_LIST) != 0);
    child = child_of("blkverify", "test");
    CHECK(child != NULL && (child->properties & PLATTER_CHILD_REQUIRED) != 0);
    CHECK((child->properties & PLATTER_CHILD_IMAGE) != 0);
    child = child_of("qcow2", "backing");
    CHECK(child != NULL && child->properties == 0);
    CHECK(child_of("copy-before-write", "target") != NULL && child_of("raw", "backing") == NULL);
    FAILS(platter_child_describe(&child, "file", 0, 0, &err), PLATTER_STATUS_NOT_FOUND, "no child");

    char *help;
    OK(platter_option_help(&help, "qcow2", PLATTER_OPERATION_CREATE, NULL, 0, &err));
    CHECK(strncmp(help, "Supported qcow2 options:\n", 25) == 0);
    CHECK(strstr(help, "\n  cluster_size=<size>    - ") != NULL);
    platter_free(help);
    OK(platter_option_help(&help, "qcow2", PLATTER_OPERATION_CREATE, "x.qcow2", 0, &err));
    CHECK(strncmp(help, "Supported options:\n", 19) == 0);
    CHECK(strstr(help, "\n  nocow=<bool (on/off)>  - ") != NULL);
    platter_free(help);
    FAILS(platter_option_help(&help, "raw", PLATTER_OPERATION_AMEND, NULL, 0, &err),
          PLATTER_STATUS_UNSUPPORTED, "does not support option amendment");
    passed();
    return 0;
}
