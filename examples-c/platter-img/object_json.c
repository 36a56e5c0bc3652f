/* The JSON form of an object: strings, numbers and booleans, and nested objects of these, whose keys are
 * prefixed with the key of the object and a dot. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "object_text.h"
#include "print.h"

struct reader {
    const char *at;
};

static void skip_blanks(struct reader *reader)
{
    reader->at += strspn(reader->at, " \t\r\n");
}

static bool syntax_error(const struct reader *reader)
{
    if (*reader->at == '\0')
        print_error("JSON parse error, premature EOI");
    else
        print_error("JSON parse error, a stray character");
    return false;
}

/* Appends a code point as UTF-8; it is never longer than the escape sequence was, so the buffer suffices. */
static size_t put_utf8(char *out, unsigned long point)
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (char)(0xc0 | (point >> 6));
        out[1] = (char)(0x80 | (point & 0x3f));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (char)(0xe0 | (point >> 12));
        out[1] = (char)(0x80 | ((point >> 6) & 0x3f));
        out[2] = (char)(0x80 | (point & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | (point >> 18));
    out[1] = (char)(0x80 | ((point >> 12) & 0x3f));
    out[2] = (char)(0x80 | ((point >> 6) & 0x3f));
    out[3] = (char)(0x80 | (point & 0x3f));
    return 4;
}

/* Reads the four hexadecimal digits after "\u". */
static bool read_hex(struct reader *reader, unsigned long *value)
{
    *value = 0;
    for (int i = 0; i < 4; i++, reader->at++) {
        static const char digits[] = "0123456789abcdef";
        const char lower = (char)(*reader->at | 0x20);
        const char *digit = *reader->at == '\0' ? NULL : strchr(digits, lower);

        if (digit == NULL)
            return false;
        *value = *value * 16 + (unsigned long)(digit - digits);
    }
    return true;
}

static bool read_unicode(struct reader *reader, char *out, size_t *length)
{
    unsigned long high = 0;
    unsigned long low = 0;

    if (!read_hex(reader, &high) || high == 0 || (high & 0xfc00) == 0xdc00)
        return false;
    if ((high & 0xfc00) == 0xd800) {
        if (strncmp(reader->at, "\\u", 2) != 0)
            return false;
        reader->at += 2;
        if (!read_hex(reader, &low) || (low & 0xfc00) != 0xdc00)
            return false;
        high = 0x10000 + ((high & 0x3ff) << 10) + (low & 0x3ff);
    }
    *length += put_utf8(out + *length, high);
    return true;
}

/* Reads a string in double or single quotes; returns NULL after printing an error. */
static char *read_string(struct reader *reader)
{
    const char quote = *reader->at;
    char *text = NULL;
    size_t length = 0;

    if (quote != '"' && quote != '\'') {
        syntax_error(reader);
        return NULL;
    }
    text = malloc(strlen(reader->at) + 1);
    if (text == NULL) {
        print_error("Out of memory");
        return NULL;
    }
    for (reader->at++; *reader->at != quote;) {
        static const char names[] = "\"'\\/bfnrt";
        static const char meanings[] = "\"'\\/\b\f\n\r\t";
        const char *name = NULL;

        if (*reader->at == '\0')
            goto wrong;
        if (*reader->at != '\\') {
            text[length++] = *reader->at++;
            continue;
        }
        reader->at++;
        if (*reader->at == 'u') {
            reader->at++;
            if (!read_unicode(reader, text, &length))
                goto wrong;
            continue;
        }
        name = *reader->at == '\0' ? NULL : strchr(names, *reader->at);
        if (name == NULL)
            goto wrong;
        text[length++] = meanings[name - names];
        reader->at++;
    }
    reader->at++;
    text[length] = '\0';
    return text;
wrong:
    text[length] = '\0';
    object_wipe_text(text);
    free(text);
    syntax_error(reader);
    return NULL;
}

/* Reads a value; `is_string` receives whether it was a string. Returns NULL after printing an error. */
static char *read_value(struct reader *reader, bool *is_string)
{
    const size_t length = strcspn(reader->at, ",} \t\r\n");
    char *text = NULL;

    *is_string = *reader->at == '"' || *reader->at == '\'';
    if (*is_string)
        return read_string(reader);
    if (length == 0 || strchr("{[", *reader->at) != NULL) {
        syntax_error(reader);
        return NULL;
    }
    text = malloc(length + 1);
    if (text == NULL) {
        print_error("Out of memory");
        return NULL;
    }
    memcpy(text, reader->at, length);
    text[length] = '\0';
    reader->at += length;
    return text;
}

/* Joins `outer` and `key` with a dot; takes ownership of `key`. Returns NULL after printing an error. */
static char *joined(const char *outer, char *key)
{
    const size_t length = strlen(outer) + 1 + strlen(key) + 1;
    char *name = malloc(length);

    if (name == NULL)
        print_error("Out of memory");
    else
        snprintf(name, length, "%s.%s", outer, key);
    object_wipe_text(key);
    free(key);
    return name;
}

static bool read_members(struct object *object, struct reader *reader, const char *outer);

/* Reads a member; its key is prefixed with `outer`, which is NULL for the outermost object. */
static bool read_member(struct object *object, struct reader *reader, const char *outer)
{
    char *key = read_string(reader);
    char *value = NULL;
    bool is_string = false;

    if (key != NULL && outer != NULL)
        key = joined(outer, key);
    if (key == NULL)
        return false;
    if (object_get(object, key) != NULL) {
        free(key);
        print_error("JSON parse error, duplicate key");
        return false;
    }
    skip_blanks(reader);
    if (*reader->at != ':') {
        free(key);
        return syntax_error(reader);
    }
    reader->at++;
    skip_blanks(reader);
    if (*reader->at == '{' && outer == NULL) {
        const bool read = read_members(object, reader, key);

        free(key);
        return read;
    }
    value = read_value(reader, &is_string);
    if (value == NULL) {
        free(key);
        return false;
    }
    if (!is_string && (strcmp(key, "id") == 0 || strcmp(key, "qom-type") == 0)) {
        print_error("Invalid parameter type for '%s', expected: string", key);
        free(key);
        object_wipe_text(value);
        free(value);
        return false;
    }
    return object_set(object, key, value);
}

/* Reads the members of an object, from its opening brace through the closing one. */
static bool read_members(struct object *object, struct reader *reader, const char *outer)
{
    reader->at++;
    skip_blanks(reader);
    if (*reader->at != '}') {
        for (;;) {
            if (!read_member(object, reader, outer))
                return false;
            skip_blanks(reader);
            if (*reader->at != ',')
                break;
            reader->at++;
            skip_blanks(reader);
        }
        if (*reader->at != '}')
            return syntax_error(reader);
    }
    reader->at++;
    return true;
}

bool object_parse_json(struct object *object, const char *text)
{
    struct reader reader = {text};

    if (!read_members(object, &reader, NULL))
        return false;
    skip_blanks(&reader);
    if (*reader.at != '\0') {
        print_error("Expecting at most one JSON value");
        return false;
    }
    return true;
}
