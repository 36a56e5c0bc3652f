/* Serving an image to clients that speak NBD, as a file, or as a device: what `serve` and the drop-in for qemu-nbd have in common. */
#ifndef SERVING_H
#define SERVING_H

#include <platter.h>
#include <stdbool.h>

#include "open.h"

enum { SERVING_MAX_BITMAPS = 32 };

/* What the options say. */
struct serving {
    bool drop_in; /* called as qemu-nbd: its words and its defaults */
    struct open_request image;
    const char *name;     /* the image; NULL for none */
    const char *snapshot; /* -l */
    bool overlay;         /* -s: writes go to a temporary file */
    bool read_only;
    const char *detect_zeroes; /* NULL for off */
    int discard;               /* -1 for what the image's options say, else whether discards reach the host */

    const char *export_name;
    const char *description;
    const char *bitmaps[SERVING_MAX_BITMAPS];
    size_t bitmap_count;
    bool allocation_depth;
    uint64_t offset;
    uint64_t length; /* PLATTER_EXPORT_REST up to the end */

    const char *socket; /* -k */
    const char *selinux_label; /* of the listening socket, or NULL */
    const char *host;   /* -b; NULL for the default */
    const char *port;   /* -p; NULL for the default */
    const char *tls_creds; /* IDs of objects, or NULL */
    const char *tls_authz;
    const char *connect;  /* -c; NULL without */
    bool disconnect;      /* -d */
    bool list;            /* -L: what another server exports, instead of serving */
    const char *tls_host; /* whose certificate that server has, or NULL */
    bool per_device;      /* an option about what is served was given */
    const char *mountpoint; /* --fuse; NULL without */
    bool growable;
    const char *device; /* --vhost-user; NULL without */
    uint32_t queues;
    uint32_t others;    /* of PLATTER_MOUNT_* */
    bool stdio;         /* one client on the standard streams */
    platter_server_limits limits;
    bool persistent;
    bool verbose;
    bool fork;
    const char *pid_file;
};

/* Opens the image and serves it until that ends; gives the exit status. */
int serving_run(struct serving *serving);

/* The drop-in for qemu-nbd; gives the exit status. */
int nbd_main(int argc, char **argv);

#endif
