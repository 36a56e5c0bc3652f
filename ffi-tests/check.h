/* Shared by the C test programs: checks that report where they fail. */
#ifndef PLATTER_FFI_CHECK_H
#define PLATTER_FFI_CHECK_H

#include <platter.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                       \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

#define CHECK_U64(actual, expected)                                                               \
    do {                                                                                          \
        unsigned long long a_ = (actual), e_ = (expected);                                        \
        if (a_ != e_) {                                                                           \
            fprintf(stderr, "%s:%d: %s is %llu, not %llu\n", __FILE__, __LINE__, #actual, a_, e_); \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

#define CHECK_STR(actual, expected)                                                               \
    do {                                                                                          \
        const char *a_ = (actual), *e_ = (expected);                                              \
        if (a_ == NULL || strcmp(a_, e_) != 0) {                                                  \
            fprintf(stderr, "%s:%d: %s is \"%s\", not \"%s\"\n", __FILE__, __LINE__, #actual,     \
                    a_ ? a_ : "(null)", e_);                                                      \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

/* A call that must succeed; its last argument is `&err`. */
#define OK(call)                                                                                  \
    do {                                                                                          \
        platter_error *err = (platter_error *)1;                                                  \
        int status_ = (call);                                                                     \
        if (status_ != 0) {                                                                       \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call,                     \
                    platter_status_name(status_), platter_error_message(err));                    \
            exit(1);                                                                              \
        }                                                                                         \
        CHECK(err == NULL);                                                                       \
    } while (0)

/* A call that must fail with the expected status and a message that contains `text`; its last argument is `&err`. */
#define FAILS(call, expected, text)                                                               \
    do {                                                                                          \
        platter_error *err = NULL;                                                                \
        int status_ = (call);                                                                     \
        if (status_ != (expected)) {                                                              \
            fprintf(stderr, "%s:%d: %s gives %s (%s), not %s\n", __FILE__, __LINE__, #call,       \
                    platter_status_name(status_), platter_error_message(err),                     \
                    platter_status_name(expected));                                               \
            exit(1);                                                                              \
        }                                                                                         \
        CHECK(err != NULL);                                                                       \
        CHECK(platter_error_status(err) == status_);                                              \
        CHECK(strchr(platter_error_message(err), '\n') == NULL);                                  \
        if (strstr(platter_error_message(err), (text)) == NULL) {                                 \
            fprintf(stderr, "%s:%d: %s says \"%s\"\n", __FILE__, __LINE__, #call,                 \
                    platter_error_message(err));                                                  \
            exit(1);                                                                              \
        }                                                                                         \
        platter_error_free(err);                                                                  \
    } while (0)

/* Runs a job that must succeed, and frees it. */
static inline void run(platter_job *job)
{
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
}

/* The same, returning its report. */
static inline platter_report *result_of(platter_job *job)
{
    platter_report *report;
    OK(platter_job_run(job, 0, &err));
    OK(platter_job_result(&report, job, 0, &err));
    platter_job_free(job);
    return report;
}

/* Creates an image. */
static inline void make_image(const char *path, const char *format, uint64_t size,
                              const char *options)
{
    platter_create *create;
    platter_job *job;
    OK(platter_create_new(&create, path, format, 0, &err));
    OK(platter_create_set_size(create, size, 0, &err));
    if (options != NULL) {
        platter_options *bag;
        OK(platter_options_new(&bag, 0, &err));
        OK(platter_options_parse(bag, options, 0, &err));
        OK(platter_create_set_options(create, bag, 0, &err));
        platter_options_free(bag);
    }
    OK(platter_create_job_new(&job, create, 0, &err));
    run(job);
    platter_create_free(create);
}

/* Opens an image in the given format, which is guessed if NULL. */
static inline platter_image *open_image(const char *path, const char *format, uint32_t flags)
{
    platter_open_options *options;
    platter_image *image;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, format, 0, &err));
    OK(platter_image_open(&image, path, options, flags, &err));
    platter_open_options_free(options);
    return image;
}

/* Fills a buffer with bytes that depend on their offset. */
static inline void fill_pattern(unsigned char *buf, size_t len, uint64_t offset)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (unsigned char)((offset + i) * 2654435761u >> 13);
}

/* The size of a part of a disk that holds this pattern. */
#define PART ((size_t)64 << 10)

static inline void write_part(const platter_image *image, uint64_t offset)
{
    unsigned char part[PART];
    fill_pattern(part, sizeof part, offset);
    OK(platter_image_write(image, part, sizeof part, offset, 0, &err));
}

static inline void check_part(const platter_image *image, uint64_t offset)
{
    unsigned char expected[PART], found[PART];
    fill_pattern(expected, sizeof expected, offset);
    OK(platter_image_read(image, found, sizeof found, offset, 0, &err));
    CHECK(memcmp(expected, found, sizeof found) == 0);
}

static inline void passed(void)
{
    CHECK(puts("ok") >= 0);
}

#endif
