#include <string.h>

#include "commands.h"
#include "common.h"
#include "creation.h"
#include "jobs.h"
#include "open.h"
#include "print.h"

enum { OPT_SIZE = 512 };

static const struct option_entry options[] = {
    OPTION_HELP,
    {'O', "target-format", "FMT", "the format of the new image (raw)"},
    {'o', "options", "FMT_OPTS", "options of the new image, as KEY=VALUE,..."},
    {OPT_SIZE, "size", "SIZE", "the virtual size of a new, empty image"},
    {'f', "format", "FMT", "the format of IMAGE; guessed if not given"},
    OPTION_IMAGE_OPTS,
    {'l', "snapshot", "SNAPSHOT", "measure for this internal snapshot, given by its ID or name"},
    OPTION_OUTPUT,
    OPTION_FORCE_SHARE,
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

/* The parsed command line. */
struct request {
    struct common common;
    const char *format;
    const char *snapshot;
    platter_options *options;
    bool size_given;
    uint64_t size;
};

/* Parses the options; returns false after printing an error. */
static bool parse(struct request *request)
{
    for (int code; (code = options_next()) != -1;) {
        switch (code) {
        case 'O':
            request->format = options_argument();
            break;
        case 'o':
            if (!creation_add(request->options, options_argument()))
                return false;
            break;
        case OPT_SIZE:
            request->size = options_size(options_argument(), "image size");
            request->size_given = true;
            break;
        case 'l':
            request->snapshot = options_argument();
            break;
        default:
            common_option(&request->common, code);
            break;
        }
    }
    return true;
}

/* Prints and frees the error, with a second line if an option is wrong. */
static void refused(platter_error *error, const char *format)
{
    const bool wrong_option = strncmp(platter_error_message(error), "Invalid parameter '", 19) == 0;

    print_platter_error(error);
    if (wrong_option)
        print_error("Invalid options for file format '%s'", format);
}

static int measure(const struct request *request, const platter_image *image)
{
    static const struct job_display display = {0};
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;

    if (platter_measure_job_new(&job, image, request->size, request->format, request->options, 0,
                                &error) == PLATTER_OK)
        report = jobs_run(job, &display, &error);
    if (report == NULL) {
        refused(error, request->format);
        return 1;
    }
    return common_print(report, request->common.json) ? 0 : 1;
}

/* Handles the operand, the image to measure. */
static int measure_operand(struct request *request)
{
    const int count = options_operand_count();
    platter_image *image = NULL;
    platter_error *error = NULL;
    int code = 1;

    if (count > 1) {
        print_error("At most one filename argument is allowed.");
        return 1;
    }
    if (count == 0 && (request->common.image.image_opts || request->common.image.format != NULL ||
                       request->snapshot != NULL)) {
        print_error("--image-opts, -f, and -l require a filename argument.");
        return 1;
    }
    if (count == 0 && !request->size_given) {
        print_error("Either --size N or one filename must be specified.");
        return 1;
    }
    if (count == 1 && request->size_given) {
        print_error("--size N cannot be used together with a filename.");
        return 1;
    }
    if (count == 0)
        return measure(request, NULL);
    if (!common_image_is_valid(&request->common))
        return 1;
    image = open_image(options_operands()[0], &request->common.image, 0);
    if (image == NULL)
        return 1;
    if (request->snapshot != NULL &&
        platter_snapshot_show(image, request->snapshot, 0, &error) != PLATTER_OK)
        print_snapshot_error(error, request->snapshot);
    else
        code = measure(request, image);
    return open_close(image) ? code : 1;
}

static int run(void)
{
    struct request request = {.format = "raw"};
    platter_error *error = NULL;
    int code = 1;

    if (platter_options_new(&request.options, 0, &error) != PLATTER_OK) {
        print_platter_error(error);
        return 1;
    }
    if (parse(&request))
        code = measure_operand(&request);
    platter_options_free(request.options);
    return code;
}

const struct command command_measure = {
    .name = "measure",
    .summary = "Tell how large a new image will be",
    .synopsis = "[-f FMT | --image-opts] [-l SNAPSHOT] [-o OPTIONS] [-O OUTPUT_FMT]\n"
                "[--output human|json] [--object OBJDEF] [-U] [--untrusted]\n(--size SIZE | IMAGE)",
    .options = options,
    .operands = "IMAGE\n   the image whose contents the new one is to hold",
    .failure = 1,
    .run = run,
};
