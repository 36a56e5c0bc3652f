#include "commands.h"
#include "common.h"
#include "exports.h"
#include "open.h"
#include "print.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    {'b', "backing-chain", NULL, "report the backing files as well"},
    {OPT_LIST, "list", NULL,
     "list the exports of the server that IMAGE names, such as nbd://HOST"},
    OPTION_FORCE_SHARE,
    OPTION_OUTPUT,
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

static int run(void)
{
    struct common common = {0};
    bool chain = false;
    bool list = false;
    const char *name = NULL;
    const char *warning = NULL;
    platter_open_options *how = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;
    uint32_t flags = 0;

    for (int code; (code = options_next()) != -1;) {
        switch (code) {
        case 'b':
            chain = true;
            break;
        case OPT_LIST:
            list = true;
            break;
        default:
            common_option(&common, code);
            break;
        }
    }
    name = options_one_image();
    if (!common_image_is_valid(&common))
        return 1;
    if (list && (chain || common.image.format != NULL || common.image.force_share)) {
        print_error("--list and options about an image are mutually exclusive");
        return 1;
    }
    if (list)
        return exports_print(name, &common.image, common.json) ? 0 : 1;
    how = open_options(&common.image);
    if (how == NULL)
        return 1;
    flags = open_location_flags(name, common.image.image_opts) | open_flags(&common.image);
    if (chain)
        flags |= PLATTER_INFO_CHAIN;
    if (platter_image_describe(&report, name, how, flags, &error) != PLATTER_OK)
        print_platter_error(error);
    platter_open_options_free(how);
    if (report == NULL)
        return 1;
    for (size_t i = 0; (warning = platter_report_warning(report, i)) != NULL; i++)
        print_warning(warning);
    return common_print(report, common.json) ? 0 : 1;
}

const struct command command_info = {
    .name = "info",
    .summary = "Tell what an image is",
    .synopsis = "[-f FMT | --image-opts] [-b | --list] [-U] [--object OBJDEF] [--untrusted]\n"
                "[--output human|json] IMAGE",
    .options = options,
    .operands = "IMAGE\n   the name of the image, or its description with --image-opts",
    .failure = 1,
    .run = run,
};
