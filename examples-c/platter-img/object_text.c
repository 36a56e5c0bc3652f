#include "object_text.h"

#include <stdlib.h>
#include <string.h>

#include "print.h"

void object_wipe_text(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
}

/* Wipes and frees a text that may be a secret. */
static void free_text(char *text)
{
    object_wipe_text(text);
    free(text);
}

const char *object_get(const struct object *object, const char *key)
{
    for (const struct property *p = object->properties; p != NULL; p = p->next)
        if (strcmp(p->key, key) == 0)
            return p->value;
    return NULL;
}

bool object_set(struct object *object, char *key, char *value)
{
    struct property *p = NULL;

    if (key == NULL || value == NULL)
        goto no_memory;
    for (p = object->properties; p != NULL; p = p->next) {
        if (strcmp(p->key, key) == 0) {
            free(key);
            free_text(p->value);
            p->value = value;
            return true;
        }
    }
    p = malloc(sizeof *p);
    if (p == NULL)
        goto no_memory;
    p->key = key;
    p->value = value;
    p->next = object->properties;
    object->properties = p;
    return true;
no_memory:
    free(key);
    free_text(value);
    print_error("Out of memory");
    return false;
}

void object_free(struct object *object)
{
    struct property *p = object->properties;

    while (p != NULL) {
        struct property *next = p->next;

        free_text(p->key);
        free_text(p->value);
        free(p);
        p = next;
    }
    free(object);
}

static char *copy_of(const char *text, size_t length)
{
    char *copy = malloc(length + 1);

    if (copy != NULL) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

/* Copies up to the next single comma, where a doubled comma stands for one; advances `text` past it. */
static char *take_value(const char **text)
{
    const char *from = *text;
    char *value = malloc(strlen(from) + 1);
    size_t length = 0;

    if (value == NULL)
        return NULL;
    while (*from != '\0') {
        if (*from == ',') {
            from++;
            if (*from != ',')
                break;
        }
        value[length++] = *from++;
    }
    value[length] = '\0';
    *text = from;
    return value;
}

bool object_is_secret_key(const char *text, size_t length)
{
    static const char *const keys[] = {"data", "file", "format", "id", "iv", "keyid", "qom-type"};

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strlen(keys[i]) == length && memcmp(keys[i], text, length) == 0)
            return true;
    return false;
}

static bool is_help(const char *text, size_t length)
{
    return (length == 4 && memcmp(text, "help", 4) == 0) || (length == 1 && *text == '?');
}

static bool parse_list(struct object *object, const char *text)
{
    for (bool first = true; *text != '\0'; first = false) {
        size_t length = strcspn(text, "=,");
        char *key = NULL;

        if (text[length] != '=') {
            if (is_help(text, length)) {
                object->help = true;
                text += text[length] == ',' ? length + 1 : length;
                continue;
            }
            if (first && length > 0) {
                if (!object_set(object, copy_of("qom-type", 8), take_value(&text)))
                    return false;
                continue;
            }
        }
        if (length == 0) {
            print_error("Invalid parameter ''");
            return false;
        }
        if (text[length] != '=') {
            if (object_is_secret_key(text, length))
                print_error("Expected '=' after parameter '%.*s'", (int)length, text);
            else
                print_error("Expected '=' after a parameter");
            return false;
        }
        key = copy_of(text, length);
        text += length + 1;
        if (!object_set(object, key, take_value(&text)))
            return false;
    }
    return true;
}

struct object *object_parse(const char *text)
{
    struct object *object = calloc(1, sizeof *object);
    bool read = false;

    if (object == NULL) {
        print_error("Out of memory");
        return NULL;
    }
    read = *text == '{' ? object_parse_json(object, text) : parse_list(object, text);
    if (!read) {
        object_free(object);
        return NULL;
    }
    return object;
}
