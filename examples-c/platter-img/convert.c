#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "creation.h"
#include "jobs.h"
#include "objects.h"
#include "open.h"
#include "print.h"
#include "progress.h"

enum { MAX_SPARSE_SIZE = 16 << 20, SECTOR = 512, MAX_PARALLEL = 16 };

static const struct option_entry options[] = {
    OPTION_HELP,
    {'q', "quiet", NULL, "print nothing but errors"},
    {'p', NULL, NULL, "show the progress"},
    OPTION_OBJECT,
    {OPT_IMAGE_OPTS, "source-image-opts", NULL,
     "the sources are lists such as driver=qcow2,file.filename=PATH;\nnot together with -f"},
    {OPT_IMAGE_OPTS, "image-opts", NULL, NULL},
    {'f', "source-format", "SRC_FMT", "the format of the sources; guessed if not given"},
    {'T', "source-cache", "SRC_CACHE", "how the page cache is used for sources (writeback)"},
    {'l', "snapshot", "SNAPSHOT", "convert this internal snapshot, given by its ID or name"},
    {'O', "output-format", "TGT_FMT", "the format of the target (raw)"},
    {'o', "options", "TGT_OPTS",
     "options of the new image, as KEY=VALUE,...; may be given several times\n"
     "('-o help' lists them)"},
    {'t', "output-cache", "TGT_CACHE", "how the page cache is used for the target (unsafe)"},
    {OPT_TARGET_IMAGE_OPTS, "target-image-opts", NULL,
     "the target is a list such as driver=qcow2,file.filename=PATH;\nneeds -n, not together with -O"},
    {'c', NULL, NULL, "compress the target, where its format can be"},
    {'B', "backing", "BACKING_IMAGE",
     "make the target an overlay of BACKING_IMAGE, and leave out what that holds already"},
    {'F', "backing-format", "BACKING_FMT", "the format of BACKING_IMAGE"},
    {'n', NULL, NULL, "write into a target that exists"},
    {OPT_TARGET_IS_ZERO, "target-is-zero", NULL, "the existing target reads as zeroes; needs -n"},
    {'S', "sparse-size", "SPARSE_SIZE",
     "leave runs of zeroes of this size unwritten (4k); a multiple of 512 up to 16M,\n"
     "0 writes everything"},
    {OPT_SALVAGE, "salvage", NULL,
     "go on where a source cannot be read: what is lost becomes zeroes"},
    {OPT_BITMAPS, "bitmaps", NULL, "copy the persistent bitmaps of the source as well"},
    {OPT_SKIP_BROKEN_BITMAPS, "skip-broken-bitmaps", NULL,
     "leave out inconsistent bitmaps; needs --bitmaps"},
    {'U', "force-share", NULL, "also when another process is writing to a source"},
    {'r', "rate", "RATE", "copy no more than this many bytes per second (0: no limit)"},
    {'m', "parallel", "NUM_COROUTINES", "pieces of work at a time, 1 to 16 (by the machine)"},
    {'C', "copy-range-offloading", NULL, "let the kernel copy; tried anyway where it can"},
    {'W', "oob-writes", NULL, "data may be written in any order"},
    OPTION_UNTRUSTED,
    OPTION_END,
};

/* What the command line asks for. */
struct request {
    struct open_request source;
    const char *snapshot;
    const char *format; /* NULL until -O or its default */
    const char *cache;
    const char *backing;
    const char *backing_format;
    platter_options *options;
    bool options_given;
    bool target_image_opts;
    bool sparse_size_given;
    uint64_t sparse_size;
    uint64_t parallel; /* 0 chooses by the machine */
    uint64_t rate;
    bool progress;
    bool quiet;
    uint32_t flags; /* PLATTER_CONVERT_ */
};

static uint64_t parse_parallel(const char *text)
{
    char *end = NULL;
    long number = 0;

    errno = 0;
    number = strtol(text, &end, 0);
    if (end == text || *end != '\0') {
        print_error("Invalid number of coroutines specified: '%s'.", text);
        print_exit(1, 1);
    }
    if (errno != 0 || number < 1 || number > MAX_PARALLEL) {
        print_error("Invalid number of coroutines specified. Must be between 1 and %d.",
                    MAX_PARALLEL);
        print_exit(1, 1);
    }
    return (uint64_t)number;
}

static uint64_t parse_sparse_size(const char *text)
{
    const uint64_t size = options_size(text, "buffer size for sparse output");

    if (size % SECTOR != 0 || size > MAX_SPARSE_SIZE) {
        print_error("Invalid buffer size for sparse output specified. Valid sizes are multiples of %d "
                    "up to %d. Select 0 to disable sparse detection (fully allocates output).",
                    SECTOR, MAX_SPARSE_SIZE);
        print_exit(1, 1);
    }
    return size;
}

