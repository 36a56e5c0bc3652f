/* A disk that moves from a web server to a Ceph cluster: a base behind https, a local overlay over it that a server
 * exports over NBD, a client that writes, a copy of the base in the cluster, and a commit into it. Arguments: the
 * URL of the base, the name of the image in the cluster, and the size of both. */
#include "workflow.h"

static void are_identical(const char *a, const char *format_a, const char *b, const char *format_b)
{
    platter_image *left = opened(a, format_a, 0), *right = opened(b, format_b, 0);
    platter_job *job;
    int code;
    OK(platter_compare_job_new(&job, left, right, PLATTER_COMPARE_STRICT, &err));
    platter_report *report = result_of(job);
    OK(platter_report_exit_code(&code, report, 0, &err));
    CHECK_U64((unsigned)code, 0);
    platter_report_free(report);
    OK(platter_image_close(left, 0, &err));
    OK(platter_image_close(right, 0, &err));
}

int main(int argc, char **argv)
{
    static const char export_name[] = "nbd+unix:///disk?socket=disk.sock";
    platter_job *job;
    CHECK(argc == 4);
    const char *const base = argv[1], *const cluster = argv[2];
    const uint64_t size = strtoull(argv[3], NULL, 10);
    CHECK(size > 0 && size <= MAX_SIZE);
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));

    platter_image *web = opened(base, "raw", 0);
    OK(platter_image_read(web, expected, size, 0, 0, &err));
    OK(platter_image_close(web, 0, &err));

    /* A virtual machine uses the overlay, whose base is still on the web server. */
    make_overlay("disk.qcow2", base);
    platter_image *disk = opened("disk.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    platter_server *server = serving(disk, "disk", NULL);
    OK(platter_server_listen(server, "unix:disk.sock", 0, &err));
    write_as_client(export_name, 0, 512, 1);
    write_as_client(export_name, 1000000, 300000, 2);
    write_as_client(export_name, size - 512, 512, 3);
    holds_what_was_written(export_name, "raw", size);
    OK(platter_server_drain(server, -1, 0, &err));
    platter_server_free(server);
    OK(platter_image_close(disk, 0, &err));

    /* The base is copied into the cluster, and what was written is committed into it. */
    copy_whole(base, "raw", cluster);
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
