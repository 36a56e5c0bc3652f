/* Images of any format, each given as the options that open it: a map reports for every run the same as the call for
 * one run does, and the same as for any part of it. */
#include "workflow.h"

/* The part of a run from `at` up to `end` at most. */
static platter_extent part_of(platter_extent run, uint64_t at, uint64_t end)
{
    const uint64_t skipped = at - run.offset;
    const uint64_t rest = run.length - skipped;
    run.offset = at;
    run.length = rest < end - at ? rest : end - at;
    if (run.flags & PLATTER_EXTENT_HOST_OFFSET)
        run.host_offset += skipped;
    return run;
}

static void compare(const platter_image *image, platter_extent entry, uint64_t at, uint64_t end)
{
    platter_extent found;
    const platter_extent wanted = part_of(entry, at, end);
    OK(platter_image_extent(&found, image, at, end - at, 0, &err));
    CHECK_U64(found.offset, wanted.offset);
    CHECK_U64(found.length, wanted.length);
    CHECK_U64(found.flags, wanted.flags);
    CHECK_U64(found.depth, wanted.depth);
    CHECK_U64(found.host_offset, wanted.host_offset);
}

static void judge(const char *location)
{
    platter_open_options *options = opening(NULL);
    platter_image *image;
    platter_job *job;
    size_t count;
    uint64_t size, at = 0;
    fprintf(stderr, "%s\n", location);
    OK(platter_image_open(&image, location, options, PLATTER_LOCATION_IMAGE_OPTS, &err));
    platter_open_options_free(options);
    OK(platter_image_size(&size, image, 0, &err));
    OK(platter_map_job_new(&job, image, 0, PLATTER_LENGTH_ALL, 0, &err));
    platter_report *report = result_of(job);
    OK(platter_report_count(&count, report, 0, &err));
    for (size_t i = 0; i < count; i++) {
        platter_extent entry;
        OK(platter_report_extent(&entry, report, i, 0, &err));
        CHECK_U64(entry.offset, at);
        at += entry.length;
        compare(image, entry, entry.offset, size);
        compare(image, entry, entry.offset + entry.length / 2, size);
        compare(image, entry, at - 1, size);
        compare(image, entry, entry.offset, entry.offset + 1);
    }
    CHECK_U64(at, size);
    platter_report_free(report);
    OK(platter_image_close(image, 0, &err));
}

int main(int argc, char **argv)
{
    /* The first argument is the passphrase of the encrypted images. */
    CHECK(argc > 2);
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_secrets_new(&secrets, 0, &err));
    OK(platter_secrets_add(secrets, "s", argv[1], strlen(argv[1]), 0, &err));
    for (int i = 2; i < argc; i++)
        judge(argv[i]);
    platter_secrets_free(secrets);
    platter_policy_free(policy);
    printf("ok\n");
    return 0;
}
