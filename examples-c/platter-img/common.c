#include "common.h"

#include "options.h"
#include "print.h"
#include "progress.h"

void common_option(struct common *common, int code)
{
    switch (code) {
    case 'f':
        common->image.format = options_argument();
        break;
    case 'U':
        common->image.force_share = true;
        break;
    case OPT_IMAGE_OPTS:
        common->image.image_opts = true;
        break;
    case OPT_OUTPUT:
        common->json = options_output_is_json(options_argument());
        break;
    case 'p':
        common->progress = true;
        break;
    case 'q':
        common->quiet = true;
        break;
    }
}

bool common_image_is_valid(const struct common *common)
{
    return !options_conflict_with_format(common->image.image_opts, common->image.format);
}

bool common_print(platter_report *report, bool json)
{
    const bool printed = print_report(report, json);

    platter_report_free(report);
    return printed;
}

int common_judge(platter_report *report, bool json, bool quiet, int failure)
{
    platter_error *error = NULL;
    int code = failure;

    if ((quiet || print_report(report, json)) &&
        platter_report_exit_code(&code, report, 0, &error) != PLATTER_OK) {
        print_platter_error(error);
        code = failure;
    }
    platter_report_free(report);
    return code;
}

struct job_display common_display(bool output_optional)
{
    return (struct job_display){
        .progress_by_signal = !progress_is_shown(),
        .output_optional = output_optional,
    };
}

bool common_run(int status, platter_job *job, const struct job_display *display, platter_error *error)
{
    platter_report *report = NULL;

    if (status == PLATTER_OK)
        report = jobs_run(job, display, &error);
    progress_end();
    if (report == NULL)
        print_platter_error(error);
    platter_report_free(report);
    return report != NULL;
}
