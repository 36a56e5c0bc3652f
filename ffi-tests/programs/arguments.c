/* Every function with NULL and with invalid arguments: an error that names the parameter, never a crash. */
#include "check.h"

#include <pthread.h>
#include <sys/uio.h>

#define NO_NULL(call, parameter)                                                                  \
    do {                                                                                          \
        FAILS(call, PLATTER_STATUS_INVALID, "'" parameter "' is NULL");                           \
    } while (0)

#define NO_FLAG(call) FAILS(call, PLATTER_STATUS_INVALID, "unknown bits 0x80000000")

/* A flag bit that no call knows. */
#define BAD 0x80000000u

static int frees;

static void count_free(void *user_data)
{
    CHECK(user_data == &frees);
    frees++;
}

static int takes_all(const char *bytes, size_t length, void *user_data)
{
    (void)bytes, (void)length, (void)user_data;
    return 0;
}

static void log_line(uint32_t level, const char *line, void *user_data)
{
    (void)level, (void)line, (void)user_data;
}

static int on_progress(const platter_progress *progress, void *user_data)
{
    (void)progress, (void)user_data;
    return 0;
}

static void on_message(const platter_message *message, void *user_data)
{
    (void)message, (void)user_data;
}

static int on_implicit(const platter_implicit_file *file, int *fd, void *user_data)
{
    (void)file, (void)fd, (void)user_data;
    return PLATTER_ANSWER_DENY;
}

static void on_secret(platter_secret_answer *answer, const char *id, void *user_data)
{
    (void)answer, (void)id, (void)user_data;
}

/* Output parameters start with this value, to check that they are cleared on failure. */
#define POISONED ((void *)0x5a5a)

static void basics(void)
{
    CHECK(platter_error_status(NULL) == 0);
    CHECK(platter_error_errno(NULL) == 0);
    CHECK_STR(platter_error_message(NULL), "");
    CHECK(platter_error_hint(NULL, 0) == NULL);
    CHECK(platter_error_offset(NULL) == PLATTER_OFFSET_UNKNOWN);
    CHECK(platter_error_file(NULL) == NULL);
    CHECK(platter_error_stage(NULL) == PLATTER_STAGE_OTHER);
    platter_error_free(NULL);
    platter_free(NULL);
    CHECK(platter_status_name(-1) == NULL);
    CHECK_STR(platter_status_name(0), "OK");
    CHECK_STR(platter_status_name(PLATTER_STATUS_NO_SPACE), "NO_SPACE");
    CHECK(platter_status_errno(0) == 0);
    CHECK(platter_status_errno(PLATTER_STATUS_NO_SPACE) == ENOSPC);
    CHECK(platter_status_errno(-1) == EIO);
    CHECK(platter_version_number() != 0);
    CHECK(platter_version_string() != NULL);

    uint64_t size = 7;
    NO_NULL(platter_size_parse(NULL, "1k", 0, &err), "out");
    NO_NULL(platter_size_parse(&size, NULL, 0, &err), "text");
    CHECK(size == 0);
    NO_FLAG(platter_size_parse(&size, "1k", BAD, &err));
    FAILS(platter_size_parse(&size, "1kb", 0, &err), PLATTER_STATUS_INVALID, "1kb");
    FAILS(platter_size_parse(&size, "16E", 0, &err), PLATTER_STATUS_LIMIT, "16E");
    FAILS(platter_size_parse(&size, "\xff", 0, &err), PLATTER_STATUS_INVALID, "UTF-8");
    FAILS(platter_size_parse(&size, "1kb", PLATTER_SIZE_IMAGE, &err), PLATTER_STATUS_INVALID,
          "'1kb' is no size of an image");
    char *text = POISONED;
    NO_NULL(platter_size_format(NULL, 1, 0, &err), "out");
    NO_FLAG(platter_size_format(&text, 1, BAD, &err));
    CHECK(text == NULL);

    /* The error parameter may be NULL. */
    CHECK(platter_size_parse(&size, "x", 0, NULL) == PLATTER_STATUS_INVALID);

    NO_FLAG(platter_log_set(log_line, &frees, count_free, PLATTER_LOG_ERROR, BAD, &err));
    FAILS(platter_log_set(log_line, &frees, count_free, 9, 0, &err), PLATTER_STATUS_INVALID, "9");
    CHECK(frees == 2);
    OK(platter_log_set(NULL, &frees, count_free, 0, 0, &err));
    CHECK(frees == 3);
    frees = 0;
    size_t count = 7;
    NO_NULL(platter_trace_switch(NULL, "*", 1, 0, &err), "out");
    NO_NULL(platter_trace_switch(&count, NULL, 1, 0, &err), "pattern");
    CHECK(count == 0);
    NO_FLAG(platter_trace_switch(&count, "*", 1, BAD, &err));
    FAILS(platter_trace_switch(&count, "*", 2, 0, &err), PLATTER_STATUS_INVALID,
          "'on' must be 0 or 1");
    CHECK(platter_trace_event(SIZE_MAX) == NULL);
}

static void options(void)
{
    platter_options *bag = POISONED;
    NO_NULL(platter_options_new(NULL, 0, &err), "out");
    NO_FLAG(platter_options_new(&bag, BAD, &err));
    CHECK(bag == NULL);
    OK(platter_options_new(&bag, 0, &err));
    NO_NULL(platter_options_parse(NULL, "a=b", 0, &err), "options");
    NO_NULL(platter_options_parse(bag, NULL, 0, &err), "list");
    NO_FLAG(platter_options_parse(bag, "a=b", BAD, &err));
    FAILS(platter_options_parse(bag, "", 0, &err), PLATTER_STATUS_INVALID, "Invalid option list");
    NO_NULL(platter_options_set(NULL, "k", "v", 0, &err), "options");
    NO_NULL(platter_options_set(bag, NULL, "v", 0, &err), "key");
    NO_NULL(platter_options_set(bag, "k", NULL, 0, &err), "value");
    NO_FLAG(platter_options_set(bag, "k", "v", BAD, &err));
    FAILS(platter_options_set(bag, "", "v", 0, &err), PLATTER_STATUS_INVALID, "empty");
    NO_NULL(platter_options_set_u64(NULL, "k", 1, 0, &err), "options");
    NO_NULL(platter_options_set_u64(bag, NULL, 1, 0, &err), "key");
    NO_FLAG(platter_options_set_u64(bag, "k", 1, BAD, &err));
    NO_NULL(platter_options_set_bool(NULL, "k", 1, 0, &err), "options");
    NO_NULL(platter_options_set_bool(bag, NULL, 1, 0, &err), "key");
    NO_FLAG(platter_options_set_bool(bag, "k", 1, BAD, &err));
    FAILS(platter_options_set_bool(bag, "k", 2, 0, &err), PLATTER_STATUS_INVALID,
          "'value' must be 0 or 1");
    NO_NULL(platter_options_unset(NULL, "k", 0, &err), "options");
    NO_NULL(platter_options_unset(bag, NULL, 0, &err), "key");
    NO_FLAG(platter_options_unset(bag, "k", BAD, &err));
    CHECK(platter_options_get(NULL, "k") == NULL);
    CHECK(platter_options_get(bag, NULL) == NULL);
    CHECK(platter_options_get(bag, "k") == NULL);
    const char *key = POISONED;
    NO_NULL(platter_options_key(NULL, bag, 0, 0, &err), "out");
    NO_NULL(platter_options_key(&key, NULL, 0, 0, &err), "options");
    CHECK(key == NULL);
    FAILS(platter_options_key(&key, bag, 0, 0, &err), PLATTER_STATUS_NOT_FOUND, "0");
    NO_FLAG(platter_options_key(&key, bag, 0, BAD, &err));
    platter_options_free(bag);
    platter_options_free(NULL);
}

static void drivers(void)
{
    const platter_driver_info *driver = POISONED;
    const platter_profile_info *profile = POISONED;
    NO_NULL(platter_profile_describe(NULL, 0, 0, &err), "out");
    NO_FLAG(platter_profile_describe(&profile, 0, BAD, &err));
    CHECK(profile == NULL);
    FAILS(platter_profile_describe(&profile, 100000, 0, &err), PLATTER_STATUS_NOT_FOUND, "100000");
    NO_NULL(platter_driver_describe(NULL, 0, 0, &err), "out");
    NO_FLAG(platter_driver_describe(&driver, 0, BAD, &err));
    CHECK(driver == NULL);
    FAILS(platter_driver_describe(&driver, 100000, 0, &err), PLATTER_STATUS_NOT_FOUND, "100000");
    NO_NULL(platter_driver_find(NULL, "raw", 0, 0, &err), "out");
    NO_NULL(platter_driver_find(&driver, NULL, 0, 0, &err), "name");
    NO_FLAG(platter_driver_find(&driver, "raw", 0, BAD, &err));
    FAILS(platter_driver_find(&driver, "raw", 9, 0, &err), PLATTER_STATUS_INVALID, "9");
    FAILS(platter_driver_find(&driver, "raw", PLATTER_DRIVER_PROTOCOL, 0, &err),
          PLATTER_STATUS_NOT_FOUND, "raw");
    const platter_option_info *option = POISONED;
    const uint32_t create = PLATTER_OPERATION_CREATE;
    NO_NULL(platter_option_describe(NULL, "qcow2", create, 0, 0, &err), "out");
    NO_NULL(platter_option_describe(&option, NULL, create, 0, 0, &err), "driver");
    CHECK(option == NULL);
    NO_FLAG(platter_option_describe(&option, "qcow2", create, 0, BAD, &err));
    FAILS(platter_option_describe(&option, "qcow2", 0, 0, 0, &err), PLATTER_STATUS_INVALID, "0");
    FAILS(platter_option_describe(&option, "bogus", create, 0, 0, &err), PLATTER_STATUS_NOT_FOUND,
          "bogus");
    FAILS(platter_option_describe(&option, "qcow2", create, 1000, 0, &err),
          PLATTER_STATUS_NOT_FOUND, "1000");
    const platter_child_info *child = POISONED;
    NO_NULL(platter_child_describe(NULL, "qcow2", 0, 0, &err), "out");
    NO_NULL(platter_child_describe(&child, NULL, 0, 0, &err), "driver");
    CHECK(child == NULL);
    NO_FLAG(platter_child_describe(&child, "qcow2", 0, BAD, &err));
    FAILS(platter_child_describe(&child, "bogus", 0, 0, &err), PLATTER_STATUS_NOT_FOUND, "bogus");
    FAILS(platter_child_describe(&child, "qcow2", 1000, 0, &err), PLATTER_STATUS_NOT_FOUND, "1000");
    char *help = POISONED;
    NO_NULL(platter_option_help(NULL, "qcow2", create, NULL, 0, &err), "out");
    NO_NULL(platter_option_help(&help, NULL, create, NULL, 0, &err), "driver");
    CHECK(help == NULL);
    NO_FLAG(platter_option_help(&help, "qcow2", create, NULL, BAD, &err));
    FAILS(platter_option_help(&help, "qcow2", 9, NULL, 0, &err), PLATTER_STATUS_INVALID, "9");
    FAILS(platter_option_help(&help, "bogus", create, NULL, 0, &err), PLATTER_STATUS_INVALID,
          "Unknown file format 'bogus'");
}

