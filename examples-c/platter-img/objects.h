/* --object: definitions of objects that options refer to by their id. */
#ifndef OBJECTS_H
#define OBJECTS_H

#include <platter.h>
#include <stdbool.h>

enum objects_outcome { OBJECTS_KEPT, OBJECTS_LISTED, OBJECTS_REFUSED };

/* Reads one definition, "TYPE,id=ID,key=value" or a JSON object, and keeps it; "help" lists the types.
 * A refusal was reported already. The definition is wiped: it stands among the arguments of the process,
 * where others can read it. */
enum objects_outcome objects_add(char *definition);

/* The secrets defined so far; NULL if there are none. */
const platter_secrets *objects_secrets(void);

/* Whether the object of that id is TLS credentials that prove nothing. */
bool objects_are_anonymous(const char *id);

#endif
