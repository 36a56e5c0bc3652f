#include "objects.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "object_text.h"
#include "print.h"

/* The objects defined so far. */
static struct object *objects;

/* The types that may be defined; all but secret have no effect on any option of this tool yet. */
static const char *const types[] = {
    "authz-list",     "authz-list-file", "authz-simple",   "main-loop",
    "pr-manager-helper", "secret",       "secret_keyring", "thread-context",
    "throttle-group", "tls-creds-anon",  "tls-creds-psk",  "tls-creds-x509",
};
enum { TYPE_COUNT = sizeof types / sizeof types[0] };

static const char *const secret_keys[] = {"data", "file", "format", "iv", "keyid"};
enum { SECRET_KEY_COUNT = sizeof secret_keys / sizeof secret_keys[0] };

static bool is_one_of(const char *text, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(text, list[i]) == 0)
            return true;
    return false;
}

static bool is_identifier(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    static const char others[] = "0123456789-._";

    if (*text == '\0' || strchr(letters, *text) == NULL)
        return false;
    for (; *text != '\0'; text++)
        if (strchr(letters, *text) == NULL && strchr(others, *text) == NULL)
            return false;
    return true;
}

static void list(const char *type)
{
    if (type != NULL && strcmp(type, "secret") == 0) {
        puts("secret options:");
        puts("  data=<string>");
        puts("  file=<string>");
        puts("  format=<raw|base64>");
        puts("  iv=<string>");
        puts("  keyid=<string>");
        return;
    }
    puts("List of user creatable objects:");
    for (size_t i = 0; i < TYPE_COUNT; i++)
        printf("  %s\n", types[i]);
}

static bool secret_is_valid(const struct object *object)
{
    const char *file = object_get(object, "file");
    const char *data = object_get(object, "data");
    const char *format = object_get(object, "format");

    if (format != NULL && strcmp(format, "raw") != 0 && strcmp(format, "base64") != 0) {
        print_error("Parameter 'format' does not accept value '%s'", format);
        return false;
    }
    for (const struct property *p = object->properties; p != NULL; p = p->next) {
        if (strcmp(p->key, "qom-type") == 0 || strcmp(p->key, "id") == 0)
            continue;
        if (!is_one_of(p->key, secret_keys, SECRET_KEY_COUNT)) {
            print_error("Parameter '%s' is unexpected", p->key);
            return false;
        }
    }
    if (file == NULL && data == NULL) {
        print_error("Either 'file' or 'data' must be provided");
        return false;
    }
    if (file != NULL && data != NULL) {
        print_error("'file' and 'data' are mutually exclusive");
        return false;
    }
    if (file != NULL) {
        FILE *stream = fopen(file, "rb");

        if (stream == NULL) {
            print_error("Unable to read %s: Failed to open file \xe2\x80\x9c%s\xe2\x80\x9d: %s", file,
                        file, strerror(errno));
            return false;
        }
        fclose(stream);
    }
    return true;
}

static bool is_valid(const struct object *object)
{
    const char *type = object_get(object, "qom-type");
    const char *id = object_get(object, "id");

    if (type == NULL) {
        print_error("Parameter 'qom-type' is missing");
        return false;
    }
    if (!is_one_of(type, types, TYPE_COUNT)) {
        print_error("Parameter 'qom-type' does not accept value '%s'", type);
        return false;
    }
    if (id == NULL) {
        print_error("Parameter 'id' is missing");
        return false;
    }
    if (!is_identifier(id)) {
        print_error("Parameter 'id' expects an identifier");
        fputs("Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.\n",
              stderr);
        return false;
    }
    if (strcmp(type, "secret") == 0 && !secret_is_valid(object))
        return false;
    for (const struct object *other = objects; other != NULL; other = other->next) {
        if (strcmp(object_get(other, "id"), id) == 0) {
            print_error("attempt to add duplicate property '%s' to object (type 'container')", id);
            return false;
        }
    }
    return true;
}

enum objects_outcome objects_add(const char *definition)
{
    struct object *object = object_parse(definition);

    if (object == NULL)
        return OBJECTS_REFUSED;
    if (object->help) {
        list(object_get(object, "qom-type"));
        object_free(object);
        return OBJECTS_LISTED;
    }
    if (!is_valid(object)) {
        object_free(object);
        return OBJECTS_REFUSED;
    }
    object->next = objects;
    objects = object;
    return OBJECTS_KEPT;
}
