/* Platter: virtual-machine disk images.
 *
 * Generated from the library's source; do not edit.
 *
 * Every call that can fail returns 0 or a negative PLATTER_STATUS_*; then its `out` parameters are
 * NULL or 0 and `*err` (where `err` is not NULL) is an error that the caller frees with
 * platter_error_free(). On success `*err` is NULL. Objects are freed with their own function; freeing
 * NULL does nothing. Strings given to the library are copied. Unknown bits of `flags` are refused.
 * Functions that take an object as `const` may be called on it from several threads at once. Nothing is
 * printed, no signal handler is installed. platter(3) lists the environment that is read.
 *
 * The numbers 0 to 2 belong to the program's standard streams, also while they are closed: no descriptor
 * that the library keeps or hands out has one of them. Broken pipes and the limit on the size of files
 * (RLIMIT_FSIZE, as it was when the file was opened) are errors of the call, EPIPE and EFBIG. No signal
 * has to be ignored for that; a program whose limit may become lower while files are open ignores SIGXFSZ.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */


#ifndef PLATTER_H
#define PLATTER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Keys of reports, for platter_report_u64(), _double(), _bool() and _string(). */
#define PLATTER_KEY_ABSOLUTE "absolute"
#define PLATTER_KEY_ACTUAL_SIZE "actual-size"
#define PLATTER_KEY_ALLOCATED_CLUSTERS "allocated-clusters"
#define PLATTER_KEY_BACKED_BYTES "backed-bytes"
#define PLATTER_KEY_BACKING_FILENAME "backing-filename"
#define PLATTER_KEY_BACKING_FILENAME_FORMAT "backing-filename-format"
#define PLATTER_KEY_BITMAP_COUNT "bitmap-count"
#define PLATTER_KEY_BITMAPS "bitmaps"
#define PLATTER_KEY_BYTES "bytes"
#define PLATTER_KEY_CHECK_ERRORS "check-errors"
#define PLATTER_KEY_CHILD_COUNT "child-count"
#define PLATTER_KEY_CLUSTER_SIZE "cluster-size"
#define PLATTER_KEY_COMPRESSED "compressed"
#define PLATTER_KEY_COMPRESSED_BYTES "compressed-bytes"
#define PLATTER_KEY_COMPRESSED_CLUSTERS "compressed-clusters"
#define PLATTER_KEY_COMPRESSED_UNITS "compressed-units"
#define PLATTER_KEY_CONTAINER_SHA256 "container-sha256"
#define PLATTER_KEY_CONTENT_COUNT "content-count"
#define PLATTER_KEY_CONTEXTS "contexts"
#define PLATTER_KEY_CORRUPTIONS "corruptions"
#define PLATTER_KEY_CORRUPTIONS_FIXED "corruptions-fixed"
#define PLATTER_KEY_DATA "data"
#define PLATTER_KEY_DATA_BYTES "data-bytes"
#define PLATTER_KEY_DATE_NSEC "date-nsec"
#define PLATTER_KEY_DATE_SEC "date-sec"
#define PLATTER_KEY_DEPTH "depth"
#define PLATTER_KEY_DESCRIPTION "description"
#define PLATTER_KEY_DIRTY_FLAG "dirty-flag"
#define PLATTER_KEY_ENABLED "enabled"
#define PLATTER_KEY_ENCRYPTED "encrypted"
#define PLATTER_KEY_ERROR "error"
#define PLATTER_KEY_FEATURES "features"
#define PLATTER_KEY_FILE_SIZE "file-size"
#define PLATTER_KEY_FILENAME "filename"
#define PLATTER_KEY_FLAGS "flags"
#define PLATTER_KEY_FLUSHES "flushes"
#define PLATTER_KEY_FORMAT "format"
#define PLATTER_KEY_FORMAT_NAMED "format-named"
#define PLATTER_KEY_FRAGMENTED_CLUSTERS "fragmented-clusters"
#define PLATTER_KEY_FULL_BACKING_FILENAME "full-backing-filename"
#define PLATTER_KEY_FULLY_ALLOCATED "fully-allocated"
#define PLATTER_KEY_GRANULARITY "granularity"
#define PLATTER_KEY_GUARD_COUNT "guard-count"
#define PLATTER_KEY_ICOUNT "icount"
#define PLATTER_KEY_ID "id"
#define PLATTER_KEY_IDENTICAL "identical"
#define PLATTER_KEY_IMAGE_END_OFFSET "image-end-offset"
#define PLATTER_KEY_INCONSISTENT "inconsistent"
#define PLATTER_KEY_JSON "json"
#define PLATTER_KEY_LEAKS "leaks"
#define PLATTER_KEY_LEAKS_FIXED "leaks-fixed"
#define PLATTER_KEY_LENGTH "length"
#define PLATTER_KEY_MAX_BLOCK "max-block"
#define PLATTER_KEY_MIN_BLOCK "min-block"
#define PLATTER_KEY_NAME "name"
#define PLATTER_KEY_NAME_BYTES "name-bytes"
#define PLATTER_KEY_OBJECTION_COUNT "objection-count"
#define PLATTER_KEY_OFFLOADED_BYTES "offloaded-bytes"
#define PLATTER_KEY_OFFSET "offset"
#define PLATTER_KEY_OPT_BLOCK "opt-block"
#define PLATTER_KEY_PARENT "parent"
#define PLATTER_KEY_PASSED "passed"
#define PLATTER_KEY_PLAIN "plain"
#define PLATTER_KEY_PRESENT "present"
#define PLATTER_KEY_PROFILE "profile"
#define PLATTER_KEY_PROTOCOL "protocol"
#define PLATTER_KEY_READ_ONLY "read-only"
#define PLATTER_KEY_REASON "reason"
#define PLATTER_KEY_REFERENCE_COUNT "reference-count"
#define PLATTER_KEY_REMEDY "remedy"
#define PLATTER_KEY_REQUESTS "requests"
#define PLATTER_KEY_REQUESTS_PER_SECOND "requests-per-second"
#define PLATTER_KEY_REQUIRED "required"
#define PLATTER_KEY_ROLE "role"
#define PLATTER_KEY_SECONDS "seconds"
#define PLATTER_KEY_SHA256 "sha256"
#define PLATTER_KEY_SIGNATURES "signatures"
#define PLATTER_KEY_SIZE "size"
#define PLATTER_KEY_SIZE_MISMATCH "size-mismatch"
#define PLATTER_KEY_SNAPSHOT_COUNT "snapshot-count"
#define PLATTER_KEY_START "start"
#define PLATTER_KEY_SUMMARY "summary"
#define PLATTER_KEY_TOTAL_CLUSTERS "total-clusters"
#define PLATTER_KEY_TRANSACTION_BITS "transaction-bits"
#define PLATTER_KEY_UNKNOWN "unknown"
#define PLATTER_KEY_VERDICT "verdict"
#define PLATTER_KEY_VIRTUAL_SIZE "virtual-size"
#define PLATTER_KEY_VM_CLOCK_NSEC "vm-clock-nsec"
#define PLATTER_KEY_VM_CLOCK_SEC "vm-clock-sec"
#define PLATTER_KEY_VM_STATE_SIZE "vm-state-size"
#define PLATTER_KEY_ZERO "zero"
#define PLATTER_KEY_ZERO_BYTES "zero-bytes"

/* Guards of an inspection: the `id` of its entries. */
#define PLATTER_GUARD_FORMAT_MATCHES "format-matches"
#define PLATTER_GUARD_SINGLE_FORMAT "single-format"
#define PLATTER_GUARD_FORMAT_ALLOWED "format-allowed"
#define PLATTER_GUARD_KNOWN_FEATURES "known-features"
#define PLATTER_GUARD_NO_BACKING_FILE "no-backing-file"
#define PLATTER_GUARD_BACKING_FORMAT "backing-format"
#define PLATTER_GUARD_NO_DATA_FILE "no-data-file"
#define PLATTER_GUARD_NO_EXTENTS "no-extents"
#define PLATTER_GUARD_PLAIN_NAMES "plain-names"
#define PLATTER_GUARD_HEADER_CONSISTENT "header-consistent"
#define PLATTER_GUARD_VIRTUAL_SIZE "virtual-size"
#define PLATTER_GUARD_TABLE_SIZES "table-sizes"
#define PLATTER_GUARD_KEY_DERIVATION "key-derivation"
#define PLATTER_GUARD_DECOMPRESSED_SIZE "decompressed-size"
#define PLATTER_GUARD_FILE_SIZE "file-size"
#define PLATTER_GUARD_SNAPSHOT_COUNT "snapshot-count"
#define PLATTER_GUARD_CLEAN "clean"

/* What an inspection says of a guard: its `verdict`. */
#define PLATTER_VERDICT_PASS "pass"
#define PLATTER_VERDICT_FAIL "fail"
#define PLATTER_VERDICT_UNKNOWN "unknown"
#define PLATTER_VERDICT_NOT_APPLICABLE "not-applicable"

/* What a name in an image is for: its `role`. */
#define PLATTER_REFERENCE_BACKING_FILE "backing-file"
#define PLATTER_REFERENCE_DATA_FILE "data-file"
#define PLATTER_REFERENCE_EXTENT "extent"
#define PLATTER_REFERENCE_PARENT_LOCATOR "parent-locator"

/* Why two images differ: the `reason` of a comparison. */
#define PLATTER_REASON_CONTENT "content"
#define PLATTER_REASON_SIZE "size"
#define PLATTER_REASON_STATUS "status"

/* Keys of options with which images are made and amended, for platter_options_set(). */
#define PLATTER_OPT_ADAPTER_TYPE "adapter_type"
#define PLATTER_OPT_BACKING_FILE "backing_file"
#define PLATTER_OPT_BACKING_FMT "backing_fmt"
#define PLATTER_OPT_BLOCK_SIZE "block_size"
#define PLATTER_OPT_BLOCK_STATE_ZERO "block_state_zero"
#define PLATTER_OPT_CIPHER_ALG "cipher-alg"
#define PLATTER_OPT_CIPHER_MODE "cipher-mode"
#define PLATTER_OPT_CLUSTER_SIZE "cluster_size"
#define PLATTER_OPT_COMPAT "compat"
#define PLATTER_OPT_COMPAT6 "compat6"
#define PLATTER_OPT_COMPRESSION_LEVEL "compression_level"
#define PLATTER_OPT_COMPRESSION_TYPE "compression_type"
#define PLATTER_OPT_DATA_FILE "data_file"
#define PLATTER_OPT_DATA_FILE_RAW "data_file_raw"
#define PLATTER_OPT_DEBUG "debug"
#define PLATTER_OPT_DETACHED_HEADER "detached-header"
#define PLATTER_OPT_ENCRYPT_CIPHER_ALG "encrypt.cipher-alg"
#define PLATTER_OPT_ENCRYPT_CIPHER_MODE "encrypt.cipher-mode"
#define PLATTER_OPT_ENCRYPT_FORMAT "encrypt.format"
#define PLATTER_OPT_ENCRYPT_HASH_ALG "encrypt.hash-alg"
#define PLATTER_OPT_ENCRYPT_ITER_TIME "encrypt.iter-time"
#define PLATTER_OPT_ENCRYPT_IVGEN_ALG "encrypt.ivgen-alg"
#define PLATTER_OPT_ENCRYPT_IVGEN_HASH_ALG "encrypt.ivgen-hash-alg"
#define PLATTER_OPT_ENCRYPT_KEY_SECRET "encrypt.key-secret"
#define PLATTER_OPT_ENCRYPT_KEYSLOT "encrypt.keyslot"
#define PLATTER_OPT_ENCRYPT_NEW_SECRET "encrypt.new-secret"
#define PLATTER_OPT_ENCRYPT_OLD_SECRET "encrypt.old-secret"
#define PLATTER_OPT_ENCRYPT_STATE "encrypt.state"
#define PLATTER_OPT_ENCRYPTION "encryption"
#define PLATTER_OPT_EXTENDED_L2 "extended_l2"
#define PLATTER_OPT_EXTENT_SIZE_HINT "extent_size_hint"
#define PLATTER_OPT_FORCE_SIZE "force_size"
#define PLATTER_OPT_HASH_ALG "hash-alg"
#define PLATTER_OPT_HWVERSION "hwversion"
#define PLATTER_OPT_ITER_TIME "iter-time"
#define PLATTER_OPT_IVGEN_ALG "ivgen-alg"
#define PLATTER_OPT_IVGEN_HASH_ALG "ivgen-hash-alg"
#define PLATTER_OPT_KEY_SECRET "key-secret"
#define PLATTER_OPT_KEYSLOT "keyslot"
#define PLATTER_OPT_LAZY_REFCOUNTS "lazy_refcounts"
#define PLATTER_OPT_LOG_SIZE "log_size"
#define PLATTER_OPT_LOGFILE "logfile"
#define PLATTER_OPT_LOGICAL_SECTOR_SIZE "logical_sector_size"
#define PLATTER_OPT_NEW_SECRET "new-secret"
#define PLATTER_OPT_NOCOW "nocow"
#define PLATTER_OPT_OLD_SECRET "old-secret"
#define PLATTER_OPT_PASSWORD_SECRET "password-secret"
#define PLATTER_OPT_PHYSICAL_SECTOR_SIZE "physical_sector_size"
#define PLATTER_OPT_PREALLOCATION "preallocation"
#define PLATTER_OPT_REFCOUNT_BITS "refcount_bits"
#define PLATTER_OPT_SIZE "size"
#define PLATTER_OPT_STATE "state"
#define PLATTER_OPT_STATIC "static"
#define PLATTER_OPT_SUBFORMAT "subformat"
#define PLATTER_OPT_TABLE_SIZE "table_size"
#define PLATTER_OPT_TOOLSVERSION "toolsversion"
#define PLATTER_OPT_ZEROED_GRAIN "zeroed_grain"

/* Keys of options with which images are opened, for platter_open_options_set_option(), behind the names of
 * children where they are meant for these (`file.`, `backing.`). Keys of lists hold a number, as
 * `server.0.host`, and are not here. */
#define PLATTER_OPEN_OPT_ACTIVE "active"
#define PLATTER_OPEN_OPT_AIO "aio"
#define PLATTER_OPEN_OPT_ALIGN "align"
#define PLATTER_OPEN_OPT_AUTO_READ_ONLY "auto-read-only"
#define PLATTER_OPEN_OPT_BEARER_SECRET "bearer-secret"
#define PLATTER_OPEN_OPT_BITMAP_NAME "bitmap.name"
#define PLATTER_OPEN_OPT_BITMAP_NODE "bitmap.node"
#define PLATTER_OPEN_OPT_BLKVERIFY "blkverify"
#define PLATTER_OPEN_OPT_BOTTOM "bottom"
#define PLATTER_OPEN_OPT_CACHE_CLEAN_INTERVAL "cache-clean-interval"
#define PLATTER_OPEN_OPT_CACHE_SIZE "cache-size"
#define PLATTER_OPEN_OPT_CACHE_DIRECT "cache.direct"
#define PLATTER_OPEN_OPT_CACHE_NO_FLUSH "cache.no-flush"
#define PLATTER_OPEN_OPT_CBW_TIMEOUT "cbw-timeout"
#define PLATTER_OPEN_OPT_CONF "conf"
#define PLATTER_OPEN_OPT_CONFIG "config"
#define PLATTER_OPEN_OPT_CONNECTIONS "connections"
#define PLATTER_OPEN_OPT_COOKIE "cookie"
#define PLATTER_OPEN_OPT_COOKIE_SECRET "cookie-secret"
#define PLATTER_OPEN_OPT_DEBUG "debug"
#define PLATTER_OPEN_OPT_DETECT_ZEROES "detect-zeroes"
#define PLATTER_OPEN_OPT_DEVICE "device"
#define PLATTER_OPEN_OPT_DIR "dir"
#define PLATTER_OPEN_OPT_DISCARD "discard"
#define PLATTER_OPEN_OPT_DISCARD_NO_UNREF "discard-no-unref"
#define PLATTER_OPEN_OPT_DRIVER "driver"
#define PLATTER_OPEN_OPT_DROP_CACHE "drop-cache"
#define PLATTER_OPEN_OPT_ENCRYPT_FORMAT "encrypt.format"
#define PLATTER_OPEN_OPT_ENCRYPT_KEY_SECRET "encrypt.key-secret"
#define PLATTER_OPEN_OPT_EXPORT "export"
#define PLATTER_OPEN_OPT_FAT_TYPE "fat-type"
#define PLATTER_OPEN_OPT_FILENAME "filename"
#define PLATTER_OPEN_OPT_FLOPPY "floppy"
#define PLATTER_OPEN_OPT_FORCE_SHARE "force-share"
#define PLATTER_OPEN_OPT_FORCE_SIZE_CALC "force_size_calc"
#define PLATTER_OPEN_OPT_GROUP "group"
#define PLATTER_OPEN_OPT_HEADER_DIGEST "header-digest"
#define PLATTER_OPEN_OPT_HEADERS_SECRET "headers-secret"
#define PLATTER_OPEN_OPT_HOST "host"
#define PLATTER_OPEN_OPT_HOST_KEY_CHECK_HASH "host-key-check.hash"
#define PLATTER_OPEN_OPT_HOST_KEY_CHECK_MODE "host-key-check.mode"
#define PLATTER_OPEN_OPT_HOST_KEY_CHECK_TYPE "host-key-check.type"
#define PLATTER_OPEN_OPT_HOST_KEY_CHECK "host_key_check"
#define PLATTER_OPEN_OPT_IDENTITY "identity"
#define PLATTER_OPEN_OPT_IDENTITY_SECRET "identity-secret"
#define PLATTER_OPEN_OPT_IMAGE "image"
#define PLATTER_OPEN_OPT_INITIATOR_NAME "initiator-name"
#define PLATTER_OPEN_OPT_INJECT_ERROR_ERRNO "inject-error.errno"
#define PLATTER_OPEN_OPT_INJECT_ERROR_EVENT "inject-error.event"
#define PLATTER_OPEN_OPT_INJECT_ERROR_IMMEDIATELY "inject-error.immediately"
#define PLATTER_OPEN_OPT_INJECT_ERROR_IOTYPE "inject-error.iotype"
#define PLATTER_OPEN_OPT_INJECT_ERROR_ONCE "inject-error.once"
#define PLATTER_OPEN_OPT_INJECT_ERROR_SECTOR "inject-error.sector"
#define PLATTER_OPEN_OPT_INJECT_ERROR_STATE "inject-error.state"
#define PLATTER_OPEN_OPT_KEY_SECRET "key-secret"
#define PLATTER_OPEN_OPT_KNOWN_HOSTS "known-hosts"
#define PLATTER_OPEN_OPT_L2_CACHE_ENTRY_SIZE "l2-cache-entry-size"
#define PLATTER_OPEN_OPT_L2_CACHE_SIZE "l2-cache-size"
#define PLATTER_OPEN_OPT_LABEL "label"
#define PLATTER_OPEN_OPT_LATENCY_NS "latency-ns"
#define PLATTER_OPEN_OPT_LAZY_REFCOUNTS "lazy-refcounts"
#define PLATTER_OPEN_OPT_LOCKING "locking"
#define PLATTER_OPEN_OPT_LOG_APPEND "log-append"
#define PLATTER_OPEN_OPT_LOG_SECTOR_SIZE "log-sector-size"
#define PLATTER_OPEN_OPT_LOG_SUPER_UPDATE_INTERVAL "log-super-update-interval"
#define PLATTER_OPEN_OPT_LOGFILE "logfile"
#define PLATTER_OPEN_OPT_LUN "lun"
#define PLATTER_OPEN_OPT_MAX_DISCARD "max-discard"
#define PLATTER_OPEN_OPT_MAX_TRANSFER "max-transfer"
#define PLATTER_OPEN_OPT_MAX_WRITE_ZERO "max-write-zero"
#define PLATTER_OPEN_OPT_MEMBER "member"
#define PLATTER_OPEN_OPT_MIN_CLUSTER_SIZE "min-cluster-size"
#define PLATTER_OPEN_OPT_MOUNT_PORT "mount-port"
#define PLATTER_OPEN_OPT_NAMESPACE "namespace"
#define PLATTER_OPEN_OPT_NODE_NAME "node-name"
#define PLATTER_OPEN_OPT_OFFSET "offset"
#define PLATTER_OPEN_OPT_ON_CBW_ERROR "on-cbw-error"
#define PLATTER_OPEN_OPT_OPEN_TIMEOUT "open-timeout"
#define PLATTER_OPEN_OPT_OPT_DISCARD "opt-discard"
#define PLATTER_OPEN_OPT_OPT_WRITE_ZERO "opt-write-zero"
#define PLATTER_OPEN_OPT_OVERLAP_CHECK "overlap-check"
#define PLATTER_OPEN_OPT_OVERLAP_CHECK_ACTIVE_L1 "overlap-check.active-l1"
#define PLATTER_OPEN_OPT_OVERLAP_CHECK_ACTIVE_L2 "overlap-check.active-l2"
#define PLATTER_OPEN_OPT_OVERLAP_CHECK_BITMAP_DIRECTORY "overlap-check.bitmap-directory"
#define PLATTER_OPEN_OPT_OVERLAP_CHECK_INACTIVE_L1 "overlap-check.inactive-l1"
#define PLATTER_OPEN_OPT_OVERLAP_CHECK_INACTIVE_L2 "overlap-check.inactive-l2"
#define PLATTER_OPEN_OPT_OVERLAP_CHECK_MAIN_HEADER "overlap-check.main-header"
#define PLATTER_OPEN_OPT_OVERLAP_CHECK_REFCOUNT_BLOCK "overlap-check.refcount-block"
#define PLATTER_OPEN_OPT_OVERLAP_CHECK_REFCOUNT_TABLE "overlap-check.refcount-table"
#define PLATTER_OPEN_OPT_OVERLAP_CHECK_SNAPSHOT_TABLE "overlap-check.snapshot-table"
#define PLATTER_OPEN_OPT_OVERLAP_CHECK_TEMPLATE "overlap-check.template"
#define PLATTER_OPEN_OPT_PAGE_CACHE_SIZE "page-cache-size"
#define PLATTER_OPEN_OPT_PASS_DISCARD_OTHER "pass-discard-other"
#define PLATTER_OPEN_OPT_PASS_DISCARD_REQUEST "pass-discard-request"
#define PLATTER_OPEN_OPT_PASS_DISCARD_SNAPSHOT "pass-discard-snapshot"
#define PLATTER_OPEN_OPT_PASSWORD "password"
#define PLATTER_OPEN_OPT_PASSWORD_SECRET "password-secret"
#define PLATTER_OPEN_OPT_PATH "path"
#define PLATTER_OPEN_OPT_POOL "pool"
#define PLATTER_OPEN_OPT_PORT "port"
#define PLATTER_OPEN_OPT_PORTAL "portal"
#define PLATTER_OPEN_OPT_PR_MANAGER "pr-manager"
#define PLATTER_OPEN_OPT_PREALLOC_ALIGN "prealloc-align"
#define PLATTER_OPEN_OPT_PREALLOC_MODE "prealloc-mode"
#define PLATTER_OPEN_OPT_PREALLOC_SIZE "prealloc-size"
#define PLATTER_OPEN_OPT_PROXY_PASSWORD_SECRET "proxy-password-secret"
#define PLATTER_OPEN_OPT_PROXY_USERNAME "proxy-username"
#define PLATTER_OPEN_OPT_READ_ONLY "read-only"
#define PLATTER_OPEN_OPT_READ_PATTERN "read-pattern"
#define PLATTER_OPEN_OPT_READ_ZEROES "read-zeroes"
#define PLATTER_OPEN_OPT_READAHEAD "readahead"
#define PLATTER_OPEN_OPT_READAHEAD_SIZE "readahead-size"
#define PLATTER_OPEN_OPT_RECONNECT_DELAY "reconnect-delay"
#define PLATTER_OPEN_OPT_REFCOUNT_CACHE_SIZE "refcount-cache-size"
#define PLATTER_OPEN_OPT_REPLAY_LOG "replay-log"
#define PLATTER_OPEN_OPT_RETRY_TIMEOUT "retry-timeout"
#define PLATTER_OPEN_OPT_REWRITE_CORRUPTED "rewrite-corrupted"
#define PLATTER_OPEN_OPT_RW "rw"
#define PLATTER_OPEN_OPT_SERVER_ABSTRACT "server.abstract"
#define PLATTER_OPEN_OPT_SERVER_CID "server.cid"
#define PLATTER_OPEN_OPT_SERVER_HOST "server.host"
#define PLATTER_OPEN_OPT_SERVER_IPV4 "server.ipv4"
#define PLATTER_OPEN_OPT_SERVER_IPV6 "server.ipv6"
#define PLATTER_OPEN_OPT_SERVER_KEEP_ALIVE "server.keep-alive"
#define PLATTER_OPEN_OPT_SERVER_NUMERIC "server.numeric"
#define PLATTER_OPEN_OPT_SERVER_PATH "server.path"
#define PLATTER_OPEN_OPT_SERVER_PORT "server.port"
#define PLATTER_OPEN_OPT_SERVER_STR "server.str"
#define PLATTER_OPEN_OPT_SERVER_TIGHT "server.tight"
#define PLATTER_OPEN_OPT_SERVER_TO "server.to"
#define PLATTER_OPEN_OPT_SERVER_TYPE "server.type"
#define PLATTER_OPEN_OPT_SET_STATE_EVENT "set-state.event"
#define PLATTER_OPEN_OPT_SET_STATE_NEW_STATE "set-state.new_state"
#define PLATTER_OPEN_OPT_SET_STATE_STATE "set-state.state"
#define PLATTER_OPEN_OPT_SIZE "size"
#define PLATTER_OPEN_OPT_SNAPSHOT "snapshot"
#define PLATTER_OPEN_OPT_SPOOL "spool"
#define PLATTER_OPEN_OPT_SSLVERIFY "sslverify"
#define PLATTER_OPEN_OPT_STREAM "stream"
#define PLATTER_OPEN_OPT_TARGET "target"
#define PLATTER_OPEN_OPT_TARGET_PASSWORD_SECRET "target-password-secret"
#define PLATTER_OPEN_OPT_TARGET_USER "target-user"
#define PLATTER_OPEN_OPT_TCP_SYN_COUNT "tcp-syn-count"
#define PLATTER_OPEN_OPT_THROTTLE_GROUP "throttle-group"
#define PLATTER_OPEN_OPT_TIMEOUT "timeout"
#define PLATTER_OPEN_OPT_TLS "tls"
#define PLATTER_OPEN_OPT_TLS_CREDS "tls-creds"
#define PLATTER_OPEN_OPT_TLS_HOSTNAME "tls-hostname"
#define PLATTER_OPEN_OPT_TRANSPORT "transport"
#define PLATTER_OPEN_OPT_TYPE "type"
#define PLATTER_OPEN_OPT_URL "url"
#define PLATTER_OPEN_OPT_USER "user"
#define PLATTER_OPEN_OPT_USERNAME "username"
#define PLATTER_OPEN_OPT_VERSION "version"
#define PLATTER_OPEN_OPT_VOLUME "volume"
#define PLATTER_OPEN_OPT_VOTE_THRESHOLD "vote-threshold"
#define PLATTER_OPEN_OPT_X_CHECK_CACHE_DROPPED "x-check-cache-dropped"
#define PLATTER_OPEN_OPT_X_DIRTY_BITMAP "x-dirty-bitmap"


