/* Opening, reading and writing. */
#include "check.h"

#include <sys/uio.h>

#define SIZE ((uint64_t)4 << 20)

static void expect(const platter_image *image, uint64_t offset, size_t len, int zero)
{
    unsigned char *got = malloc(len), *want = calloc(1, len);
    CHECK(got != NULL && want != NULL);
    if (!zero)
        fill_pattern(want, len, offset);
    memset(got, 0x5a, len);
    OK(platter_image_read(image, got, len, offset, 0, &err));
    CHECK(memcmp(got, want, len) == 0);
    free(got);
    free(want);
}

static void put(const platter_image *image, uint64_t offset, size_t len, uint32_t flags)
{
    unsigned char *data = malloc(len);
    CHECK(data != NULL);
    fill_pattern(data, len, offset);
    OK(platter_image_write(image, data, len, offset, flags, &err));
    free(data);
}

static void round_trip(const char *path, const char *format)
{
    platter_image *image = open_image(path, format, PLATTER_OPEN_WRITE);
    uint64_t size;
    OK(platter_image_size(&size, image, 0, &err));
    CHECK_U64(size, SIZE);
    CHECK_STR(platter_image_format(image), format);
    CHECK_STR(platter_image_filename(image), path);
    CHECK(!platter_image_is_read_only(image));

    /* Arbitrary lengths and offsets. */
    put(image, 0, 512, 0);
    put(image, 65536 - 7, 65536 + 13, 0);
    put(image, SIZE - 1, 1, PLATTER_WRITE_FUA);
    put(image, 1 << 20, 1 << 20, 0);
    expect(image, 0, 512, 0);
    expect(image, 512, 1000, 1);
    expect(image, 65536 - 7, 65536 + 13, 0);
    expect(image, SIZE - 1, 1, 0);

    OK(platter_image_write_zeroes(image, (1 << 20) + 100, 70000, PLATTER_ZERO_MAY_UNMAP, &err));
    expect(image, 1 << 20, 100, 0);
    expect(image, (1 << 20) + 100, 70000, 1);
    expect(image, (1 << 20) + 70100, 1000, 0);
    OK(platter_image_discard(image, (1 << 20) + (512 << 10), 128 << 10, 0, &err));
    OK(platter_image_flush(image, 0, &err));
    OK(platter_image_close(image, 0, &err));

    /* What was written is still there after reopening, also with the vectored calls. */
    image = open_image(path, format, 0);
    CHECK(platter_image_is_read_only(image));
    unsigned char a[3], b[509], want[512];
    struct iovec iov[3] = {{a, sizeof a}, {NULL, 0}, {b, sizeof b}};
    OK(platter_image_readv(image, iov, 3, 0, 0, &err));
    fill_pattern(want, sizeof want, 0);
    CHECK(memcmp(a, want, sizeof a) == 0 && memcmp(b, want + sizeof a, sizeof b) == 0);
    expect(image, 65536 - 7, 65536 + 13, 0);
    OK(platter_image_prefetch(image, 0, SIZE, 0, &err));
    expect(image, (1 << 20) + 100, 70000, 1);
    FAILS(platter_image_write(image, a, 1, 0, 0, &err), PLATTER_STATUS_READ_ONLY, "");
    FAILS(platter_image_write_zeroes(image, 0, 1, 0, &err), PLATTER_STATUS_READ_ONLY, "");
    FAILS(platter_image_discard(image, 0, 1, 0, &err), PLATTER_STATUS_READ_ONLY, "");
    OK(platter_image_close(image, 0, &err));

    image = open_image(path, format, PLATTER_OPEN_WRITE);
    fill_pattern(want, sizeof want, 2 << 20);
    struct iovec parts[2] = {{want, 500}, {want + 500, 12}};
    OK(platter_image_writev(image, parts, 2, 2 << 20, PLATTER_WRITE_FUA, &err));
    expect(image, 2 << 20, 512, 0);
    OK(platter_image_close(image, 0, &err));
}

