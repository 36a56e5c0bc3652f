/* Sets of options, and the introspection of what they may hold. */
#include "check.h"

static void bags(void)
{
    platter_options *bag;
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_parse(bag, "cluster_size=64k,backing_file=a,,b,lazy_refcounts,nocow=off", 0,
                             &err));
    CHECK_STR(platter_options_get(bag, "cluster_size"), "64k");
    CHECK_STR(platter_options_get(bag, "backing_file"), "a,b");
    CHECK_STR(platter_options_get(bag, "lazy_refcounts"), "on");
    CHECK_STR(platter_options_get(bag, "nocow"), "off");
    CHECK(platter_options_get(bag, "size") == NULL);

    /* A later value replaces an earlier one; several lists accumulate. */
    OK(platter_options_parse(bag, "cluster_size=2M,compat=1.1", 0, &err));
    CHECK_STR(platter_options_get(bag, "cluster_size"), "2M");
    CHECK_STR(platter_options_get(bag, "compat"), "1.1");
    OK(platter_options_set(bag, "compat", "0.10", 0, &err));
    OK(platter_options_set_u64(bag, "size", 1048576, 0, &err));
    OK(platter_options_set_bool(bag, "extended_l2", 1, 0, &err));
    CHECK_STR(platter_options_get(bag, "compat"), "0.10");
    CHECK_STR(platter_options_get(bag, "size"), "1048576");
    CHECK_STR(platter_options_get(bag, "extended_l2"), "on");
    OK(platter_options_unset(bag, "size", 0, &err));
    CHECK(platter_options_get(bag, "size") == NULL);

    size_t count = 0;
    for (;;) {
        platter_error *err = NULL;
        const char *key;
        int status = platter_options_key(&key, bag, count, 0, &err);
        if (status != 0) {
            CHECK(status == PLATTER_STATUS_NOT_FOUND);
            CHECK(key == NULL);
            platter_error_free(err);
            break;
        }
        CHECK(platter_options_get(bag, key) != NULL);
        count++;
    }
    CHECK_U64(count, 6);

    FAILS(platter_options_parse(bag, ",a=b", 0, &err), PLATTER_STATUS_INVALID,
          "Invalid option list: ,a=b");
    platter_options_free(bag);
}

static void sizes(void)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},        {"1.5k", 1536}, {"10G", UINT64_C(10) << 30}, {"1T", UINT64_C(1) << 40},
                {"0x1000", 4096}, {"7b", 7},      {"010", 10}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint64_t bytes;
        OK(platter_size_parse(&bytes, good[i].text, 0, &err));
        CHECK_U64(bytes, good[i].bytes);
    }
    char *text;
    OK(platter_size_format(&text, 1536, 0, &err));
    CHECK_STR(text, "1.5 KiB");
    platter_free(text);
}

