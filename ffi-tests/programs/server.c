/* Servers: exports, addresses, a hand-written client, events, statistics, shutdown, and lifetimes. */
#include "check.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SIZE ((uint64_t)1 << 20)

static void receive(int fd, void *buf, size_t len)
{
    unsigned char *at = buf;
    while (len > 0) {
        const ssize_t n = read(fd, at, len);
        CHECK(n > 0);
        at += n;
        len -= (size_t)n;
    }
}

static void transmit(int fd, const void *buf, size_t len)
{
    CHECK(write(fd, buf, len) == (ssize_t)len);
}

/* Selects the export with the old option NBD_OPT_EXPORT_NAME; the reply begins with its size. */
static uint64_t handshake(int fd, const char *name)
{
    const size_t len = strlen(name);
    const unsigned char flags[4] = {0, 0, 0, 3};
    const unsigned char option[16] = {'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T',
                                      0,   0,   0,   1,   0,   0,   0,   (unsigned char)len};
    unsigned char greeting[18], export[10];
    uint64_t size = 0;
    receive(fd, greeting, sizeof greeting);
    CHECK(memcmp(greeting, "NBDMAGICIHAVEOPT", 16) == 0);
    transmit(fd, flags, sizeof flags);
    transmit(fd, option, sizeof option);
    if (len > 0)
        transmit(fd, name, len);
    receive(fd, export, sizeof export);
    for (int i = 0; i < 8; i++)
        size = size << 8 | export[i];
    return size;
}

/* Sends a request and receives the header of its reply; returns the protocol's error value. */
static unsigned request(int fd, unsigned command, uint64_t offset, const void *data, unsigned len)
{
    unsigned char head[28] = {0x25, 0x60, 0x95, 0x13, 0, 0, 0, (unsigned char)command, 1, 2, 3};
    unsigned char reply[16];
    for (int i = 0; i < 8; i++)
        head[16 + i] = (unsigned char)(offset >> (56 - 8 * i));
    for (int i = 0; i < 4; i++)
        head[24 + i] = (unsigned char)(len >> (24 - 8 * i));
    transmit(fd, head, sizeof head);
    if (data != NULL)
        transmit(fd, data, len);
    receive(fd, reply, sizeof reply);
    CHECK(memcmp(reply + 8, "\1\2\3", 3) == 0);
    return (unsigned)reply[4] << 24 | (unsigned)reply[5] << 16 | (unsigned)reply[6] << 8 | reply[7];
}

static void wait_for_event(const platter_server *server)
{
    int fd;
    OK(platter_server_fd(&fd, server, 0, &err));
    struct pollfd event = {.fd = fd, .events = POLLIN};
    CHECK(poll(&event, 1, -1) == 1);
}

static uint64_t clients(const platter_server *server)
{
    platter_server_statistics now;
    OK(platter_server_get_statistics(&now, server, 0, &err));
    return now.clients;
}

static platter_server *serving(const platter_image *image, const char *name, uint32_t flags)
{
    platter_server *server;
    platter_export *export;
    OK(platter_server_new(&server, NULL, 0, &err));
    OK(platter_export_new(&export, image, flags, &err));
    OK(platter_export_set_name(export, name, 0, &err));
    CHECK_U64(platter_export_size(export), SIZE);
    OK(platter_server_add_export(server, export, 0, &err));
    FAILS(platter_server_add_export(server, export, 0, &err), PLATTER_STATUS_EXISTS, "already");
    platter_export_free(export);
    return server;
}

