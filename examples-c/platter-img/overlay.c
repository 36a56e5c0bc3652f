#include "overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "objects.h"
#include "print.h"

/* Creates the file of the overlay; returns its path, which the caller frees, or NULL after printing an error. */
static char *make_file(void)
{
    const char *directory = getenv("TMPDIR");
    char *path = NULL;
    int fd = -1;

    if (directory == NULL || *directory == '\0')
        directory = "/var/tmp";
    if (asprintf(&path, "%s/platter-overlay-XXXXXX", directory) < 0) {
        print_error("Out of memory");
        return NULL;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        print_error("Could not create a temporary file in '%s': %s", directory, strerror(errno));
        free(path);
        return NULL;
    }
    close(fd);
    return path;
}

/* The description of the overlay, whose backing image is described by `image_opts`: every key of the latter
 * is prefixed with "backing.". NULL if out of memory. */
static char *describe(const char *path, const char *image_opts)
{
    static const char prefix[] = "backing.";
    size_t commas = 1;
    char *text = NULL;
    char *end = NULL;

    for (const char *c = image_opts; *c != '\0'; c++)
        commas += *c == ',';
    text = malloc(2 * strlen(path) + strlen(image_opts) + (sizeof prefix - 1) * commas + 64);
    if (text == NULL)
        return NULL;
    end = stpcpy(text, "driver=qcow2,file.driver=file,file.filename=");
    for (const char *c = path; *c != '\0'; c++) {
        *end++ = *c;
        if (*c == ',')
            *end++ = ',';
    }
    end = stpcpy(stpcpy(end, ","), prefix);
    for (const char *c = image_opts; *c != '\0'; c++) {
        *end++ = *c;
        if (*c != ',')
            continue;
        /* A comma within a value is doubled. */
        if (c[1] == ',')
            *end++ = *++c;
        else
            end = stpcpy(end, prefix);
    }
    *end = '\0';
    return text;
}

/* Creates an empty overlay of that size, which records `backing` unless it is NULL. */
static bool create(const char *path, uint64_t size, const char *backing, const char *format)
{
    platter_create *create = NULL;
    platter_error *error = NULL;
    platter_policy *policy = open_policy();
    platter_job *job = NULL;
    bool done = false;

    if (policy == NULL)
        return false;
    done = platter_create_new(&create, path, "qcow2", PLATTER_LOCATION_PATH, &error) == PLATTER_OK &&
           platter_create_set_size(create, size, 0, &error) == PLATTER_OK &&
           platter_create_set_policy(create, policy, 0, &error) == PLATTER_OK &&
           platter_create_set_secrets(create, objects_secrets(), 0, &error) == PLATTER_OK &&
           (backing == NULL ||
            platter_create_set_backing(create, backing, format, PLATTER_NAME_UNCHECKED, &error) == PLATTER_OK) &&
           platter_create_job_new(&job, create, 0, &error) == PLATTER_OK &&
           platter_job_run(job, 0, &error) == PLATTER_OK;
    if (!done)
        print_platter_error(error);
    platter_job_free(job);
    platter_create_free(create);
    platter_policy_free(policy);
    return done;
}

platter_image *overlay_open(const platter_image *base, const char *name,
                            const struct open_request *request,
                            const platter_open_options *options)
{
    platter_error *error = NULL;
    platter_image *image = NULL;
    char *absolute = NULL;
    char *path = NULL;
    char *description = NULL;
    uint64_t size = 0;

    path = make_file();
    /* A relative name would be resolved from the overlay's directory. */
    if (!request->image_opts)
        absolute = realpath(name, NULL);
    if (path != NULL && platter_image_size(&size, base, 0, &error) != PLATTER_OK) {
        print_platter_error(error);
    } else if (path != NULL &&
               create(path, size, request->image_opts ? NULL : absolute != NULL ? absolute : name,
                      platter_image_format(base))) {
        description = request->image_opts ? describe(path, name) : NULL;
        if (request->image_opts && description == NULL)
            print_error("Out of memory");
        else if (platter_image_open(&image, description != NULL ? description : path, options,
                                    PLATTER_OPEN_WRITE | (description != NULL
                                                              ? PLATTER_LOCATION_IMAGE_OPTS
                                                              : PLATTER_LOCATION_PATH),
                                    &error) != PLATTER_OK)
            print_platter_error(error);
    }
    if (path != NULL)
        unlink(path);
    free(description);
    free(absolute);
    free(path);
    return image;
}
