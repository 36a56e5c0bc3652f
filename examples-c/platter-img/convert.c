#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "creation.h"
#include "jobs.h"
#include "objects.h"
#include "open.h"
#include "print.h"
#include "profiles.h"
#include "progress.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    {'q', "quiet", NULL, "print nothing but errors"},
    {'p', NULL, NULL, "show the progress"},
    OPTION_OBJECT,
    {OPT_IMAGE_OPTS, "source-image-opts", NULL,
     "the sources are lists such as driver=qcow2,file.filename=PATH;\nnot together with -f"},
    {OPT_IMAGE_OPTS, "image-opts", NULL, NULL},
    {'f', "source-format", "SRC_FMT", "the format of the sources; guessed if not given"},
    {OPT_DECOMPRESS, "decompress", "[=TYPE]",
     "the sources are files compressed with xz, gzip, bzip2, zstd or lz4\n(auto: looks at their beginning)"},
    {OPT_MAX_SPOOL, "max-spool", "SIZE",
     "the most that a temporary file takes for what a compressed file holds (64G)"},
    {OPT_MAX_DECODER, "max-decoder", "SIZE",
     "the most memory for decompressing such a file (256M); twice the window of\nzstd --long, and the dictionary of xz with what its threads work on"},
    {'T', "source-cache", "SRC_CACHE", "how the page cache is used for sources (writeback)"},
    {'l', "snapshot", "SNAPSHOT", "convert this internal snapshot, given by its ID or name"},
    {'O', "output-format", "TGT_FMT", "the format of the target (raw)"},
    {'o', "options", "TGT_OPTS",
     "options of the new image, as KEY=VALUE,...; may be given several times\n"
     "('-o help' lists them)"},
    {'t', "output-cache", "TGT_CACHE", "how the page cache is used for the target (unsafe)"},
    {OPT_TARGET_IMAGE_OPTS, "target-image-opts", NULL,
     "the target is a list such as driver=qcow2,file.filename=PATH;\nneeds -n, not together with -O"},
    {OPT_PROFILE, "profile", "PROFILE",
     "make the target what a product takes, instead of -O ('--profile help' lists them)"},
    {'c', NULL, NULL, "compress the target, where its format can be"},
    {'B', "backing", "BACKING_IMAGE",
     "make the target an overlay of BACKING_IMAGE, and leave out what that holds already"},
    {'F', "backing-format", "BACKING_FMT", "the format of BACKING_IMAGE"},
    {OPT_CHAIN, "chain", NULL,
     "TGT_IMAGE is a new directory: each layer of the source becomes an image in it,\n"
     "called as the layer is, over the one below"},
    {'n', NULL, NULL, "write into a target that exists"},
    {OPT_CHECKSUM, "checksum", "sha256",
     "print the digest of the bytes that the guest sees, taken while they are copied"},
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

/* The parsed command line. */
struct request {
    struct open_request source;
    const char *snapshot;
    platter_convert *convert;
    const char *format; /* NULL until set by -O or to the default */
    const char *profile;
    const char *cache;
    const char *backing;
    const char *backing_format;
    platter_options *options;
    bool target_image_opts;
    uint64_t rate;
    bool progress;
    bool quiet;
    uint32_t flags; /* PLATTER_CONVERT_* */
    platter_report *report;
};

/* Parses the number of workers; returns 0, which the library rejects, if it is out of range. */
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
    return errno != 0 || number < 0 ? 0 : (uint64_t)number;
}

/* Describes a conflict in terms of command-line options, or else with the library's text. */
static const char *conflict_text(uint32_t conflict)
{
    switch (conflict) {
    case PLATTER_CONVERT_CONFLICT_SKIP_WITHOUT_BITMAPS:
        return "Use of --skip-broken-bitmaps requires --bitmaps";
    case PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_COMPRESS:
        return "Cannot enable copy offloading when -c is used";
    case PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_SPARSE_SIZE:
        return "Cannot enable copy offloading when -S is used";
    case PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_SALVAGE:
        return "Cannot use copy offloading in salvaging mode";
    case PLATTER_CONVERT_CONFLICT_OPTIONS_OF_EXISTING:
        return "-o has no effect when skipping image creation";
    case PLATTER_CONVERT_CONFLICT_PROFILE_OF_EXISTING:
        return "--profile has no effect when skipping image creation";
    case PLATTER_CONVERT_CONFLICT_CHAIN:
        return "--chain goes with one source, and not with -l, -B, -F or -n";
    case PLATTER_CONVERT_CONFLICT_ZERO_OF_NEW:
        return "--target-is-zero requires use of -n flag";
    default:
        return platter_convert_conflict_text(conflict);
    }
}