static void a_client_reads_and_writes(void)
{
    unsigned char out[4096], in[4096];
    int ends[2];
    platter_server_statistics now;
    make_image("a.qcow2", "qcow2", SIZE, NULL);
    platter_image *image = open_image("a.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    platter_server *server = serving(image, "disk", PLATTER_EXPORT_WRITE);
    CHECK(platter_server_last_error(server) == NULL);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    OK(platter_server_serve_fds(server, ends[1], ends[1], 0, &err));
    close(ends[1]);
    wait_for_event(server);
    CHECK_U64(clients(server), 1);

    CHECK_U64(handshake(ends[0], "disk"), SIZE);
    fill_pattern(out, sizeof out, 7);
    CHECK(request(ends[0], 1, 8192, out, sizeof out) == 0);
    CHECK(request(ends[0], 0, 8192, NULL, sizeof in) == 0);
    receive(ends[0], in, sizeof in);
    CHECK(memcmp(in, out, sizeof in) == 0);
    /* The program and its clients see the same data. */
    memset(in, 0, sizeof in);
    OK(platter_image_read(image, in, sizeof in, 8192, 0, &err));
    CHECK(memcmp(in, out, sizeof in) == 0);
    CHECK(request(ends[0], 0, SIZE, NULL, 1) == 22);
    close(ends[0]);
    do {
        wait_for_event(server);
    } while (clients(server) > 0);
    OK(platter_server_get_statistics(&now, server, 0, &err));
    CHECK_U64(now.accepted, 1);
    CHECK_U64(now.requests, 3);
    CHECK_U64(now.failures, 1);
    CHECK_U64(now.bytes_written, sizeof out);
    CHECK_U64(now.memory, 0);

    OK(platter_server_drain(server, -1, 0, &err));
    OK(platter_server_drain(server, 0, 0, &err));
    OK(platter_server_stop(server, 0, &err));
    FAILS(platter_server_serve_fds(server, 0, 0, 0, &err), PLATTER_STATUS_INVALID, "");
    platter_server_free(server);
    OK(platter_image_close(image, 0, &err));
}

static void clients_come_to_addresses(void)
{
    struct stat found;
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "s.sock"};
    uint32_t truth;
    size_t count;
    uint64_t number;
    const char *text;
    platter_error *left;
    platter_policy *policy;
    platter_open_options *options;
    platter_control *control;
    platter_report *report;
    platter_image *image = open_image("a.qcow2", "qcow2", 0);
    platter_server *server = serving(image, "", 0);
    OK(platter_server_listen(server, "unix:s.sock", 0, &err));
    OK(platter_server_listen(server, "inet:127.0.0.1:0", 0, &err));
    CHECK_STR(platter_server_address(server, 0), "s.sock");
    CHECK(strncmp(platter_server_address(server, 1), "127.0.0.1:", 10) == 0);
    CHECK(platter_server_address(server, 2) == NULL);
    FAILS(platter_server_listen(server, "inet:127.0.0.1:65536", 0, &err), PLATTER_STATUS_INVALID,
          "up to 65535");
    FAILS(platter_server_listen(server, "inet:nowhere", 0, &err), PLATTER_STATUS_INVALID,
          "is not an address");

    /* The list of exports, as clients see it. */
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_export_list(&report, "nbd+unix://?socket=s.sock", options, 0, &err));
    CHECK_U64(platter_report_kind(report), PLATTER_REPORT_EXPORTS);
    OK(platter_report_count(&count, report, 0, &err));
    CHECK_U64(count, 1);
    OK(platter_report_string(&text, report, 0, "name", 0, &err));
    CHECK_STR(text, "");
    OK(platter_report_string(&text, report, 0, "contexts", 0, &err));
    CHECK_STR(text, "base:allocation");
    OK(platter_report_u64(&number, report, 0, "size", 0, &err));
    CHECK_U64(number, SIZE);
    OK(platter_report_u64(&number, report, 0, "transaction-bits", 0, &err));
    CHECK_U64(number, 64);
    OK(platter_report_bool(&truth, report, 0, "read-only", 0, &err));
    CHECK(truth);
    OK(platter_report_text(&text, report, 0, &err));
    CHECK(strncmp(text, "exports available: 1\n export: ''\n", 33) == 0);
    OK(platter_report_json(&text, report, 0, &err));
    CHECK(strstr(text, "\"readonly\"") != NULL);
    platter_report_free(report);
    OK(platter_control_new(&control, 0, &err));
    platter_control_cancel(control);
    OK(platter_open_options_set_control(options, control, 0, &err));
    FAILS(platter_export_list(&report, "nbd+unix://?socket=s.sock", options, 0, &err),
          PLATTER_STATUS_CANCELLED, "");
    platter_control_free(control);
    platter_open_options_free(options);
    platter_policy_free(policy);
    do {
        wait_for_event(server);
    } while (clients(server) > 0);

    /* The image stays open after its handle is closed. */
    OK(platter_image_close(image, 0, &err));
    const int client = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&name, sizeof name) == 0);
    CHECK_U64(handshake(client, ""), SIZE);
    CHECK(request(client, 1, 0, "x", 1) == 1);
    transmit(client, "this is no request at all...", 28);
    do {
        wait_for_event(server);
    } while (clients(server) > 0);
    left = platter_server_last_error(server);
    CHECK(left != NULL && strstr(platter_error_message(left), "was left") != NULL);
    platter_error_free(left);
    close(client);
    platter_server_free(server);
    CHECK(stat("s.sock", &found) != 0);
}