/* A map reports the same as the call for each run. */
static void same_as_map(platter_image *image)
{
    platter_job *job;
    platter_report *report;
    size_t count;
    OK(platter_map_job_new(&job, image, 0, PLATTER_LENGTH_ALL, 0, &err));
    OK(platter_job_run(job, 0, &err));
    OK(platter_job_result(&report, job, 0, &err));
    OK(platter_report_count(&count, report, 0, &err));
    for (size_t i = 0; i < count; i++) {
        platter_extent entry, run;
        uint32_t is_unknown;
        OK(platter_report_extent(&entry, report, i, 0, &err));
        OK(platter_image_extent(&run, image, entry.offset, SIZE - entry.offset, 0, &err));
        CHECK(memcmp(&entry, &run, sizeof run) == 0);
        OK(platter_report_bool(&is_unknown, report, i, "unknown", 0, &err));
        CHECK(is_unknown == ((run.flags & PLATTER_EXTENT_UNKNOWN) != 0));
    }
    platter_report_free(report);
    platter_job_free(job);
}

/* The runs of an image cover it without gaps. */
static void extents(const char *path, const char *format)
{
    platter_image *image = open_image(path, format, 0);
    uint64_t at = 0, data = 0;
    while (at < SIZE) {
        platter_extent run;
        OK(platter_image_extent(&run, image, at, SIZE - at, 0, &err));
        CHECK(run.offset == at && run.length > 0 && run.length <= SIZE - at);
        CHECK(run.depth == 0);
        if (run.flags & PLATTER_EXTENT_DATA) {
            CHECK(run.flags & PLATTER_EXTENT_PRESENT);
            CHECK(run.flags & PLATTER_EXTENT_HOST_OFFSET);
            data += run.length;
        } else {
            CHECK(run.flags & PLATTER_EXTENT_ZERO);
            expect(image, at, run.length, 1);
        }
        at += run.length;
    }
    CHECK(data >= 512 && data < SIZE);
    same_as_map(image);
    OK(platter_image_close(image, 0, &err));
}

