#include <stdio.h>

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
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
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
    const struct job_display display = common_display(true);
    platter_open_options *open = open_options(request);
    platter_job *job = NULL;
    platter_error *error = NULL;
    bool done = false;
    int status = PLATTER_OK;

    if (open == NULL)
        return false;
    progress_start();
    status = platter_commit_job_new(&job, name, base, open,
                                    flags | open_location_flags(name, request->image_opts), &error);
    if (status == PLATTER_OK)
        platter_job_set_rate(job, rate, 0, NULL);
    done = common_run(status, job, &display, error);
    platter_open_options_free(open);
    return done;
}

static int run(void)
{
    struct common common = {0};
    const char *base = NULL;
    const char *name = NULL;
    uint64_t rate = 0;
    uint32_t flags = 0;

    for (int option; (option = options_next()) != -1;) {
        switch (option) {
        case 't':
            common.image.cache = options_argument();
            break;
        case 'b':
            base = options_argument();
            break;
        case 'd':
            flags |= PLATTER_COMMIT_KEEP;
            break;
        case 'r':
            rate = options_size(options_argument(), "rate limit");
            break;
        default:
            common_option(&common, option);
            break;
        }
    }
    name = options_one_image();
    if (!open_cache_is_valid(common.image.cache, false) ||
        !common_image_is_valid(&common))
        return 1;
    progress_enable(common.progress && !common.quiet);
    if (!commit(name, base, &common.image, rate, flags))
        return 1;
    if (!common.quiet)
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
