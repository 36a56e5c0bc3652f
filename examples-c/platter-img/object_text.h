/* The two ways to write an object: "TYPE,key=value" and a flat JSON object. */
#ifndef OBJECT_TEXT_H
#define OBJECT_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* One property of an object. */
struct property {
    char *key;
    char *value;
    struct property *next;
};

/* A definition as it was given; the type is stored under "qom-type". */
struct object {
    bool anonymous; /* anonymous TLS credentials */
    struct property *properties;
    bool help; /* asks for help and defines nothing */
    struct object *next;
};

/* Parses a definition; returns NULL after printing an error. */
struct object *object_parse(const char *text);
/* Parses the JSON form into `object`; returns false after printing an error. */
bool object_parse_json(struct object *object, const char *text);
/* The value of `key`, or NULL. */
const char *object_get(const struct object *object, const char *key);
/* Sets `key`, replacing an earlier value; takes ownership of both strings. Returns false if out of memory. */
bool object_set(struct object *object, char *key, char *value);
/* Frees an object after wiping its strings. */
void object_free(struct object *object);
/* Wipes a string that may be a secret; does nothing for NULL. */
void object_wipe_text(char *text);
/* Whether a secret has such a property. Any other text may be part of a secret and must not be shown. */
bool object_is_secret_key(const char *text, size_t length);

#endif
