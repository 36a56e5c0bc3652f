#include <inttypes.h>
#include <stdio.h>

#include "commands.h"
#include "common.h"
#include "jobs.h"
#include "open.h"
#include "print.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    {'s', "start-offset", "OFFSET", "begin at this guest offset"},
    {'l', "max-length", "LENGTH", "report no more than this many guest bytes"},
    OPTION_OUTPUT,
    OPTION_FORCE_SHARE,
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

/* State for printing the runs one by one, since there may be any number of them. */
struct map_printer {
    bool json;
    bool begun;
    /* Why printing stopped early; NULL if it did not, or because writing to stdout failed. */
    const char *failure;
};

static const char *truth(uint32_t flags, uint32_t flag)
{
    return (flags & flag) != 0 ? "true" : "false";
}

static void print_json(const platter_extent *extent)
{
    printf("{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %" PRIu32 ", ",
           extent->offset, extent->length, extent->depth);
    printf("\"present\": %s, \"zero\": %s, \"data\": %s, \"compressed\": %s",
           truth(extent->flags, PLATTER_EXTENT_PRESENT), truth(extent->flags, PLATTER_EXTENT_ZERO),
           truth(extent->flags, PLATTER_EXTENT_DATA),
           truth(extent->flags, PLATTER_EXTENT_COMPRESSED));
    if (extent->flags & PLATTER_EXTENT_HOST_OFFSET)
        printf(", \"offset\": %" PRIu64, extent->host_offset);
    putchar('}');
}

/* Prints a number in its column, with 0x unless it is 0. */
static void print_column(uint64_t number)
{
    printf("%#-16" PRIx64, number);
}

static int print_extent(const platter_extent *extent, const char *filename, void *user_data)
{
    struct map_printer *printer = user_data;
    const uint32_t plain = extent->flags & (PLATTER_EXTENT_DATA | PLATTER_EXTENT_ZERO);

    if (printer->json) {
        if (printer->begun)
            fputs(",\n", stdout);
        printer->begun = true;
        print_json(extent);
    } else if (plain == PLATTER_EXTENT_DATA) {
        if (!(extent->flags & PLATTER_EXTENT_HOST_OFFSET)) {
            printer->failure = "File contains external, encrypted or compressed clusters.";
            return -1;
        }
        print_column(extent->offset);
        print_column(extent->length);
        print_column(extent->host_offset);
        puts(filename != NULL ? filename : "");
    }
    return print_failed() ? -1 : 0;
}

static bool print_map(platter_image *image, uint64_t start, uint64_t length, bool json)
{
    static const struct job_display display = {0};
    struct map_printer printer = {.json = json};
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;

    if (json)
        putchar('[');
    else
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    if (platter_map_each_job_new(&job, image, start, length, print_extent, &printer, NULL, 0,
                                 &error) == PLATTER_OK)
        report = jobs_run(job, &display, &error);
    platter_report_free(report);
    if (report != NULL) {
        if (json)
            puts("]");
        return true;
    }
    if (printer.failure != NULL || print_failed()) {
        /* The library only knows that the callback stopped it. */
        platter_error_free(error);
        if (printer.failure != NULL)
            print_error("%s", printer.failure);
        return false;
    }
    print_platter_error(error);
    return false;
}

static int run(void)
{
    struct common common = {0};
    bool printed = false;
    uint64_t start = 0;
    uint64_t length = PLATTER_LENGTH_ALL;
    const char *name = NULL;
    platter_image *image = NULL;

    for (int code; (code = options_next()) != -1;) {
        switch (code) {
        case 's':
            start = options_size(options_argument(), "start offset");
            break;
        case 'l':
            length = options_size(options_argument(), "max length");
            break;
        default:
            common_option(&common, code);
            break;
        }
    }
    name = options_one_image();
    if (!common_image_is_valid(&common))
        return 1;
    image = open_image(name, &common.image, 0);
    if (image == NULL)
        return 1;
    printed = print_map(image, start, length, common.json);
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