/* Reads the options; false after a message. */
static bool parse(struct request *request)
{
    for (int option; (option = options_next()) != -1;) {
        switch (option) {
        case 'f':
            request->source.format = options_argument();
            break;
        case 'T':
            request->source.cache = options_argument();
            break;
        case 'l':
            request->snapshot = options_argument();
            break;
        case 'U':
            request->source.force_share = true;
            break;
        case OPT_IMAGE_OPTS:
            request->source.image_opts = true;
            break;
        case 'O':
            request->format = options_argument();
            break;
        case 'o':
            if (!creation_add(request->options, options_argument()))
                return false;
            request->options_given = true;
            break;
        case 't':
            request->cache = options_argument();
            break;
        case 'B':
            request->backing = options_argument();
            break;
        case 'F':
            request->backing_format = options_argument();
            break;
        case OPT_TARGET_IMAGE_OPTS:
            request->target_image_opts = true;
            break;
        case 'S':
            request->sparse_size = parse_sparse_size(options_argument());
            request->sparse_size_given = true;
            break;
        case 'm':
            request->parallel = parse_parallel(options_argument());
            break;
        case 'r':
            request->rate = options_size(options_argument(), "rate limit");
            break;
        case 'c':
            request->flags |= PLATTER_CONVERT_COMPRESS;
            break;
        case 'n':
            request->flags |= PLATTER_CONVERT_TARGET_EXISTS;
            break;
        case OPT_TARGET_IS_ZERO:
            request->flags |= PLATTER_CONVERT_TARGET_IS_ZERO;
            break;
        case 'W':
            request->flags |= PLATTER_CONVERT_OUT_OF_ORDER;
            break;
        case 'C':
            request->flags |= PLATTER_CONVERT_COPY_RANGE;
            break;
        case OPT_SALVAGE:
            request->flags |= PLATTER_CONVERT_SALVAGE;
            break;
        case OPT_BITMAPS:
            request->flags |= PLATTER_CONVERT_BITMAPS;
            break;
        case OPT_SKIP_BROKEN_BITMAPS:
            request->flags |= PLATTER_CONVERT_SKIP_BROKEN_BITMAPS;
            break;
        case 'p':
            request->progress = true;
            break;
        case 'q':
            request->quiet = true;
            break;
        }
    }
    return true;
}

/* The first rule that the combination of options breaks, or NULL. */
static const char *broken_rule(const struct request *request)
{
    const bool exists = (request->flags & PLATTER_CONVERT_TARGET_EXISTS) != 0;
    const bool copy_range = (request->flags & PLATTER_CONVERT_COPY_RANGE) != 0;

    if ((request->flags & PLATTER_CONVERT_SKIP_BROKEN_BITMAPS) != 0 &&
        (request->flags & PLATTER_CONVERT_BITMAPS) == 0)
        return "Use of --skip-broken-bitmaps requires --bitmaps";
    if (copy_range && (request->flags & PLATTER_CONVERT_COMPRESS) != 0)
        return "Cannot enable copy offloading when -c is used";
    if (copy_range && request->sparse_size_given)
        return "Cannot enable copy offloading when -S is used";
    if (copy_range && (request->flags & PLATTER_CONVERT_SALVAGE) != 0)
        return "Cannot use copy offloading in salvaging mode";
    if (exists && request->options_given)
        return "-o has no effect when skipping image creation";
    if (request->target_image_opts && !exists)
        return "--target-image-opts requires use of -n flag";
    if ((request->flags & PLATTER_CONVERT_TARGET_IS_ZERO) != 0 && !exists)
        return "--target-is-zero requires use of -n flag";
    return NULL;
}

/* Sets how the target is made or opened; false with the error. */
static bool describe_target(platter_convert *convert, const struct request *request,
                            const char *target, platter_error **error)
{
    platter_policy *policy = open_policy();
    bool set = false;

    if (policy == NULL)
        return false;
    set = platter_convert_set_target(convert, target, request->format,
                                     open_location_flags(request->target_image_opts),
                                     error) == PLATTER_OK &&
          platter_convert_set_target_options(convert, request->options, 0, error) == PLATTER_OK &&
          (request->cache == NULL ||
           platter_convert_set_target_cache(convert, request->cache, 0, error) == PLATTER_OK) &&
          platter_convert_set_secrets(convert, objects_secrets(), 0, error) == PLATTER_OK &&
          platter_convert_set_target_policy(convert, policy, 0, error) == PLATTER_OK &&
          platter_convert_set_backing(convert, request->backing, request->backing_format, 0,
                                      error) == PLATTER_OK &&
          (!request->sparse_size_given ||
           platter_convert_set_number(convert, PLATTER_CONVERT_SPARSE_SIZE, request->sparse_size, 0,
                                      error) == PLATTER_OK) &&
          (request->parallel == 0 ||
           platter_convert_set_number(convert, PLATTER_CONVERT_PARALLEL, request->parallel, 0,
                                      error) == PLATTER_OK);
    platter_policy_free(policy);
    return set;
}

