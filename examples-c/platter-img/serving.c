#include "serving.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "objects.h"
#include "overlay.h"
#include "print.h"

/* How long to wait for requests in flight before ending. */
enum { DRAIN_MS = 5000 };

/* The first descriptor that a service manager passes. */
enum { FIRST_FD = 3 };

/* The write end of the pipe to the parent, which waits with --fork; -1 otherwise. */
static int parent = -1;

/* Prints an error of the library after `words`, which replace `instead` if the message begins with it; frees
 * the error. */
static void print_after(const char *words, const char *instead, platter_error *error)
{
    const char *hint = NULL;
    const char *message = platter_error_message(error);
    const size_t length = strlen(instead);

    if (print_length_said_twice(error) == 0 && strncmp(message, instead, length) == 0)
        message += length;
    print_error("%s: %s", words, message);
    for (size_t i = 0; (hint = platter_error_hint(error, i)) != NULL; i++)
        print_advice(hint);
    platter_error_free(error);
}

/* The number of sockets passed by a service manager; returns -1 after printing an error. */
static int activation(const struct serving *serving)
{
    const char *pid = getenv("LISTEN_PID");
    const char *count = getenv("LISTEN_FDS");
    char *end = NULL;
    long number = 0;

    if (pid == NULL || count == NULL || strtol(pid, &end, 10) != (long)getpid() || *end != '\0')
        return 0;
    number = strtol(count, &end, 10);
    if (end == count || *end != '\0' || number <= 0)
        return 0;
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    if (number > 1 && serving->drop_in) {
        print_error("%s does not support socket activation with LISTEN_FDS > 1", print_program());
        return -1;
    }
    if (serving->socket != NULL) {
        print_error("Unix socket can't be set when using socket activation");
        return -1;
    }
    if (serving->host != NULL) {
        print_error("The interface can't be set when using socket activation");
        return -1;
    }
    if (serving->port != NULL) {
        print_error("TCP port number can't be set when using socket activation");
        return -1;
    }
    return number > 1024 ? 1024 : (int)number;
}

/* Forks; the parent waits until the child is serving, and exits. Returns false after printing an error. */
static bool go_to_background(void)
{
    int ends[2];
    char ready = 0;
    pid_t child;

    if (pipe2(ends, O_CLOEXEC) != 0 || (child = fork()) < 0) {
        print_error("Could not start a process: %s", strerror(errno));
        return false;
    }
    if (child == 0) {
        close(ends[0]);
        parent = ends[1];
        setsid();
        return true;
    }
    close(ends[1]);
    while (read(ends[0], &ready, 1) < 0 && errno == EINTR)
        ;
    /* A child that cannot serve has printed why. */
    _exit(ready == 1 ? 0 : 1);
}

/* Tells the parent that clients can connect now. */
static void leave_parent(void)
{
    const char ready = 1;
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (parent < 0)
        return;
    for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    if (null > STDERR_FILENO)
        close(null);
    /* If the parent has exited, no one is waiting. */
    if (write(parent, &ready, 1) < 0)
        close(parent);
}

static bool write_pid(const char *path)
{
    char text[32];
    const int length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    bool written = false;

    if (fd < 0) {
        print_error("Could not create '%s': %s", path, strerror(errno));
        return false;
    }
    written = ftruncate(fd, 0) == 0 && write(fd, text, (size_t)length) == length;
    if (!written)
        print_error("Could not write '%s': %s", path, strerror(errno));
    close(fd);
    return written;
}

/* Opens the image itself; returns NULL after printing an error. */
static platter_image *open_named(const struct serving *serving, const platter_open_options *options,
                                 uint32_t flags)
{
    platter_image *image = NULL;
    platter_error *error = NULL;
    char *words = NULL;
    char *instead = NULL;
    const char *warning = NULL;

    if (platter_image_open(&image, serving->name, options,
                           open_location_flags(serving->name, serving->image.image_opts) | flags,
                           &error) == PLATTER_OK) {
        for (size_t i = 0; (warning = platter_image_warning(image, i)) != NULL; i++)
            print_warning(warning);
        return image;
    }
    if (serving->drop_in &&
        asprintf(&words, "Failed to blk_new_open '%s'", serving->name) > 0 &&
        asprintf(&instead, "Could not open '%s': ", serving->name) > 0)
        print_after(words, instead, error);
    else
        print_platter_error(error);
    free(words);
    free(instead);
    return NULL;
}

/* Opens a temporary overlay over the image; returns NULL after printing an error. */
static platter_image *open_overlay(const struct serving *serving,
                                   const platter_open_options *options)
{
    platter_open_options *of_base = open_options(&serving->image);
    platter_image *base = NULL;
    platter_image *image = NULL;
    const char *warning = NULL;

    if (of_base == NULL)
        return NULL;
    base = open_named(serving, of_base, open_flags(&serving->image));
    platter_open_options_free(of_base);
    if (base == NULL)
        return NULL;
    image = overlay_open(base, serving->name, &serving->image, options);
    platter_image_close(base, 0, NULL);
    for (size_t i = 0; (warning = platter_image_warning(image, i)) != NULL; i++)
        print_warning(warning);
    return image;
}

