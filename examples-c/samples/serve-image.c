/* Serves a disk image, read-only, to NBD clients until the last of them has disconnected: serve-image IMAGE SOCKET
 * Try it with: nbdinfo "nbd+unix:///?socket=SOCKET" */
#include <platter.h>
#include <poll.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    platter_image *image = NULL;
    platter_export *export = NULL;
    platter_server *server = NULL;
    platter_server_statistics now = {0};
    platter_error *error = NULL;
    char address[200];
    int fd = -1, failed;

    if (argc != 3)
        return 2;
    snprintf(address, sizeof address, "unix:%s", argv[2]);
    if (platter_image_open(&image, argv[1], NULL, 0, &error) == PLATTER_OK &&
        platter_export_new(&export, image, 0, &error) == PLATTER_OK &&
        platter_server_new(&server, NULL, 0, &error) == PLATTER_OK &&
        platter_server_add_export(server, export, 0, &error) == PLATTER_OK &&
        platter_server_listen(server, address, 0, &error) == PLATTER_OK &&
        platter_server_fd(&fd, server, 0, &error) == PLATTER_OK) {
        /* Until at least one client has connected and all have disconnected. */
        while (now.accepted == 0 || now.clients > 0) {
            struct pollfd event = {.fd = fd, .events = POLLIN};

            poll(&event, 1, -1);
            platter_server_get_statistics(&now, server, 0, NULL);
        }
        printf("%llu requests, %llu bytes read\n", (unsigned long long)now.requests,
               (unsigned long long)now.bytes_read);
    }
    failed = error != NULL;
    if (failed)
        fprintf(stderr, "%s\n", platter_error_message(error));
    platter_error_free(error);
    platter_server_free(server);
    platter_export_free(export);
    platter_image_close(image, 0, NULL);
    return failed;
}
