/* Internal snapshots: created, listed, applied and deleted. */
#include "check.h"

static platter_report *list_of(platter_job *job)
{
    platter_report *report = result_of(job);
    CHECK(platter_report_kind(report) == PLATTER_REPORT_SNAPSHOTS);
    return report;
}

static size_t count_of(platter_report *report)
{
    size_t count;
    OK(platter_report_count(&count, report, 0, &err));
    platter_report_free(report);
    return count;
}

int main(void)
{
    platter_image *image;
    platter_job *job;
    platter_report *report;
    const char *text;
    uint64_t value;
    unsigned char byte;

    make_image("s.qcow2", "qcow2", 1 << 20, NULL);
    image = open_image("s.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_snapshot_list(&report, image, 0, &err));
    OK(platter_report_text(&text, report, 0, &err));
    CHECK_STR(text, "");
    CHECK(count_of(report) == 0);

    OK(platter_image_write(image, "a", 1, 5, 0, &err));
    OK(platter_snapshot_create_job_new(&job, image, "one", 0, &err));
    report = list_of(job);
    OK(platter_report_string(&text, report, 0, "id", 0, &err));
    CHECK_STR(text, "1");
    OK(platter_report_string(&text, report, 0, "name", 0, &err));
    CHECK_STR(text, "one");
    OK(platter_report_u64(&value, report, 0, "virtual-size", 0, &err));
    CHECK(value == 1 << 20);
    CHECK(count_of(report) == 1);

    OK(platter_image_write(image, "b", 1, 5, 0, &err));
    FAILS(platter_snapshot_apply_job_new(&job, image, NULL, 0, &err), PLATTER_STATUS_INVALID,
          "snapshot");
    FAILS(platter_snapshot_apply_job_new(&job, image, "one", 1, &err), PLATTER_STATUS_INVALID, "");
    OK(platter_snapshot_apply_job_new(&job, image, "nope", 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_NOT_FOUND,
          "Could not apply snapshot 'nope': Failed to load snapshot: No such file or directory");
    platter_job_free(job);
    OK(platter_snapshot_apply_job_new(&job, image, "1", 0, &err));
    CHECK(count_of(list_of(job)) == 1);
    OK(platter_image_read(image, &byte, 1, 5, 0, &err));
    CHECK(byte == 'a');

    {
        platter_image *shown = open_image("s.qcow2", "qcow2", PLATTER_OPEN_FORCE_SHARE);
        FAILS(platter_snapshot_show(shown, "nope", 0, &err), PLATTER_STATUS_NOT_FOUND,
              "Failed to load snapshot: Can't find snapshot");
        FAILS(platter_snapshot_show(shown, "snapshot.x=1", 0, &err), PLATTER_STATUS_INVALID,
              "'snapshot.x'");
        OK(platter_map_job_new(&job, shown, 0, PLATTER_LENGTH_ALL, 0, &err));
        FAILS(platter_snapshot_show(shown, "one", 0, &err), PLATTER_STATUS_BUSY, "job");
        platter_job_free(job);
        OK(platter_snapshot_show(shown, "snapshot.name=one", 0, &err));
        OK(platter_image_read(shown, &byte, 1, 5, 0, &err));
        CHECK(byte == 'a');
        OK(platter_image_close(shown, 0, &err));
    }

    OK(platter_snapshot_delete_job_new(&job, image, "one", 0, &err));
    CHECK(count_of(list_of(job)) == 0);
    OK(platter_snapshot_delete_job_new(&job, image, "one", 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_NOT_FOUND,
          "Could not delete snapshot 'one': snapshot not found");
    platter_job_free(job);
    OK(platter_image_close(image, 0, &err));
    passed();
    return 0;
}
