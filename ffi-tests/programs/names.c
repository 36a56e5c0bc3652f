/* Names are byte strings: they are returned unchanged, and only JSON replaces what is not UTF-8. */
#include "check.h"

#define BASE "b\xe9" "d.raw"
#define TOP "t\xff.qcow2"

static platter_policy *everything(void)
{
    platter_policy *policy;
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    return policy;
}

static platter_open_options *trusting(void)
{
    platter_policy *policy = everything();
    platter_open_options *options;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "qcow2", 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    platter_policy_free(policy);
    return options;
}

static void overlay(const char *name, const char *backing)
{
    platter_policy *policy = everything();
    platter_create *create;
    platter_job *job;
    OK(platter_create_new(&create, name, "qcow2", PLATTER_LOCATION_PATH, &err));
    OK(platter_create_set_policy(create, policy, 0, &err));
    OK(platter_create_set_backing(create, backing, "raw", 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    CHECK(strstr(platter_job_summary(job), backing) != NULL);
    run(job);
    platter_create_free(create);
    platter_policy_free(policy);
}

/* Checks the name of the backing file in a report. */
static void check_backing(const char *name, const char *expected)
{
    platter_open_options *options = trusting();
    platter_report *report;
    const char *text;
    OK(platter_image_describe(&report, name, options, PLATTER_LOCATION_PATH, &err));
    OK(platter_report_string(&text, report, 0, "filename", 0, &err));
    CHECK_STR(text, name);
    OK(platter_report_string(&text, report, 0, "backing-filename", 0, &err));
    CHECK_STR(text, expected);
    OK(platter_report_text(&text, report, 0, &err));
    CHECK(strstr(text, expected) != NULL);
    OK(platter_report_json(&text, report, 0, &err));
    CHECK(strstr(text, expected) == NULL && strstr(text, "\\uFFFD") != NULL);
    platter_report_free(report);
    platter_open_options_free(options);
}

static void of_chains(void)
{
    platter_open_options *options = trusting();
    platter_convert *convert;
    platter_policy *policy = everything();
    platter_image *image;
    platter_job *job;

    make_image(BASE, "raw", 1 << 20, NULL);
    overlay(TOP, BASE);
    check_backing(TOP, BASE);
    OK(platter_image_open(&image, TOP, options, PLATTER_LOCATION_PATH | PLATTER_OPEN_WRITE, &err));
    CHECK_STR(platter_image_filename(image), TOP);
    OK(platter_image_write(image, "a", 1, 5, 0, &err));
    OK(platter_image_close(image, 0, &err));
    OK(platter_commit_job_new(&job, TOP, BASE, options, PLATTER_LOCATION_PATH, &err));
    run(job);
    OK(platter_rebase_job_new(&job, TOP, "./" BASE, "raw", NULL, options, PLATTER_LOCATION_PATH,
                              &err));
    run(job);
    check_backing(TOP, "./" BASE);

    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, TOP, PLATTER_LOCATION_PATH, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_set_target(convert, "c" TOP, "qcow2", PLATTER_LOCATION_PATH, &err));
    OK(platter_convert_set_target_policy(convert, policy, 0, &err));
    OK(platter_convert_set_backing(convert, BASE, "raw", 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    run(job);
    check_backing("c" TOP, BASE);
    platter_convert_free(convert);
    platter_policy_free(policy);
    platter_open_options_free(options);
}

static void of_options(void)
{
    platter_options *options;
    platter_image *image;
    OK(platter_options_new(&options, 0, &err));
    OK(platter_options_parse(options, "data_file=d\xe9,,d", 0, &err));
    CHECK_STR(platter_options_get(options, "data_file"), "d\xe9,d");
    OK(platter_options_set(options, "backing_file", BASE, 0, &err));
    CHECK_STR(platter_options_get(options, "backing_file"), BASE);
    platter_options_free(options);
    OK(platter_image_open(&image, "driver=raw,file.filename=" BASE, NULL,
                          PLATTER_LOCATION_IMAGE_OPTS, &err));
    CHECK_STR(platter_image_filename(image), "driver=raw,file.filename=" BASE);
    OK(platter_image_close(image, 0, &err));
}

static void of_snapshots_and_bitmaps(void)
{
    platter_image *image;
    platter_report *report;
    const char *text;
    platter_job *job;
    make_image("s.qcow2", "qcow2", 1 << 20, NULL);
    image = open_image("s.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_snapshot_create_job_new(&job, image, "s\xe9", 0, &err));
    run(job);
    OK(platter_snapshot_list(&report, image, 0, &err));
    OK(platter_report_string(&text, report, 0, "name", 0, &err));
    CHECK_STR(text, "s\xe9");
    platter_report_free(report);
    OK(platter_snapshot_delete_job_new(&job, image, "s\xef\xbf\xbd", 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_NOT_FOUND, "snapshot not found");
    platter_job_free(job);
    OK(platter_snapshot_delete_job_new(&job, image, "s\xe9", 0, &err));
    run(job);
    OK(platter_bitmap_add(image, "m\xe9", 0, 0, &err));
    OK(platter_bitmap_list(&report, image, 0, &err));
    OK(platter_report_string(&text, report, 0, "name", 0, &err));
    CHECK_STR(text, "m\xe9");
    platter_report_free(report);
    OK(platter_bitmap_remove(image, "m\xe9", 0, &err));
    OK(platter_image_close(image, 0, &err));
}

static void of_secrets(void)
{
    const char *properties[] = {"file", "p\xe9", NULL};
    platter_secrets *secrets;
    FILE *file = fopen("p\xe9", "w");
    CHECK(file != NULL && fputs("pw", file) >= 0 && fclose(file) == 0);
    OK(platter_secrets_new(&secrets, 0, &err));
    OK(platter_secrets_define(secrets, "s", properties, 0, &err));
    platter_secrets_free(secrets);
}

/* A path that looks like a protocol is displayed in a form that can be used again. */
static void with_colons(void)
{
    platter_open_options *options = trusting();
    platter_image *image;
    make_image("file:a:b.raw", "raw", 1 << 20, NULL);
    overlay("a:t.qcow2", "file:a:b.raw");
    OK(platter_image_open(&image, "a:t.qcow2", options, PLATTER_LOCATION_PATH, &err));
    CHECK_STR(platter_image_filename(image), "./a:t.qcow2");
    OK(platter_image_close(image, 0, &err));
    OK(platter_image_open(&image, "./a:t.qcow2", options, 0, &err));
    OK(platter_image_close(image, 0, &err));
    platter_open_options_free(options);
}

int main(void)
{
    of_chains();
    of_options();
    of_snapshots_and_bitmaps();
    of_secrets();
    with_colons();
    passed();
    return 0;
}