/**
 * Stage of an error: not one that programs tell apart.
 */
#define PLATTER_STAGE_OTHER 0

/**
 * Stage of an error: looking up where guest bytes live, in a comparison.
 */
#define PLATTER_STAGE_BLOCK_STATUS 1

/**
 * Stage of an error: reading guest bytes, in a comparison.
 */
#define PLATTER_STAGE_READ 2

/**
 * Stage of an error: opening a file or device of this machine itself, before anything is read from it.
 */
#define PLATTER_STAGE_OPEN 3

/**
 * Stage of an error: comparing what the children of a filter read as, which must be the same and is not, in a
 * comparison.
 */
#define PLATTER_STAGE_VERIFY 4

/**
 * What `platter_error_offset()` returns where no offset is known.
 */
#define PLATTER_OFFSET_UNKNOWN 18446744073709551615ull

/**
 * Success.
 */
#define PLATTER_OK 0

/**
 * An argument, option or combination of options is wrong.
 */
#define PLATTER_STATUS_INVALID -10001

/**
 * The operating system refused; `platter_error_errno()` says why.
 */
#define PLATTER_STATUS_OS -10002

/**
 * The format, protocol or kernel cannot do this.
 */
#define PLATTER_STATUS_UNSUPPORTED -10003

/**
 * The file is not an image of the requested format.
 */
#define PLATTER_STATUS_NOT_AN_IMAGE -10004

/**
 * The image's metadata is damaged; `platter_error_offset()` says where, if known.
 */
#define PLATTER_STATUS_CORRUPT -10005

/**
 * Another process, or another handle of this one, holds a conflicting lock.
 */
#define PLATTER_STATUS_LOCKED -10006

/**
 * A write to an image or storage that is open read-only.
 */
#define PLATTER_STATUS_READ_ONLY -10007

/**
 * The object to create exists already.
 */
#define PLATTER_STATUS_EXISTS -10008

/**
 * What was named, or the entry at that index, does not exist.
 */
#define PLATTER_STATUS_NOT_FOUND -10009

/**
 * The host file system or device is full.
 */
#define PLATTER_STATUS_NO_SPACE -10010

/**
 * The image is encrypted and no secret was given.
 */
#define PLATTER_STATUS_NEEDS_SECRET -10011

/**
 * The secret opens no key slot.
 */
#define PLATTER_STATUS_WRONG_SECRET -10012

/**
 * The open policy does not allow it.
 */
#define PLATTER_STATUS_DENIED -10013

/**
 * A ceiling of the open policy or of the format was exceeded.
 */
#define PLATTER_STATUS_LIMIT -10014

/**
 * The object is in use by another operation of this process.
 */
#define PLATTER_STATUS_BUSY -10015

/**
 * The job or call was cancelled, or its deadline has passed.
 */
#define PLATTER_STATUS_CANCELLED -10016

/**
 * A defect of this library; the object that it happened in refuses further use.
 */
#define PLATTER_STATUS_INTERNAL -10017

/**
 * The first part of the version.
 */
#define PLATTER_VERSION_MAJOR 0

/**
 * The second part of the version.
 */
#define PLATTER_VERSION_MINOR 1

/**
 * The third part of the version.
 */
#define PLATTER_VERSION_PATCH 0

/**
 * The version of this header as one number: major × 1000000 + minor × 1000 + patch.
 */
#define PLATTER_VERSION_NUMBER 1000

/**
 * Log level: requests of queues and of the clients of a server that fail, whose message no caller gets.
 */
#define PLATTER_LOG_ERROR 1

/**
 * Log level: and warnings of jobs, and clients of a server that break the protocol or are left.
 */
#define PLATTER_LOG_WARNING 2

/**
 * Log level: and images that are opened, jobs that begin and end.
 */
#define PLATTER_LOG_INFO 3

/**
 * Log level: and calls that fail, with the message that the caller gets.
 */
#define PLATTER_LOG_DEBUG 4

/**
 * Log level: and trace events that `platter_trace_switch()` has switched on.
 */
#define PLATTER_LOG_TRACE 5

/**
 * Flag of `platter_size_parse()`: the size of an image; the message says so.
 */
#define PLATTER_SIZE_IMAGE 1

/**
 * Kind of driver: an image format.
 */
#define PLATTER_DRIVER_FORMAT 1

/**
 * Kind of driver: a protocol, on which image files lie.
 */
#define PLATTER_DRIVER_PROTOCOL 2

/**
 * Kind of driver: a filter, which stands on other nodes: `driver=throttle,file.driver=…`.
 */
#define PLATTER_DRIVER_FILTER 3

/**
 * Feature: new images can be made.
 */
#define PLATTER_FEATURE_CREATE 1

/**
 * Feature: images can be written.
 */
#define PLATTER_FEATURE_WRITE 2

/**
 * Feature: images can name a backing file.
 */
#define PLATTER_FEATURE_BACKING 4

/**
 * Feature: clusters can be compressed.
 */
#define PLATTER_FEATURE_COMPRESS 8

/**
 * Feature: internal snapshots.
 */
#define PLATTER_FEATURE_SNAPSHOTS 16

/**
 * Feature: persistent dirty bitmaps.
 */
#define PLATTER_FEATURE_BITMAPS 32

/**
 * Feature: images can be checked.
 */
#define PLATTER_FEATURE_CHECK 64

/**
 * Feature: images can be repaired.
 */
#define PLATTER_FEATURE_REPAIR 128

/**
 * Feature: images can be resized.
 */
#define PLATTER_FEATURE_RESIZE 256

/**
 * Feature: options of an existing image can be changed.
 */
#define PLATTER_FEATURE_AMEND 512

/**
 * Feature: the size of an image can be measured before it is made.
 */
#define PLATTER_FEATURE_MEASURE 1024

/**
 * Feature: encryption.
 */
#define PLATTER_FEATURE_ENCRYPT 2048

/**
 * Operation: making an image.
 */
#define PLATTER_OPERATION_CREATE 1

/**
 * Operation: opening an image (the keys of `driver=…` strings).
 */
#define PLATTER_OPERATION_OPEN 2

/**
 * Operation: changing the options of an image.
 */
#define PLATTER_OPERATION_AMEND 3

/**
 * Type of option: text.
 */
#define PLATTER_OPTION_STRING 1

/**
 * Type of option: a number.
 */
#define PLATTER_OPTION_NUMBER 2

/**
 * Type of option: a number of bytes, with an optional suffix.
 */
#define PLATTER_OPTION_SIZE 3

/**
 * Type of option: `on` or `off`.
 */
#define PLATTER_OPTION_BOOL 4

/**
 * Property of an option: its value is the ID of a secret, see `platter_open_options_set_secrets()`.
 */
#define PLATTER_OPTION_PROPERTY_SECRET 1

/**
 * Property of an option: each `*` in its key stands for a place in a list, counted from 0.
 */
#define PLATTER_OPTION_PROPERTY_LIST 2

/**
 * Property of an option of opening: nodes of every driver take it.
 */
#define PLATTER_OPTION_PROPERTY_COMMON 4

/**
 * Property of an option of opening: it decides what is read, and so it stands in the name of the image, see
 * `platter_image_filename()`. The others say how that is opened.
 */
#define PLATTER_OPTION_PROPERTY_SELECTS 8

/**
 * A node cannot be described without the child.
 */
#define PLATTER_CHILD_REQUIRED 1

/**
 * A list of children: `children.0`, `children.1`…
 */
#define PLATTER_CHILD_LIST 2

/**
 * The child is an image: its contents show its format where none is named.
 */
#define PLATTER_CHILD_IMAGE 4

/**
 * Flag of setters that take the name of a format or of a compression: a name that nothing here has is refused
 * when it is used, by an error that says for what, and not by the setter.
 */
#define PLATTER_NAME_UNCHECKED 262144

/**
 * Flag of calls that take a location: it is a plain path, whatever it looks like. Without this flag
 * and the next, it is a path, `json:{…}` or `protocol:…`.
 */
#define PLATTER_LOCATION_PATH 65536

/**
 * Flag of calls that take a location: it is a list `driver=…,file.filename=…`.
 */
#define PLATTER_LOCATION_IMAGE_OPTS 131072

/**
 * Flag of calls that open: for writing; without it the image is read-only.
 */
#define PLATTER_OPEN_WRITE 1

/**
 * Flag of calls that open: take no locks that exclude others. Read-only opens alone.
 */
#define PLATTER_OPEN_FORCE_SHARE 2

/**
 * Flag of calls that open: leave the backing chain closed.
 */
#define PLATTER_OPEN_NO_BACKING 4

/**
 * Flag of calls that open: only metadata is wanted; data file and backing chain stay closed.
 */
#define PLATTER_OPEN_METADATA_ONLY 8

/**
 * Flag of calls that open: for a check; open although tables are damaged where that is possible.
 */
#define PLATTER_OPEN_FOR_CHECK 16

/**
 * Flag of calls that open: let nothing else write meanwhile, also where the format is raw.
 */
#define PLATTER_OPEN_DENY_WRITERS 32

/**
 * Preset: no file that an image names is opened, formats are guessed for read-only opens alone. For
 * images that others made, and what calls use that get no policy.
 */
#define PLATTER_POLICY_STRICT 0

/**
 * Preset: files that an image names are opened, formats are guessed. What the command-line tools
 * allow.
 */
#define PLATTER_POLICY_PERMISSIVE 1

/**
 * Probing: never guess the format.
 */
#define PLATTER_PROBING_NEVER 0

/**
 * Probing: guess the format for read-only opens.
 */
#define PLATTER_PROBING_READ_ONLY 1

/**
 * Probing: guess the format.
 */
#define PLATTER_PROBING_ALWAYS 2

/**
 * Files that an image names: open none.
 */
#define PLATTER_IMPLICIT_DENY 0

/**
 * Files that an image names: open any.
 */
#define PLATTER_IMPLICIT_ALLOW 1

/**
 * Limit: images in a chain.
 */
#define PLATTER_LIMIT_CHAIN_DEPTH 1

/**
 * Limit: bytes of virtual size.
 */
#define PLATTER_LIMIT_VIRTUAL_SIZE 2

/**
 * Limit: bytes of a table that is loaded at once.
 */
#define PLATTER_LIMIT_TABLE_BYTES 3

/**
 * Limit: bytes of metadata cache of one image.
 */
#define PLATTER_LIMIT_CACHE_BYTES 4

/**
 * Limit: bytes that one compressed unit (cluster, grain, chunk) may decode to.
 */
#define PLATTER_LIMIT_DECOMPRESSED_BYTES 5

/**
 * Limit: iterations of key derivation that a key slot may ask for.
 */
#define PLATTER_LIMIT_KEY_ITERATIONS 6

/**
 * Limit: the most memory for decompressing a file that is compressed as a whole, in bytes.
 */
#define PLATTER_LIMIT_DECODER_BYTES 7

/**
 * Limit: how many times as long as itself such a file may become, from 1 GiB on.
 */
#define PLATTER_LIMIT_EXPANSION 8

/**
 * Limit: the most bytes of the temporary file for what such a file holds, holes not counted.
 */
#define PLATTER_LIMIT_SPOOL_BYTES 9

/**
 * Default of `PLATTER_LIMIT_CHAIN_DEPTH`.
 */
#define PLATTER_LIMIT_CHAIN_DEPTH_DEFAULT 200

/**
 * Default of `PLATTER_LIMIT_VIRTUAL_SIZE`.
 */
#define PLATTER_LIMIT_VIRTUAL_SIZE_DEFAULT 9223372036854775807

/**
 * Default of `PLATTER_LIMIT_TABLE_BYTES`.
 */
#define PLATTER_LIMIT_TABLE_BYTES_DEFAULT 33554432

/**
 * Default of `PLATTER_LIMIT_CACHE_BYTES`.
 */
#define PLATTER_LIMIT_CACHE_BYTES_DEFAULT 16777216

/**
 * Default of `PLATTER_LIMIT_DECOMPRESSED_BYTES`.
 */
#define PLATTER_LIMIT_DECOMPRESSED_BYTES_DEFAULT 67108864

/**
 * Default of `PLATTER_LIMIT_KEY_ITERATIONS`, which has none in `PLATTER_POLICY_PERMISSIVE`.
 */
#define PLATTER_LIMIT_KEY_ITERATIONS_DEFAULT 64000000

/**
 * Default of `PLATTER_LIMIT_DECODER_BYTES`.
 */
#define PLATTER_LIMIT_DECODER_BYTES_DEFAULT 268435456

/**
 * Default of `PLATTER_LIMIT_EXPANSION`, which has none in `PLATTER_POLICY_PERMISSIVE`.
 */
#define PLATTER_LIMIT_EXPANSION_DEFAULT 100000

/**
 * Default of `PLATTER_LIMIT_SPOOL_BYTES`.
 */
#define PLATTER_LIMIT_SPOOL_BYTES_DEFAULT 68719476736

/**
 * Role of a file that an image names: it holds what the overlay does not.
 */
#define PLATTER_ROLE_BACKING 1

/**
 * Role of a file that an image names: it holds the guest data.
 */
#define PLATTER_ROLE_DATA_FILE 2

/**
 * Role of a file that an image names: it holds a piece of the guest data.
 */
#define PLATTER_ROLE_EXTENT 3

/**
 * Answer of `platter_implicit_fn`: refuse; the open fails with DENIED.
 */
#define PLATTER_ANSWER_DENY 0

/**
 * Answer of `platter_implicit_fn`: open the file by its name.
 */
#define PLATTER_ANSWER_OPEN 1

/**
 * Answer of `platter_implicit_fn`: use the descriptor stored in `*fd`, which the library then owns.
 */
#define PLATTER_ANSWER_FD 2

/**
 * Flag of `platter_export_new()`: clients may write. The image must be open for writing.
 */
#define PLATTER_EXPORT_WRITE 1

/**
 * Flag of `platter_export_new()`: clients may ask which layer of the chain holds what
 * (`qemu:allocation-depth`).
 */
#define PLATTER_EXPORT_ALLOCATION_DEPTH 2

/**
 * Length of a window for `platter_export_set_window()`: up to the end of the image.
 */
#define PLATTER_EXPORT_REST 18446744073709551615ull

/**
 * Flag of `platter_image_write_zeroes()`: the range may be given back to the host.
 */
#define PLATTER_ZERO_MAY_UNMAP 2

/**
 * Flag of `platter_image_write_zeroes()`: fail with UNSUPPORTED rather than write zero bytes.
 */
#define PLATTER_ZERO_NO_FALLBACK 4

/**
 * Flag of an extent: it has data in a host file.
 */
#define PLATTER_EXTENT_DATA 1

/**
 * Flag of an extent: it reads as zeroes.
 */
#define PLATTER_EXTENT_ZERO 2

/**
 * Flag of an extent: a layer of the chain holds it.
 */
#define PLATTER_EXTENT_PRESENT 4

/**
 * Flag of an extent: its data is compressed.
 */
#define PLATTER_EXTENT_COMPRESSED 8

/**
 * Flag of an extent: `host_offset` is known.
 */
#define PLATTER_EXTENT_HOST_OFFSET 16

/**
 * Flag of a run in a report of dirty bytes: a bitmap has it as dirty.
 */
#define PLATTER_EXTENT_DIRTY 32

/**
 * Flag of an extent: what it reads as is unknown, and a read of it is refused, because the backing file
 * that may hold it is not open (`PLATTER_OPEN_NO_BACKING`, `PLATTER_OPEN_METADATA_ONLY`). Such an
 * extent has none of the flags `DATA`, `ZERO` and `PRESENT`: do not skip it as if it were zero.
 */
#define PLATTER_EXTENT_UNKNOWN 64

/**
 * Flag of writes: the data is durable when the call returns.
 */
#define PLATTER_WRITE_FUA 1

/**
 * Flag of `platter_queue_new()`: no descriptor is wanted, which makes each request a little cheaper.
 */
#define PLATTER_QUEUE_NO_FD 1

/**
 * Flag of `platter_queue_new()`: threads do what the calls cannot do at once, although the kernel
 * could.
 */
#define PLATTER_QUEUE_THREADS 2

/**
 * Flag of a request: others follow at once, so the kernel does not get this one yet. It is
 * handed over with the next request without this flag, or in `platter_queue_reap()`.
 */
#define PLATTER_REQUEST_MORE 256

/**
 * Flag of `platter_server_mount()`: writes past the end of the image make it longer.
 */
#define PLATTER_MOUNT_GROWABLE 1

/**
 * Flag of `platter_server_mount()`: other users may use it too, as the permissions of the file allow them. Where
 * the system does not let this user have them in, that is an error.
 */
#define PLATTER_MOUNT_OTHERS 2

/**
 * Flag of `platter_server_mount()`: as `PLATTER_MOUNT_OTHERS` where the system allows it, else without.
 */
#define PLATTER_MOUNT_OTHERS_IF_ALLOWED 4

/**
 * Default of `clients` in the limits of a server.
 */
#define PLATTER_SERVER_CLIENTS_DEFAULT 256

/**
 * Default of `memory` in the limits of a server.
 */
#define PLATTER_SERVER_MEMORY_DEFAULT 268435456

/**
 * Default of `handshake_ms` in the limits of a server.
 */
#define PLATTER_SERVER_HANDSHAKE_MS_DEFAULT 10000

/**
 * Default of `stall_ms` in the limits of a server.
 */
#define PLATTER_SERVER_STALL_MS_DEFAULT 60000

/**
 * Kind of message: a finding of a check, or another line of the job's normal output.
 */
#define PLATTER_MESSAGE_NOTE 1

/**
 * Kind of message: the user should know although the work goes on.
 */
#define PLATTER_MESSAGE_WARNING 2

/**
 * Flag of `platter_job_result()`: wait for the end of the job.
 */
#define PLATTER_JOB_WAIT 1

/**
 * State of a job: made, and not run yet.
 */
#define PLATTER_JOB_STATE_NEW 1

/**
 * State of a job: it runs.
 */
#define PLATTER_JOB_STATE_RUNNING 2

/**
 * State of a job: it was begun, and is held, or will be at its next step, until `platter_job_resume()`.
 */
#define PLATTER_JOB_STATE_PAUSED 3

/**
 * State of a job: it ended well; `platter_job_result()` has its report.
 */
#define PLATTER_JOB_STATE_DONE 4

/**
 * State of a job: it ended with an error, which `platter_job_result()` tells.
 */
#define PLATTER_JOB_STATE_FAILED 5

/**
 * State of a job: it ended because it was cancelled, or late.
 */
#define PLATTER_JOB_STATE_CANCELLED 6

/**
 * Kind of report: what an image is.
 */
#define PLATTER_REPORT_INFO 1

/**
 * Kind of report: the consistency of an image.
 */
#define PLATTER_REPORT_CHECK 2

/**
 * Kind of report: where the guest bytes live.
 */
#define PLATTER_REPORT_MAP 3

/**
 * Kind of report: whether two images are the same.
 */
#define PLATTER_REPORT_COMPARE 4

/**
 * Kind of report: what a conversion did.
 */
