#include "print.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *invoked = "platter-img";
static const char *program = "platter-img";
static const char *running;
static const char *hint_format;
static bool had_error;
static int write_errno; /* of the first failed write to stdout */
static bool output_optional;

void print_set_program(const char *path)
{
    const char *slash = strrchr(path, '/');

    invoked = path;
    program = slash != NULL ? slash + 1 : path;
}

const char *print_invoked(void)
{
    return invoked;
}

const char *print_program(void)
{
    return program;
}

void print_set_command(const char *command)
{
    running = command;
}

void print_set_hint(const char *format)
{
    hint_format = format;
}

void print_start(void)
{
    /* Large enough for everything but reports, so that it is flushed only where errno gets recorded. */
    if (!isatty(STDOUT_FILENO))
        setvbuf(stdout, NULL, _IOFBF, 1 << 16);
}

/* Records the errno of the first failure; the stream itself only records that there was one. */
static void note_written(bool written)
{
    if (!written && write_errno == 0)
        write_errno = errno != 0 ? errno : EIO;
}

void print_bytes(const char *bytes, size_t length)
{
    errno = 0;
    note_written(fwrite(bytes, 1, length, stdout) == length);
}

void print_progress(const char *format, ...)
{
    va_list arguments;

    /* Bypasses the stream, which would retain unwritten progress and output it with the report. */
    print_flush();
    va_start(arguments, format);
    vdprintf(STDOUT_FILENO, format, arguments);
    va_end(arguments);
}

void print_flush(void)
{
    errno = 0;
    note_written(fflush(stdout) == 0 && !ferror(stdout));
}

bool print_failed(void)
{
    note_written(!ferror(stdout));
    return write_errno != 0;
}

/* Keeps stdout and stderr in order when both go to the same terminal or file. */
static void begin_message(void)
{
    print_flush();
    fprintf(stderr, "%s: ", program);
}

