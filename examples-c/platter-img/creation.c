#include "creation.h"

#include <string.h>

#include "print.h"

static bool help_asked;

platter_options *creation_options(void)
{
    platter_options *options = NULL;
    platter_error *error = NULL;

    if (platter_options_new(&options, 0, &error) != PLATTER_OK)
        print_platter_error(error);
    return options;
}

/* The end of a value: the next comma that is not doubled. */
static const char *value_end(const char *value)
{
    for (;;) {
        value += strcspn(value, ",");
        if (value[0] != ',' || value[1] != ',')
            return value;
        value += 2;
    }
}

/* Whether an element of the list is exactly "help" or "?". */
static bool has_help(const char *list)
{
    while (*list != '\0') {
        const size_t length = strcspn(list, "=,");

        if (list[length] == '=')
            list = value_end(list + length + 1);
        else if ((length == 4 && memcmp(list, "help", 4) == 0) || (length == 1 && *list == '?'))
            return true;
        else
            list += length;
        if (*list == ',')
            list++;
    }
    return false;
}

bool creation_add(platter_options *options, const char *list)
{
    platter_error *error = NULL;

    if (platter_options_parse(options, list, 0, &error) != PLATTER_OK) {
        print_platter_error(error);
        return false;
    }
    if (has_help(list))
        help_asked = true;
    return true;
}

bool creation_help_asked(void)
{
    return help_asked;
}

bool creation_print_help(const char *format, const char *target)
{
    char *text = NULL;
    platter_error *error = NULL;

    if (platter_option_help(&text, format, PLATTER_OPERATION_CREATE, target, 0, &error) !=
        PLATTER_OK) {
        print_platter_error(error);
        return false;
    }
    print_bytes(text, strlen(text));
    platter_free(text);
    return true;
}
