#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "common.h"
#include "exports.h"
#include "objects.h"
#include "print.h"
#include "serving.h"
#include "trace.h"

enum {
    OPT_PID_FILE = 512,
    OPT_FORK,
    OPT_CACHE,
    OPT_AIO,
    OPT_DISCARD,
    OPT_DETECT_ZEROES,
    OPT_HANDSHAKE_LIMIT,
    OPT_STALL_LIMIT,
    OPT_SIZE,
    OPT_STDIO,
    OPT_MEMORY,
    OPT_ONCE,
    OPT_TLS_CREDS,
    OPT_TLS_AUTHZ,
    OPT_TLS_HOSTNAME,
    OPT_SELINUX_LABEL,
    OPT_FUSE,
    OPT_GROWABLE,
    OPT_ALLOW_OTHER,
    OPT_VHOST_USER,
    OPT_QUEUES
};

/* The options that `serve` and the drop-in share. */
#define SERVING_OPTIONS                                                                          \
    {'k', "socket", "PATH", "take clients at this local socket"},                               \
    {'b', "bind", "IFACE", "take clients at this address of the machine"},                      \
    {'p', "port", "PORT", "take clients at this port (10809); 0 is one that is free"},           \
    {'e', "shared", "NUM", "so many clients may be there at once; 0 is as many as come"},        \
    {'x', "export-name", "NAME", "the name that clients ask for (none)"},                        \
    {'D', "description", "TEXT", "what a list of exports says about it"},                        \
    {OPT_HANDSHAKE_LIMIT, "handshake-limit", "N",                                                \
     "so many seconds a client may take to say what it wants (10); 0 is for ever"},              \
    {'o', "offset", "OFFSET", "where in the image the export begins"},                           \
    {'A', "allocation-depth", NULL, "tell clients which layer of the chain holds what"},         \
    {'B', "bitmap", "NAME", "tell clients what a persistent dirty bitmap holds; may be repeated"}, \
    {'f', "format", "FMT", "the format of the image; guessed if not given"},                     \
    {'r', "read-only", NULL, "let clients read only"},                                           \
    {'s', "snapshot", NULL, "what clients write goes to a temporary file, and is gone at the end"}, \
    {'l', "load-snapshot", "SNAPSHOT_PARAM",                                                     \
     "serve an internal snapshot, read-only: an ID, a name, or\n"                                \
     "snapshot.id=ID,snapshot.name=NAME"},                                                       \
    {'n', "nocache", NULL, "as --cache none"},                                                   \
    {OPT_CACHE, "cache", "MODE", "how the page cache is used (writeback)"},                      \
    {OPT_AIO, "aio", "MODE", "taken for compatibility; without effect"},                         \
    {OPT_DISCARD, "discard", "MODE", "what becomes of discards: ignore or unmap"},               \
    {OPT_DETECT_ZEROES, "detect-zeroes", "MODE", "look for zeroes in writes: off, on or unmap"}, \
    OPTION_IMAGE_OPTS, OPTION_OBJECT, OPTION_UNTRUSTED,                                          \
    {OPT_TLS_CREDS, "tls-creds", "ID", "take clients by TLS alone, with these credentials"},         \
    {OPT_TLS_AUTHZ, "tls-authz", "ID", "which clients may come in"},                                 \
    {OPT_SELINUX_LABEL, "selinux-label", "LABEL", "the SELinux label of the local socket"},           \
    {OPT_FORK, "fork", NULL, "go on in the background once clients are taken"},                  \
    {OPT_PID_FILE, "pid-file", "PATH", "write the number of the process to this file"},          \
    {'v', "verbose", NULL, "tell of clients that come and leave, and of what failed"}

