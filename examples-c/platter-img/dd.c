#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "common.h"
#include "jobs.h"
#include "objects.h"
#include "open.h"
#include "print.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    {'f', "format", "FMT", "the format of INPUT; guessed if not given"},
    {OPT_IMAGE_OPTS, "image-opts", NULL,
     "INPUT is a list such as driver=qcow2,file.filename=PATH;\nnot together with --format"},
    {'O', "output-format", "OUTPUT_FMT", "the format of OUTPUT (raw)"},
    {'U', "force-share", NULL, "also when another process is writing to INPUT"},
    {'n', NULL, NULL, "write into an OUTPUT that exists"},
    {'l', NULL, "SNAPSHOT", "copy this internal snapshot, given by its ID or name"},
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

/* The parsed command line. */
struct request {
    struct common common;
    const char *input;  /* NULL for standard input */
    const char *output; /* NULL for standard output */
    const char *format;
    const char *snapshot;
    bool exists;
    platter_dd *dd;
};

/* Parses a plain number: decimal, octal or hexadecimal, as in C. */
static uint64_t number(const char *text, const char *what)
{
    char *end = NULL;
    intmax_t value = 0;

    errno = 0;
    value = strtoimax(text, &end, 0);
    if (end == text || *end != '\0') {
        print_error("Invalid %s specified: '%s'.", what, text);
        print_exit(1, 1);
    }
    if (errno != 0 || value < 0) {
        print_error("Invalid %s specified. Must be between 0 and %" PRId64 ".", what, INT64_MAX);
        print_exit(1, 1);
    }
    return (uint64_t)value;
}

static uint64_t block_size(const char *text)
{
    uint64_t bytes = 0;
    const int status = platter_size_parse(&bytes, text, 0, NULL);

    if (status != PLATTER_OK && status != PLATTER_STATUS_LIMIT) {
        print_error("Invalid bs specified: '%s'.", text);
        print_exit(1, 1);
    }
    if (status != PLATTER_OK || bytes < 1 || bytes > INT32_MAX) {
        print_error("Invalid bs specified. Must be between 1 and %d.", INT32_MAX);
        print_exit(1, 1);
    }
    return bytes;
}

/* Parses KEY=VALUE; returns false after printing an error. */
static bool read_operand(struct request *request, const char *operand)
{
    const size_t key = strcspn(operand, "=");
    const char *value = operand + key + 1;
    uint32_t which = 0;
    uint64_t amount = 0;
    platter_error *error = NULL;

#define KEY_IS(name) (operand[key] == '=' && key == sizeof(name) - 1 && memcmp(operand, name, key) == 0)
    if (KEY_IS("if")) {
        request->input = value;
    } else if (KEY_IS("of")) {
        request->output = value;
    } else if (KEY_IS("bs")) {
        which = PLATTER_DD_BLOCK_SIZE;
        amount = block_size(value);
    } else if (KEY_IS("count")) {
        which = PLATTER_DD_COUNT;
        amount = number(value, "count");
    } else if (KEY_IS("skip")) {
        which = PLATTER_DD_SKIP;
        amount = number(value, "skip");
    } else if (KEY_IS("isize")) {
        which = PLATTER_DD_INPUT_SIZE;
        amount = options_size(value, "isize");
    } else if (KEY_IS("osize")) {
        which = PLATTER_DD_OUTPUT_SIZE;
        amount = options_size(value, "osize");
    } else {
        print_error("unrecognized operand %.*s", (int)key, operand);
        return false;
    }
#undef KEY_IS
    if (which == 0 ||
        platter_dd_set_number(request->dd, which, amount, 0, &error) == PLATTER_OK)
        return true;
    print_platter_error(error);
    return false;
}

/* Parses the options and operands; returns false after printing an error. */
static bool parse(struct request *request)
{
    for (int code; (code = options_next()) != -1;) {
        switch (code) {
        case 'O':
            request->format = options_argument();
            break;
        case 'n':
            request->exists = true;
            break;
        case 'l':
            request->snapshot = options_argument();
            break;
        default:
            common_option(&request->common, code);
            break;
        }
    }
    for (int i = 0; i < options_operand_count(); i++)
        if (!read_operand(request, options_operands()[i]))
            return false;
    if ((request->input == NULL && isatty(STDIN_FILENO)) ||
        (request->output == NULL && isatty(STDOUT_FILENO))) {
        print_error("Must specify both input and output files");
        return false;
    }
    return common_image_is_valid(&request->common);
}

