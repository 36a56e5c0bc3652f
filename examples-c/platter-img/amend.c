#include <string.h>

#include "commands.h"
#include "creation.h"
#include "jobs.h"
#include "objects.h"
#include "open.h"
#include "print.h"
#include "progress.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    {'q', "quiet", NULL, "print nothing but errors"},
    {'p', "progress", NULL, "show the progress"},
    OPTION_OBJECT,
    {'o', "options", "FMT_OPTS",
     "what is to change, as KEY=VALUE,...; may be given several times\n"
     "('-o help' lists what can be changed)"},
    {'f', "format", "FMT", "the format of the image; guessed if not given"},
    {OPT_IMAGE_OPTS, "image-opts", NULL,
     "IMAGE is a list such as driver=qcow2,file.filename=PATH;\nnot together with --format"},
    {'t', "cache", "CACHE_MODE", "how the page cache is used for the image (writeback)"},
    {OPT_FORCE, "force", NULL, "overwrite a key slot that is in use, erase the last one"},
    OPTION_UNTRUSTED,
    OPTION_END,
};

/* What the command line asks for. */
struct request {
    struct open_request open;
    platter_options *options;
    bool options_given;
    uint32_t flags;
    bool progress;
    bool quiet;
};

/* Changes the options of an open image; false after a message. */
static bool amend(const platter_image *image, const struct request *request)
{
    static const struct job_display display = {.progress_by_signal = true, .output_optional = true};
    static const struct job_display with_progress = {.output_optional = true};
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;

    if (platter_amend_job_new(&job, image, request->options, objects_secrets(), request->flags,
                              &error) == PLATTER_OK) {
        progress_start();
        report = jobs_run(job, progress_is_shown() ? &with_progress : &display, &error);
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

/* Lists what the format of an image, or the one that was named, can change. */
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

/* Reads the options; false after a message. */
static bool parse(struct request *request)
{
    for (int option; (option = options_next()) != -1;) {
        switch (option) {
        case 'o':
            if (!creation_add(request->options, options_argument()))
                return false;
            request->options_given = true;
            break;
        case 'f':
            request->open.format = options_argument();
            break;
        case 't':
            request->open.cache = options_argument();
            break;
        case 'p':
            request->progress = true;
            break;
        case 'q':
            request->quiet = true;
            break;
        case OPT_IMAGE_OPTS:
            request->open.image_opts = true;
            break;
        case OPT_FORCE:
            request->flags |= PLATTER_AMEND_FORCE;
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
    if (!open_cache_is_valid(request->open.cache, false) ||
        options_conflict_with_format(request->open.image_opts, request->open.format))
        return false;
    progress_enable(request->progress && !request->quiet);
    image = open_image(name, &request->open, PLATTER_OPEN_WRITE);
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
        if (creation_help_asked() && request.open.format != NULL)
            done = print_help(request.open.format);
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
