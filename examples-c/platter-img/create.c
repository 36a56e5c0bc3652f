#include <stdio.h>

#include "commands.h"
#include "creation.h"
#include "jobs.h"
#include "objects.h"
#include "open.h"
#include "print.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    {'q', "quiet", NULL, "print nothing but errors"},
    {'f', "format", "FMT", "the format of the new image (raw)"},
    OPTION_OBJECT,
    {'o', "options", "FMT_OPTS",
     "options of the new image, as KEY=VALUE,...; may be given several times\n"
     "('-o help' lists them)"},
    {'b', "backing", "BACKING_IMAGE",
     "show the content of BACKING_IMAGE, and record only what is changed"},
    {'F', "backing-format", "BACKING_FMT", "the format of BACKING_IMAGE"},
    {'u', "backing-unsafe", NULL, "do not open BACKING_IMAGE"},
    OPTION_UNTRUSTED,
    OPTION_END,
};

/* The parsed command line. */
struct request {
    const char *format;
    const char *backing;
    const char *backing_format;
    bool backing_unsafe;
    bool quiet;
    bool size_given;
    uint64_t size;
    platter_options *options;
};

/* Sets everything but the name and the format; returns false with `*error` set. */
static bool describe(platter_create *create, const struct request *request,
                     const platter_policy *policy, platter_error **error)
{
    if (request->size_given &&
        platter_create_set_size(create, request->size, 0, error) != PLATTER_OK)
        return false;
    return platter_create_set_options(create, request->options, 0, error) == PLATTER_OK &&
           platter_create_set_secrets(create, objects_secrets(), 0, error) == PLATTER_OK &&
           platter_create_set_policy(create, policy, 0, error) == PLATTER_OK &&
           platter_create_set_backing(create, request->backing, request->backing_format,
                                      PLATTER_NAME_UNCHECKED |
                                         (request->backing_unsafe ? PLATTER_BACKING_UNSAFE : 0),
                                      error) == PLATTER_OK;
}

static int create_image(const char *name, const struct request *request)
{
    static const struct job_display display = {.output_optional = true};
    platter_create *create = NULL;
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;
    platter_policy *policy = open_policy();

    if (policy == NULL)
        return 1;
    if (platter_create_new(&create, name, request->format, PLATTER_NAME_UNCHECKED, &error) == PLATTER_OK &&
        describe(create, request, policy, &error) &&
        platter_create_job_new(&job, create, 0, &error) == PLATTER_OK) {
        if (!request->quiet) {
            puts(platter_job_summary(job));
            print_flush();
        }
        report = jobs_run(job, &display, &error);
    }
    if (report == NULL)
        print_platter_error(error);
    platter_create_free(create);
    platter_policy_free(policy);
    platter_report_free(report);
    return report != NULL ? 0 : 1;
}

/* Parses the options; returns false after printing an error. */
static bool parse(struct request *request)
{
    for (int option; (option = options_next()) != -1;) {
        switch (option) {
        case 'f':
            request->format = options_argument();
            break;
        case 'b':
            request->backing = options_argument();
            break;
        case 'F':
            request->backing_format = options_argument();
            break;
        case 'o':
            if (!creation_add(request->options, options_argument()))
                return false;
            break;
        case 'u':
            request->backing_unsafe = true;
            break;
        case 'q':
            request->quiet = true;
            break;
        }
    }
    return true;
}

/* Creates the image given by the operands IMAGE and SIZE. */
static int create_operands(struct request *request)
{
    const int count = options_operand_count();
    char **operands = options_operands();

    if (creation_help_asked())
        return creation_print_help(request->format, count > 0 ? operands[0] : NULL) ? 0 : 1;
    if (count == 0) {
        print_usage_error("Expecting image file name");
        return 1;
    }
    if (count > 1) {
        request->size = options_size(operands[1], "image size");
        request->size_given = true;
    }
    if (count > 2) {
        print_usage_error("Unexpected argument: %s", operands[2]);
        return 1;
    }
    return create_image(operands[0], request);
}

static int run(void)
{
    struct request request = {.format = "raw"};
    int code = 1;

    request.options = creation_options();
    if (request.options != NULL && parse(&request))
        code = create_operands(&request);
    platter_options_free(request.options);
    return code;
}

const struct command command_create = {
    .name = "create",
    .summary = "Make a new image",
    .synopsis = "[-f FMT] [-o FMT_OPTS] [-b BACKING_IMAGE [-F BACKING_FMT]] [-u]\n"
                "[-q] [--object OBJDEF] [--untrusted] IMAGE [SIZE]",
    .options = options,
    .operands = "IMAGE\n   the name of the new image; what is there already is replaced\n"
                "SIZE\n   its size, with a suffix b k M G T P E (powers of 1024);\n"
                "   may be left out with a backing image, whose size it takes then",
    .failure = 1,
    .run = run,
};