/* Works if this user can mount; otherwise the status says why not. */
static void an_image_is_a_file(void)
{
    unsigned char byte;
    platter_export *export;
    platter_server *server;
    platter_error *err;
    platter_image *image = open_image("a.qcow2", "qcow2", 0);
    const int made = open("m", O_CREAT | O_WRONLY, 0600);
    CHECK(made >= 0 && close(made) == 0);
    OK(platter_server_new(&server, NULL, 0, &err));
    OK(platter_export_new(&export, image, 0, &err));
    const int status =
        platter_server_mount(server, export, "m", PLATTER_MOUNT_OTHERS_IF_ALLOWED, &err);
    if (status == PLATTER_OK) {
        const int fd = open("m", O_RDONLY);
        CHECK(fd >= 0);
        CHECK_U64(clients(server), 1);
        CHECK_U64((uint64_t)lseek(fd, 0, SEEK_END), SIZE);
        CHECK(pread(fd, &byte, 1, 8192) == 1);
        /* An open file does not delay the shutdown. */
        OK(platter_server_drain(server, 1000, 0, &err));
        CHECK(pread(fd, &byte, 1, 500000) < 0);
        close(fd);
    } else {
        CHECK(status == PLATTER_STATUS_OS || status == PLATTER_STATUS_UNSUPPORTED ||
              status == PLATTER_STATUS_NOT_FOUND || status == PLATTER_STATUS_DENIED);
        platter_error_free(err);
    }
    CHECK_U64(clients(server), 0);
    platter_export_free(export);
    platter_server_free(server);
    OK(platter_image_close(image, 0, &err));
}

static void an_image_is_a_device(void)
{
    struct stat found;
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "v.sock"};
    platter_export *export;
    platter_server *server;
    platter_image *image = open_image("a.qcow2", "qcow2", 0);
    OK(platter_server_new(&server, NULL, 0, &err));
    OK(platter_export_new(&export, image, 0, &err));
    OK(platter_server_listen_vhost_user(server, export, "v.sock", 2, 0, &err));
    platter_export_free(export);
    const int front = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(connect(front, (struct sockaddr *)&name, sizeof name) == 0);
    wait_for_event(server);
    CHECK_U64(clients(server), 1);
    /* A front end that stays connected does not delay the shutdown. */
    OK(platter_server_drain(server, 1000, 0, &err));
    CHECK_U64(clients(server), 0);
    close(front);
    platter_server_free(server);
    CHECK(stat("v.sock", &found) != 0);
    OK(platter_image_close(image, 0, &err));
}

/* An export is removed while a client uses it, and another image takes its name. */
static void exports_come_and_go(void)
{
    unsigned char byte;
    int ends[2];
    char *text;
    platter_offered offered;
    platter_export *export;
    platter_image *image = open_image("a.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    platter_server *server = serving(image, "disk", PLATTER_EXPORT_WRITE);
    OK(platter_export_new(&export, image, PLATTER_EXPORT_ALLOCATION_DEPTH, &err));
    OK(platter_export_set_name(export, "a window", 0, &err));
    OK(platter_export_set_window(export, 512, 1024, 0, &err));
    OK(platter_server_add_export(server, export, 0, &err));
    OK(platter_server_export_name(&text, server, 0, 0, &err));
    CHECK_STR(text, "a window");
    platter_free(text);
    OK(platter_server_export_name(&text, server, 1, 0, &err));
    CHECK_STR(text, "disk");
    platter_free(text);
    FAILS(platter_server_export_name(&text, server, 2, 0, &err), PLATTER_STATUS_NOT_FOUND, "index 2");
    OK(platter_server_get_export(&offered, server, "a window", 0, &err));
    CHECK(offered.size == 1024 && offered.offset == 512 && offered.clients == 0);
    CHECK(offered.flags == PLATTER_EXPORT_ALLOCATION_DEPTH && offered.bitmaps == 0);

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    OK(platter_server_serve_fds(server, ends[1], ends[1], 0, &err));
    close(ends[1]);
    CHECK_U64(handshake(ends[0], "disk"), SIZE);
    CHECK(request(ends[0], 1, 0, "x", 1) == 0);
    OK(platter_server_get_export(&offered, server, "disk", 0, &err));
    CHECK(offered.clients == 1 && offered.flags == PLATTER_EXPORT_WRITE);
    OK(platter_server_remove_export(server, "a window", -1, 0, &err));
    CHECK(request(ends[0], 1, 0, "y", 1) == 0);
    OK(platter_server_remove_export(server, "disk", -1, 0, &err));
    CHECK(read(ends[0], &byte, 1) == 0);
    close(ends[0]);
    FAILS(platter_server_get_export(&offered, server, "disk", 0, &err), PLATTER_STATUS_NOT_FOUND,
          "no export 'disk'");
    /* The image is released: it can be opened for writing again. */
    platter_export_free(export);
    OK(platter_image_close(image, 0, &err));
    image = open_image("a.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_export_new(&export, image, 0, &err));
    OK(platter_server_add_export(server, export, 0, &err));
    OK(platter_server_remove_export(server, NULL, 0, 0, &err));
    platter_export_free(export);
    platter_server_free(server);
    OK(platter_image_close(image, 0, &err));
}

int main(void)
{
    a_client_reads_and_writes();
    exports_come_and_go();
    clients_come_to_addresses();
    an_image_is_a_file();
    an_image_is_a_device();
    passed();
    return 0;
}
