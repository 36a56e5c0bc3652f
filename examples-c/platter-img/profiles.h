/* What products want of the images that they take. */
#ifndef PROFILES_H
#define PROFILES_H

#include <stdbool.h>

/* Prints every profile with its options and sizes; false after a message. */
bool profiles_print(void);

#endif