static void named_storages(void)
{
    const platter_storage_ops ops = {0};
    platter_storages *storages = POISONED;
    platter_create *create;
    platter_open_options *options;
    NO_NULL(platter_storages_new(NULL, 0, &err), "out");
    NO_FLAG(platter_storages_new(&storages, BAD, &err));
    CHECK(storages == NULL);
    OK(platter_storages_new(&storages, 0, &err));
    NO_NULL(platter_storages_add_fd(NULL, "s", 0, 0, &err), "storages");
    NO_NULL(platter_storages_add_fd(storages, NULL, 0, 0, &err), "name");
    NO_FLAG(platter_storages_add_fd(storages, "s", 0, BAD, &err));
    FAILS(platter_storages_add_fd(storages, "s", -1, 0, &err), PLATTER_STATUS_INVALID, "fd");
    const int before = frees;
    NO_NULL(platter_storages_add_storage(NULL, "s", &ops, &frees, count_free, 0, &err), "storages");
    NO_NULL(platter_storages_add_storage(storages, NULL, &ops, &frees, count_free, 0, &err), "name");
    NO_NULL(platter_storages_add_storage(storages, "s", NULL, &frees, count_free, 0, &err), "ops");
    NO_FLAG(platter_storages_add_storage(storages, "s", &ops, &frees, count_free, BAD, &err));
    FAILS(platter_storages_add_storage(storages, "s", &ops, &frees, count_free, 0, &err),
          PLATTER_STATUS_INVALID, "'read'");
    CHECK(frees == before + 5);
    frees = before;
    NO_NULL(platter_storages_add_image(NULL, "s", NULL, 0, &err), "storages");
    NO_NULL(platter_storages_add_image(storages, NULL, NULL, 0, &err), "name");
    NO_NULL(platter_storages_add_image(storages, "s", NULL, 0, &err), "image");
    NO_FLAG(platter_storages_add_image(storages, "s", NULL, BAD, &err));
    OK(platter_open_options_new(&options, 0, &err));
    NO_NULL(platter_open_options_set_storages(NULL, storages, 0, &err), "options");
    NO_FLAG(platter_open_options_set_storages(options, storages, BAD, &err));
    platter_open_options_free(options);
    OK(platter_create_new(&create, "c", "raw", 0, &err));
    NO_NULL(platter_create_set_storages(NULL, storages, 0, &err), "create");
    NO_FLAG(platter_create_set_storages(create, storages, BAD, &err));
    platter_create_free(create);
    platter_storages_free(storages);
    platter_storages_free(NULL);
}

static void secrets(void)
{
    static const char *const properties[] = {"data", "x", NULL};
    platter_secrets *secrets = POISONED;
    platter_create *create;
    platter_open_options *options;
    NO_NULL(platter_secrets_new(NULL, 0, &err), "out");
    NO_FLAG(platter_secrets_new(&secrets, BAD, &err));
    CHECK(secrets == NULL);
    OK(platter_secrets_new(&secrets, 0, &err));
    NO_NULL(platter_secrets_add(NULL, "s", "x", 1, 0, &err), "secrets");
    NO_NULL(platter_secrets_add(secrets, NULL, "x", 1, 0, &err), "id");
    NO_NULL(platter_secrets_add(secrets, "s", NULL, 1, 0, &err), "data");
    FAILS(platter_secrets_add(secrets, "s", "x", SIZE_MAX, 0, &err), PLATTER_STATUS_INVALID, "len");
    NO_FLAG(platter_secrets_add(secrets, "s", "x", 1, BAD, &err));
    NO_NULL(platter_secrets_define(NULL, "s", properties, 0, &err), "secrets");
    NO_NULL(platter_secrets_define(secrets, NULL, properties, 0, &err), "id");
    NO_NULL(platter_secrets_define(secrets, "s", NULL, 0, &err), "properties");
    NO_FLAG(platter_secrets_define(secrets, "s", properties, BAD, &err));
    NO_NULL(platter_secrets_add_throttle_group(NULL, "g", properties, 0, &err), "secrets");
    NO_NULL(platter_secrets_add_throttle_group(secrets, NULL, properties, 0, &err), "id");
    NO_NULL(platter_secrets_add_throttle_group(secrets, "g", NULL, 0, &err), "properties");
    NO_FLAG(platter_secrets_add_throttle_group(secrets, "g", properties, BAD, &err));
    NO_NULL(platter_secrets_add_tls_x509(NULL, "t", properties, 0, &err), "secrets");
    NO_NULL(platter_secrets_add_tls_x509(secrets, NULL, properties, 0, &err), "id");
    NO_NULL(platter_secrets_add_tls_x509(secrets, "t", NULL, 0, &err), "properties");
    NO_FLAG(platter_secrets_add_tls_x509(secrets, "t", properties, BAD, &err));
    NO_NULL(platter_secrets_add_tls_psk(NULL, "t", properties, 0, &err), "secrets");
    NO_NULL(platter_secrets_add_tls_psk(secrets, NULL, properties, 0, &err), "id");
    NO_NULL(platter_secrets_add_tls_psk(secrets, "t", NULL, 0, &err), "properties");
    NO_FLAG(platter_secrets_add_tls_psk(secrets, "t", properties, BAD, &err));
    NO_NULL(platter_secrets_add_authorization(NULL, "t", properties, 0, &err), "secrets");
    NO_NULL(platter_secrets_add_authorization(secrets, NULL, properties, 0, &err), "id");
    NO_NULL(platter_secrets_add_authorization(secrets, "t", NULL, 0, &err), "properties");
    NO_FLAG(platter_secrets_add_authorization(secrets, "t", properties, BAD, &err));
    OK(platter_open_options_new(&options, 0, &err));
    NO_NULL(platter_open_options_set_secrets(NULL, secrets, 0, &err), "options");
    NO_FLAG(platter_open_options_set_secrets(options, secrets, BAD, &err));
    platter_nodes *nodes = POISONED;
    NO_NULL(platter_nodes_new(NULL, 0, &err), "out");
    NO_FLAG(platter_nodes_new(&nodes, BAD, &err));
    CHECK(nodes == NULL);
    OK(platter_nodes_new(&nodes, 0, &err));
    NO_NULL(platter_open_options_set_nodes(NULL, nodes, 0, &err), "options");
    NO_FLAG(platter_open_options_set_nodes(options, nodes, BAD, &err));
    OK(platter_open_options_set_nodes(options, NULL, 0, &err));
    platter_nodes_free(nodes);
    platter_nodes_free(NULL);
    platter_open_options_free(options);
    OK(platter_create_new(&create, "c", "raw", 0, &err));
    NO_NULL(platter_create_set_secrets(NULL, secrets, 0, &err), "create");
    NO_FLAG(platter_create_set_secrets(create, secrets, BAD, &err));
    platter_create_free(create);
    const int before = frees;
    NO_NULL(platter_secrets_set_callback(NULL, on_secret, &frees, count_free, 0, &err), "secrets");
    NO_NULL(platter_secrets_set_callback(secrets, NULL, &frees, count_free, 0, &err), "secret_fn");
    NO_FLAG(platter_secrets_set_callback(secrets, on_secret, &frees, count_free, BAD, &err));
    CHECK(frees == before + 3);
    frees = before;
    NO_NULL(platter_secret_answer_set(NULL, "x", 1, 0, &err), "answer");
    platter_secrets_free(secrets);
    platter_secrets_free(NULL);
}