static const struct option_entry serve_options[] = {
    OPTION_HELP,
    SERVING_OPTIONS,
    {'t', "persistent", NULL, "taken for compatibility: this is the default"},
    {OPT_ONCE, "once", NULL, "end when the last client has left"},
    {OPT_STALL_LIMIT, "stall-limit", "N",
     "so many seconds a client that is to be left may take nothing of its replies (60)"},
    {OPT_SIZE, "size", "SIZE", "how long the export is (up to the end of the image)"},
    {OPT_MEMORY, "memory", "SIZE", "what is under way for all clients takes so much memory at most (256M)"},
    {OPT_STDIO, "stdio", NULL, "serve one client on the standard streams"},
    {OPT_FUSE, "fuse", "MOUNTPOINT",
     "offer the image as a file instead, which lies over this one; it ends when that is unmounted"},
    {OPT_VHOST_USER, "vhost-user", "SOCKET",
     "offer the image as a block device instead, to virtual machines that come to this local socket"},
    {OPT_QUEUES, "queues", "N", "how many queues the device has (1)"},
    {'w', "writable", NULL,
     "let writes in; without it what --fuse and --vhost-user offer can be read only"},
    {OPT_GROWABLE, "growable", NULL, "let writes past the end of the file make the image longer"},
    {OPT_ALLOW_OTHER, "allow-other", "MODE",
     "whether other users may use the file: on, off, or auto for where they can (auto)"},
    OPTION_END,
};

static const struct option_entry nbd_options[] = {
    OPTION_HELP,
    {'V', "version", NULL, "print the version and end"},
    SERVING_OPTIONS,
    {'t', "persistent", NULL, "do not end when the last client has left"},
    {'L', "list", NULL, "list the exports of another server, which -k, or -b and -p, lead to"},
    {OPT_TLS_HOSTNAME, "tls-hostname", "HOSTNAME",
     "the name that the certificate of the server in the list is to have"},
    {'T', "trace", "TRACE", "[[enable=]<pattern>][,events=<file>][,file=<file>]"},
    {'c', "connect", "DEV", "refused: devices of the kernel are attached by nbd-client"},
    {'d', "disconnect", NULL, "refused, as --connect"},
    OPTION_END,
};

static void init(struct serving *serving, bool drop_in)
{
    *serving = (struct serving){
        .drop_in = drop_in,
        .discard = drop_in ? 0 : -1,
        .export_name = "",
        .length = PLATTER_EXPORT_REST,
        .persistent = !drop_in,
        .queues = 1,
        .others = PLATTER_MOUNT_OTHERS_IF_ALLOWED,
    };
    platter_server_limits_defaults(&serving->limits, 0, NULL);
    if (drop_in)
        serving->limits.clients = 1;
}

/* Parses a number in C notation. */
static bool read_number(uint64_t *number, const char *text)
{
    char *end = NULL;

    errno = 0;
    *number = strtoull(text, &end, 0);
    return errno == 0 && end != text && *end == '\0' && strchr(text, '-') == NULL &&
           *number <= INT64_MAX;
}

static bool read_offset(struct serving *serving, const char *text)
{
    if (!serving->drop_in) {
        serving->offset = options_size(text, "offset");
        return true;
    }
    if (read_number(&serving->offset, text))
        return true;
    if (*text == '-' && strspn(text + 1, "0123456789") == strlen(text + 1))
        print_error("Value '%s' is out of range for parameter 'offset'", text);
    else
        print_error("Invalid offset '%s'", text);
    return false;
}

static bool read_shared(struct serving *serving, const char *text)
{
    if (!read_number(&serving->limits.clients, text) || serving->limits.clients > INT_MAX) {
        print_error("Invalid shared device number '%s'", text);
        return false;
    }
    if (serving->limits.clients == 0)
        serving->limits.clients = UINT64_MAX;
    return true;
}

static bool read_handshake(struct serving *serving, const char *text)
{
    uint64_t seconds = 0;

    if (!read_number(&seconds, text) || seconds > UINT32_MAX) {
        print_error("Invalid handshake limit '%s'", text);
        return false;
    }
    serving->limits.handshake_ms = seconds * 1000;
    return true;
}

static bool read_stall(struct serving *serving, const char *text)
{
    uint64_t seconds = 0;

    if (!read_number(&seconds, text) || seconds == 0 || seconds > UINT32_MAX / 1000) {
        print_error("Invalid stall limit '%s'", text);
        return false;
    }
    serving->limits.stall_ms = seconds * 1000;
    return true;
}

static bool read_cache(struct serving *serving, const char *mode)
{
    if (serving->image.cache != NULL) {
        print_error("-n and --cache can only be specified once");
        return false;
    }
    serving->image.cache = mode;
    if (open_cache_is_known(mode))
        return true;
    print_error("Invalid cache mode `%s'", mode);
    return false;
}

static bool read_aio(bool *given, const char *mode)
{
    if (*given) {
        print_error("--aio can only be specified once");
        return false;
    }
    *given = true;
    if (strcmp(mode, "native") == 0 || strcmp(mode, "threads") == 0 ||
        strcmp(mode, "io_uring") == 0)
        return true;
    print_error("Invalid aio mode '%s'", mode);
    return false;
}