/* A setter rejects the mistakes that it can detect, unless PLATTER_NAME_UNCHECKED defers that to the time of use. */
static void mistakes(void)
{
    platter_open_options *how;
    platter_policy *policy;
    platter_create *create;
    platter_convert *convert;
    platter_dd *dd;
    OK(platter_open_options_new(&how, 0, &err));
    FAILS(platter_open_options_set_format(how, "qcow3", 0, &err), PLATTER_STATUS_UNSUPPORTED,
          "Unknown driver 'qcow3'");
    OK(platter_open_options_set_format(how, "vhd", 0, &err));
    OK(platter_open_options_set_format(how, "qcow3", PLATTER_NAME_UNCHECKED, &err));
    FAILS(platter_open_options_set_decompress(how, "rar", 0, &err), PLATTER_STATUS_INVALID,
          "Unknown compression 'rar'");
    OK(platter_open_options_set_decompress(how, "auto", 0, &err));
    OK(platter_open_options_set_decompress(how, "rar", PLATTER_NAME_UNCHECKED, &err));
    FAILS(platter_open_options_set_option(how, "driver", "qcow3", 0, &err), PLATTER_STATUS_UNSUPPORTED,
          "Unknown driver 'qcow3'");
    FAILS(platter_open_options_set_option(how, "backing.file.driver", "qcow3", 0, &err),
          PLATTER_STATUS_UNSUPPORTED, "Unknown driver 'qcow3'");
    OK(platter_open_options_set_option(how, "backing.driver", "throttle", 0, &err));
    platter_options *bag;
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_set(bag, "file.driver", "fille", 0, &err));
    FAILS(platter_open_options_set_options(how, bag, 0, &err), PLATTER_STATUS_UNSUPPORTED, "'fille'");
    OK(platter_options_set(bag, "file.driver", "file", 0, &err));
    OK(platter_open_options_set_options(how, bag, 0, &err));
    platter_options_free(bag);
    platter_open_options_free(how);

    platter_job *job;
    FAILS(platter_rebase_job_new(&job, "x", "y", "qcow3", NULL, NULL, 0, &err), PLATTER_STATUS_UNSUPPORTED,
          "Unknown driver 'qcow3'");
    FAILS(platter_rebase_job_new(&job, "x", "y", "\xff", NULL, NULL, 0, &err), PLATTER_STATUS_INVALID,
          "'backing_format' is not valid UTF-8");
    OK(platter_rebase_job_new(&job, "x", "y", "qcow3", NULL, NULL, PLATTER_NAME_UNCHECKED, &err));
    platter_job_free(job);

    OK(platter_policy_new(&policy, PLATTER_POLICY_STRICT, 0, &err));
    FAILS(platter_policy_allow_format(policy, "file", 0, &err), PLATTER_STATUS_UNSUPPORTED,
          "Unknown format 'file'");
    FAILS(platter_policy_allow_protocol(policy, "qcow2", 0, &err), PLATTER_STATUS_UNSUPPORTED,
          "Unknown protocol 'qcow2'");
    FAILS(platter_policy_add_directory(policy, "nowhere", 0, &err), PLATTER_STATUS_NOT_FOUND, "'nowhere'");
    FAILS(platter_policy_add_directory(policy, "/dev/null", 0, &err), PLATTER_STATUS_INVALID,
          "'/dev/null' is no directory");
    platter_policy_free(policy);

    FAILS(platter_create_new(&create, "x", "qcow3", 0, &err), PLATTER_STATUS_INVALID,
          "Unknown file format 'qcow3'");
    OK(platter_create_new(&create, "x", "qcow3", PLATTER_NAME_UNCHECKED, &err));
    FAILS(platter_create_set_backing(create, "y", "qcow3", 0, &err), PLATTER_STATUS_UNSUPPORTED, "'qcow3'");
    OK(platter_create_set_backing(create, "y", "qcow3", PLATTER_NAME_UNCHECKED, &err));
    platter_create_free(create);
    OK(platter_convert_new(&convert, 0, &err));
    FAILS(platter_convert_set_target(convert, "x", "qcow3", 0, &err), PLATTER_STATUS_INVALID,
          "Unknown file format 'qcow3'");
    OK(platter_convert_set_target(convert, "x", "qcow3", PLATTER_NAME_UNCHECKED, &err));
    FAILS(platter_convert_set_backing(convert, "y", "qcow3", 0, &err), PLATTER_STATUS_UNSUPPORTED, "'qcow3'");
    OK(platter_convert_set_backing(convert, "y", "qcow3", PLATTER_NAME_UNCHECKED, &err));
    platter_convert_free(convert);
    OK(platter_dd_new(&dd, 0, &err));
    FAILS(platter_dd_set_output(dd, "x", "qcow3", 0, &err), PLATTER_STATUS_INVALID,
          "Unknown file format 'qcow3'");
    OK(platter_dd_set_output(dd, "x", "qcow3", PLATTER_NAME_UNCHECKED, &err));
    platter_dd_free(dd);
}

int main(void)
{
    bags();
    mistakes();
    sizes();
    passed();
    return 0;
}