static void policies(void)
{
    platter_policy *policy = POISONED;
    NO_NULL(platter_policy_new(NULL, PLATTER_POLICY_STRICT, 0, &err), "out");
    NO_FLAG(platter_policy_new(&policy, PLATTER_POLICY_STRICT, BAD, &err));
    CHECK(policy == NULL);
    FAILS(platter_policy_new(&policy, 9, 0, &err), PLATTER_STATUS_INVALID, "9");
    OK(platter_policy_new(&policy, PLATTER_POLICY_STRICT, 0, &err));
    NO_NULL(platter_policy_allow_format(NULL, "raw", 0, &err), "policy");
    NO_NULL(platter_policy_allow_format(policy, NULL, 0, &err), "format");
    NO_FLAG(platter_policy_allow_format(policy, "raw", BAD, &err));
    NO_NULL(platter_policy_allow_host(NULL, "h", 0, &err), "policy");
    NO_NULL(platter_policy_allow_host(policy, NULL, 0, &err), "host");
    NO_FLAG(platter_policy_allow_host(policy, "h", BAD, &err));
    NO_NULL(platter_policy_allow_protocol(NULL, "file", 0, &err), "policy");
    NO_NULL(platter_policy_allow_protocol(policy, NULL, 0, &err), "protocol");
    NO_FLAG(platter_policy_allow_protocol(policy, "file", BAD, &err));
    NO_NULL(platter_policy_set_probing(NULL, PLATTER_PROBING_NEVER, 0, &err), "policy");
    NO_FLAG(platter_policy_set_probing(policy, PLATTER_PROBING_NEVER, BAD, &err));
    FAILS(platter_policy_set_probing(policy, 9, 0, &err), PLATTER_STATUS_INVALID, "9");
    NO_NULL(platter_policy_set_implicit(NULL, PLATTER_IMPLICIT_DENY, 0, &err), "policy");
    NO_FLAG(platter_policy_set_implicit(policy, PLATTER_IMPLICIT_DENY, BAD, &err));
    FAILS(platter_policy_set_implicit(policy, 9, 0, &err), PLATTER_STATUS_INVALID, "9");
    NO_NULL(platter_policy_add_directory(NULL, "/", 0, &err), "policy");
    NO_NULL(platter_policy_add_directory(policy, NULL, 0, &err), "directory");
    NO_FLAG(platter_policy_add_directory(policy, "/", BAD, &err));
    NO_NULL(platter_policy_set_callback(NULL, on_implicit, &frees, count_free, 0, &err), "policy");
    NO_NULL(platter_policy_set_callback(policy, NULL, &frees, count_free, 0, &err), "implicit_fn");
    NO_FLAG(platter_policy_set_callback(policy, on_implicit, &frees, count_free, BAD, &err));
    CHECK(frees == 3);
    frees = 0;
    NO_NULL(platter_policy_set_implicit_protocols(NULL, 1, 0, &err), "policy");
    NO_FLAG(platter_policy_set_implicit_protocols(policy, 1, BAD, &err));
    FAILS(platter_policy_set_implicit_protocols(policy, 2, 0, &err), PLATTER_STATUS_INVALID,
          "'allowed' must be 0 or 1");
    NO_NULL(platter_policy_set_probe_footers(NULL, 1, 0, &err), "policy");
    NO_FLAG(platter_policy_set_probe_footers(policy, 1, BAD, &err));
    FAILS(platter_policy_set_probe_footers(policy, 2, 0, &err), PLATTER_STATUS_INVALID,
          "'on' must be 0 or 1");
    uint64_t limit;
    NO_NULL(platter_policy_get_limit(NULL, policy, PLATTER_LIMIT_EXPANSION, 0, &err), "out");
    NO_NULL(platter_policy_get_limit(&limit, NULL, PLATTER_LIMIT_EXPANSION, 0, &err), "policy");
    NO_FLAG(platter_policy_get_limit(&limit, policy, PLATTER_LIMIT_EXPANSION, BAD, &err));
    FAILS(platter_policy_get_limit(&limit, policy, 99, 0, &err), PLATTER_STATUS_INVALID, "99");
    NO_NULL(platter_policy_set_limit(NULL, PLATTER_LIMIT_CHAIN_DEPTH, 1, 0, &err), "policy");
    NO_FLAG(platter_policy_set_limit(policy, PLATTER_LIMIT_CHAIN_DEPTH, 1, BAD, &err));
    FAILS(platter_policy_set_limit(policy, 99, 1, 0, &err), PLATTER_STATUS_INVALID, "99");

    platter_open_options *open = POISONED;
    NO_NULL(platter_open_options_new(NULL, 0, &err), "out");
    NO_FLAG(platter_open_options_new(&open, BAD, &err));
    CHECK(open == NULL);
    OK(platter_open_options_new(&open, 0, &err));
    NO_NULL(platter_open_options_set_format(NULL, "raw", 0, &err), "options");
    NO_FLAG(platter_open_options_set_format(open, "raw", BAD, &err));
    OK(platter_open_options_set_format(open, NULL, 0, &err));
    NO_NULL(platter_open_options_set_cache(NULL, "none", 0, &err), "options");
    NO_NULL(platter_open_options_set_cache(open, NULL, 0, &err), "mode");
    NO_FLAG(platter_open_options_set_cache(open, "none", BAD, &err));
    FAILS(platter_open_options_set_cache(open, "x", 0, &err), PLATTER_STATUS_INVALID,
          "Invalid cache option: x");
    NO_NULL(platter_open_options_set_option(NULL, "a", "b", 0, &err), "options");
    NO_NULL(platter_open_options_set_option(open, NULL, "b", 0, &err), "key");
    NO_FLAG(platter_open_options_set_option(open, "a", "b", BAD, &err));
    OK(platter_open_options_set_option(open, "a", NULL, 0, &err));
    NO_NULL(platter_open_options_set_options(NULL, NULL, 0, &err), "options");
    NO_FLAG(platter_open_options_set_options(open, NULL, BAD, &err));
    OK(platter_open_options_set_options(open, NULL, 0, &err));
    NO_NULL(platter_open_options_set_compression_level(NULL, 1, 0, &err), "options");
    NO_FLAG(platter_open_options_set_compression_level(open, 1, BAD, &err));
    FAILS(platter_open_options_set_compression_level(open, 23, 0, &err), PLATTER_STATUS_INVALID, "23");
    NO_NULL(platter_open_options_set_decompress(NULL, "auto", 0, &err), "options");
    NO_FLAG(platter_open_options_set_decompress(open, "auto", BAD, &err));
    OK(platter_open_options_set_decompress(open, NULL, 0, &err));
    NO_NULL(platter_open_options_set_discard(NULL, 1, 0, &err), "options");
    NO_FLAG(platter_open_options_set_discard(open, 1, BAD, &err));
    OK(platter_open_options_set_discard(open, 1, 0, &err));
    FAILS(platter_open_options_set_discard(open, 2, 0, &err), PLATTER_STATUS_INVALID,
          "'discard' must be 0 or 1");
    NO_NULL(platter_open_options_set_detect_zeroes(NULL, "on", 0, &err), "options");
    NO_FLAG(platter_open_options_set_detect_zeroes(open, "on", BAD, &err));
    FAILS(platter_open_options_set_detect_zeroes(open, "some", 0, &err), PLATTER_STATUS_INVALID, "some");
    OK(platter_open_options_set_detect_zeroes(open, NULL, 0, &err));
    NO_NULL(platter_open_options_set_policy(NULL, policy, 0, &err), "options");
    NO_NULL(platter_open_options_set_policy(open, NULL, 0, &err), "policy");
    NO_FLAG(platter_open_options_set_policy(open, policy, BAD, &err));
    platter_control *control = POISONED;
    NO_NULL(platter_control_new(NULL, 0, &err), "out");
    NO_FLAG(platter_control_new(&control, BAD, &err));
    CHECK(control == NULL);
    OK(platter_control_new(&control, 0, &err));
    NO_NULL(platter_control_set_deadline(NULL, 1, 0, &err), "control");
    NO_FLAG(platter_control_set_deadline(control, 1, BAD, &err));
    NO_NULL(platter_open_options_set_control(NULL, control, 0, &err), "options");
    NO_FLAG(platter_open_options_set_control(open, control, BAD, &err));
    OK(platter_open_options_set_control(open, NULL, 0, &err));
    NO_NULL(platter_image_set_control(NULL, control, 0, &err), "image");
    platter_control_cancel(NULL);
    platter_control_free(control);
    platter_control_free(NULL);
    platter_open_options_free(open);
    platter_open_options_free(NULL);
    platter_policy_free(policy);
    platter_policy_free(NULL);
}

static void images(void)
{
    platter_image *image = POISONED;
    NO_NULL(platter_image_open(NULL, "a", NULL, 0, &err), "out");
    NO_NULL(platter_image_open(&image, NULL, NULL, 0, &err), "location");
    CHECK(image == NULL);
    NO_FLAG(platter_image_open(&image, "a", NULL, BAD, &err));
    FAILS(platter_image_open(&image, "a", NULL,
                             PLATTER_LOCATION_PATH | PLATTER_LOCATION_IMAGE_OPTS, &err),
          PLATTER_STATUS_INVALID, "two kinds");
    NO_NULL(platter_image_open_fd(NULL, 0, NULL, NULL, 0, &err), "out");
    FAILS(platter_image_open_fd(&image, -1, NULL, NULL, 0, &err), PLATTER_STATUS_INVALID, "fd");
    FAILS(platter_image_open_fd(&image, 9999, NULL, NULL, 0, &err), PLATTER_STATUS_OS, "descriptor");
    NO_FLAG(platter_image_open_fd(&image, 0, NULL, NULL, BAD, &err));
    NO_NULL(platter_image_open_storage(NULL, NULL, NULL, &frees, count_free, NULL, 0, &err), "out");
    NO_NULL(platter_image_open_storage(&image, NULL, NULL, &frees, count_free, NULL, 0, &err),
            "ops");
    platter_storage_ops ops = {0};
    FAILS(platter_image_open_storage(&image, &ops, NULL, &frees, count_free, NULL, 0, &err),
          PLATTER_STATUS_INVALID, "lack");
    NO_FLAG(platter_image_open_storage(&image, &ops, NULL, &frees, count_free, NULL, BAD, &err));
    CHECK(frees == 4);
    frees = 0;

    make_image("a.raw", "raw", 1 << 20, NULL);
    image = open_image("a.raw", "raw", PLATTER_OPEN_WRITE);
    uint64_t size = 7;
    NO_NULL(platter_image_size(NULL, image, 0, &err), "out");
    NO_NULL(platter_image_size(&size, NULL, 0, &err), "image");
    NO_FLAG(platter_image_size(&size, image, BAD, &err));
    CHECK(size == 0);
    uint32_t cluster = 7;
    uint32_t features;
    NO_NULL(platter_image_features(NULL, image, 0, &err), "out");
    NO_NULL(platter_image_features(&features, NULL, 0, &err), "image");
    NO_FLAG(platter_image_features(&features, image, BAD, &err));
    NO_NULL(platter_image_cluster_size(NULL, image, 0, &err), "out");
    NO_NULL(platter_image_cluster_size(&cluster, NULL, 0, &err), "image");
    FAILS(platter_image_cluster_size(&cluster, image, 0, &err), PLATTER_STATUS_NOT_FOUND, "raw");
    NO_FLAG(platter_image_cluster_size(&cluster, image, BAD, &err));
    CHECK(platter_image_format(NULL) == NULL);
    CHECK(platter_image_filename(NULL) == NULL);
    CHECK(platter_image_is_read_only(NULL));
    CHECK(platter_image_warning(NULL, 0) == NULL);
    CHECK(platter_image_warning(image, 1000) == NULL);

    char buf[512] = {0};
    NO_NULL(platter_image_read(NULL, buf, 1, 0, 0, &err), "image");
    NO_NULL(platter_image_read(image, NULL, 1, 0, 0, &err), "buf");
    NO_FLAG(platter_image_read(image, buf, 1, 0, BAD, &err));
    FAILS(platter_image_read(image, buf, 2, (1 << 20) - 1, 0, &err), PLATTER_STATUS_INVALID, "");
    FAILS(platter_image_read(image, buf, 2, UINT64_MAX, 0, &err), PLATTER_STATUS_INVALID, "");
    FAILS(platter_image_read(image, buf, SIZE_MAX, 0, 0, &err), PLATTER_STATUS_INVALID, "");
    OK(platter_image_read(image, NULL, 0, 0, 0, &err));
    NO_NULL(platter_image_write(NULL, buf, 1, 0, 0, &err), "image");
    NO_NULL(platter_image_write(image, NULL, 1, 0, 0, &err), "buf");
    NO_FLAG(platter_image_write(image, buf, 1, 0, BAD, &err));
    FAILS(platter_image_write(image, buf, 2, (1 << 20) - 1, 0, &err), PLATTER_STATUS_INVALID, "");
    struct iovec iov[2] = {{buf, 1}, {NULL, 1}};
    struct iovec huge[2] = {{buf, SIZE_MAX}, {buf, SIZE_MAX}};
    NO_NULL(platter_image_readv(NULL, iov, 1, 0, 0, &err), "image");
    NO_NULL(platter_image_readv(image, NULL, 1, 0, 0, &err), "iov");
    FAILS(platter_image_readv(image, iov, 2, 0, 0, &err), PLATTER_STATUS_INVALID, "'iov'");
    FAILS(platter_image_readv(image, huge, 2, 0, 0, &err), PLATTER_STATUS_INVALID, "'iov'");
    NO_FLAG(platter_image_readv(image, iov, 1, 0, BAD, &err));
    OK(platter_image_readv(image, NULL, 0, 0, 0, &err));
    NO_NULL(platter_image_writev(NULL, iov, 1, 0, 0, &err), "image");
    NO_NULL(platter_image_writev(image, NULL, 1, 0, 0, &err), "iov");
    FAILS(platter_image_writev(image, iov, 1, 1 << 20, 0, &err), PLATTER_STATUS_INVALID, "end");
    NO_FLAG(platter_image_writev(image, iov, 1, 0, BAD, &err));
    NO_NULL(platter_image_write_zeroes(NULL, 0, 1, 0, &err), "image");
    NO_FLAG(platter_image_write_zeroes(image, 0, 1, BAD, &err));
    FAILS(platter_image_write_zeroes(image, 1, 1 << 20, 0, &err), PLATTER_STATUS_INVALID, "");
    FAILS(platter_image_write_zeroes(image, 1, UINT64_MAX, 0, &err), PLATTER_STATUS_INVALID, "");
    NO_NULL(platter_image_discard(NULL, 0, 1, 0, &err), "image");
    NO_FLAG(platter_image_discard(image, 0, 1, BAD, &err));
    FAILS(platter_image_discard(image, 1, UINT64_MAX, 0, &err), PLATTER_STATUS_INVALID, "");
    NO_NULL(platter_image_prefetch(NULL, 0, 1, 0, &err), "image");
    NO_FLAG(platter_image_prefetch(image, 0, 1, BAD, &err));
    FAILS(platter_image_prefetch(image, 1, 1 << 20, 0, &err), PLATTER_STATUS_INVALID, "");
    FAILS(platter_image_prefetch(image, 1, UINT64_MAX, 0, &err), PLATTER_STATUS_INVALID, "");
    OK(platter_image_prefetch(image, 1 << 20, 0, 0, &err));
    NO_NULL(platter_image_flush(NULL, 0, &err), "image");
    NO_FLAG(platter_image_flush(image, BAD, &err));
    platter_extent extent;
    memset(&extent, 0x5a, sizeof extent);
    NO_NULL(platter_image_extent(NULL, image, 0, 1, 0, &err), "out");
    NO_NULL(platter_image_extent(&extent, NULL, 0, 1, 0, &err), "image");
    CHECK(extent.length == 0 && extent.reserved[3] == 0);
    NO_FLAG(platter_image_extent(&extent, image, 0, 1, BAD, &err));
    FAILS(platter_image_extent(&extent, image, 0, 0, 0, &err), PLATTER_STATUS_INVALID, "'len'");
    FAILS(platter_image_extent(&extent, image, 1, UINT64_MAX, 0, &err), PLATTER_STATUS_INVALID, "");
    NO_FLAG(platter_image_close(image, BAD, &err));
    OK(platter_image_close(NULL, 0, &err));
}

