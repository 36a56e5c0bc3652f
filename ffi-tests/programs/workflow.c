/* A backup using only this interface: a base behind TLS, an overlay over it that a server exports with a dirty
 * bitmap, a client that writes, one that copies what is dirty, and a commit into the base. */
#include "workflow.h"

#define SIZE ((uint64_t)4 << 20)
#define CLUSTER ((uint64_t)65536)

#ifdef SLOW_RUN
/* Pre-shared keys: valgrind regards the digests that assembler code computes for certificates as undefined bytes. */
static void make_credentials(void)
{
    const char *server[] = {"keys", "client:00112233445566778899aabbccddeeff", "endpoint", "server", NULL};
    const char *client[] = {"keys", "client:00112233445566778899aabbccddeeff", "username", "client", NULL};
    const char *rule[] = {"identity", "client", NULL};
    OK(platter_secrets_add_tls_psk(secrets, "server", server, 0, &err));
    OK(platter_secrets_add_tls_psk(secrets, "client", client, 0, &err));
    OK(platter_secrets_add_authorization(secrets, "backup", rule, 0, &err));
}
#else
/* Creates a certificate authority, and certificates from it for both ends. */
static const char *const certificates =
    "set -e\n"
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ca.key \\\n"
    "  -out ca-cert.pem -subj /CN=Authority -addext basicConstraints=critical,CA:TRUE \\\n"
    "  -addext keyUsage=critical,keyCertSign,cRLSign\n"
    "for end in server client; do\n"
    "  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $end-key.pem -out $end.csr \\\n"
    "    -subj /CN=$end\n"
    "  printf 'basicConstraints=critical,CA:FALSE\\nextendedKeyUsage=%sAuth\\nsubjectAltName=DNS:localhost\\n' \\\n"
    "    $end > $end.ext\n"
    "  openssl x509 -req -in $end.csr -CA ca-cert.pem -CAkey ca.key -CAcreateserial -days 30 \\\n"
    "    -extfile $end.ext -out $end-cert.pem\n"
    "done\n";

static void make_credentials(void)
{
    const char *server[] = {"dir", ".", "endpoint", "server", NULL};
    const char *client[] = {"dir", ".", NULL};
    const char *rule[] = {"identity", "CN=client", NULL};
    FILE *script = fopen("certificates.sh", "w");
    CHECK(script != NULL && fputs(certificates, script) >= 0 && fclose(script) == 0);
    CHECK(system("sh certificates.sh > /dev/null 2>&1") == 0);
    OK(platter_secrets_add_tls_x509(secrets, "server", server, 0, &err));
    OK(platter_secrets_add_tls_x509(secrets, "client", client, 0, &err));
    OK(platter_secrets_add_authorization(secrets, "backup", rule, 0, &err));
}
#endif

/* The location of the base, as the overlay records it for its backing file. */
static void name_base(char *name, size_t room, const platter_server *server)
{
    const char *port = strrchr(platter_server_address(server, 0), ':') + 1;
    const int len = snprintf(name, room,
                             "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"nbd\",\"export\":\"base\","
                             "\"server\":{\"type\":\"inet\",\"host\":\"127.0.0.1\",\"port\":\"%s\"},"
                             "\"tls-creds\":\"client\",\"tls-hostname\":\"localhost\"}}",
                             port);
    CHECK(len > 0 && (size_t)len < room);
}

/* Copies what is dirty in the bitmap of the export; returns the number of bytes. */
static uint64_t copy_dirty(const char *export, const char *dirty_bytes, const char *to)
{
    /* The client reports the clean parts of a bitmap as data. */
    platter_image *bitmap = opened(dirty_bytes, NULL, PLATTER_LOCATION_IMAGE_OPTS);
    platter_image *source = opened(export, "raw", 0);
    platter_image *target = opened(to, "raw", PLATTER_OPEN_WRITE);
    uint64_t copied = 0;
    platter_extent run;
    for (uint64_t at = 0; at < SIZE; at += run.length) {
        OK(platter_image_extent(&run, bitmap, at, SIZE - at, 0, &err));
        CHECK(run.length > 0);
        if ((run.flags & PLATTER_EXTENT_DATA) == 0) {
            OK(platter_image_read(source, bytes, run.length, at, 0, &err));
            OK(platter_image_write(target, bytes, run.length, at, 0, &err));
            copied += run.length;
        }
    }
    OK(platter_image_close(target, 0, &err));
    OK(platter_image_close(source, 0, &err));
    OK(platter_image_close(bitmap, 0, &err));
    return copied;
}

