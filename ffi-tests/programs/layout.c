/* The layout of every struct of the ABI, which only ever changes by appending. */
#include "check.h"

#if UINTPTR_MAX == UINT64_MAX
#define AT(type, member, offset)                                                                  \
    _Static_assert(offsetof(struct type, member) == (offset), #type "." #member)
#define SIZE(type, size) _Static_assert(sizeof(struct type) == (size), #type)

SIZE(platter_driver_info, 24);
AT(platter_driver_info, size, 0);
AT(platter_driver_info, name, 8);
AT(platter_driver_info, kind, 16);
AT(platter_driver_info, features, 20);

SIZE(platter_option_info, 48);
AT(platter_option_info, size, 0);
AT(platter_option_info, name, 8);
AT(platter_option_info, help, 16);
AT(platter_option_info, default_value, 24);
AT(platter_option_info, allowed, 32);
AT(platter_option_info, kind, 40);
AT(platter_option_info, properties, 44);

SIZE(platter_implicit_file, 32);
AT(platter_implicit_file, size, 0);
AT(platter_implicit_file, name, 8);
AT(platter_implicit_file, named_by, 16);
AT(platter_implicit_file, role, 24);
AT(platter_implicit_file, writable, 28);

SIZE(platter_storage_ops, 128);
AT(platter_storage_ops, read, 0);
AT(platter_storage_ops, size, 8);
AT(platter_storage_ops, write, 16);
AT(platter_storage_ops, flush, 24);
AT(platter_storage_ops, set_size, 32);
AT(platter_storage_ops, write_zeroes, 40);
AT(platter_storage_ops, discard, 48);
AT(platter_storage_ops, extent, 56);
AT(platter_storage_ops, message, 64);
AT(platter_storage_ops, reserved, 72);

SIZE(platter_extent, 64);
AT(platter_extent, offset, 0);
AT(platter_extent, length, 8);
AT(platter_extent, host_offset, 16);
AT(platter_extent, depth, 24);
AT(platter_extent, flags, 28);
AT(platter_extent, reserved, 32);

SIZE(platter_offered, 64);
AT(platter_offered, size, 0);
AT(platter_offered, offset, 8);
AT(platter_offered, clients, 16);
AT(platter_offered, bitmaps, 24);
AT(platter_offered, flags, 32);
AT(platter_offered, reserved, 36);

SIZE(platter_completion, 40);
AT(platter_completion, user_data, 0);
AT(platter_completion, bytes, 8);
AT(platter_completion, status, 16);
AT(platter_completion, os_errno, 20);
AT(platter_completion, reserved, 24);

SIZE(platter_bench, 88);
AT(platter_bench, count, 0);
AT(platter_bench, depth, 8);
AT(platter_bench, buffer_size, 16);
AT(platter_bench, offset, 24);
AT(platter_bench, step, 32);
AT(platter_bench, flush_interval, 40);
AT(platter_bench, pattern, 48);
AT(platter_bench, reserved, 52);

SIZE(platter_progress, 32);
AT(platter_progress, done, 0);
AT(platter_progress, total, 8);
AT(platter_progress, reserved, 16);

SIZE(platter_message, 24);
AT(platter_message, size, 0);
AT(platter_message, text, 8);
AT(platter_message, kind, 16);
AT(platter_message, reserved, 20);
#endif

/* Numbers that are compiled into programs. */
_Static_assert(PLATTER_OK == 0 && PLATTER_STATUS_INVALID == -10001 && PLATTER_STATUS_OS == -10002 &&
                   PLATTER_STATUS_UNSUPPORTED == -10003 && PLATTER_STATUS_NOT_AN_IMAGE == -10004 &&
                   PLATTER_STATUS_CORRUPT == -10005 && PLATTER_STATUS_LOCKED == -10006 &&
                   PLATTER_STATUS_READ_ONLY == -10007 && PLATTER_STATUS_EXISTS == -10008 &&
                   PLATTER_STATUS_NOT_FOUND == -10009 && PLATTER_STATUS_NO_SPACE == -10010 &&
                   PLATTER_STATUS_NEEDS_SECRET == -10011 && PLATTER_STATUS_WRONG_SECRET == -10012 &&
                   PLATTER_STATUS_DENIED == -10013 && PLATTER_STATUS_LIMIT == -10014 &&
                   PLATTER_STATUS_BUSY == -10015 && PLATTER_STATUS_CANCELLED == -10016 &&
                   PLATTER_STATUS_INTERNAL == -10017,
               "statuses are append-only");

int main(void)
{
    CHECK(platter_version_number() == PLATTER_VERSION_NUMBER);
    CHECK(PLATTER_VERSION_NUMBER == PLATTER_VERSION_MAJOR * 1000000 + PLATTER_VERSION_MINOR * 1000 +
                                        PLATTER_VERSION_PATCH);
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", PLATTER_VERSION_MAJOR, PLATTER_VERSION_MINOR,
             PLATTER_VERSION_PATCH);
    CHECK_STR(platter_version_string(), text);
    const platter_driver_info *driver;
    OK(platter_driver_describe(&driver, 0, 0, &err));
    CHECK(driver->size == sizeof *driver);
    const platter_option_info *option;
    OK(platter_option_describe(&option, "raw", PLATTER_OPERATION_OPEN, 0, 0, &err));
    CHECK(option->size == sizeof *option);
    const platter_child_info *child;
    OK(platter_child_describe(&child, "raw", 0, 0, &err));
    CHECK(child->size == sizeof *child);
    passed();
    return 0;
}