/* Opens the image according to the options; returns NULL after printing an error. */
static platter_image *open_served(const struct serving *serving)
{
    const bool writes = !serving->read_only && serving->snapshot == NULL;
    platter_image *image = NULL;
    platter_error *error = NULL;
    struct open_request request = serving->image;
    platter_open_options *options = NULL;

    if (serving->overlay) {
        /* A temporary file needs no syncing. */
        request.format = "qcow2";
        request.cache = request.cache != NULL ? request.cache : "unsafe";
    }
    options = open_options(&request);
    if (options == NULL)
        return NULL;
    if (serving->image.image_opts && serving->overlay &&
        platter_open_options_set_format(options, NULL, 0, &error) != PLATTER_OK) {
        print_platter_error(error);
    } else if (serving->discard >= 0 &&
               platter_open_options_set_discard(options, serving->discard > 0 ? 1 : 0, 0,
                                                &error) != PLATTER_OK) {
        print_platter_error(error);
    } else if (platter_open_options_set_detect_zeroes(options, serving->detect_zeroes, 0, &error) !=
               PLATTER_OK) {
        print_after("Failed to parse detect_zeroes mode", "", error);
    } else if (serving->overlay) {
        image = open_overlay(serving, options);
    } else {
        image = open_named(serving, options,
                           writes ? PLATTER_OPEN_WRITE : open_flags(&serving->image));
    }
    platter_open_options_free(options);
    if (image != NULL && serving->snapshot != NULL &&
        platter_snapshot_show(image, serving->snapshot, 0, &error) != PLATTER_OK) {
        const bool wrong = strstr(platter_error_message(error), "nvalid parameter") != NULL;

        print_platter_error(error);
        if (wrong)
            print_error("Failed in parsing snapshot param `%s'", serving->snapshot);
        platter_image_close(image, 0, NULL);
        image = NULL;
    }
    return image;
}

/* Exports the image to NBD clients, as a file or as a device; returns false after printing an error. */
static bool offer(platter_server *server, const platter_image *image, const struct serving *serving)
{
    const uint32_t how = (serving->growable ? PLATTER_MOUNT_GROWABLE : 0) | serving->others;
    platter_export *export = NULL;
    platter_error *error = NULL;
    const bool writes = !platter_image_is_read_only(image) && !serving->read_only;
    const uint32_t flags = (writes ? PLATTER_EXPORT_WRITE : 0) |
                           (serving->allocation_depth ? PLATTER_EXPORT_ALLOCATION_DEPTH : 0);
    bool done =
        platter_export_new(&export, image, flags, &error) == PLATTER_OK &&
        platter_export_set_name(export, serving->export_name, 0, &error) == PLATTER_OK &&
        platter_export_set_description(export, serving->description, 0, &error) == PLATTER_OK &&
        platter_export_set_window(export, serving->offset, serving->length, 0, &error) == PLATTER_OK;

    for (size_t i = 0; done && i < serving->bitmap_count; i++)
        done = platter_export_add_bitmap(export, serving->bitmaps[i], 0, &error) == PLATTER_OK;
    if (serving->mountpoint != NULL)
        done = done && platter_server_mount(server, export, serving->mountpoint, how, &error) == PLATTER_OK;
    else if (serving->device != NULL)
        done = done && platter_server_listen_vhost_user(server, export, serving->device,
                                                        serving->queues, 0, &error) == PLATTER_OK;
    else
        done = done && platter_server_add_export(server, export, 0, &error) == PLATTER_OK;
    if (!done)
        print_platter_error(error);
    platter_export_free(export);
    return done;
}

static bool listen_at(platter_server *server, const char *address)
{
    platter_error *error = NULL;

    if (platter_server_listen(server, address, 0, &error) == PLATTER_OK)
        return true;
    print_platter_error(error);
    return false;
}

/* Makes clients use TLS if the options say so; returns false after printing an error. */
static bool protect(platter_server *server, const struct serving *serving)
{
    platter_error *error = NULL;

    if (serving->tls_creds == NULL ||
        platter_server_set_tls(server, objects_secrets(), serving->tls_creds, serving->tls_authz, 0,
                               &error) == PLATTER_OK)
        return true;
    print_after("Failed to get TLS creds", "", error);
    return false;
}

/* Sets the SELinux label of the sockets that this thread creates, NULL for the default; returns false after
 * printing an error. */
