#include "options.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "objects.h"
#include "print.h"

/* Enough for the longest table; if a table is longer, every run of its command fails. */
enum { MAX_ENTRIES = 48 };

static const struct command *current;
static int argument_count;
static char **arguments;
static char short_options[2 * MAX_ENTRIES + 2];
static struct option long_options[MAX_ENTRIES + 1];
static bool untrusted;

/* Whether an option that qemu-img does not have is given in full. It is registered only then: otherwise
 * it would make abbreviations ambiguous that qemu-img accepts. */
static bool is_given_in_full(const char *name)
{
    const size_t length = strlen(name);

    for (int i = 1; i < argument_count; i++) {
        const char *word = arguments[i];

        if (strncmp(word, "--", 2) == 0 && strncmp(word + 2, name, length) == 0 &&
            (word[2 + length] == '\0' || word[2 + length] == '='))
            return true;
    }
    return false;
}

/* The constant for getopt; an optional argument is in brackets, together with its '='. */
static int argument_kind(const char *argument)
{
    if (argument == NULL)
        return no_argument;
    return *argument == '[' ? optional_argument : required_argument;
}

static void build_tables(const struct option_entry *entries)
{
    size_t letters = 0;
    size_t longs = 0;

    if (current->in_order)
        short_options[letters++] = '-';
    for (size_t i = 0; entries[i].code != 0; i++) {
        const struct option_entry *entry = &entries[i];

        if (i >= MAX_ENTRIES) {
            print_error("too many options in the table of a command");
            exit(1);
        }
        if (entry->code < OPT_OBJECT && strchr(short_options, entry->code) == NULL) {
            short_options[letters++] = (char)entry->code;
            if (entry->argument != NULL)
                short_options[letters++] = ':';
        }
        if (entry->name != NULL && (entry->code < OPT_OWN || is_given_in_full(entry->name))) {
            long_options[longs].name = entry->name;
            long_options[longs].has_arg = argument_kind(entry->argument);
            long_options[longs].val = entry->code;
            longs++;
        }
    }
}

void options_begin(const struct command *command, int argc, char **argv)
{
    size_t length = strlen(print_invoked()) + strlen(command->name) + 2;
    char *name = malloc(length);

    if (name == NULL) {
        print_error("Out of memory");
        print_exit(1, 1);
    }
    /* getopt's messages begin with argv[0]. */
    snprintf(name, length, *command->name != '\0' ? "%s %s" : "%s", print_invoked(), command->name);
    argv[0] = name;
    current = command;
    argument_count = argc;
    arguments = argv;
    build_tables(command->options);
    optind = 0; /* restart parsing after the options before the command */
}

int options_next(void)
{
    for (;;) {
        int code = getopt_long(argument_count, arguments, short_options, long_options, NULL);

        switch (code) {
        case 'h':
            options_print_help(current);
            print_exit(0, 1);
        case '?':
            print_try_help();
            print_exit(1, 1);
        case OPT_OBJECT:
            switch (objects_add(optarg)) {
            case OBJECTS_KEPT:
                break;
            case OBJECTS_LISTED:
                print_exit(0, 1);
            case OBJECTS_REFUSED:
                print_exit(current->failure, current->failure);
            }
            break;
        case OPT_UNTRUSTED:
            untrusted = true;
            break;
        default:
            return code;
        }
    }
}

const char *options_argument(void)
{
    return optarg;
}

const char *options_peek(void)
{
    return optind < argument_count ? arguments[optind] : NULL;
}

const char *options_skip(void)
{
    return optind < argument_count ? arguments[optind++] : NULL;
}

int options_operand_count(void)
{
    return argument_count - optind;
}

char **options_operands(void)
{
    return arguments + optind;
}

bool options_untrusted(void)
{
    return untrusted;
}

bool options_output_is_json(const char *text)
{
    if (strcmp(text, "json") == 0)
        return true;
    if (strcmp(text, "human") == 0)
        return false;
    print_usage_error("--output expects 'human' or 'json' not '%s'", text);
    print_exit(1, 1);
}

const char *options_one_image(void)
{
    if (options_operand_count() != 1) {
        print_usage_error("Expecting one image file name");
        print_exit(1, 1);
    }
    return options_operands()[0];
}

bool options_conflict_with_format(bool image_opts, const char *format)
{
    if (!image_opts || format == NULL)
        return false;
    print_error("--image-opts and --format are mutually exclusive");
    return true;
}

uint64_t options_size(const char *text, const char *what)
{
    uint64_t bytes = 0;

    switch (platter_size_parse(&bytes, text, 0, NULL)) {
    case PLATTER_OK:
        if (bytes <= INT64_MAX)
            return bytes;
        break;
    case PLATTER_STATUS_LIMIT:
        break;
    default:
        print_error("Invalid %s specified: '%s'.", what, text);
        print_exit(1, 1);
    }
    print_error("Invalid %s specified. Must be between 0 and %" PRId64 ".", what, INT64_MAX);
    print_exit(1, 1);
}

/* Prints `text` with each line preceded by `indent`. */
static void print_lines(const char *indent, const char *text)
{
    while (*text != '\0') {
        size_t length = strcspn(text, "\n");

        printf("%s%.*s\n", indent, (int)length, text);
        text += length;
        if (*text == '\n')
            text++;
    }
}

static void print_entry(const struct option_entry *entry)
{
    if (entry->code < OPT_OBJECT && entry->name != NULL)
        printf("  -%c, --%s", entry->code, entry->name);
    else if (entry->name != NULL)
        printf("  --%s", entry->name);
    else
        printf("  -%c", entry->code);
    if (entry->argument != NULL)
        printf("%s%s", *entry->argument == '[' ? "" : " ", entry->argument);
    putchar('\n');
    print_lines("     ", entry->help);
}

void options_print_help(const struct command *command)
{
    printf("%s.  Usage:\n\n  %s %s%s", command->summary, print_program(), command->name,
           *command->name != '\0' ? " " : "");
    for (const char *c = command->synopsis; *c != '\0'; c++) {
        putchar(*c);
        if (*c == '\n')
            fputs("        ", stdout);
    }
    fputs("\n\nArguments:\n", stdout);
    for (const struct option_entry *entry = command->options; entry->code != 0; entry++)
        if (entry->help != NULL)
            print_entry(entry);
    print_lines("  ", command->operands);
    putchar('\n');
}