#define PLATTER_REPORT_CONVERT 5

/**
 * Kind of report: what was created.
 */
#define PLATTER_REPORT_CREATE 6

/**
 * Kind of report: the internal snapshots of an image.
 */
#define PLATTER_REPORT_SNAPSHOTS 11

/**
 * Kind of report: how long requests took.
 */
#define PLATTER_REPORT_BENCH 12

/**
 * Kind of report: the persistent dirty bitmaps of an image.
 */
#define PLATTER_REPORT_BITMAPS 13

/**
 * Kind of report: the guest bytes that a bitmap has as dirty.
 */
#define PLATTER_REPORT_DIRTY 14

/**
 * Kind of report: how large a new image will be.
 */
#define PLATTER_REPORT_MEASURE 7

/**
 * Kind of report: an image was changed.
 */
#define PLATTER_REPORT_DONE 8

/**
 * Kind of report: whether a file from elsewhere may be used.
 */
#define PLATTER_REPORT_INSPECT 15

/**
 * Kind of report: what a server exports.
 */
#define PLATTER_REPORT_EXPORTS 16

/**
 * Flag of `platter_report_write()`: the JSON instead of the text.
 */
#define PLATTER_REPORT_WRITE_JSON 1

/**
 * Flag of `platter_amend_job_new()`: overwrite a key slot that is in use, erase the last one.
 */
#define PLATTER_AMEND_FORCE 1

/**
 * Flag of `platter_bench_job_new()`: write instead of reading.
 */
#define PLATTER_BENCH_WRITE 1

/**
 * Flag of `platter_bench_job_new()`: do not wait for the requests under way before a flush.
 */
#define PLATTER_BENCH_NO_DRAIN 2

/**
 * Flag of `platter_bench_job_new()`: as `PLATTER_QUEUE_THREADS`.
 */
#define PLATTER_BENCH_THREADS 4

/**
 * Flag of `platter_check_job_new()`: repair leaked clusters.
 */
#define PLATTER_CHECK_REPAIR_LEAKS 1

/**
 * Flag of `platter_check_job_new()`: repair all that can be repaired.
 */
#define PLATTER_CHECK_REPAIR_ALL 2

/**
 * Flag of `platter_check_job_new()`: changes of the image wait until the job has ended.
 */
#define PLATTER_CHECK_HOLD_CHANGES 4

/**
 * Flag of `platter_commit_job_new()`: leave the overlay as it is instead of emptying it.
 */
#define PLATTER_COMMIT_KEEP 1

/**
 * Flag of `platter_compare_job_new()`: allocation and size must agree too.
 */
#define PLATTER_COMPARE_STRICT 1

/**
 * Flag of `platter_convert_job_new()`: compress the target's clusters.
 */
#define PLATTER_CONVERT_COMPRESS 1

/**
 * Flag of `platter_convert_job_new()`: write into an image that exists.
 */
#define PLATTER_CONVERT_TARGET_EXISTS 2

/**
 * Flag of `platter_convert_job_new()`: the existing target reads as zeroes.
 */
#define PLATTER_CONVERT_TARGET_IS_ZERO 4

/**
 * Flag of `platter_convert_job_new()`: clusters need not lie in the order of the guest.
 */
#define PLATTER_CONVERT_OUT_OF_ORDER 8

/**
 * Flag of `platter_convert_job_new()`: copy inside the host where possible; that is tried anyway.
 */
#define PLATTER_CONVERT_COPY_RANGE 16

/**
 * Flag of `platter_convert_job_new()`: unreadable parts become zeroes, with a warning each.
 */
#define PLATTER_CONVERT_SALVAGE 32

/**
 * Flag of `platter_convert_job_new()`: copy the persistent dirty bitmaps of the only source; fails where
 * the target can have none, or where one is inconsistent.
 */
#define PLATTER_CONVERT_BITMAPS 64

/**
 * Flag of `platter_convert_job_new()`, with `PLATTER_CONVERT_BITMAPS`: inconsistent bitmaps are left out,
 * with a warning each.
 */
#define PLATTER_CONVERT_SKIP_BROKEN_BITMAPS 128

/**
 * Flag of `platter_convert_job_new()`: the target is the path of a directory, which must not exist. It is
 * created, and each layer of the only source becomes an image in it, called as the layer is, with the
 * target's format for an ending, over the image of the layer below it. The options of the target hold for
 * each. When the job fails or is cancelled, the directory is removed.
 */
#define PLATTER_CONVERT_CHAIN 256

/**
 * Flag of `platter_convert_job_new()`: overwrite nothing. Where a file of the target is there already the job fails
 * with EXISTS, whatever it holds; a storage of the program must be empty. Not for a target that exists or a stream.
 */
#define PLATTER_CONVERT_EXCLUSIVE 512

/**
 * A number of a conversion: runs of zeroes of at least this many bytes stay sparse; a multiple of 512
 * up to 16 MiB, 0 allocates everything. The default is 4096.
 */
#define PLATTER_CONVERT_SPARSE_SIZE 1

/**
 * A number of a conversion: pieces of work at a time, 1 to 16. The default follows the machine.
 */
#define PLATTER_CONVERT_PARALLEL 2

/**
 * Conflict of a conversion: none, everything fits together.
 */
#define PLATTER_CONVERT_CONFLICT_NONE 0

/**
 * Conflict of a conversion: `PLATTER_CONVERT_SKIP_BROKEN_BITMAPS` without `PLATTER_CONVERT_BITMAPS`.
 */
#define PLATTER_CONVERT_CONFLICT_SKIP_WITHOUT_BITMAPS 3

/**
 * Conflict of a conversion: `PLATTER_CONVERT_COPY_RANGE` with `PLATTER_CONVERT_COMPRESS`.
 */
#define PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_COMPRESS 4

/**
 * Conflict of a conversion: `PLATTER_CONVERT_COPY_RANGE` with `PLATTER_CONVERT_SPARSE_SIZE`.
 */
#define PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_SPARSE_SIZE 5

/**
 * Conflict of a conversion: `PLATTER_CONVERT_COPY_RANGE` with `PLATTER_CONVERT_SALVAGE`.
 */
#define PLATTER_CONVERT_CONFLICT_COPY_RANGE_AND_SALVAGE 6

/**
 * Conflict of a conversion: creation options with `PLATTER_CONVERT_TARGET_EXISTS`.
 */
#define PLATTER_CONVERT_CONFLICT_OPTIONS_OF_EXISTING 7

/**
 * Conflict of a conversion: `PLATTER_CONVERT_TARGET_IS_ZERO` without `PLATTER_CONVERT_TARGET_EXISTS`.
 */
#define PLATTER_CONVERT_CONFLICT_ZERO_OF_NEW 8

/**
 * Conflict of a conversion: a backing file with several sources.
 */
#define PLATTER_CONVERT_CONFLICT_BACKING_OF_SEVERAL 9

/**
 * Conflict of a conversion: a snapshot with several sources.
 */
#define PLATTER_CONVERT_CONFLICT_SNAPSHOT_OF_SEVERAL 10

/**
 * Conflict of a conversion: `PLATTER_CONVERT_BITMAPS` with several sources.
 */
#define PLATTER_CONVERT_CONFLICT_BITMAPS_OF_SEVERAL 11

/**
 * Conflict of a conversion: a profile with `PLATTER_CONVERT_TARGET_EXISTS` or a descriptor for the target.
 */
#define PLATTER_CONVERT_CONFLICT_PROFILE_OF_EXISTING 13

/**
 * Conflict of a conversion: `PLATTER_CONVERT_CHAIN` with several sources, a descriptor, a snapshot, a
 * backing file or `PLATTER_CONVERT_TARGET_EXISTS`.
 */
#define PLATTER_CONVERT_CONFLICT_CHAIN 12

/**
 * Flag of `platter_create_set_backing()`: the backing file need not exist, and is not opened.
 */
#define PLATTER_BACKING_UNSAFE 1

/**
 * Flag of `platter_create_job_new()`: overwrite nothing. Where a file of the new image is there already the job
 * fails with EXISTS, whatever it holds; a storage of the program must be empty.
 */
#define PLATTER_CREATE_EXCLUSIVE 1

/**
 * A number of a copy: bytes in a block, 1 to 2147483647. The default is 512.
 */
#define PLATTER_DD_BLOCK_SIZE 1

/**
 * A number of a copy: the most blocks that are copied. The default is all.
 */
#define PLATTER_DD_COUNT 2

/**
 * A number of a copy: blocks that are left out at the beginning of the input. The default is 0.
 */
#define PLATTER_DD_SKIP 3

/**
 * A number of a copy: the size of the input in bytes, and no more is read; a stream that ends
 * before is an error. The default is up to its end.
 */
#define PLATTER_DD_INPUT_SIZE 4

/**
 * A number of a copy: the size of the output in bytes; what the input does not fill reads as zeroes,
 * and an input that is longer is an error. The default is the size of what is copied.
 */
#define PLATTER_DD_OUTPUT_SIZE 5

/**
 * Flag of `platter_dd_job_new()`: write into an image that exists.
 */
#define PLATTER_DD_OUTPUT_EXISTS 1

/**
 * Flag of `platter_dd_job_new()`: overwrite nothing. Where a file of the output is there already the job fails with
 * EXISTS, whatever it holds; a storage of the program must be empty. Not for an output that exists or a stream.
 */
#define PLATTER_DD_EXCLUSIVE 2

/**
 * Flag of `platter_image_describe()`: report the whole backing chain.
 */
#define PLATTER_INFO_CHAIN 256

/**
 * Length of a map: to the end of the image.
 */
#define PLATTER_LENGTH_ALL 18446744073709551615ull

/**
 * Flag of `platter_rebase_job_new()`: change the name alone. No backing file is opened, and the guest
 * may see other data.
 */
#define PLATTER_REBASE_NAME_ONLY 1

/**
 * Flag of `platter_rebase_job_new()`: write what is copied compressed.
 */
#define PLATTER_REBASE_COMPRESS 2

/**
 * Flag of `platter_rebase_job_new()`: open the new backing file without locks that exclude others.
 */
#define PLATTER_REBASE_SHARE_BACKING 4

/**
 * Flag of `platter_resize_job_new()`: the size is added to the present one.
 */
#define PLATTER_RESIZE_MORE 1

/**
 * Flag of `platter_resize_job_new()`: the size is taken from the present one.
 */
#define PLATTER_RESIZE_LESS 2

/**
 * Flag of `platter_resize_job_new()`: allow the image to become smaller, which deletes what lies
 * beyond its new end.
 */
#define PLATTER_RESIZE_SHRINK 4

/**
 * Ends calls that take long, such as an opening that derives a key: cancelled from another thread
 * or a signal handler, or by a deadline. Calls heed it where it was set on their options
 * (`platter_open_options_set_control()`, `platter_create_set_control()`), or on an image
 * (`platter_image_set_control()`). A job has this by itself.
 */
typedef struct platter_control platter_control;

/**
 * What to convert, and how. What uses it copies it.
 */
typedef struct platter_convert platter_convert;

/**
 * What to create. What uses it copies it.
 */
typedef struct platter_create platter_create;

/**
 * What to copy, and how. What uses it copies it.
 */
typedef struct platter_dd platter_dd;

/**
 * Why a call failed. The caller of the failing call owns it and frees it with
 * `platter_error_free()`; nothing changes it, so any thread may read it.
 */
typedef struct platter_error platter_error;

/**
 * An image, or a window of it, as a server offers it. What uses it copies it; it keeps its image alive.
 */
typedef struct platter_export platter_export;

/**
 * An open image. Functions that take it as `const` may be called from several threads at once. Jobs
 * and queues that use it keep it alive.
 */
typedef struct platter_image platter_image;

/**
 * Long work: made by a `platter_*_job_new()`, run once, then asked for its result. Functions that
 * take it as `const` may be called from any thread while it runs.
 */
typedef struct platter_job platter_job;

/**
 * The named nodes of images that are opened one after the other, each with this set on its options
 * (`platter_open_options_set_nodes()`). A node gets its name by `node-name` in a location. No two nodes in the
 * set have the same name, and a location can name a node of an image that was opened before in the place of a
 * child (`"file":"NAME"`, `"backing":"NAME"`): the image then stands on that node and reads it, and keeps what it
 * stands on after the image that was opened before is closed. A node that may be written to is lent to no other image,
 * and one that is lent is not written to. A name is free again when its image is gone.
 */
typedef struct platter_nodes platter_nodes;

/**
 * How an image is opened: format, cache mode, policy, secrets. What uses it copies it.
 */
typedef struct platter_open_options platter_open_options;

/**
 * A bag of options: the keys and values of `-o`. What uses it copies it and checks it: an unknown
 * key or a bad value is refused there.
 */
typedef struct platter_options platter_options;

/**
 * What opening an image may do, and how much it may take. What uses it copies it.
 */
typedef struct platter_policy platter_policy;

/**
 * Requests on an image that complete later, in any order. A queue belongs to one thread at a time;
 * an image may have many. It keeps its image alive.
 *
 * What is in memory is done within the call that submits it: reads of cached data and of zeroes, and
 * writes to the page cache over bytes that have their place already. The kernel (io_uring, where it
 * may be used) or threads of the library, which block all signals, do the rest. Requests that
 * overlap are done in any order, too: to have one after the other, wait for the first.
 */
typedef struct platter_queue platter_queue;

/**
 * What an operation found or did. The caller of the function that made it owns it and frees it with
 * `platter_report_free()`; it stands on its own, also when its job or image is gone. Nothing changes
 * it, so several threads may read it.
 */
typedef struct platter_report platter_report;

/**
 * Takes the secret that a callback was asked for. It lives until the callback returns.
 */
typedef struct platter_secret_answer platter_secret_answer;

/**
 * Secrets by ID. What uses them copies them; every copy is wiped when it is freed.
 */
typedef struct platter_secrets platter_secrets;

/**
 * A server that offers images to clients that speak the NBD protocol, which QEMU, libnbd, nbdkit and the
 * kernel do. Threads of the library, which block all signals, do its work: each client has one, and all of
 * them share a few more.
 */
typedef struct platter_server platter_server;

/**
 * Storages of the program under names of its own: open files, tables of callbacks, open images. Where
 * such a name is used as the path of an image, of a target, of a backing file, of a data file or of an extent, the
 * storage is used instead of any file of that name: so a whole chain can lie in storages of the program. What has no
 * name here is a file, also where a new image takes several: their names stand in the descriptor of a VMDK. What an
 * image names is asked of the policy, whatever it lies in. What uses the set copies it; the storages themselves are
 * shared.
 */
typedef struct platter_storages platter_storages;

/**
 * Receives a line of the log, without newline; `level` is a `PLATTER_LOG_*`. Called from any
 * thread, also from several at once; it must not call `platter_log_set()`.
 */
typedef void (*platter_log_fn)(uint32_t level,
                               const char *line,
                               void *user_data);

/**
 * Releases `user_data`; runs exactly once, also when the call that registers it fails.
 */
typedef void (*platter_free_fn)(void *user_data);

/**
 * A format, protocol or filter. The library owns it; it lives for ever.
 */
typedef struct platter_driver_info {
    /**
     * Size of this struct in the library in use; later versions append members.
     */
    size_t size;
    /**
     * The name: `qcow2`, `file`, `throttle`.
     */
    const char *name;
    /**
     * `PLATTER_DRIVER_FORMAT`, `PLATTER_DRIVER_PROTOCOL` or `PLATTER_DRIVER_FILTER`.
     */
    uint32_t kind;
    /**
     * Bits of `PLATTER_FEATURE_*`; 0 for a filter, with which images can what they can without it.
     */
    uint32_t features;
} platter_driver_info;

/**
 * An option of a driver. The library owns it; it lives for ever.
 */
typedef struct platter_option_info {
    /**
     * Size of this struct in the library in use; later versions append members.
     */
    size_t size;
    /**
     * The key.
     */
    const char *name;
    /**
     * One line of help.
     */
    const char *help;
    /**
     * The value when the option is not given, also one that no help prints; NULL where there is none, where it
     * follows from other options, the size or the image, and of an amendment where what was stays.
     */
    const char *default_value;
    /**
     * The values allowed, ended by NULL; NULL where any value of the type is, and where they are many.
     */
    const char *const *allowed;
    /**
     * A type of option: `PLATTER_OPTION_STRING` to `PLATTER_OPTION_BOOL`.
     */
    uint32_t kind;
    /**
     * Bits of `PLATTER_OPTION_PROPERTY_*`.
     */
    uint32_t properties;
} platter_option_info;

/**
 * A child that nodes of a driver can have: what options describe under its name, such as
 * `file.driver=…`. The library owns it; it lives for ever.
 */
typedef struct platter_child_info {
    /**
     * Size of this struct in the library in use; later versions append members.
     */
    size_t size;
    /**
     * The name; that of a list without the numbers: `file`, `backing`, `children`.
     */
    const char *name;
    /**
     * Bits of `PLATTER_CHILD_*`.
     */
    uint32_t properties;
    /**
     * 0.
     */
    uint32_t reserved;
} platter_child_info;

/**
 * A file that an image names. The library owns it; it lives until the callback returns.
 */
typedef struct platter_implicit_file {
    /**
     * Size of this struct in the library in use; later versions append members.
     */
    size_t size;
    /**
     * The name as it stands in the image.
     */
    const char *name;
    /**
     * The image that names it.
     */
    const char *named_by;
    /**
     * A `PLATTER_ROLE_*`.
     */
    uint32_t role;
    /**
     * 1 where it would be opened for writing, else 0.
     */
    uint32_t writable;
} platter_implicit_file;

/**
 * Decides about a file that an image names, to be opened or, beside a new image, made: returns a
 * `PLATTER_ANSWER_*`, or, as a negative `PLATTER_STATUS_*` or `-errno`, why it cannot be had, with which the open then
 * fails; `-EPERM`, `-EACCES` and anything else refuse as `PLATTER_ANSWER_DENY` does. `*fd` is looked at with
 * `PLATTER_ANSWER_FD` alone: a descriptor for reading, and for writing too where `file` says so.
 * Called on the thread that opens, from several at once where several open with this policy.
 */
typedef int (*platter_implicit_fn)(const struct platter_implicit_file *file,
                                   int *fd,
                                   void *user_data);

/**
 * A product, and what it wants of its images. The library owns it; it lives for ever.
 */
typedef struct platter_profile_info {
    /**
     * Size of this struct in the library in use; later versions append members.
     */
    size_t size;
    /**
     * The name: `azure`.
     */
    const char *name;
    /**
     * The product, for people.
     */
    const char *product;
    /**
     * The format of its images.
     */
    const char *format;
    /**
     * The options of creation that make them, as `key=value,…`; may be empty.
     */
    const char *options;
    /**
     * What people have to know beside, a sentence each, joined by newlines; may be empty.
     */
    const char *notes;
    /**
     * Virtual sizes are multiples of this many bytes.
     */
    uint64_t size_multiple;
    /**
     * The smallest virtual size in bytes.
     */
    uint64_t size_least;
    /**
     * The largest virtual size in bytes.
     */
    uint64_t size_most;
    /**
     * What the image is put into, `ova`; empty where the file is the image itself.
     */
    const char *package;
} platter_profile_info;

/**
 * Is asked for the secret `id`, which it gives with `platter_secret_answer_set()`; without that there
 * is none. Called on the thread that opens or creates, from several at once where several do.
 */
typedef void (*platter_secret_fn)(struct platter_secret_answer *answer,
                                  const char *id,
                                  void *user_data);

/**
 * Storage of the program, on which an image lies. Members that are not needed, and `reserved`, are
 * NULL.
 *
 * Each callback returns 0, or a negative `PLATTER_STATUS_*` or `-errno`. They are called from any
 * thread that uses the image, from several at once.
 */
typedef struct platter_storage_ops {
    /**
     * Fills all of `buf` from `offset`; the range lies within the size. Required.
     */
    int (*read)(void *buf,
                size_t len,
                uint64_t offset,
                void *user_data);
    /**
     * Stores the size in bytes. Called once, when the image is opened. Required.
     */
    int (*size)(uint64_t *size,
                void *user_data);
    /**
     * Writes all of `buf` at `offset`; goes past the end, which moves then, only where `set_size` is
     * given. NULL makes the storage read-only.
     */
    int (*write)(const void *buf,
                 size_t len,
                 uint64_t offset,
                 void *user_data);
    /**
     * Makes all completed writes durable. Required where `write` is given. Once it has failed, every later
     * flush of the image fails without another call, for what was lost stays lost.
     */
    int (*flush)(void *user_data);
    /**
     * Sets the size in bytes; a longer storage reads as zeroes in its new part. NULL where the size is
     * fixed.
     */
    int (*set_size)(uint64_t size,
                    void *user_data);
    /**
     * Makes a range read as zeroes; `flags` are bits of `PLATTER_ZERO_*`. Where it returns
     * `PLATTER_STATUS_UNSUPPORTED` it has changed nothing. NULL has zero bytes written.
     */
    int (*write_zeroes)(uint64_t offset,
                        uint64_t len,
                        uint32_t flags,
                        void *user_data);
    /**
     * Gives a range back; what it reads as afterwards is not defined. NULL where that is not possible.
     */
    int (*discard)(uint64_t offset,
                   uint64_t len,
                   void *user_data);
    /**
     * Describes the first run at `offset`, at most `len` bytes: stores its length, which is not 0, and
     * bits of `PLATTER_EXTENT_DATA` (it occupies space) and `PLATTER_EXTENT_ZERO` (it reads as
     * zeroes). NULL where everything is data.
     */
    int (*extent)(uint64_t offset,
                  uint64_t len,
                  uint64_t *run,
                  uint32_t *flags,
                  void *user_data);
    /**
     * Tells why a callback failed, in the program's own words: called with what the callback returned, on the
     * same thread and before any other callback on it. Returns one line of UTF-8, which is read before the next
     * callback on the thread, or NULL for none. NULL where nothing more is known than the code.
     */
    const char *(*message)(int code,
                           void *user_data);
    /**
     * NULL.
     */
    void *reserved[7];
} platter_storage_ops;

/**
 * A run of guest bytes. The caller owns it.
 */
typedef struct platter_extent {
    /**
     * Guest offset in bytes.
     */
    uint64_t offset;
    /**
     * Length in bytes.
     */
    uint64_t length;
    /**
     * Offset of its first byte in the file of its layer, with `PLATTER_EXTENT_HOST_OFFSET`.
     */
    uint64_t host_offset;
    /**
     * The layer that decides: 0 is the image itself, 1 its backing file, and so on.
     */
    uint32_t depth;
    /**
     * Bits of `PLATTER_EXTENT_*`.
     */
    uint32_t flags;
    /**
     * 0.
     */
    uint64_t reserved[4];
} platter_extent;

/**
 * The end of a request. The caller owns it.
 */
typedef struct platter_completion {
    /**
     * What the request was submitted with.
     */
    void *user_data;
    /**
     * Bytes read, written, zeroed or discarded: all that were asked for, or 0 after a failure.
     */
    uint64_t bytes;
    /**
     * `PLATTER_OK` or a `PLATTER_STATUS_*`.
     */
    int32_t status;
    /**
     * The errno of the failure, as `platter_error_errno()`; 0 after success.
     */
    int32_t os_errno;
    /**
     * 0.
     */
    uint64_t reserved[2];
} platter_completion;