static bool read_discard(struct serving *serving, bool *given, const char *mode)
{
    if (*given) {
        print_error("--discard can only be specified once");
        return false;
    }
    *given = true;
    if (strcmp(mode, "ignore") == 0 || strcmp(mode, "off") == 0) {
        serving->discard = 0;
    } else if (strcmp(mode, "unmap") == 0 || strcmp(mode, "on") == 0) {
        serving->discard = 1;
    } else {
        print_error("Invalid discard mode `%s'", mode);
        return false;
    }
    return true;
}

static bool read_queues(struct serving *serving, bool *given, const char *text)
{
    uint64_t number = 0;

    *given = true;
    if (!read_number(&number, text) || number == 0 || number > 64) {
        print_error("Invalid number of queues '%s': it must be 1 to 64", text);
        return false;
    }
    serving->queues = (uint32_t)number;
    return true;
}

static bool read_others(struct serving *serving, const char *mode)
{
    if (strcmp(mode, "on") == 0) {
        serving->others = PLATTER_MOUNT_OTHERS;
    } else if (strcmp(mode, "off") == 0) {
        serving->others = 0;
    } else if (strcmp(mode, "auto") == 0) {
        serving->others = PLATTER_MOUNT_OTHERS_IF_ALLOWED;
    } else {
        print_error("Invalid mode of --allow-other '%s'", mode);
        return false;
    }
    return true;
}

static bool add_bitmap(struct serving *serving, const char *name)
{
    if (serving->bitmap_count == SERVING_MAX_BITMAPS) {
        print_error("There are more than %d bitmaps", SERVING_MAX_BITMAPS);
        return false;
    }
    /* The peer looks up the last one first. */
    if (serving->drop_in) {
        memmove(serving->bitmaps + 1, serving->bitmaps,
                serving->bitmap_count * sizeof serving->bitmaps[0]);
        serving->bitmaps[0] = name;
        serving->bitmap_count++;
    } else {
        serving->bitmaps[serving->bitmap_count++] = name;
    }
    return true;
}

/* Whether -L is compatible with the other options; prints an error if not. */
static bool can_list(const struct serving *serving)
{
    const char *reason = NULL;

    if (options_operand_count() != 0)
        reason = "List mode is incompatible with a file name";
    else if (serving->per_device || serving->offset != 0)
        reason = "List mode is incompatible with per-device settings";
    else if (serving->fork)
        reason = "List mode is incompatible with forking";
    else if (serving->tls_creds != NULL && serving->tls_authz != NULL)
        reason = "TLS authorization is incompatible with export list";
    if (reason != NULL)
        print_error("%s", reason);
    return reason == NULL;
}

/* The checks that both commands make once all options are parsed; returns false after printing an error. */
static bool is_valid(const struct serving *serving)
{
    if (serving->detect_zeroes != NULL && strcmp(serving->detect_zeroes, "unmap") == 0 &&
        serving->discard == 0) {
        print_error("setting detect-zeroes to unmap is not allowed without setting discard "
                    "operation to unmap");
        return false;
    }
    if (serving->drop_in && serving->socket != NULL && *serving->socket != '/') {
        print_error("socket path must be absolute");
        return false;
    }
    if (serving->list && !can_list(serving))
        return false;
    if (serving->tls_host != NULL && serving->tls_creds == NULL) {
        print_error("--tls-hostname is not permitted without --tls-creds");
        return false;
    }
    if (serving->tls_host != NULL && !serving->list) {
        print_error("TLS hostname is only supported with export list");
        return false;
    }
    if (serving->tls_creds != NULL && objects_are_anonymous(serving->tls_creds)) {
        print_error("Failed to get TLS creds: '%s' is tls-creds-anon, which is not supported, for it "
                    "protects from nobody who is in between; use tls-creds-x509 or tls-creds-psk",
                    serving->tls_creds);
        return false;
    }
    if (serving->tls_authz != NULL && serving->tls_creds == NULL) {
        print_error("--tls-authz is not permitted without --tls-creds");
        return false;
    }
    if (!serving->list && serving->selinux_label != NULL && serving->socket == NULL) {
        print_error("--selinux-label is not permitted without --socket");
        return false;
    }
    if (serving->image.image_opts && serving->image.format != NULL) {
        print_error("--image-opts and %s are mutually exclusive",
                    serving->drop_in ? "-f" : "--format");
        return false;
    }
    return true;
}

