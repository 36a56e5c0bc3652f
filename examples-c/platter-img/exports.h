/* Lists of what servers export. */
#ifndef EXPORTS_H
#define EXPORTS_H

#include <stdbool.h>

#include "open.h"

/* Prints the exports of the server to which `name` leads; false after a message. */
bool exports_print(const char *name, const struct open_request *request, bool json);

/* What `qemu-nbd --list` asks for. */
struct exports_server {
    const char *socket; /* a local socket, or NULL for the host and the port */
    const char *host;
    const char *port;
    const char *tls_creds; /* ID of an object, or NULL */
    const char *tls_host;  /* the name in the server's certificate, or NULL for that of the host */
};

/* Prints the exports of a server as qemu-nbd does; false after a message. */
bool exports_print_as_peer(const struct exports_server *server);

#endif
