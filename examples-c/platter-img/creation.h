/* -o: the options of a new image, and the help on them. */
#ifndef CREATION_H
#define CREATION_H

#include <platter.h>
#include <stdbool.h>

/* An empty bag; NULL after a message. */
platter_options *creation_options(void);
/* Adds the list of one -o; false after a message. */
bool creation_add(platter_options *options, const char *list);
/* Whether one of the lists asked for help. */
bool creation_help_asked(void);
/* Prints the options of `format`, and of where `target` lies if it is not NULL; false after a message. */
bool creation_print_help(const char *format, const char *target);

#endif
