#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "common.h"
#include "jobs.h"
#include "open.h"
#include "print.h"

/* The exit code if the format does not support the operation. */
enum { NOT_SUPPORTED = 63 };
/* Not an exit code: the report could not be printed, and an error has been printed. */
enum { NOT_JUDGED = -1 };

static const struct option_entry options[] = {
    OPTION_HELP,
    {'q', "quiet", NULL, "print no report, only findings and errors"},
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    {'T', "cache", "CACHE_MODE", "how the page cache is used (writeback)"},
    OPTION_FORCE_SHARE,
    OPTION_OUTPUT,
    {'r', "repair", "leaks|all",
     "open the image for writing and repair it, where its format can be;\n"
     "not together with --force-share"},
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

/* The findings have said what is wrong; after them qemu-img prints only the text of an errno. */
static void print_failure(platter_error *error, bool unsure)
{
    const bool damage = platter_error_status(error) == PLATTER_STATUS_CORRUPT;

    if (unsure)
        fputs("ERROR need to rebuild refcount structures\n", stderr);
    if (unsure || (damage && platter_error_errno(error) != EIO)) {
        print_error("Check failed: %s", strerror(platter_error_errno(error)));
        platter_error_free(error);
    } else {
        print_platter_error(error);
    }
}

/* Handles a check that failed; `left` holds its findings if it could not repair the leaks. */
static int fail(platter_error *error, platter_report *left, const struct common *common)
{
    int code = 1;

    if (left != NULL && platter_report_exit_code(&code, left, 0, NULL) != PLATTER_OK)
        code = 1;
    if (left == NULL || code == 1) {
        /* Only wrong refcounts prevent a check from reaching a verdict. */
        print_failure(error, left != NULL);
        platter_report_free(left);
        return 1;
    }
    print_platter_error(error);
    return common_judge(left, common->json, common->quiet, 1);
}

static int check(const platter_image *image, uint32_t repair, const struct common *common)
{
    platter_report *left = NULL;
    const struct job_display display = {.left = &left};
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;
    uint32_t features = 0;
    int code = 1;

    if (platter_image_features(&features, image, 0, &error) != PLATTER_OK) {
        print_platter_error(error);
        return 1;
    }
    if ((features & PLATTER_FEATURE_CHECK) == 0) {
        print_error("This image format does not support checks");
        return NOT_SUPPORTED;
    }
    if (repair != 0 && (features & PLATTER_FEATURE_REPAIR) == 0) {
        print_error("This image format does not support repairs");
        return NOT_SUPPORTED;
    }
    if (platter_check_job_new(&job, image, repair, &error) == PLATTER_OK)
        report = jobs_run(job, &display, &error);
    if (report == NULL)
        return fail(error, left, common);
    code = common_judge(report, common->json, common->quiet, NOT_JUDGED);
    if (code == 1)
        print_error("Check failed");
    return code == NOT_JUDGED ? 1 : code;
}

static int run(void)
{
    struct common common = {0};
    uint32_t repair = 0;
    const char *name = NULL;
    platter_image *image = NULL;
    uint32_t flags = PLATTER_OPEN_FOR_CHECK;
    int code = 1;

    for (int option; (option = options_next()) != -1;) {
        switch (option) {
        case 'T':
            common.image.cache = options_argument();
            break;
        case 'r':
            if (strcmp(options_argument(), "leaks") != 0 && strcmp(options_argument(), "all") != 0) {
                print_usage_error("--repair (-r) expects 'leaks' or 'all' not '%s'",
                                  options_argument());
                return 1;
            }
            repair = strcmp(options_argument(), "all") == 0 ? PLATTER_CHECK_REPAIR_ALL
                                                            : PLATTER_CHECK_REPAIR_LEAKS;
            flags |= PLATTER_OPEN_WRITE;
            break;
        default:
            common_option(&common, option);
            break;
        }
    }
    name = options_one_image();
    if (!open_cache_is_valid(common.image.cache, true) ||
        !common_image_is_valid(&common))
        return 1;
    image = open_image(name, &common.image, flags);
    if (image == NULL)
        return 1;
    code = check(image, repair, &common);
    return open_close(image) ? code : 1;
}

const struct command command_check = {
    .name = "check",
    .summary = "Check the consistency of an image",
    .synopsis = "[-f FMT | --image-opts] [-T CACHE_MODE] [-r leaks|all] [-q] [-U]\n"
                "[--output human|json] [--object OBJDEF] [--untrusted] IMAGE",
    .options = options,
    .operands = "IMAGE\n   the name of the image, or its description with --image-opts",
    .failure = 1,
    .run = run,
};
