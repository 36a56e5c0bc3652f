/* Reports: JSON, text and typed getters agree. */
#include "check.h"

static uint64_t number(const platter_report *report, size_t index, const char *key)
{
    uint64_t value;
    OK(platter_report_u64(&value, report, index, key, 0, &err));
    return value;
}

static const char *string(const platter_report *report, size_t index, const char *key)
{
    const char *value;
    OK(platter_report_string(&value, report, index, key, 0, &err));
    return value;
}

struct pieces {
    const char *whole;
    size_t length;
};

/* Each piece continues the whole where the last one ended. */
static int follows(const char *bytes, size_t length, void *user_data)
{
    struct pieces *pieces = user_data;
    CHECK(length > 0 && strncmp(pieces->whole + pieces->length, bytes, length) == 0);
    pieces->length += length;
    return 0;
}

static int takes_none(const char *bytes, size_t length, void *user_data)
{
    (void)bytes, (void)length, (void)user_data;
    return 1;
}

/* A report written in pieces is the same as the whole report. */
static void check_pieces(const platter_report *report)
{
    struct pieces text = {0}, json = {0};
    OK(platter_report_text(&text.whole, report, 0, &err));
    OK(platter_report_write(report, follows, &text, 0, &err));
    CHECK_U64(text.length, strlen(text.whole));
    OK(platter_report_json(&json.whole, report, 0, &err));
    OK(platter_report_write(report, follows, &json, PLATTER_REPORT_WRITE_JSON, &err));
    CHECK_U64(json.length, strlen(json.whole));
}

int main(void)
{
    make_image("base.raw", "raw", 1 << 20, NULL);
    platter_policy *policy;
    platter_create *create;
    platter_job *job;
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_create_new(&create, "top.qcow2", "qcow2", 0, &err));
    OK(platter_create_set_backing(create, "base.raw", "raw", 0, &err));
    OK(platter_create_set_policy(create, policy, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);

    /* info on one image: no file that it names is opened. */
    CHECK(rename("base.raw", "away.raw") == 0);
    platter_report *report;
    OK(platter_image_describe(&report, "top.qcow2", NULL, 0, &err));
    CHECK(rename("away.raw", "base.raw") == 0);
    CHECK(platter_report_kind(report) == PLATTER_REPORT_INFO);
    size_t layers;
    OK(platter_report_count(&layers, report, 0, &err));
    CHECK_U64(layers, 1);
    CHECK_STR(string(report, 0, "filename"), "top.qcow2");
    CHECK_STR(string(report, 0, "format"), "qcow2");
    CHECK_STR(string(report, 0, "backing-filename"), "base.raw");
    CHECK_STR(string(report, 0, "backing-filename-format"), "raw");
    CHECK_U64(number(report, 0, "virtual-size"), 1 << 20);
    CHECK_U64(number(report, 0, "cluster-size"), 65536);
    CHECK_U64(number(report, 0, "snapshot-count"), 0);
    CHECK(platter_report_warning(report, 0) == NULL);
    CHECK(platter_report_warning(NULL, 0) == NULL);
    CHECK(number(report, 0, "actual-size") > 0);
    uint32_t dirty = 7;
    OK(platter_report_bool(&dirty, report, 0, "dirty-flag", 0, &err));
    CHECK(!dirty);
    const char *json, *text, *again;
    OK(platter_report_json(&json, report, 0, &err));
    CHECK(json[0] == '{' && json[strlen(json) - 1] == '\n');
    CHECK(strstr(json, "\"virtual-size\": 1048576") != NULL);
    OK(platter_report_json(&again, report, 0, &err));
    CHECK(again == json);
    OK(platter_report_text(&text, report, 0, &err));
    CHECK(strncmp(text, "image: top.qcow2\nfile format: qcow2\nvirtual size: 1 MiB", 52) == 0);
    OK(platter_report_text_end(report, 0, &err));
    int code = 7;
    OK(platter_report_exit_code(&code, report, 0, &err));
    CHECK(code == 0);
    check_pieces(report);
    FAILS(platter_report_write(report, takes_none, NULL, 0, &err), PLATTER_STATUS_CANCELLED, "");
    platter_report_free(report);

    /* info on the whole chain. */
    platter_open_options *options;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    OK(platter_image_describe(&report, "top.qcow2", options, PLATTER_INFO_CHAIN, &err));
    OK(platter_report_count(&layers, report, 0, &err));
    CHECK_U64(layers, 2);
    CHECK_STR(string(report, 1, "format"), "raw");
    uint64_t cluster;
    FAILS(platter_report_u64(&cluster, report, 1, "cluster-size", 0, &err),
          PLATTER_STATUS_NOT_FOUND, "cluster-size");
    OK(platter_report_json(&json, report, 0, &err));
    CHECK(json[0] == '[');
    check_pieces(report);
    platter_report_free(report);
    FAILS(platter_image_describe(&report, "top.qcow2", NULL, PLATTER_INFO_CHAIN, &err), PLATTER_STATUS_DENIED,
          "");

    /* check: findings are messages, the counts are in the report. */
    platter_image *image = open_image("top.qcow2", "qcow2",
                                      PLATTER_OPEN_FOR_CHECK | PLATTER_OPEN_NO_BACKING);
    OK(platter_check_job_new(&job, image, 0, &err));
    OK(platter_image_close(image, 0, &err));
    OK(platter_job_run(job, 0, &err));
    OK(platter_job_result(&report, job, 0, &err));
    platter_job_free(job);
    CHECK(platter_report_kind(report) == PLATTER_REPORT_CHECK);
    OK(platter_report_text(&text, report, 0, &err));
    CHECK(strncmp(text, "No errors were found on the image.\n", 35) == 0);
    OK(platter_report_json(&json, report, 0, &err));
    CHECK(strstr(json, "\"check-errors\": 0") != NULL);
    CHECK(number(report, 0, "image-end-offset") >= 65536);
    check_pieces(report);
    platter_report_free(report);

    platter_open_options_free(options);
    platter_policy_free(policy);
    passed();
    return 0;
}
