#include "trace.h"

#include <errno.h>
#include <platter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "print.h"

static FILE *log_file; /* NULL for stderr; open until the process ends */
static bool listening;

static void write_line(uint32_t level, const char *line, void *user_data)
{
    FILE *stream = log_file != NULL ? log_file : stderr;

    (void)user_data;
    if (level == PLATTER_LOG_TRACE)
        fprintf(stream, "%s\n", line);
}

static bool names_key(const char *item, const char *key)
{
    const size_t length = strlen(key);

    return strncmp(item, key, length) == 0 && item[length] == '=';
}

static void list_events(void)
{
    const char *name = NULL;

    for (size_t i = 0; (name = platter_trace_event(i)) != NULL; i++)
        puts(name);
}

/* Starts logging events to stderr or the file. */
static bool start_listening(void)
{
    platter_error *error = NULL;

    if (!listening && platter_log_set(write_line, NULL, NULL, PLATTER_LOG_TRACE, 0, &error) !=
                          PLATTER_OK) {
        print_platter_error(error);
        return false;
    }
    listening = true;
    return true;
}

/* Takes "PATTERN" or, to switch off, "-PATTERN"; warns if no event has that name, as QEMU's tool does. */
static enum trace_outcome switch_events(const char *pattern)
{
    const bool off = pattern[0] == '-';
    platter_error *error = NULL;
    size_t count = 0;

    if (strcmp(pattern, "help") == 0 || strcmp(pattern, "?") == 0) {
        list_events();
        return TRACE_LISTED;
    }
    if (!start_listening())
        return TRACE_REFUSED;
    if (platter_trace_switch(&count, off ? pattern + 1 : pattern, off ? 0 : 1, 0, &error) !=
        PLATTER_OK) {
        print_platter_error(error);
        return TRACE_REFUSED;
    }
    if (count == 0 && strchr(pattern, '*') == NULL) {
        char text[256];

        snprintf(text, sizeof text, "trace event '%s' does not exist", off ? pattern + 1 : pattern);
        print_warning(text);
    }
    return TRACE_ACCEPTED;
}

/* Reads one pattern per line; empty lines and those that begin with '#' are skipped. */
static enum trace_outcome switch_by_file(const char *path)
{
    enum trace_outcome outcome = TRACE_ACCEPTED;
    FILE *stream = fopen(path, "r");
    char *line = NULL;
    size_t size = 0;

    if (stream == NULL) {
        fprintf(stderr, "%s:%s: %s\n", print_program(), path, strerror(errno));
        return TRACE_REFUSED;
    }
    while (outcome == TRACE_ACCEPTED && getline(&line, &size, stream) > 0) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] != '\0' && line[0] != '#')
            outcome = switch_events(line);
    }
    if (ferror(stream) && outcome == TRACE_ACCEPTED) {
        fprintf(stderr, "%s:%s: %s\n", print_program(), path, strerror(errno));
        outcome = TRACE_REFUSED;
    }
    free(line);
    fclose(stream);
    return outcome;
}

static enum trace_outcome log_to(const char *path)
{
    FILE *stream = fopen(path, "we");

    if (stream == NULL) {
        print_error("Error opening logfile %s: %s", path, strerror(errno));
        return TRACE_REFUSED;
    }
    /* Line buffering, so that no complete line is lost if the process is killed. */
    setvbuf(stream, NULL, _IOLBF, 0);
    if (log_file != NULL)
        fclose(log_file);
    log_file = stream;
    return TRACE_ACCEPTED;
}

static enum trace_outcome accept_item(const char *item, bool first)
{
    if (names_key(item, "enable"))
        return switch_events(item + strlen("enable="));
    if (names_key(item, "events"))
        return switch_by_file(item + strlen("events="));
    if (names_key(item, "file"))
        return log_to(item + strlen("file="));
    if (first && strchr(item, '=') == NULL)
        return switch_events(item);
    print_error("Invalid parameter '%.*s'", (int)strcspn(item, "="), item);
    return TRACE_REFUSED;
}

enum trace_outcome trace_accept(const char *text)
{
    enum trace_outcome outcome = TRACE_ACCEPTED;
    bool first = true;
    char *copy = strdup(text);

    if (copy == NULL) {
        print_error("Out of memory");
        return TRACE_REFUSED;
    }
    for (char *item = copy; item != NULL && outcome == TRACE_ACCEPTED;) {
        char *comma = strchr(item, ',');

        if (comma != NULL)
            *comma = '\0';
        if (*item != '\0')
            outcome = accept_item(item, first);
        first = false;
        item = comma != NULL ? comma + 1 : NULL;
    }
    free(copy);
    return outcome;
}