static void amendment(void)
{
    platter_image *image = open_image("a.raw", "raw", 0);
    platter_options *options;
    platter_job *job = POISONED;
    OK(platter_options_new(&options, 0, &err));
    NO_NULL(platter_amend_job_new(NULL, image, options, NULL, 0, &err), "out");
    NO_NULL(platter_amend_job_new(&job, NULL, options, NULL, 0, &err), "image");
    NO_NULL(platter_amend_job_new(&job, image, NULL, NULL, 0, &err), "options");
    CHECK(job == NULL);
    NO_FLAG(platter_amend_job_new(&job, image, options, NULL, BAD, &err));
    FAILS(platter_amend_job_new(&job, image, options, NULL, 0, &err), PLATTER_STATUS_UNSUPPORTED,
          "Format driver 'raw' does not support option amendment");
    platter_options_free(options);
    OK(platter_image_close(image, 0, &err));
}

static int no_extent(const platter_extent *extent, const char *filename, void *user_data)
{
    (void)extent, (void)filename, (void)user_data;
    return 0;
}

static void jobs(void)
{
    platter_image *image = open_image("a.raw", "raw", 0);
    platter_job *job = POISONED;
    platter_report *snapshots = POISONED;
    NO_NULL(platter_check_job_new(NULL, image, 0, &err), "out");
    NO_NULL(platter_check_job_new(&job, NULL, 0, &err), "image");
    CHECK(job == NULL);
    NO_FLAG(platter_check_job_new(&job, image, BAD, &err));
    NO_NULL(platter_compare_job_new(NULL, image, image, 0, &err), "out");
    NO_NULL(platter_compare_job_new(&job, NULL, image, 0, &err), "a");
    NO_NULL(platter_compare_job_new(&job, image, NULL, 0, &err), "b");
    NO_FLAG(platter_compare_job_new(&job, image, image, BAD, &err));
    NO_NULL(platter_map_job_new(NULL, image, 0, 1, 0, &err), "out");
    NO_NULL(platter_map_job_new(&job, NULL, 0, 1, 0, &err), "image");
    NO_FLAG(platter_map_job_new(&job, image, 0, 1, BAD, &err));
    NO_NULL(platter_map_each_job_new(NULL, image, 0, 1, no_extent, NULL, NULL, 0, &err), "out");
    NO_NULL(platter_map_each_job_new(&job, NULL, 0, 1, no_extent, NULL, NULL, 0, &err), "image");
    NO_NULL(platter_map_each_job_new(&job, image, 0, 1, NULL, NULL, NULL, 0, &err), "extent_fn");
    NO_FLAG(platter_map_each_job_new(&job, image, 0, 1, no_extent, NULL, NULL, BAD, &err));
    NO_NULL(platter_snapshot_show(NULL, "x", 0, &err), "image");
    NO_NULL(platter_snapshot_show(image, NULL, 0, &err), "snapshot");
    NO_FLAG(platter_snapshot_show(image, "x", BAD, &err));
    NO_NULL(platter_snapshot_list(NULL, image, 0, &err), "out");
    NO_NULL(platter_snapshot_list(&snapshots, NULL, 0, &err), "image");
    NO_FLAG(platter_snapshot_list(&snapshots, image, BAD, &err));
    NO_NULL(platter_snapshot_create_job_new(NULL, image, "s", 0, &err), "out");
    NO_NULL(platter_snapshot_create_job_new(&job, NULL, "s", 0, &err), "image");
    NO_NULL(platter_snapshot_create_job_new(&job, image, NULL, 0, &err), "name");
    NO_FLAG(platter_snapshot_create_job_new(&job, image, "s", BAD, &err));
    NO_NULL(platter_snapshot_apply_job_new(NULL, image, "s", 0, &err), "out");
    NO_NULL(platter_snapshot_apply_job_new(&job, NULL, "s", 0, &err), "image");
    NO_NULL(platter_snapshot_apply_job_new(&job, image, NULL, 0, &err), "snapshot");
    NO_FLAG(platter_snapshot_apply_job_new(&job, image, "s", BAD, &err));
    NO_NULL(platter_snapshot_delete_job_new(NULL, image, "s", 0, &err), "out");
    NO_NULL(platter_snapshot_delete_job_new(&job, NULL, "s", 0, &err), "image");
    NO_NULL(platter_snapshot_delete_job_new(&job, image, NULL, 0, &err), "name");
    NO_FLAG(platter_snapshot_delete_job_new(&job, image, "s", BAD, &err));
    NO_NULL(platter_bitmap_list(NULL, image, 0, &err), "out");
    NO_NULL(platter_bitmap_list(&snapshots, NULL, 0, &err), "image");
    NO_FLAG(platter_bitmap_list(&snapshots, image, BAD, &err));
    NO_NULL(platter_bitmap_dirty(NULL, image, "b", 0, 1, 0, &err), "out");
    NO_NULL(platter_bitmap_dirty(&snapshots, NULL, "b", 0, 1, 0, &err), "image");
    NO_NULL(platter_bitmap_dirty(&snapshots, image, NULL, 0, 1, 0, &err), "name");
    NO_FLAG(platter_bitmap_dirty(&snapshots, image, "b", 0, 1, BAD, &err));
    NO_NULL(platter_bitmap_add(NULL, "b", 0, 0, &err), "image");
    NO_NULL(platter_bitmap_add(image, NULL, 0, 0, &err), "name");
    NO_FLAG(platter_bitmap_add(image, "b", 0, BAD, &err));
    NO_NULL(platter_bitmap_remove(NULL, "b", 0, &err), "image");
    NO_NULL(platter_bitmap_remove(image, NULL, 0, &err), "name");
    NO_FLAG(platter_bitmap_remove(image, "b", BAD, &err));
    NO_NULL(platter_bitmap_clear(NULL, "b", 0, &err), "image");
    NO_NULL(platter_bitmap_clear(image, NULL, 0, &err), "name");
    NO_FLAG(platter_bitmap_clear(image, "b", BAD, &err));
    NO_NULL(platter_bitmap_enable(NULL, "b", 0, &err), "image");
    NO_NULL(platter_bitmap_enable(image, NULL, 0, &err), "name");
    NO_FLAG(platter_bitmap_enable(image, "b", BAD, &err));
    NO_NULL(platter_bitmap_disable(NULL, "b", 0, &err), "image");
    NO_NULL(platter_bitmap_disable(image, NULL, 0, &err), "name");
    NO_FLAG(platter_bitmap_disable(image, "b", BAD, &err));
    NO_NULL(platter_bitmap_merge(NULL, "b", NULL, "c", 0, &err), "image");
    NO_NULL(platter_bitmap_merge(image, NULL, NULL, "c", 0, &err), "name");
    NO_NULL(platter_bitmap_merge(image, "b", NULL, NULL, 0, &err), "source");
    NO_FLAG(platter_bitmap_merge(image, "b", NULL, "c", BAD, &err));
    NO_NULL(platter_measure_job_new(NULL, image, 0, "raw", NULL, 0, &err), "out");
    NO_NULL(platter_measure_job_new(&job, image, 0, NULL, NULL, 0, &err), "format");
    NO_FLAG(platter_measure_job_new(&job, image, 0, "raw", NULL, BAD, &err));
    NO_NULL(platter_commit_job_new(NULL, "x", NULL, NULL, 0, &err), "out");
    NO_NULL(platter_commit_job_new(&job, NULL, NULL, NULL, 0, &err), "location");
    NO_FLAG(platter_commit_job_new(&job, "x", NULL, NULL, BAD, &err));
    NO_NULL(platter_rebase_job_new(NULL, "x", NULL, NULL, NULL, NULL, 0, &err), "out");
    NO_NULL(platter_rebase_job_new(&job, NULL, NULL, NULL, NULL, NULL, 0, &err), "location");
    NO_FLAG(platter_rebase_job_new(&job, "x", NULL, NULL, NULL, NULL, BAD, &err));
    NO_NULL(platter_commit_image_job_new(NULL, image, NULL, NULL, 0, &err), "out");
    NO_NULL(platter_commit_image_job_new(&job, NULL, NULL, NULL, 0, &err), "image");
    NO_FLAG(platter_commit_image_job_new(&job, image, NULL, NULL, BAD, &err));
    NO_NULL(platter_rebase_image_job_new(NULL, image, NULL, NULL, NULL, NULL, 0, &err), "out");
    NO_NULL(platter_rebase_image_job_new(&job, NULL, NULL, NULL, NULL, NULL, 0, &err), "image");
    NO_FLAG(platter_rebase_image_job_new(&job, image, NULL, NULL, NULL, NULL, BAD, &err));
    FAILS(platter_rebase_job_new(&job, "x", NULL, NULL, "y", NULL, 0, &err),
          PLATTER_STATUS_INVALID, "y");
    NO_NULL(platter_resize_job_new(NULL, image, 1, NULL, 0, &err), "out");
    NO_NULL(platter_resize_job_new(&job, NULL, 1, NULL, 0, &err), "image");
    NO_FLAG(platter_resize_job_new(&job, image, 1, NULL, BAD, &err));
    FAILS(platter_resize_job_new(&job, image, 0, NULL, 0, &err), PLATTER_STATUS_INVALID, "positive");
    FAILS(platter_resize_job_new(&job, image, 1, "x", 0, &err), PLATTER_STATUS_INVALID, "'x'");
    FAILS(platter_resize_job_new(&job, image, 1, NULL, PLATTER_RESIZE_MORE | PLATTER_RESIZE_LESS,
                                 &err),
          PLATTER_STATUS_INVALID, "'flags'");

    OK(platter_map_job_new(&job, image, 0, PLATTER_LENGTH_ALL, 0, &err));
    NO_NULL(platter_job_set_progress(NULL, on_progress, &frees, count_free, 0, &err), "job");
    NO_NULL(platter_job_set_progress(job, NULL, &frees, count_free, 0, &err), "progress_fn");
    NO_FLAG(platter_job_set_progress(job, on_progress, &frees, count_free, BAD, &err));
    NO_NULL(platter_job_set_message(NULL, on_message, &frees, count_free, 0, &err), "job");
    NO_NULL(platter_job_set_message(job, NULL, &frees, count_free, 0, &err), "message_fn");
    NO_FLAG(platter_job_set_message(job, on_message, &frees, count_free, BAD, &err));
    CHECK(frees == 6);
    frees = 0;
    CHECK(platter_job_summary(NULL) == NULL);
    CHECK(platter_job_summary(job) == NULL);
    CHECK(platter_job_warning(NULL, 0) == NULL);
    CHECK(platter_job_warning(job, 0) == NULL);
    NO_NULL(platter_job_run(NULL, 0, &err), "job");
    NO_FLAG(platter_job_run(job, BAD, &err));
    NO_NULL(platter_job_start(NULL, 0, &err), "job");
    NO_FLAG(platter_job_start(job, BAD, &err));
    int fd = 7;
    NO_NULL(platter_job_fd(NULL, job, 0, &err), "out");
    NO_NULL(platter_job_fd(&fd, NULL, 0, &err), "job");
    CHECK(fd == -1);
    NO_FLAG(platter_job_fd(&fd, job, BAD, &err));
    platter_report *report = POISONED;
    NO_NULL(platter_job_result(&report, NULL, 0, &err), "job");
    CHECK(report == NULL);
    NO_FLAG(platter_job_result(&report, job, BAD, &err));
    NO_NULL(platter_job_failure_report(NULL, job, 0, &err), "out");
    NO_NULL(platter_job_failure_report(&report, NULL, 0, &err), "job");
    NO_FLAG(platter_job_failure_report(&report, job, BAD, &err));
    FAILS(platter_job_failure_report(&report, job, 0, &err), PLATTER_STATUS_BUSY, "not run");
    FAILS(platter_job_result(&report, job, 0, &err), PLATTER_STATUS_BUSY, "not run");
    FAILS(platter_job_result(&report, job, PLATTER_JOB_WAIT, &err), PLATTER_STATUS_BUSY, "not run");
    platter_progress progress;
    uint32_t state;
    NO_NULL(platter_job_state(NULL, job, 0, &err), "out");
    NO_NULL(platter_job_state(&state, NULL, 0, &err), "job");
    NO_FLAG(platter_job_state(&state, job, BAD, &err));
    NO_NULL(platter_job_progress(NULL, job, 0, &err), "out");
    NO_NULL(platter_job_progress(&progress, NULL, 0, &err), "job");
    NO_FLAG(platter_job_progress(&progress, job, BAD, &err));
    NO_NULL(platter_job_pause(NULL, 0, &err), "job");
    NO_FLAG(platter_job_pause(job, BAD, &err));
    NO_NULL(platter_job_resume(NULL, 0, &err), "job");
    NO_FLAG(platter_job_resume(job, BAD, &err));
    NO_NULL(platter_job_set_rate(NULL, 1, 0, &err), "job");
    NO_FLAG(platter_job_set_rate(job, 1, BAD, &err));
    NO_NULL(platter_job_set_deadline(NULL, 1, 0, &err), "job");
    NO_FLAG(platter_job_set_deadline(job, 1, BAD, &err));
    platter_job_cancel(NULL);
    platter_job_free(NULL);
    OK(platter_job_run(job, 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_BUSY, "before");
    FAILS(platter_job_start(job, 0, &err), PLATTER_STATUS_BUSY, "before");
    FAILS(platter_job_set_progress(job, on_progress, &frees, count_free, 0, &err),
          PLATTER_STATUS_BUSY, "begun");
    CHECK(frees == 1);
    OK(platter_job_result(&report, job, 0, &err));
    platter_report *none;
    FAILS(platter_job_failure_report(&none, job, 0, &err), PLATTER_STATUS_NOT_FOUND, "no report");
    CHECK(none == NULL);
    platter_job_free(job);

    uint64_t number = 7;
    size_t count = 7;
    uint32_t truth = 7;
    int code = 7;
    const char *text = POISONED;
    platter_extent extent;
    CHECK(platter_report_kind(NULL) == 0);
    NO_NULL(platter_report_json(NULL, report, 0, &err), "out");
    NO_NULL(platter_report_json(&text, NULL, 0, &err), "report");
    CHECK(text == NULL);
    NO_FLAG(platter_report_json(&text, report, BAD, &err));
    NO_NULL(platter_report_text(NULL, report, 0, &err), "out");
    NO_NULL(platter_report_text(&text, NULL, 0, &err), "report");
    NO_FLAG(platter_report_text(&text, report, BAD, &err));
    NO_NULL(platter_report_write(NULL, takes_all, NULL, 0, &err), "report");
    NO_NULL(platter_report_write(report, NULL, NULL, 0, &err), "write_fn");
    NO_FLAG(platter_report_write(report, takes_all, NULL, BAD, &err));
    NO_NULL(platter_report_text_end(NULL, 0, &err), "report");
    NO_FLAG(platter_report_text_end(report, BAD, &err));
    NO_NULL(platter_report_exit_code(NULL, report, 0, &err), "out");
    NO_NULL(platter_report_exit_code(&code, NULL, 0, &err), "report");
    NO_FLAG(platter_report_exit_code(&code, report, BAD, &err));
    NO_NULL(platter_report_count(NULL, report, 0, &err), "out");
    NO_NULL(platter_report_count(&count, NULL, 0, &err), "report");
    NO_FLAG(platter_report_count(&count, report, BAD, &err));
    NO_NULL(platter_report_u64(NULL, report, 0, "start", 0, &err), "out");
    NO_NULL(platter_report_u64(&number, NULL, 0, "start", 0, &err), "report");
    NO_NULL(platter_report_u64(&number, report, 0, NULL, 0, &err), "key");
    CHECK(number == 0 && count == 0 && code == 0);
    FAILS(platter_report_u64(&number, report, 0, "x", 0, &err), PLATTER_STATUS_NOT_FOUND, "'x'");
    FAILS(platter_report_u64(&number, report, 99, "start", 0, &err),
          PLATTER_STATUS_NOT_FOUND, "99");
    FAILS(platter_report_u64(&number, report, 0, "zero", 0, &err),
          PLATTER_STATUS_INVALID, "'zero'");
    NO_FLAG(platter_report_u64(&number, report, 0, "start", BAD, &err));
    double real = 7;
    NO_NULL(platter_report_double(NULL, report, 0, "start", 0, &err), "out");
    NO_NULL(platter_report_double(&real, NULL, 0, "start", 0, &err), "report");
    NO_NULL(platter_report_double(&real, report, 0, NULL, 0, &err), "key");
    CHECK(real == 0);
    FAILS(platter_report_double(&real, report, 0, "zero", 0, &err),
          PLATTER_STATUS_INVALID, "'zero'");
    FAILS(platter_report_double(&real, report, 0, "x", 0, &err), PLATTER_STATUS_NOT_FOUND, "'x'");
    OK(platter_report_double(&real, report, 0, "start", 0, &err));
    NO_FLAG(platter_report_double(&real, report, 0, "start", BAD, &err));
    NO_NULL(platter_report_bool(NULL, report, 0, "zero", 0, &err), "out");
    NO_NULL(platter_report_bool(&truth, NULL, 0, "zero", 0, &err), "report");
    CHECK(!truth);
    NO_NULL(platter_report_bool(&truth, report, 0, NULL, 0, &err), "key");
    FAILS(platter_report_bool(&truth, report, 0, "start", 0, &err),
          PLATTER_STATUS_INVALID, "'start'");
    NO_FLAG(platter_report_bool(&truth, report, 0, "zero", BAD, &err));
    NO_NULL(platter_report_string(NULL, report, 0, "x", 0, &err), "out");
    NO_NULL(platter_report_string(&text, NULL, 0, "x", 0, &err), "report");
    NO_NULL(platter_report_string(&text, report, 0, NULL, 0, &err), "key");
    FAILS(platter_report_string(&text, report, 0, "start", 0, &err),
          PLATTER_STATUS_INVALID, "'start'");
    NO_FLAG(platter_report_string(&text, report, 0, "x", BAD, &err));
    NO_NULL(platter_report_extent(NULL, report, 0, 0, &err), "out");
    NO_NULL(platter_report_extent(&extent, NULL, 0, 0, &err), "report");
    FAILS(platter_report_extent(&extent, report, 99, 0, &err), PLATTER_STATUS_NOT_FOUND, "99");
    NO_FLAG(platter_report_extent(&extent, report, 0, BAD, &err));
    CHECK(platter_report_warning(NULL, 0) == NULL);
    CHECK(platter_report_warning(report, 0) == NULL);
    platter_report_free(report);
    platter_report_free(NULL);
    NO_NULL(platter_image_info(NULL, image, 0, &err), "out");
    NO_NULL(platter_image_info(&report, NULL, 0, &err), "image");
    NO_FLAG(platter_image_info(&report, image, BAD, &err));
    NO_NULL(platter_image_describe(NULL, "a.raw", NULL, 0, &err), "out");
    report = POISONED;
    NO_NULL(platter_image_describe(&report, NULL, NULL, 0, &err), "location");
    CHECK(report == NULL);
    NO_FLAG(platter_image_describe(&report, "a.raw", NULL, BAD, &err));
    FAILS(platter_image_describe(&report, "a.raw", NULL, PLATTER_OPEN_WRITE, &err), PLATTER_STATUS_INVALID,
          "flags");
    OK(platter_image_close(image, 0, &err));
}

static void exports(void)
{
    platter_report *report = POISONED;
    NO_NULL(platter_export_list(NULL, "nbd://127.0.0.1:1", NULL, 0, &err), "out");
    NO_NULL(platter_export_list(&report, NULL, NULL, 0, &err), "location");
    CHECK(report == NULL);
    NO_FLAG(platter_export_list(&report, "nbd://127.0.0.1:1", NULL, BAD, &err));
    FAILS(platter_export_list(&report, "nbd://127.0.0.1:1", NULL, PLATTER_OPEN_WRITE, &err),
          PLATTER_STATUS_INVALID, "flags");
    FAILS(platter_export_list(&report, "a.raw", NULL, 0, &err), PLATTER_STATUS_UNSUPPORTED,
          "no lists of exports");
    FAILS(platter_export_list(&report, "nbd+unix://?socket=not.there", NULL, 0, &err),
          PLATTER_STATUS_NOT_FOUND, "not.there");
}

static void inspect(void)
{
    platter_storage_ops ops = {0};
    platter_report *report = POISONED;
    NO_NULL(platter_inspect(NULL, "a.raw", NULL, 0, &err), "out");
    NO_NULL(platter_inspect(&report, NULL, NULL, 0, &err), "location");
    CHECK(report == NULL);
    NO_FLAG(platter_inspect(&report, "a.raw", NULL, BAD, &err));
    FAILS(platter_inspect(&report, "a.raw", NULL, PLATTER_OPEN_WRITE, &err), PLATTER_STATUS_INVALID,
          "flags");
    NO_NULL(platter_inspect_for_profile(NULL, "a.raw", "azure", NULL, 0, &err), "out");
    NO_NULL(platter_inspect_for_profile(&report, NULL, "azure", NULL, 0, &err), "location");
    NO_NULL(platter_inspect_for_profile(&report, "a.raw", NULL, NULL, 0, &err), "profile");
    NO_FLAG(platter_inspect_for_profile(&report, "a.raw", "azure", NULL, BAD, &err));
    FAILS(platter_inspect_for_profile(&report, "a.raw", "no", NULL, 0, &err), PLATTER_STATUS_INVALID,
          "no profile 'no'");
    NO_NULL(platter_inspect_fd(NULL, 0, NULL, NULL, 0, &err), "out");
    FAILS(platter_inspect_fd(&report, -1, NULL, NULL, 0, &err), PLATTER_STATUS_INVALID, "negative");
    FAILS(platter_inspect_fd(&report, 9999, NULL, NULL, 0, &err), PLATTER_STATUS_OS, "descriptor");
    NO_FLAG(platter_inspect_fd(&report, 0, NULL, NULL, BAD, &err));
    frees = 0;
    NO_NULL(platter_inspect_storage(NULL, &ops, NULL, &frees, count_free, NULL, 0, &err), "out");
    NO_NULL(platter_inspect_storage(&report, NULL, NULL, &frees, count_free, NULL, 0, &err), "ops");
    FAILS(platter_inspect_storage(&report, &ops, NULL, &frees, count_free, NULL, 0, &err),
          PLATTER_STATUS_INVALID, "lack");
    NO_FLAG(platter_inspect_storage(&report, &ops, NULL, &frees, count_free, NULL, BAD, &err));
    CHECK(report == NULL && frees == 4);
    frees = 0;
}

static void create(void)
{
    platter_create *create = POISONED;
    NO_NULL(platter_create_new(NULL, "b", "raw", 0, &err), "out");
    NO_NULL(platter_create_new(&create, NULL, "raw", 0, &err), "location");
    CHECK(create == NULL);
    NO_NULL(platter_create_new(&create, "b", NULL, 0, &err), "format");
    NO_FLAG(platter_create_new(&create, "b", "raw", BAD, &err));
    OK(platter_create_new(&create, "b", "raw", 0, &err));
    NO_NULL(platter_create_set_size(NULL, 1, 0, &err), "create");
    NO_FLAG(platter_create_set_size(create, 1, BAD, &err));
    FAILS(platter_create_set_size(create, UINT64_MAX, 0, &err), PLATTER_STATUS_INVALID,
          "18446744073709551615");
    NO_NULL(platter_create_set_options(NULL, NULL, 0, &err), "create");
    NO_NULL(platter_create_set_options(create, NULL, 0, &err), "options");
    NO_FLAG(platter_create_set_options(create, NULL, BAD, &err));
    NO_NULL(platter_create_set_backing(NULL, NULL, NULL, 0, &err), "create");
    NO_FLAG(platter_create_set_backing(create, NULL, NULL, BAD, &err));
    NO_NULL(platter_create_set_control(NULL, NULL, 0, &err), "create");
    NO_FLAG(platter_create_set_control(create, NULL, BAD, &err));
    OK(platter_create_set_control(create, NULL, 0, &err));
    NO_NULL(platter_create_set_policy(NULL, NULL, 0, &err), "create");
    NO_NULL(platter_create_set_policy(create, NULL, 0, &err), "policy");
    NO_FLAG(platter_create_set_policy(create, NULL, BAD, &err));
    platter_job *job = POISONED;
    NO_NULL(platter_create_job_new(NULL, create, 0, &err), "out");
    NO_NULL(platter_create_job_new(&job, NULL, 0, &err), "create");
    CHECK(job == NULL);
    NO_FLAG(platter_create_job_new(&job, create, BAD, &err));
    FAILS(platter_create_job_new(&job, create, 0, &err), PLATTER_STATUS_INVALID, "size");
    platter_create_free(create);
    platter_create_free(NULL);
    CHECK(access("b", F_OK) != 0);
}

static void convert(void)
{
    platter_convert *convert = POISONED;
    uint32_t conflict = 0;
    NO_NULL(platter_convert_new(NULL, 0, &err), "out");
    NO_FLAG(platter_convert_new(&convert, BAD, &err));
    CHECK(convert == NULL);
    OK(platter_convert_new(&convert, 0, &err));
    platter_job *job = POISONED;
    FAILS(platter_convert_job_new(&job, convert, 0, &err), PLATTER_STATUS_INVALID, "no source");
    CHECK(job == NULL);
    NO_NULL(platter_convert_add_source(NULL, "a.raw", 0, &err), "convert");
    NO_NULL(platter_convert_add_source(convert, NULL, 0, &err), "location");
    NO_FLAG(platter_convert_add_source(convert, "a.raw", BAD, &err));
    OK(platter_convert_add_source(convert, "a.raw", 0, &err));
    FAILS(platter_convert_job_new(&job, convert, 0, &err), PLATTER_STATUS_INVALID, "no target");
    NO_NULL(platter_convert_set_source_options(NULL, NULL, 0, &err), "convert");
    NO_FLAG(platter_convert_set_source_options(convert, NULL, BAD, &err));
    NO_NULL(platter_convert_set_snapshot(NULL, NULL, 0, &err), "convert");
    NO_FLAG(platter_convert_set_snapshot(convert, NULL, BAD, &err));
    NO_NULL(platter_convert_set_target(NULL, "c", "raw", 0, &err), "convert");
    NO_NULL(platter_convert_set_target(convert, NULL, "raw", 0, &err), "location");
    NO_FLAG(platter_convert_set_target(convert, "c", "raw", BAD, &err));
    OK(platter_convert_set_target(convert, "c", NULL, 0, &err));
    FAILS(platter_convert_job_new(&job, convert, 0, &err), PLATTER_STATUS_INVALID, "format");
    NO_NULL(platter_convert_set_profile(NULL, "azure", 0, &err), "convert");
    NO_FLAG(platter_convert_set_profile(convert, "azure", BAD, &err));
    FAILS(platter_convert_set_profile(convert, "no", 0, &err), PLATTER_STATUS_INVALID,
          "no profile 'no'");
    NO_NULL(platter_convert_set_target_options(NULL, NULL, 0, &err), "convert");
    NO_NULL(platter_convert_set_target_options(convert, NULL, 0, &err), "options");
    NO_FLAG(platter_convert_set_target_options(convert, NULL, BAD, &err));
    NO_NULL(platter_convert_set_target_cache(NULL, "none", 0, &err), "convert");
    NO_NULL(platter_convert_set_target_cache(convert, NULL, 0, &err), "mode");
    NO_FLAG(platter_convert_set_target_cache(convert, "none", BAD, &err));
    NO_NULL(platter_convert_set_target_policy(NULL, NULL, 0, &err), "convert");
    NO_NULL(platter_convert_set_target_policy(convert, NULL, 0, &err), "policy");
    NO_FLAG(platter_convert_set_target_policy(convert, NULL, BAD, &err));
    NO_NULL(platter_convert_set_backing(NULL, NULL, NULL, 0, &err), "convert");
    NO_FLAG(platter_convert_set_backing(convert, NULL, NULL, BAD, &err));
    NO_NULL(platter_convert_set_checksum(NULL, "sha256", 0, &err), "convert");
    NO_FLAG(platter_convert_set_checksum(convert, "sha256", BAD, &err));
    FAILS(platter_convert_set_checksum(convert, "md5", 0, &err), PLATTER_STATUS_INVALID, "md5");
    OK(platter_convert_set_checksum(convert, NULL, 0, &err));
    NO_NULL(platter_convert_set_number(NULL, PLATTER_CONVERT_PARALLEL, 1, 0, &err), "convert");
    NO_FLAG(platter_convert_set_number(convert, PLATTER_CONVERT_PARALLEL, 1, BAD, &err));
    FAILS(platter_convert_set_number(convert, 99, 1, 0, &err), PLATTER_STATUS_INVALID, "99");
    FAILS(platter_convert_set_number(convert, PLATTER_CONVERT_PARALLEL, UINT64_MAX, 0, &err),
          PLATTER_STATUS_INVALID, "between 1 and 16");
    FAILS(platter_convert_set_number(convert, PLATTER_CONVERT_PARALLEL, 0, 0, &err),
          PLATTER_STATUS_INVALID, "between 1 and 16");
    FAILS(platter_convert_set_number(convert, PLATTER_CONVERT_SPARSE_SIZE, 513, 0, &err),
          PLATTER_STATUS_INVALID, "513");
    NO_NULL(platter_convert_check(NULL, convert, 0, &err), "out");
    NO_NULL(platter_convert_check(&conflict, NULL, 0, &err), "convert");
    NO_FLAG(platter_convert_check(&conflict, convert, BAD, &err));
    CHECK(platter_convert_conflict_text(PLATTER_CONVERT_CONFLICT_NONE) == NULL);
    CHECK(platter_convert_conflict_text(BAD) == NULL);
    NO_NULL(platter_convert_job_new(NULL, convert, 0, &err), "out");
    NO_NULL(platter_convert_job_new(&job, NULL, 0, &err), "convert");
    NO_FLAG(platter_convert_job_new(&job, convert, BAD, &err));
    NO_NULL(platter_convert_set_storages(NULL, NULL, 0, &err), "convert");
    NO_FLAG(platter_convert_set_storages(convert, NULL, BAD, &err));
    NO_NULL(platter_convert_set_secrets(NULL, NULL, 0, &err), "convert");
    NO_FLAG(platter_convert_set_secrets(convert, NULL, BAD, &err));
    NO_NULL(platter_convert_set_source_fd(NULL, 0, 0, &err), "convert");
    FAILS(platter_convert_set_source_fd(convert, -1, 0, &err), PLATTER_STATUS_INVALID, "'fd'");
    NO_FLAG(platter_convert_set_source_fd(convert, 0, BAD, &err));
    FAILS(platter_convert_set_source_fd(convert, 999999, 0, &err), PLATTER_STATUS_OS, "descriptor");
    NO_NULL(platter_convert_set_target_fd(NULL, 0, 0, &err), "convert");
    FAILS(platter_convert_set_target_fd(convert, -1, 0, &err), PLATTER_STATUS_INVALID, "'fd'");
    NO_FLAG(platter_convert_set_target_fd(convert, 1, BAD, &err));
    const int ways[] = {open("/dev/null", O_RDONLY | O_CLOEXEC), open("/dev/null", O_WRONLY | O_CLOEXEC)};
    FAILS(platter_convert_set_source_fd(convert, ways[1], 0, &err), PLATTER_STATUS_INVALID,
          "not open for reading");
    FAILS(platter_convert_set_target_fd(convert, ways[0], 0, &err), PLATTER_STATUS_INVALID,
          "not open for writing");
    OK(platter_convert_set_source_fd(convert, ways[0], 0, &err));
    OK(platter_convert_set_target_fd(convert, ways[1], 0, &err));
    close(ways[0]);
    close(ways[1]);
    platter_convert_free(convert);
    platter_convert_free(NULL);
    CHECK(access("c", F_OK) != 0);
}

static void copies(void)
{
    platter_dd *dd = POISONED;
    platter_job *job = POISONED;
    NO_NULL(platter_dd_new(NULL, 0, &err), "out");
    NO_FLAG(platter_dd_new(&dd, BAD, &err));
    CHECK(dd == NULL);
    OK(platter_dd_new(&dd, 0, &err));
    FAILS(platter_dd_job_new(&job, dd, 0, &err), PLATTER_STATUS_INVALID, "no input");
    CHECK(job == NULL);
    NO_NULL(platter_dd_set_input(NULL, "a.raw", 0, &err), "dd");
    NO_NULL(platter_dd_set_input(dd, NULL, 0, &err), "location");
    NO_FLAG(platter_dd_set_input(dd, "a.raw", BAD, &err));
    NO_NULL(platter_dd_set_input_fd(NULL, 0, 0, &err), "dd");
    FAILS(platter_dd_set_input_fd(dd, -1, 0, &err), PLATTER_STATUS_INVALID, "'fd'");
    NO_FLAG(platter_dd_set_input_fd(dd, 0, BAD, &err));
    const int ways[] = {open("/dev/null", O_RDONLY | O_CLOEXEC), open("/dev/null", O_WRONLY | O_CLOEXEC)};
    FAILS(platter_dd_set_input_fd(dd, ways[1], 0, &err), PLATTER_STATUS_INVALID,
          "not open for reading");
    FAILS(platter_dd_set_output_fd(dd, ways[0], 0, &err), PLATTER_STATUS_INVALID,
          "not open for writing");
    close(ways[0]);
    close(ways[1]);
    OK(platter_dd_set_input(dd, "a.raw", 0, &err));
    FAILS(platter_dd_job_new(&job, dd, 0, &err), PLATTER_STATUS_INVALID, "no output");
    NO_NULL(platter_dd_set_input_options(NULL, NULL, 0, &err), "dd");
    NO_FLAG(platter_dd_set_input_options(dd, NULL, BAD, &err));
    NO_NULL(platter_dd_set_snapshot(NULL, NULL, 0, &err), "dd");
    NO_FLAG(platter_dd_set_snapshot(dd, NULL, BAD, &err));
    NO_NULL(platter_dd_set_output(NULL, "c", "raw", 0, &err), "dd");
    NO_NULL(platter_dd_set_output(dd, NULL, "raw", 0, &err), "location");
    NO_NULL(platter_dd_set_output(dd, "c", NULL, 0, &err), "format");
    NO_FLAG(platter_dd_set_output(dd, "c", "raw", BAD, &err));
    NO_NULL(platter_dd_set_output_fd(NULL, 1, 0, &err), "dd");
    FAILS(platter_dd_set_output_fd(dd, -1, 0, &err), PLATTER_STATUS_INVALID, "'fd'");
    NO_FLAG(platter_dd_set_output_fd(dd, 1, BAD, &err));
    NO_NULL(platter_dd_set_output_cache(NULL, "none", 0, &err), "dd");
    NO_NULL(platter_dd_set_output_cache(dd, NULL, 0, &err), "mode");
    NO_FLAG(platter_dd_set_output_cache(dd, "none", BAD, &err));
    NO_NULL(platter_dd_set_output_policy(NULL, NULL, 0, &err), "dd");
    NO_NULL(platter_dd_set_output_policy(dd, NULL, 0, &err), "policy");
    NO_FLAG(platter_dd_set_output_policy(dd, NULL, BAD, &err));
    NO_NULL(platter_dd_set_output_storages(NULL, NULL, 0, &err), "dd");
    NO_FLAG(platter_dd_set_output_storages(dd, NULL, BAD, &err));
    NO_NULL(platter_dd_set_secrets(NULL, NULL, 0, &err), "dd");
    NO_FLAG(platter_dd_set_secrets(dd, NULL, BAD, &err));
    NO_NULL(platter_dd_set_number(NULL, PLATTER_DD_SKIP, 1, 0, &err), "dd");
    NO_FLAG(platter_dd_set_number(dd, PLATTER_DD_SKIP, 1, BAD, &err));
    FAILS(platter_dd_set_number(dd, 99, 1, 0, &err), PLATTER_STATUS_INVALID, "99");
    FAILS(platter_dd_set_number(dd, PLATTER_DD_BLOCK_SIZE, 0, 0, &err), PLATTER_STATUS_INVALID,
          "between 1 and 2147483647");
    FAILS(platter_dd_set_number(dd, PLATTER_DD_INPUT_SIZE, UINT64_MAX, 0, &err),
          PLATTER_STATUS_INVALID, "18446744073709551615");
    FAILS(platter_dd_set_number(dd, PLATTER_DD_OUTPUT_SIZE, UINT64_MAX, 0, &err),
          PLATTER_STATUS_INVALID, "18446744073709551615");
    OK(platter_dd_set_output(dd, "c", "raw", 0, &err));
    NO_NULL(platter_dd_job_new(NULL, dd, 0, &err), "out");
    NO_NULL(platter_dd_job_new(&job, NULL, 0, &err), "dd");
    NO_FLAG(platter_dd_job_new(&job, dd, BAD, &err));
    platter_dd_free(dd);
    platter_dd_free(NULL);
    CHECK(access("c", F_OK) != 0);
}

static void refused(platter_queue *queue)
{
    platter_completion done = {0};
    size_t count = 7;
    OK(platter_queue_reap(&count, queue, &done, 1, 1, 0, 0, &err));
    CHECK(count == 1 && done.status == PLATTER_STATUS_INVALID && done.bytes == 0);
    CHECK(done.user_data == &frees && done.os_errno == EINVAL);
}

static void queues(void)
{
    char buf[4] = "";
    struct iovec iov[2] = {{buf, 4}, {NULL, 4}};
    platter_completion done;
    platter_queue *queue = POISONED;
    platter_image *image = open_image("a.raw", "raw", PLATTER_OPEN_WRITE);
    NO_NULL(platter_queue_new(NULL, image, 0, 0, &err), "out");
    NO_NULL(platter_queue_new(&queue, NULL, 0, 0, &err), "image");
    CHECK(queue == NULL);
    NO_FLAG(platter_queue_new(&queue, image, 0, BAD, &err));
    FAILS(platter_queue_new(&queue, image, 65537, 0, &err), PLATTER_STATUS_INVALID, "65537");
    OK(platter_queue_new(&queue, image, 65536, 0, &err));
    platter_queue_free(queue);
    OK(platter_queue_new(&queue, image, 1, 0, &err));

    int fd = 7;
    size_t count = 7;
    NO_NULL(platter_queue_fd(NULL, queue, 0, &err), "out");
    NO_NULL(platter_queue_fd(&fd, NULL, 0, &err), "queue");
    CHECK(fd == -1);
    NO_FLAG(platter_queue_fd(&fd, queue, BAD, &err));
    NO_NULL(platter_queue_reap(NULL, queue, &done, 1, 0, 0, 0, &err), "out");
    NO_NULL(platter_queue_reap(&count, NULL, &done, 1, 0, 0, 0, &err), "queue");
    NO_NULL(platter_queue_reap(&count, queue, NULL, 1, 0, 0, 0, &err), "completions");
    NO_FLAG(platter_queue_reap(&count, queue, &done, 1, 0, 0, BAD, &err));
    FAILS(platter_queue_reap(&count, queue, &done, 1, 2, 0, 0, &err), PLATTER_STATUS_INVALID,
          "'min'");
    CHECK(count == 0);

    /* Without a queue there is no way to report an error. */
    platter_queue_read(NULL, buf, 4, 0, NULL, 0);
    platter_queue_write(NULL, buf, 4, 0, NULL, 0);
    platter_queue_readv(NULL, iov, 1, 0, NULL, 0);
    platter_queue_writev(NULL, iov, 1, 0, NULL, 0);
    platter_queue_write_zeroes(NULL, 0, 1, NULL, 0);
    platter_queue_discard(NULL, 0, 1, NULL, 0);
    platter_queue_flush(NULL, NULL, 0);
    CHECK(platter_queue_outstanding(NULL) == 0);
    platter_queue_free(NULL);

    platter_queue_read(queue, NULL, 4, 0, &frees, 0);
    refused(queue);
    platter_queue_read(queue, buf, SIZE_MAX, 0, &frees, 0);
    refused(queue);
    platter_queue_read(queue, buf, 4, 0, &frees, BAD);
    refused(queue);
    platter_queue_read(queue, buf, 4, 0, &frees, PLATTER_WRITE_FUA);
    refused(queue);
    platter_queue_write(queue, NULL, 4, 0, &frees, 0);
    refused(queue);
    platter_queue_write(queue, buf, 4, 0, &frees, BAD);
    refused(queue);
    platter_queue_readv(queue, NULL, 1, 0, &frees, 0);
    refused(queue);
    platter_queue_readv(queue, iov, 2, 0, &frees, 0);
    refused(queue);
    platter_queue_readv(queue, iov, 1, 0, &frees, BAD);
    refused(queue);
    platter_queue_writev(queue, iov, 2, 0, &frees, 0);
    refused(queue);
    platter_queue_writev(queue, iov, 1, 0, &frees, BAD);
    refused(queue);
    platter_queue_write_zeroes(queue, 0, 1, &frees, BAD);
    refused(queue);
    platter_queue_discard(queue, 0, 1, &frees, BAD);
    refused(queue);
    platter_queue_discard(queue, 0, 1, &frees, PLATTER_ZERO_MAY_UNMAP);
    refused(queue);
    platter_queue_flush(queue, &frees, BAD);
    refused(queue);
    platter_queue_flush(queue, &frees, PLATTER_WRITE_FUA);
    refused(queue);
    platter_queue_free(queue);

    platter_bench bench;
    platter_job *job = POISONED;
    NO_NULL(platter_bench_defaults(NULL, 0, &err), "out");
    NO_FLAG(platter_bench_defaults(&bench, BAD, &err));
    OK(platter_bench_defaults(&bench, 0, &err));
    NO_NULL(platter_bench_job_new(NULL, image, &bench, 0, &err), "out");
    NO_NULL(platter_bench_job_new(&job, NULL, &bench, 0, &err), "image");
    NO_NULL(platter_bench_job_new(&job, image, NULL, 0, &err), "bench");
    CHECK(job == NULL);
    NO_FLAG(platter_bench_job_new(&job, image, &bench, BAD, &err));
    bench.pattern = 256;
    FAILS(platter_bench_job_new(&job, image, &bench, 0, &err), PLATTER_STATUS_INVALID, "pattern");
    bench.pattern = 0;
    bench.reserved[8] = 1;
    FAILS(platter_bench_job_new(&job, image, &bench, 0, &err), PLATTER_STATUS_INVALID, "reserved");
    bench.reserved[8] = 0;
    bench.count = 0;
    FAILS(platter_bench_job_new(&job, image, &bench, 0, &err), PLATTER_STATUS_INVALID,
          "request count");
    bench.count = 1;
    bench.flush_interval = 100;
    FAILS(platter_bench_job_new(&job, image, &bench, 0, &err), PLATTER_STATUS_INVALID,
          "for writes alone");
    OK(platter_image_close(image, 0, &err));
}

static void servers(void)
{
    platter_image *image = open_image("a.raw", "raw", 0);
    platter_export *export = POISONED;
    platter_server *server = POISONED;
    platter_offered offered;
    char *text;
    platter_server_limits limits;
    platter_server_statistics now;
    int fd = 7;

    NO_NULL(platter_export_new(NULL, image, 0, &err), "out");
    NO_NULL(platter_export_new(&export, NULL, 0, &err), "image");
    CHECK(export == NULL);
    NO_FLAG(platter_export_new(&export, image, BAD, &err));
    FAILS(platter_export_new(&export, image, PLATTER_EXPORT_WRITE, &err), PLATTER_STATUS_READ_ONLY,
          "read-only");
    OK(platter_export_new(&export, image, 0, &err));
    NO_NULL(platter_export_set_name(NULL, "a", 0, &err), "export");
    NO_NULL(platter_export_set_name(export, NULL, 0, &err), "name");
    NO_FLAG(platter_export_set_name(export, "a", BAD, &err));
    FAILS(platter_export_set_name(export, "\xff", 0, &err), PLATTER_STATUS_INVALID, "UTF-8");
    NO_NULL(platter_export_set_description(NULL, "a", 0, &err), "export");
    NO_FLAG(platter_export_set_description(export, "a", BAD, &err));
    OK(platter_export_set_description(export, NULL, 0, &err));
    NO_NULL(platter_export_set_window(NULL, 0, 0, 0, &err), "export");
    NO_FLAG(platter_export_set_window(export, 0, 0, BAD, &err));
    FAILS(platter_export_set_window(export, UINT64_MAX, 1, 0, &err), PLATTER_STATUS_INVALID,
          "greater than");
    OK(platter_export_set_window(export, 0, PLATTER_EXPORT_REST, 0, &err));
    NO_NULL(platter_export_add_bitmap(NULL, "a", 0, &err), "export");
    NO_NULL(platter_export_add_bitmap(export, NULL, 0, &err), "name");
    NO_FLAG(platter_export_add_bitmap(export, "a", BAD, &err));
    FAILS(platter_export_add_bitmap(export, "a", 0, &err), PLATTER_STATUS_NOT_FOUND, "not found");
    CHECK_U64(platter_export_size(NULL), 0);

    NO_NULL(platter_server_limits_defaults(NULL, 0, &err), "out");
    NO_FLAG(platter_server_limits_defaults(&limits, BAD, &err));
    OK(platter_server_limits_defaults(&limits, 0, &err));
    CHECK_U64(limits.clients, PLATTER_SERVER_CLIENTS_DEFAULT);
    CHECK_U64(limits.memory, PLATTER_SERVER_MEMORY_DEFAULT);
    CHECK_U64(limits.handshake_ms, PLATTER_SERVER_HANDSHAKE_MS_DEFAULT);
    CHECK_U64(limits.stall_ms, PLATTER_SERVER_STALL_MS_DEFAULT);
    NO_NULL(platter_server_new(NULL, NULL, 0, &err), "out");
    NO_FLAG(platter_server_new(&server, NULL, BAD, &err));
    limits.reserved[3] = 1;
    FAILS(platter_server_new(&server, &limits, 0, &err), PLATTER_STATUS_INVALID, "reserved");
    limits.reserved[3] = 0;
    limits.clients = 0;
    FAILS(platter_server_new(&server, &limits, 0, &err), PLATTER_STATUS_INVALID, "one client");
    CHECK(server == NULL);
    OK(platter_server_new(&server, NULL, 0, &err));
    NO_NULL(platter_server_add_export(NULL, export, 0, &err), "server");
    NO_NULL(platter_server_add_export(server, NULL, 0, &err), "export");
    NO_FLAG(platter_server_add_export(server, export, BAD, &err));
    NO_NULL(platter_server_listen_vhost_user(NULL, export, "v", 1, 0, &err), "server");
    NO_NULL(platter_server_listen_vhost_user(server, NULL, "v", 1, 0, &err), "export");
    NO_NULL(platter_server_listen_vhost_user(server, export, NULL, 1, 0, &err), "path");
    NO_FLAG(platter_server_listen_vhost_user(server, export, "v", 1, BAD, &err));
    FAILS(platter_server_listen_vhost_user(server, export, "v", 0, 0, &err), PLATTER_STATUS_INVALID,
          "1 to 64 queues");
    FAILS(platter_server_listen_vhost_user(server, export, "v", 65536, 0, &err), PLATTER_STATUS_INVALID,
          "1 to 64 queues");
    FAILS(platter_server_listen_vhost_user(server, export, "not/there", 1, 0, &err),
          PLATTER_STATUS_NOT_FOUND, "not/there");
    NO_NULL(platter_server_mount(NULL, export, "m", 0, &err), "server");
    NO_NULL(platter_server_mount(server, NULL, "m", 0, &err), "export");
    NO_NULL(platter_server_mount(server, export, NULL, 0, &err), "mountpoint");
    NO_FLAG(platter_server_mount(server, export, "m", BAD, &err));
    FAILS(platter_server_mount(server, export, "m", PLATTER_MOUNT_OTHERS | PLATTER_MOUNT_OTHERS_IF_ALLOWED,
                               &err),
          PLATTER_STATUS_INVALID, "Only one");
    FAILS(platter_server_mount(server, export, "m", PLATTER_MOUNT_GROWABLE, &err), PLATTER_STATUS_INVALID,
          "growable");
    FAILS(platter_server_mount(server, export, ".", 0, &err), PLATTER_STATUS_INVALID, "not a regular file");
    FAILS(platter_server_mount(server, export, "not/there", 0, &err), PLATTER_STATUS_NOT_FOUND, "not/there");
    NO_NULL(platter_server_remove_export(NULL, "", 0, 0, &err), "server");
    NO_FLAG(platter_server_remove_export(server, "", 0, BAD, &err));
    FAILS(platter_server_remove_export(server, NULL, 0, 0, &err), PLATTER_STATUS_NOT_FOUND,
          "no export ''");
    NO_NULL(platter_server_export_name(NULL, server, 0, 0, &err), "out");
    NO_NULL(platter_server_export_name(&text, NULL, 0, 0, &err), "server");
    NO_FLAG(platter_server_export_name(&text, server, 0, BAD, &err));
    FAILS(platter_server_export_name(&text, server, 0, 0, &err), PLATTER_STATUS_NOT_FOUND, "index 0");
    CHECK(text == NULL);
    NO_NULL(platter_server_get_export(NULL, server, "", 0, &err), "out");
    NO_NULL(platter_server_get_export(&offered, NULL, "", 0, &err), "server");
    NO_FLAG(platter_server_get_export(&offered, server, "", BAD, &err));
    FAILS(platter_server_get_export(&offered, server, "a", 0, &err), PLATTER_STATUS_NOT_FOUND, "'a'");
    NO_NULL(platter_server_listen(NULL, "unix:s", 0, &err), "server");
    NO_NULL(platter_server_listen(server, NULL, 0, &err), "address");
    NO_FLAG(platter_server_listen(server, "unix:s", BAD, &err));
    NO_NULL(platter_server_serve_fds(NULL, 0, 1, 0, &err), "server");
    NO_FLAG(platter_server_serve_fds(server, 0, 1, BAD, &err));
    FAILS(platter_server_serve_fds(server, -1, 1, 0, &err), PLATTER_STATUS_INVALID, "negative");
    NO_NULL(platter_server_set_tls(NULL, NULL, "a", NULL, 0, &err), "server");
    NO_NULL(platter_server_set_tls(server, NULL, NULL, NULL, 0, &err), "credentials");
    NO_FLAG(platter_server_set_tls(server, NULL, "a", NULL, BAD, &err));
    FAILS(platter_server_set_tls(server, NULL, "a", NULL, 0, &err), PLATTER_STATUS_INVALID,
          "No TLS credentials");
    CHECK(platter_server_address(NULL, 0) == NULL);
    CHECK(platter_server_address(server, 0) == NULL);
    NO_NULL(platter_server_fd(NULL, server, 0, &err), "out");
    NO_NULL(platter_server_fd(&fd, NULL, 0, &err), "server");
    CHECK(fd == -1);
    NO_FLAG(platter_server_fd(&fd, server, BAD, &err));
    NO_NULL(platter_server_get_statistics(NULL, server, 0, &err), "out");
    NO_NULL(platter_server_get_statistics(&now, NULL, 0, &err), "server");
    NO_FLAG(platter_server_get_statistics(&now, server, BAD, &err));
    CHECK(platter_server_last_error(NULL) == NULL);
    NO_NULL(platter_server_drain(NULL, 0, 0, &err), "server");
    NO_FLAG(platter_server_drain(server, 0, BAD, &err));
    NO_NULL(platter_server_stop(NULL, 0, &err), "server");
    NO_FLAG(platter_server_stop(server, BAD, &err));
    platter_server_free(NULL);
    platter_server_free(server);
    platter_export_free(NULL);
    platter_export_free(export);
    OK(platter_image_close(image, 0, &err));
}

int main(void)
{
    basics();
    options();
    drivers();
    policies();
    named_storages();
    secrets();
    images();
    exports();
    inspect();
    amendment();
    jobs();
    queues();
    servers();
    create();
    convert();
    copies();
    passed();
    return 0;
}
