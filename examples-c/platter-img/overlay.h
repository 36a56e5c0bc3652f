/* A temporary overlay: writes to it are discarded when it is closed. */
#ifndef OVERLAY_H
#define OVERLAY_H

#include <platter.h>

#include "open.h"

/* Opens an unlinked overlay over the image `name`, open as `base`; returns NULL after printing an error. */
platter_image *overlay_open(const platter_image *base, const char *name,
                            const struct open_request *request,
                            const platter_open_options *options);

#endif
