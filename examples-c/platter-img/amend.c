#include <string.h>

#include "commands.h"
#include "common.h"
#include "creation.h"
#include "jobs.h"
#include "objects.h"
#include "open.h"
#include "print.h"
#include "progress.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    OPTION_QUIET,
    OPTION_PROGRESS,
    OPTION_OBJECT,
    {'o', "options", "FMT_OPTS",
     "what is to change, as KEY=VALUE,...; may be given several times\n"
     "('-o help' lists what can be changed)"},
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    {'t', "cache", "CACHE_MODE", "how the page cache is used for the image (writeback)"},
    {OPT_FORCE, "force", NULL, "overwrite a key slot that is in use, erase the last one"},
    OPTION_UNTRUSTED,
    OPTION_END,
};

/* The parsed command line. */
struct request {
    struct common common;
    platter_options *options;
    bool options_given;
    uint32_t flags;
};

/* Changes the options of an open image; returns false after printing an error. */
static bool amend(const platter_image *image, const struct request *request)
{
    const struct job_display display = common_display(true);
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;

    if (platter_amend_job_new(&job, image, request->options, objects_secrets(), request->flags,
                              &error) == PLATTER_OK) {
        progress_start();
        report = jobs_run(job, &display, &error);
        progress_complete();
    }
    progress_end();
    if (report == NULL) {
        print_platter_error(error);
        return false;
    }
    platter_report_free(report);
    return true;
}

/* Lists the options that can be amended in the named format, or else in the image's. */
static bool print_help(const char *format)
{
    char *text = NULL;
    platter_error *error = NULL;

    if (platter_option_help(&text, format, PLATTER_OPERATION_AMEND, NULL, 0, &error) !=
        PLATTER_OK) {
        print_platter_error(error);
        return false;
    }
    print_bytes(text, strlen(text));
    platter_free(text);
    return true;
}

/* Parses the options; returns false after printing an error. */
static bool parse(struct request *request)
{
    for (int option; (option = options_next()) != -1;) {
        switch (option) {
        case 'o':
            if (!creation_add(request->options, options_argument()))
                return false;
            request->options_given = true;
            break;
        case 't':
            request->common.image.cache = options_argument();
            break;
        case OPT_FORCE:
            request->flags |= PLATTER_AMEND_FORCE;
            break;
        default:
            common_option(&request->common, option);
            break;
        }
    }
    if (!request->options_given) {
        print_usage_error("Must specify options (-o)");
        return false;
    }
    return true;
}

static bool amend_operand(const struct request *request)
{
    const char *name = options_operand_count() == 1 ? options_operands()[0] : NULL;
    platter_image *image = NULL;
    bool done = false;

    if (name == NULL) {
        print_error("Expecting one image file name");
        return false;
    }
    if (!open_cache_is_valid(request->common.image.cache, false) ||
        !common_image_is_valid(&request->common))
        return false;
    progress_enable(request->common.progress && !request->common.quiet);
    image = open_image(name, &request->common.image, PLATTER_OPEN_WRITE);
    if (image == NULL) {
        progress_end();
        return false;
    }
    if (creation_help_asked()) {
        done = print_help(platter_image_format(image));
        progress_end();
    } else {
        done = amend(image, request);
    }
    return open_close(image) && done;
}

static int run(void)
{
    struct request request = {.options = creation_options()};
    bool done = false;

    if (request.options != NULL && parse(&request)) {
        if (creation_help_asked() && request.common.image.format != NULL)
            done = print_help(request.common.image.format);
        else
            done = amend_operand(&request);
    }
    platter_options_free(request.options);
    return done ? 0 : 1;
}

const struct command command_amend = {
    .name = "amend",
    .summary = "Change the options of an image",
    .synopsis = "[-f FMT | --image-opts] [-t CACHE_MODE] [--force] [-p] [-q]\n"
                "[--object OBJDEF] [--untrusted] -o FMT_OPTS IMAGE",
    .options = options,
    .operands = "IMAGE\n   the name of the image, or its description with --image-opts",
    .failure = 1,
    .run = run,
};
