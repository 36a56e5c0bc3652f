#include "commands.h"
#include "common.h"
#include "jobs.h"
#include "open.h"
#include "print.h"
#include "progress.h"

enum { DIFFERENT = 1, NOT_OPENED = 2, STATUS_FAILED = 3, READ_FAILED = 4 };

static const struct option_entry options[] = {
    OPTION_HELP,
    OPTION_QUIET,
    OPTION_PROGRESS,
    {'f', "a-format", "FMT", "the format of IMAGE1; guessed if not given"},
    {'f', "left-format", "FMT", NULL},
    {'F', "b-format", "FMT", "the format of IMAGE2; guessed if not given"},
    {'F', "right-format", "FMT", NULL},
    {OPT_IMAGE_OPTS, "image-opts", NULL,
     "both images are lists such as driver=qcow2,file.filename=PATH;\nnot together with formats"},
    {'s', "strict", NULL, "sizes and allocation must agree too"},
    {'T', "cache", "CACHE_MODE", "how the page cache is used (writeback)"},
    {'U', "force-share", NULL, "also when another process is writing to an image"},
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

/* The exit code for a comparison that failed. */
static int failure_code(const platter_error *error)
{
    switch (platter_error_stage(error)) {
    case PLATTER_STAGE_READ:
        return READ_FAILED;
    case PLATTER_STAGE_BLOCK_STATUS:
        return STATUS_FAILED;
    case PLATTER_STAGE_VERIFY:
        return DIFFERENT;
    default:
        return NOT_OPENED;
    }
}

static int compare(const platter_image *a, const platter_image *b, bool strict, bool quiet)
{
    const struct job_display display = common_display(false);
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;
    int code = NOT_OPENED;

    progress_start();
    if (platter_compare_job_new(&job, a, b, strict ? PLATTER_COMPARE_STRICT : 0, &error) ==
        PLATTER_OK)
        report = jobs_run(job, &display, &error);
    if (report == NULL) {
        code = failure_code(error);
        print_platter_error(error);
        return code;
    }
    return common_judge(report, false, quiet, NOT_OPENED);
}

/* Opens both images and compares them. */
static int open_and_compare(char *const names[2], const struct open_request requests[2], bool strict,
                            bool quiet)
{
    platter_image *images[2] = {NULL, NULL};
    int code = NOT_OPENED;

    if (!open_cache_is_valid(requests[0].cache, true) ||
        options_conflict_with_format(requests[0].image_opts, requests[0].format))
        return NOT_OPENED;
    images[0] = open_image(names[0], &requests[0], 0);
    if (images[0] != NULL &&
        !options_conflict_with_format(requests[1].image_opts, requests[1].format))
        images[1] = open_image(names[1], &requests[1], 0);
    if (images[1] != NULL)
        code = compare(images[0], images[1], strict, quiet);
    for (int i = 0; i < 2; i++)
        if (images[i] != NULL && !open_close(images[i]))
            code = NOT_OPENED;
    return code;
}

static int run(void)
{
    struct common common = {0};
    struct open_request requests[2] = {{0}, {0}};
    const char *second_format = NULL;
    bool strict = false;
    int code = NOT_OPENED;

    for (int option; (option = options_next()) != -1;) {
        switch (option) {
        case 'F':
            second_format = options_argument();
            break;
        case 'T':
            common.image.cache = options_argument();
            break;
        case 's':
            strict = true;
            break;
        default:
            common_option(&common, option);
            break;
        }
    }
    requests[0] = common.image;
    requests[1] = common.image;
    requests[1].format = second_format;
    if (options_operand_count() != 2) {
        print_usage_error("Expecting two image file names");
        return 1;
    }
    progress_enable(common.progress && !common.quiet);
    code = open_and_compare(options_operands(), requests, strict, common.quiet);
    progress_end();
    return code;
}

const struct command command_compare = {
    .name = "compare",
    .summary = "Tell whether two images have the same content",
    .synopsis = "[--image-opts | [-f FMT] [-F FMT]] [-s] [-p] [-q]\n"
                "[-T CACHE_MODE] [-U] [--object OBJDEF] [--untrusted] IMAGE1 IMAGE2",
    .options = options,
    .operands = "IMAGE1, IMAGE2\n   the names of the images, or their descriptions with --image-opts",
    .failure = NOT_OPENED,
    .run = run,
};