/**
 * What a server spends on its clients. `platter_server_limits_defaults()` fills it in; the caller owns it.
 */
typedef struct platter_server_limits {
    /**
     * Clients that are there at once; more wait to be taken until one leaves.
     */
    uint64_t clients;
    /**
     * Bytes that are on their way between clients and images, of all clients together.
     */
    uint64_t memory;
    /**
     * Milliseconds that a client may take to say what it wants; 0 is for ever.
     */
    uint64_t handshake_ms;
    /**
     * Milliseconds that a client may take nothing of the replies that wait for it once it is to be left: because
     * the server is drained, its export is removed, or it has ended its requests. 0 is the default.
     */
    uint64_t stall_ms;
    /**
     * 0.
     */
    uint64_t reserved[4];
} platter_server_limits;

/**
 * An export of a server. The caller owns it.
 */
typedef struct platter_offered {
    /**
     * Its size in bytes.
     */
    uint64_t size;
    /**
     * Where in the image it begins.
     */
    uint64_t offset;
    /**
     * Clients that have chosen it.
     */
    uint64_t clients;
    /**
     * Dirty bitmaps that clients may read.
     */
    uint64_t bitmaps;
    /**
     * Bits of `PLATTER_EXPORT_*`.
     */
    uint32_t flags;
    /**
     * 0.
     */
    uint32_t reserved[7];
} platter_offered;

/**
 * What a server has done so far. The caller owns it.
 */
typedef struct platter_server_statistics {
    /**
     * Clients that are there.
     */
    uint64_t clients;
    /**
     * Clients that ever were.
     */
    uint64_t accepted;
    /**
     * Requests that were read.
     */
    uint64_t requests;
    /**
     * Requests that were answered by an error.
     */
    uint64_t failures;
    /**
     * Bytes that clients asked to read.
     */
    uint64_t bytes_read;
    /**
     * Bytes that clients sent to be written.
     */
    uint64_t bytes_written;
    /**
     * Bytes that are on their way now.
     */
    uint64_t memory;
    /**
     * The most that ever were.
     */
    uint64_t most_memory;
    /**
     * 0.
     */
    uint64_t reserved[8];
} platter_server_statistics;

/**
 * How far a job has come.
 */
typedef struct platter_progress {
    /**
     * Done so far, in bytes of guest data that are moved or the unit of the job.
     */
    uint64_t done;
    /**
     * The whole: an estimate at first, exact at the end; 0 until anything is known. A job that has ended well has
     * done all of it, and it is at least 1.
     */
    uint64_t total;
    /**
     * 0.
     */
    uint64_t reserved[2];
} platter_progress;

/**
 * Receives progress, at most every 100 ms or 1 %, and once at the end; non-zero cancels the job.
 * Called on the thread that runs the job. It must not free the job.
 */
typedef int (*platter_progress_fn)(const struct platter_progress *progress,
                                   void *user_data);

/**
 * A message of a job. The library owns it; it lives until the callback returns.
 */
typedef struct platter_message {
    /**
     * Size of this struct in the library in use; later versions append members.
     */
    size_t size;
    /**
     * UTF-8 without the last newline: one line, of a warning sometimes more.
     */
    const char *text;
    /**
     * A `PLATTER_MESSAGE_*`.
     */
    uint32_t kind;
    /**
     * 0.
     */
    uint32_t reserved;
} platter_message;

/**
 * Receives messages as they arise, on the thread that runs the job. It must not free the job.
 */
typedef void (*platter_message_fn)(const struct platter_message *message,
                                   void *user_data);

/**
 * Receives `length` bytes of a report, which live until the callback returns and end anywhere, also within a
 * character. Non-zero ends the call with CANCELLED. It must not free the report.
 */
typedef int (*platter_report_write_fn)(const char *bytes,
                                       size_t length,
                                       void *user_data);

/**
 * What `platter_bench_job_new()` is to send. The caller owns it; `platter_bench_defaults()` fills it.
 */
typedef struct platter_bench {
    /**
     * Requests in all: 75000.
     */
    uint64_t count;
    /**
     * Requests at a time: 64.
     */
    uint64_t depth;
    /**
     * Bytes of each request: 4096.
     */
    uint64_t buffer_size;
    /**
     * Guest offset of the first request: 0.
     */
    uint64_t offset;
    /**
     * From the offset of one request to that of the next, which starts over at the end of the image.
     * 0 stands for `buffer_size`.
     */
    uint64_t step;
    /**
     * A flush whenever the number of requests that are left is a multiple of this: 0, for none. Not
     * below `depth`, and for writes alone.
     */
    uint64_t flush_interval;
    /**
     * The byte to write, 0 to 255: 0.
     */
    uint32_t pattern;
    /**
     * 0.
     */
    uint32_t reserved[9];
} platter_bench;

/**
 * Receives a run of a map on the thread that runs the job. `filename` (UTF-8) is the file of the layer
 * that decides, the one to which `host_offset` belongs: the external data file where the layer has
 * one; NULL where it is not known. Both live until the callback returns. Non-zero ends the job with
 * CANCELLED. It must not free the job.
 */
typedef int (*platter_extent_fn)(const struct platter_extent *extent,
                                 const char *filename,
                                 void *user_data);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The status: a `PLATTER_STATUS_*`. 0 for NULL.
 *
 * Threads: any. Since 0.1.
 */
int platter_error_status(const struct platter_error *error);

/**
 * The errno of the system call that failed, else the one that fits the status best. 0 for NULL.
 *
 * Threads: any. Since 0.1.
 */
int platter_error_errno(const struct platter_error *error);

/**
 * One line of UTF-8 for the user that names the file and the reason, with the causes behind colons and without
 * newline; control characters of names are escaped. Lives as long as the error. `""` for NULL.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_error_message(const struct platter_error *error);

/**
 * Further lines for the user: a remedy, or a question to ask oneself. `index` counts from 0; NULL
 * past the last one. Lives as long as the error. NULL for NULL.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_error_hint(const struct platter_error *error,
                               size_t index);

/**
 * The byte offset at which the file is damaged; `PLATTER_OFFSET_UNKNOWN` where that is not known,
 * and for NULL.
 *
 * Threads: any. Since 0.1.
 */
uint64_t platter_error_offset(const struct platter_error *error);

/**
 * The name of the file whose reading, writing or syncing failed, as it was opened: the image's, a data file's, an extent's, or that
 * of a layer below; NULL where no I/O failed, and for NULL. The message names it too, except where it has the words
 * of `qemu-img`. Lives as long as the error.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_error_file(const struct platter_error *error);

/**
 * What the operation was doing when it failed: a `PLATTER_STAGE_*`. `PLATTER_STAGE_OTHER` for NULL.
 *
 * Threads: any. Since 0.1.
 */
uint32_t platter_error_stage(const struct platter_error *error);

/**
 * Frees an error. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The error is not used afterwards.
 */
void platter_error_free(struct platter_error *error);

/**
 * The name of a status without its prefix: `"NOT_FOUND"`; `"OK"` for 0, NULL for an unknown one.
 * Lives for ever.
 *
 * Threads: any; safe in a signal handler. Since 0.1.
 */
const char *platter_status_name(int status);

/**
 * The errno that fits a status best: `ENOSPC` for `PLATTER_STATUS_NO_SPACE`; 0 for 0, `EIO` for an
 * unknown one. `platter_error_errno()` is exact where a system call failed.
 *
 * Threads: any; safe in a signal handler. Since 0.1.
 */
int platter_status_errno(int status);

/**
 * Frees a string that a function of this library gave to the caller (a `char **out`). NULL does
 * nothing.
 *
 * Threads: any. Since 0.1.
 *
 * # Safety
 * The string is not used afterwards.
 */
void platter_free(void *string);

/**
 * The version of the library that is in use, as `PLATTER_VERSION_NUMBER`.
 *
 * Threads: any. Since 0.1.
 */
uint32_t platter_version_number(void);

/**
 * The version of the library that is in use, as text: `"0.1.0"`. Lives for ever.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_version_string(void);

/**
 * Sends log lines of `level` and graver ones to `log_fn`, for the whole process. NULL for `log_fn`
 * goes back to the default: silence, or standard error at the level that the environment variable
 * `PLATTER_LOG` names (`error`, `warning`, `info`, `debug` or `trace`,
 * which switches all trace events on).
 *
 * `free_fn` (may be NULL) is called once with `user_data`: when another function is set and the
 * last call of this one has returned, or at once when this call fails. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 *
 * # Safety
 * `log_fn` and `user_data` are usable from every thread until `free_fn` is called.
 */
int platter_log_set(platter_log_fn log_fn,
                    void *user_data,
                    platter_free_fn free_fn,
                    uint32_t level,
                    uint32_t flags,
                    struct platter_error **err);

/**
 * Switches the trace events whose names match `pattern` on (`on` is 1) or off (0), for the whole process;
 * all are off at first, and one that is off costs next to nothing. `*` stands for any characters, `?` for
 * one. `*out` is the number of events that match, which may be 0. Events go as lines
 * `NAME KEY=VALUE ...` to the function of `platter_log_set()` where that takes `PLATTER_LOG_TRACE`.
 * Names and keys may change with every release. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 *
 * # Safety
 * `pattern` is NULL or NUL-terminated.
 */
