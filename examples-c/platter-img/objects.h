/* --object: definitions of objects that options refer to by ID. */
#ifndef OBJECTS_H
#define OBJECTS_H

#include <platter.h>
#include <stdbool.h>

enum objects_outcome { OBJECTS_KEPT, OBJECTS_LISTED, OBJECTS_REFUSED };

/* Parses one definition, "TYPE,id=ID,key=value" or a JSON object, and stores it; "help" lists the types.
 * Prints the error if it is rejected. The definition is wiped, because other users can read the arguments
 * of the process. */
enum objects_outcome objects_add(char *definition);

/* The secrets defined so far; NULL if there are none. */
const platter_secrets *objects_secrets(void);

/* Whether the object with that ID is anonymous TLS credentials. */
bool objects_are_anonymous(const char *id);

#endif
