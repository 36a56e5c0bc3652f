/* Inspecting a file from an untrusted source: by path, by descriptor, and over storage of the program. */
#include "check.h"

#include <sys/stat.h>

struct upload {
    unsigned char bytes[65536];
    int reads, sizes, frees;
};

static int read_upload(void *buf, size_t len, uint64_t offset, void *user_data)
{
    struct upload *upload = user_data;
    upload->reads++;
    CHECK(offset <= sizeof upload->bytes && len <= sizeof upload->bytes - offset);
    memcpy(buf, upload->bytes + offset, len);
    return 0;
}

static int size_upload(uint64_t *size, void *user_data)
{
    struct upload *upload = user_data;
    upload->sizes++;
    *size = sizeof upload->bytes;
    return 0;
}

static int refuse_write(const void *buf, size_t len, uint64_t offset, void *user_data)
{
    (void)buf, (void)len, (void)offset, (void)user_data;
    CHECK(!"inspect writes");
    return -EIO;
}

static int refuse_flush(void *user_data)
{
    (void)user_data;
    CHECK(!"inspect flushes");
    return -EIO;
}

static void free_upload(void *user_data)
{
    struct upload *upload = user_data;
    upload->frees++;
}

static int never_asked(const platter_implicit_file *file, int *fd, void *user_data)
{
    (void)file, (void)fd, (void)user_data;
    CHECK(!"inspect asks for a file that the image names");
    return PLATTER_ANSWER_DENY;
}

static void put32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> (24 - 8 * i));
}

/* Makes a qcow2 header that names one host file as its backing file and another as its data file. */
static void make_upload(struct upload *upload, const char *backing, const char *data_file)
{
    unsigned char *header = upload->bytes;
    memset(upload, 0, sizeof *upload);
    memcpy(header, "QFI\xfb", 4);
    put32(header + 4, 3);
    put32(header + 12, 1024);
    put32(header + 16, (uint32_t)strlen(backing));
    put32(header + 20, 12);
    put32(header + 28, 1 << 20);
    put32(header + 36, 1);
    put32(header + 44, 0x3000);
    put32(header + 52, 0x1000);
    put32(header + 56, 1);
    put32(header + 76, 4);
    put32(header + 96, 4);
    put32(header + 100, 112);
    put32(header + 112, 0x44415441);
    put32(header + 116, (uint32_t)strlen(data_file));
    memcpy(header + 120, data_file, strlen(data_file));
    memcpy(header + 1024, backing, strlen(backing));
    put32(header + 0x1004, 0x2000);
}

static const char *string_of(const platter_report *report, size_t index, const char *key)
{
    const char *text = NULL;
    OK(platter_report_string(&text, report, index, key, 0, &err));
    return text;
}

static uint64_t number_of(const platter_report *report, size_t index, const char *key)
{
    uint64_t number = 0;
    OK(platter_report_u64(&number, report, index, key, 0, &err));
    return number;
}

static bool truth_of(const platter_report *report, size_t index, const char *key)
{
    uint32_t truth = 7;
    OK(platter_report_bool(&truth, report, index, key, 0, &err));
    return truth != 0;
}

static void expect_attack(const platter_report *report)
{
    const size_t guards = (size_t)number_of(report, 0, "guard-count");
    size_t count = 0, failed = 0;
    int code = 0;
    CHECK(platter_report_kind(report) == PLATTER_REPORT_INSPECT);
    OK(platter_report_exit_code(&code, report, 0, &err));
    CHECK(code == 2);
    CHECK(!truth_of(report, 0, "passed"));
    CHECK(truth_of(report, 0, "format-named"));
    CHECK_STR(string_of(report, 0, "format"), "qcow2");
    CHECK_STR(string_of(report, 0, "signatures"), "qcow2");
    CHECK_U64(number_of(report, 0, "virtual-size"), 1 << 20);
    OK(platter_report_count(&count, report, 0, &err));
    CHECK_U64(number_of(report, 0, "reference-count"), 2);
    CHECK(count == 1 + guards + 2);
    for (size_t i = 1; i <= guards; i++) {
        const char *id = string_of(report, i, "id");
        CHECK(string_of(report, i, "reason")[0] != '\0');
        if (strcmp(string_of(report, i, "verdict"), "fail") != 0)
            continue;
        failed++;
        CHECK(strcmp(id, "no-backing-file") == 0 || strcmp(id, "backing-format") == 0 ||
              strcmp(id, "no-data-file") == 0 || strcmp(id, "plain-names") == 0);
    }
    CHECK(failed == 4);
    CHECK_STR(string_of(report, guards + 1, "role"), "backing-file");
    CHECK_U64(number_of(report, guards + 1, "offset"), 1024);
    CHECK(!truth_of(report, guards + 1, "plain"));
    CHECK_STR(string_of(report, guards + 2, "role"), "data-file");
    CHECK_STR(string_of(report, guards + 2, "name"), "/etc/passwd");
    CHECK(truth_of(report, guards + 2, "absolute"));
    FAILS(platter_report_u64(&(uint64_t){0}, report, count, "offset", 0, &err),
          PLATTER_STATUS_NOT_FOUND, "no entry");
    FAILS(platter_report_u64(&(uint64_t){0}, report, 1, "offset", 0, &err),
          PLATTER_STATUS_NOT_FOUND, "offset");
}

