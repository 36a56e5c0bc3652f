/* Objects may be freed in any order: an object that needs another keeps it alive. */
#include "check.h"

static int frees;

static void count_free(void *user_data)
{
    (void)user_data;
    frees++;
}

static int zero_read(void *buf, size_t len, uint64_t offset, void *user_data)
{
    (void)offset, (void)user_data;
    memset(buf, 0, len);
    return 0;
}

static int fixed_size(uint64_t *size, void *user_data)
{
    (void)user_data;
    *size = 1 << 20;
    return 0;
}

static void image_before_job(void)
{
    platter_storage_ops ops = {.read = zero_read, .size = fixed_size};
    platter_open_options *options;
    platter_image *image;
    platter_job *job, *other;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "raw", 0, &err));
    OK(platter_image_open_storage(&image, &ops, NULL, NULL, count_free, options, 0, &err));
    platter_open_options_free(options);
    OK(platter_map_job_new(&job, image, 0, PLATTER_LENGTH_ALL, 0, &err));
    OK(platter_compare_job_new(&other, image, image, 0, &err));
    OK(platter_image_close(image, 0, &err));
    CHECK(frees == 0);
    OK(platter_job_run(job, 0, &err));
    platter_report *report, *same;
    OK(platter_job_result(&report, job, 0, &err));
    OK(platter_job_result(&same, job, 0, &err));
    CHECK(frees == 0);
    /* A job that is never run also releases its images. */
    platter_job_free(other);
    CHECK(frees == 1);
    const char *json, *again;
    OK(platter_report_json(&json, report, 0, &err));
    platter_job_free(job);
    OK(platter_report_json(&again, report, 0, &err));
    CHECK(again == json && json[0] == '[');
    platter_report_free(report);
    OK(platter_report_json(&json, same, 0, &err));
    CHECK(json[0] == '[');
    platter_report_free(same);
}

static void parameters_before_use(void)
{
    platter_create *create;
    platter_job *job;
    char path[] = "p.raw", format[] = "raw";
    OK(platter_create_new(&create, path, format, 0, &err));
    OK(platter_create_set_size(create, 4096, 0, &err));
    /* The strings were copied. */
    memset(path, 'x', sizeof path - 1);
    memset(format, 'x', sizeof format - 1);
    OK(platter_create_job_new(&job, create, 0, &err));
    platter_create_free(create);
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    CHECK(access("p.raw", F_OK) == 0);
}

static platter_image *open_named(platter_nodes *nodes, const char *location, uint32_t flags)
{
    platter_open_options *options;
    platter_image *image;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_nodes(options, nodes, 0, &err));
    OK(platter_image_open(&image, location, options, flags | PLATTER_LOCATION_IMAGE_OPTS, &err));
    platter_open_options_free(options);
    return image;
}

static void fails_named(platter_nodes *nodes, const char *location, uint32_t flags, int status,
                        const char *text)
{
    platter_open_options *options;
    platter_image *image;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_nodes(options, nodes, 0, &err));
    FAILS(platter_image_open(&image, location, options, flags | PLATTER_LOCATION_IMAGE_OPTS, &err),
          status, text);
    platter_open_options_free(options);
}

#define BASE "driver=qcow2,node-name=base,file.driver=file,file.node-name=file,file.filename=base.qcow2"
#define ABOVE "driver=qcow2,file.driver=file,file.filename=above.qcow2,backing=base"

/* Images that use nodes of an image opened earlier. */
static void nodes_of_another_image(void)
{
    platter_nodes *nodes, *others;
    unsigned char byte = 0;
    make_image("base.qcow2", "qcow2", 1 << 20, NULL);
    make_image("above.qcow2", "qcow2", 1 << 20, NULL);
    OK(platter_nodes_new(&nodes, 0, &err));
    OK(platter_nodes_new(&others, 0, &err));
    platter_image *base = open_named(nodes, BASE, PLATTER_OPEN_WRITE);
    OK(platter_image_write(base, "x", 1, 70000, 0, &err));
    fails_named(nodes, ABOVE, 0, PLATTER_STATUS_LOCKED, "another image writes to it");
    OK(platter_image_close(base, 0, &err));
    fails_named(nodes, ABOVE, 0, PLATTER_STATUS_INVALID, "Cannot find device='base'");
    base = open_named(nodes, BASE, 0);
    fails_named(nodes, BASE, 0, PLATTER_STATUS_INVALID, "Duplicate nodes with node-name='file'");
    fails_named(others, ABOVE, 0, PLATTER_STATUS_INVALID, "Cannot find device='base'");
    fails_named(NULL, ABOVE, 0, PLATTER_STATUS_INVALID, "Cannot find device='base'");
    fails_named(nodes, "driver=raw,file=file", PLATTER_OPEN_WRITE, PLATTER_STATUS_LOCKED,
                "Permission conflict on node 'file'");
    /* Without the set, node names are local to their image. */
    OK(platter_image_close(open_named(NULL, BASE, 0), 0, &err));
    platter_image *above = open_named(nodes, ABOVE, PLATTER_OPEN_WRITE);
    platter_image *file = open_named(nodes, "driver=raw,file=file", 0);
    platter_nodes_free(nodes);
    OK(platter_image_close(base, 0, &err));
    OK(platter_image_read(above, &byte, 1, 70000, 0, &err));
    CHECK(byte == 'x');
    OK(platter_image_write(above, "y", 1, 0, 0, &err));
    OK(platter_image_close(above, 0, &err));
    OK(platter_image_read(file, &byte, 1, 0, 0, &err));
    CHECK(byte == 'Q');
    OK(platter_image_close(file, 0, &err));
    platter_nodes_free(others);
}

int main(void)
{
    nodes_of_another_image();
    image_before_job();
    parameters_before_use();
    passed();
    return 0;
}
