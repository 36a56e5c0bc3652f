#include <errno.h>
#include <stdlib.h>

#include "commands.h"
#include "common.h"
#include "jobs.h"
#include "open.h"
#include "print.h"
#include "progress.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    OPTION_QUIET,
    OPTION_PROGRESS,
    {'U', "force-share", NULL, "also when another process is writing to BACKING"},
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    {'t', "cache", "CACHE_MODE", "how the page cache is used for the image (writeback)"},
    {'b', "backing", "BACKING", "the new backing file; an empty name is none"},
    {'F', "backing-format", "FMT", "the format of BACKING"},
    {'T', "backing-cache", "CACHE_MODE", "how the page cache is used for BACKING (writeback)"},
    {'u', "backing-unsafe", NULL,
     "change the name alone: nothing is copied, and the image may show other data"},
    {'c', "compress", NULL, "write what is copied compressed"},
    {OPT_COMPRESSION_LEVEL, "compression-level", "LEVEL",
     "how hard -c tries: 1 to 12 for zlib, 22 and less for zstd"},
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

/* The new backing file. */
struct backing {
    const char *name;
    const char *format;
    const char *cache;
};

/* Sets the compression level; returns false after printing an error. */
static bool set_level(platter_open_options *open, const char *text)
{
    platter_error *error = NULL;
    char *end = NULL;
    long level = 0;

    if (text == NULL)
        return true;
    errno = 0;
    level = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || level < INT32_MIN || level > INT32_MAX) {
        print_error("Invalid compression level: '%s'.", text);
        return false;
    }
    if (platter_open_options_set_compression_level(open, (int32_t)level, 0, &error) == PLATTER_OK)
        return true;
    print_platter_error(error);
    return false;
}

static bool rebase(const char *name, const struct backing *backing,
                   const struct open_request *request, const char *level, uint32_t flags)
{
    const struct job_display display = common_display(true);
    platter_open_options *open = open_options(request);
    platter_job *job = NULL;
    platter_error *error = NULL;
    bool done = false;
    int status = PLATTER_OK;

    if (open == NULL)
        return false;
    if (!set_level(open, level)) {
        platter_open_options_free(open);
        return false;
    }
    progress_start();
    status = platter_rebase_job_new(&job, name, backing->name, backing->format, backing->cache,
                                    open,
                                    flags | PLATTER_NAME_UNCHECKED |
                                        open_location_flags(name, request->image_opts),
                                    &error);
    done = common_run(status, job, &display, error);
    platter_open_options_free(open);
    return done;
}

static int run(void)
{
    struct common common = {0};
    struct backing backing = {0};
    const char *name = NULL;
    const char *level = NULL;
    uint32_t flags = 0;

    for (int option; (option = options_next()) != -1;) {
        switch (option) {
        case 't':
            common.image.cache = options_argument();
            break;
        case 'b':
            backing.name = options_argument();
            break;
        case 'F':
            backing.format = options_argument();
            break;
        case 'T':
            backing.cache = options_argument();
            break;
        case 'u':
            flags |= PLATTER_REBASE_NAME_ONLY;
            break;
        case 'c':
            flags |= PLATTER_REBASE_COMPRESS;
            break;
        case 'U':
            flags |= PLATTER_REBASE_SHARE_BACKING;
            break;
        case OPT_COMPRESSION_LEVEL:
            level = options_argument();
            break;
        default:
            common_option(&common, option);
            break;
        }
    }
    name = options_one_image();
    if (backing.name == NULL && (flags & PLATTER_REBASE_NAME_ONLY) == 0) {
        print_usage_error("Must specify backing file (-b) or use unsafe mode (-u)");
        return 1;
    }
    if (level != NULL && (flags & PLATTER_REBASE_COMPRESS) == 0) {
        print_error("--compression-level goes with -c");
        return 1;
    }
    if (!open_cache_is_valid(common.image.cache, false) || !open_cache_is_valid(backing.cache, true) ||
        !common_image_is_valid(&common))
        return 1;
    progress_enable(common.progress && !common.quiet);
    return rebase(name, &backing, &common.image, level, flags) ? 0 : 1;
}

const struct command command_rebase = {
    .name = "rebase",
    .summary = "Give an overlay another backing file",
    .synopsis = "[-f FMT | --image-opts] [-t CACHE_MODE] [-b BACKING [-F FMT] [-T CACHE_MODE]]\n"
                "[-u] [-c [--compression-level LEVEL]] [-p] [-q] [-U] [--object OBJDEF] [--untrusted] IMAGE",
    .options = options,
    .operands = "IMAGE\n   the name of the image, or its description with --image-opts",
    .failure = 1,
    .run = run,
};
