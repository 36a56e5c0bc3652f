#include "commands.h"
#include "jobs.h"
#include "open.h"
#include "print.h"
#include "progress.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    {'q', "quiet", NULL, "print nothing but errors"},
    {'p', "progress", NULL, "show the progress"},
    {'U', "force-share", NULL, "also when another process is writing to BACKING"},
    {'f', "format", "FMT", "the format of the image; guessed if not given"},
    {OPT_IMAGE_OPTS, "image-opts", NULL,
     "IMAGE is a list such as driver=qcow2,file.filename=PATH;\nnot together with --format"},
    {'t', "cache", "CACHE_MODE", "how the page cache is used for the image (writeback)"},
    {'b', "backing", "BACKING", "the new backing file; an empty name is none"},
    {'F', "backing-format", "FMT", "the format of BACKING"},
    {'T', "backing-cache", "CACHE_MODE", "how the page cache is used for BACKING (writeback)"},
    {'u', "backing-unsafe", NULL,
     "change the name alone: nothing is copied, and the image may show other data"},
    {'c', "compress", NULL, "write what is copied compressed"},
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

static bool rebase(const char *name, const struct backing *backing,
                   const struct open_request *request, uint32_t flags)
{
    static const struct job_display display = {.progress_by_signal = true, .output_optional = true};
    static const struct job_display with_progress = {.output_optional = true};
    platter_open_options *open = open_options(request);
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;

    if (open == NULL)
        return false;
    progress_start();
    if (platter_rebase_job_new(&job, name, backing->name, backing->format, backing->cache, open,
                               flags | open_location_flags(request->image_opts),
                               &error) == PLATTER_OK)
        report = jobs_run(job, progress_is_shown() ? &with_progress : &display, &error);
    platter_open_options_free(open);
    progress_end();
    if (report == NULL) {
        print_platter_error(error);
        return false;
    }
    platter_report_free(report);
    return true;
}

static int run(void)
{
    struct open_request request = {0};
    struct backing backing = {0};
    const char *name = NULL;
    bool progress = false;
    bool quiet = false;
    uint32_t flags = 0;

    for (int option; (option = options_next()) != -1;) {
        switch (option) {
        case 'f':
            request.format = options_argument();
            break;
        case 't':
            request.cache = options_argument();
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
        case 'p':
            progress = true;
            break;
        case 'q':
            quiet = true;
            break;
        case OPT_IMAGE_OPTS:
            request.image_opts = true;
            break;
        }
    }
    name = options_one_image();
    if (backing.name == NULL && (flags & PLATTER_REBASE_NAME_ONLY) == 0) {
        print_usage_error("Must specify backing file (-b) or use unsafe mode (-u)");
        return 1;
    }
    if (!open_cache_is_valid(request.cache, false) || !open_cache_is_valid(backing.cache, true) ||
        options_conflict_with_format(request.image_opts, request.format))
        return 1;
    progress_enable(progress && !quiet);
    return rebase(name, &backing, &request, flags) ? 0 : 1;
}

const struct command command_rebase = {
    .name = "rebase",
    .summary = "Give an overlay another backing file",
    .synopsis = "[-f FMT | --image-opts] [-t CACHE_MODE] [-b BACKING [-F FMT] [-T CACHE_MODE]]\n"
                "[-u] [-c] [-p] [-q] [-U] [--object OBJDEF] [--untrusted] IMAGE",
    .options = options,
    .operands = "IMAGE\n   the name of the image, or its description with --image-opts",
    .failure = 1,
    .run = run,
};
