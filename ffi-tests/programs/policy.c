/* What opening is allowed to do: formats, guessing, files that an image names. */
#include "check.h"

static int frees, asked;

struct answer {
    int code;
    const char *path;
};

static void count_free(void *user_data)
{
    (void)user_data;
    frees++;
}

static int decide(const platter_implicit_file *file, int *fd, void *user_data)
{
    const struct answer *answer = user_data;
    asked++;
    CHECK(file->size == sizeof *file);
    CHECK(file->role == PLATTER_ROLE_BACKING);
    CHECK(file->writable == 0);
    CHECK_STR(file->name, "base.qcow2");
    CHECK(strstr(file->named_by, "top.qcow2") != NULL);
    if (answer->path != NULL)
        *fd = open(answer->path, O_RDONLY | O_CLOEXEC);
    return answer->code;
}

static platter_policy *policy;
static platter_open_options *options;

static int try_open(platter_image **image, const char *path, uint32_t flags, platter_error **err)
{
    platter_open_options_free(options);
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    return platter_image_open(image, path, options, flags, err);
}

static void fresh(uint32_t preset)
{
    platter_policy_free(policy);
    OK(platter_policy_new(&policy, preset, 0, &err));
}

static void expect_pattern(platter_image *image)
{
    unsigned char got[4096], want[4096];
    fill_pattern(want, sizeof want, 0);
    OK(platter_image_read(image, got, sizeof got, 0, 0, &err));
    CHECK(memcmp(got, want, sizeof got) == 0);
    OK(platter_image_close(image, 0, &err));
}

/* A file that is passed by descriptor; immediately afterwards its name refers to something else. */
struct handover {
    const char *path;
    uint32_t role, writable;
    int asked;
};