/* Whether the settings so far are compatible with the flags; prints an error if not. */
static bool fits(const platter_convert *convert, uint32_t flags)
{
    uint32_t conflict = PLATTER_CONVERT_CONFLICT_NONE;
    platter_error *error = NULL;

    if (platter_convert_check(&conflict, convert, flags, &error) != PLATTER_OK)
        print_platter_error(error);
    else if (conflict != PLATTER_CONVERT_CONFLICT_NONE)
        print_error("%s", conflict_text(conflict));
    else
        return true;
    return false;
}

/* Sets a number, whose range the library checks; returns false after printing `refusal`. */
static bool set_number(const struct request *request, uint32_t which, uint64_t value,
                       const char *refusal)
{
    if (platter_convert_set_number(request->convert, which, value, 0, NULL) == PLATTER_OK)
        return true;
    print_error("%s", refusal);
    return false;
}

/* Requests a checksum; returns false after printing an error. */
static bool set_checksum(platter_convert *convert, const char *algorithm)
{
    platter_error *error = NULL;

    if (platter_convert_set_checksum(convert, algorithm, 0, &error) == PLATTER_OK)
        return true;
    print_platter_error(error);
    return false;
}

/* Whether `name` refers to the same file as stdout, so that the disk itself is written there. */
static bool is_stdout(const char *name)
{
    struct stat target = {0};
    struct stat out = {0};

    return stat(name, &target) == 0 && fstat(STDOUT_FILENO, &out) == 0 &&
           target.st_dev == out.st_dev && target.st_ino == out.st_ino;
}

/* Prints the checksums that were computed, on stderr if the disk is written to stdout. */
static void print_checksums(const platter_report *report, const char *target)
{
    static const char *const keys[] = {"sha256", "container-sha256"};
    FILE *out = is_stdout(target) ? stderr : stdout;
    const char *value = NULL;

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (platter_report_string(&value, report, 0, keys[i], 0, NULL) == PLATTER_OK)
            fprintf(out, "%s: %s\n", keys[i], value);
}

/* Parses the options; returns false after printing an error. */
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
        case OPT_DECOMPRESS:
            request->source.decompress = options_argument() != NULL ? options_argument() : "auto";
            break;
        case OPT_CHECKSUM:
            if (!set_checksum(request->convert, options_argument()))
                return false;
            break;
        case OPT_MAX_SPOOL:
            request->source.max_spool = options_argument();
            break;
        case OPT_MAX_DECODER:
            request->source.max_decoder = options_argument();
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
            if (!set_number(request, PLATTER_CONVERT_SPARSE_SIZE,
                            options_size(options_argument(), "buffer size for sparse output"),
                            "Invalid buffer size for sparse output specified. Valid sizes are "
                            "multiples of 512 up to 16777216. Select 0 to disable sparse detection "
                            "(fully allocates output)."))
                return false;
            break;
        case 'm':
            if (!set_number(request, PLATTER_CONVERT_PARALLEL, parse_parallel(options_argument()),
                            "Invalid number of coroutines specified. Must be between 1 and 16."))
                return false;
            break;
        case 'r':
            request->rate = options_size(options_argument(), "rate limit");
            break;
        case 'c':
            request->flags |= PLATTER_CONVERT_COMPRESS;
            break;
        case OPT_PROFILE:
            request->profile = options_argument();
            break;
        case OPT_CHAIN:
            request->flags |= PLATTER_CONVERT_CHAIN;
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

/* Applies the profile to the target; returns false after printing an error. */
static bool set_profile(const struct request *request)
{
    platter_error *error = NULL;

    if (request->profile != NULL && (request->format != NULL || request->target_image_opts)) {
        print_error("--profile goes neither with -O nor with --target-image-opts");
        return false;
    }
    if (platter_convert_set_profile(request->convert, request->profile, 0, &error) == PLATTER_OK)
        return true;
    print_platter_error(error);
    return false;
}

/* Whether the options are consistent; prints an error if not. */
static bool options_fit(const struct request *request)
{
    platter_error *error = NULL;

    if (platter_convert_set_target_options(request->convert, request->options, 0, &error) !=
        PLATTER_OK) {
        print_platter_error(error);
        return false;
    }
    if (!fits(request->convert, request->flags))
        return false;
    if (request->target_image_opts && (request->flags & PLATTER_CONVERT_TARGET_EXISTS) == 0) {
        print_error("--target-image-opts requires use of -n flag");
        return false;
    }
    return true;
}