/* Sets what is converted; false with the error, or after a message and without one. */
static bool describe_sources(platter_convert *convert, const struct request *request, char **names,
                             int count, platter_error **error)
{
    platter_open_options *how = open_options(&request->source);
    bool set = false;

    if (how == NULL)
        return false;
    set = platter_convert_set_source_options(convert, how, open_flags(&request->source), error) ==
              PLATTER_OK &&
          platter_convert_set_snapshot(convert, request->snapshot, 0, error) == PLATTER_OK;
    for (int i = 0; set && i < count; i++)
        set = platter_convert_add_source(convert, names[i],
                                         open_location_flags(request->source.image_opts),
                                         error) == PLATTER_OK;
    platter_open_options_free(how);
    return set;
}

static int convert_images(const struct request *request, char **names, int count)
{
    const struct job_display display = {
        .progress_by_signal = !progress_is_shown(),
        /* That bitmaps are missing is never kept quiet. */
        .hide_warnings =
            request->quiet && (request->flags & PLATTER_CONVERT_SKIP_BROKEN_BITMAPS) == 0,
        .output_optional = true,
    };
    platter_convert *convert = NULL;
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;
    const bool done =
        platter_convert_new(&convert, 0, &error) == PLATTER_OK &&
        describe_sources(convert, request, names, count - 1, &error) &&
        describe_target(convert, request, names[count - 1], &error) &&
        platter_convert_job_new(&job, convert, request->flags, &error) == PLATTER_OK &&
        platter_job_set_rate(job, request->rate, &error) == PLATTER_OK &&
        (report = jobs_run(job, &display, &error)) != NULL;

    if (error != NULL)
        print_snapshot_error(error, request->snapshot);
    platter_convert_free(convert);
    platter_report_free(report);
    return done ? 0 : 1;
}

/* What is refused once the progress is shown; false after a message. */
static bool can_begin(const struct request *request)
{
    return !options_conflict_with_format(request->source.image_opts, request->source.format) &&
           !options_conflict_with_format(request->target_image_opts, request->format) &&
           open_cache_is_valid(request->cache, false);
}

static int checked_convert(struct request *request)
{
    const int count = options_operand_count();
    char **names = options_operands();
    const char *rule = broken_rule(request);
    int code = 1;

    if (rule != NULL) {
        print_error("%s", rule);
        return 1;
    }
    if (request->format == NULL && !request->target_image_opts)
        request->format = "raw";
    if (creation_help_asked())
        return creation_print_help(request->format, count > 0 ? names[count - 1] : NULL) ? 0 : 1;
    if (count < 2) {
        print_error("Must specify image file name");
        return 1;
    }
    if (!open_cache_is_valid(request->source.cache, true))
        return 1;
    progress_enable(request->progress && !request->quiet);
    progress_start();
    if (can_begin(request))
        code = convert_images(request, names, count);
    if (code == 0)
        progress_complete();
    progress_end();
    return code;
}

static int run(void)
{
    struct request request = {0};
    int code = 1;

    request.options = creation_options();
    if (request.options != NULL && parse(&request))
        code = checked_convert(&request);
    platter_options_free(request.options);
    return code;
}

const struct command command_convert = {
    .name = "convert",
    .summary = "Copy images into a new one, in another format if need be",
    .synopsis = "[-f SRC_FMT | --image-opts] [-T SRC_CACHE] [-l SNAPSHOT] [-U]\n"
                "[-O TGT_FMT] [-o TGT_OPTS] [-t TGT_CACHE] [-c]\n"
                "[-B BACKING_IMAGE [-F BACKING_FMT]]\n"
                "[-n [--target-is-zero] [--target-image-opts]]\n"
                "[-S SPARSE_SIZE] [-r RATE] [-m NUM_COROUTINES] [-C] [-W]\n"
                "[--salvage] [--bitmaps [--skip-broken-bitmaps]] [-p] [-q]\n"
                "[--object OBJDEF] [--untrusted] SRC_IMAGE [SRC_IMAGE2 ...] TGT_IMAGE",
    .options = options,
    .operands = "SRC_IMAGE\n   the name of a source, or its description with --image-opts;\n"
                "   several are put end to end\n"
                "TGT_IMAGE\n   the name of the target, or its description with --target-image-opts",
    .failure = 1,
    .run = run,
};