void print_error(const char *format, ...)
{
    va_list arguments;

    had_error = true;
    begin_message();
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

bool print_had_error(void)
{
    return had_error;
}

void print_usage_error(const char *format, ...)
{
    va_list arguments;

    begin_message();
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    print_try_help();
}

void print_try_help(void)
{
    if (hint_format != NULL) {
        begin_message();
        fprintf(stderr, hint_format, invoked);
        fputc('\n', stderr);
    } else if (running != NULL)
        fprintf(stderr, "Try '%s %s --help' for more info\n", invoked, running);
    else
        fprintf(stderr, "Try '%s --help' for more info\n", invoked);
}

/* Advice of the library, and the equivalent of qemu-img, which names its own commands. */
static const struct {
    const char *library, *tool;
} advice[] = {
    {"Repairing all removes this extra metadata",
     "You can force-remove this extra metadata with qemu-img check -r all"},
    {"Leave inconsistent bitmaps out, or remove it",
     "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it"},
    {"Some clusters may be leaked; a repair of the image frees them",
     "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix."},
    {"Decompress it first, or raise the limit on the temporary file",
     "Decompress it first, or raise the limit with convert --max-spool"},
    {"Decompress it first, or raise the limit on the memory of decoders",
     "Decompress it first, or raise the limit with convert --max-decoder"},
    {"A rebase changes the backing file", "You can use 'qemu-img rebase' instead."},
    {"A larger width of its refcounts makes the image whole, and so does a copy where it cannot be "
     "opened for writing",
     "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a "
     "clean copy if the image cannot be opened for writing"},
};

/* Error messages of the library for which qemu-img names its own options. */
static const struct {
    const char *library, *tool;
} wordings[] = {
    {"The new size is smaller, and shrinking was not asked for",
     "Use the --shrink option to perform a shrink operation."},
    {"A target with a backing file does not hold zeroes, whatever is said of it",
     "Cannot use --target-is-zero when the destination image has a backing file"},
};

const char *print_wording(const platter_error *error)
{
    const char *message = platter_error_message(error);

    for (size_t i = 0; i < sizeof wordings / sizeof wordings[0]; i++)
        if (strcmp(message, wordings[i].library) == 0)
            return wordings[i].tool;
    return message;
}

size_t print_length_said_twice(const platter_error *error)
{
    static const char begin[] = "Could not open '", end[] = "': ";
    const char *message = platter_error_message(error);
    const char *last = NULL;

    /* If another image refers to the file, the message has this prefix for both. */
    if (platter_error_stage(error) != PLATTER_STAGE_OPEN ||
        strncmp(message, begin, sizeof begin - 1) != 0 || strstr(message + 1, begin) != NULL)
        return 0;
    for (const char *at = message; (at = strstr(at, end)) != NULL; at++)
        last = at;
    return last == NULL ? 0 : (size_t)(last - message) + sizeof end - 1;
}

/* Prints qemu-img's advice if the line is "A repair of NAME replays the log", with the name in quotes. */
static bool print_replay(const char *line, size_t length)
{
    static const char begin[] = "A repair of ", end[] = " replays the log";
    const size_t before = sizeof begin - 1, behind = sizeof end - 1;

    if (length < before + behind || memcmp(line, begin, before) != 0 ||
        memcmp(line + length - behind, end, behind) != 0)
        return false;
    fprintf(stderr, "To replay the log, run:\nqemu-img check -r all %.*s\n",
            (int)(length - before - behind), line + before);
    return true;
}

static void print_line_of_advice(const char *line, size_t length)
{
    unsigned over = 0;

    for (size_t i = 0; i < sizeof advice / sizeof advice[0]; i++) {
        if (strlen(advice[i].library) == length && memcmp(line, advice[i].library, length) == 0) {
            fprintf(stderr, "%s\n", advice[i].tool);
            return;
        }
    }
    if (print_replay(line, length))
        return;
    if (sscanf(line, "Repairing all removes the last %u snapshots", &over) == 1)
        fprintf(stderr,
                "You can force-remove all %u overhanging snapshots with qemu-img check -r all\n",
                over);
    else
        fprintf(stderr, "%.*s\n", (int)length, line);
}

void print_advice(const char *text)
{
    for (;;) {
        const size_t length = strcspn(text, "\n");

        print_line_of_advice(text, length);
        if (text[length] == '\0')
            return;
        text += length + 1;
    }
}

void print_platter_error(platter_error *error)
{
    const char *hint = NULL;

    had_error = true;
    begin_message();
    fprintf(stderr, "%.*s%s\n", (int)print_length_said_twice(error), platter_error_message(error),
            print_wording(error));
    for (size_t i = 0; (hint = platter_error_hint(error, i)) != NULL; i++)
        print_advice(hint);
    platter_error_free(error);
}

void print_snapshot_error(platter_error *error, const char *snapshot)
{
    static const char wrong_key[] = "Invalid parameter 'snapshot.";
    const bool wrong =
        strncmp(platter_error_message(error), wrong_key, sizeof wrong_key - 1) == 0;

    print_platter_error(error);
    if (wrong && snapshot != NULL)
        print_error("Failed in parsing snapshot param '%s'", snapshot);
}

void print_warning(const char *text)
{
    print_flush();
    /* The warning about a guessed raw format has its own prefix. */
    if (strncmp(text, "WARNING: ", 9) != 0)
        fprintf(stderr, "%s: warning: ", program);
    print_advice(text);
}

void print_short_form_warning(const char *word, size_t length)
{
    const bool is_help = (length == 4 && strncmp(word, "help", length) == 0) || (length == 1 && *word == '?');
    const bool is_off = length >= 2 && strncmp(word, "no", 2) == 0;
    const char *key = is_off ? word + 2 : word;

    if (is_help)
        return;
    print_flush();
    fprintf(stderr, "%s: warning: short-form boolean option '%.*s' deprecated\nPlease use %.*s=%s instead\n",
            program, (int)length, word, (int)(length - (size_t)(key - word)), key, is_off ? "off" : "on");
}

static int print_piece(const char *bytes, size_t length, void *unused)
{
    (void)unused;
    print_bytes(bytes, length);
    return 0;
}

bool print_report(const platter_report *report, bool json)
{
    platter_error *error = NULL;
    const uint32_t flags = json ? PLATTER_REPORT_WRITE_JSON : 0;

    if (platter_report_write(report, print_piece, NULL, flags, &error) == PLATTER_OK &&
        (json || platter_report_text_end(report, 0, &error) == PLATTER_OK))
        return true;
    print_platter_error(error);
    return false;
}

void print_output_is_optional(void)
{
    output_optional = true;
}

void print_exit(int status, int write_failure)
{
    print_flush();
    errno = 0;
    note_written(fclose(stdout) == 0);
    if (write_errno != 0 && !output_optional) {
        fprintf(stderr, "%s: Could not write to standard output: %s\n", program,
                strerror(write_errno));
        status = write_failure;
    }
    exit(status);
}
