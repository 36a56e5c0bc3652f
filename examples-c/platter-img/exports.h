/* Lists the exports of servers. */
#ifndef EXPORTS_H
#define EXPORTS_H

#include <stdbool.h>

#include "open.h"

/* Prints the exports of the server that `name` refers to; returns false after printing an error. */
bool exports_print(const char *name, const struct open_request *request, bool json);

/* The options of `qemu-nbd --list`. */
struct exports_server {
    const char *socket; /* a Unix socket, or NULL to use `host` and `port` */
    const char *host;
    const char *port;
    const char *tls_creds; /* ID of an object, or NULL */
    const char *tls_host;  /* the name in the server's certificate, or NULL for `host` */
};

/* Prints the exports of a server in the format of qemu-nbd; returns false after printing an error. */
bool exports_print_as_peer(const struct exports_server *server);

#endif