/* Sets how the target is created or opened; returns false with `*error` set, or unset after printing an error. */
static bool describe_target(const struct request *request, const char *target,
                            platter_error **error)
{
    platter_convert *convert = request->convert;
    platter_policy *policy = open_policy();
    bool set = false;

    if (policy == NULL)
        return false;
    set = platter_convert_set_target(convert, target, request->format,
                                     open_location_flags(target, request->target_image_opts) |
                                         PLATTER_NAME_UNCHECKED,
                                     error) == PLATTER_OK &&
          (request->cache == NULL ||
           platter_convert_set_target_cache(convert, request->cache, 0, error) == PLATTER_OK) &&
          platter_convert_set_secrets(convert, objects_secrets(), 0, error) == PLATTER_OK &&
          platter_convert_set_target_policy(convert, policy, 0, error) == PLATTER_OK &&
          platter_convert_set_backing(convert, request->backing, request->backing_format,
                                      PLATTER_NAME_UNCHECKED, error) == PLATTER_OK;
    platter_policy_free(policy);
    return set;
}

/* Sets the sources; returns false with `*error` set, or unset after printing an error. */
static bool describe_sources(const struct request *request, char **names, int count,
                             platter_error **error)
{
    platter_convert *convert = request->convert;
    platter_open_options *how = open_options(&request->source);
    bool set = false;

    if (how == NULL)
        return false;
    set = platter_convert_set_source_options(convert, how, open_flags(&request->source), error) ==
              PLATTER_OK &&
          platter_convert_set_snapshot(convert, request->snapshot, 0, error) == PLATTER_OK;
    for (int i = 0; set && i < count; i++)
        set = platter_convert_add_source(convert, names[i],
                                         open_location_flags(names[i], request->source.image_opts),
                                         error) == PLATTER_OK;
    platter_open_options_free(how);
    return set;
}

static int convert_images(struct request *request, char **names, int count)
{
    const struct job_display display = {
        .progress_by_signal = !progress_is_shown(),
        /* Warnings about missing bitmaps are never suppressed. */
        .hide_warnings =
            request->quiet && (request->flags & PLATTER_CONVERT_SKIP_BROKEN_BITMAPS) == 0,
        .output_optional = true,
    };
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;
    const bool done =
        describe_sources(request, names, count - 1, &error) &&
        describe_target(request, names[count - 1], &error) &&
        platter_convert_job_new(&job, request->convert, request->flags, &error) == PLATTER_OK &&
        platter_job_set_rate(job, request->rate, 0, &error) == PLATTER_OK &&
        (report = jobs_run(job, &display, &error)) != NULL;

    if (error != NULL)
        print_snapshot_error(error, request->snapshot);
    request->report = report;
    return done ? 0 : 1;
}

/* Checks that come only after the progress line has started; prints an error if one fails. */
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
    int code = 1;

    if (request->profile != NULL && strcmp(request->profile, "help") == 0)
        return profiles_print() ? 0 : 1;
    if (!set_profile(request) || !options_fit(request))
        return 1;
    if (request->format == NULL && request->profile == NULL && !request->target_image_opts)
        request->format = "raw";
    if (creation_help_asked())
        /* A single name is that of a source. */
        return creation_print_help(request->format, count > 1 ? names[count - 1] : NULL) ? 0 : 1;
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
    /* On separate lines, after the progress line. */
    if (code == 0)
        print_checksums(request->report, names[count - 1]);
    platter_report_free(request->report);
    return code;
}

static int run(void)
{
    struct request request = {0};
    platter_error *error = NULL;
    int code = 1;

    if (platter_convert_new(&request.convert, 0, &error) != PLATTER_OK) {
        print_platter_error(error);
        return 1;
    }
    request.options = creation_options();
    if (request.options != NULL && parse(&request))
        code = checked_convert(&request);
    platter_options_free(request.options);
    platter_convert_free(request.convert);
    return code;
}

const struct command command_convert = {
    .name = "convert",
    .summary = "Copy images into a new one, in another format if need be",
    .synopsis = "[-f SRC_FMT | --image-opts] [-T SRC_CACHE] [-l SNAPSHOT] [-U]\n"
                "[--decompress[=TYPE] [--max-spool SIZE] [--max-decoder SIZE]]\n"
                "[-O TGT_FMT | --profile PROFILE] [-o TGT_OPTS] [-t TGT_CACHE] [-c]\n"
                "[-B BACKING_IMAGE [-F BACKING_FMT] | --chain]\n"
                "[-n [--target-is-zero] [--target-image-opts]]\n"
                "[-S SPARSE_SIZE] [-r RATE] [-m NUM_COROUTINES] [-C] [-W]\n"
                "[--salvage] [--bitmaps [--skip-broken-bitmaps]] [-p] [-q]\n"
                "[--checksum sha256] [--object OBJDEF] [--untrusted] SRC_IMAGE [SRC_IMAGE2 ...] TGT_IMAGE",
    .options = options,
    .operands = "SRC_IMAGE\n   the name of a source, or its description with --image-opts;\n"
                "   several are put end to end\n"
                "TGT_IMAGE\n   the name of the target, or its description with --target-image-opts",
    .failure = 1,
    .run = run,
};
