/* platter-img: creates, inspects, converts, compares and checks disk images. A drop-in for qemu-img. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "descriptors.h"
#include "print.h"
#include "serving.h"
#include "signals.h"
#include "trace.h"

/* The version of qemu-img whose options, output and exit codes this tool follows. */
#define COMPATIBLE_VERSION "10.0.2"

static const struct command *const commands[] = {
    &command_amend,
    &command_bench,
    &command_bitmap,
    &command_check,
    &command_commit,
    &command_compare,
    &command_convert,
    &command_create,
    &command_dd,
    &command_info,
    &command_inspect,
    &command_map,
    &command_measure,
    &command_rebase,
    &command_resize,
    &command_serve,
    &command_snapshot,
};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static void print_version(void)
{
    const char *version = platter_version_string();

    /* Scripts parse the number after "qemu-img version" to detect features. */
    if (strcmp(print_program(), "qemu-img") == 0)
        printf("qemu-img version " COMPATIBLE_VERSION " (Platter %s)\n", version);
    else
        printf("%s version %s (compatible with qemu-img " COMPATIBLE_VERSION ")\n", print_program(),
               version);
}

/* Prints the names of the formats and protocols, in lines of at most 78 columns. */
static void print_formats(void)
{
    const platter_driver_info *driver = NULL;
    int column = 0;

    for (size_t i = 0; platter_driver_describe(&driver, i, 0, NULL) == PLATTER_OK; i++) {
        const int length = (int)strlen(driver->name);

        if (column > 0 && column + 1 + length > 78) {
            putchar('\n');
            column = 0;
        }
        column += printf(column == 0 ? "  %s" : " %s", driver->name);
    }
    putchar('\n');
}

static void print_help(void)
{
    print_version();
    printf("Disk image utility.  Usage:\n\n"
           "  %s [standard options] COMMAND [--help | command options]\n\n"
           "Standard options:\n"
           "  -h, --help\n"
           "     print this help and end\n"
           "  -V, --version\n"
           "     print the version and end\n"
           "  -T,--trace TRACE\n"
           "     [[enable=]<pattern>][,events=<file>][,file=<file>]\n"
           "     write events of the library to stderr or a file; \"help\" lists them\n\n"
           "Commands (COMMAND --help tells more about each):\n\n",
           print_program());
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        printf("  %s - %s\n", commands[i]->name, commands[i]->summary);
    fputs("\nSupported image formats:\n\n", stdout);
    print_formats();
}

/* Handles the options before the command; returns the index of the command. */
static int standard_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {"trace", required_argument, NULL, 'T'},
        {NULL, 0, NULL, 0},
    };

    for (;;) {
        switch (getopt_long(argc, argv, "+hVT:", options, NULL)) {
        case -1:
            return optind;
        case 'h':
            print_help();
            print_exit(0, 1);
        case 'V':
            print_version();
            print_exit(0, 1);
        case 'T':
            switch (trace_accept(optarg)) {
            case TRACE_ACCEPTED:
                break;
            case TRACE_LISTED:
                print_exit(0, 1);
            case TRACE_REFUSED:
                print_exit(1, 1);
            }
            break;
        default:
            print_try_help();
            print_exit(1, 1);
        }
    }
}

int main(int argc, char **argv)
{
    int at = 0;

    descriptors_fill();
    print_start();
    signals_start();
    if (argc > 0)
        print_set_program(argv[0]);
    if (strcmp(print_program(), "qemu-nbd") == 0 || strcmp(print_program(), "platter-nbd") == 0)
        print_exit(nbd_main(argc, argv), 1);
    at = standard_options(argc, argv);
    if (at >= argc) {
        print_usage_error("Not enough arguments");
        return 1;
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        const struct command *command = commands[i];

        if (strcmp(argv[at], command->name) != 0)
            continue;
        print_set_command(command->name);
        options_begin(command, argc - at, argv + at);
        print_exit(command->run(), command->failure);
    }
    print_usage_error("Command not found: %s", argv[at]);
    return 1;
}
