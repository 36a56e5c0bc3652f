/* inspect: whether a file from an untrusted source may be used as a disk image. */
#include <string.h>

#include "commands.h"
#include "common.h"
#include "open.h"
#include "print.h"
#include "profiles.h"

enum { NOT_INSPECTED = 1 };

static const struct option_entry options[] = {
    OPTION_HELP,
    {'f', "format", "FMT", "the format that FILE must have; guessed if not given"},
    {'U', "force-share", NULL, "also when another process is writing to the file"},
    {OPT_PROFILE, "profile", "PROFILE",
     "tell as well what a product would refuse ('--profile help' lists them)"},
    {OPT_MAX_SIZE, "max-virtual-size", "SIZE", "the largest virtual size that passes"},
    OPTION_OUTPUT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

/* Options with the strict policy and the size limit; returns NULL after printing an error. */
static platter_open_options *how_to_inspect(const char *format, const char *max_size)
{
    const uint64_t limit =
        max_size != NULL ? options_size(max_size, "largest virtual size") : INT64_MAX;
    platter_open_options *how = NULL;
    platter_policy *policy = NULL;
    platter_error *error = NULL;

    if (platter_policy_new(&policy, PLATTER_POLICY_STRICT, 0, &error) != PLATTER_OK ||
        platter_policy_set_limit(policy, PLATTER_LIMIT_VIRTUAL_SIZE, limit, 0, &error) !=
            PLATTER_OK ||
        platter_open_options_new(&how, 0, &error) != PLATTER_OK ||
        platter_open_options_set_policy(how, policy, 0, &error) != PLATTER_OK ||
        platter_open_options_set_format(how, format, PLATTER_NAME_UNCHECKED, &error) != PLATTER_OK) {
        print_platter_error(error);
        platter_open_options_free(how);
        how = NULL;
    }
    platter_policy_free(policy);
    return how;
}

static int run(void)
{
    struct common common = {0};
    const char *max_size = NULL;
    const char *profile = NULL;
    const char *name = NULL;
    int status = PLATTER_OK;
    platter_open_options *how = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;

    for (int code; (code = options_next()) != -1;) {
        switch (code) {
        case OPT_PROFILE:
            profile = options_argument();
            break;
        case OPT_MAX_SIZE:
            max_size = options_argument();
            break;
        default:
            common_option(&common, code);
            break;
        }
    }
    if (profile != NULL && strcmp(profile, "help") == 0)
        return profiles_print() ? 0 : NOT_INSPECTED;
    name = options_one_image();
    how = how_to_inspect(common.image.format, max_size);
    if (how == NULL)
        return NOT_INSPECTED;
    status = profile != NULL ? platter_inspect_for_profile(&report, name, profile, how,
                                                           open_flags(&common.image), &error)
                             : platter_inspect(&report, name, how, open_flags(&common.image), &error);
    if (status != PLATTER_OK)
        print_platter_error(error);
    platter_open_options_free(how);
    return report != NULL ? common_judge(report, common.json, false, NOT_INSPECTED) : NOT_INSPECTED;
}

const struct command command_inspect = {
    .name = "inspect",
    .summary = "Tell whether a file from elsewhere is safe to use as an image",
    .synopsis = "[-f FMT] [-U] [--profile PROFILE] [--max-virtual-size SIZE] [--untrusted]\n"
                "[--output human|json] FILE",
    .options = options,
    .operands = "FILE\n   the file; nothing else is opened, whatever it names\n\n"
                "Ends with 0 if every guard passes, 2 if one does not, 1 if FILE cannot be read.",
    .failure = NOT_INSPECTED,
    .run = run,
};
