/* A temporary overlay: what is written to it is gone when it is closed. */
#ifndef OVERLAY_H
#define OVERLAY_H

#include <platter.h>

#include "open.h"

/* Opens an overlay without a name on an image that is open as `base`; NULL after a message. */
platter_image *overlay_open(const platter_image *base, const char *name,
                            const struct open_request *request,
                            const platter_open_options *options);

#endif
