#include "commands.h"
#include "open.h"
#include "print.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    {'f', "format", "FMT", "the format of the image; guessed if not given"},
    {OPT_IMAGE_OPTS, "image-opts", NULL,
     "IMAGE is a list such as driver=qcow2,file.filename=PATH;\nnot together with --format"},
    {'b', "backing-chain", NULL, "report the backing files as well"},
    {'U', "force-share", NULL, "also when another process is writing to the image"},
    {OPT_OUTPUT, "output", "human|json", "the form of the report (human)"},
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

static int run(void)
{
    struct open_request request = {0};
    bool chain = false;
    bool json = false;
    bool printed = false;
    const char *name = NULL;
    const char *warning = NULL;
    platter_open_options *how = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;
    uint32_t flags = 0;

    for (int code; (code = options_next()) != -1;) {
        switch (code) {
        case 'f':
            request.format = options_argument();
            break;
        case 'b':
            chain = true;
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
    how = open_options(&request);
    if (how == NULL)
        return 1;
    flags = open_location_flags(request.image_opts) | open_flags(&request);
    if (chain)
        flags |= PLATTER_INFO_CHAIN;
    if (platter_image_describe(&report, name, how, flags, &error) != PLATTER_OK)
        print_platter_error(error);
    platter_open_options_free(how);
    if (report == NULL)
        return 1;
    for (size_t i = 0; (warning = platter_report_warning(report, i)) != NULL; i++)
        print_warning(warning);
    printed = print_report(report, json);
    platter_report_free(report);
    return printed ? 0 : 1;
}

const struct command command_info = {
    .name = "info",
    .summary = "Tell what an image is",
    .synopsis = "[-f FMT | --image-opts] [-b] [-U] [--object OBJDEF] [--untrusted]\n"
                "[--output human|json] IMAGE",
    .options = options,
    .operands = "IMAGE\n   the name of the image, or its description with --image-opts",
    .failure = 1,
    .run = run,
};
