/* Profiles: what products require of the images that they accept. */
#ifndef PROFILES_H
#define PROFILES_H

#include <stdbool.h>

/* Prints every profile with its options and sizes; returns false after printing an error. */
bool profiles_print(void);

#endif
