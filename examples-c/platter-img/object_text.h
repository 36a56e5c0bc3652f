/* The two ways to write an object: "TYPE,key=value" and a flat JSON object. */
#ifndef OBJECT_TEXT_H
#define OBJECT_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* One key of an object. */
struct property {
    char *key;
    char *value;
    struct property *next;
};

/* A definition as it was written; the type is under "qom-type". */
struct object {
    bool anonymous; /* TLS credentials that prove nothing */
    struct property *properties;
    bool help; /* it asks for help and defines nothing */
    struct object *next;
};

/* Reads a definition; NULL after a message. */
struct object *object_parse(const char *text);
/* Reads the JSON form into `object`; false after a message. */
bool object_parse_json(struct object *object, const char *text);
/* The value of `key`, or NULL. */
const char *object_get(const struct object *object, const char *key);
/* Sets `key`, in place of an earlier value; takes both strings. False without memory. */
bool object_set(struct object *object, char *key, char *value);
/* Frees an object; its texts are wiped first. */
void object_free(struct object *object);
/* Wipes a text that may be a secret; NULL does nothing. */
void object_wipe_text(char *text);
/* Whether a secret has such a property. Whatever else is no key may be part of a secret, and is not shown. */
bool object_is_secret_key(const char *text, size_t length);

#endif
