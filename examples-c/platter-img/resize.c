#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "common.h"
#include "jobs.h"
#include "open.h"
#include "print.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    OPTION_QUIET,
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    {OPT_SHRINK, "shrink", NULL,
     "allow the image to become smaller; what lies beyond its new end is deleted"},
    {OPT_PREALLOCATION, "preallocation", "off|metadata|falloc|full",
     "how space for what is new is reserved (off)"},
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

static bool is_preallocation(const char *name)
{
    static const char *const names[] = {"off", "metadata", "falloc", "full"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* Parses [+-]SIZE; returns false after printing an error. */
static bool read_size(const char *text, uint64_t *bytes, uint32_t *flags)
{
    if (*text == '+')
        *flags |= PLATTER_RESIZE_MORE;
    else if (*text == '-')
        *flags |= PLATTER_RESIZE_LESS;
    if (*text == '+' || *text == '-')
        text++;
    switch (platter_size_parse(bytes, text, 0, NULL)) {
    case PLATTER_OK:
        return true;
    case PLATTER_STATUS_LIMIT:
        print_error("Value '%s' is out of range for parameter 'size'", text);
        return false;
    default:
        print_error("Parameter 'size' expects a non-negative number below 2^64");
        fputs("Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
              "and exabytes, respectively.\n",
              stderr);
        return false;
    }
}

/* Prints the error; if shrinking was refused, its hint becomes a warning. */
static void report_failure(platter_error *error)
{
    static const char refusal[] = "Use the --shrink option";
    const char *message = print_wording(error);

    if (strncmp(message, refusal, sizeof refusal - 1) != 0) {
        print_platter_error(error);
        return;
    }
    print_error("%s", message);
    if (platter_error_hint(error, 0) != NULL)
        print_warning(platter_error_hint(error, 0));
    platter_error_free(error);
}

static bool resize(const platter_image *image, uint64_t bytes, const char *preallocation,
                   uint32_t flags)
{
    static const struct job_display display = {.output_optional = true};
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;

    if (platter_resize_job_new(&job, image, bytes, preallocation, flags, &error) == PLATTER_OK)
        report = jobs_run(job, &display, &error);
    if (report == NULL) {
        report_failure(error);
        return false;
    }
    platter_report_free(report);
    return true;
}

static bool is_negative(const char *text)
{
    return text != NULL && text[0] == '-' && text[1] >= '0' && text[1] <= '9';
}

static void keep_operand(const char *operand, const char *names[2], int *count)
{
    if (*count < 2)
        names[*count] = operand;
    (*count)++;
}

static int run(void)
{
    struct common common = {0};
    const char *names[2] = {NULL, NULL}; /* the image and the size */
    const char *preallocation = NULL;
    int count = 0;
    bool done = false;
    uint64_t bytes = 0;
    uint32_t flags = 0;
    platter_image *image = NULL;

    for (int option; (option = options_next()) != -1;) {
        switch (option) {
        case OPT_OPERAND:
            keep_operand(options_argument(), names, &count);
            /* Directly after the image, "-1G" is a size, not an option. */
            if (count == 1 && is_negative(options_peek()))
                keep_operand(options_skip(), names, &count);
            break;
        case OPT_SHRINK:
            flags |= PLATTER_RESIZE_SHRINK;
            break;
        case OPT_PREALLOCATION:
            preallocation = options_argument();
            if (!is_preallocation(preallocation)) {
                print_error("Invalid preallocation mode '%s'", preallocation);
                return 1;
            }
            break;
        default:
            common_option(&common, option);
            break;
        }
    }
    for (int i = 0; i < options_operand_count(); i++)
        keep_operand(options_operands()[i], names, &count);
    if (count < 2) {
        print_usage_error("Expecting image file name and size");
        return 1;
    }
    if (count > 2) {
        print_usage_error("Extra argument(s) in command line");
        return 1;
    }
    if (!read_size(names[1], &bytes, &flags) ||
        !common_image_is_valid(&common))
        return 1;
    image = open_image(names[0], &common.image, PLATTER_OPEN_WRITE);
    if (image == NULL)
        return 1;
    done = resize(image, bytes, preallocation, flags);
    if (!open_close(image) || !done)
        return 1;
    if (!common.quiet)
        puts("Image resized.");
    return 0;
}

const struct command command_resize = {
    .name = "resize",
    .summary = "Change the virtual size of an image",
    .synopsis = "[-f FMT | --image-opts] [--preallocation MODE] [--shrink] [-q]\n"
                "[--object OBJDEF] [--untrusted] IMAGE [+-]SIZE",
    .options = options,
    .in_order = true,
    .operands = "IMAGE\n   the name of the image, or its description with --image-opts\n"
                "[+-]SIZE\n   the new size, or how much larger (+) or smaller (-) it is to be, with an\n"
                "   optional suffix k, M, G, T, P or E (powers of 1024)",
    .failure = 1,
    .run = run,
};
