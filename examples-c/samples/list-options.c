/* Lists the options of formats, protocols and filters, so that no program parses help text: list-options [DRIVER] */
#include <platter.h>
#include <stdio.h>

static const char *type(const platter_option_info *option)
{
    switch (option->kind) {
    case PLATTER_OPTION_NUMBER:
        return "number";
    case PLATTER_OPTION_SIZE:
        return "size";
    case PLATTER_OPTION_BOOL:
        return "on or off";
    default:
        return option->properties & PLATTER_OPTION_PROPERTY_SECRET ? "ID of a secret" : "text";
    }
}

/* Prints what a form for the option would show: the values that it accepts, and its default. */
static void show(const platter_option_info *option)
{
    const char *before = " (";

    printf("  %s", option->name);
    if (option->allowed == NULL)
        printf(" (%s", type(option));
    for (const char *const *value = option->allowed; value != NULL && *value != NULL; value++) {
        printf("%s%s", before, *value);
        before = ", ";
    }
    if (option->default_value != NULL)
        printf("; default %s", option->default_value);
    printf("): %s\n", option->help);
}

/* Prints the options of one operation, except those that every driver takes. */
static void options(const platter_driver_info *driver, uint32_t operation, const char *title)
{
    const platter_option_info *option;

    for (size_t i = 0; platter_option_describe(&option, driver->name, operation, i, 0, NULL) == PLATTER_OK; i++) {
        if (option->properties & PLATTER_OPTION_PROPERTY_COMMON)
            continue;
        if (title != NULL)
            printf("%s\n", title);
        title = NULL;
        show(option);
    }
}

/* Prints the driver's children, each with options of its own: `file.driver`, `file.filename`. */
static void children(const platter_driver_info *driver)
{
    const platter_child_info *child;

    for (size_t i = 0; platter_child_describe(&child, driver->name, i, 0, NULL) == PLATTER_OK; i++)
        printf("%s %s%s\n", child->properties & PLATTER_CHILD_REQUIRED ? "needs" : "may have", child->name,
               child->properties & PLATTER_CHILD_LIST ? ".0, .1, and so on" : "");
}

int main(int argc, char **argv)
{
    static const char *const kinds[] = {"", "format", "protocol", "filter"};
    const platter_driver_info *driver;
    platter_error *error = NULL;

    if (argc != 2) {
        for (size_t i = 0; platter_driver_describe(&driver, i, 0, NULL) == PLATTER_OK; i++)
            printf("%s: %s%s\n", driver->name, driver->kind < 4 ? kinds[driver->kind] : "",
                   driver->features & PLATTER_FEATURE_CREATE ? ", can be made" : "");
        return 0;
    }
    if (platter_driver_find(&driver, argv[1], 0, 0, &error) != PLATTER_OK) {
        fprintf(stderr, "%s\n", platter_error_message(error));
        platter_error_free(error);
        return 1;
    }
    children(driver);
    options(driver, PLATTER_OPERATION_OPEN, "opening:");
    options(driver, PLATTER_OPERATION_CREATE, "making:");
    options(driver, PLATTER_OPERATION_AMEND, "changing:");
    return 0;
}
