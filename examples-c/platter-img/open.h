/* Opening images as the options of a command say. */
#ifndef OPEN_H
#define OPEN_H

#include <platter.h>
#include <stdbool.h>

/* What the options of a command say about how an image is opened. */
struct open_request {
    const char *format; /* NULL guesses it */
    const char *cache;  /* NULL for the default */
    bool image_opts;    /* the name is a complete description */
    bool force_share;
    const char *decompress; /* what its file is compressed with, or "auto"; NULL takes it as it is */
    const char *max_spool;  /* the most bytes of a temporary file; NULL for the default */
    const char *max_decoder; /* the most memory of decoders of whole files; NULL for the default */
};

/* The policy of the command line: what --untrusted denies; NULL after a message. */
platter_policy *open_policy(void);
/* The options of the library; NULL after a message. */
platter_open_options *open_options(const struct open_request *request);
/* The PLATTER_LOCATION_ flag of a name; a description's forms that will go away are warned of. */
uint32_t open_location_flags(const char *name, bool image_opts);
/* For sources, the PLATTER_OPEN_ flag that the request asks for. */
uint32_t open_flags(const struct open_request *request);
/* Whether there is a cache mode of that name; the same where one was given, reported if not. */
bool open_cache_is_known(const char *cache);
bool open_cache_is_valid(const char *cache, bool is_source);
/* Opens an image with further PLATTER_OPEN_ flags and prints its warnings; NULL after a message. */
platter_image *open_image(const char *name, const struct open_request *request, uint32_t flags);
/* Closes an image; false after a message. */
bool open_close(platter_image *image);

#endif
