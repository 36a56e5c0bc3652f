/* -o: the options of a new image, and help on them. */
#ifndef CREATION_H
#define CREATION_H

#include <platter.h>
#include <stdbool.h>

/* Creates an empty set of options; returns NULL after printing an error. */
platter_options *creation_options(void);
/* Adds the list given with one -o; returns false after printing an error. */
bool creation_add(platter_options *options, const char *list);
/* Whether one of the lists asked for help. */
bool creation_help_asked(void);
/* Prints the options of `format` and, unless it is NULL, of `target`'s protocol; returns false after an error. */
bool creation_print_help(const char *format, const char *target);

#endif