/* An overlay opened without its backing file reports neither data nor zero where a read is refused. */
static void unknown(void)
{
    platter_policy *policy;
    platter_create *create;
    platter_job *job;
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_create_new(&create, "top.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_backing(create, "d.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_policy(create, policy, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
    platter_policy_free(policy);

    const uint32_t ways[] = {PLATTER_OPEN_NO_BACKING, PLATTER_OPEN_METADATA_ONLY};
    for (size_t i = 0; i < 2; i++) {
        platter_image *image = open_image("top.qcow2", "qcow2", ways[i]);
        unsigned char sector[512];
        platter_extent run;
        FAILS(platter_image_read(image, sector, sizeof sector, 0, 0, &err), PLATTER_STATUS_INVALID,
              "backing file");
        OK(platter_image_extent(&run, image, 0, SIZE, 0, &err));
        CHECK(run.length == SIZE && run.depth == 0);
        CHECK_U64(run.flags, PLATTER_EXTENT_UNKNOWN);
        same_as_map(image);
        OK(platter_image_close(image, 0, &err));
    }
}

static void by_descriptor(void)
{
    int fd = open("d.qcow2", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    platter_open_options *options;
    platter_image *image;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "qcow2", 0, &err));
    OK(platter_image_open_fd(&image, fd, "named", options, PLATTER_OPEN_WRITE, &err));
    CHECK_STR(platter_image_filename(image), "named");
    put(image, 3 << 20, 4096, 0);
    /* The descriptor still belongs to the caller, who may close it at any time. */
    CHECK(close(fd) == 0);
    expect(image, 3 << 20, 4096, 0);
    OK(platter_image_close(image, 0, &err));

    fd = open("d.qcow2", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    FAILS(platter_image_open_fd(&image, fd, NULL, options, PLATTER_OPEN_WRITE, &err),
          PLATTER_STATUS_INVALID, "not open for writing");
    OK(platter_image_open_fd(&image, fd, NULL, options, 0, &err));
    expect(image, 3 << 20, 4096, 0);
    OK(platter_image_close(image, 0, &err));
    CHECK(fcntl(fd, F_GETFD) >= 0);
    close(fd);
    platter_open_options_free(options);
}

static void locations(void)
{
    platter_image *image;
    OK(platter_image_open(&image, "driver=qcow2,file.driver=file,file.filename=d.qcow2", NULL,
                          PLATTER_LOCATION_IMAGE_OPTS, &err));
    CHECK_STR(platter_image_format(image), "qcow2");
    OK(platter_image_close(image, 0, &err));
    OK(platter_image_open(&image, "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\","
                                  "\"filename\":\"d.raw\"}}",
                          NULL, 0, &err));
    CHECK_STR(platter_image_format(image), "raw");
    OK(platter_image_close(image, 0, &err));
    FAILS(platter_image_open(&image, "json:{", NULL, 0, &err), PLATTER_STATUS_INVALID, "JSON");
    FAILS(platter_image_open(&image, "json:{", NULL, PLATTER_LOCATION_PATH, &err),
          PLATTER_STATUS_NOT_FOUND, "json:{");

    /* Paths are byte strings. */
    CHECK(link("d.raw", "d-\xff\xfe.raw") == 0);
    platter_open_options *options;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "raw", 0, &err));
    OK(platter_image_open(&image, "d-\xff\xfe.raw", options, 0, &err));
    expect(image, 0, 512, 0);
    OK(platter_image_close(image, 0, &err));

    /* Every cache mode reads the same bytes. */
    static const char *const modes[] = {"writeback", "writethrough", "unsafe"};
    for (size_t i = 0; i < 3; i++) {
        OK(platter_open_options_set_cache(options, modes[i], 0, &err));
        OK(platter_image_open(&image, "d.raw", options, PLATTER_OPEN_WRITE, &err));
        put(image, i * 512, 512, 0);
        expect(image, i * 512, 512, 0);
        OK(platter_image_close(image, 0, &err));
    }
    platter_open_options_free(options);
}

/* An image may support fewer features than its format. */
static void features(void)
{
    const platter_driver_info *driver;
    const uint32_t of_drivers =
        PLATTER_FEATURE_CREATE | PLATTER_FEATURE_MEASURE | PLATTER_FEATURE_ENCRYPT;
    uint32_t found;

    OK(platter_driver_find(&driver, "qcow2", PLATTER_DRIVER_FORMAT, 0, &err));
    platter_image *image = open_image("d.qcow2", "qcow2", 0);
    OK(platter_image_features(&found, image, 0, &err));
    CHECK(found == (driver->features & ~of_drivers));
    OK(platter_image_close(image, 0, &err));

    make_image("old.qcow2", "qcow2", SIZE, "compat=0.10");
    image = open_image("old.qcow2", "qcow2", 0);
    OK(platter_image_features(&found, image, 0, &err));
    CHECK(found == (driver->features & ~(of_drivers | (uint32_t)PLATTER_FEATURE_BITMAPS)));
    OK(platter_image_close(image, 0, &err));

    image = open_image("d.raw", "raw", 0);
    OK(platter_image_features(&found, image, 0, &err));
    CHECK(found == (PLATTER_FEATURE_WRITE | PLATTER_FEATURE_RESIZE));
    OK(platter_image_close(image, 0, &err));
}

int main(void)
{
    make_image("d.raw", "raw", SIZE, NULL);
    make_image("d.qcow2", "qcow2", SIZE, NULL);
    round_trip("d.raw", "raw");
    round_trip("d.qcow2", "qcow2");
    extents("d.qcow2", "qcow2");
    extents("d.raw", "raw");
    unknown();

    platter_image *image = open_image("d.qcow2", "qcow2", 0);
    uint32_t cluster;
    OK(platter_image_cluster_size(&cluster, image, 0, &err));
    CHECK_U64(cluster, 65536);
    OK(platter_image_close(image, 0, &err));

    features();
    by_descriptor();
    locations();
    passed();
    return 0;
}
