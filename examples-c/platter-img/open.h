/* Opens images according to the options of a command. */
#ifndef OPEN_H
#define OPEN_H

#include <platter.h>
#include <stdbool.h>

/* Values of the options for opening an image. */
struct open_request {
    const char *format; /* NULL to guess it */
    const char *cache;  /* NULL for the default */
    bool image_opts;    /* the name is a full description (--image-opts) */
    bool force_share;
    const char *decompress; /* compression of the file, or "auto"; NULL not to decompress */
    const char *max_spool;  /* maximum size of a temporary file; NULL for the default */
    const char *max_decoder; /* maximum memory for decoders of whole files; NULL for the default */
};

/* The policy of the command line, which depends on --untrusted; returns NULL after printing an error. */
platter_policy *open_policy(void);
/* Builds the library's open options; returns NULL after printing an error. */
platter_open_options *open_options(const struct open_request *request);
/* The PLATTER_LOCATION_* flag for a name; warns about deprecated forms in a description. */
uint32_t open_location_flags(const char *name, bool image_opts);
/* For sources, the PLATTER_OPEN_* flag for the request. */
uint32_t open_flags(const struct open_request *request);
/* Whether a cache mode of that name exists; the second also accepts NULL, and prints an error if not. */
bool open_cache_is_known(const char *cache);
bool open_cache_is_valid(const char *cache, bool is_source);
/* Opens an image with additional PLATTER_OPEN_* flags and prints its warnings; returns NULL after printing an error. */
platter_image *open_image(const char *name, const struct open_request *request, uint32_t flags);
/* Closes an image; returns false after printing an error. */
bool open_close(platter_image *image);

#endif
