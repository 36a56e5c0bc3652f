/* Compressed files as sources, checksums, and compression levels. */
#include "check.h"

/* 512 zeroes compressed with gzip. */
static const unsigned char packed[] = {
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x63, 0x60, 0x18,
    0x05, 0x23, 0x19, 0x00, 0x00, 0x78, 0x75, 0xaa, 0xb2, 0x00, 0x02, 0x00, 0x00,
};

static void write_file(const char *path, const void *bytes, size_t len)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    CHECK(fd >= 0);
    CHECK(write(fd, bytes, len) == (ssize_t)len);
    CHECK(close(fd) == 0);
}

static platter_open_options *unpacking(const char *kind, const platter_policy *policy)
{
    platter_open_options *options;

    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_decompress(options, kind, PLATTER_NAME_UNCHECKED, &err));
    if (policy != NULL)
        OK(platter_open_options_set_policy(options, policy, 0, &err));
    return options;
}

static void opens(void)
{
    platter_open_options *options = unpacking("auto", NULL);
    platter_policy *policy;
    platter_image *image;
    uint64_t size = 0;
    unsigned char bytes[512];

    OK(platter_image_open(&image, "disk.gz", options, 0, &err));
    OK(platter_image_size(&size, image, 0, &err));
    CHECK_U64(size, 512);
    memset(bytes, 1, sizeof bytes);
    OK(platter_image_read(image, bytes, sizeof bytes, 0, 0, &err));
    CHECK(bytes[0] == 0 && bytes[511] == 0);
    OK(platter_image_close(image, 0, &err));
    FAILS(platter_image_open(&image, "disk.gz", options, PLATTER_OPEN_WRITE, &err),
          PLATTER_STATUS_READ_ONLY, "can only be read");
    platter_open_options_free(options);

    options = unpacking("rar", NULL);
    FAILS(platter_image_open(&image, "disk.gz", options, 0, &err), PLATTER_STATUS_INVALID,
          "Unknown compression 'rar'");
    platter_open_options_free(options);

    OK(platter_policy_new(&policy, PLATTER_POLICY_STRICT, 0, &err));
    OK(platter_policy_set_limit(policy, PLATTER_LIMIT_DECODER_BYTES, 1 << 20, 0, &err));
    OK(platter_policy_set_limit(policy, PLATTER_LIMIT_EXPANSION, 1, 0, &err));
    OK(platter_policy_set_limit(policy, PLATTER_LIMIT_SPOOL_BYTES, 0, 0, &err));
    options = unpacking("gzip", policy);
    /* Zeroes take up no space in the temporary file. */
    OK(platter_image_open(&image, "disk.gz", options, 0, &err));
    OK(platter_image_close(image, 0, &err));
    platter_open_options_free(options);
    platter_policy_free(policy);
}

static int read_packed(void *buf, size_t len, uint64_t offset, void *user_data)
{
    CHECK(offset <= sizeof packed && len <= sizeof packed - offset);
    memcpy(buf, (const unsigned char *)user_data + offset, len);
    return 0;
}

static int size_packed(uint64_t *size, void *user_data)
{
    (void)user_data;
    *size = sizeof packed;
    return 0;
}

/* Open files and storages are decompressed in the same way as named files. */
static void opens_what_is_open(void)
{
    static const platter_storage_ops ops = {.read = read_packed, .size = size_packed};
    static const char *const names[] = {NULL, "disk.gz", "odd:name", "not/there"};
    unsigned char copy[sizeof packed];
    platter_open_options *options = unpacking("auto", NULL);
    platter_image *image;
    uint64_t size = 0;

    memcpy(copy, packed, sizeof copy);
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        int fd = open("disk.gz", O_RDONLY | O_CLOEXEC);
        CHECK(fd >= 0);
        OK(platter_image_open_fd(&image, fd, names[n], options, 0, &err));
        OK(platter_image_size(&size, image, 0, &err));
        CHECK_U64(size, 512);
        OK(platter_image_close(image, 0, &err));
        close(fd);
        OK(platter_image_open_storage(&image, &ops, names[n], copy, NULL, options, 0, &err));
        OK(platter_image_size(&size, image, 0, &err));
        CHECK_U64(size, 512);
        OK(platter_image_close(image, 0, &err));
    }
    /* A file that is not compressed is an error. */
    copy[0] ^= 1;
    FAILS(platter_image_open_storage(&image, &ops, "disk.gz", copy, NULL, options, 0, &err),
          PLATTER_STATUS_INVALID, "disk.gz");
    platter_open_options_free(options);
}

static void converts(void)
{
    platter_open_options *options = unpacking("auto", NULL);
    platter_convert *convert;
    platter_job *job;
    platter_report *report;
    const char *text = NULL;

    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "disk.gz", 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_set_target(convert, "out", "raw", 0, &err));
    FAILS(platter_convert_set_checksum(convert, "md4", 0, &err), PLATTER_STATUS_INVALID, "md4");
    OK(platter_convert_set_checksum(convert, "sha256", 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    OK(platter_job_run(job, 0, &err));
    OK(platter_job_result(&report, job, 0, &err));
    OK(platter_report_string(&text, report, 0, "sha256", 0, &err));
    CHECK_STR(text, "076a27c79e5ace2a3d47f9dd2e83e4ff6ea8872b3c2218f66c92b89b55f36560");
    OK(platter_report_string(&text, report, 0, "container-sha256", 0, &err));
    CHECK_STR(text, "936ee8c2b59719dd6f818b01afe4f5c36e89c9887b035b73a9893203826d7072");
    platter_report_free(report);
    platter_job_free(job);

    /* Without a request for a checksum there is none. */
    OK(platter_convert_set_checksum(convert, NULL, 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    OK(platter_job_run(job, 0, &err));
    OK(platter_job_result(&report, job, 0, &err));
    FAILS(platter_report_string(&text, report, 0, "sha256", 0, &err), PLATTER_STATUS_NOT_FOUND, "");
    platter_report_free(report);
    platter_job_free(job);
    platter_convert_free(convert);
    platter_open_options_free(options);
}

static void levels(void)
{
    platter_open_options *options;
    platter_options *creation;
    platter_create *create;
    platter_image *image;
    platter_job *job;

    OK(platter_options_new(&creation, 0, &err));
    OK(platter_options_set(creation, "compression_level", "12", 0, &err));
    OK(platter_create_new(&create, "a.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_size(create, 1 << 20, 0, &err));
    OK(platter_create_set_options(create, creation, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
    platter_options_free(creation);

    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, "qcow2", 0, &err));
    OK(platter_open_options_set_compression_level(options, 13, 0, &err));
    FAILS(platter_image_open(&image, "a.qcow2", options, PLATTER_OPEN_WRITE, &err),
          PLATTER_STATUS_INVALID, "its levels are 1 to 12");
    platter_open_options_free(options);
}

int main(void)
{
    write_file("disk.gz", packed, sizeof packed);
    opens();
    opens_what_is_open();
    converts();
    levels();
    passed();
    return 0;
}
