#include "commands.h"
#include "jobs.h"
#include "open.h"
#include "print.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    {'f', "format", "FMT", "the format of the image; guessed if not given"},
    {OPT_IMAGE_OPTS, "image-opts", NULL,
     "IMAGE is a list such as driver=qcow2,file.filename=PATH;\nnot together with --format"},
    {'s', "start-offset", "OFFSET", "begin at this guest offset"},
    {'l', "max-length", "LENGTH", "report no more than this many guest bytes"},
    {OPT_OUTPUT, "output", "human|json", "the form of the report (human)"},
    {'U', "force-share", NULL, "also when another process is writing to the image"},
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

static int run(void)
{
    static const struct job_display display = {0};
    struct open_request request = {0};
    bool json = false;
    bool printed = false;
    uint64_t start = 0;
    uint64_t length = PLATTER_LENGTH_ALL;
    const char *name = NULL;
    platter_image *image = NULL;
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;

    for (int code; (code = options_next()) != -1;) {
        switch (code) {
        case 'f':
            request.format = options_argument();
            break;
        case 's':
            start = options_size(options_argument(), "start offset");
            break;
        case 'l':
            length = options_size(options_argument(), "max length");
            break;
        case 'U':
            request.force_share = true;
            break;
        case OPT_IMAGE_OPTS:
            request.image_opts = true;
            break;
        case OPT_OUTPUT:
            json = options_output_is_json(options_argument());
            break;
        }
    }
    name = options_one_image();
    if (options_conflict_with_format(request.image_opts, request.format))
        return 1;
    image = open_image(name, &request, 0);
    if (image == NULL)
        return 1;
    if (platter_map_job_new(&job, image, start, length, 0, &error) == PLATTER_OK)
        report = jobs_run(job, &display, &error);
    if (report != NULL)
        printed = print_report(report, json);
    else
        print_platter_error(error);
    platter_report_free(report);
    return open_close(image) && printed ? 0 : 1;
}

const struct command command_map = {
    .name = "map",
    .summary = "Tell where the data of an image lies",
    .synopsis = "[-f FMT | --image-opts] [--object OBJDEF] [--output human|json]\n"
                "[-s OFFSET] [-l LENGTH] [-U] [--untrusted] IMAGE",
    .options = options,
    .operands = "IMAGE\n   the name of the image, or its description with --image-opts",
    .failure = 1,
    .run = run,
};