int main(void)
{
    static const char export[] = "nbd+unix:///disk?socket=disk.sock";
    char base_name[512];
    platter_job *job;
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_secrets_new(&secrets, 0, &err));
    make_credentials();

    /* The base is on a server that requires TLS and authorizes its clients. */
    make_image("base.qcow2", "qcow2", SIZE, NULL);
    platter_image *base = open_image("base.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    fill_pattern(expected, SIZE / 2, 0);
    OK(platter_image_write(base, expected, SIZE / 2, 0, 0, &err));
    platter_server *archive = serving(base, "base", NULL);
    OK(platter_server_set_tls(archive, secrets, "server", "backup", 0, &err));
    OK(platter_server_listen(archive, "inet:127.0.0.1:0", 0, &err));
    name_base(base_name, sizeof base_name, archive);

    /* Over it, a local image, which tracks changes from the full backup on. */
    make_overlay("disk.qcow2", base_name);
    platter_image *disk = opened("disk.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_bitmap_add(disk, "monday", CLUSTER, 0, &err));
    platter_server *server = serving(disk, "disk", "monday");
    OK(platter_server_listen(server, "unix:disk.sock", 0, &err));
    copy_whole(export, "raw", "backup.raw");
    holds_what_was_written("backup.raw", "raw", SIZE);

    write_as_client(export, 3 * CLUSTER, CLUSTER, 1);
    write_as_client(export, 5 * CLUSTER + 100, 1000, 2);
    write_as_client(export, SIZE - 512, 512, 3);

    /* From now on, another bitmap tracks changes for the next backup. */
    OK(platter_bitmap_add(disk, "tuesday", CLUSTER, 0, &err));
    OK(platter_bitmap_disable(disk, "monday", 0, &err));
    CHECK_U64(copy_dirty(export,
                         "driver=raw,file.driver=nbd,file.path=disk.sock,file.export=disk,"
                         "file.x-dirty-bitmap=qemu:dirty-bitmap:monday",
                         "backup.raw"),
              3 * CLUSTER);
    holds_what_was_written("backup.raw", "raw", SIZE);
    write_as_client(export, 9 * CLUSTER, 1, 4);
    holds_what_was_written(export, "raw", SIZE);
    OK(platter_server_drain(server, -1, 0, &err));
    platter_server_free(server);
    platter_report *dirty;
    size_t count;
    OK(platter_bitmap_dirty(&dirty, disk, "tuesday", 0, UINT64_MAX, 0, &err));
    OK(platter_report_count(&count, dirty, 0, &err));
    CHECK_U64(count, 1);
    platter_report_free(dirty);
    OK(platter_image_close(disk, 0, &err));

    /* What was written is committed into the base, over TLS. */
    platter_open_options *options = opening("qcow2");
    OK(platter_commit_job_new(&job, "disk.qcow2", NULL, options, 0, &err));
    platter_open_options_free(options);
    run(job);
    holds_what_was_written("disk.qcow2", "qcow2", SIZE);
    holds_what_was_written(base_name, NULL, SIZE);
    OK(platter_server_drain(archive, -1, 0, &err));
    platter_server_free(archive);
    OK(platter_image_read(base, found, SIZE, 0, 0, &err));
    CHECK(memcmp(found, expected, SIZE) == 0);
    OK(platter_image_close(base, 0, &err));
    holds_what_was_written("base.qcow2", "qcow2", SIZE);

    platter_policy_free(policy);
    platter_secrets_free(secrets);
    passed();
    return 0;
}
