/* A disk that moves from a web server to a cluster of Ceph: a base behind https, a local overlay over it that a server
 * offers by NBD, a client that writes, a copy of the base in the cluster, and a commit into that. The arguments are the
 * URL of the base, the name of the image in the cluster, and the size of both. */
#include "check.h"

#define MAX_SIZE ((uint64_t)16 << 20)

static unsigned char bytes[MAX_SIZE], found[MAX_SIZE], expected[MAX_SIZE];

static platter_policy *policy;

static platter_open_options *opening(const char *format)
{
    platter_open_options *options;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_open_options_set_format(options, format, 0, &err));
    return options;
}

static platter_image *opened(const char *location, const char *format, uint32_t flags)
{
    platter_open_options *options = opening(format);
    platter_image *image;
    OK(platter_image_open(&image, location, options, flags, &err));
    platter_open_options_free(options);
    return image;
}

static void run(platter_job *job)
{
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
}

static void make_overlay(const char *path, const char *base)
{
    platter_create *create;
    platter_job *job;
    OK(platter_create_new(&create, path, "qcow2", 0, &err));
    OK(platter_create_set_backing(create, base, "raw", 0, &err));
    OK(platter_create_set_policy(create, policy, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    platter_create_free(create);
    run(job);
}

static void copy(const char *from, const char *to)
{
    platter_open_options *options = opening("raw");
    platter_convert *convert;
    platter_job *job;
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_add_source(convert, from, 0, &err));
    OK(platter_convert_set_target(convert, to, "raw", 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    platter_convert_free(convert);
    platter_open_options_free(options);
    run(job);
}

static void write_as_client(const char *export, uint64_t offset, size_t len, unsigned char value)
{
    platter_image *client = opened(export, "raw", PLATTER_OPEN_WRITE);
    memset(bytes, value, len);
    memset(expected + offset, value, len);
    OK(platter_image_write(client, bytes, len, offset, 0, &err));
    OK(platter_image_flush(client, 0, &err));
    OK(platter_image_close(client, 0, &err));
}

static void are_identical(const char *a, const char *format_a, const char *b, const char *format_b)
{
    platter_image *left = opened(a, format_a, 0), *right = opened(b, format_b, 0);
    platter_report *report;
    platter_job *job;
    int code;
    OK(platter_compare_job_new(&job, left, right, PLATTER_COMPARE_STRICT, &err));
    OK(platter_job_run(job, 0, &err));
    OK(platter_job_result(&report, job, 0, &err));
    platter_job_free(job);
    OK(platter_report_exit_code(&code, report, 0, &err));
    CHECK_U64((unsigned)code, 0);
    platter_report_free(report);
    OK(platter_image_close(left, 0, &err));
    OK(platter_image_close(right, 0, &err));
}

static void holds_what_was_written(const char *location, const char *format, uint64_t size)
{
    platter_image *image = opened(location, format, 0);
    uint64_t its_size;
    OK(platter_image_size(&its_size, image, 0, &err));
    CHECK_U64(its_size, size);
    OK(platter_image_read(image, found, size, 0, 0, &err));
    CHECK(memcmp(found, expected, size) == 0);
    OK(platter_image_close(image, 0, &err));
}

int main(int argc, char **argv)
{
    static const char export_name[] = "nbd+unix:///disk?socket=disk.sock";
    platter_server *server;
    platter_export *export;
    platter_job *job;
    CHECK(argc == 4);
    const char *const base = argv[1], *const cluster = argv[2];
    const uint64_t size = strtoull(argv[3], NULL, 10);
    CHECK(size > 0 && size <= MAX_SIZE);
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));

    platter_image *web = opened(base, "raw", 0);
    OK(platter_image_read(web, expected, size, 0, 0, &err));
    OK(platter_image_close(web, 0, &err));

    /* A machine runs on the overlay, whose base is still with the web server. */
    make_overlay("disk.qcow2", base);
    platter_image *disk = opened("disk.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_server_new(&server, NULL, 0, &err));
    OK(platter_export_new(&export, disk, PLATTER_EXPORT_WRITE, &err));
    OK(platter_export_set_name(export, "disk", 0, &err));
    OK(platter_server_add_export(server, export, 0, &err));
    platter_export_free(export);
    OK(platter_server_listen(server, "unix:disk.sock", 0, &err));
    write_as_client(export_name, 0, 512, 1);
    write_as_client(export_name, 1000000, 300000, 2);
    write_as_client(export_name, size - 512, 512, 3);
    holds_what_was_written(export_name, "raw", size);
    OK(platter_server_drain(server, -1, 0, &err));
    platter_server_free(server);
    OK(platter_image_close(disk, 0, &err));

    /* The base moves into the cluster, and what was written follows it. */
    copy(base, cluster);
    platter_open_options *options = opening("qcow2");
    OK(platter_rebase_job_new(&job, "disk.qcow2", cluster, "raw", NULL, options, 0, &err));
    run(job);
    holds_what_was_written("disk.qcow2", "qcow2", size);
    OK(platter_commit_job_new(&job, "disk.qcow2", NULL, options, 0, &err));
    run(job);
    platter_open_options_free(options);
    holds_what_was_written(cluster, "raw", size);
    are_identical("disk.qcow2", "qcow2", cluster, "raw");

    platter_policy_free(policy);
    passed();
    return 0;
}