static bool label_sockets(const char *label)
{
    const int fd = open("/proc/thread-self/attr/sockcreate", O_RDWR | O_CLOEXEC);
    const size_t length = label == NULL ? 0 : strlen(label) + 1;
    const bool done = fd >= 0 && write(fd, label, length) == (ssize_t)length;

    if (!done && label != NULL)
        print_error("Cannot set SELinux socket create context to %s: %s", label, strerror(errno));
    else if (!done)
        print_error("Cannot reset the SELinux socket create context: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    return done;
}

/* Starts listening for clients according to the options; returns false after printing an error. */
static bool take_clients(platter_server *server, const struct serving *serving, int activated)
{
    const char *host = serving->host != NULL ? serving->host
                       : serving->drop_in    ? "0.0.0.0"
                                             : "127.0.0.1";
    const char *port = serving->port != NULL ? serving->port : "10809";
    platter_error *error = NULL;
    char *address = NULL;
    bool done = true;

    if (serving->mountpoint != NULL || serving->device != NULL)
        return true;
    if (serving->stdio) {
        if (platter_server_serve_fds(server, STDIN_FILENO, STDOUT_FILENO, 0, &error) == PLATTER_OK)
            return true;
        print_platter_error(error);
        return false;
    }
    for (int fd = FIRST_FD; done && fd < FIRST_FD + activated; fd++) {
        char text[32];

        snprintf(text, sizeof text, "fd:%d", fd);
        done = listen_at(server, text);
    }
    if (activated > 0)
        return done;
    if (serving->socket != NULL
            ? asprintf(&address, "unix:%s", serving->socket) < 0
            : asprintf(&address, strchr(host, ':') != NULL ? "inet:[%s]:%s" : "inet:%s:%s", host,
                       port) < 0) {
        print_error("Out of memory");
        return false;
    }
    done = serving->selinux_label == NULL || label_sockets(serving->selinux_label);
    done = done && listen_at(server, address);
    free(address);
    /* The label must not apply to other sockets that this thread creates. */
    return done && (serving->selinux_label == NULL || label_sockets(NULL));
}

/* Waits for a signal to end, or for the last client to disconnect; returns false after printing an error. */
static bool wait_for_end(platter_server *server, const struct serving *serving, int signals)
{
    platter_error *error = NULL;
    int event = -1;

    if (platter_server_fd(&event, server, 0, &error) != PLATTER_OK) {
        print_platter_error(error);
        return false;
    }
    for (;;) {
        struct pollfd fds[2] = {{.fd = signals, .events = POLLIN}, {.fd = event, .events = POLLIN}};
        platter_server_statistics now;

        if (poll(fds, 2, -1) < 0 && errno != EINTR) {
            print_error("Could not wait for clients: %s", strerror(errno));
            return false;
        }
        if (fds[0].revents != 0)
            return true;
        if (platter_server_get_statistics(&now, server, 0, &error) != PLATTER_OK) {
            print_platter_error(error);
            return false;
        }
        if (serving->verbose)
            fprintf(stderr, "%s: %llu clients\n", print_program(), (unsigned long long)now.clients);
        if (!serving->persistent && now.accepted > 0 && now.clients == 0)
            return true;
    }
}

/* A descriptor for the signals that end the server; they are blocked from here on. */
static int ending_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

/* Serves an open image; returns false after printing an error. */
static bool serve(const platter_image *image, const struct serving *serving, int activated)
{
    platter_server *server = NULL;
    platter_error *error = NULL;
    const int signals = ending_signals();
    bool done = false;

    if (signals < 0) {
        print_error("Could not wait for signals: %s", strerror(errno));
        return false;
    }
    if (platter_server_new(&server, &serving->limits, 0, &error) != PLATTER_OK) {
        print_platter_error(error);
        close(signals);
        return false;
    }
    if (protect(server, serving) && offer(server, image, serving) && take_clients(server, serving, activated) &&
        (serving->pid_file == NULL || write_pid(serving->pid_file))) {
        leave_parent();
        done = wait_for_end(server, serving, signals);
        platter_server_drain(server, DRAIN_MS, 0, NULL);
        error = serving->verbose ? platter_server_last_error(server) : NULL;
        if (error != NULL)
            print_platter_error(error);
    }
    platter_server_free(server);
    close(signals);
    return done;
}

int serving_run(struct serving *serving)
{
    platter_image *image = NULL;
    const int activated = activation(serving);
    bool done = false;

    if (activated < 0)
        return 1;
    /* An invalid label is rejected before anything else. */
    if (serving->selinux_label != NULL &&
        !(label_sockets(serving->selinux_label) && label_sockets(NULL)))
        return 1;
    if (serving->fork && !go_to_background())
        return 1;
    image = open_served(serving);
    if (image == NULL)
        return 1;
    done = serve(image, serving, activated);
    return open_close(image) && done ? 0 : 1;
}