static int hand_over(const platter_implicit_file *file, int *fd, void *user_data)
{
    struct handover *handover = user_data;
    handover->asked++;
    CHECK(file->role == handover->role);
    CHECK(file->writable == handover->writable);
    *fd = open(handover->path, (file->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    CHECK(*fd >= 0);
    CHECK(rename(handover->path, "moved") == 0 && symlink("/dev/full", handover->path) == 0);
    return PLATTER_ANSWER_FD;
}

static void move_back(const struct handover *handover)
{
    CHECK(handover->asked == 1);
    CHECK(unlink(handover->path) == 0 && rename("moved", handover->path) == 0);
}

/* A data file is read and written through its descriptor; its name is never used. */
static void hand_over_data_file(void)
{
    struct handover handover = {"data.raw", PLATTER_ROLE_DATA_FILE, 0, 0};
    unsigned char data[4096], got[4096];
    platter_image *image;

    make_image("data.qcow2", "qcow2", 1 << 20, "data_file=data.raw");
    fresh(PLATTER_POLICY_STRICT);
    FAILS(try_open(&image, "data.qcow2", 0, &err), PLATTER_STATUS_DENIED, "data.raw");
    OK(platter_policy_set_probing(policy, PLATTER_PROBING_ALWAYS, 0, &err));
    OK(platter_policy_set_callback(policy, hand_over, &handover, NULL, 0, &err));
    for (handover.writable = 0; handover.writable < 2; handover.writable++, handover.asked = 0) {
        OK(try_open(&image, "data.qcow2", handover.writable ? PLATTER_OPEN_WRITE : 0, &err));
        if (handover.writable) {
            fill_pattern(data, sizeof data, 0);
            OK(platter_image_write(image, data, sizeof data, 0, 0, &err));
            OK(platter_image_flush(image, 0, &err));
            OK(platter_image_read(image, got, sizeof got, 0, 0, &err));
            CHECK(memcmp(got, data, sizeof got) == 0);
        }
        OK(platter_image_close(image, 0, &err));
        move_back(&handover);
    }
    /* What was written is in the file that was passed. */
    handover.writable = 0;
    OK(try_open(&image, "data.qcow2", 0, &err));
    expect_pattern(image);
    move_back(&handover);
}

/* commit writes to the backing file: the callback is called again, and passes a writable descriptor. */
static int hand_over_base(const platter_implicit_file *file, int *fd, void *user_data)
{
    int *writable = user_data;
    CHECK(file->role == PLATTER_ROLE_BACKING);
    CHECK_STR(file->name, "held.raw");
    *writable += file->writable != 0;
    *fd = open("moved", (file->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    return PLATTER_ANSWER_FD;
}

static void hand_over_to_commit(void)
{
    unsigned char data[4096];
    int writable = 0;
    platter_image *image;
    platter_create *create;
    platter_job *job;

    make_image("held.raw", "raw", 1 << 20, NULL);
    fresh(PLATTER_POLICY_PERMISSIVE);
    OK(platter_create_new(&create, "over.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_backing(create, "held.raw", "raw", 0, &err));
    OK(platter_create_set_policy(create, policy, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
    CHECK(rename("held.raw", "moved") == 0 && symlink("/dev/full", "held.raw") == 0);

    OK(platter_policy_set_callback(policy, hand_over_base, &writable, NULL, 0, &err));
    OK(try_open(&image, "over.qcow2", PLATTER_OPEN_WRITE, &err));
    fill_pattern(data, sizeof data, 0);
    OK(platter_image_write(image, data, sizeof data, 0, 0, &err));
    OK(platter_image_close(image, 0, &err));
    CHECK(writable == 0);
    OK(platter_commit_job_new(&job, "over.qcow2", NULL, options, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    CHECK(writable == 1);
    CHECK(unlink("held.raw") == 0);
    image = open_image("moved", "raw", 0);
    expect_pattern(image);
}

/* A new policy has the limits that the constants in the header specify. */
static void limits_by_default(void)
{
    static const struct {
        uint32_t limit;
        uint64_t strict, permissive;
    } defaults[] = {
#define SAME(name)                                                                                \
    {                                                                                             \
        PLATTER_LIMIT_##name, PLATTER_LIMIT_##name##_DEFAULT, PLATTER_LIMIT_##name##_DEFAULT      \
    }
        SAME(CHAIN_DEPTH),
        SAME(VIRTUAL_SIZE),
        SAME(TABLE_BYTES),
        SAME(CACHE_BYTES),
        SAME(DECOMPRESSED_BYTES),
        {PLATTER_LIMIT_KEY_ITERATIONS, PLATTER_LIMIT_KEY_ITERATIONS_DEFAULT, UINT64_MAX},
        SAME(DECODER_BYTES),
        {PLATTER_LIMIT_EXPANSION, PLATTER_LIMIT_EXPANSION_DEFAULT, UINT64_MAX},
        SAME(SPOOL_BYTES),
    };
    uint64_t limit;
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++) {
        fresh(PLATTER_POLICY_STRICT);
        OK(platter_policy_get_limit(&limit, policy, defaults[i].limit, 0, &err));
        CHECK_U64(limit, defaults[i].strict);
        fresh(PLATTER_POLICY_PERMISSIVE);
        OK(platter_policy_get_limit(&limit, policy, defaults[i].limit, 0, &err));
        CHECK_U64(limit, defaults[i].permissive);
    }
}

/* A callback reports why a file cannot be opened. */
static void reasons(struct answer *answer)
{
    static const struct {
        int code, status, os_errno;
        const char *text;
    } expected[] = {
        {-ENOENT, PLATTER_STATUS_NOT_FOUND, ENOENT, "Could not open 'base.qcow2': No such file or directory"},
        {-EIO, PLATTER_STATUS_OS, EIO, "Could not open 'base.qcow2': Input/output error"},
        {PLATTER_STATUS_LOCKED, PLATTER_STATUS_LOCKED, EAGAIN, "Could not open 'base.qcow2': The policy's callback"},
        {PLATTER_STATUS_DENIED, PLATTER_STATUS_DENIED, EACCES, "policy does not allow the backing file 'base.qcow2'"},
        {-EPERM, PLATTER_STATUS_DENIED, EACCES, "policy does not allow the backing file 'base.qcow2'"},
        {-EACCES, PLATTER_STATUS_DENIED, EACCES, "policy does not allow the backing file 'base.qcow2'"},
        {-5000, PLATTER_STATUS_DENIED, EACCES, "policy does not allow the backing file 'base.qcow2'"},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        platter_image *image;
        platter_error *error = NULL;
        answer->code = expected[i].code;
        CHECK(try_open(&image, "top.qcow2", 0, &error) == expected[i].status);
        CHECK(image == NULL && platter_error_errno(error) == expected[i].os_errno);
        fprintf(stderr, "%s\n", platter_error_message(error));
        CHECK(strstr(platter_error_message(error), expected[i].text) != NULL);
        platter_error_free(error);
    }
}

int main(void)
{
    make_image("base.qcow2", "qcow2", 1 << 20, NULL);
    platter_image *image = open_image("base.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    unsigned char data[4096];
    fill_pattern(data, sizeof data, 0);
    OK(platter_image_write(image, data, sizeof data, 0, 0, &err));
    OK(platter_image_close(image, 0, &err));
    platter_create *create;
    platter_job *job;
    OK(platter_create_new(&create, "top.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_backing(create, "base.qcow2", "qcow2", 0, &err));
    fresh(PLATTER_POLICY_PERMISSIVE);
    OK(platter_create_set_policy(create, policy, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);

    /* The library's default denies files that an image names, and guessing the format for writing. */
    fresh(PLATTER_POLICY_STRICT);
    FAILS(try_open(&image, "top.qcow2", 0, &err), PLATTER_STATUS_DENIED, "top.qcow2");
    CHECK(image == NULL);
    FAILS(try_open(&image, "base.qcow2", PLATTER_OPEN_WRITE, &err), PLATTER_STATUS_DENIED, "");
    OK(try_open(&image, "base.qcow2", 0, &err));
    expect_pattern(image);
    OK(try_open(&image, "top.qcow2", PLATTER_OPEN_NO_BACKING, &err));
    OK(platter_image_close(image, 0, &err));
    OK(platter_policy_set_probing(policy, PLATTER_PROBING_NEVER, 0, &err));
    FAILS(try_open(&image, "base.qcow2", 0, &err), PLATTER_STATUS_DENIED, "");

    fresh(PLATTER_POLICY_PERMISSIVE);
    OK(try_open(&image, "top.qcow2", 0, &err));
    expect_pattern(image);
    OK(platter_policy_set_implicit(policy, PLATTER_IMPLICIT_DENY, 0, &err));
    FAILS(try_open(&image, "top.qcow2", 0, &err), PLATTER_STATUS_DENIED, "base.qcow2");
    OK(platter_policy_set_implicit(policy, PLATTER_IMPLICIT_ALLOW, 0, &err));
    OK(platter_policy_allow_format(policy, "raw", 0, &err));
    FAILS(try_open(&image, "top.qcow2", 0, &err), PLATTER_STATUS_DENIED, "qcow2");

    /* The end of a file is probed only if that is requested. */
    fresh(PLATTER_POLICY_PERMISSIVE);
    FILE *disk = fopen("disk.img", "wb");
    CHECK(disk != NULL && fseek(disk, 4096, SEEK_SET) == 0);
    CHECK(fwrite("koly", 1, 4, disk) == 4);
    CHECK(fseek(disk, 4096 + 511, SEEK_SET) == 0 && fputc(0, disk) == 0 && fclose(disk) == 0);
    OK(try_open(&image, "disk.img", PLATTER_OPEN_WRITE, &err));
    CHECK_STR(platter_image_format(image), "raw");
    OK(platter_image_close(image, 0, &err));
    OK(platter_policy_set_probe_footers(policy, 1, 0, &err));
    FAILS(try_open(&image, "disk.img", 0, &err), PLATTER_STATUS_CORRUPT, "property list");
    OK(try_open(&image, "base.qcow2", PLATTER_OPEN_WRITE, &err));
    OK(platter_image_close(image, 0, &err));
    CHECK(truncate("disk.img", 4096) == 0);
    OK(try_open(&image, "disk.img", 0, &err));
    OK(platter_image_close(image, 0, &err));
    /* The guest could write a footer into it. */
    FAILS(try_open(&image, "disk.img", PLATTER_OPEN_WRITE, &err),
          PLATTER_STATUS_DENIED, "name the format");

    /* Protocols. */
    fresh(PLATTER_POLICY_PERMISSIVE);
    OK(platter_policy_allow_protocol(policy, "null-co", 0, &err));
    FAILS(try_open(&image, "top.qcow2", 0, &err), PLATTER_STATUS_DENIED, "protocol 'file'");
    OK(platter_policy_allow_protocol(policy, "file", 0, &err));
    OK(try_open(&image, "top.qcow2", 0, &err));
    expect_pattern(image);

    /* Servers. */
    OK(platter_create_new(&create, "remote.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_backing(create, "http://127.0.0.1:1/x", "raw", PLATTER_BACKING_UNSAFE, &err));
    OK(platter_create_set_size(create, 1 << 20, 0, &err));
    OK(platter_create_set_policy(create, policy, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
    fresh(PLATTER_POLICY_PERMISSIVE);
    FAILS(platter_policy_allow_host(policy, "http://a", 0, &err),
          PLATTER_STATUS_INVALID, "names no host");
    OK(platter_policy_allow_host(policy, "*.example.org", 0, &err));
    FAILS(try_open(&image, "remote.qcow2", 0, &err),
          PLATTER_STATUS_DENIED, "the server '127.0.0.1:1'");
    OK(platter_policy_allow_host(policy, "127.0.0.1:1", 0, &err));
    FAILS(try_open(&image, "remote.qcow2", 0, &err), PLATTER_STATUS_OS, "Connection refused");

    /* Directories. */
    fresh(PLATTER_POLICY_PERMISSIVE);
    OK(platter_policy_add_directory(policy, "/usr", 0, &err));
    FAILS(try_open(&image, "top.qcow2", 0, &err), PLATTER_STATUS_DENIED, "base.qcow2");
    OK(platter_policy_add_directory(policy, ".", 0, &err));
    OK(try_open(&image, "top.qcow2", 0, &err));
    expect_pattern(image);

    /* Limits. */
    uint64_t limit;
    limits_by_default();
    fresh(PLATTER_POLICY_PERMISSIVE);
    OK(platter_policy_set_limit(policy, PLATTER_LIMIT_CHAIN_DEPTH, 1, 0, &err));
    OK(platter_policy_get_limit(&limit, policy, PLATTER_LIMIT_CHAIN_DEPTH, 0, &err));
    CHECK_U64(limit, 1);
    OK(platter_policy_get_limit(&limit, policy, PLATTER_LIMIT_EXPANSION, 0, &err));
    CHECK(limit > 0);
    FAILS(try_open(&image, "top.qcow2", 0, &err), PLATTER_STATUS_LIMIT, "");
    fresh(PLATTER_POLICY_PERMISSIVE);
    OK(platter_policy_set_limit(policy, PLATTER_LIMIT_VIRTUAL_SIZE, 4096, 0, &err));
    FAILS(try_open(&image, "base.qcow2", 0, &err), PLATTER_STATUS_LIMIT, "");

    fresh(PLATTER_POLICY_PERMISSIVE);
    OK(platter_policy_set_limit(policy, PLATTER_LIMIT_DECOMPRESSED_BYTES, 65535, 0, &err));
    FAILS(try_open(&image, "base.qcow2", 0, &err), PLATTER_STATUS_LIMIT, "decode");
    OK(platter_policy_set_limit(policy, PLATTER_LIMIT_DECOMPRESSED_BYTES, 65536, 0, &err));
    OK(platter_policy_set_limit(policy, PLATTER_LIMIT_KEY_ITERATIONS, 1, 0, &err));
    OK(try_open(&image, "base.qcow2", 0, &err));
    OK(platter_image_close(image, 0, &err));
    OK(platter_policy_set_limit(policy, PLATTER_LIMIT_TABLE_BYTES, 7, 0, &err));
    FAILS(try_open(&image, "base.qcow2", 0, &err), PLATTER_STATUS_LIMIT, "table");

    /* A callback decides, and may pass an open file. */
    struct answer answer = {PLATTER_ANSWER_OPEN, NULL};
    fresh(PLATTER_POLICY_PERMISSIVE);
    OK(platter_policy_set_callback(policy, decide, &answer, count_free, 0, &err));
    OK(try_open(&image, "top.qcow2", 0, &err));
    expect_pattern(image);
    CHECK(asked >= 1);
    answer.code = PLATTER_ANSWER_DENY;
    FAILS(try_open(&image, "top.qcow2", 0, &err), PLATTER_STATUS_DENIED, "base.qcow2");
    answer.code = 77;
    FAILS(try_open(&image, "top.qcow2", 0, &err), PLATTER_STATUS_DENIED, "base.qcow2");
    reasons(&answer);
    answer.code = PLATTER_ANSWER_FD;
    FAILS(try_open(&image, "top.qcow2", 0, &err), PLATTER_STATUS_INVALID, "'base.qcow2': The policy's callback");
    CHECK(rename("base.qcow2", "moved.qcow2") == 0);
    answer.path = "moved.qcow2";
    OK(try_open(&image, "top.qcow2", 0, &err));
    CHECK(frees == 0);
    platter_policy_free(policy);
    platter_open_options_free(options);
    /* The open image may still be using the policy; after it is closed, nothing does. */
    expect_pattern(image);
    CHECK(frees == 1);
    policy = NULL;
    options = NULL;
    hand_over_data_file();
    hand_over_to_commit();
    platter_policy_free(policy);
    platter_open_options_free(options);
    passed();
    return 0;
}
