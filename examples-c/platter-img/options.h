/* Command-line options: one table per command serves both getopt_long and the help. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* Codes of options without a short form. */
enum {
    OPT_OPERAND = 1, /* what options_next returns for an operand, in a command with `in_order` */
    OPT_OBJECT = 256,
    OPT_IMAGE_OPTS,
    OPT_TARGET_IMAGE_OPTS,
    OPT_TARGET_IS_ZERO,
    OPT_OUTPUT,
    OPT_BITMAPS,
    OPT_SKIP_BROKEN_BITMAPS,
    OPT_SALVAGE,
    OPT_SHRINK,
    OPT_FORCE,
    OPT_PREALLOCATION,
    OPT_MAX_SIZE,
    OPT_ADD,
    OPT_REMOVE,
    OPT_CLEAR,
    OPT_ENABLE,
    OPT_DISABLE,
    OPT_MERGE,
    OPT_UNTRUSTED,
    /* Options that qemu-img does not have, and that cannot be abbreviated; numbered after those specific to
     * a command. */
    OPT_OWN = 1024,
    OPT_CHAIN = OPT_OWN,
    OPT_PROFILE,
    OPT_COMPRESSION_LEVEL,
    OPT_DECOMPRESS,
    OPT_MAX_SPOOL,
    OPT_MAX_DECODER,
    OPT_CHECKSUM,
    OPT_LIST
};

/* One spelling of an option. Entries with the same code are aliases. */
struct option_entry {
    int code;             /* the letter, or one of OPT_* */
    const char *name;     /* the long name, or NULL */
    const char *argument; /* name of the argument in the help; NULL for none, [=ARG] if optional */
    const char *help;     /* lines separated by '\n'; NULL hides an alias from the help */
};

/* A command of the tool. */
struct command {
    const char *name;
    const char *summary;                 /* one line for the list of commands */
    const char *synopsis;                /* what may follow the command's name; lines separated by '\n' */
    const struct option_entry *options;  /* ends with a code of 0 */
    const char *operands;                /* help on the operands */
    bool in_order;                       /* options_next also returns the operands, in order */
    int failure;                         /* the exit status of errors other than in the syntax of options */
    int (*run)(void);                    /* returns the exit status */
};

/* Entries shared by all commands, and the end of a table. */
#define OPTION_HELP {'h', "help", NULL, "print this help and end"}
#define OPTION_UNTRUSTED                                                                         \
    {OPT_UNTRUSTED, "untrusted", NULL,                                                           \
     "open nothing that an image names, such as a backing or data file,\n"                       \
     "and guess no format of an image that is written to"}
#define OPTION_OBJECT                                                                            \
    {OPT_OBJECT, "object", "OBJDEF", "define an object, such as a secret, that options refer to"}
#define OPTION_END {0, NULL, NULL, NULL}

/* Starts parsing the arguments of `command`; only one command runs per process. */
void options_begin(const struct command *command, int argc, char **argv);

/* The code of the next option, or -1 after the last. Handles --help and --object itself; ends the process
 * after help, or after reporting a wrong option. */
int options_next(void);

/* The argument of the option that options_next returned; NULL if it was left out. */
const char *options_argument(void);

/* For a command with `in_order`: the argument that options_next will look at next, or NULL; the second
 * function also consumes it. */
const char *options_peek(void);
const char *options_skip(void);

/* The operands, once options_next has returned -1. */
int options_operand_count(void);
char **options_operands(void);

/* Whether --untrusted was given. */
bool options_untrusted(void);

/* For --output: true for json, false for human; anything else ends the process. */
bool options_output_is_json(const char *text);

/* The only operand; ends the process unless there is exactly one. */
const char *options_one_image(void);

/* Whether both were given, which is an error that it prints: a full description includes the format. */
bool options_conflict_with_format(bool image_opts, const char *format);

/* Parses a size in bytes; if it is invalid, prints an error that calls it `what` and ends the process. */
uint64_t options_size(const char *text, const char *what);

/* Prints the help of `command`. */
void options_print_help(const struct command *command);

#endif
