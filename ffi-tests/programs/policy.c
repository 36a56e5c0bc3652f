/* What opening may do: formats, guessing, files that an image names. */
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

    /* The library's own default refuses what an image names, and guessing where it writes. */
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

    /* Directories. */
    fresh(PLATTER_POLICY_PERMISSIVE);
    OK(platter_policy_add_directory(policy, "/nonexistent", 0, &err));
    FAILS(try_open(&image, "top.qcow2", 0, &err), PLATTER_STATUS_DENIED, "base.qcow2");
    OK(platter_policy_add_directory(policy, ".", 0, &err));
    OK(try_open(&image, "top.qcow2", 0, &err));
    expect_pattern(image);

    /* Limits. */
    fresh(PLATTER_POLICY_PERMISSIVE);
    OK(platter_policy_set_limit(policy, PLATTER_LIMIT_CHAIN_DEPTH, 1, 0, &err));
    FAILS(try_open(&image, "top.qcow2", 0, &err), PLATTER_STATUS_LIMIT, "");
    fresh(PLATTER_POLICY_PERMISSIVE);
    OK(platter_policy_set_limit(policy, PLATTER_LIMIT_VIRTUAL_SIZE, 4096, 0, &err));
    FAILS(try_open(&image, "base.qcow2", 0, &err), PLATTER_STATUS_LIMIT, "");

    /* A callback decides, and may hand over an open file. */
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
    answer.code = PLATTER_ANSWER_FD;
    FAILS(try_open(&image, "top.qcow2", 0, &err), PLATTER_STATUS_INVALID, "descriptor");
    CHECK(rename("base.qcow2", "moved.qcow2") == 0);
    answer.path = "moved.qcow2";
    OK(try_open(&image, "top.qcow2", 0, &err));
    CHECK(frees == 0);
    platter_policy_free(policy);
    platter_open_options_free(options);
    /* The open image may still use the policy; afterwards nothing does. */
    expect_pattern(image);
    CHECK(frees == 1);
    passed();
    return 0;
}