static bool is_stream(const char *name)
{
    return name == NULL || strcmp(name, "-") == 0;
}

static bool describe_input(const struct request *request, platter_error **error)
{
    platter_open_options *how = open_options(&request->common.image);
    platter_dd *dd = request->dd;
    bool set = false;

    if (how == NULL)
        return false;
    set = platter_dd_set_input_options(dd, how, open_flags(&request->common.image), error) == PLATTER_OK &&
          platter_dd_set_snapshot(dd, request->snapshot, 0, error) == PLATTER_OK &&
          (is_stream(request->input)
               ? platter_dd_set_input_fd(dd, STDIN_FILENO, 0, error)
               : platter_dd_set_input(dd, request->input,
                                      open_location_flags(request->input,
                                                          request->common.image.image_opts),
                                      error)) == PLATTER_OK;
    platter_open_options_free(how);
    return set;
}

static bool describe_output(const struct request *request, platter_error **error)
{
    platter_policy *policy = open_policy();
    platter_dd *dd = request->dd;
    bool set = false;

    if (policy == NULL)
        return false;
    if (is_stream(request->output) && strcmp(request->format, "raw") != 0) {
        print_error("Standard output takes the format raw only, not '%s'; name a file with of=",
                    request->format);
    } else {
        set = platter_dd_set_secrets(dd, objects_secrets(), 0, error) == PLATTER_OK &&
              platter_dd_set_output_policy(dd, policy, 0, error) == PLATTER_OK &&
              (is_stream(request->output)
                   ? platter_dd_set_output_fd(dd, STDOUT_FILENO, 0, error)
                   : platter_dd_set_output(dd, request->output, request->format,
                                           PLATTER_NAME_UNCHECKED, error)) ==
                  PLATTER_OK;
    }
    platter_policy_free(policy);
    return set;
}

static int copy(const struct request *request)
{
    static const struct job_display display = {.output_optional = true};
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;
    const bool done =
        describe_input(request, &error) && describe_output(request, &error) &&
        platter_dd_job_new(&job, request->dd, request->exists ? PLATTER_DD_OUTPUT_EXISTS : 0,
                           &error) == PLATTER_OK &&
        (report = jobs_run(job, &display, &error)) != NULL;

    if (error != NULL)
        print_snapshot_error(error, request->snapshot);
    platter_report_free(report);
    return done ? 0 : 1;
}

static int run(void)
{
    struct request request = {.format = "raw"};
    platter_error *error = NULL;
    int code = 1;

    if (platter_dd_new(&request.dd, 0, &error) != PLATTER_OK) {
        print_platter_error(error);
        return 1;
    }
    if (parse(&request))
        code = copy(&request);
    platter_dd_free(request.dd);
    return code;
}

const struct command command_dd = {
    .name = "dd",
    .summary = "Copy a part of an image, in another format if need be",
    .synopsis = "[-f FMT | --image-opts] [-O OUTPUT_FMT] [-U] [-n] [-l SNAPSHOT]\n"
                "[--object OBJDEF] [--untrusted] [bs=BLOCK_SIZE] [count=BLOCKS] [skip=BLOCKS]\n"
                "[isize=SIZE] [osize=SIZE] [if=INPUT] [of=OUTPUT]",
    .options = options,
    .operands = "bs=BLOCK_SIZE\n   the size of a block (512)\n"
                "count=BLOCKS\n   copy at most so many blocks\n"
                "skip=BLOCKS\n   leave so many blocks of INPUT out in front\n"
                "isize=SIZE\n   the size of INPUT; a pipe that ends before is an error\n"
                "osize=SIZE\n   the size of OUTPUT; what INPUT does not fill reads as zeroes\n"
                "if=INPUT\n   the name of the input, or its description with --image-opts;\n"
                "   standard input if not given, or -\n"
                "of=OUTPUT\n   the name of the output; standard output if not given, or -",
    .failure = 1,
    .run = run,
};
