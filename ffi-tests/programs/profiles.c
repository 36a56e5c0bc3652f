/* Images for products, what a product would reject, and whole chains. */
#include "check.h"

static const platter_profile_info *find(const char *name)
{
    const platter_profile_info *profile;
    const char *last = "";

    for (size_t i = 0; platter_profile_describe(&profile, i, 0, NULL) == PLATTER_OK; i++) {
        CHECK(profile->size >= sizeof *profile);
        CHECK(strcmp(last, profile->name) < 0);
        CHECK(*profile->product != '\0' && *profile->format != '\0' && profile->options != NULL);
        CHECK(profile->size_multiple > 0 && profile->size_least <= profile->size_most);
        last = profile->name;
        if (strcmp(profile->name, name) == 0)
            return profile;
    }
    return NULL;
}

static void convert(const char *source, const char *profile, const char *target, uint32_t flags)
{
    platter_convert *convert;
    platter_open_options *options;
    platter_policy *policy;
    platter_job *job;

    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, source, 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_set_target(convert, target, profile == NULL ? "qcow2" : NULL, 0, &err));
    OK(platter_convert_set_profile(convert, profile, 0, &err));
    OK(platter_convert_job_new(&job, convert, flags, &err));
    run(job);
    platter_convert_free(convert);
    platter_open_options_free(options);
    platter_policy_free(policy);
}

static uint64_t objections(const char *file, const char *profile)
{
    platter_report *report;
    const char *text;
    uint64_t count;
    size_t entries;
    int code;

    OK(platter_inspect_for_profile(&report, file, profile, NULL, 0, &err));
    OK(platter_report_u64(&count, report, 0, "objection-count", 0, &err));
    OK(platter_report_string(&text, report, 0, "profile", 0, &err));
    CHECK_STR(text, profile);
    OK(platter_report_count(&entries, report, 0, &err));
    OK(platter_report_exit_code(&code, report, 0, &err));
    for (size_t i = entries - count; i < entries; i++) {
        CHECK(code == 2);
        OK(platter_report_string(&text, report, i, "reason", 0, &err));
        CHECK(*text != '\0');
        OK(platter_report_string(&text, report, i, "remedy", 0, &err));
        CHECK(*text != '\0');
    }
    platter_report_free(report);
    return count;
}

int main(void)
{
    const platter_profile_info *azure = find("azure");
    platter_convert *both;
    platter_image *image;
    uint32_t conflict;
    uint64_t size;
    char bytes[4];

    CHECK(azure != NULL && find("esxi") != NULL && find("no") == NULL);
    CHECK_STR(azure->format, "vpc");
    CHECK_STR(azure->options, "subformat=fixed,force_size=on");
    CHECK_U64(azure->size_multiple, 1 << 20);

    make_image("base.qcow2", "qcow2", (30 << 20) + 512, NULL);
    make_image("top.qcow2", "qcow2", (30 << 20) + 512, "backing_file=base.qcow2,backing_fmt=qcow2");
    image = open_image("base.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_image_write(image, "base", 4, 100000, 0, &err));
    OK(platter_image_close(image, 0, &err));

    convert("base.qcow2", "azure", "a.vhd", 0);
    CHECK_U64(objections("a.vhd", "azure"), 0);
    CHECK(objections("base.qcow2", "azure") > 0);
    image = open_image("a.vhd", "vhd", 0);
    OK(platter_image_size(&size, image, 0, &err));
    CHECK_U64(size, 31 << 20);
    OK(platter_image_close(image, 0, &err));

    convert("top.qcow2", NULL, "chain", PLATTER_CONVERT_CHAIN);
    image = open_image("chain/top.qcow2", "qcow2", PLATTER_OPEN_NO_BACKING);
    OK(platter_image_close(image, 0, &err));
    image = open_image("chain/base.qcow2", "qcow2", 0);
    OK(platter_image_read(image, bytes, sizeof bytes, 100000, 0, &err));
    CHECK(memcmp(bytes, "base", sizeof bytes) == 0);
    OK(platter_image_close(image, 0, &err));

    OK(platter_convert_new(&both, 0, &err));
    OK(platter_convert_set_profile(both, "esxi", 0, &err));
    OK(platter_convert_check(&conflict, both, PLATTER_CONVERT_TARGET_EXISTS, &err));
    CHECK_U64(conflict, PLATTER_CONVERT_CONFLICT_PROFILE_OF_EXISTING);
    /* What the profile decides is known when the job is created. */
    platter_options *ide;
    platter_job *job;
    OK(platter_options_new(&ide, 0, &err));
    OK(platter_options_set(ide, "adapter_type", "ide", 0, &err));
    OK(platter_convert_add_source(both, "top.qcow2", PLATTER_LOCATION_PATH, &err));
    OK(platter_convert_set_target(both, "never.vmdk", NULL, 0, &err));
    OK(platter_convert_set_target_options(both, ide, 0, &err));
    FAILS(platter_convert_job_new(&job, both, 0, &err), PLATTER_STATUS_INVALID, "adapter_type=");
    OK(platter_options_unset(ide, "adapter_type", 0, &err));
    OK(platter_convert_set_target_options(both, ide, 0, &err));
    platter_options_free(ide);
    OK(platter_convert_set_profile(both, NULL, 0, &err));
    OK(platter_convert_check(&conflict, both, PLATTER_CONVERT_CHAIN | PLATTER_CONVERT_TARGET_EXISTS,
                             &err));
    CHECK_U64(conflict, PLATTER_CONVERT_CONFLICT_CHAIN);
    platter_convert_free(both);
    passed();
    return 0;
}
