#include "open.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "objects.h"
#include "options.h"
#include "print.h"

platter_policy *open_policy(void)
{
    platter_policy *policy = NULL;
    platter_error *error = NULL;
    const uint32_t preset =
        options_untrusted() ? PLATTER_POLICY_STRICT : PLATTER_POLICY_PERMISSIVE;

    if (platter_policy_new(&policy, preset, 0, &error) != PLATTER_OK)
        print_platter_error(error);
    return policy;
}

/* The named nodes of all images that the command opens. */
static platter_nodes *nodes;

static void forget_nodes(void)
{
    platter_nodes_free(nodes);
    nodes = NULL;
}

/* Creates the set of named nodes, which is freed when the process exits. */
static bool have_nodes(platter_error **error)
{
    return nodes != NULL ||
           (atexit(forget_nodes) == 0 && platter_nodes_new(&nodes, 0, error) == PLATTER_OK);
}

/* Sets a limit if one was given. */
static bool set_limit(platter_policy *policy, uint32_t limit, const char *text, const char *what,
                      platter_error **error)
{
    return text == NULL ||
           platter_policy_set_limit(policy, limit, options_size(text, what), 0, error) == PLATTER_OK;
}

platter_open_options *open_options(const struct open_request *request)
{
    platter_open_options *options = NULL;
    platter_error *error = NULL;
    platter_policy *policy = open_policy();

    if (policy == NULL)
        return NULL;
    if (!set_limit(policy, PLATTER_LIMIT_SPOOL_BYTES, request->max_spool,
                   "size of the temporary file", &error) ||
        !set_limit(policy, PLATTER_LIMIT_DECODER_BYTES, request->max_decoder,
                   "memory of decoders", &error)) {
        print_platter_error(error);
        platter_policy_free(policy);
        return NULL;
    }
    if (!have_nodes(&error) || platter_open_options_new(&options, 0, &error) != PLATTER_OK ||
        platter_open_options_set_nodes(options, nodes, 0, &error) != PLATTER_OK ||
        platter_open_options_set_policy(options, policy, 0, &error) != PLATTER_OK ||
        platter_open_options_set_secrets(options, objects_secrets(), 0, &error) != PLATTER_OK ||
        platter_open_options_set_format(options, request->format, PLATTER_NAME_UNCHECKED, &error) != PLATTER_OK ||
        platter_open_options_set_decompress(options, request->decompress, PLATTER_NAME_UNCHECKED,
                                            &error) != PLATTER_OK ||
        (request->cache != NULL &&
         platter_open_options_set_cache(options, request->cache, 0, &error) != PLATTER_OK)) {
        print_platter_error(error);
        platter_open_options_free(options);
        options = NULL;
    }
    platter_policy_free(policy);
    return options;
}

/* Skips a value, in which commas are doubled, and the comma that ends it. */
static const char *behind_value(const char *value)
{
    for (;;) {
        value += strcspn(value, ",");
        if (value[0] == '\0' || value[1] != ',')
            return value + (value[0] == ',');
        value += 2;
    }
}

/* Warns about each boolean option given by its name alone, as QEMU's tool does. */
static void warn_of_short_forms(const char *description)
{
    /* A first word without a value would be the name of an open image. */
    bool is_first = true;

    while (*description != '\0') {
        const size_t length = strcspn(description, "=,");

        if (description[length] == '=') {
            description = behind_value(description + length);
        } else {
            if (!is_first)
                print_short_form_warning(description, length);
            description += length + (description[length] == ',');
        }
        is_first = false;
    }
}

uint32_t open_location_flags(const char *name, bool image_opts)
{
    if (!image_opts)
        return 0;
    warn_of_short_forms(name);
    return PLATTER_LOCATION_IMAGE_OPTS;
}

uint32_t open_flags(const struct open_request *request)
{
    return request->force_share ? PLATTER_OPEN_FORCE_SHARE : 0;
}

bool open_cache_is_known(const char *cache)
{
    platter_open_options *options = NULL;
    const bool known = platter_open_options_new(&options, 0, NULL) == PLATTER_OK &&
                       platter_open_options_set_cache(options, cache, 0, NULL) == PLATTER_OK;

    platter_open_options_free(options);
    return known;
}

bool open_cache_is_valid(const char *cache, bool is_source)
{
    if (cache == NULL || open_cache_is_known(cache))
        return true;
    print_error("Invalid %s option: %s", is_source ? "source cache" : "cache", cache);
    return false;
}

platter_image *open_image(const char *name, const struct open_request *request, uint32_t flags)
{
    platter_image *image = NULL;
    platter_error *error = NULL;
    platter_open_options *options = open_options(request);
    const char *warning = NULL;

    if (options == NULL)
        return NULL;
    flags |= open_location_flags(name, request->image_opts) | open_flags(request);
    if (platter_image_open(&image, name, options, flags, &error) != PLATTER_OK)
        print_platter_error(error);
    platter_open_options_free(options);
    for (size_t i = 0; (warning = platter_image_warning(image, i)) != NULL; i++)
        print_warning(warning);
    return image;
}

bool open_close(platter_image *image)
{
    platter_error *error = NULL;

    if (platter_image_close(image, 0, &error) == PLATTER_OK)
        return true;
    // If the command itself has failed, this error adds nothing.
    if (print_had_error())
        platter_error_free(error);
    else
        print_platter_error(error);
    return false;
}
