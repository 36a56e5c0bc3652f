/* Serving an image over NBD, as a file or as a device: the part common to `serve` and the drop-in for qemu-nbd. */
#ifndef SERVING_H
#define SERVING_H

#include <platter.h>
#include <stdbool.h>

#include "open.h"

enum { SERVING_MAX_BITMAPS = 32 };

/* Values of the options. */
struct serving {
    bool drop_in; /* invoked as qemu-nbd: uses its wording and defaults */
    struct open_request image;
    const char *name;     /* the image; NULL for none */
    const char *snapshot; /* -l */
    bool overlay;         /* -s: writes go to a temporary file */
    bool read_only;
    const char *detect_zeroes; /* NULL for off */
    int discard;               /* -1 to follow the image's options, else whether discards reach the host */

    const char *export_name;
    const char *description;
    const char *bitmaps[SERVING_MAX_BITMAPS];
    size_t bitmap_count;
    bool allocation_depth;
    uint64_t offset;
    uint64_t length; /* PLATTER_EXPORT_REST for up to the end */

    const char *socket; /* -k */
    const char *selinux_label; /* of the listening socket, or NULL */
    const char *host;   /* -b; NULL for the default */
    const char *port;   /* -p; NULL for the default */
    const char *tls_creds; /* IDs of objects, or NULL */
    const char *tls_authz;
    const char *connect;  /* -c; NULL if not given */
    bool disconnect;      /* -d */
    bool list;            /* -L: list another server's exports instead of serving */
    const char *tls_host; /* the name in that server's certificate, or NULL */
    bool per_device;      /* an option concerning the image to serve was given */
    const char *mountpoint; /* --fuse; NULL if not given */
    bool growable;
    const char *device; /* --vhost-user; NULL if not given */
    uint32_t queues;
    uint32_t others;    /* PLATTER_MOUNT_* flag for other users */
    bool stdio;         /* serve one client over stdin and stdout */
    platter_server_limits limits;
    bool persistent;
    bool verbose;
    bool fork;
    const char *pid_file;
};

/* Opens the image and serves it until the server ends; returns the exit status. */
int serving_run(struct serving *serving);

/* The drop-in for qemu-nbd; returns the exit status. */
int nbd_main(int argc, char **argv);

#endif