int platter_trace_switch(size_t *out,
                         const char *pattern,
                         uint32_t on,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * The name of trace event `index`, counted from 0; NULL past the last one. Lives as long as the library.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_trace_event(size_t index);

/**
 * Reads a size as users type it: digits, a fraction where a suffix follows, and an optional suffix
 * `k`, `M`, `G`, `T`, `P` or `E` (powers of 1024) or `b`. `*out` is in bytes, not rounded. `flags`
 * is 0 or `PLATTER_SIZE_IMAGE`.
 *
 * Statuses: INVALID (not a size), LIMIT (negative or too large). Threads: any. Since 0.1.
 *
 * # Safety
 * `text` is NULL or NUL-terminated.
 */
int platter_size_parse(uint64_t *out,
                       const char *text,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Writes a number of bytes as users read it: three significant digits and a unit, `"1.5 KiB"`.
 * `*out` belongs to the caller, who frees it with `platter_free()`. `flags` must be 0.
 *
 * Statuses: INVALID, OS where there is no memory. Threads: any. Since 0.1.
 */
int platter_size_format(char **out,
                        uint64_t bytes,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Makes a control. The caller frees it with `platter_control_free()`; options and images on which it was
 * set, and what was made with those options, go on heeding it. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_control_new(struct platter_control **out,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Ends the calls that heed the control with CANCELLED, those that run and all later ones. What has
 * been done by then is undone as after a failure. This only stores an atomic; a call that computes
 * ends within milliseconds, one that waits for a file or a callback when that returns. NULL does
 * nothing.
 *
 * Threads: any; safe in a signal handler. Since 0.1.
 */
void platter_control_cancel(const struct platter_control *control);

/**
 * Ends the calls that heed the control with CANCELLED (and `ETIMEDOUT` as the error's errno) once
 * `milliseconds` from now have passed; 0 lifts that, also where they have passed. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_control_set_deadline(const struct platter_control *control,
                                 uint64_t milliseconds,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Frees a control; it cancels nothing. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The control is not used afterwards.
 */
void platter_control_free(struct platter_control *control);

/**
 * The driver at `index`, counted from 0: formats by name, then protocols by name, then
 * filters by name. `*out` lives for ever. `flags` must be 0.
 *
 * Statuses: NOT_FOUND past the last one, INVALID. Threads: any. Since 0.1.
 */
int platter_driver_describe(const struct platter_driver_info **out,
                            size_t index,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * The driver of that name, or of a further name that users have for it (`vhd` for `vpc`); `kind` is a `PLATTER_DRIVER_*`, or 0 for any.
 * `*out` lives for ever. `flags` must be 0.
 *
 * Statuses: NOT_FOUND, INVALID. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_driver_find(const struct platter_driver_info **out,
                        const char *name,
                        uint32_t kind,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * The option at `index`, counted from 0 and sorted by name, of `driver` for an operation
 * (`PLATTER_OPERATION_*`): formats have options of all three, protocols of making and opening, filters of
 * opening. Those of opening are what `platter_open_options_set_option()` and `driver=…` strings take, with those
 * that every driver takes among them; children have options of their own, see `platter_child_describe()`. An open
 * image keeps its options: to change one, open the image again. `*out` lives for ever. `flags` must be 0.
 *
 * Statuses: NOT_FOUND for an unknown driver and past the last option, INVALID. Threads: any.
 * Since 0.1.
 *
 * # Safety
 * `driver` is NULL or NUL-terminated.
 */
int platter_option_describe(const struct platter_option_info **out,
                            const char *driver,
                            uint32_t operation,
                            size_t index,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * The child at `index`, counted from 0 and in the order of the driver, that nodes of `driver` can have.
 * A protocol has none. `*out` lives for ever. `flags` must be 0.
 *
 * Statuses: NOT_FOUND for an unknown driver and past the last child, INVALID. Threads: any.
 * Since 0.1.
 *
 * # Safety
 * `driver` is NULL or NUL-terminated.
 */
int platter_child_describe(const struct platter_child_info **out,
                           const char *driver,
                           size_t index,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * The help that `-o help` prints: one line per option, with newlines, headed by its title. For
 * `PLATTER_OPERATION_CREATE`, `target` (may be NULL) is where the image would be made: the options
 * of its protocol are listed too. `*out` belongs to the caller, who frees it with
 * `platter_free()`. `flags` are at most one `PLATTER_LOCATION_*`, for the target.
 *
 * Statuses: INVALID (an unknown format, in the words for the user; an operation without such
 * help), UNSUPPORTED (the driver does not offer the operation), OS where there is no memory. Threads: any. Since 0.1.
 *
 * # Safety
 * `driver` and `target` are NULL or NUL-terminated.
 */
int platter_option_help(char **out,
                        const char *driver,
                        uint32_t operation,
                        const char *target,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Makes an empty set. The caller frees it with `platter_nodes_free()`; options on which it was set, and images
 * that were opened with them, go on using it. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_nodes_new(struct platter_nodes **out,
                      uint32_t flags,
                      struct platter_error **err);

/**
 * Frees a set. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The set is not used afterwards.
 */
void platter_nodes_free(struct platter_nodes *nodes);

/**
 * Makes options with the defaults: the format is guessed where the policy allows it, cache mode
 * `writeback`, the strict policy. The caller frees them with `platter_open_options_free()`. `flags`
 * must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_open_options_new(struct platter_open_options **out,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Sets the format; NULL has it guessed where the policy allows it. `flags` are 0 or `PLATTER_NAME_UNCHECKED`.
 *
 * Statuses: UNSUPPORTED (an unknown format), INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `format` is NULL or NUL-terminated.
 */
int platter_open_options_set_format(struct platter_open_options *options,
                                    const char *format,
                                    uint32_t flags,
                                    struct platter_error **err);

/**
 * Sets an option of the image, with the key that it has in a `driver=…` string: `encrypt.key-secret`,
 * `lazy-refcounts`, `file.locking`, `backing.driver`. So it stands beside a path, a descriptor or a storage, and
 * nothing is escaped. The options are the text of the value as it is, `on` or `off` for a truth; an empty `backing` is
 * no backing file at all. A later value replaces an earlier one, NULL takes it away. Keys that the image has not, that
 * the location has too, or that begin with `file.` where the file is open already are refused by the opening.
 * `platter_option_describe()` lists them with `PLATTER_OPERATION_OPEN`. Where several images are opened with these
 * options, each has them, and no image that one of them names. `flags` must be 0.
 *
 * Statuses: INVALID (an empty key, a key that is part of another one), UNSUPPORTED (an unknown driver). Threads: one
 * at a time. Since 0.1.
 *
 * # Safety
 * `key` and `value` are NULL or NUL-terminated.
 */
int platter_open_options_set_option(struct platter_open_options *options,
                                    const char *key,
                                    const char *value,
                                    uint32_t flags,
                                    struct platter_error **err);

/**
 * Sets all options of the image at once, as `platter_open_options_set_option()` does one: those of a bag, in which
 * numbers and truths are set by their own functions. A copy is kept, which replaces those set before; NULL stands
 * for none. `flags` must be 0.
 *
 * Statuses: INVALID (a key that is part of another one), UNSUPPORTED (an unknown driver). Threads: one at a time.
 * Since 0.1.
 */
int platter_open_options_set_options(struct platter_open_options *options,
                                     const struct platter_options *bag,
                                     uint32_t flags,
                                     struct platter_error **err);

/**
 * Sets the cache mode: `none` (or `off`), `writeback`, `writethrough`, `directsync`, `unsafe`.
 * `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `mode` is NULL or NUL-terminated.
 */
int platter_open_options_set_cache(struct platter_open_options *options,
                                   const char *mode,
                                   uint32_t flags,
                                   struct platter_error **err);

/**
 * Sets the policy; a copy is kept. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_open_options_set_policy(struct platter_open_options *options,
                                    const struct platter_policy *policy,
                                    uint32_t flags,
                                    struct platter_error **err);

/**
 * Sets the secrets that options such as
 * `key-secret` in a location name by ID; a copy is kept, which replaces those set before.
 * NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_open_options_set_secrets(struct platter_open_options *options,
                                     const struct platter_secrets *secrets,
                                     uint32_t flags,
                                     struct platter_error **err);

/**
 * Sets the named nodes of images that are opened one after the other: names are taken in the set, and lead to nodes
 * of images that were opened with it before. The set itself is kept, not a copy. NULL, the default, stands for a set of
 * its own for each image, or for each job that opens several. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_open_options_set_nodes(struct platter_open_options *options,
                                   const struct platter_nodes *nodes,
                                   uint32_t flags,
                                   struct platter_error **err);

/**
 * Sets storages that are used in place of files of their names: of the image and of whatever it names, as
 * far as the policy lets it; a copy of the set is kept, which replaces the one
 * before. NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_open_options_set_storages(struct platter_open_options *options,
                                      const struct platter_storages *storages,
                                      uint32_t flags,
                                      struct platter_error **err);

/**
 * Sets how hard compressed writes to the image try: 1 to 12 for zlib, 22 and less, also below 0, for zstd. A level
 * that no compression has is refused; one that the compression of the image does not have when it is opened; formats without
 * compression take any. Without this call the level is the format's default. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_open_options_set_compression_level(struct platter_open_options *options,
                                               int32_t level,
                                               uint32_t flags,
                                               struct platter_error **err);

/**
 * Opens what a compressed file holds: that at the location is one, of `kind` (`xz`, `gzip`, `bzip2`, `zstd`, `lz4`),
 * or with `auto` of the kind that its beginning shows. NULL, the default, takes files as they are. What is
 * opened so is read-only; a conversion of a plain disk reads it in one pass. Everything else unpacks parts of the file as
 * they are read, where it tells which part holds what, and keeps the last ones within `PLATTER_LIMIT_DECODER_BYTES`;
 * else it unpacks the file into a temporary file without a name, in the directory that TMPDIR names (`/var/tmp`), for
 * which the policy has `PLATTER_LIMIT_SPOOL_BYTES`. `flags` are 0 or `PLATTER_NAME_UNCHECKED`.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `kind` is NULL or NUL-terminated.
 */
int platter_open_options_set_decompress(struct platter_open_options *options,
                                        const char *kind,
                                        uint32_t flags,
                                        struct platter_error **err);

/**
 * Sets whether discards reach the host: 0 leaves the space where it is, 1 gives it back, whatever
 * the location says. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_open_options_set_discard(struct platter_open_options *options,
                                     uint32_t discard,
                                     uint32_t flags,
                                     struct platter_error **err);

/**
 * Sets whether writes are looked through for zeroes, which then take no space as far as the format can: `off`,
 * `on`, or `unmap`, which lets them become holes; NULL for what the location says. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `mode` is NULL or NUL-terminated.
 */
int platter_open_options_set_detect_zeroes(struct platter_open_options *options,
                                           const char *mode,
                                           uint32_t flags,
                                           struct platter_error **err);

/**
 * Sets what ends an opening that takes long: the derivation of a key, the reading of large tables, the
 * repair of an image that was not closed. The opening then fails with CANCELLED and leaves the image as it
 * was. A job that is given these options ends with the control too. NULL stands for none. `flags` must
 * be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_open_options_set_control(struct platter_open_options *options,
                                     const struct platter_control *control,
                                     uint32_t flags,
                                     struct platter_error **err);

/**
 * Frees options. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The options are not used afterwards.
 */
void platter_open_options_free(struct platter_open_options *options);

/**
 * Makes an empty bag. The caller frees it with `platter_options_free()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_options_new(struct platter_options **out,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Adds the entries of a `key=value,key=value` list: `,,` is a literal comma, a bare `key` is `on`,
 * `nokey` is `off`, a later entry replaces an earlier one. `flags` must be 0.
 *
 * Statuses: INVALID (an empty list, a leading or trailing comma). Threads: one at a time.
 * Since 0.1.
 *
 * # Safety
 * `list` is NULL or NUL-terminated.
 */
int platter_options_parse(struct platter_options *options,
                          const char *list,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Sets `key` to `value`, replacing an earlier value. `flags` must be 0.
 *
 * Statuses: INVALID (an empty key). Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `key` and `value` are NULL or NUL-terminated.
 */
int platter_options_set(struct platter_options *options,
                        const char *key,
                        const char *value,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Sets `key` to a number or a number of bytes. `flags` must be 0.
 *
 * Statuses: INVALID (an empty key). Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `key` is NULL or NUL-terminated.
 */
int platter_options_set_u64(struct platter_options *options,
                            const char *key,
                            uint64_t value,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Sets `key` to `on` where `value` is 1, and to `off` where it is 0. `flags` must be 0.
 *
 * Statuses: INVALID (an empty key). Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `key` is NULL or NUL-terminated.
 */
int platter_options_set_bool(struct platter_options *options,
                             const char *key,
                             uint32_t value,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Removes `key` where it is set. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `key` is NULL or NUL-terminated.
 */
int platter_options_unset(struct platter_options *options,
                          const char *key,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * The value of `key` as it was given; NULL where it is not set, and for NULL. Lives until the bag
 * changes or is freed.
 *
 * Threads: any. Since 0.1.
 *
 * # Safety
 * `key` is NULL or NUL-terminated.
 */
const char *platter_options_get(const struct platter_options *options,
                                const char *key);

/**
 * The key of the entry at `index`, in the order of setting; `*out` lives until the bag changes or is
 * freed. Ask `platter_options_get()` for its value. `flags` must be 0.
 *
 * Statuses: NOT_FOUND past the last entry, INVALID. Threads: any. Since 0.1.
 */
int platter_options_key(const char **out,
                        const struct platter_options *options,
                        size_t index,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Frees a bag. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The bag is not used afterwards.
 */
void platter_options_free(struct platter_options *options);

/**
 * Makes a policy from a preset, a `PLATTER_POLICY_*`. The caller frees it with
 * `platter_policy_free()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_policy_new(struct platter_policy **out,
                       uint32_t preset,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Allows `format`; once one is named, every other is refused. `flags` must be 0.
 *
 * Statuses: UNSUPPORTED (an unknown format), INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `format` is NULL or NUL-terminated.
 */
int platter_policy_allow_format(struct platter_policy *policy,
                                const char *format,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * Allows `protocol`, by its driver's name (`file`, `host_device`…); once one is named, opening and
 * creating through every other fails with DENIED, no matter who names the file. What the caller has open
 * itself is not asked about: descriptors, also those that a callback of the policy returns, and
 * callback storages. `flags` must be 0.
 *
 * Statuses: UNSUPPORTED (an unknown protocol), INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `protocol` is NULL or NUL-terminated.
 */
int platter_policy_allow_protocol(struct platter_policy *policy,
                                  const char *protocol,
                                  uint32_t flags,
                                  struct platter_error **err);

/**
 * Allows names inside images to lead to the server `host`: a name, a number, or `*.DOMAIN` for all below a domain,
 * with `:PORT` behind where only that port is meant (a number of IP version 6 then stands in brackets). Once one is
 * named, opening what an image names on any other server fails with DENIED, and so does following such a server that
 * sends on to another one; sockets of this machine have no host and are refused too. Hosts are compared as they are
 * written. What the caller names itself is not asked about. It allows nothing that
 * `platter_policy_set_implicit()` and `platter_policy_set_implicit_protocols()` do not. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `host` is NULL or NUL-terminated.
 */
int platter_policy_allow_host(struct platter_policy *policy,
                              const char *host,
                              uint32_t flags,
                              struct platter_error **err);

/**
 * Sets when the format may be guessed, a `PLATTER_PROBING_*`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_policy_set_probing(struct platter_policy *policy,
                               uint32_t probing,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Sets whether files that an image names (backing file, data file, extents) may be opened: a
 * `PLATTER_IMPLICIT_*`. Replaces directories and a callback set before. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_policy_set_implicit(struct platter_policy *policy,
                                uint32_t mode,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * Allows files that an image names where their real path lies below `directory`, and below those of
 * earlier calls; every other is refused. `flags` must be 0.
 *
 * Statuses: NOT_FOUND, OS, INVALID (it is no directory). Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `directory` is NULL or NUL-terminated.
 */
int platter_policy_add_directory(struct platter_policy *policy,
                                 const char *directory,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Asks `implicit_fn` for each file that an image names. `free_fn` (may be NULL) is called once with
 * `user_data`: when nothing uses the callback any more, or at once when this call fails. `flags`
 * must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `implicit_fn` and `user_data` are usable until `free_fn` is called, from every thread that opens
 * with the policy.
 */
int platter_policy_set_callback(struct platter_policy *policy,
                                platter_implicit_fn implicit_fn,
                                void *user_data,
                                platter_free_fn free_fn,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * Sets whether (1) or not (0) the name of a backing file inside an image may be `json:{…}` or `protocol:…` rather
 * than a plain file name; names of data files and extents are always plain. Whatever the policy, what
 * such a name leads to must be a regular file or a block device, none of procfs or its like, and not
 * reached through what a process has open (`/dev/fd/N`): else opening fails with INVALID. `flags`
 * must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_policy_set_implicit_protocols(struct platter_policy *policy,
                                          uint32_t allowed,
                                          uint32_t flags,
                                          struct platter_error **err);

/**
 * Sets whether (1) or not (0) the format is guessed also from the end of a file at whose beginning nothing is found: a VHD
 * of fixed size has a footer only. Off in both presets: a guest that may write to the end of its plain disk
 * can make it look like such an image. While it is on, what looks like a plain disk is not opened for writing
 * unless its format is named (DENIED). `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_policy_set_probe_footers(struct platter_policy *policy,
                                     uint32_t on,
                                     uint32_t flags,
                                     struct platter_error **err);

/**
 * Sets a ceiling, a `PLATTER_LIMIT_*`; what exceeds it fails with LIMIT. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_policy_set_limit(struct platter_policy *policy,
                             uint32_t limit,
                             uint64_t value,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * A ceiling, a `PLATTER_LIMIT_*`, as it is set; of a policy that is new, the default of its preset. What has none is
 * UINT64_MAX, of `PLATTER_LIMIT_CHAIN_DEPTH` UINT32_MAX. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_policy_get_limit(uint64_t *out,
                             const struct platter_policy *policy,
                             uint32_t limit,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Frees a policy. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The policy is not used afterwards.
 */
void platter_policy_free(struct platter_policy *policy);

/**
 * The profile at `index`, counted from 0 and sorted by name: a product with the format, the options and the
 * sizes of the images that it takes, for `platter_convert_set_profile()` and `platter_inspect_for_profile()`.
 * `*out` lives for ever. `flags` must be 0.
 *
 * Statuses: NOT_FOUND past the last one, INVALID. Threads: any. Since 0.1.
 */
int platter_profile_describe(const struct platter_profile_info **out,
                             size_t index,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Makes an empty set of secrets. The caller frees it with `platter_secrets_free()`. `flags` must
 * be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_secrets_new(struct platter_secrets **out,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Adds the secret `id`: the `len` bytes at `data`, as they are. They are copied; the copy is wiped
 * when it is freed, the caller's bytes are left alone. `flags` must be 0.
 *
 * Statuses: INVALID, EXISTS. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `id` is NULL or NUL-terminated; `data` has `len` readable bytes.
 */
int platter_secrets_add(struct platter_secrets *secrets,
                        const char *id,
                        const void *data,
                        size_t len,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Adds the secret `id` as the properties of a secret object describe it. `properties` is an array
 * of keys and values in turn that ends with NULL: `data` or `file` (a path), `format` (`raw` or
 * `base64`), and `keyid` with `iv` where the bytes are encrypted with AES-256-CBC under another secret
 * of this set. A file is read at once. No message repeats a value but a file's name. `flags` must
 * be 0.
 *
 * Statuses: INVALID, EXISTS, LIMIT, NEEDS_SECRET, OS, NOT_FOUND. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `id` is NULL or NUL-terminated; `properties` is an array of NUL-terminated strings, even in
 * number, behind which stands NULL.
 */
int platter_secrets_define(struct platter_secrets *secrets,
                           const char *id,
                           const char *const *properties,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * Adds the group of limits `id`, which the option `throttle-group` of the filter `throttle` names: all
 * that is opened with these secrets, or with a copy of them, shares it. `properties` is an array of
 * keys and values in turn that ends with NULL: `limits.bps-total`, `limits.bps-read` and
 * `limits.bps-write` in bytes per second, `limits.iops-total`, `limits.iops-read` and
 * `limits.iops-write` in requests per second; each with `-max` behind it for bursts and `-max-length`
 * for their length in seconds; `limits.iops-size` is the number of bytes that count as one
 * request. `x-` may stand for `limits.`. IDs are shared with secrets. `flags` must be 0.
 *
 * Statuses: INVALID, EXISTS. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `id` is NULL or NUL-terminated; `properties` is an array of NUL-terminated strings, even in
 * number, behind which stands NULL.
 */
int platter_secrets_add_throttle_group(struct platter_secrets *secrets,
                                       const char *id,
                                       const char *const *properties,
                                       uint32_t flags,
                                       struct platter_error **err);

/**
 * Adds the credentials of TLS `id`: certificates, which an option such as `tls-creds` names. `properties` is an
 * array of keys and values in turn that ends with NULL. `endpoint` is `client` (the default) or `server`. `dir` is a
 * directory with `ca-cert.pem`, `ca-crl.pem` where there is one, and `server-cert.pem` with `server-key.pem`, or
 * `client-cert.pem` with `client-key.pem` where there are both. In its place `ca-cert`, `ca-crl`, `cert` and `key`
 * are the same as text in PEM. `passwordid` names the secret of this set that opens a key which is encrypted
 * by PKCS #8. `verify-peer` (`on`, the default, or `off`): a client believes only a server whose certificate is of
 * the authority and for the name that was asked for, a server wants a certificate of its clients. `sanity-check`
 * (`on` or `off`): refuse at once what every peer would refuse. `priority` chooses versions of TLS, as in
 * `NORMAL:-VERS-TLS1.3`. All is read at once and copied; the copies of keys are wiped when they are freed. `flags`
 * must be 0.
 *
 * Statuses: INVALID, EXISTS, LIMIT, NEEDS_SECRET, WRONG_SECRET, NOT_FOUND, UNSUPPORTED, OS. Threads: one at a time.
 * Since 0.1.
 *
 * # Safety
 * `id` is NULL or NUL-terminated; `properties` is an array of NUL-terminated strings, even in
 * number, behind which stands NULL.
 */
int platter_secrets_add_tls_x509(struct platter_secrets *secrets,
                                 const char *id,
                                 const char *const *properties,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Adds the credentials of TLS `id`: keys that both ends know. `properties` is an array of keys and values in turn
 * that ends with NULL. `endpoint` is `client` (the default) or `server`. `dir` is a directory with `keys.psk`; in
 * its place `keys` is the text of it: lines of a name, a colon, and the key in hexadecimal digits. `username` says
 * whose key a client has, `qemu` where it is not given. `priority` chooses versions of TLS. Needs libssl.so.3, which
 * is loaded by this call. All is read at once and copied; the copies of keys are wiped when they are freed. `flags`
 * must be 0.
 *
 * Statuses: INVALID, EXISTS, LIMIT, NOT_FOUND, UNSUPPORTED (also where that library is missing), OS. Threads: one at
 * a time. Since 0.1.
 *
 * # Safety
 * `id` is NULL or NUL-terminated; `properties` is an array of NUL-terminated strings, even in
 * number, behind which stands NULL.
 */
int platter_secrets_add_tls_psk(struct platter_secrets *secrets,
                                const char *id,
                                const char *const *properties,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * Adds the rules `id`, which say what clients with TLS may come in, by the name that they proved to have: the
 * distinguished name of their certificate, such as `C=DE,O=Example,CN=client`, or the name of their key.
 * `properties` is an array of keys and values in turn that ends with NULL: `identity`, the one name that is let in;
 * or `policy` (`deny`, the default, or `allow`) with rules from `rules.0` on, of which the first that fits
 * decides: `rules.N.match`, `rules.N.policy` and `rules.N.format`, which is `exact`, the default, or `glob`. `flags`
 * must be 0.
 *
 * Statuses: INVALID, EXISTS. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `id` is NULL or NUL-terminated; `properties` is an array of NUL-terminated strings, even in
 * number, behind which stands NULL.
 */
int platter_secrets_add_authorization(struct platter_secrets *secrets,
                                      const char *id,
                                      const char *const *properties,
                                      uint32_t flags,
                                      struct platter_error **err);

/**
 * Sets who is asked for a secret that was not added, each time that it is needed; replaces who was
 * set before. `free_fn`, if not NULL, is called once with `user_data` when the last copy of the secrets
 * is freed, or when this call fails. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `secret_fn` and `user_data` are usable until `free_fn` is called, from every thread that opens or
 * creates with the secrets.
 */
int platter_secrets_set_callback(struct platter_secrets *secrets,
                                 platter_secret_fn secret_fn,
                                 void *user_data,
                                 platter_free_fn free_fn,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Gives a callback's secret: the `len` bytes at `data`, which are copied; the copy is wiped when it
 * is freed. A later call replaces an earlier one. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: the callback's. Since 0.1.
 *
 * # Safety
 * `data` has `len` readable bytes.
 */
int platter_secret_answer_set(struct platter_secret_answer *answer,
                              const void *data,
                              size_t len,
                              uint32_t flags,
                              struct platter_error **err);

/**
 * Frees secrets. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The secrets are not used afterwards.
 */
void platter_secrets_free(struct platter_secrets *secrets);

/**
 * Describes an export of `image`: all of it, under the empty name, which those clients get that ask for none.
 * `flags` are bits of `PLATTER_EXPORT_*`. `*out` belongs to the caller, who frees it with
 * `platter_export_free()`.
 *
 * Statuses: INVALID, READ_ONLY. Threads: any. Since 0.1.
 */
int platter_export_new(struct platter_export **out,
                       const struct platter_image *image,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Sets the name that clients ask for: UTF-8, up to 4096 bytes. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_export_set_name(struct platter_export *export_,
                            const char *name,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Sets what a list of exports says about it: UTF-8, up to 4096 bytes; NULL for nothing. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `description` is NULL or NUL-terminated.
 */
int platter_export_set_description(struct platter_export *export_,
                                   const char *description,
                                   uint32_t flags,
                                   struct platter_error **err);

/**
 * Offers `len` bytes of the image from `offset` on instead of all of it; `PLATTER_EXPORT_REST` reaches to its
 * end. `flags` must be 0.
 *
 * Statuses: INVALID where the window does not lie in the image. Threads: one at a time. Since 0.1.
 */
int platter_export_set_window(struct platter_export *export_,
                              uint64_t offset,
                              uint64_t len,
                              uint32_t flags,
                              struct platter_error **err);

/**
 * Lets clients read a persistent dirty bitmap of the image, or of the first layer of its chain that has one
 * of that name (`qemu:dirty-bitmap:NAME`). May be called for several. `flags` must be 0.
 *
 * Statuses: NOT_FOUND, CORRUPT where it is inconsistent, INVALID, OS. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_export_add_bitmap(struct platter_export *export_,
                              const char *name,
                              uint32_t flags,
                              struct platter_error **err);

/**
 * The size of the export in bytes; 0 for NULL.
 *
 * Threads: any. Since 0.1.
 */
uint64_t platter_export_size(const struct platter_export *export_);

/**
 * Frees a description; servers that took it go on. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The description is not used afterwards.
 */
void platter_export_free(struct platter_export *export_);

/**
 * Opens the image at `location`. `options` may be NULL for the defaults. `flags` are bits of
 * `PLATTER_OPEN_*` and at most one `PLATTER_LOCATION_*`. `*out` belongs to the caller, who ends it
 * with `platter_image_close()`.
 *
 * Statuses: NOT_FOUND, OS, NOT_AN_IMAGE, CORRUPT, UNSUPPORTED, LOCKED, DENIED, LIMIT, INVALID.
 * Threads: any. Since 0.1.
 *
 * # Safety
 * `location` is NULL or NUL-terminated.
 */
int platter_image_open(struct platter_image **out,
                       const char *location,
                       const struct platter_open_options *options,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Opens the image in an open file. The descriptor is duplicated: the caller keeps its own, but both
 * share the file's byte locks (images that this process opens exclude each other as by name, through one
 * descriptor as well) and, with the cache modes `none` and `directsync`, the flag `O_DIRECT`. `name`
 * (may be NULL) stands for the file in messages and reports, and names inside the image are relative
 * to it. `options` and `flags` as for
 * `platter_image_open()`, without `PLATTER_LOCATION_*`. `*out` belongs to the caller, who ends it with
 * `platter_image_close()`.
 *
 * Statuses: as `platter_image_open()`. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_image_open_fd(struct platter_image **out,
                          int fd,
                          const char *name,
                          const struct platter_open_options *options,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Opens the image in storage of the program. `ops` is copied; `name` (may be NULL) stands for the
 * storage in messages and reports. `free_fn` (may be NULL) is called once with `user_data`: when
 * the image is closed and its last job or queue freed, or at once when this call fails. `options` and
 * `flags` as for `platter_image_open()`, without `PLATTER_LOCATION_*`. `*out` belongs to the caller, who ends it
 * with `platter_image_close()`.
 *
 * Statuses: as `platter_image_open()`, and those of the callbacks. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated; the callbacks and `user_data` are usable from every thread
 * until `free_fn` is called.
 */
int platter_image_open_storage(struct platter_image **out,
                               const struct platter_storage_ops *ops,
                               const char *name,
                               void *user_data,
                               platter_free_fn free_fn,
                               const struct platter_open_options *options,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Sets what ends calls with this handle that can take long, from now on: those on bitmaps, zeroing, discarding,
 * `platter_image_extent()`, `platter_image_flush()` and `platter_image_close()`. They fail with CANCELLED then;
 * each says what that leaves. Calls with a buffer of the program end where they wait for a server, and not
 * otherwise. A sync that the kernel has begun ends by itself alone: where the program must not wait for it, use
 * `platter_queue_flush()`. Jobs and queues on the image are ended by what they have themselves. The control may
 * be freed; NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_image_set_control(const struct platter_image *image,
                              const struct platter_control *control,
                              uint32_t flags,
                              struct platter_error **err);

/**
 * Ends use of an image: writes out cached metadata, makes completed writes durable as the cache
 * mode says, releases locks. The handle is gone in every case, also where this reports a failure;
 * data may be lost then. Where jobs, queues or images that stand on it still hold the image it is flushed now, and
 * released with the last of them. Ended by the control of the image, it hands what was written to the file without
 * a sync, and leaves the rest to the next opening of the image, as after a crash: bitmaps that recorded
 * are inconsistent. NULL does nothing. `flags` must be 0; unknown bits are reported after the image
 * is closed.
 *
 * Statuses: OS, NO_SPACE, CANCELLED, INVALID. Threads: one, once. Since 0.1.
 *
 * # Safety
 * The image is not used afterwards.
 */
int platter_image_close(struct platter_image *image,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Adds the guest bytes of an open image: what opens the name reads and writes the disk in it, and takes it for
 * a raw one unless it says another format. The image stays open for as long as the set or what copied it uses it,
 * as with a job. Those that use the name exclude each other as those of one file do; how the caller uses the image
 * beside them is the caller's matter. `flags` must be 0.
 *
 * Statuses: INVALID, EXISTS. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_storages_add_image(struct platter_storages *storages,
                               const char *name,
                               const struct platter_image *image,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * The virtual size in bytes. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_image_size(uint64_t *out,
                       const struct platter_image *image,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * The allocation unit in bytes. `flags` must be 0.
 *
 * Statuses: NOT_FOUND where the format has none, INVALID. Threads: any. Since 0.1.
 */
int platter_image_cluster_size(uint32_t *out,
                               const struct platter_image *image,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * The name of the format. Lives as long as the image; NULL for NULL.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_image_format(const struct platter_image *image);

/**
 * What this image can do, as bits of `PLATTER_FEATURE_*`: those of its format that this image has as well (an
 * image of an older version may have no bitmaps, one with a data file no compressed clusters), whether or not
 * it is open for writing. CREATE, MEASURE and ENCRYPT are of formats alone: `platter_driver_find()`. `flags`
 * must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_image_features(uint32_t *out,
                           const struct platter_image *image,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * Where the image was opened from, as it was given, byte for byte; a plain path whose beginning looks like a
 * protocol has `./` in front. Lives as long as the image; NULL for NULL.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_image_filename(const struct platter_image *image);

/**
 * Whether writes are refused: 1 where they are, and for NULL; else 0.
 *
 * Threads: any. Since 0.1.
 */
uint32_t platter_image_is_read_only(const struct platter_image *image);

/**
 * What the user should know although the image could be opened: UTF-8, several lines where there is
 * more to say, without the last newline. `index` counts from 0; NULL past the last one, and for NULL. Lives as long as the image.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_image_warning(const struct platter_image *image,
                                  size_t index);

/**
 * Fills `buf` with `len` guest bytes at `offset`, never fewer: the range must lie in the image.
 * `flags` must be 0.
 *
 * Let buffers of 64 KiB and more begin at a page (`aligned_alloc(4096, len)`): large blocks of `malloc`
 * begin 16 bytes behind one, where some processors copy several times slower; and direct I/O takes
 * only aligned buffers as they are.
 *
 * Statuses: INVALID, OS, CORRUPT. Threads: any, several at once. Since 0.1.
 *
 * # Safety
 * `buf` is writable for `len` bytes.
 */
int platter_image_read(const struct platter_image *image,
                       void *buf,
                       size_t len,
                       uint64_t offset,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Writes `len` bytes of `buf` at `offset`; the range must lie in the image. `flags` is 0 or
 * `PLATTER_WRITE_FUA`. Large buffers are best aligned as for `platter_image_read()`.
 *
 * Statuses: READ_ONLY, INVALID, NO_SPACE, OS, CORRUPT. Threads: any, several at once. Since 0.1.
 *
 * # Safety
 * `buf` is readable for `len` bytes.
 */
int platter_image_write(const struct platter_image *image,
                        const void *buf,
                        size_t len,
                        uint64_t offset,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * As `platter_image_read()`, into `iovcnt` buffers in turn.
 *
 * Statuses and threads: as `platter_image_read()`. Since 0.1.
 *
 * # Safety
 * `iov` has `iovcnt` entries, each writable for its length.
 */
int platter_image_readv(const struct platter_image *image,
                        const struct iovec *iov,
                        uint32_t iovcnt,
                        uint64_t offset,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * As `platter_image_write()`, from `iovcnt` buffers in turn. A failure may leave the first of them
 * written.
 *
 * Statuses and threads: as `platter_image_write()`. Since 0.1.
 *
 * # Safety
 * `iov` has `iovcnt` entries, each readable for its length.
 */
int platter_image_writev(const struct platter_image *image,
                         const struct iovec *iov,
                         uint32_t iovcnt,
                         uint64_t offset,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Makes `len` guest bytes from `offset` read as zeroes. `flags` are bits of `PLATTER_WRITE_FUA`,
 * `PLATTER_ZERO_MAY_UNMAP` and `PLATTER_ZERO_NO_FALLBACK`.
 *
 * Statuses: as `platter_image_write()`, UNSUPPORTED; CANCELLED by the control of the image, when a part may
 * read as zeroes. Threads: any, several at once. Since 0.1.
 */
int platter_image_write_zeroes(const struct platter_image *image,
                               uint64_t offset,
                               uint64_t len,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Gives `len` guest bytes from `offset` back. Whole clusters read afterwards as zeroes, or as the
 * format defines; parts of clusters at the ends are left alone. `flags` must be 0.
 *
 * Statuses: as `platter_image_write()`; CANCELLED by the control of the image, when a part may be given
 * back. Threads: any, several at once. Since 0.1.
 */
int platter_image_discard(const struct platter_image *image,
                          uint64_t offset,
                          uint64_t len,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Has `len` guest bytes from `offset` brought near, so that reading them soon takes less time: into the
 * page cache, into the memory of an NBD server that offers it (`NBD_CMD_CACHE`), and through the whole
 * chain. Where neither is at hand they are read and thrown away, which leaves in memory what reading keeps
 * there; a `copy-on-read` filter copies them. What is on its way may not have come when the call returns.
 * Nothing changes but the time that reading takes. `flags` must be 0.
 *
 * Statuses: INVALID where the range does not lie in the image, OS, CORRUPT, CANCELLED by the control of
 * the image. Threads: any, several at once. Since 0.1.
 */
int platter_image_prefetch(const struct platter_image *image,
                           uint64_t offset,
                           uint64_t len,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * Makes all completed writes durable as the cache mode says. `flags` must be 0.
 *
 * Statuses: OS, NO_SPACE, INVALID; data may be lost then. CANCELLED where the control of the image had ended its
 * calls before. Threads: any, several at once. Since 0.1.
 */
int platter_image_flush(const struct platter_image *image,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * The longest run of guest bytes of one kind that starts at `offset` and is at most `len` bytes,
 * looked up through the backing chain: the same that a map tells of these bytes. `len` is not 0 and
 * the range lies in the image. A run without `PLATTER_EXTENT_ZERO` may still hold zeroes; one with it
 * reads as zeroes. See `PLATTER_EXTENT_UNKNOWN` for images opened without their backing file. `flags`
 * must be 0.
 *
 * Statuses: INVALID, OS, CORRUPT, CANCELLED by the control of the image. Threads: any, several at once.
 * Since 0.1.
 */
int platter_image_extent(struct platter_extent *out,
                         const struct platter_image *image,
                         uint64_t offset,
                         uint64_t len,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Makes a queue on `image`. `depth` is the number of requests that run at once and that room is kept
 * for, at most 65536; 0 stands for 64. More may be submitted; they wait their turn. `flags` are bits
 * of `PLATTER_QUEUE_*`. `*out` belongs to the caller, who frees it with `platter_queue_free()`.
 *
 * Statuses: INVALID, OS. Threads: any. Since 0.1.
 */
int platter_queue_new(struct platter_queue **out,
                      const struct platter_image *image,
                      uint32_t depth,
                      uint32_t flags,
                      struct platter_error **err);

/**
 * An eventfd (non-blocking, close-on-exec) that is readable while completions wait to be reaped, and
 * now and then a moment longer. `platter_queue_reap()` resets it: do not read or write it. It belongs
 * to the queue and is closed with it. `flags` must be 0.
 *
 * Statuses: INVALID, UNSUPPORTED with `PLATTER_QUEUE_NO_FD`; `*out` is -1 then. Threads: one at a
 * time. Since 0.1.
 */
int platter_queue_fd(int *out,
                     struct platter_queue *queue,
                     uint32_t flags,
                     struct platter_error **err);

/**
 * Submits a read of `len` guest bytes at `offset` into `buf`, which belongs to the library until the
 * completion is reaped. `flags` is 0 or `PLATTER_REQUEST_MORE`. Every failure is a completion; a NULL
 * queue does nothing. Large buffers are best aligned as for `platter_image_read()`.
 *
 * Statuses of the completion: as `platter_image_read()`. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `buf` is writable for `len` bytes, and nothing else uses it, until the completion is reaped or the
 * queue freed.
 */
void platter_queue_read(struct platter_queue *queue,
                        void *buf,
                        size_t len,
                        uint64_t offset,
                        void *user_data,
                        uint32_t flags);

/**
 * Submits a write of `len` bytes of `buf` at `offset`. `buf` belongs to the library until the
 * completion is reaped. `flags` are bits of `PLATTER_WRITE_FUA` and `PLATTER_REQUEST_MORE`. Failures
 * and NULL: as `platter_queue_read()`. Large buffers are best aligned as for `platter_image_read()`.
 *
 * Statuses of the completion: as `platter_image_write()`. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `buf` is readable for `len` bytes, and nothing writes to it, until the completion is reaped or the
 * queue freed.
 */
void platter_queue_write(struct platter_queue *queue,
                         const void *buf,
                         size_t len,
                         uint64_t offset,
                         void *user_data,
                         uint32_t flags);

/**
 * As `platter_queue_read()`, into `iovcnt` buffers in turn. `iov` itself is copied.
 *
 * Statuses of the completion: as `platter_image_readv()`. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `iov` has `iovcnt` entries; each is as `buf` of `platter_queue_read()`.
 */
void platter_queue_readv(struct platter_queue *queue,
                         const struct iovec *iov,
                         uint32_t iovcnt,
                         uint64_t offset,
                         void *user_data,
                         uint32_t flags);

/**
 * As `platter_queue_write()`, from `iovcnt` buffers in turn. `iov` itself is copied. A failure may
 * leave a part written.
 *
 * Statuses of the completion: as `platter_image_writev()`. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `iov` has `iovcnt` entries; each is as `buf` of `platter_queue_write()`.
 */
void platter_queue_writev(struct platter_queue *queue,
                          const struct iovec *iov,
                          uint32_t iovcnt,
                          uint64_t offset,
                          void *user_data,
                          uint32_t flags);

/**
 * Submits a request to make `len` guest bytes from `offset` read as zeroes. `flags` are bits of
 * `PLATTER_WRITE_FUA`, `PLATTER_ZERO_MAY_UNMAP`, `PLATTER_ZERO_NO_FALLBACK` and
 * `PLATTER_REQUEST_MORE`. Failures and NULL: as `platter_queue_read()`.
 *
 * Statuses of the completion: as `platter_image_write_zeroes()`. Threads: one at a time. Since 0.1.
 */
void platter_queue_write_zeroes(struct platter_queue *queue,
                                uint64_t offset,
                                uint64_t len,
                                void *user_data,
                                uint32_t flags);

/**
 * Submits a request to give `len` guest bytes from `offset` back to the host. `flags` are bits of
 * `PLATTER_WRITE_FUA` and `PLATTER_REQUEST_MORE`. Failures and NULL: as `platter_queue_read()`.
 *
 * Statuses of the completion: as `platter_image_discard()`. Threads: one at a time. Since 0.1.
 */
void platter_queue_discard(struct platter_queue *queue,
                           uint64_t offset,
                           uint64_t len,
                           void *user_data,
                           uint32_t flags);

/**
 * Submits a flush: it makes durable what had completed (reaped or not) when this was called, but
 * not what is still under way. `flags` is 0 or `PLATTER_REQUEST_MORE`. Failures and NULL: as
 * `platter_queue_read()`.
 *
 * Statuses of the completion: as `platter_image_flush()`. Threads: one at a time. Since 0.1.
 */
void platter_queue_flush(struct platter_queue *queue,
                         void *user_data,
                         uint32_t flags);

/**
 * Takes up to `max` completions into `completions` and their number into `*out`. Waits until there
 * are `min` of them, or all that are outstanding where there are fewer, for no longer than
 * `timeout_ms` milliseconds: 0 does not wait, a negative time is for ever. A time that runs out is no
 * failure. Signals do not end the wait. `flags` must be 0.
 *
 * Statuses: INVALID, OS. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `completions` is writable for `max` entries.
 */
int platter_queue_reap(size_t *out,
                       struct platter_queue *queue,
                       struct platter_completion *completions,
                       size_t max,
                       size_t min,
                       int64_t timeout_ms,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * The number of requests that were submitted and not yet reaped; 0 for NULL.
 *
 * Threads: one at a time. Since 0.1.
 */
size_t platter_queue_outstanding(struct platter_queue *queue);

/**
 * Frees a queue. Requests that have not begun are not carried out; those that have are waited for,
 * so that the library is done with every buffer when this returns. No completion is delivered any
 * more. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The queue is not used afterwards.
 */
void platter_queue_free(struct platter_queue *queue);

/**
 * Fills in the limits that a server has by default: 256 clients, 256 MiB, ten seconds for the handshake, a minute
 * for a client that takes nothing. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_server_limits_defaults(struct platter_server_limits *out,
                                   uint32_t flags,
                                   struct platter_error **err);

/**
 * Makes a server without exports and sockets yet. `limits` may be NULL for the defaults; it is copied.
 * `flags` must be 0. `*out` belongs to the caller, who frees it with `platter_server_free()`.
 *
 * Statuses: INVALID, OS. Threads: any. Since 0.1.
 */
int platter_server_new(struct platter_server **out,
                       const struct platter_server_limits *limits,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Offers an export from now on. The description is copied; the server keeps the image alive until it is
 * stopped. A program that uses the image meanwhile sees what clients write, and clients what it writes.
 * `flags` must be 0.
 *
 * Statuses: EXISTS where there is one of that name, INVALID. Threads: any. Since 0.1.
 */
int platter_server_add_export(const struct platter_server *server,
                              const struct platter_export *export_,
                              uint32_t flags,
                              struct platter_error **err);

/**
 * Offers the export `name` no longer (NULL or the empty string is the one without a name): requests of its
 * clients are refused from now on, those under way are carried out and answered, for which this waits up to
 * `timeout_ms` milliseconds (-1 is for ever, except for clients that take nothing for a minute); then its clients
 * are left and the image is let go, as by `platter_server_stop()`. Other exports go on. `flags` must be 0.
 *
 * Statuses: NOT_FOUND where there is none of that name, INVALID. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_server_remove_export(const struct platter_server *server,
                                 const char *name,
                                 int64_t timeout_ms,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * The name of the export of that index, from 0, in the order of their names, as a string of the caller, who frees
 * it with `platter_free()`. `flags` must be 0.
 *
 * Statuses: NOT_FOUND past the last one, OS where there is no memory, INVALID. Threads: any. Since 0.1.
 */
int platter_server_export_name(char **out,
                               const struct platter_server *server,
                               size_t index,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * How the export `name` is offered and who uses it; NULL or the empty string is the one without a name. `flags`
 * must be 0.
 *
 * Statuses: NOT_FOUND where there is none of that name, INVALID. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_server_get_export(struct platter_offered *out,
                              const struct platter_server *server,
                              const char *name,
                              uint32_t flags,
                              struct platter_error **err);

/**
 * Has clients begin TLS before anything else, by the credentials that `secrets` (NULL stands for none) hold under the
 * ID `credentials`, which must be those of a server; `authorization` is the ID of the object there that says which
 * clients may come in, or NULL for all that the credentials let in. May be called once, before clients come.
 * `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 *
 * # Safety
 * `credentials` and `authorization` are NULL or NUL-terminated.
 */
int platter_server_set_tls(const struct platter_server *server,
                           const struct platter_secrets *secrets,
                           const char *credentials,
                           const char *authorization,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * Takes clients at `address` from now on, on a thread of its own: `unix:PATH`, `inet:HOST:PORT` (an IPv6
 * address in brackets; an empty host is every address of this machine, port 0 is one that is free),
 * `vsock:CID:PORT`, or `fd:NUMBER`, a socket that listens already and is duplicated. A socket file that is
 * there is replaced, and removed when the server ends. May be called for several addresses. What was bound
 * is `platter_server_address()`. `flags` must be 0.
 *
 * Statuses: INVALID, OS. Threads: any. Since 0.1.
 *
 * # Safety
 * `address` is NULL or NUL-terminated.
 */
int platter_server_listen(const struct platter_server *server,
                          const char *address,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Serves a client that is connected already, on a thread of its own: `input` and `output` are one socket, or
 * two descriptors such as the standard streams. Both are duplicated. `flags` must be 0.
 *
 * Statuses: INVALID, OS. Threads: any. Since 0.1.
 */
int platter_server_serve_fds(const struct platter_server *server,
                             int input,
                             int output,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Offers an export as a file of this machine, by FUSE: it lies over the file `mountpoint`, whatever that holds,
 * until the server ends or somebody unmounts it. It counts as one client that came, and left when it is
 * unmounted. The name of the export is not used; the image is kept alive as by `platter_server_add_export()`.
 * `flags` are bits of `PLATTER_MOUNT_*`. With `PLATTER_MOUNT_GROWABLE` nothing else may use the image
 * meanwhile, as with `platter_resize_job_new()`. The file belongs to the user who runs the program, who alone
 * may use it without a flag. May be called several times.
 *
 * Statuses: INVALID for a mount point that is no file, and where what is growable is not all of an image that is
 * offered for writing; UNSUPPORTED where the image cannot grow or the system has no FUSE; OS. Threads: any.
 * Since 0.1.
 *
 * # Safety
 * `mountpoint` is NULL or NUL-terminated.
 */
int platter_server_mount(const struct platter_server *server,
                         const struct platter_export *export_,
                         const char *mountpoint,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Offers an export as a virtio block device for virtual machines: their front ends, which speak vhost-user, come
 * to the local socket `path`, one at a time, and each counts as a client. A socket that is there is replaced, and
 * removed when the server ends. The device has `queues` queues, 1 to 64, and the first 20 bytes of the name of
 * the export as its serial number. What of the export is less than a sector of 512 bytes at its end is not offered.
 * The front end shares the memory of its machine and must be trusted; the machine need not be. `flags` must be 0.
 *
 * Statuses: INVALID, OS. Threads: any. Since 0.1.
 *
 * # Safety
 * `path` is NULL or NUL-terminated.
 */
int platter_server_listen_vhost_user(const struct platter_server *server,
                                     const struct platter_export *export_,
                                     const char *path,
                                     uint32_t queues,
                                     uint32_t flags,
                                     struct platter_error **err);

/**
 * The address of that index, from 0, at which the server takes clients, with the numbers that the system
 * chose: a path, `HOST:PORT` or `CID:PORT`. NULL past the last one, and for NULL. Lives as long as the server.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_server_address(const struct platter_server *server,
                                   size_t index);

/**
 * An eventfd (non-blocking, close-on-exec) that is readable when clients came or left since the last
 * `platter_server_get_statistics()`, which resets it: do not read or write it. It belongs to the server and
 * is closed with it. `flags` must be 0.
 *
 * Statuses: INVALID; `*out` is -1 then. Threads: any. Since 0.1.
 */
int platter_server_fd(int *out,
                      const struct platter_server *server,
                      uint32_t flags,
                      struct platter_error **err);

/**
 * What the server has done so far. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_server_get_statistics(struct platter_server_statistics *out,
                                  const struct platter_server *server,
                                  uint32_t flags,
                                  struct platter_error **err);

/**
 * Why a request of a client failed, a client was left or could not be taken, the last time that happened, as
 * an error of its own, which the caller frees with `platter_error_free()`. NULL where all went well, and for
 * NULL.
 *
 * Threads: any. Since 0.1.
 */
struct platter_error *platter_server_last_error(const struct platter_server *server);

/**
 * Ends a server gently and waits for that: no client is taken any more, requests that come are refused as the
 * protocol has it, those under way are carried out and answered. Clients are left when they have nothing
 * under way, when they take nothing of their replies for as long as the limits say (`stall_ms`), or after
 * `timeout_ms` milliseconds; a negative time is for ever. Afterwards the server is as
 * after `platter_server_stop()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_server_drain(const struct platter_server *server,
                         int64_t timeout_ms,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Ends a server and waits for that: its clients are left at once, what they asked for and is under way is
 * carried out but not answered, and the images are let go: what was not flushed is made durable by
 * `platter_image_close()`. The server takes nothing any more, and is of use for its statistics alone.
 * `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_server_stop(const struct platter_server *server,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Stops a server as `platter_server_stop()` does, and frees it. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The server is not used afterwards.
 */
void platter_server_free(struct platter_server *server);

/**
 * Makes an empty set of storages. The caller frees it with `platter_storages_free()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_storages_new(struct platter_storages **out,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Adds an open file or block device. The descriptor is duplicated: the caller keeps its own. Locks, and the
 * flag `O_DIRECT`, are as for `platter_image_open_fd()`. What is written to needs a descriptor that is open for
 * reading and writing; a new image replaces what the file holds, and is emptied, not removed, where its creation
 * fails. A name with a colon is used with `PLATTER_LOCATION_PATH`. `flags` must be 0.
 *
 * Statuses: INVALID, EXISTS, OS. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_storages_add_fd(struct platter_storages *storages,
                            const char *name,
                            int fd,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Adds storage of the program. `ops` is copied; `size` is called by each opening. Images that use the same
 * storage of the set at once exclude each other as those in one file do: only readers share it. `free_fn` (may be
 * NULL) is called once with `user_data`: when the set and everything that copied it are gone, or at once when this
 * call fails. `flags` must be 0.
 *
 * Statuses: INVALID, EXISTS. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated; the callbacks and `user_data` are usable from every thread until
 * `free_fn` is called.
 */
int platter_storages_add_storage(struct platter_storages *storages,
                                 const char *name,
                                 const struct platter_storage_ops *ops,
                                 void *user_data,
                                 platter_free_fn free_fn,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Frees a set; what copied it goes on with its storages. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The set is not used afterwards.
 */
void platter_storages_free(struct platter_storages *storages);

/**
 * Sets the callback for progress. `free_fn` (may be NULL) is called once with `user_data`: when the
 * job is freed or another callback is set, or at once when this call fails. `flags` must be 0.
 *
 * Statuses: BUSY once the job runs, INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `progress_fn` and `user_data` are usable until `free_fn` is called, on the thread that runs the
 * job.
 */
int platter_job_set_progress(struct platter_job *job,
                             platter_progress_fn progress_fn,
                             void *user_data,
                             platter_free_fn free_fn,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Sets the callback for messages: the findings of a check, and warnings. `free_fn` as with
 * `platter_job_set_progress()`. `flags` must be 0.
 *
 * Statuses: BUSY once the job runs, INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `message_fn` and `user_data` are usable until `free_fn` is called, on the thread that runs the
 * job.
 */
int platter_job_set_message(struct platter_job *job,
                            platter_message_fn message_fn,
                            void *user_data,
                            platter_free_fn free_fn,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * The line that announces the job, without newline: `Formatting '…', fmt=…` for a creation; NULL
 * for jobs without one, and for NULL. Lives as long as the job.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_job_summary(const struct platter_job *job);

/**
 * Runs the job on this thread and returns its status. `flags` must be 0.
 *
 * Statuses: those of the work, CANCELLED, BUSY (it was run before), INVALID. Threads: one at a time.
 * Since 0.1.
 *
 * # Safety
 * The job is NULL or alive.
 */
int platter_job_run(struct platter_job *job,
                    uint32_t flags,
                    struct platter_error **err);

/**
 * Starts the job on a thread of its own, which blocks all signals. `platter_job_fd()` tells its end,
 * `platter_job_result()` how it ended. `flags` must be 0.
 *
 * Statuses: BUSY (it was run before), OS, INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * The job is NULL or alive.
 */
int platter_job_start(struct platter_job *job,
                      uint32_t flags,
                      struct platter_error **err);

/**
 * An eventfd (non-blocking, close-on-exec) that becomes readable when the job ends, and stays so
 * until it is read. It belongs to the job and is closed with it. `flags` must be 0.
 *
 * Statuses: OS, INVALID; `*out` is -1 then. Threads: any. Since 0.1.
 */
int platter_job_fd(int *out,
                   const struct platter_job *job,
                   uint32_t flags,
                   struct platter_error **err);

/**
 * How the job ended. `out` may be NULL; else `*out` is the report, which belongs to the caller, who
 * frees it with `platter_report_free()`. May be called more than once. `flags` is 0 or
 * `PLATTER_JOB_WAIT`.
 *
 * Statuses: BUSY while the job has not ended (with `PLATTER_JOB_WAIT`: has not begun), those of the
 * work, CANCELLED, INVALID. Threads: any. Since 0.1.
 */
int platter_job_result(struct platter_report **out,
                       const struct platter_job *job,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * The report of a job that failed, where it left one: a check whose repair was refused ends with
 * CORRUPT, and this is what it found. `*out` belongs to the caller, who frees it with
 * `platter_report_free()`. `flags` is 0 or `PLATTER_JOB_WAIT`.
 *
 * Statuses: NOT_FOUND (the job succeeded, or left no report), BUSY while the job has not ended (with
 * `PLATTER_JOB_WAIT`: has not begun), INVALID. Threads: any. Since 0.1.
 */
int platter_job_failure_report(struct platter_report **out,
                               const struct platter_job *job,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Where the job stands: `*out` is a `PLATTER_JOB_STATE_*`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_job_state(uint32_t *out,
                      const struct platter_job *job,
                      uint32_t flags,
                      struct platter_error **err);

/**
 * How far the job has come. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_job_progress(struct platter_progress *out,
                         const struct platter_job *job,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * A warning of the job: UTF-8, seldom more than one line. `index` counts from 0 in the order of time; NULL past the
 * last one, and for NULL. The first 1,000 are kept, and a line that says that there were more; a callback
 * (`platter_job_set_message()`) gets them all. Lives as long as the job.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_job_warning(const struct platter_job *job,
                                size_t index);

/**
 * Asks the job to end; it ends with CANCELLED unless it was done already. What it leaves behind is
 * said where the job is made. This only stores an atomic. NULL does nothing.
 *
 * Threads: any; safe in a signal handler. Since 0.1.
 */
void platter_job_cancel(const struct platter_job *job);

/**
 * Holds the job at its next step until `platter_job_resume()` or `platter_job_cancel()`. In a signal handler `err` is
 * NULL. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any; safe in a signal handler. Since 0.1.
 */
int platter_job_pause(const struct platter_job *job,
                      uint32_t flags,
                      struct platter_error **err);

/**
 * Lets a paused job go on, at once. In a signal handler `err` is NULL. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any; safe in a signal handler. Since 0.1.
 */
int platter_job_resume(const struct platter_job *job,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Limits the job to `bytes_per_second` of guest data that it copies, compares or sends; 0 lifts the
 * limit. It counts at once, also for a job that waits already: what was copied before is then waited for
 * at the new rate. Jobs that move no guest data (check, create, measure, map, amend, resize and those of
 * snapshots) refuse a limit. In a signal handler `err` is NULL. `flags` must be 0.
 *
 * Statuses: UNSUPPORTED, INVALID. Threads: any; safe in a signal handler. Since 0.1.
 */
int platter_job_set_rate(const struct platter_job *job,
                         uint64_t bytes_per_second,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Ends the job with CANCELLED (and `ETIMEDOUT` as the error's errno) at its next step once
 * `milliseconds` from now have passed, whether it runs by then, is paused or has not begun; 0 lifts
 * that. What the job leaves behind is the same as when it is cancelled. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_job_set_deadline(const struct platter_job *job,
                             uint64_t milliseconds,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Frees a job. One that runs is cancelled, and this waits for its end. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The job is not used afterwards.
 */
void platter_job_free(struct platter_job *job);

/**
 * The kind of report, a `PLATTER_REPORT_*`. 0 for NULL.
 *
 * Threads: any. Since 0.1.
 */
uint32_t platter_report_kind(const struct platter_report *report);

/**
 * The report as JSON, with its final newline: for info, check, map and measure what `qemu-img --output=json`
 * prints, key for key; for snapshots the list in info; for an inspection one object; for exports a list. It is UTF-8: in
 * names, what is not is replaced. `*out` lives as long as the report. Names in an image can make it some hundred MiB
 * long: `platter_report_write()` takes little memory. `flags` must be 0.
 *
 * Statuses: OS where there is no memory for it, INVALID. Threads: any. Since 0.1.
 */
int platter_report_json(const char **out,
                        const struct platter_report *report,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * The report for people, with newlines: what `qemu-img` prints without `--output`, of exports what `qemu-nbd --list` does; `""` for a
 * conversion. Names stand in it as the bytes that they are, but what of them would steer a terminal is escaped,
 * as `\u{1b}`. The JSON is UTF-8: it replaces what is not. `*out` lives as long as the report. Where the human form cannot show everything this
 * still gives what it can; see `platter_report_text_end()`. `flags` must be 0.
 *
 * Statuses: OS where there is no memory for it, INVALID. Threads: any. Since 0.1.
 */
int platter_report_text(const char **out,
                        const struct platter_report *report,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * How the text of `platter_report_text()` ends: 0 where it is complete, else the error that ends it: a
 * map with extents that have no plain host bytes. `flags` must be 0.
 *
 * Statuses: UNSUPPORTED, INVALID. Threads: any. Since 0.1.
 */
int platter_report_text_end(const struct platter_report *report,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * The exit code with which `qemu-img` ends after such a report: for check 0 (consistent), 1 (parts
 * could not be checked), 2 (corruptions) or 3 (leaks alone); for compare 0 (identical) or 1; for an
 * inspection 0 (every guard passes) or 2; else 0. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_report_exit_code(int *out,
                             const struct platter_report *report,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * The number of entries: layers of an info report (the image, then its backing chain), runs of a
 * map, snapshots, bitmaps, dirty runs, exports, the file, the guards and the names of an inspection; 1 for every
 * other report. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_report_count(size_t *out,
                         const struct platter_report *report,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * A number of entry `index`, by the key of the JSON: `virtual-size`, `actual-size`, `leaks`.
 *
 * A header file cannot list all keys that formats have, but has a `PLATTER_KEY_*` for each that stands alone. What the
 * JSON of info has deeper down is named by parts with dots, and items of lists by numbers:
 * `format-specific.data.refcount-bits`, `snapshots.0.date-sec`, `children.0.info.actual-size`; the number of a list is
 * that of its items: `format-specific.data.bitmaps`.
 *
 * Keys of info: `virtual-size`, `actual-size`, `cluster-size`, `snapshot-count`, `bitmap-count`, `child-count`,
 * `content-count`.
 * Check: `check-errors`, `corruptions`, `leaks`, `corruptions-fixed`, `leaks-fixed`,
 * `image-end-offset`, `total-clusters`, `allocated-clusters`, `fragmented-clusters`, `compressed-clusters`. Map:
 * `start`, `length`, `depth`, `offset`. Snapshots: `vm-state-size`, `date-sec`, `date-nsec`,
 * `vm-clock-sec`, `vm-clock-nsec`, `icount`, `virtual-size`. Bitmaps: `granularity`. Dirty
 * bytes: `start`, `length`. Measure: `required`, `fully-allocated`, `bitmaps` where there are some. Compare: `offset`. Convert: `virtual-size`, `data-bytes`,
 * `offloaded-bytes`, `zero-bytes`, `backed-bytes`, `compressed-units`, `compressed-bytes`. Resize:
 * `virtual-size`. Bench: `requests`, `flushes`, `bytes`. Of an inspection see `platter_inspect()`, of exports `platter_export_list()`.
 * `flags` must be 0.
 *
 * Statuses: NOT_FOUND where this report has no such key or entry, INVALID. Threads: any. Since 0.1.
 *
 * # Safety
 * `key` is NULL or NUL-terminated.
 */
int platter_report_u64(uint64_t *out,
                       const struct platter_report *report,
                       size_t index,
                       const char *key,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * A number of entry `index` that need not be whole, by the key of the JSON; whole ones too. Keys of
 * bench: `seconds`, `requests-per-second`. `flags` must be 0.
 *
 * Statuses: as `platter_report_u64()`. Threads: any. Since 0.1.
 *
 * # Safety
 * `key` is NULL or NUL-terminated.
 */
int platter_report_double(double *out,
                          const struct platter_report *report,
                          size_t index,
                          const char *key,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * A truth of entry `index`, by the key of the JSON: 1 or 0. Keys of info: `encrypted`, `dirty-flag`. Map:
 * `present`, `zero`, `data`, `compressed`, `unknown` (not in the JSON, see `PLATTER_EXTENT_UNKNOWN`).
 * Bitmaps: `enabled`, `inconsistent`. Compare: `identical`,
 * `size-mismatch`. `flags` must be 0.
 *
 * Statuses: as `platter_report_u64()`. Threads: any. Since 0.1.
 *
 * # Safety
 * `key` is NULL or NUL-terminated.
 */
int platter_report_bool(uint32_t *out,
                        const struct platter_report *report,
                        size_t index,
                        const char *key,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * A text of entry `index`, by the key of the JSON. Names are the bytes that they are, where the JSON replaces
 * what is not UTF-8, except that NUL bytes become U+FFFD. `*out` lives as long as the report. Keys of info:
 * `filename`, `format`, `backing-filename`, `full-backing-filename`, `backing-filename-format`.
 * None of them has passwords, also where the image holds the name with one. Check: `filename`, `format`. Snapshots: `id`, `name`. Bitmaps: `name`. Compare: `reason` (a `PLATTER_REASON_*`). Create: `summary`.
 * `flags` must be 0.
 *
 * Statuses: as `platter_report_u64()`. Threads: any. Since 0.1.
 *
 * # Safety
 * `key` is NULL or NUL-terminated.
 */
int platter_report_string(const char **out,
                          const struct platter_report *report,
                          size_t index,
                          const char *key,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * What the user should know beside the report of info, of all its layers: UTF-8, several lines where
 * there is more to say, without the last newline. `index` counts from 0; NULL past the last one, for
 * another report and for NULL. Lives as long as the report.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_report_warning(const struct platter_report *report,
                                   size_t index);

/**
 * The run at `index` of a map report, or of a report of dirty bytes. `flags` must be 0.
 *
 * Statuses: NOT_FOUND past the last one, INVALID for another report. Threads: any. Since 0.1.
 */
int platter_report_extent(struct platter_extent *out,
                          const struct platter_report *report,
                          size_t index,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Frees a report. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The report is not used afterwards.
 */
void platter_report_free(struct platter_report *report);

/**
 * Hands a report to `write_fn` piece by piece, in order and on the calling thread: the same bytes as those of
 * `platter_report_text()`, or of `platter_report_json()` with the flag `PLATTER_REPORT_WRITE_JSON`, in
 * little memory however long they are. How the text ends is for `platter_report_text_end()` to say. `flags`
 * is 0 or that one.
 *
 * Statuses: CANCELLED, OS where there is no memory, INVALID. Threads: any. Since 0.1.
 *
 * # Safety
 * `write_fn` and `user_data` are usable until the call returns.
 */
int platter_report_write(const struct platter_report *report,
                         platter_report_write_fn write_fn,
                         void *user_data,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Makes a job that changes the options of `image`, which is open for writing. `options` are those that
 * `platter_option_describe()` lists for `PLATTER_OPERATION_AMEND`; `secrets` (may be NULL for none)
 * are the ones that they name by ID and the one that opened the image. Both are copied. `flags` is 0
 * or `PLATTER_AMEND_FORCE`. Nothing else may use the image while the job runs. A job that fails or is
 * cancelled leaves an image that is valid, each option with its old or its new value. The job keeps
 * the image alive. `*out` belongs to the caller, who frees it with `platter_job_free()`.
 *
 * Statuses: INVALID for an unknown option or a value of the wrong type, UNSUPPORTED where the format
 * changes no options; of the job: INVALID, UNSUPPORTED, READ_ONLY, NEEDS_SECRET, WRONG_SECRET, LIMIT,
 * NO_SPACE, OS, CORRUPT. Threads: any. Since 0.1.
 */
int platter_amend_job_new(struct platter_job **out,
                          const struct platter_image *image,
                          const struct platter_options *options,
                          const struct platter_secrets *secrets,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Fills `*out` with the defaults of `qemu-img bench`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_bench_defaults(struct platter_bench *out,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * Makes a job that sends the requests of `bench` to `image` through a queue of its own and takes the
 * time. With `PLATTER_BENCH_WRITE` it overwrites the guest's data! `flags` are bits of
 * `PLATTER_BENCH_*`. The job's summary announces the test, in one line or two. The report has
 * `requests`, `flushes`, `bytes`, `seconds` and `requests-per-second`; progress counts requests. A
 * cancelled job has written what it has written. The job keeps the image alive. `*out` belongs to
 * the caller, who frees it with `platter_job_free()`.
 *
 * Statuses: INVALID; of the job: LIMIT where the buffers would take more than 4 GiB, and those of the
 * first request that fails. Threads: any. Since 0.1.
 */
int platter_bench_job_new(struct platter_job **out,
                          const struct platter_image *image,
                          const struct platter_bench *bench,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Reports the persistent dirty bitmaps of an open image, in the order of its directory; none for a
 * format without them. A bitmap that this image records into is consistent here, although it stays in
 * use on disk until the image is closed. `*out` belongs to the caller, who frees it with
 * `platter_report_free()`. `flags` must be 0.
 *
 * Statuses: CORRUPT, OS, INVALID. Threads: any. Since 0.1.
 */
int platter_bitmap_list(struct platter_report **out,
                        const struct platter_image *image,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Reports which of the `length` guest bytes from `offset` on the bitmap `name` has as dirty: what
 * changed since it was added or cleared, rounded out to its granularity, with what was written
 * through this open image. A range past the end of the image is cut. Each entry of the report is a
 * run, as `platter_report_extent()` or by the keys `start` and `length`; the call fails where there are
 * more than 1,048,576, so ask for the parts of a large image in turn. `*out` belongs to the caller, who frees it with `platter_report_free()`. `flags`
 * must be 0.
 *
 * Statuses: NOT_FOUND, LIMIT, CORRUPT where the bitmap is inconsistent or damaged, OS, INVALID, CANCELLED by
 * the control of the image. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_bitmap_dirty(struct platter_report **out,
                         const struct platter_image *image,
                         const char *name,
                         uint64_t offset,
                         uint64_t length,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Adds an empty bitmap to `image`, which must be writable; it records every write from now on, also of
 * later users. `granularity` is the guest bytes of a bit, a power of 2 from 512 to 2 GiB, or 0 for
 * the format's default. The change is on disk when the call returns. `flags` must be 0.
 *
 * Statuses: EXISTS, INVALID, LIMIT where it would be too large, UNSUPPORTED, READ_ONLY, NO_SPACE,
 * OS, CORRUPT; CANCELLED by the control of the image. Nothing has changed then. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_bitmap_add(const struct platter_image *image,
                       const char *name,
                       uint64_t granularity,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Removes a bitmap, also one that is inconsistent, from `image`, which must be writable. `flags` must
 * be 0.
 *
 * Statuses: NOT_FOUND, INVALID, READ_ONLY, NO_SPACE, OS, CORRUPT; CANCELLED by the control of the image.
 * Nothing has changed then. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_bitmap_remove(const struct platter_image *image,
                          const char *name,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Clears all bits of a bitmap of `image`, which must be writable. A write that runs at the same time is
 * recorded if it ends later. `flags` must be 0.
 *
 * Statuses: as `platter_bitmap_remove()`; CORRUPT also where the bitmap is inconsistent. Threads: any.
 * Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_bitmap_clear(const struct platter_image *image,
                         const char *name,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Lets a bitmap of `image`, which must be writable, record what is written from now on. `flags` must
 * be 0.
 *
 * Statuses: as `platter_bitmap_clear()`. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_bitmap_enable(const struct platter_image *image,
                          const char *name,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Lets a bitmap of `image`, which must be writable, record no more; what it has stays. `flags` must be
 * 0.
 *
 * Statuses: as `platter_bitmap_clear()`. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_bitmap_disable(const struct platter_image *image,
                           const char *name,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * Adds the dirty bits of the bitmap `source` of the image `from` (NULL: of `image` itself) to the bitmap
 * `name` of `image`, which must be writable. The granularities may differ: bits are rounded out. Both
 * images must have the same virtual size. `flags` must be 0.
 *
 * Statuses: as `platter_bitmap_clear()`; INVALID where the sizes differ. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` and `source` are NULL or NUL-terminated.
 */
int platter_bitmap_merge(const struct platter_image *image,
                         const char *name,
                         const struct platter_image *from,
                         const char *source,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Makes a job that checks the consistency of `image`, which was opened with
 * `PLATTER_OPEN_FOR_CHECK`. Each finding is a message, a `PLATTER_MESSAGE_NOTE`; the report has the
 * numbers. The job keeps the image alive. `*out` belongs to the caller, who frees it with
 * `platter_job_free()`. `flags` is a combination of `PLATTER_CHECK_HOLD_CHANGES` and one of
 * `PLATTER_CHECK_REPAIR_LEAKS` and `PLATTER_CHECK_REPAIR_ALL`, or 0; a repair needs an image that was opened with `PLATTER_OPEN_WRITE` too, and
 * is followed by a second check, which the report shows. A check that is cancelled changes nothing
 * from then on.
 *
 * What a check tells is of one state of the image. Other threads may go on writing to it through the same handle:
 * the job waits for the changes that are under way, and where another one changes metadata before it has ended (a
 * write that allocates, a discard, a snapshot…), it ends with BUSY, has no report, and tells nothing from then on.
 * Messages from before are true of the state that it began with. Check again at a quieter time, or set
 * `PLATTER_CHECK_HOLD_CHANGES`: writes and all other changes of the image then wait, each in its call, until the
 * job has ended; reads do not. A repair always has them wait. A change within a callback of such a job, on the thread
 * that runs it, is refused with BUSY. Writes of other processes are kept out by locks, unless the image was
 * opened with `PLATTER_OPEN_FORCE_SHARE`: then they are not known, and what is found may be of no state at all.
 *
 * Where `PLATTER_CHECK_REPAIR_LEAKS` finds damage that makes leaked clusters look like used ones, or
 * used ones like leaked ones, the job ends with CORRUPT and has changed nothing;
 * `platter_job_failure_report()` then gives the report. `PLATTER_CHECK_REPAIR_ALL` repairs both.
 *
 * Statuses: INVALID; of the job: BUSY where the image was changed meanwhile, UNSUPPORTED where the format has no
 * check, CORRUPT where damage keeps it from being carried out, OS. Threads: any. Since 0.1.
 */
int platter_check_job_new(struct platter_job **out,
                          const struct platter_image *image,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Makes a job that copies what the image at `location` and the layers below it hold down into
 * `base`, an image of its backing chain; NULL is the one right below. `base` is its name as the layer above
 * records or sees it, or any other name of the same file from the current directory. A smaller base
 * grows first. When that is durable, the image is emptied, unless a filter stands above it, or `base` or `PLATTER_COMMIT_KEEP` is
 * given. The job opens the images, for writing, as `options` (may be NULL for the defaults) say, and
 * closes them; the policy must allow the chain. `flags` are bits of `PLATTER_COMMIT_*` and at most
 * one `PLATTER_LOCATION_*`. A job that fails or is cancelled leaves part of the data in the base; the
 * image reads as before. `*out` belongs to the caller, who frees it with `platter_job_free()`.
 *
 * Statuses: INVALID; of the job: those of `platter_image_open()`, INVALID without a backing file,
 * NOT_FOUND where `base` is not in the chain, UNSUPPORTED, NO_SPACE, OS, CORRUPT. Threads: any. Since
 * 0.1.
 *
 * # Safety
 * `location` and `base` are NULL or NUL-terminated.
 */
int platter_commit_job_new(struct platter_job **out,
                           const char *location,
                           const char *base,
                           const struct platter_open_options *options,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * As `platter_commit_job_new()`, of an image that is open for writing, with its backing chain. Where this call
 * succeeds the job has taken `image` over: it is not used any more, and the job closes it when it ends, however that
 * is, or is freed. `options` say how the base is opened once more, for writing: with the policy, the secrets and the
 * storages with which `image` was opened. `flags` are bits of `PLATTER_COMMIT_*`.
 *
 * Statuses: as `platter_commit_job_new()`; BUSY where a job, a queue, an export, a storage or another image uses
 * `image`; of the job: READ_ONLY, INVALID where the backing chain was left closed. Threads: one, once. Since 0.1.
 *
 * # Safety
 * `base` is NULL or NUL-terminated; the image is not used afterwards where this succeeds.
 */
int platter_commit_image_job_new(struct platter_job **out,
                                 struct platter_image *image,
                                 const char *base,
                                 const struct platter_open_options *options,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Makes a job that compares the guest bytes of two images; a longer one must end in zeroes. The job
 * keeps the images alive. `*out` belongs to the caller, who frees it with `platter_job_free()`.
 * `flags` is 0 or `PLATTER_COMPARE_STRICT`. Images that differ are a report, not an error. The job changes nothing,
 * also when it is cancelled.
 *
 * Statuses: INVALID; of the job: OS, CORRUPT. Threads: any. Since 0.1.
 */
int platter_compare_job_new(struct platter_job **out,
                            const struct platter_image *a,
                            const struct platter_image *b,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Begins the description of a conversion with every default of `qemu-img convert`: into a raw image,
 * target cache mode `unsafe`. The caller frees it with `platter_convert_free()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_convert_new(struct platter_convert **out,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Adds a source; several are concatenated in the order of the calls. `flags` are at most one
 * `PLATTER_LOCATION_*`.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `location` is NULL or NUL-terminated.
 */
int platter_convert_add_source(struct platter_convert *convert,
                               const char *location,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Sets a descriptor to read from instead of any source: a pipe, a socket or a file, from its position
 * on and in order, as raw bytes or as an image that can be read in order (streamOptimized VMDK). The
 * descriptor is duplicated; the caller keeps its own. `flags` must be 0.
 *
 * Statuses: INVALID, OS. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_source_fd(struct platter_convert *convert,
                                  int fd,
                                  uint32_t flags,
                                  struct platter_error **err);

/**
 * Sets a descriptor to write to instead of the target: raw bytes, from its position on and in order.
 * The descriptor is duplicated; the caller keeps its own. A broken pipe is an error of the job and no
 * signal. `flags` must be 0.
 *
 * Statuses: INVALID, OS. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_target_fd(struct platter_convert *convert,
                                  int fd,
                                  uint32_t flags,
                                  struct platter_error **err);

/**
 * Sets how every source is opened: format, cache mode, policy; a copy is kept. `options` may be NULL
 * for the defaults. `flags` is 0 or `PLATTER_OPEN_FORCE_SHARE`.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_source_options(struct platter_convert *convert,
                                       const struct platter_open_options *options,
                                       uint32_t flags,
                                       struct platter_error **err);

/**
 * Sets an internal snapshot of the source to convert, by ID or name, or as `snapshot.id=…` or
 * `snapshot.name=…`; NULL for the current state. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `snapshot` is NULL or NUL-terminated.
 */
int platter_convert_set_snapshot(struct platter_convert *convert,
                                 const char *snapshot,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Sets the target and its format. A NULL format guesses that of an existing target, which needs
 * `PLATTER_CONVERT_TARGET_EXISTS` and a policy that allows it. `flags` are at most one
 * `PLATTER_LOCATION_*`, and `PLATTER_NAME_UNCHECKED`.
 *
 * Statuses: INVALID (also an unknown format), UNSUPPORTED (one that another build has). Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `location` and `format` are NULL or NUL-terminated.
 */
int platter_convert_set_target(struct platter_convert *convert,
                               const char *location,
                               const char *format,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Makes the image one that a product takes: `profile` is the name of one of `platter_profile_describe()`,
 * which decides on the format of the target, sets options where they are not set, and rounds the size up to the next
 * one that the product takes. A disk that is smaller than `size_least` grows to it, of which the job has a warning; one
 * that is larger than `size_most` is refused as INVALID by the job. An option that was set to another value is refused
 * by `platter_convert_job_new()`. NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `profile` is NULL or NUL-terminated.
 */
int platter_convert_set_profile(struct platter_convert *convert,
                                const char *profile,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * Sets the options of the new image; a copy is kept, and they replace those set before. `flags`
 * must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_target_options(struct platter_convert *convert,
                                       const struct platter_options *options,
                                       uint32_t flags,
                                       struct platter_error **err);

/**
 * Sets the cache mode of the target, as `platter_open_options_set_cache()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `mode` is NULL or NUL-terminated.
 */
int platter_convert_set_target_cache(struct platter_convert *convert,
                                     const char *mode,
                                     uint32_t flags,
                                     struct platter_error **err);

/**
 * Sets what opening the target and its backing file may do; a copy is kept. The policy of the
 * sources is that of `platter_convert_set_source_options()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_target_policy(struct platter_convert *convert,
                                      const struct platter_policy *policy,
                                      uint32_t flags,
                                      struct platter_error **err);

/**
 * Sets the secrets that options of the
 * target name by ID; a copy is kept, which replaces those set before.
 * NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_secrets(struct platter_convert *convert,
                                const struct platter_secrets *secrets,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * Sets storages that are used in place of files of their names: of the target, and of what it
 * names. Those of the sources are set by `platter_convert_set_source_options()`; a copy of the set is kept, which replaces the one
 * before. NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_storages(struct platter_convert *convert,
                                 const struct platter_storages *storages,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Sets the target's backing file and its format; data that it holds already is not copied. Either may
 * be NULL for none, or where the options name it. What the backing file names itself is opened where
 * `platter_convert_set_target_policy()` allows it. `flags` are 0 or `PLATTER_NAME_UNCHECKED`.
 *
 * Statuses: UNSUPPORTED (an unknown format), INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `file` and `format` are NULL or NUL-terminated.
 */
int platter_convert_set_backing(struct platter_convert *convert,
                                const char *file,
                                const char *format,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * Has a checksum of the guest's bytes taken while they are copied, all of the virtual disk, zeroes included:
 * `algorithm` is `sha256`, or NULL for none. The report has it as the string `sha256`, and as
 * `container-sha256` that of a compressed file or stream (see `platter_open_options_set_decompress()`), also where the
 * location describes it (`driver=decompress`) or the backing file is one that is copied; a file that is unpacked in
 * parts or into a temporary file is read once more for it, and of several files it is that of all their bytes
 * together. For the checksum alone, `/dev/null` is the target, by `platter_convert_set_target_fd()`.
 * `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `algorithm` is NULL or NUL-terminated.
 */
int platter_convert_set_checksum(struct platter_convert *convert,
                                 const char *algorithm,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Sets a number of the conversion, `PLATTER_CONVERT_SPARSE_SIZE` or `PLATTER_CONVERT_PARALLEL`.
 * `flags` must be 0.
 *
 * Statuses: INVALID, also for a value out of range. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_number(struct platter_convert *convert,
                               uint32_t which,
                               uint64_t value,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Whether what was set so far and `flags`, bits of `PLATTER_CONVERT_*`, fit together. `*out` is
 * `PLATTER_CONVERT_CONFLICT_NONE`, or the first thing that does not, `PLATTER_CONVERT_CONFLICT_*`, for
 * which `platter_convert_job_new()` would refuse the job. Neither sources nor a target need be set
 * yet; no file is touched.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_convert_check(uint32_t *out,
                          const struct platter_convert *convert,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * One line for the user that says what is wrong, as the error of `platter_convert_job_new()` does;
 * NULL for none and for an unknown number. Lives for ever.
 *
 * Threads: any; safe in a signal handler. Since 0.1.
 */
const char *platter_convert_conflict_text(uint32_t conflict);

/**
 * Makes the job that converts. `flags` are bits of `PLATTER_CONVERT_*`. Nothing is touched before
 * the job runs; the rate limit is `platter_job_set_rate()`. `*out` belongs to the caller, who frees it
 * with `platter_job_free()`. A target that the job created is removed when it fails or is cancelled;
 * an existing target then has part of the data.
 *
 * Statuses: INVALID; of the job: every one of opening, creating, reading and writing. Threads: any.
 * Since 0.1.
 */
int platter_convert_job_new(struct platter_job **out,
                            const struct platter_convert *convert,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Frees the description of a conversion. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The description is not used afterwards.
 */
void platter_convert_free(struct platter_convert *convert);

/**
 * Begins the description of a new image at `location` in `format`. The caller frees it with
 * `platter_create_free()`. `flags` are at most one `PLATTER_LOCATION_*`, and `PLATTER_NAME_UNCHECKED`.
 *
 * Statuses: INVALID (also an unknown format), UNSUPPORTED (one that another build has). Threads: any. Since 0.1.
 *
 * # Safety
 * `location` and `format` are NULL or NUL-terminated.
 */
int platter_create_new(struct platter_create **out,
                       const char *location,
                       const char *format,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Sets the virtual size in bytes; it is rounded up to 512. Without it the size is the option `size`,
 * or that of the backing file. `flags` must be 0.
 *
 * Statuses: INVALID, also for a size over 2^63 - 1. Threads: one at a time. Since 0.1.
 */
int platter_create_set_size(struct platter_create *create,
                            uint64_t size,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Sets the options; a copy is kept, and they replace those set before. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_create_set_options(struct platter_create *create,
                               const struct platter_options *options,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Sets the backing file (bytes) and its format as they are to stand in the image; either may be NULL for
 * none, or where the options name it. A relative name is relative to the image. What the backing file names itself
 * is opened where `platter_create_set_policy()` allows it. `flags` are bits of `PLATTER_BACKING_UNSAFE` and
 * `PLATTER_NAME_UNCHECKED`.
 *
 * Statuses: UNSUPPORTED (an unknown format), INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `file` and `format` are NULL or NUL-terminated.
 */
int platter_create_set_backing(struct platter_create *create,
                               const char *file,
                               const char *format,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Sets what opening the backing file may do; a copy is kept. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_create_set_policy(struct platter_create *create,
                              const struct platter_policy *policy,
                              uint32_t flags,
                              struct platter_error **err);

/**
 * Sets the secrets that options such as
 * `key-secret` name by ID; a copy is kept, which replaces those set before.
 * NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_create_set_secrets(struct platter_create *create,
                               const struct platter_secrets *secrets,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Sets storages that are used in place of files of their names: of the new image, its data file and its
 * backing file; a copy of the set is kept, which replaces the one
 * before. NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_create_set_storages(struct platter_create *create,
                                const struct platter_storages *storages,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * Sets what ends the creation beside the job itself: also `platter_create_job_new()`, which opens the
 * backing file. NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_create_set_control(struct platter_create *create,
                               const struct platter_control *control,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Makes the job that creates the image. Everything that can be checked without touching the target
 * is checked here, the backing file is opened for its size; `platter_job_summary()` then has the
 * line that announces the creation. `*out` belongs to the caller, who frees it with
 * `platter_job_free()`. `flags` is 0 or `PLATTER_CREATE_EXCLUSIVE`. A job that fails or is cancelled leaves no new file.
 *
 * Statuses: INVALID, UNSUPPORTED, LIMIT, and of opening the backing file; of the job: OS, NO_SPACE,
 * LOCKED, READ_ONLY, EXISTS. Threads: any. Since 0.1.
 */
int platter_create_job_new(struct platter_job **out,
                           const struct platter_create *create,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * Frees the description of a new image. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The description is not used afterwards.
 */
void platter_create_free(struct platter_create *create);

/**
 * Begins the description of a copy with every default of `qemu-img dd`: into a raw image, in blocks of
 * 512 bytes. The caller frees it with `platter_dd_free()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_dd_new(struct platter_dd **out,
                   uint32_t flags,
                   struct platter_error **err);

/**
 * Sets the input: an image, or the path of a pipe or character device, which is read in order: as raw
 * bytes, or as an image for which that can be done (streamOptimized VMDK). `flags` are at most one
 * `PLATTER_LOCATION_*`.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `location` is NULL or NUL-terminated.
 */
int platter_dd_set_input(struct platter_dd *dd,
                         const char *location,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Sets a descriptor as the input: it is read in order from its position on, as
 * `platter_dd_set_input()` has it. It is duplicated; the caller keeps its own. `flags` must be 0.
 *
 * Statuses: INVALID, OS. Threads: one at a time. Since 0.1.
 */
int platter_dd_set_input_fd(struct platter_dd *dd,
                            int fd,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Sets how the input is opened: format, cache mode, policy, secrets; a copy is kept. `options` may be
 * NULL for the defaults. `flags` is 0 or `PLATTER_OPEN_FORCE_SHARE`.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_dd_set_input_options(struct platter_dd *dd,
                                 const struct platter_open_options *options,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Sets an internal snapshot of the input to copy, by ID or name, or as `snapshot.id=…` or
 * `snapshot.name=…`; NULL for the current state. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `snapshot` is NULL or NUL-terminated.
 */
int platter_dd_set_snapshot(struct platter_dd *dd,
                            const char *snapshot,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Sets the output and its format: a new image, or the path of a pipe or character device, which takes
 * raw bytes in order. `flags` are at most one `PLATTER_LOCATION_*`, and `PLATTER_NAME_UNCHECKED`.
 *
 * Statuses: INVALID (also an unknown format), UNSUPPORTED (one that another build has). Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `location` and `format` are NULL or NUL-terminated.
 */
int platter_dd_set_output(struct platter_dd *dd,
                          const char *location,
                          const char *format,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Sets a descriptor as the output: raw bytes are written to it in order from its position on. It is
 * duplicated; the caller keeps its own. A broken pipe is an error of the job and no signal. `flags`
 * must be 0.
 *
 * Statuses: INVALID, OS. Threads: one at a time. Since 0.1.
 */
int platter_dd_set_output_fd(struct platter_dd *dd,
                             int fd,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Sets the cache mode of the output, as `platter_open_options_set_cache()`; `writeback` if not set.
 * `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `mode` is NULL or NUL-terminated.
 */
int platter_dd_set_output_cache(struct platter_dd *dd,
                                const char *mode,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * Sets what opening an output that exists may do; a copy is kept. The policy of the input is that of
 * `platter_dd_set_input_options()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_dd_set_output_policy(struct platter_dd *dd,
                                 const struct platter_policy *policy,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Sets the secrets that options of the output name by ID; a copy is kept, which replaces those set
 * before. NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_dd_set_secrets(struct platter_dd *dd,
                           const struct platter_secrets *secrets,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * Sets storages that are used in place of files of their names: of the output, and of what it names.
 * Those of the input are set by `platter_dd_set_input_options()`; a copy of the set is kept, which replaces the one
 * before. NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_dd_set_output_storages(struct platter_dd *dd,
                                   const struct platter_storages *storages,
                                   uint32_t flags,
                                   struct platter_error **err);

/**
 * Sets a number of the copy, one of `PLATTER_DD_*`. `flags` must be 0.
 *
 * Statuses: INVALID, also for a value out of range. Threads: one at a time. Since 0.1.
 */
int platter_dd_set_number(struct platter_dd *dd,
                          uint32_t which,
                          uint64_t value,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Makes the job that copies. `flags` are bits of `PLATTER_DD_*` flags. Nothing is touched before the
 * job runs. Its report is of the kind `PLATTER_REPORT_CONVERT`. `*out` belongs to the caller, who
 * frees it with `platter_job_free()`. An output that the job created is removed when it fails or is
 * cancelled; an output that existed then has part of the data, and what was read from a stream is
 * gone from it.
 *
 * Statuses: INVALID; of the job: INVALID for a skip past the end and for an input that is the output
 * as well, and every one of opening, creating, reading and writing. Threads: any. Since 0.1.
 */
int platter_dd_job_new(struct platter_job **out,
                       const struct platter_dd *dd,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Frees the description of a copy. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The description is not used afterwards.
 */
void platter_dd_free(struct platter_dd *dd);

/**
 * Lists the exports of the server to which `location` leads: `nbd://HOST`, `nbd+unix://?socket=PATH`, or with
 * `PLATTER_LOCATION_IMAGE_OPTS` `driver=nbd,host=HOST,tls-creds=ID`. Which export it names is of no matter, and none
 * is opened. Of `options`, which may be NULL for the defaults, the policy, the secrets and the control count, which
 * ends every wait for the server. `flags` is 0 or one `PLATTER_LOCATION_*`. `*out` belongs to the caller, who frees it
 * with `platter_report_free()`.
 *
 * The report has an entry for each export, in the server's order: `name`, `description`, `size` in bytes, `read-only`,
 * `flags` (those of the protocol), `features` (the names of the known ones: `readonly`, `flush`, `fua`, `rotational`,
 * `trim`, `zeroes`, `df`, `multi`, `resize`, `cache`, `fast-zero`, `block-status-payload`), `min-block`, `opt-block` and
 * `max-block` in bytes, `transaction-bits` (32 or 64), `contexts` (the metadata contexts). What the server does not tell
 * is missing; where it refuses to describe an export, `error` says why. `features` and `contexts` are lists in the
 * JSON, and texts with a line for each here. The text is that of `qemu-nbd --list`.
 *
 * Statuses: UNSUPPORTED where the protocol or the server has no such list, DENIED where the policy or the server forbids
 * it, LIMIT for more than 16,384 exports or 16 MiB of names, OS, CANCELLED, INVALID. Threads: any. Since 0.1.
 *
 * # Safety
 * `location` is NULL or NUL-terminated.
 */
int platter_export_list(struct platter_report **out,
                        const char *location,
                        const struct platter_open_options *options,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Reports what the image at `location` is. Only its metadata is read: no data file is opened, and
 * backing files only with `PLATTER_INFO_CHAIN`. `options` may be NULL for the defaults. `flags` are
 * bits of `PLATTER_OPEN_FORCE_SHARE`, `PLATTER_INFO_CHAIN` and at most one `PLATTER_LOCATION_*`.
 * `*out` belongs to the caller, who frees it with `platter_report_free()`.
 *
 * Statuses: as `platter_image_open()`. Threads: any. Since 0.1.
 *
 * # Safety
 * `location` is NULL or NUL-terminated.
 */
int platter_image_describe(struct platter_report **out,
                           const char *location,
                           const struct platter_open_options *options,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * Reports what an open image is, as `platter_image_describe()` does: the image as it is open, wherever it was opened
 * from, and with `PLATTER_INFO_CHAIN` those below it that are open with it. What an image that is open for writing
 * has cached is written out first. `flags` is 0 or `PLATTER_INFO_CHAIN`. `*out` belongs to the caller, who frees it
 * with `platter_report_free()`.
 *
 * Statuses: OS, NO_SPACE, CORRUPT, CANCELLED, INVALID. Threads: any. Since 0.1.
 */
int platter_image_info(struct platter_report **out,
                       const struct platter_image *image,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Inspects the file at `location`: what it is, every file that it names, and a verdict per guard on
 * whether it may be used. Opens nothing but that one file, reads a bounded part of it and follows no
 * name, whatever the policy allows; damage is a verdict, not a failure.
 *
 * Of `options`, which may be NULL for the defaults, the format, the cache mode, the formats that the
 * policy allows and its limits count. Name the format: then it is a verdict whether the contents are
 * of that format. `flags` are bits of `PLATTER_OPEN_FORCE_SHARE` and at most one
 * `PLATTER_LOCATION_*`. `*out` belongs to the caller, who frees it with `platter_report_free()`.
 *
 * The report's entry 0 is the file: `filename`, `format`, `signatures` (joined by `,`), `format-named`,
 * `encrypted`, `passed`, `file-size`, `virtual-size`, `cluster-size`, `snapshot-count`, `guard-count`,
 * `reference-count`. After it come the guards: `id`, `verdict` (`pass`, `fail`, `unknown` or
 * `not-applicable`), `reason`. Then the names: `role` (`backing-file`, `data-file`, `extent` or
 * `parent-locator`), `name`, `name-bytes` (in hexadecimal, where the name is not UTF-8), `format`,
 * `protocol`, `offset`, `plain`, `absolute`, `parent`, `json`. `platter_report_exit_code()` is 0 where
 * every guard passes or does not apply, else 2.
 *
 * Statuses: NOT_FOUND, OS, LOCKED, LIMIT, INVALID; UNSUPPORTED for an unknown format. Threads: any.
 * Since 0.1.
 *
 * # Safety
 * `location` is NULL or NUL-terminated.
 */
int platter_inspect(struct platter_report **out,
                    const char *location,
                    const struct platter_open_options *options,
                    uint32_t flags,
                    struct platter_error **err);

/**
 * As `platter_inspect()`, and whether a product would take the file: that of `profile`, one of
 * `platter_profile_describe()`. Without a format in `options`, the file must be of the profile's. Where the
 * product takes packages, what is said of the image is said of the first one in the file, which is read to its
 * end.
 *
 * The report has, beside what `platter_inspect()` says, in entry 0 `profile` and `objection-count`, and after
 * the names an entry for each thing that the product would refuse: `reason`, `remedy`. Any of them makes the
 * exit code 2.
 *
 * Statuses: as `platter_inspect()`; INVALID for an unknown profile. Threads: any. Since 0.1.
 *
 * # Safety
 * `location` and `profile` are NULL or NUL-terminated.
 */
int platter_inspect_for_profile(struct platter_report **out,
                                const char *location,
                                const char *profile,
                                const struct platter_open_options *options,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * As `platter_inspect()`, for an open file: what is inspected is what the caller uses afterwards,
 * whatever happens to its name. The descriptor is duplicated; `name` (may be NULL) stands for the file
 * in messages and in the report. `flags` are bits of `PLATTER_OPEN_FORCE_SHARE`.
 *
 * Statuses: as `platter_inspect()`. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_inspect_fd(struct platter_report **out,
                       int fd,
                       const char *name,
                       const struct platter_open_options *options,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * As `platter_inspect()`, for storage of the program; only `size` and `read` are called.
 * `ops` is copied; `name` (may be NULL) stands for the storage in messages and in the report.
 * `free_fn` (may be NULL) is called once with `user_data` before this returns. `flags` must be 0.
 *
 * Statuses: as `platter_inspect()`, and those of the callbacks. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated; the callbacks and `user_data` are usable until `free_fn` is called.
 */
int platter_inspect_storage(struct platter_report **out,
                            const struct platter_storage_ops *ops,
                            const char *name,
                            void *user_data,
                            platter_free_fn free_fn,
                            const struct platter_open_options *options,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Makes a job that maps `length` guest bytes of `image` and its backing chain from `start`; a length
 * past the end is cut. Its report has all runs, neighbours of one kind merged; an image of a few
 * kilobytes can have any number of them, so the job fails where there are more than 1,048,576: map
 * parts of such an image, or take the runs with `platter_map_each_job_new()`. The job keeps the image
 * alive. `*out` belongs to the caller, who frees it with `platter_job_free()`. `flags` must be 0. Where
 * other threads write to the image meanwhile, each run is as it was when the job came to it. The job changes
 * nothing, also when it is cancelled.
 *
 * Statuses: INVALID; of the job: LIMIT, OS, CORRUPT. Threads: any. Since 0.1.
 */
int platter_map_job_new(struct platter_job **out,
                        const struct platter_image *image,
                        uint64_t start,
                        uint64_t length,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * As `platter_map_job_new()`, for any number of runs in little memory: each run is handed to
 * `extent_fn` in guest order as soon as its end is known, neighbours of one kind merged. A map of
 * nothing is one run of length 0. The report of the job is a `PLATTER_REPORT_DONE`. Where the job
 * fails, the runs so far were right. `free_fn` (may be NULL) is called once with `user_data`: when the
 * job has ended or is freed, or at once when this call fails.
 *
 * Statuses: INVALID; of the job: CANCELLED, OS, CORRUPT. Threads: any. Since 0.1.
 *
 * # Safety
 * `extent_fn` and `user_data` are usable until `free_fn` is called, on the thread that runs the job.
 */
int platter_map_each_job_new(struct platter_job **out,
                             const struct platter_image *image,
                             uint64_t start,
                             uint64_t length,
                             platter_extent_fn extent_fn,
                             void *user_data,
                             platter_free_fn free_fn,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Makes a job that tells how many bytes a new image in `format` will take: one with the guest
 * contents of `image` and its backing chain, or, where `image` is NULL, an empty one of `size`
 * guest bytes. `options` (may be NULL) are those of creation. Nothing is created, no data is
 * read, and nothing is changed, also when the job is cancelled. The job keeps the image alive. `*out` belongs to the
 * caller, who frees it with `platter_job_free()`. `flags` must be 0. Where other threads write to the image
 * meanwhile, each part of it counts as it was when the job came to it.
 *
 * Statuses: INVALID, also for an unknown format, UNSUPPORTED for one that cannot be made; of the job:
 * INVALID for bad options, UNSUPPORTED where the format cannot be measured, OS, CORRUPT. Threads: any. Since 0.1.
 *
 * # Safety
 * `format` is NULL or NUL-terminated.
 */
int platter_measure_job_new(struct platter_job **out,
                            const struct platter_image *image,
                            uint64_t size,
                            const char *format,
                            const struct platter_options *options,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Makes a job that gives the image at `location` the backing file `backing`, as the name is to stand in
 * the image; NULL or an empty name is none. What the guest sees stays the same: data that the new
 * chain does not show is copied into the image first. `backing_format` is recorded and must be given
 * with a name; `backing_cache` (may be NULL: `writeback`) is the cache mode of the new backing file.
 * The job opens the images, for writing, as `options` (may be NULL for the defaults) say, and closes
 * them; the policy must allow the chains. `flags` are bits of `PLATTER_REBASE_*`, `PLATTER_NAME_UNCHECKED` and at
 * most one `PLATTER_LOCATION_*`. A job that fails or is cancelled leaves the image on its present backing file,
 * with part of the data copied. `*out` belongs to the caller, who frees it with
 * `platter_job_free()`.
 *
 * Statuses: UNSUPPORTED (an unknown format), INVALID; of the job: those of `platter_image_open()`, UNSUPPORTED where
 * the format has no backing files, NO_SPACE, LIMIT, OS, CORRUPT. Threads: any. Since 0.1.
 *
 * # Safety
 * The strings are NULL or NUL-terminated.
 */
int platter_rebase_job_new(struct platter_job **out,
                           const char *location,
                           const char *backing,
                           const char *backing_format,
                           const char *backing_cache,
                           const struct platter_open_options *options,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * As `platter_rebase_job_new()`, of an image that is open for writing, with its backing chain unless
 * `PLATTER_REBASE_NAME_ONLY` is given. Where this call succeeds the job has taken `image` over: it is not used any
 * more, and the job closes it when it ends, however that is, or is freed. `options` say how the new backing file is
 * opened: with which policy, secrets and storages. `flags` are bits of `PLATTER_REBASE_*` and
 * `PLATTER_NAME_UNCHECKED`.
 *
 * Statuses: as `platter_rebase_job_new()`; BUSY where a job, a queue, an export, a storage or another image uses
 * `image`; of the job: READ_ONLY, INVALID where the backing chain was left closed. Threads: one, once. Since 0.1.
 *
 * # Safety
 * The strings are NULL or NUL-terminated; the image is not used afterwards where this succeeds.
 */
int platter_rebase_image_job_new(struct platter_job **out,
                                 struct platter_image *image,
                                 const char *backing,
                                 const char *backing_format,
                                 const char *backing_cache,
                                 const struct platter_open_options *options,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Makes a job that changes the virtual size of `image`, which is open for writing, to `size` bytes,
 * rounded up to 512. `preallocation` (may be NULL: `off`) is `off`, `metadata`, `falloc` or `full`
 * and says how space for what is new is reserved. `flags` are bits of `PLATTER_RESIZE_*`. Nothing
 * else may use the image while the job runs. A job that is cancelled, or past its deadline, leaves the size as
 * it was; while a shrink frees what lay behind the new end, the new size, and the next change of size frees
 * the rest. The report
 * has the new size as `virtual-size`. The job keeps the image alive. `*out` belongs to the caller,
 * who frees it with `platter_job_free()`.
 *
 * Statuses: INVALID, also for a size out of range; of the job: INVALID for a sum out of range and for a size that is
 * smaller without
 * `PLATTER_RESIZE_SHRINK`, UNSUPPORTED, READ_ONLY, LOCKED, LIMIT, NO_SPACE, OS, CORRUPT. Threads: any.
 * Since 0.1.
 *
 * # Safety
 * `preallocation` is NULL or NUL-terminated.
 */
int platter_resize_job_new(struct platter_job **out,
                           const struct platter_image *image,
                           uint64_t size,
                           const char *preallocation,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * Shows an internal snapshot instead of the current contents, read-only, until the image is closed.
 * `snapshot` is an ID, else a name, or `snapshot.id=…,snapshot.name=…`. On failure the image shows
 * what it showed before. `flags` must be 0.
 *
 * Statuses: NOT_FOUND, UNSUPPORTED, BUSY while a job uses the image, CORRUPT, OS, INVALID. Threads: one
 * at a time, and no other call on the image meanwhile. Since 0.1.
 *
 * # Safety
 * `snapshot` is NULL or NUL-terminated.
 */
int platter_snapshot_show(struct platter_image *image,
                          const char *snapshot,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Reports the internal snapshots of an open image, in the order of its table; none for a format
 * without them. `*out` belongs to the caller, who frees it with `platter_report_free()`. `flags`
 * must be 0.
 *
 * Statuses: CORRUPT, OS, INVALID. Threads: any. Since 0.1.
 */
int platter_snapshot_list(struct platter_report **out,
                          const struct platter_image *image,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Makes a job that records the current contents of `image`, which must be writable, as an internal
 * snapshot. `name` may be empty or taken; the new ID is the highest one plus 1. The report of the job
 * lists the snapshots, the new one last. Cancelled, or past its deadline, the job leaves the image as it
 * was. The job keeps the image alive. `*out` belongs to the
 * caller, who frees it with `platter_job_free()`. `flags` must be 0.
 *
 * Statuses: INVALID; of the job: UNSUPPORTED, READ_ONLY, NO_SPACE, OS, CORRUPT; LIMIT where there are
 * too many snapshots. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_snapshot_create_job_new(struct platter_job **out,
                                    const struct platter_image *image,
                                    const char *name,
                                    uint32_t flags,
                                    struct platter_error **err);

/**
 * Makes a job that gives `image`, which must be writable, the contents and the virtual size of the
 * internal snapshot of that ID, or else of that name. Its report lists the snapshots. Cancelled, or past
 * its deadline, the job leaves the image as it was, or with the snapshot's contents; then the next open
 * for writing counts its references again. The job keeps the image alive. `*out` belongs to the caller,
 * who frees it with `platter_job_free()`. `flags` must be 0.
 *
 * Statuses: INVALID; of the job: NOT_FOUND, UNSUPPORTED, READ_ONLY, NO_SPACE, OS, CORRUPT. Threads:
 * any. Since 0.1.
 *
 * # Safety
 * `snapshot` is NULL or NUL-terminated.
 */
int platter_snapshot_apply_job_new(struct platter_job **out,
                                   const struct platter_image *image,
                                   const char *snapshot,
                                   uint32_t flags,
                                   struct platter_error **err);

/**
 * Makes a job that deletes the first internal snapshot of that name from `image`, which must be
 * writable. Its report lists the snapshots that remain. Cancelled, or past its deadline, the job leaves the
 * image as it was, or without the snapshot; then the next open for writing counts its references
 * again. The job keeps the image alive. `*out` belongs to the caller, who frees it with `platter_job_free()`. `flags` must be 0.
 *
 * Statuses: as `platter_snapshot_apply_job_new()`. Threads: any. Since 0.1.
 *
 * # Safety
 * `name` is NULL or NUL-terminated.
 */
int platter_snapshot_delete_job_new(struct platter_job **out,
                                    const struct platter_image *image,
                                    const char *name,
                                    uint32_t flags,
                                    struct platter_error **err);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PLATTER_H */