/* Checks, for the drop-in, that the texts fit into the protocol; returns false after printing an error. */
static bool texts_fit(const struct serving *serving)
{
    enum { LONGEST = 4096 };

    if (strlen(serving->export_name) > LONGEST)
        print_error("export name '%s' too long", serving->export_name);
    else if (serving->description != NULL && strlen(serving->description) > LONGEST)
        print_error("export description '%s' too long", serving->description);
    else
        return true;
    return false;
}

/* The error that the drop-in prints instead of attaching a kernel device. */
static void refuse_device(const char *device, const char *words)
{
    const int fd = open(device, O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        print_error("%s %s: %s", words, device, strerror(errno));
        return;
    }
    close(fd);
    print_error("Network block devices of the kernel are not supported; "
                "nbd-client attaches an export that is served with -k or -p");
}

/* Checks the other options against --fuse and --vhost-user; returns false after printing an error. */
static bool fits(struct serving *serving, bool writable, bool given_others, bool given_queues)
{
    const bool clients = serving->socket != NULL || serving->host != NULL || serving->port != NULL ||
                         serving->stdio || serving->tls_creds != NULL;

    if (serving->mountpoint == NULL && (serving->growable || given_others)) {
        print_error("--growable and --allow-other are not permitted without --fuse");
        return false;
    }
    if (serving->device == NULL && given_queues) {
        print_error("--queues is not permitted without --vhost-user");
        return false;
    }
    if (writable && serving->read_only) {
        print_error("--writable and --read-only are mutually exclusive");
        return false;
    }
    if (serving->mountpoint == NULL && serving->device == NULL)
        return true;
    if (clients || (serving->mountpoint != NULL && serving->device != NULL)) {
        print_error("--fuse, --vhost-user and the options that take clients are mutually exclusive");
        return false;
    }
    if (serving->growable && !writable) {
        print_error("--growable is not permitted without --writable");
        return false;
    }
    if (!writable && !serving->overlay)
        serving->read_only = true;
    if (serving->mountpoint != NULL)
        serving->persistent = false;
    return true;
}

/* Whether an option concerns the image to serve, and so makes no sense with a list. */
static bool is_per_device(int code)
{
    switch (code) {
    case 'x':
    case 'D':
    case 'A':
    case 'B':
    case 'f':
    case 'l':
    case 'n':
    case OPT_CACHE:
    case OPT_AIO:
    case OPT_DISCARD:
        return true;
    default:
        return false;
    }
}

