/* Shared by the programs that follow one disk from place to place: the bytes that it should hold, a policy and secrets
 * for opening it, a server, and a client that writes. */
#ifndef PLATTER_FFI_WORKFLOW_H
#define PLATTER_FFI_WORKFLOW_H

#include "check.h"

#define MAX_SIZE ((uint64_t)16 << 20)

static unsigned char bytes[MAX_SIZE], found[MAX_SIZE], expected[MAX_SIZE];

static platter_policy *policy;
/* NULL if no secrets are needed. */
static platter_secrets *secrets;

/* `format` may be NULL. */
static inline platter_open_options *opening(const char *format)
{
    platter_open_options *options;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_open_options_set_secrets(options, secrets, 0, &err));
    OK(platter_open_options_set_format(options, format, 0, &err));
    return options;
}

static inline platter_image *opened(const char *location, const char *format, uint32_t flags)
{
    platter_open_options *options = opening(format);
    platter_image *image;
    OK(platter_image_open(&image, location, options, flags, &err));
    platter_open_options_free(options);
    return image;
}

static inline void make_overlay(const char *path, const char *base)
{
    platter_create *create;
    platter_job *job;
    OK(platter_create_new(&create, path, "qcow2", 0, &err));
    OK(platter_create_set_backing(create, base, "raw", 0, &err));
    OK(platter_create_set_policy(create, policy, 0, &err));
    OK(platter_create_set_secrets(create, secrets, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    platter_create_free(create);
    run(job);
}

/* Copies a whole disk into a raw image. */
static inline void copy_whole(const char *from, const char *format, const char *to)
{
    platter_open_options *options = opening(format);
    platter_convert *convert;
    platter_job *job;
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_add_source(convert, from, 0, &err));
    OK(platter_convert_set_target(convert, to, "raw", 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    platter_convert_free(convert);
    platter_open_options_free(options);
    run(job);
}

/* `bitmap` may be NULL. */
static inline platter_server *serving(const platter_image *image, const char *name, const char *bitmap)
{
    platter_server *server;
    platter_export *export;
    OK(platter_server_new(&server, NULL, 0, &err));
    OK(platter_export_new(&export, image, PLATTER_EXPORT_WRITE, &err));
    OK(platter_export_set_name(export, name, 0, &err));
    if (bitmap != NULL)
        OK(platter_export_add_bitmap(export, bitmap, 0, &err));
    OK(platter_server_add_export(server, export, 0, &err));
    platter_export_free(export);
    return server;
}

static inline void write_as_client(const char *export, uint64_t offset, size_t len, unsigned char value)
{
    platter_image *client = opened(export, "raw", PLATTER_OPEN_WRITE);
    memset(bytes, value, len);
    memset(expected + offset, value, len);
    OK(platter_image_write(client, bytes, len, offset, 0, &err));
    OK(platter_image_flush(client, 0, &err));
    OK(platter_image_close(client, 0, &err));
}

static inline void holds_what_was_written(const char *location, const char *format, uint64_t size)
{
    platter_image *image = opened(location, format, 0);
    uint64_t its_size;
    OK(platter_image_size(&its_size, image, 0, &err));
    CHECK_U64(its_size, size);
    OK(platter_image_read(image, found, size, 0, 0, &err));
    CHECK(memcmp(found, expected, size) == 0);
    OK(platter_image_close(image, 0, &err));
}

#endif
