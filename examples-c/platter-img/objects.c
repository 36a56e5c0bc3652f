#include "objects.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "object_text.h"
#include "print.h"

/* The objects defined so far. */
static struct object *objects;
/* Those that options refer to, such as secrets; NULL if there are none. */
static platter_secrets *secrets;

/* The types that may be defined. */
static const char *const types[] = {
    "authz-list",     "authz-list-file", "authz-simple",   "main-loop",
    "pr-manager-helper", "secret",       "secret_keyring", "thread-context",
    "throttle-group", "tls-creds-anon",  "tls-creds-psk",  "tls-creds-x509",
};
enum { TYPE_COUNT = sizeof types / sizeof types[0] };

static bool is_one_of(const char *text, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(text, list[i]) == 0)
            return true;
    return false;
}

/* How an object of this type is added to the library, and its help text. */
struct kind {
    const char *type;
    int (*add)(platter_secrets *, const char *, const char *const *, uint32_t, platter_error **);
    const char *needs; /* a required property, or NULL */
    const char *properties;
};

/* The types that options refer to; the others have no effect on any option of this tool. */
static const struct kind kinds[] = {
    {"authz-list", platter_secrets_add_authorization, NULL,
     "  policy=<QAuthZListPolicy>\n  rules=<QAuthZListRule>\n"},
    {"authz-simple", platter_secrets_add_authorization, "identity", "  identity=<string>\n"},
    {"secret", platter_secrets_define, NULL,
     "  data=<string>\n  file=<string>\n  format=<QCryptoSecretFormat>\n  iv=<string>\n  keyid=<string>\n"},
    {"throttle-group", platter_secrets_add_throttle_group, NULL, NULL},
    {"tls-creds-psk", platter_secrets_add_tls_psk, NULL,
     "  dir=<string>\n  endpoint=<QCryptoTLSCredsEndpoint>\n  priority=<string>\n"
     "  username=<string>\n  verify-peer=<bool>\n"},
    {"tls-creds-x509", platter_secrets_add_tls_x509, NULL,
     "  dir=<string>\n  endpoint=<QCryptoTLSCredsEndpoint>\n  passwordid=<string>\n"
     "  priority=<string>\n  sanity-check=<bool>\n  verify-peer=<bool>\n"},
};

/* The entry of `kinds` for a type, or NULL. */
static const struct kind *kind_of(const char *type)
{
    for (size_t i = 0; type != NULL && i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(kinds[i].type, type) == 0)
            return &kinds[i];
    return NULL;
}

static bool is_secret(const struct object *object)
{
    return strcmp(object_get(object, "qom-type"), "secret") == 0;
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
    const struct kind *kind = kind_of(type);

    if (kind != NULL && kind->properties != NULL) {
        printf("%s options:\n%s", type, kind->properties);
        return;
    }
    if (type != NULL && strcmp(type, "throttle-group") == 0) {
        static const char *const limits[] = {"bps-read",  "bps-total",  "bps-write",
                                             "iops-read", "iops-total", "iops-write"};

        puts("throttle-group options:");
        puts("  limits=<ThrottleLimits>");
        for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
            /* In alphabetical order. */
            if (i == 4)
                puts("  x-iops-size=<int>");
            printf("  x-%s-max-length=<int>\n", limits[i]);
            printf("  x-%s-max=<int>\n", limits[i]);
            printf("  x-%s=<int>\n", limits[i]);
        }
        return;
    }
    puts("List of user creatable objects:");
    for (size_t i = 0; i < TYPE_COUNT; i++)
        printf("  %s\n", types[i]);
}

/* The library wipes the secrets when it frees them. */
static void forget_secrets(void)
{
    platter_secrets_free(secrets);
    secrets = NULL;
}

/* Creates the set of secrets, which is freed when the process exits. */
static bool have_secrets(platter_error **error)
{
    return secrets != NULL ||
           (atexit(forget_secrets) == 0 && platter_secrets_new(&secrets, 0, error) == PLATTER_OK);
}

/* Adds an object to the library's secrets; returns false after printing an error. */
static bool keep(const struct object *object, const struct kind *kind)
{
    const char *id = object_get(object, "id");
    platter_error *error = NULL;
    const char **properties = NULL;
    size_t count = 0;
    bool kept = false;

    for (const struct property *p = object->properties; p != NULL; p = p->next)
        count++;
    properties = calloc(2 * count + 1, sizeof *properties);
    if (properties == NULL) {
        print_error("Out of memory");
        return false;
    }
    count = 0;
    for (const struct property *p = object->properties; p != NULL; p = p->next) {
        if (strcmp(p->key, "qom-type") == 0 || strcmp(p->key, "id") == 0)
            continue;
        properties[count++] = p->key;
        properties[count++] = p->value;
    }
    kept = have_secrets(&error) &&
           kind->add(secrets, id, properties, 0, &error) == PLATTER_OK;
    if (!kept)
        print_platter_error(error);
    free(properties);
    return kept;
}

/* Whether a secret has only known properties: any other may be part of the secret itself. */
static bool has_secret_keys(const struct object *object)
{
    for (const struct property *p = object->properties; p != NULL; p = p->next) {
        if (!object_is_secret_key(p->key, strlen(p->key))) {
            print_error("A parameter is unexpected; a secret has data or file, format, keyid and iv, "
                        "and a comma in a value is doubled");
            return false;
        }
    }
    return true;
}

/* Checks a definition, and adds it to the library if it is of use there. */
static bool is_valid(const struct object *object)
{
    const char *type = object_get(object, "qom-type");
    const char *id = object_get(object, "id");
    const struct kind *kind = kind_of(type);

    if (type == NULL) {
        print_error("Parameter 'qom-type' is missing");
        return false;
    }
    if (!is_one_of(type, types, TYPE_COUNT)) {
        /* Does not quote the value, which may be a secret that was given without a type. */
        print_error("Parameter 'qom-type' does not accept this value; \"--object help\" lists the types");
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
    for (const struct object *other = objects; other != NULL; other = other->next) {
        if (strcmp(object_get(other, "id"), id) == 0) {
            print_error("attempt to add duplicate property '%s' to object (type 'container')", id);
            return false;
        }
    }
    if (is_secret(object) && !has_secret_keys(object))
        return false;
    if (kind == NULL)
        return true;
    if (kind->needs != NULL && object_get(object, kind->needs) == NULL) {
        print_error("Parameter '%s' is missing", kind->needs);
        return false;
    }
    return keep(object, kind);
}

const platter_secrets *objects_secrets(void)
{
    return secrets;
}

bool objects_are_anonymous(const char *id)
{
    for (const struct object *object = objects; object != NULL; object = object->next)
        if (strcmp(object_get(object, "id"), id) == 0)
            return object->anonymous;
    return false;
}

enum objects_outcome objects_add(char *definition)
{
    struct object *object = object_parse(definition);

    object_wipe_text(definition);
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
    object->anonymous = strcmp(object_get(object, "qom-type"), "tls-creds-anon") == 0;
    /* The library has its own copy of the secret. */
    for (struct property *p = object->properties; p != NULL; p = p->next)
        if (strcmp(p->key, "id") != 0)
            object_wipe_text(p->value);
    object->next = objects;
    objects = object;
    return OBJECTS_KEPT;
}
