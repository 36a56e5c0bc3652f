#include <stdio.h>

#include "commands.h"
#include "jobs.h"
#include "open.h"
#include "print.h"
#include "progress.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    {'q', "quiet", NULL, "print nothing but errors"},
    {'p', "progress", NULL, "show the progress"},
    {'f', "format", "FMT", "the format of the image; guessed if not given"},
    {OPT_IMAGE_OPTS, "image-opts", NULL,
     "IMAGE is a list such as driver=qcow2,file.filename=PATH;\nnot together with --format"},
    {'t', "cache", "CACHE_MODE", "how the page cache is used (writeback)"},
    {'b', "base", "BASE",
     "the image of the backing chain that gets the data, not the one right below;\n"
     "implies --drop"},
    {'d', "drop", NULL, "leave IMAGE as it is afterwards instead of emptying it"},
    {'r', "rate", "RATE", "at most so many bytes per second"},
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

static bool commit(const char *name, const char *base, const struct open_request *request,
                   uint64_t rate, uint32_t flags)
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
    if (platter_commit_job_new(&job, name, base, open,
                               flags | open_location_flags(request->image_opts),
                               &error) == PLATTER_OK) {
        platter_job_set_rate(job, rate, NULL);
        report = jobs_run(job, progress_is_shown() ? &with_progress : &display, &error);
    }
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
    const char *base = NULL;
    const char *name = NULL;
    bool progress = false;
    bool quiet = false;
    uint64_t rate = 0;
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
            base = options_argument();
            break;
        case 'd':
            flags |= PLATTER_COMMIT_KEEP;
            break;
        case 'p':
            progress = true;
            break;
        case 'q':
            quiet = true;
            break;
        case 'r':
            rate = options_size(options_argument(), "rate limit");
            break;
        case OPT_IMAGE_OPTS:
            request.image_opts = true;
            break;
        }
    }
    name = options_one_image();
    if (!open_cache_is_valid(request.cache, false) ||
        options_conflict_with_format(request.image_opts, request.format))
        return 1;
    progress_enable(progress && !quiet);
    if (!commit(name, base, &request, rate, flags))
        return 1;
    if (!quiet)
        puts("Image committed.");
    return 0;
}

const struct command command_commit = {
    .name = "commit",
    .summary = "Copy what an overlay holds into an image of its backing chain",
    .synopsis = "[-f FMT | --image-opts] [-t CACHE_MODE] [-b BASE] [-d] [-r RATE]\n"
                "[-p] [-q] [--object OBJDEF] [--untrusted] IMAGE",
    .options = options,
    .operands = "IMAGE\n   the name of the image, or its description with --image-opts",
    .failure = 1,
    .run = run,
};