/* If the contents cannot be parsed, every guard that examines them fails or is unknown. */
static void of_what_is_no_image(void)
{
    static struct upload junk;
    static const platter_storage_ops ops = {
        .read = read_upload, .size = size_upload, .write = refuse_write, .flush = refuse_flush};
    platter_open_options *options;
    const platter_driver_info *driver;
    int formats = 0;

    memset(junk.bytes, 0xa5, sizeof junk.bytes);
    OK(platter_open_options_new(&options, 0, &err));
    for (size_t d = 0; platter_driver_describe(&driver, d, 0, NULL) == PLATTER_OK; d++) {
        platter_report *report;
        /* Any bytes are a valid raw disk. */
        if (driver->kind != PLATTER_DRIVER_FORMAT || strcmp(driver->name, "raw") == 0)
            continue;
        OK(platter_open_options_set_format(options, driver->name, 0, &err));
        OK(platter_inspect_storage(&report, &ops, "junk", &junk, NULL, options, 0, &err));
        CHECK(!truth_of(report, 0, "passed"));
        const size_t guards = (size_t)number_of(report, 0, "guard-count");
        size_t unknown = 0;
        for (size_t i = 1; i <= guards; i++) {
            const char *id = string_of(report, i, PLATTER_KEY_ID);
            const char *verdict = string_of(report, i, PLATTER_KEY_VERDICT);
            if (strcmp(id, PLATTER_GUARD_SINGLE_FORMAT) != 0 &&
                strcmp(id, PLATTER_GUARD_FORMAT_ALLOWED) != 0)
                CHECK(strcmp(verdict, PLATTER_VERDICT_PASS) != 0);
            if (strcmp(verdict, PLATTER_VERDICT_UNKNOWN) == 0)
                unknown++;
        }
        CHECK(unknown > 5);
        platter_report_free(report);
        formats++;
    }
    CHECK(formats > 10);
    platter_open_options_free(options);
}

int main(void)
{
    static struct upload upload;
    static const platter_storage_ops ops = {
        .read = read_upload, .size = size_upload, .write = refuse_write, .flush = refuse_flush};
    platter_open_options *options;
    platter_policy *policy;
    platter_report *report;
    const char *text = NULL;
    int fd;

    /* The policy would allow everything, but inspecting opens no other files. */
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_policy_set_callback(policy, never_asked, NULL, NULL, 0, &err));
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_open_options_set_format(options, "qcow2", 0, &err));

    /* Opening the FIFO would block forever. */
    CHECK(mkfifo("fifo", 0600) == 0);
    make_upload(&upload, "json:{\"driver\":\"file\",\"filename\":\"fifo\"}", "/etc/passwd");
    OK(platter_inspect_storage(&report, &ops, "upload", &upload, free_upload, options, 0, &err));
    CHECK(upload.frees == 1 && upload.sizes == 1 && upload.reads > 0 && upload.reads < 20);
    expect_attack(report);
    OK(platter_report_json(&text, report, 0, &err));
    CHECK(strstr(text, "\"verdict\": \"fail\"") != NULL);
    OK(platter_report_text(&text, report, 0, &err));
    CHECK(strstr(text, "FAIL") != NULL);
    platter_report_free(report);

    make_upload(&upload, "fifo", "/etc/passwd");
    fd = open("upload", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, upload.bytes, sizeof upload.bytes) == (ssize_t)sizeof upload.bytes);
    /* By descriptor: the name may refer to something else in the meantime. */
    CHECK(rename("upload", "moved") == 0 && symlink("/etc/passwd", "upload") == 0);
    FAILS(platter_inspect(&report, "nowhere", options, 0, &err), PLATTER_STATUS_NOT_FOUND, "nowhere");
    OK(platter_open_options_set_format(options, "raw", 0, &err));
    OK(platter_inspect_fd(&report, fd, "upload", options, 0, &err));
    CHECK_STR(string_of(report, 0, "signatures"), "qcow2");
    CHECK_STR(string_of(report, 0, "filename"), "upload");
    CHECK_STR(string_of(report, 1, "id"), "format-matches");
    CHECK_STR(string_of(report, 1, "verdict"), "fail");
    platter_report_free(report);
    CHECK(close(fd) == 0);

    /* By path, with the library's default options, a good image. */
    make_image("good.qcow2", "qcow2", 1 << 20, NULL);
    OK(platter_inspect(&report, "good.qcow2", NULL, PLATTER_LOCATION_PATH, &err));
    CHECK(truth_of(report, 0, "passed"));
    CHECK(!truth_of(report, 0, "format-named"));
    platter_report_free(report);

    /* If the contents cannot be parsed, nothing is known and the file does not pass. */
    make_image("disk.vmdk", "vmdk", 1 << 20, NULL);
    OK(platter_open_options_set_format(options, "qcow2", 0, &err));
    OK(platter_inspect(&report, "disk.vmdk", options, 0, &err));
    CHECK(!truth_of(report, 0, "passed"));
    size_t unknown = 0;
    for (size_t i = 1; platter_report_string(&text, report, i, "id", 0, NULL) == 0; i++) {
        if (strcmp(text, "no-backing-file") == 0 || strcmp(text, "no-data-file") == 0 ||
            strcmp(text, "no-extents") == 0) {
            CHECK_STR(string_of(report, i, "verdict"), "unknown");
            unknown++;
        }
    }
    CHECK(unknown == 3);
    platter_report_free(report);

    OK(platter_open_options_set_format(options, "nonsense", PLATTER_NAME_UNCHECKED, &err));
    FAILS(platter_inspect(&report, "good.qcow2", options, 0, &err), PLATTER_STATUS_UNSUPPORTED,
          "nonsense");
    CHECK(report == NULL);
    of_what_is_no_image();
    platter_open_options_free(options);
    platter_policy_free(policy);
    passed();
    return 0;
}