/* Parses the options; returns false after printing an error. */
static bool parse(struct serving *serving)
{
    bool aio = false, discard = false, writable = false, others = false, queues = false;

    for (int code; (code = options_next()) != -1;) {
        const char *argument = options_argument();
        bool valid = true;

        serving->per_device = serving->per_device || is_per_device(code);
        switch (code) {
        case 'k': serving->socket = argument; break;
        case 'b': serving->host = argument; break;
        case 'p': serving->port = argument; break;
        case 'e': valid = read_shared(serving, argument); break;
        case 'x': serving->export_name = argument; break;
        case 'D': serving->description = argument; break;
        case OPT_HANDSHAKE_LIMIT: valid = read_handshake(serving, argument); break;
        case OPT_STALL_LIMIT: valid = read_stall(serving, argument); break;
        case 'o': valid = read_offset(serving, argument); break;
        case OPT_SIZE: serving->length = options_size(argument, "size"); break;
        case OPT_MEMORY: serving->limits.memory = options_size(argument, "memory"); break;
        case 'A': serving->allocation_depth = true; break;
        case 'B': valid = add_bitmap(serving, argument); break;
        case 'f': serving->image.format = argument; break;
        case OPT_IMAGE_OPTS: serving->image.image_opts = true; break;
        case 'r': serving->read_only = true; break;
        case 's': serving->overlay = true; break;
        case 'l': serving->snapshot = argument; break;
        case 'n': valid = read_cache(serving, "none"); break;
        case OPT_CACHE: valid = read_cache(serving, argument); break;
        case OPT_AIO: valid = read_aio(&aio, argument); break;
        case OPT_DISCARD: valid = read_discard(serving, &discard, argument); break;
        case OPT_DETECT_ZEROES: serving->detect_zeroes = argument; break;
        case 't': serving->persistent = true; break;
        case OPT_ONCE: serving->persistent = false; break;
        case OPT_STDIO:
            serving->stdio = true;
            serving->persistent = false;
            break;
        case OPT_FUSE: serving->mountpoint = argument; break;
        case OPT_VHOST_USER: serving->device = argument; break;
        case OPT_QUEUES: valid = read_queues(serving, &queues, argument); break;
        case 'w': writable = true; break;
        case OPT_GROWABLE: serving->growable = true; break;
        case OPT_ALLOW_OTHER:
            others = true;
            valid = read_others(serving, argument);
            break;
        case OPT_TLS_CREDS: serving->tls_creds = argument; break;
        case OPT_TLS_AUTHZ: serving->tls_authz = argument; break;
        case OPT_TLS_HOSTNAME: serving->tls_host = argument; break;
        case OPT_SELINUX_LABEL: serving->selinux_label = argument; break;
        case 'L': serving->list = true; break;
        case OPT_FORK: serving->fork = true; break;
        case OPT_PID_FILE: serving->pid_file = argument; break;
        case 'v': serving->verbose = true; break;
        case 'V':
            printf("%s 10.0.2 (Platter %s)\n", print_program(), platter_version_string());
            print_exit(0, 1);
        case 'T':
            switch (trace_accept(argument)) {
            case TRACE_ACCEPTED:
                break;
            case TRACE_LISTED:
                print_exit(0, 1);
            case TRACE_REFUSED:
                valid = false;
            }
            break;
        case 'c': serving->connect = argument; break;
        case 'd': serving->disconnect = true; break;
        default: break;
        }
        if (!valid)
            return false;
    }
    return is_valid(serving) && fits(serving, writable, others, queues);
}

static int run(void)
{
    struct serving serving;

    init(&serving, false);
    if (!parse(&serving))
        return 1;
    serving.name = options_one_image();
    return serving_run(&serving);
}

const struct command command_serve = {
    .name = "serve",
    .summary = "Offer an image to clients that speak NBD, as a file, or as a device",
    .synopsis = "[-k PATH | -b IFACE -p PORT | --stdio | --fuse MOUNTPOINT | --vhost-user SOCKET]\n"
                "[-f FMT | --image-opts] [-r] [-s] [-l SNAPSHOT_PARAM]\n"
                "[-x NAME] [-D TEXT] [-B NAME]... [-A] [-o OFFSET] [--size SIZE]\n"
                "[-e NUM] [--once] [--fork] [--pid-file PATH] [--object OBJDEF]... IMAGE",
    .options = serve_options,
    .operands = "IMAGE\n   the image to serve",
    .failure = 1,
    .run = run,
};

static const struct command command_nbd = {
    .name = "",
    .summary = "Serve an image to clients that speak NBD",
    .synopsis = "[OPTIONS] FILE\n-L [OPTIONS]",
    .options = nbd_options,
    .operands = "FILE\n   the image to serve",
    .failure = 1,
    .run = NULL,
};

/* Lists what another server exports; returns false after printing an error. */
static bool list(const struct serving *serving)
{
    const struct exports_server server = {
        .socket = serving->socket,
        .host = serving->host != NULL ? serving->host : "0.0.0.0",
        .port = serving->port != NULL ? serving->port : "10809",
        .tls_creds = serving->tls_creds,
        .tls_host = serving->tls_host,
    };

    return exports_print_as_peer(&server);
}

int nbd_main(int argc, char **argv)
{
    struct serving serving;

    print_set_hint("Try `%s --help' for more information.");
    options_begin(&command_nbd, argc, argv);
    init(&serving, true);
    if (!parse(&serving))
        return 1;
    if (serving.list)
        return list(&serving) ? 0 : 1;
    if (options_operand_count() != 1) {
        print_error("Invalid number of arguments");
        fprintf(stderr, "Try `%s --help' for more information.\n", print_invoked());
        return 1;
    }
    serving.name = options_operands()[0];
    if (serving.disconnect) {
        refuse_device(serving.name, "Cannot open");
        return 1;
    }
    if (!texts_fit(&serving))
        return 1;
    if (serving.connect != NULL) {
        refuse_device(serving.connect, "Failed to open");
        return 1;
    }
    return serving_run(&serving);
}
