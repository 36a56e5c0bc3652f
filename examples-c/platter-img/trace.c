#include "trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "print.h"

static bool names_key(const char *item, const char *key)
{
    const size_t length = strlen(key);

    return strncmp(item, key, length) == 0 && item[length] == '=';
}

static bool can_open(const char *path, const char *mode)
{
    FILE *stream = fopen(path, mode);

    if (stream == NULL)
        return false;
    fclose(stream);
    return true;
}

static bool accept_item(const char *item, bool first)
{
    if (names_key(item, "enable") || (first && strchr(item, '=') == NULL))
        return true;
    if (names_key(item, "events")) {
        const char *path = item + strlen("events=");

        if (can_open(path, "r"))
            return true;
        fprintf(stderr, "%s:%s: %s\n", print_program(), path, strerror(errno));
        return false;
    }
    if (names_key(item, "file")) {
        const char *path = item + strlen("file=");

        if (can_open(path, "a"))
            return true;
        print_error("Error opening logfile %s: %s", path, strerror(errno));
        return false;
    }
    print_error("Invalid parameter '%.*s'", (int)strcspn(item, "="), item);
    return false;
}

enum trace_outcome trace_accept(const char *text)
{
    enum trace_outcome outcome = TRACE_ACCEPTED;
    bool first = true;
    char *copy = NULL;

    if (strcmp(text, "help") == 0 || strcmp(text, "?") == 0)
        return TRACE_LISTED; /* the list of events is empty */
    copy = strdup(text);
    if (copy == NULL) {
        print_error("Out of memory");
        return TRACE_REFUSED;
    }
    for (char *item = copy; item != NULL && outcome == TRACE_ACCEPTED;) {
        char *comma = strchr(item, ',');

        if (comma != NULL)
            *comma = '\0';
        if (*item != '\0' && !accept_item(item, first))
            outcome = TRACE_REFUSED;
        first = false;
        item = comma != NULL ? comma + 1 : NULL;
    }
    free(copy);
    return outcome;
}
