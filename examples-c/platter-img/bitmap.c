#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "common.h"
#include "open.h"
#include "print.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    {OPT_ADD, "add", NULL, "make BITMAP, which records what is written from then on"},
    {'g', "granularity", "SIZE", "guest bytes of a bit of the bitmap that --add makes"},
    {OPT_REMOVE, "remove", NULL, "remove BITMAP"},
    {OPT_CLEAR, "clear", NULL, "mark all of BITMAP as clean"},
    {OPT_ENABLE, "enable", NULL, "let BITMAP record what is written from then on"},
    {OPT_DISABLE, "disable", NULL, "let BITMAP record no more"},
    {OPT_MERGE, "merge", "SOURCE", "add what the bitmap SOURCE has as dirty to BITMAP"},
    {'b', "source-file", "FILE", "take SOURCE from this image"},
    {'F', "source-format", "FMT", "the format of FILE; guessed if not given"},
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

/* One change to make; they are applied in the order given on the command line. */
struct action {
    int code;
    const char *source; /* of a merge, else unused */
};

struct request {
    struct common common;
    struct open_request source;
    const char *source_file;
    uint64_t granularity;
    bool adds;
    bool merges;
    struct action *actions;
    size_t count;
};

static bool push(struct request *request, int code, const char *source)
{
    struct action *more =
        realloc(request->actions, (request->count + 1) * sizeof *request->actions);

    if (more == NULL) {
        print_error("Out of memory");
        return false;
    }
    request->actions = more;
    more[request->count++] = (struct action){.code = code, .source = source};
    request->adds |= code == OPT_ADD;
    request->merges |= code == OPT_MERGE;
    return true;
}

static bool parse(struct request *request)
{
    for (int option; (option = options_next()) != -1;) {
        switch (option) {
        case 'b':
            request->source_file = options_argument();
            break;
        case 'F':
            request->source.format = options_argument();
            break;
        case 'g':
            request->granularity = options_size(options_argument(), "granularity");
            break;
        case OPT_MERGE:
            if (!push(request, option, options_argument()))
                return false;
            break;
        case OPT_ADD:
        case OPT_REMOVE:
        case OPT_CLEAR:
        case OPT_ENABLE:
        case OPT_DISABLE:
            if (!push(request, option, NULL))
                return false;
            break;
        default:
            common_option(&request->common, option);
            break;
        }
    }
    return true;
}

/* The message for options that conflict or are missing; NULL if there are none. */
static const char *broken_rule(const struct request *request)
{
    if (request->count == 0)
        return "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge";
    if (request->granularity != 0 && !request->adds)
        return "granularity only supported with --add";
    if (request->source.format != NULL && request->source_file == NULL)
        return "-F only supported with -b";
    if (request->source_file != NULL && !request->merges)
        return "Merge bitmap source file only supported with --merge";
    if (options_operand_count() != 2)
        return "Expecting filename and bitmap name";
    return NULL;
}

static bool change(platter_image *image, const char *bitmap, platter_image *source,
                   const struct request *request, const struct action *action)
{
    platter_error *error = NULL;
    int status = PLATTER_OK;

    switch (action->code) {
    case OPT_ADD:
        status = platter_bitmap_add(image, bitmap, request->granularity, 0, &error);
        break;
    case OPT_REMOVE:
        status = platter_bitmap_remove(image, bitmap, 0, &error);
        break;
    case OPT_CLEAR:
        status = platter_bitmap_clear(image, bitmap, 0, &error);
        break;
    case OPT_ENABLE:
        status = platter_bitmap_enable(image, bitmap, 0, &error);
        break;
    case OPT_DISABLE:
        status = platter_bitmap_disable(image, bitmap, 0, &error);
        break;
    case OPT_MERGE:
        status = platter_bitmap_merge(image, bitmap, source, action->source, 0, &error);
        break;
    }
    if (status != PLATTER_OK)
        print_platter_error(error);
    return status == PLATTER_OK;
}

static bool change_all(const struct request *request, char **names)
{
    platter_image *source = NULL;
    platter_image *image = open_image(names[0], &request->common.image,
                                      PLATTER_OPEN_WRITE | PLATTER_OPEN_NO_BACKING);
    bool done = image != NULL;

    if (done && request->source_file != NULL) {
        source = open_image(request->source_file, &request->source, PLATTER_OPEN_NO_BACKING);
        done = source != NULL;
    }
    for (size_t i = 0; done && i < request->count; i++)
        done = change(image, names[1], source, request, &request->actions[i]);
    if (source != NULL)
        done = open_close(source) && done;
    if (image != NULL)
        done = open_close(image) && done;
    return done;
}

static int run(void)
{
    struct request request = {0};
    const char *rule = NULL;
    bool done = false;

    if (parse(&request)) {
        rule = broken_rule(&request);
        if (rule != NULL)
            print_error("%s", rule);
        else if (common_image_is_valid(&request.common))
            done = change_all(&request, options_operands());
    }
    free(request.actions);
    return done ? 0 : 1;
}

const struct command command_bitmap = {
    .name = "bitmap",
    .summary = "Add, remove or change a persistent dirty bitmap of an image",
    .synopsis = "( --add | --remove | --clear | --enable | --disable | --merge SOURCE )...\n"
                "[-b FILE [-F FMT]] [-g SIZE] [-f FMT | --image-opts]\n"
                "[--object OBJDEF] [--untrusted] IMAGE BITMAP",
    .options = options,
    .operands = "IMAGE\n   the name of the image, or its description with --image-opts\n"
                "BITMAP\n   the name of the bitmap; the changes are made in the order given",
    .failure = 1,
    .run = run,
};
