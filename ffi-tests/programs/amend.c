/* Options of an existing image: described, changed, rejected; and the keys of an encrypted image. */
#include "check.h"

static int try_amend(platter_image *image, const char *list, const platter_secrets *secrets)
{
    platter_options *options;
    platter_job *job;
    platter_report *report;
    int status;

    OK(platter_options_new(&options, 0, &err));
    OK(platter_options_parse(options, list, 0, &err));
    OK(platter_amend_job_new(&job, image, options, secrets, 0, &err));
    platter_options_free(options);
    status = platter_job_run(job, 0, NULL);
    if (status == PLATTER_OK) {
        OK(platter_job_result(&report, job, 0, &err));
        CHECK(platter_report_kind(report) == PLATTER_REPORT_DONE);
        platter_report_free(report);
    }
    platter_job_free(job);
    return status;
}

static platter_image *open_luks(const char *id, const platter_secrets *secrets)
{
    platter_open_options *options;
    platter_image *image;
    char location[64];

    CHECK(snprintf(location, sizeof location, "driver=luks,key-secret=%s,file.filename=l.luks", id) >
          0);
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_secrets(options, secrets, 0, &err));
    const int status =
        platter_image_open(&image, location, options,
                           PLATTER_OPEN_WRITE | PLATTER_LOCATION_IMAGE_OPTS, NULL);
    platter_open_options_free(options);
    CHECK(status == PLATTER_OK || status == PLATTER_STATUS_WRONG_SECRET);
    return image;
}

static void keys(void)
{
    platter_secrets *secrets;
    platter_create *create;
    platter_options *options;
    platter_job *job;
    platter_image *image;

    OK(platter_secrets_new(&secrets, 0, &err));
    OK(platter_secrets_add(secrets, "old", "a", 1, 0, &err));
    OK(platter_secrets_add(secrets, "new", "b", 1, 0, &err));
    OK(platter_options_new(&options, 0, &err));
    OK(platter_options_parse(options, "key-secret=old,iter-time=0", 0, &err));
    OK(platter_create_new(&create, "l.luks", "luks", 0, &err));
    OK(platter_create_set_size(create, 1 << 20, 0, &err));
    OK(platter_create_set_options(create, options, 0, &err));
    OK(platter_create_set_secrets(create, secrets, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
    platter_options_free(options);

    CHECK(open_luks("new", secrets) == NULL);
    image = open_luks("old", secrets);
    CHECK(try_amend(image, "state=inactive,keyslot=0", secrets) == PLATTER_STATUS_INVALID);
    CHECK(try_amend(image, "state=active,new-secret=new", NULL) == PLATTER_STATUS_NEEDS_SECRET);
    CHECK(try_amend(image, "state=active,new-secret=new,iter-time=0", secrets) == PLATTER_OK);
    CHECK(try_amend(image, "state=inactive,old-secret=old", secrets) == PLATTER_OK);
    OK(platter_image_close(image, 0, &err));
    CHECK(open_luks("old", secrets) == NULL);
    image = open_luks("new", secrets);
    CHECK(image != NULL);
    OK(platter_image_close(image, 0, &err));
    platter_secrets_free(secrets);
}

int main(void)
{
    const platter_option_info *option;
    platter_image *image;
    platter_options *options;
    platter_job *job;
    unsigned char byte;
    uint64_t size;

    OK(platter_option_describe(&option, "qcow2", PLATTER_OPERATION_AMEND, 2, 0, &err));
    CHECK_STR(option->name, "compat");
    OK(platter_option_describe(&option, "luks", PLATTER_OPERATION_AMEND, 1, 0, &err));
    CHECK_STR(option->name, "keyslot");
    CHECK(option->kind == PLATTER_OPTION_NUMBER);

    make_image("a.qcow2", "qcow2", 1 << 20, NULL);
    image = open_image("a.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_options_new(&options, 0, &err));
    OK(platter_options_parse(options, "cluster_size=4k", 0, &err));
    FAILS(platter_amend_job_new(&job, image, options, NULL, 0, &err), PLATTER_STATUS_INVALID,
          "Invalid parameter 'cluster_size'");
    platter_options_free(options);
    OK(platter_image_write(image, "a", 1, 5, 0, &err));
    CHECK(try_amend(image, "refcount_bits=64,size=2M", NULL) == PLATTER_OK);
    OK(platter_image_size(&size, image, 0, &err));
    CHECK_U64(size, 2 << 20);
    CHECK(try_amend(image, "refcount_bits=3", NULL) == PLATTER_STATUS_INVALID);
    CHECK(try_amend(image, "compat=0.10", NULL) == PLATTER_STATUS_INVALID);
    CHECK(try_amend(image, "compat=0.10,refcount_bits=16", NULL) == PLATTER_OK);
    OK(platter_image_read(image, &byte, 1, 5, 0, &err));
    CHECK(byte == 'a');
    OK(platter_image_close(image, 0, &err));

    keys();
    passed();
    return 0;
}
