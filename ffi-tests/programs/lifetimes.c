/* Objects may be freed in any order: what needs another keeps it alive. */
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
    /* A job that never runs lets go of its images too. */
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
    /* Strings were copied. */
    memset(path, 'x', sizeof path - 1);
    memset(format, 'x', sizeof format - 1);
    OK(platter_create_job_new(&job, create, 0, &err));
    platter_create_free(create);
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    CHECK(access("p.raw", F_OK) == 0);
}

int main(void)
{
    image_before_job();
    parameters_before_use();
    passed();
    return 0;
}
