/* Persistent dirty bitmaps: added, listed, read, changed, merged and copied. */
#include "check.h"

static size_t count_of(platter_report *report)
{
    size_t count;
    OK(platter_report_count(&count, report, 0, &err));
    platter_report_free(report);
    return count;
}

/* Returns the number of dirty runs of a bitmap, and stores the first in `first`. */
static size_t dirty(const platter_image *image, const char *name, platter_extent *first)
{
    platter_report *report;
    size_t count;

    OK(platter_bitmap_dirty(&report, image, name, 0, UINT64_MAX, 0, &err));
    CHECK(platter_report_kind(report) == PLATTER_REPORT_DIRTY);
    OK(platter_report_count(&count, report, 0, &err));
    if (count > 0) {
        OK(platter_report_extent(first, report, 0, 0, &err));
        CHECK(first->flags == PLATTER_EXTENT_DIRTY);
    }
    FAILS(platter_report_extent(first + 1, report, count, 0, &err),
          PLATTER_STATUS_NOT_FOUND, "run");
    platter_report_free(report);
    return count;
}

int main(void)
{
    platter_image *image;
    platter_image *other;
    platter_image *raw;
    platter_report *report;
    platter_extent runs[2];
    platter_convert *convert;
    platter_job *job;
    const char *text;
    uint64_t value;
    uint32_t truth;

    make_image("b.qcow2", "qcow2", 1 << 20, NULL);
    make_image("o.qcow2", "qcow2", 1 << 20, NULL);
    make_image("r.raw", "raw", 1 << 20, NULL);
    image = open_image("b.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_bitmap_list(&report, image, 0, &err));
    CHECK(platter_report_kind(report) == PLATTER_REPORT_BITMAPS);
    OK(platter_report_text(&text, report, 0, &err));
    CHECK_STR(text, "");
    CHECK(count_of(report) == 0);

    OK(platter_bitmap_add(image, "one", 4096, 0, &err));
    OK(platter_bitmap_add(image, "two", 0, 0, &err));
    FAILS(platter_bitmap_add(image, "one", 0, 0, &err), PLATTER_STATUS_EXISTS,
          "Operation add on bitmap one failed: Bitmap already exists: one");
    FAILS(platter_bitmap_add(image, "x", 1000, 0, &err), PLATTER_STATUS_INVALID,
          "power of 2 and at least 512");
    OK(platter_bitmap_disable(image, "two", 0, &err));
    OK(platter_bitmap_list(&report, image, 0, &err));
    OK(platter_report_string(&text, report, 0, "name", 0, &err));
    CHECK_STR(text, "one");
    OK(platter_report_u64(&value, report, 1, "granularity", 0, &err));
    CHECK(value == 65536);
    OK(platter_report_bool(&truth, report, 1, "enabled", 0, &err));
    CHECK(!truth);
    OK(platter_report_bool(&truth, report, 1, "inconsistent", 0, &err));
    CHECK(!truth);
    OK(platter_report_text(&text, report, 0, &err));
    CHECK_STR(text, "one 4096 enabled\ntwo 65536 disabled\n");
    OK(platter_report_json(&text, report, 0, &err));
    CHECK(strstr(text, "\"granularity\": 4096") != NULL);
    CHECK(count_of(report) == 2);

    OK(platter_image_write(image, "a", 1, 5000, 0, &err));
    CHECK(dirty(image, "one", runs) == 1);
    CHECK(runs[0].offset == 4096 && runs[0].length == 4096);
    CHECK(dirty(image, "two", runs) == 0);
    OK(platter_bitmap_dirty(&report, image, "one", 0, 4096, 0, &err));
    CHECK(count_of(report) == 0);
    OK(platter_bitmap_dirty(&report, image, "one", 4000, 200, 0, &err));
    OK(platter_report_u64(&value, report, 0, "length", 0, &err));
    CHECK(value == 104);
    OK(platter_report_text(&text, report, 0, &err));
    CHECK_STR(text, "0x1000 0x68\n");
    CHECK(count_of(report) == 1);

    OK(platter_bitmap_merge(image, "two", NULL, "one", 0, &err));
    CHECK(dirty(image, "two", runs) == 1);
    CHECK(runs[0].offset == 0 && runs[0].length == 65536);
    OK(platter_bitmap_clear(image, "one", 0, &err));
    CHECK(dirty(image, "one", runs) == 0);
    FAILS(platter_bitmap_dirty(&report, image, "nope", 0, 1, 0, &err), PLATTER_STATUS_NOT_FOUND,
          "Dirty bitmap 'nope' not found");

    other = open_image("o.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    OK(platter_bitmap_add(other, "there", 512, 0, &err));
    OK(platter_bitmap_merge(other, "there", image, "two", 0, &err));
    CHECK(dirty(other, "there", runs) == 1);
    FAILS(platter_bitmap_merge(other, "there", image, "nope", 0, &err), PLATTER_STATUS_NOT_FOUND,
          "Operation merge on bitmap there failed: Dirty bitmap 'nope' not found");
    OK(platter_bitmap_enable(image, "two", 0, &err));
    OK(platter_bitmap_remove(image, "one", 0, &err));
    FAILS(platter_bitmap_remove(image, "one", 0, &err), PLATTER_STATUS_NOT_FOUND, "one");
    OK(platter_image_close(other, 0, &err));
    OK(platter_image_close(image, 0, &err));

    image = open_image("b.qcow2", "qcow2", 0);
    CHECK(dirty(image, "two", runs) == 1);
    FAILS(platter_bitmap_clear(image, "two", 0, &err), PLATTER_STATUS_READ_ONLY, "read-only");
    OK(platter_image_close(image, 0, &err));

    raw = open_image("r.raw", "raw", PLATTER_OPEN_WRITE);
    FAILS(platter_bitmap_add(raw, "x", 0, 0, &err), PLATTER_STATUS_UNSUPPORTED, "Operation not supported");
    OK(platter_bitmap_list(&report, raw, 0, &err));
    CHECK(count_of(report) == 0);
    OK(platter_image_close(raw, 0, &err));

    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "b.qcow2", 0, &err));
    OK(platter_convert_set_target(convert, "c.raw", "raw", 0, &err));
    OK(platter_convert_job_new(&job, convert, PLATTER_CONVERT_BITMAPS, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_UNSUPPORTED, "does not support bitmaps");
    platter_job_free(job);
    OK(platter_convert_set_target(convert, "c.qcow2", "qcow2", 0, &err));
    OK(platter_convert_job_new(&job, convert, PLATTER_CONVERT_BITMAPS, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_convert_free(convert);
    image = open_image("c.qcow2", "qcow2", 0);
    CHECK(dirty(image, "two", runs) == 1);
    CHECK(runs[0].offset == 0 && runs[0].length == 65536);
    OK(platter_image_close(image, 0, &err));
    passed();
    return 0;
}
