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
 * Stage of an error: none that programs distinguish.
 */
#define PLATTER_STAGE_OTHER 0

/**
 * Stage of an error: looking up where guest bytes are stored, in a comparison.
 */
#define PLATTER_STAGE_BLOCK_STATUS 1

/**
 * Stage of an error: reading guest bytes, in a comparison.
 */
#define PLATTER_STAGE_READ 2

/**
 * Stage of an error: opening a local file or device itself, before anything is read from it.
 */
#define PLATTER_STAGE_OPEN 3

/**
 * Stage of an error: comparing the contents of the children of a filter, which must be the same but are not, in a
 * comparison.
 */
#define PLATTER_STAGE_VERIFY 4

/**
 * What `platter_error_offset()` returns if no offset is known.
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
 * The named object, or the entry at that index, does not exist.
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
 * A limit of the open policy or of the format was exceeded.
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
 * A bug in this library; the object in which it occurred refuses further use.
 */
#define PLATTER_STATUS_INTERNAL -10017

/**
 * The major version.
 */
#define PLATTER_VERSION_MAJOR 0

/**
 * The minor version.
 */
#define PLATTER_VERSION_MINOR 1

/**
 * The patch version.
 */
#define PLATTER_VERSION_PATCH 0

/**
 * The version of this header as one number: major × 1000000 + minor × 1000 + patch.
 */
#define PLATTER_VERSION_NUMBER 1000

/**
 * Log level: failed requests of queues and of a server's clients, whose message no caller receives.
 */
#define PLATTER_LOG_ERROR 1

/**
 * Log level: also warnings of jobs, and clients of a server that violate the protocol or are dropped.
 */
#define PLATTER_LOG_WARNING 2

/**
 * Log level: also images that are opened, and jobs that begin and end.
 */
#define PLATTER_LOG_INFO 3

/**
 * Log level: also calls that fail, with the message that the caller receives.
 */
#define PLATTER_LOG_DEBUG 4

/**
 * Log level: also trace events that `platter_trace_switch()` has switched on.
 */
#define PLATTER_LOG_TRACE 5

/**
 * Flag of `platter_size_parse()`: the text is the size of an image, and messages say so.
 */
#define PLATTER_SIZE_IMAGE 1

/**
 * Kind of driver: an image format.
 */
#define PLATTER_DRIVER_FORMAT 1

/**
 * Kind of driver: a protocol, by which image files are accessed.
 */
#define PLATTER_DRIVER_PROTOCOL 2

/**
 * Kind of driver: a filter, which is layered on other nodes: `driver=throttle,file.driver=…`.
 */
#define PLATTER_DRIVER_FILTER 3

/**
 * Feature: new images can be created.
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
 * Feature: the size of an image can be measured before it is created.
 */
#define PLATTER_FEATURE_MEASURE 1024

/**
 * Feature: encryption.
 */
#define PLATTER_FEATURE_ENCRYPT 2048

/**
 * Operation: creating an image.
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
 * Property of an option: each `*` in its key stands for an index into a list, counted from 0.
 */
#define PLATTER_OPTION_PROPERTY_LIST 2

/**
 * Property of an option for opening: nodes of every driver accept it.
 */
#define PLATTER_OPTION_PROPERTY_COMMON 4

/**
 * Property of an option for opening: it determines what is read, and is therefore part of the name of the image, see
 * `platter_image_filename()`. The others determine how that is opened.
 */
#define PLATTER_OPTION_PROPERTY_SELECTS 8

/**
 * Property of a child: a node cannot be described without it.
 */
#define PLATTER_CHILD_REQUIRED 1

/**
 * Property of a child: it is a list of children: `children.0`, `children.1`…
 */
#define PLATTER_CHILD_LIST 2

/**
 * Property of a child: it is an image, whose contents show its format if none is named.
 */
#define PLATTER_CHILD_IMAGE 4

/**
 * Flag of setters that take the name of a format or of a compression: the setter does not refuse an unknown name. It
 * is refused when it is used, with an error that says for what.
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
 * Flag of calls that open: open for writing; without it the image is read-only.
 */
#define PLATTER_OPEN_WRITE 1

/**
 * Flag of calls that open: take no locks that exclude others. Only for read-only opens.
 */
#define PLATTER_OPEN_FORCE_SHARE 2

/**
 * Flag of calls that open: do not open the backing chain.
 */
#define PLATTER_OPEN_NO_BACKING 4

/**
 * Flag of calls that open: only metadata is needed; the data file and the backing chain are not opened.
 */
#define PLATTER_OPEN_METADATA_ONLY 8

/**
 * Flag of calls that open: open for a check, even if tables are damaged, where that is possible.
 */
#define PLATTER_OPEN_FOR_CHECK 16

/**
 * Flag of calls that open: keep everything else from writing in the meantime, even if the format is raw.
 */
#define PLATTER_OPEN_DENY_WRITERS 32

/**
 * Preset: no file that an image names is opened, and formats are guessed for read-only opens only. For images that
 * others made, and the default of calls without a policy.
 */
#define PLATTER_POLICY_STRICT 0

/**
 * Preset: files that an image names are opened, and formats are guessed. This is what the command-line tools allow.
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
 * Limit: number of images in a chain.
 */
#define PLATTER_LIMIT_CHAIN_DEPTH 1

/**
 * Limit: virtual size in bytes.
 */
#define PLATTER_LIMIT_VIRTUAL_SIZE 2

/**
 * Limit: size in bytes of a table that is loaded at once.
 */
#define PLATTER_LIMIT_TABLE_BYTES 3

/**
 * Limit: memory in bytes for the metadata cache of one image.
 */
#define PLATTER_LIMIT_CACHE_BYTES 4

/**
 * Limit: number of bytes that one compressed unit (cluster, grain, chunk) may decode to.
 */
#define PLATTER_LIMIT_DECOMPRESSED_BYTES 5

/**
 * Limit: number of key derivation iterations that a key slot may require.
 */
#define PLATTER_LIMIT_KEY_ITERATIONS 6

/**
 * Limit: memory in bytes for decompressing a file that is compressed as a whole.
 */
#define PLATTER_LIMIT_DECODER_BYTES 7

/**
 * Limit: factor by which such a file may expand, applied from 1 GiB on.
 */
#define PLATTER_LIMIT_EXPANSION 8

/**
 * Limit: size in bytes of the temporary file for the contents of such a file, not counting holes.
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
 * Default of `PLATTER_LIMIT_KEY_ITERATIONS`, except that `PLATTER_POLICY_PERMISSIVE` has no such limit.
 */
#define PLATTER_LIMIT_KEY_ITERATIONS_DEFAULT 64000000

/**
 * Default of `PLATTER_LIMIT_DECODER_BYTES`.
 */
#define PLATTER_LIMIT_DECODER_BYTES_DEFAULT 268435456

/**
 * Default of `PLATTER_LIMIT_EXPANSION`, except that `PLATTER_POLICY_PERMISSIVE` has no such limit.
 */
#define PLATTER_LIMIT_EXPANSION_DEFAULT 100000

/**
 * Default of `PLATTER_LIMIT_SPOOL_BYTES`.
 */
#define PLATTER_LIMIT_SPOOL_BYTES_DEFAULT 68719476736

/**
 * Role of a file that an image names: it holds the data that the overlay does not.
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
 * Flag of `platter_export_new()`: clients may query which layer of the chain holds what (`qemu:allocation-depth`).
 */
#define PLATTER_EXPORT_ALLOCATION_DEPTH 2

/**
 * Length of a window for `platter_export_set_window()`: up to the end of the image.
 */
#define PLATTER_EXPORT_REST 18446744073709551615ull

/**
 * Flag of `platter_image_write_zeroes()`: the space of the range may be returned to the host.
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
 * Flag of a run in a report of dirty bytes: a bitmap marks it as dirty.
 */
#define PLATTER_EXTENT_DIRTY 32

/**
 * Flag of an extent: its contents are unknown, and reading it is refused, because the backing file that may hold them
 * is not open (`PLATTER_OPEN_NO_BACKING`, `PLATTER_OPEN_METADATA_ONLY`). Such an extent has none of the flags `DATA`,
 * `ZERO` and `PRESENT`: do not skip it as if it were zero.
 */
#define PLATTER_EXTENT_UNKNOWN 64

/**
 * Flag of writes: the data is durable when the call returns.
 */
#define PLATTER_WRITE_FUA 1

/**
 * Flag of `platter_queue_new()`: no descriptor is needed, which makes each request a little cheaper.
 */
#define PLATTER_QUEUE_NO_FD 1

/**
 * Flag of `platter_queue_new()`: use threads for what the calls cannot do at once, even if the kernel could do it.
 */
#define PLATTER_QUEUE_THREADS 2

/**
 * Flag of a request: others follow at once, so this one is not passed to the kernel yet. It is passed on with the next
 * request without this flag, or in `platter_queue_reap()`.
 */
#define PLATTER_REQUEST_MORE 256

/**
 * Flag of `platter_server_mount()`: writes past the end of the image extend it.
 */
#define PLATTER_MOUNT_GROWABLE 1

/**
 * Flag of `platter_server_mount()`: other users may use it too, as far as the permissions of the file allow. It is an
 * error if the system does not let this user give them access.
 */
#define PLATTER_MOUNT_OTHERS 2

/**
 * Flag of `platter_server_mount()`: as `PLATTER_MOUNT_OTHERS` if the system allows that, otherwise as without it.
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
 * Kind of message: something that the user should know, although the work goes on.
 */
#define PLATTER_MESSAGE_WARNING 2

/**
 * Flag of `platter_job_result()`: wait for the end of the job.
 */
#define PLATTER_JOB_WAIT 1

/**
 * State of a job: created, and not run yet.
 */
#define PLATTER_JOB_STATE_NEW 1

/**
 * State of a job: it is running.
 */
#define PLATTER_JOB_STATE_RUNNING 2

/**
 * State of a job: it was started, and is paused, or will be at its next step, until `platter_job_resume()`.
 */
#define PLATTER_JOB_STATE_PAUSED 3

/**
 * State of a job: it succeeded; `platter_job_result()` returns its report.
 */
#define PLATTER_JOB_STATE_DONE 4

/**
 * State of a job: it failed with an error, which `platter_job_result()` returns.
 */
#define PLATTER_JOB_STATE_FAILED 5

/**
 * State of a job: it ended because it was cancelled, or past its deadline.
 */
#define PLATTER_JOB_STATE_CANCELLED 6

/**
 * Kind of report: information about an image.
 */
#define PLATTER_REPORT_INFO 1

/**
 * Kind of report: the consistency of an image.
 */
#define PLATTER_REPORT_CHECK 2

/**
 * Kind of report: where the guest data is stored.
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
 * Kind of report: the guest bytes that a bitmap marks as dirty.
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
 * Flag of `platter_amend_job_new()`: allow overwriting a key slot that is in use, and erasing the last one.
 */
#define PLATTER_AMEND_FORCE 1

/**
 * Flag of `platter_bench_job_new()`: write instead of reading.
 */
#define PLATTER_BENCH_WRITE 1

/**
 * Flag of `platter_bench_job_new()`: do not wait for the requests in flight before a flush.
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
 * Flag of `platter_check_job_new()`: repair everything that can be repaired.
 */
#define PLATTER_CHECK_REPAIR_ALL 2

/**
 * Flag of `platter_check_job_new()`: changes to the image wait until the job has ended.
 */
#define PLATTER_CHECK_HOLD_CHANGES 4

/**
 * Flag of `platter_commit_job_new()`: leave the overlay as it is instead of emptying it.
 */
#define PLATTER_COMMIT_KEEP 1

/**
 * Flag of `platter_compare_job_new()`: allocation and size must match too.
 */
#define PLATTER_COMPARE_STRICT 1

/**
 * Flag of `platter_convert_job_new()`: compress the target's clusters.
 */
#define PLATTER_CONVERT_COMPRESS 1

/**
 * Flag of `platter_convert_job_new()`: write into an existing image.
 */
#define PLATTER_CONVERT_TARGET_EXISTS 2

/**
 * Flag of `platter_convert_job_new()`: the existing target reads as zeroes.
 */
#define PLATTER_CONVERT_TARGET_IS_ZERO 4

/**
 * Flag of `platter_convert_job_new()`: clusters need not be in guest order.
 */
#define PLATTER_CONVERT_OUT_OF_ORDER 8

/**
 * Flag of `platter_convert_job_new()`: offload copying to the host where possible; this is tried anyway.
 */
#define PLATTER_CONVERT_COPY_RANGE 16

/**
 * Flag of `platter_convert_job_new()`: unreadable parts become zeroes, with a warning for each.
 */
#define PLATTER_CONVERT_SALVAGE 32

/**
 * Flag of `platter_convert_job_new()`: copy the persistent dirty bitmaps of the only source; fails if the target
 * cannot have any, or if one is inconsistent.
 */
#define PLATTER_CONVERT_BITMAPS 64

/**
 * Flag of `platter_convert_job_new()`, with `PLATTER_CONVERT_BITMAPS`: skip inconsistent bitmaps, with a warning for
 * each.
 */
#define PLATTER_CONVERT_SKIP_BROKEN_BITMAPS 128

/**
 * Flag of `platter_convert_job_new()`: the target is the path of a directory, which must not exist. It is created, and
 * each layer of the only source becomes an image in it, named after the layer with the target's format as extension,
 * on top of the image of the layer below it. The options of the target apply to each. If the job fails or is
 * cancelled, the directory is removed.
 */
#define PLATTER_CONVERT_CHAIN 256

/**
 * Flag of `platter_convert_job_new()`: overwrite nothing. If a file of the target exists already, the job fails with
 * EXISTS, whatever the file contains; a storage of the program must be empty. Not for an existing target or a stream.
 */
#define PLATTER_CONVERT_EXCLUSIVE 512

/**
 * Number of a conversion: the minimum length in bytes of runs of zeroes that stay sparse; a multiple of 512 up to 16
 * MiB, 0 allocates everything. The default is 4096.
 */
#define PLATTER_CONVERT_SPARSE_SIZE 1

/**
 * Number of a conversion: how many pieces of work run in parallel, 1 to 16. The default depends on the machine.
 */
#define PLATTER_CONVERT_PARALLEL 2

/**
 * Conflict of a conversion: none, everything is compatible.
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
 * Flag of `platter_create_job_new()`: overwrite nothing. If a file of the new image exists already, the job fails with
 * EXISTS, whatever the file contains; a storage of the program must be empty.
 */
#define PLATTER_CREATE_EXCLUSIVE 1

/**
 * Number of a copy: block size in bytes, 1 to 2147483647. The default is 512.
 */
#define PLATTER_DD_BLOCK_SIZE 1

/**
 * Number of a copy: maximum number of blocks to copy. The default is all.
 */
#define PLATTER_DD_COUNT 2

/**
 * Number of a copy: number of blocks to skip at the beginning of the input. The default is 0.
 */
#define PLATTER_DD_SKIP 3

/**
 * Number of a copy: size of the input in bytes; no more is read, and it is an error if a stream ends earlier. By
 * default, the input is read up to its end.
 */
#define PLATTER_DD_INPUT_SIZE 4

/**
 * Number of a copy: size of the output in bytes; what the input does not fill reads as zeroes, and a longer input is
 * an error. The default is the size of what is copied.
 */
#define PLATTER_DD_OUTPUT_SIZE 5

/**
 * Flag of `platter_dd_job_new()`: write into an existing image.
 */
#define PLATTER_DD_OUTPUT_EXISTS 1

/**
 * Flag of `platter_dd_job_new()`: overwrite nothing. If a file of the output exists already, the job fails with
 * EXISTS, whatever the file contains; a storage of the program must be empty. Not for an existing output or a stream.
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
 * Flag of `platter_rebase_job_new()`: change only the name. No backing file is opened, and the guest may see different
 * data.
 */
#define PLATTER_REBASE_NAME_ONLY 1

/**
 * Flag of `platter_rebase_job_new()`: compress the data that is copied.
 */
#define PLATTER_REBASE_COMPRESS 2

/**
 * Flag of `platter_rebase_job_new()`: open the new backing file without locks that exclude others.
 */
#define PLATTER_REBASE_SHARE_BACKING 4

/**
 * Flag of `platter_resize_job_new()`: the size is added to the current one.
 */
#define PLATTER_RESIZE_MORE 1

/**
 * Flag of `platter_resize_job_new()`: the size is subtracted from the current one.
 */
#define PLATTER_RESIZE_LESS 2

/**
 * Flag of `platter_resize_job_new()`: allow the image to shrink, which deletes what is beyond its new end.
 */
#define PLATTER_RESIZE_SHRINK 4

/**
 * Cancels calls that take long, such as an open that derives a key, from another thread or a signal handler, or at a
 * deadline. Calls heed it if it was set on their options (`platter_open_options_set_control()`,
 * `platter_create_set_control()`) or on an image (`platter_image_set_control()`). A job needs none: it can be
 * cancelled by itself.
 */
typedef struct platter_control platter_control;

/**
 * The description of a conversion: what to convert, and how. Functions that use it copy it.
 */
typedef struct platter_convert platter_convert;

/**
 * The description of a new image. Functions that use it copy it.
 */
typedef struct platter_create platter_create;

/**
 * The description of a copy: what to copy, and how. Functions that use it copy it.
 */
typedef struct platter_dd platter_dd;

/**
 * Why a call failed. The caller of the failing call owns it and frees it with `platter_error_free()`; it never
 * changes, so any thread may read it.
 */
typedef struct platter_error platter_error;

/**
 * An image, or a window of it, as a server offers it. Whatever uses it copies it; it keeps its image alive.
 */
typedef struct platter_export platter_export;

/**
 * An open image. Functions that take it as `const` may be called from several threads at once. Jobs
 * and queues that use it keep it alive.
 */
typedef struct platter_image platter_image;

/**
 * Long-running work: created by a `platter_*_job_new()`, run once, then queried for its result. Functions that take it
 * as `const` may be called from any thread while it runs.
 */
typedef struct platter_job platter_job;

/**
 * The named nodes of images that are opened one after another, each with this set in its options
 * (`platter_open_options_set_nodes()`). A node gets its name from `node-name` in a location. No two nodes in the set
 * have the same name. In place of a child, a location can name a node of an image that was opened before
 * (`"file":"NAME"`, `"backing":"NAME"`): the new image then reads through that node, and keeps it open even after the
 * earlier image is closed. A node that may be written to is not shared with another image, and a shared node is not
 * written to. A name is free again once its image is gone.
 */
typedef struct platter_nodes platter_nodes;

/**
 * How an image is opened: format, cache mode, policy, secrets. Functions that use it copy it.
 */
typedef struct platter_open_options platter_open_options;

/**
 * A bag of options: the keys and values of `-o`. Whatever uses it copies it and checks it: an unknown key or an
 * invalid value is refused there.
 */
typedef struct platter_options platter_options;

/**
 * What opening an image may do, and which resources it may use. Functions that use it copy it.
 */
typedef struct platter_policy platter_policy;

/**
 * Requests on an image that complete later, in any order. A queue belongs to one thread at a time; an image may have
 * many queues. A queue keeps its image alive.
 *
 * A request whose bytes are in memory completes within the call that submits it: reads of cached data and of zeroes,
 * and writes to the page cache over bytes that are already allocated. The kernel (io_uring, if it may be used) or
 * threads of the library, which block all signals, do the rest. Overlapping requests are also done in any order: if
 * one must follow the other, wait for the first.
 */
typedef struct platter_queue platter_queue;

/**
 * What an operation found or did. The caller of the function that created it owns it and frees it with
 * `platter_report_free()`; it is independent of its job or image, and stays valid when they are gone. It never
 * changes, so several threads may read it.
 */
typedef struct platter_report platter_report;

/**
 * Receives the secret that a callback is asked for. It lives until the callback returns.
 */
typedef struct platter_secret_answer platter_secret_answer;

/**
 * Secrets by ID. Functions that use them copy them; every copy is wiped when it is freed.
 */
typedef struct platter_secrets platter_secrets;

/**
 * A server that offers images to clients of the NBD protocol, such as QEMU, libnbd, nbdkit and the kernel. Its work is
 * done by threads of the library, which block all signals: one for each client, and a few more that all of them share.
 */
typedef struct platter_server platter_server;

/**
 * Storages of the program, under names that it chooses: open files, tables of callbacks, open images. If such a name
 * is used as the path of an image, of a target, of a backing file, of a data file or of an extent, the storage is used
 * instead of any file with that name: thus a whole chain can be in storages of the program. A name that is not here
 * refers to a file, even if a new image consists of several: their names are in the descriptor of a VMDK. The policy
 * decides about what an image names, whatever storage it is in. Functions that use the set copy it; the storages
 * themselves are shared.
 */
typedef struct platter_storages platter_storages;

/**
 * Receives a line of the log, without newline; `level` is a `PLATTER_LOG_*`. Called from any thread, possibly from
 * several at once; it must not call `platter_log_set()`.
 */
typedef void (*platter_log_fn)(uint32_t level,
                               const char *line,
                               void *user_data);

/**
 * Releases `user_data`; runs exactly once, even if the call that registers it fails.
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
     * Bits of `PLATTER_FEATURE_*`; 0 for a filter: images can do the same with it as without it.
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
     * The value if the option is not given, even one that no help prints; NULL if there is none, if it depends on
     * other options, the size or the image, and for an amendment if the old value stays.
     */
    const char *default_value;
    /**
     * The allowed values, terminated by NULL; NULL if any value of the type is allowed, and if there are many.
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
 * A child that nodes of a driver can have, described by options under its name, such as `file.driver=…`. The library
 * owns it; it lives for ever.
 */
typedef struct platter_child_info {
    /**
     * Size of this struct in the library in use; later versions append members.
     */
    size_t size;
    /**
     * The name, for a list without the indices: `file`, `backing`, `children`.
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
     * The name as recorded in the image.
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
     * 1 if it would be opened for writing, else 0.
     */
    uint32_t writable;
} platter_implicit_file;

/**
 * Callback that decides about a file that an image names and that is to be opened or, alongside a new image, created:
 * returns a `PLATTER_ANSWER_*`, or a negative `PLATTER_STATUS_*` or `-errno` that says why the file is not available,
 * with which the open then fails; `-EPERM`, `-EACCES` and any other value refuse it as `PLATTER_ANSWER_DENY` does.
 * `*fd` is used only with `PLATTER_ANSWER_FD`: a descriptor for reading, and also for writing if `file` says so.
 * Called on the thread that opens, and on several at once if several open with this policy.
 */
typedef int (*platter_implicit_fn)(const struct platter_implicit_file *file,
                                   int *fd,
                                   void *user_data);

/**
 * A product, and what it requires of its images. The library owns it; it lives for ever.
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
     * The name of the product, for display.
     */
    const char *product;
    /**
     * The format of its images.
     */
    const char *format;
    /**
     * The creation options that they need, as `key=value,…`; may be empty.
     */
    const char *options;
    /**
     * What else users have to know, one sentence each, joined by newlines; may be empty.
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
     * The package that contains the image, `ova`; empty if the file is the image itself.
     */
    const char *package;
} platter_profile_info;

/**
 * Callback that is asked for the secret `id` and sets it with `platter_secret_answer_set()`; if it does not, there is
 * no such secret. Called on the thread that opens or creates, and on several at once if several do so.
 */
typedef void (*platter_secret_fn)(struct platter_secret_answer *answer,
                                  const char *id,
                                  void *user_data);

/**
 * A storage of the program, which holds an image. Members that are not needed, and `reserved`, are NULL.
 *
 * Each callback returns 0, or a negative `PLATTER_STATUS_*` or `-errno`. They are called on any thread that uses the
 * image, and on several at once.
 */
typedef struct platter_storage_ops {
    /**
     * Fills all of `buf` from `offset` on; the range is within the size. Required.
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
     * Writes all of `buf` at `offset`; the range extends past the end, which then moves, only if `set_size` is given.
     * NULL makes the storage read-only.
     */
    int (*write)(const void *buf,
                 size_t len,
                 uint64_t offset,
                 void *user_data);
    /**
     * Makes all completed writes durable. Required if `write` is given. Once it has failed, every later flush of the
     * image fails without another call, as what was lost stays lost.
     */
    int (*flush)(void *user_data);
    /**
     * Sets the size in bytes; if the storage grows, the new part reads as zeroes. NULL if the size is fixed.
     */
    int (*set_size)(uint64_t size,
                    void *user_data);
    /**
     * Makes a range read as zeroes; `flags` are bits of `PLATTER_ZERO_*`. If it returns `PLATTER_STATUS_UNSUPPORTED`,
     * it has changed nothing. If NULL, zero bytes are written.
     */
    int (*write_zeroes)(uint64_t offset,
                        uint64_t len,
                        uint32_t flags,
                        void *user_data);
    /**
     * Deallocates a range; what it reads as afterwards is undefined. NULL if that is not possible.
     */
    int (*discard)(uint64_t offset,
                   uint64_t len,
                   void *user_data);
    /**
     * Describes the first run at `offset`, at most `len` bytes: stores its length, which is not 0, and bits of
     * `PLATTER_EXTENT_DATA` (it occupies space) and `PLATTER_EXTENT_ZERO` (it reads as zeroes). NULL if everything is
     * data.
     */
    int (*extent)(uint64_t offset,
                  uint64_t len,
                  uint64_t *run,
                  uint32_t *flags,
                  void *user_data);
    /**
     * Says why a callback failed, in the program's own words: called with what the callback returned, on the same
     * thread and before any other callback on it. Returns one line of UTF-8, which is read before the next callback on
     * the thread, or NULL for none. NULL if nothing more is known than the code.
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
     * Offset of its first byte in the file of its layer, if `PLATTER_EXTENT_HOST_OFFSET` is set.
     */
    uint64_t host_offset;
    /**
     * The layer that determines the contents: 0 is the image itself, 1 its backing file, and so on.
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
 * The result of a request. The caller owns it.
 */
typedef struct platter_completion {
    /**
     * The `user_data` with which the request was submitted.
     */
    void *user_data;
    /**
     * Bytes read, written, zeroed or discarded: all that were requested, or 0 after a failure.
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
 * The limits on what a server spends on its clients. `platter_server_limits_defaults()` fills them in; the caller owns
 * the structure.
 */
typedef struct platter_server_limits {
    /**
     * Maximum number of concurrent clients; further ones wait until one leaves.
     */
    uint64_t clients;
    /**
     * Maximum number of bytes in transit between clients and images, over all clients.
     */
    uint64_t memory;
    /**
     * Timeout for the handshake in milliseconds; 0 for no limit.
     */
    uint64_t handshake_ms;
    /**
     * How many milliseconds a client that is to be disconnected, because the server is drained, its export is removed,
     * or it has ended its requests, may go without accepting any of the replies that wait for it. 0 is the default.
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
     * Its offset in the image.
     */
    uint64_t offset;
    /**
     * Clients that have selected it.
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
     * Clients that are connected.
     */
    uint64_t clients;
    /**
     * Clients that have ever been connected.
     */
    uint64_t accepted;
    /**
     * Requests received.
     */
    uint64_t requests;
    /**
     * Requests answered with an error.
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
     * Bytes in transit now.
     */
    uint64_t memory;
    /**
     * Maximum number of bytes in transit so far.
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
     * Amount done so far, in bytes of guest data moved or in the unit of the job.
     */
    uint64_t done;
    /**
     * The total: an estimate at first, exact at the end; 0 until anything is known. A job that has succeeded has done
     * all of it, and the total is at least 1.
     */
    uint64_t total;
    /**
     * 0.
     */
    uint64_t reserved[2];
} platter_progress;

/**
 * Receives progress, at most every 100 ms or 1 %, and once at the end; a non-zero result cancels the job. Called on
 * the thread that runs the job. It must not free the job.
 */
typedef int (*platter_progress_fn)(const struct platter_progress *progress,
                                   void *user_data);

/**
 * A message from a job. The library owns it; it lives until the callback returns.
 */
typedef struct platter_message {
    /**
     * Size of this struct in the library in use; later versions append members.
     */
    size_t size;
    /**
     * UTF-8 without the final newline: one line, sometimes more for a warning.
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
 * Receives `length` bytes of a report, which live until the callback returns and end anywhere, even within a
 * character. A non-zero result ends the call with CANCELLED. It must not free the report.
 */
typedef int (*platter_report_write_fn)(const char *bytes,
                                       size_t length,
                                       void *user_data);

/**
 * The requests that `platter_bench_job_new()` sends. The caller owns it; `platter_bench_defaults()` fills it.
 */
typedef struct platter_bench {
    /**
     * Total number of requests, by default 75000.
     */
    uint64_t count;
    /**
     * Number of requests in flight at a time, by default 64.
     */
    uint64_t depth;
    /**
     * Bytes of each request, by default 4096.
     */
    uint64_t buffer_size;
    /**
     * Guest offset of the first request, by default 0.
     */
    uint64_t offset;
    /**
     * Distance from the offset of one request to that of the next, which starts over at the end of the image. 0 stands
     * for `buffer_size`.
     */
    uint64_t step;
    /**
     * Flush whenever the number of requests left is a multiple of this; by default 0, for never. Not below `depth`,
     * and only for writes.
     */
    uint64_t flush_interval;
    /**
     * The byte to write, 0 to 255, by default 0.
     */
    uint32_t pattern;
    /**
     * 0.
     */
    uint32_t reserved[9];
} platter_bench;

/**
 * Receives a run of a map on the thread that runs the job. `filename` (UTF-8) is the file of the layer that determines
 * the contents, the one to which `host_offset` refers: the external data file if the layer has one; NULL if it is not
 * known. Both live until the callback returns. A non-zero result ends the job with CANCELLED. It must not free the
 * job.
 */
typedef int (*platter_extent_fn)(const struct platter_extent *extent,
                                 const char *filename,
                                 void *user_data);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Returns the status, a `PLATTER_STATUS_*`; 0 for NULL.
 *
 * Threads: any. Since 0.1.
 */
int platter_error_status(const struct platter_error *error);

/**
 * Returns the errno of the system call that failed, or else the one that fits the status best; 0 for NULL.
 *
 * Threads: any. Since 0.1.
 */
int platter_error_errno(const struct platter_error *error);

/**
 * Returns one line of UTF-8 for the user that names the file and the reason, with the causes after colons and without
 * a newline; control characters in names are escaped. The string lives as long as the error. `""` for NULL.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_error_message(const struct platter_error *error);

/**
 * Returns a further line for the user: a remedy, or a question to consider. `index` counts from 0; NULL past the last
 * one. The string lives as long as the error. NULL for NULL.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_error_hint(const struct platter_error *error,
                               size_t index);

/**
 * Returns the byte offset at which the file is damaged; `PLATTER_OFFSET_UNKNOWN` if that is not known, and for NULL.
 *
 * Threads: any. Since 0.1.
 */
uint64_t platter_error_offset(const struct platter_error *error);

/**
 * Returns the name of the file that could not be read, written or synced, as it was opened: that of the image, of a
 * data file, of an extent, or of a layer below; NULL if no I/O failed, and for NULL. The message names it too, except
 * where it uses the wording of `qemu-img`. The string lives as long as the error.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_error_file(const struct platter_error *error);

/**
 * Returns what the operation was doing when it failed, a `PLATTER_STAGE_*`; `PLATTER_STAGE_OTHER` for NULL.
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
 * Returns the name of a status without its prefix: `"NOT_FOUND"`; `"OK"` for 0, NULL for an unknown one. The string
 * lives forever.
 *
 * Threads: any; safe in a signal handler. Since 0.1.
 */
const char *platter_status_name(int status);

/**
 * Returns the errno that fits a status best: `ENOSPC` for `PLATTER_STATUS_NO_SPACE`; 0 for 0, `EIO` for an unknown
 * one. `platter_error_errno()` is exact if a system call failed.
 *
 * Threads: any; safe in a signal handler. Since 0.1.
 */
int platter_status_errno(int status);

/**
 * Frees a string that a function of this library returned to the caller (a `char **out`). NULL does nothing.
 *
 * Threads: any. Since 0.1.
 *
 * # Safety
 * The string is not used afterwards.
 */
void platter_free(void *string);

/**
 * Returns the version of the library in use, in the form of `PLATTER_VERSION_NUMBER`.
 *
 * Threads: any. Since 0.1.
 */
uint32_t platter_version_number(void);

/**
 * Returns the version of the library in use, as text: `"0.1.0"`. Lives for ever.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_version_string(void);

/**
 * Sends log lines of `level` and more severe ones to `log_fn`, for the whole process. NULL for `log_fn` restores the
 * default: silence, or standard error at the level that the environment variable `PLATTER_LOG` names (`error`,
 * `warning`, `info`, `debug` or `trace`, which switches all trace events on).
 *
 * `free_fn` (may be NULL) is called once with `user_data`: when another function is set and the last call of this one
 * has returned, or at once if this call fails. `flags` must be 0.
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
 * Switches the trace events whose names match `pattern` on (`on` is 1) or off (0), for the whole process; all are off
 * initially, and one that is off costs next to nothing. `*` matches any characters, `?` exactly one. `*out` is the
 * number of events that match, which may be 0. Events are sent as lines `NAME KEY=VALUE ...` to the function of
 * `platter_log_set()` if that receives `PLATTER_LOG_TRACE`. Names and keys may change with every release. `flags` must
 * be 0.
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
 * Returns the name of trace event `index`, counted from 0; NULL past the last one. Lives as long as the library.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_trace_event(size_t index);

/**
 * Parses a size as users type it: digits, a fraction if a suffix follows, and an optional suffix `k`, `M`, `G`, `T`,
 * `P` or `E` (powers of 1024) or `b`. `*out` is in bytes, not rounded. `flags` is 0 or `PLATTER_SIZE_IMAGE`.
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
 * Formats a number of bytes as users read it: three significant digits and a unit, `"1.5 KiB"`. `*out` belongs to the
 * caller, who frees it with `platter_free()`. `flags` must be 0.
 *
 * Statuses: INVALID, OS where there is no memory. Threads: any. Since 0.1.
 */
int platter_size_format(char **out,
                        uint64_t bytes,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Creates a control. The caller frees it with `platter_control_free()`; options and images on which it was set, and
 * what was created with those options, continue to heed it. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_control_new(struct platter_control **out,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Makes the calls that heed the control fail with CANCELLED, those in progress and all later ones. What they have done
 * by then is undone as after a failure. This only stores an atomic; a call that computes ends within milliseconds, one
 * that waits for a file or a callback when that returns. NULL does nothing.
 *
 * Threads: any; safe in a signal handler. Since 0.1.
 */
void platter_control_cancel(const struct platter_control *control);

/**
 * Makes the calls that heed the control fail with CANCELLED (and `ETIMEDOUT` as the error's errno) once `milliseconds`
 * from now have passed; 0 removes the deadline, even if it has passed. `flags` must be 0.
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
 * Returns the driver at `index`, counted from 0: formats by name, then protocols by name, then filters by name. `*out`
 * lives for ever. `flags` must be 0.
 *
 * Statuses: NOT_FOUND past the last one, INVALID. Threads: any. Since 0.1.
 */
int platter_driver_describe(const struct platter_driver_info **out,
                            size_t index,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Finds the driver with that name, or with another name that users have for it (`vhd` for `vpc`); `kind` is a
 * `PLATTER_DRIVER_*`, or 0 for any. `*out` lives for ever. `flags` must be 0.
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
 * Returns the option at `index`, counted from 0 and sorted by name, of `driver` for an operation
 * (`PLATTER_OPERATION_*`): formats have options for all three, protocols for creating and opening, filters for
 * opening. Those for opening are what `platter_open_options_set_option()` and `driver=…` strings accept, including
 * those that every driver accepts; children have options of their own, see `platter_child_describe()`. An open image
 * keeps its options: to change one, open the image again. `*out` lives for ever. `flags` must be 0.
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
 * Returns the child at `index`, counted from 0 and in the driver's order, that nodes of `driver` can have. Protocols
 * have none. `*out` lives for ever. `flags` must be 0.
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
 * Returns the help that `-o help` prints: one line per option, with newlines, under a title. For
 * `PLATTER_OPERATION_CREATE`, `target` (may be NULL) is where the image would be created: the options of its protocol
 * are listed too. `*out` belongs to the caller, who frees it with `platter_free()`. `flags` is at most one
 * `PLATTER_LOCATION_*`, for the target.
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
 * Creates an empty set. The caller frees it with `platter_nodes_free()`; options on which it was set, and images that
 * were opened with them, continue to use it. `flags` must be 0.
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
 * Creates options with the defaults: the format is guessed if the policy allows it, cache mode `writeback`, the strict
 * policy. The caller frees them with `platter_open_options_free()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_open_options_new(struct platter_open_options **out,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Sets the format; if NULL, it is guessed if the policy allows that. `flags` are 0 or `PLATTER_NAME_UNCHECKED`.
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
 * Sets an option of the image, by the key that it has in a `driver=…` string: `encrypt.key-secret`, `lazy-refcounts`,
 * `file.locking`, `backing.driver`. Options can thus be combined with a path, a descriptor or a storage, and nothing
 * is escaped. The value is taken verbatim, `on` or `off` for a boolean; an empty `backing` means no backing file at
 * all. A later value replaces an earlier one; NULL removes it. Opening refuses keys that the image does not have, that
 * the location has too, or that begin with `file.` if the file is already open. `platter_option_describe()` lists the
 * keys with `PLATTER_OPERATION_OPEN`. If several images are opened with these options, they apply to each of them, but
 * to no image that one of them names. `flags` must be 0.
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
 * Sets all options of the image at once, as `platter_open_options_set_option()` does for one: those of a bag, in which
 * numbers and booleans are set by functions of their own. A copy is kept, which replaces those set before; NULL stands
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
 * Sets the secrets to which options such as `key-secret` in a location refer by ID; a copy is kept, which replaces
 * those set before. NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_open_options_set_secrets(struct platter_open_options *options,
                                     const struct platter_secrets *secrets,
                                     uint32_t flags,
                                     struct platter_error **err);

/**
 * Sets the set of named nodes for images that are opened one after the other: node names are registered in the set,
 * and can refer to nodes of images that were opened with it before. The set itself is used, not a copy. NULL, the
 * default, stands for a separate set for each image, or for each job that opens several. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_open_options_set_nodes(struct platter_open_options *options,
                                   const struct platter_nodes *nodes,
                                   uint32_t flags,
                                   struct platter_error **err);

/**
 * Sets storages that are used instead of files with the same names, for the image and for whatever it names, as far as
 * the policy allows. A copy of the set is kept, which replaces the previous one. NULL stands for none. `flags` must be
 * 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_open_options_set_storages(struct platter_open_options *options,
                                      const struct platter_storages *storages,
                                      uint32_t flags,
                                      struct platter_error **err);

/**
 * Sets the compression level for compressed writes to the image: 1 to 12 for zlib, 22 and less, including negative
 * levels, for zstd. A level that no compression method has is refused at once, one that the compression method of the
 * image does not have when the image is opened; formats without compression accept any. Without this call, the level
 * is the format's default. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_open_options_set_compression_level(struct platter_open_options *options,
                                               int32_t level,
                                               uint32_t flags,
                                               struct platter_error **err);

/**
 * Opens the contents of a compressed file: the file at the location is compressed, by `kind` (`xz`, `gzip`, `bzip2`,
 * `zstd`, `lz4`), or with `auto` by the method that its beginning shows. NULL, the default, takes files as they are.
 * What is opened this way is read-only; a conversion of a raw disk reads it in one pass. Everything else decompresses
 * parts of the file as they are read, if the file tells which part holds what, and caches the most recent ones within
 * `PLATTER_LIMIT_DECODER_BYTES`; otherwise it decompresses the file into a temporary file without a name, in the
 * directory given by TMPDIR (by default `/var/tmp`), for which the policy has `PLATTER_LIMIT_SPOOL_BYTES`. `flags` are
 * 0 or `PLATTER_NAME_UNCHECKED`.
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
 * Sets whether discards reach the host: 0 leaves the space allocated, 1 releases it, whatever the location says.
 * `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_open_options_set_discard(struct platter_open_options *options,
                                     uint32_t discard,
                                     uint32_t flags,
                                     struct platter_error **err);

/**
 * Sets whether writes are scanned for zeroes, which then take no space as far as the format supports that: `off`,
 * `on`, or `unmap`, which allows them to become holes; NULL for what the location says. `flags` must be 0.
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
 * Sets the control that cancels an open that takes long: deriving a key, reading large tables, or repairing an image
 * that was not closed. The open then fails with CANCELLED and leaves the image as it was. A job that is given these
 * options is cancelled by the control too. NULL stands for none. `flags` must be 0.
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
 * Creates an empty bag. The caller frees it with `platter_options_free()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_options_new(struct platter_options **out,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Adds the entries of a `key=value,key=value` list: `,,` is a literal comma, a bare `key` means `on`, `nokey` means
 * `off`, and a later entry replaces an earlier one. `flags` must be 0.
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
 * Sets `key` to `on` if `value` is 1, and to `off` if it is 0. `flags` must be 0.
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
 * Removes `key` if it is set. `flags` must be 0.
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
 * Returns the value of `key` as it was given; NULL if it is not set, and for NULL. Lives until the bag changes or is
 * freed.
 *
 * Threads: any. Since 0.1.
 *
 * # Safety
 * `key` is NULL or NUL-terminated.
 */
const char *platter_options_get(const struct platter_options *options,
                                const char *key);

/**
 * Returns the key of the entry at `index`, in the order in which they were set; `*out` lives until the bag changes or
 * is freed. `platter_options_get()` returns its value. `flags` must be 0.
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
 * Creates a policy from a preset, a `PLATTER_POLICY_*`. The caller frees it with `platter_policy_free()`. `flags` must
 * be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_policy_new(struct platter_policy **out,
                       uint32_t preset,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Allows `format`; once a format has been named, all others are refused. `flags` must be 0.
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
 * Allows `protocol`, by the name of its driver (`file`, `host_device`…); once one has been named, opening and creating
 * through any other fails with DENIED, no matter who names the file. What the caller has opened itself is not checked:
 * descriptors, including those that a callback of the policy returns, and callback storages. `flags` must be 0.
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
 * Allows names inside images to refer to the server `host`: a name, an IP address, or `*.DOMAIN` for everything below
 * a domain, followed by `:PORT` if only that port is meant (an IPv6 address is then in brackets). Once one has been
 * named, opening what an image names on any other server fails with DENIED, and so does following a redirect of such a
 * server to another one; local sockets have no host and are refused too. Hosts are compared as they are written. What
 * the caller names itself is not checked. This allows nothing that `platter_policy_set_implicit()` and
 * `platter_policy_set_implicit_protocols()` do not. `flags` must be 0.
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
 * Sets when the format may be guessed: a `PLATTER_PROBING_*`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_policy_set_probing(struct platter_policy *policy,
                               uint32_t probing,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Sets whether files that an image names (backing file, data file, extents) may be opened: a `PLATTER_IMPLICIT_*`.
 * Replaces any directories and callback set before. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_policy_set_implicit(struct platter_policy *policy,
                                uint32_t mode,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * Allows files that an image names if their real path is below `directory`, or below one of earlier calls; all others
 * are refused. `flags` must be 0.
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
 * Calls `implicit_fn` for each file that an image names. `free_fn` (may be NULL) is called once with `user_data`: when
 * nothing uses the callback any more, or at once if this call fails. `flags` must be 0.
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
 * Sets whether (1) or not (0) the name of a backing file inside an image may be `json:{…}` or `protocol:…` rather than
 * a plain file name; names of data files and extents are always plain. Whatever the policy, the target of such a name
 * must be a regular file or a block device, must not be part of procfs or the like, and must not be reached through
 * the open descriptors of a process (`/dev/fd/N`); otherwise opening fails with INVALID. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_policy_set_implicit_protocols(struct platter_policy *policy,
                                          uint32_t allowed,
                                          uint32_t flags,
                                          struct platter_error **err);

/**
 * Sets whether (1) or not (0) the format is also guessed from the end of a file if nothing is found at its beginning:
 * a fixed-size VHD has only a footer. Off in both presets: a guest that can write to the end of its raw disk can make
 * it look like such an image. While it is on, what looks like a raw disk is not opened for writing unless its format
 * is named (DENIED). `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_policy_set_probe_footers(struct platter_policy *policy,
                                     uint32_t on,
                                     uint32_t flags,
                                     struct platter_error **err);

/**
 * Sets a limit, a `PLATTER_LIMIT_*`; what exceeds it fails with LIMIT. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_policy_set_limit(struct platter_policy *policy,
                             uint32_t limit,
                             uint64_t value,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Returns a limit, a `PLATTER_LIMIT_*`, as it is set; for a new policy, the default of its preset. No limit is
 * UINT64_MAX, or UINT32_MAX for `PLATTER_LIMIT_CHAIN_DEPTH`. `flags` must be 0.
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
 * Returns the profile at `index`, counted from 0 and sorted by name: a product with the format, the options and the
 * sizes of the images that it accepts, for `platter_convert_set_profile()` and `platter_inspect_for_profile()`. `*out`
 * lives for ever. `flags` must be 0.
 *
 * Statuses: NOT_FOUND past the last one, INVALID. Threads: any. Since 0.1.
 */
int platter_profile_describe(const struct platter_profile_info **out,
                             size_t index,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Creates an empty set of secrets. The caller frees it with `platter_secrets_free()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_secrets_new(struct platter_secrets **out,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Adds the secret `id`: the `len` bytes at `data`, verbatim. They are copied; the copy is wiped when it is freed, the
 * caller's bytes are left alone. `flags` must be 0.
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
 * Adds the secret `id` as described by the properties of a secret object. `properties` is an array of alternating keys
 * and values, terminated by NULL: `data` or `file` (a path), `format` (`raw` or `base64`), and `keyid` with `iv` if
 * the bytes are encrypted with AES-256-CBC under another secret of this set. A file is read at once. Messages repeat
 * no value except the name of a file. `flags` must be 0.
 *
 * Statuses: INVALID, EXISTS, LIMIT, NEEDS_SECRET, OS, NOT_FOUND. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `id` is NULL or NUL-terminated; `properties` is an array of an even number of NUL-terminated strings, followed by
 * NULL.
 */
int platter_secrets_define(struct platter_secrets *secrets,
                           const char *id,
                           const char *const *properties,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * Adds the throttle group `id`, to which the option `throttle-group` of the filter `throttle` refers: everything that
 * is opened with these secrets, or with a copy of them, shares it. `properties` is an array of alternating keys and
 * values, terminated by NULL: `limits.bps-total`, `limits.bps-read` and `limits.bps-write` in bytes per second,
 * `limits.iops-total`, `limits.iops-read` and `limits.iops-write` in requests per second; each with `-max` appended
 * for bursts, and with `-max-length` for their length in seconds; `limits.iops-size` is the number of bytes that count
 * as one request. `x-` may be used instead of `limits.`. Groups and secrets share one set of IDs. `flags` must be 0.
 *
 * Statuses: INVALID, EXISTS. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `id` is NULL or NUL-terminated; `properties` is an array of an even number of NUL-terminated strings, followed by
 * NULL.
 */
int platter_secrets_add_throttle_group(struct platter_secrets *secrets,
                                       const char *id,
                                       const char *const *properties,
                                       uint32_t flags,
                                       struct platter_error **err);

/**
 * Adds the TLS credentials `id`, which consist of certificates; an option such as `tls-creds` refers to them.
 * `properties` is an array of alternating keys and values, terminated by NULL. `endpoint` is `client` (the default) or
 * `server`. `dir` is a directory with `ca-cert.pem`, `ca-crl.pem` if there is one, and `server-cert.pem` with
 * `server-key.pem`, or `client-cert.pem` with `client-key.pem` if there are both. Instead of it, `ca-cert`, `ca-crl`,
 * `cert` and `key` are the same as PEM text. `passwordid` names the secret of this set that decrypts a key encrypted
 * with PKCS #8. `verify-peer` (`on`, the default, or `off`): a client trusts only a server whose certificate was
 * issued by the authority for the name requested, a server requires a certificate from its clients. `sanity-check`
 * (`on` or `off`): refuse at once what every peer would refuse. `priority` selects versions of TLS, as in
 * `NORMAL:-VERS-TLS1.3`. Everything is read at once and copied; the copies of keys are wiped when they are freed.
 * `flags` must be 0.
 *
 * Statuses: INVALID, EXISTS, LIMIT, NEEDS_SECRET, WRONG_SECRET, NOT_FOUND, UNSUPPORTED, OS. Threads: one at a time.
 * Since 0.1.
 *
 * # Safety
 * `id` is NULL or NUL-terminated; `properties` is an array of an even number of NUL-terminated strings, followed by
 * NULL.
 */
int platter_secrets_add_tls_x509(struct platter_secrets *secrets,
                                 const char *id,
                                 const char *const *properties,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Adds the TLS credentials `id`, which consist of keys known to both ends. `properties` is an array of alternating
 * keys and values, terminated by NULL. `endpoint` is `client` (the default) or `server`. `dir` is a directory with
 * `keys.psk`; instead of it, `keys` is the text of that file: lines of a name, a colon, and the key in hexadecimal
 * digits. `username` says whose key a client has, by default `qemu`. `priority` selects versions of TLS. Requires
 * libssl.so.3, which this call loads. Everything is read at once and copied; the copies of keys are wiped when they
 * are freed. `flags` must be 0.
 *
 * Statuses: INVALID, EXISTS, LIMIT, NOT_FOUND, UNSUPPORTED (also where that library is missing), OS. Threads: one at
 * a time. Since 0.1.
 *
 * # Safety
 * `id` is NULL or NUL-terminated; `properties` is an array of an even number of NUL-terminated strings, followed by
 * NULL.
 */
int platter_secrets_add_tls_psk(struct platter_secrets *secrets,
                                const char *id,
                                const char *const *properties,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * Adds the rules `id`, which determine which clients are admitted with TLS, by the name that they have proved to have:
 * the distinguished name of their certificate, such as `C=DE,O=Example,CN=client`, or the name of their key.
 * `properties` is an array of alternating keys and values, terminated by NULL: `identity`, the only name that is
 * admitted; or `policy` (`deny`, the default, or `allow`) with rules from `rules.0` on, of which the first that
 * matches decides: `rules.N.match`, `rules.N.policy` and `rules.N.format`, which is `exact`, the default, or `glob`.
 * `flags` must be 0.
 *
 * Statuses: INVALID, EXISTS. Threads: one at a time. Since 0.1.
 *
 * # Safety
 * `id` is NULL or NUL-terminated; `properties` is an array of an even number of NUL-terminated strings, followed by
 * NULL.
 */
int platter_secrets_add_authorization(struct platter_secrets *secrets,
                                      const char *id,
                                      const char *const *properties,
                                      uint32_t flags,
                                      struct platter_error **err);

/**
 * Sets the callback that is asked for a secret that was not added, each time it is needed; replaces the one set
 * before. `free_fn` (may be NULL) is called once with `user_data`: when nothing uses the callback any more, or at once
 * if this call fails. `flags` must be 0.
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
 * Sets the secret that a callback was asked for: the `len` bytes at `data`, which are copied; the copy is wiped when
 * it is freed. A later call replaces an earlier one. `flags` must be 0.
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
 * Describes an export of `image`: all of it, under the empty name, which clients get that request no name. `flags` are
 * bits of `PLATTER_EXPORT_*`. `*out` belongs to the caller, who frees it with `platter_export_free()`.
 *
 * Statuses: INVALID, READ_ONLY. Threads: any. Since 0.1.
 */
int platter_export_new(struct platter_export **out,
                       const struct platter_image *image,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Sets the name that clients request: UTF-8, up to 4096 bytes. `flags` must be 0.
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
 * Sets the description that a list of exports shows: UTF-8, up to 4096 bytes; NULL for none. `flags` must be 0.
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
 * Offers `len` bytes of the image from `offset` on instead of all of it; `PLATTER_EXPORT_REST` extends to its end.
 * `flags` must be 0.
 *
 * Statuses: INVALID where the window does not lie in the image. Threads: one at a time. Since 0.1.
 */
int platter_export_set_window(struct platter_export *export_,
                              uint64_t offset,
                              uint64_t len,
                              uint32_t flags,
                              struct platter_error **err);

/**
 * Lets clients read a persistent dirty bitmap of the image, or of the first layer of its chain that has one with that
 * name (`qemu:dirty-bitmap:NAME`). May be called for several bitmaps. `flags` must be 0.
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
 * Returns the size of the export in bytes; 0 for NULL.
 *
 * Threads: any. Since 0.1.
 */
uint64_t platter_export_size(const struct platter_export *export_);

/**
 * Frees a description; servers that use it continue. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The description is not used afterwards.
 */
void platter_export_free(struct platter_export *export_);

/**
 * Opens the image at `location`. `options` may be NULL for the defaults. `flags` are bits of `PLATTER_OPEN_*` and at
 * most one `PLATTER_LOCATION_*`. `*out` belongs to the caller, who closes it with `platter_image_close()`.
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
 * Opens the image in an open file. The descriptor is duplicated: the caller keeps its own, but both share the file's
 * byte locks (images that this process opens exclude each other as if opened by name, even through one descriptor)
 * and, with the cache modes `none` and `directsync`, the flag `O_DIRECT`. `name` (may be NULL) represents the file in
 * messages and reports, and names inside the image are relative to it. `options` and `flags` are as for
 * `platter_image_open()`, without `PLATTER_LOCATION_*`. `*out` belongs to the caller, who closes it with
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
 * Opens the image in a storage of the program. `ops` is copied; `name` (may be NULL) represents the storage in
 * messages and reports. `free_fn` (may be NULL) is called once with `user_data`: when the image is closed and its last
 * job or queue has been freed, or at once if this call fails. `options` and `flags` are as for `platter_image_open()`,
 * without `PLATTER_LOCATION_*`. `*out` belongs to the caller, who closes it with `platter_image_close()`.
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
 * Sets the control that from now on cancels calls with this handle that can take long: those on bitmaps, zeroing,
 * discarding, `platter_image_extent()`, `platter_image_flush()` and `platter_image_close()`. They then fail with
 * CANCELLED; the description of each says what state that leaves. Calls with a buffer of the program are cancelled
 * only while they wait for a server. A sync that the kernel has started cannot be cancelled: if the program must not
 * wait for it, use `platter_queue_flush()`. Jobs and queues on the image have their own means of cancellation. The
 * control may be freed; NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_image_set_control(const struct platter_image *image,
                              const struct platter_control *control,
                              uint32_t flags,
                              struct platter_error **err);

/**
 * Closes an image: writes out cached metadata, makes completed writes durable as the cache mode requires, and releases
 * locks. The handle is gone in any case, even if this reports a failure; data may be lost then. If jobs, queues or
 * images based on it still use the image, it is flushed now, and released with the last of them. If the control of the
 * image cancels the call, it passes what was written to the file without a sync, and leaves the rest to the next open
 * of the image, as after a crash: bitmaps that were recording are inconsistent. NULL does nothing. `flags` must be 0;
 * unknown bits are reported after the image is closed.
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
 * Adds the guest data of an open image as a storage: whatever opens the name reads and writes the disk in the image,
 * and takes it for a raw one unless it specifies another format. The image stays open as long as the set or what
 * copied it uses it, as with a job. Users of the name exclude each other as those of one file do; how the caller uses
 * the image at the same time is up to the caller. `flags` must be 0.
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
 * Returns the virtual size in bytes. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_image_size(uint64_t *out,
                       const struct platter_image *image,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Returns the allocation unit in bytes. `flags` must be 0.
 *
 * Statuses: NOT_FOUND where the format has none, INVALID. Threads: any. Since 0.1.
 */
int platter_image_cluster_size(uint32_t *out,
                               const struct platter_image *image,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Returns the name of the format; NULL for NULL. The string lives as long as the image.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_image_format(const struct platter_image *image);

/**
 * Returns what this image can do, as bits of `PLATTER_FEATURE_*`: the features of its format that this image has too
 * (an image of an older version may have no bitmaps, one with a data file no compressed clusters), whether or not it
 * is open for writing. CREATE, MEASURE and ENCRYPT apply to formats only: see `platter_driver_find()`. `flags` must be
 * 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_image_features(uint32_t *out,
                           const struct platter_image *image,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * Returns where the image was opened from, as it was given, byte for byte; a plain path that begins like a protocol is
 * prefixed with `./`. The string lives as long as the image; NULL for NULL.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_image_filename(const struct platter_image *image);

/**
 * Returns whether writes are refused: 1 if they are, and for NULL; else 0.
 *
 * Threads: any. Since 0.1.
 */
uint32_t platter_image_is_read_only(const struct platter_image *image);

/**
 * Returns what the user should know although the image could be opened: UTF-8, several lines if there is more to say,
 * without the final newline. `index` counts from 0; NULL past the last one, and for NULL. The string lives as long as
 * the image.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_image_warning(const struct platter_image *image,
                                  size_t index);

/**
 * Reads `len` guest bytes at `offset` into `buf`, never fewer: the range must lie within the image. `flags` must be 0.
 *
 * Align buffers of 64 KiB and more to a page (`aligned_alloc(4096, len)`): large blocks from `malloc` start 16 bytes
 * past a page boundary, where some processors copy several times more slowly; and direct I/O can use only aligned
 * buffers as they are.
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
 * Writes `len` bytes of `buf` at `offset`; the range must lie within the image. `flags` is 0 or `PLATTER_WRITE_FUA`.
 * Large buffers are best aligned as for `platter_image_read()`.
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
 * As `platter_image_write()`, from `iovcnt` buffers in turn. A failure may leave the first ones written.
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
 * Discards `len` guest bytes from `offset`, which gives their space back. Whole clusters then read as zeroes, or as
 * the format defines; partial clusters at the ends are left alone. `flags` must be 0.
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
 * Prefetches `len` guest bytes from `offset`, so that reading them soon takes less time: into the page cache, into the
 * memory of an NBD server that offers it (`NBD_CMD_CACHE`), and through the whole chain. Where neither is available,
 * they are read and discarded, which leaves in memory what reading caches there; a `copy-on-read` filter copies them.
 * Data may still be on its way when the call returns. Nothing changes but the time that reading takes. `flags`
 * must be 0.
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
 * Makes all completed writes durable, as the cache mode specifies. `flags` must be 0.
 *
 * Statuses: OS, NO_SPACE, INVALID; data may be lost then. CANCELLED where the control of the image had ended its
 * calls before. Threads: any, several at once. Since 0.1.
 */
int platter_image_flush(const struct platter_image *image,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Returns the longest run of guest bytes of one kind that starts at `offset` and has at most `len` bytes, looked up
 * through the backing chain: the same as a map reports for these bytes. `len` must not be 0, and the range must lie
 * within the image. A run without `PLATTER_EXTENT_ZERO` may still hold zeroes; one with it reads as zeroes. See
 * `PLATTER_EXTENT_UNKNOWN` for images opened without their backing file. `flags` must be 0.
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
 * Creates a queue on `image`. `depth` is the number of requests that run at once and for which space is reserved, at
 * most 65536; 0 stands for 64. More may be submitted; they wait their turn. `flags` are bits of `PLATTER_QUEUE_*`.
 * `*out` belongs to the caller, who frees it with `platter_queue_free()`.
 *
 * Statuses: INVALID, OS. Threads: any. Since 0.1.
 */
int platter_queue_new(struct platter_queue **out,
                      const struct platter_image *image,
                      uint32_t depth,
                      uint32_t flags,
                      struct platter_error **err);

/**
 * Returns an eventfd (non-blocking, close-on-exec) that is readable while completions wait to be reaped, and
 * occasionally a moment longer. `platter_queue_reap()` resets it: do not read or write it. It belongs to the queue and
 * is closed with it. `flags` must be 0.
 *
 * Statuses: INVALID, UNSUPPORTED with `PLATTER_QUEUE_NO_FD`; `*out` is -1 then. Threads: one at a
 * time. Since 0.1.
 */
int platter_queue_fd(int *out,
                     struct platter_queue *queue,
                     uint32_t flags,
                     struct platter_error **err);

/**
 * Submits a read of `len` guest bytes at `offset` into `buf`, which belongs to the library until the completion is
 * reaped. `flags` is 0 or `PLATTER_REQUEST_MORE`. Every failure is reported as a completion; a NULL queue does
 * nothing. Large buffers are best aligned as for `platter_image_read()`.
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
 * As `platter_queue_write()`, from `iovcnt` buffers in turn. `iov` itself is copied. A failure may leave part of the
 * data written.
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
 * Submits a request to discard `len` guest bytes from `offset`, which gives their space back to the host. `flags` are
 * bits of `PLATTER_WRITE_FUA` and `PLATTER_REQUEST_MORE`. Failures and NULL: as `platter_queue_read()`.
 *
 * Statuses of the completion: as `platter_image_discard()`. Threads: one at a time. Since 0.1.
 */
void platter_queue_discard(struct platter_queue *queue,
                           uint64_t offset,
                           uint64_t len,
                           void *user_data,
                           uint32_t flags);

/**
 * Submits a flush: it makes durable what had completed (reaped or not) when this was called, but not what is still in
 * flight. `flags` is 0 or `PLATTER_REQUEST_MORE`. Failures and NULL: as `platter_queue_read()`.
 *
 * Statuses of the completion: as `platter_image_flush()`. Threads: one at a time. Since 0.1.
 */
void platter_queue_flush(struct platter_queue *queue,
                         void *user_data,
                         uint32_t flags);

/**
 * Stores up to `max` completions in `completions` and their number in `*out`. Waits until there are `min` of them, or
 * all that are outstanding if there are fewer, for no longer than `timeout_ms` milliseconds: 0 does not wait, a
 * negative timeout waits for ever. Reaching the timeout is not a failure. Signals do not end the wait. `flags`
 * must be 0.
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
 * Returns the number of requests that were submitted and not yet reaped; 0 for NULL.
 *
 * Threads: one at a time. Since 0.1.
 */
size_t platter_queue_outstanding(struct platter_queue *queue);

/**
 * Frees a queue. Requests that have not begun are not carried out; this waits for those that have, so that the library
 * no longer uses any buffer when it returns. No more completions are delivered. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The queue is not used afterwards.
 */
void platter_queue_free(struct platter_queue *queue);

/**
 * Fills in the default limits of a server: 256 clients, 256 MiB, ten seconds for the handshake, a minute for a client
 * that accepts nothing. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_server_limits_defaults(struct platter_server_limits *out,
                                   uint32_t flags,
                                   struct platter_error **err);

/**
 * Creates a server, as yet without exports and sockets. `limits` may be NULL for the defaults; it is copied. `flags`
 * must be 0. `*out` belongs to the caller, who frees it with `platter_server_free()`.
 *
 * Statuses: INVALID, OS. Threads: any. Since 0.1.
 */
int platter_server_new(struct platter_server **out,
                       const struct platter_server_limits *limits,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Starts offering an export. The description is copied; the server keeps the image alive until it is stopped. A
 * program that uses the image in the meantime sees what clients write, and clients see what it writes. `flags` must be
 * 0.
 *
 * Statuses: EXISTS where there is one of that name, INVALID. Threads: any. Since 0.1.
 */
int platter_server_add_export(const struct platter_server *server,
                              const struct platter_export *export_,
                              uint32_t flags,
                              struct platter_error **err);

/**
 * Stops offering the export `name` (NULL or the empty string is the one without a name): new requests of its clients
 * are refused, and those in progress are carried out and answered, for which this waits up to `timeout_ms`
 * milliseconds (-1 waits forever, except for clients that accept nothing for as long as the limits allow: `stall_ms`);
 * then its clients are disconnected and the image is released, as by `platter_server_stop()`. Other exports are not
 * affected. `flags` must be 0.
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
 * Returns the name of the export at `index`, counted from 0 in the order of their names, as a string of the caller,
 * who frees it with `platter_free()`. `flags` must be 0.
 *
 * Statuses: NOT_FOUND past the last one, OS where there is no memory, INVALID. Threads: any. Since 0.1.
 */
int platter_server_export_name(char **out,
                               const struct platter_server *server,
                               size_t index,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Returns how the export `name` is offered and how many clients use it; NULL or the empty string is the one without a
 * name. `flags` must be 0.
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
 * Requires clients to start TLS before anything else, with the credentials that `secrets` (NULL stands for none) has
 * under the ID `credentials`, which must be those of a server; `authorization` is the ID of the object there that
 * determines which clients are admitted, or NULL for all that the credentials admit. May be called once, before
 * clients connect. `flags` must be 0.
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
 * Accepts clients at `address` from now on, on a thread of its own: `unix:PATH`, `inet:HOST:PORT` (an IPv6 address in
 * brackets; an empty host is every address of this machine, port 0 is one that is free), `vsock:CID:PORT`, or
 * `fd:NUMBER`, a socket that is already listening and is duplicated. An existing socket file is replaced, and removed
 * when the server ends. May be called for several addresses. `platter_server_address()` returns what was bound.
 * `flags` must be 0.
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
 * Serves a client that is already connected, on a thread of its own: `input` and `output` are one socket, or two
 * descriptors such as the standard streams. Both are duplicated. `flags` must be 0.
 *
 * Statuses: INVALID, OS. Threads: any. Since 0.1.
 */
int platter_server_serve_fds(const struct platter_server *server,
                             int input,
                             int output,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Offers an export as a local file, by FUSE: it is mounted over the file `mountpoint`, whatever that contains, until
 * the server ends or somebody unmounts it. It counts as one client, which leaves when it is unmounted. The name of the
 * export is not used; the image is kept alive as by `platter_server_add_export()`. `flags` are bits of
 * `PLATTER_MOUNT_*`. With `PLATTER_MOUNT_GROWABLE`, nothing else may use the image in the meantime, as with
 * `platter_resize_job_new()`. The file belongs to the user who runs the program; unless a flag allows others, only
 * this user may use it. May be called several times.
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
 * Offers an export as a virtio block device for virtual machines: their front ends, which speak vhost-user, connect to
 * the local socket `path`, one at a time, and each counts as a client. An existing socket is replaced, and removed
 * when the server ends. The device has `queues` queues, 1 to 64, and the first 20 bytes of the name of the export as
 * its serial number. A partial sector of less than 512 bytes at the end of the export is not offered. The front end
 * shares the memory of its machine and must be trusted; the machine need not be. `flags` must be 0.
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
 * Returns the address at `index`, counted from 0, at which the server accepts clients, with the numbers that the
 * system chose: a path, `HOST:PORT` or `CID:PORT`. NULL past the last one, and for NULL. The string lives as long as
 * the server.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_server_address(const struct platter_server *server,
                                   size_t index);

/**
 * Returns an eventfd (non-blocking, close-on-exec) that is readable if clients have connected or left since the last
 * `platter_server_get_statistics()`, which resets it: do not read or write it. It belongs to the server and is closed
 * with it. `flags` must be 0.
 *
 * Statuses: INVALID; `*out` is -1 then. Threads: any. Since 0.1.
 */
int platter_server_fd(int *out,
                      const struct platter_server *server,
                      uint32_t flags,
                      struct platter_error **err);

/**
 * Returns what the server has done so far. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_server_get_statistics(struct platter_server_statistics *out,
                                  const struct platter_server *server,
                                  uint32_t flags,
                                  struct platter_error **err);

/**
 * Returns why most recently a request of a client failed, or a client was disconnected or could not be accepted, as a
 * separate error, which the caller frees with `platter_error_free()`. NULL if nothing went wrong, and for NULL.
 *
 * Threads: any. Since 0.1.
 */
struct platter_error *platter_server_last_error(const struct platter_server *server);

/**
 * Shuts a server down gracefully and waits until that is done: no more clients are accepted, new requests are refused
 * as the protocol prescribes, and those in progress are carried out and answered. Clients are disconnected when they
 * have nothing in progress, when they accept none of their replies for as long as the limits allow (`stall_ms`), or
 * after `timeout_ms` milliseconds; a negative timeout means no limit. Afterwards the server is in the same state as
 * after `platter_server_stop()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_server_drain(const struct platter_server *server,
                         int64_t timeout_ms,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Stops a server and waits until that is done: its clients are disconnected at once, requests in progress are carried
 * out but not answered, and the images are released: `platter_image_close()` makes durable what was not flushed. The
 * server accepts nothing any more, and only its statistics are still useful. `flags` must be 0.
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
 * Creates an empty set of storages. The caller frees it with `platter_storages_free()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_storages_new(struct platter_storages **out,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Adds an open file or block device. The descriptor is duplicated: the caller keeps its own. Locks and the flag
 * `O_DIRECT` are as for `platter_image_open_fd()`. Writing requires a descriptor that is open for reading and writing;
 * a new image replaces the contents of the file, and if its creation fails, the file is emptied, not removed. Use
 * `PLATTER_LOCATION_PATH` with a name that has a colon. `flags` must be 0.
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
 * Adds a storage of the program. `ops` is copied; each opening calls `size`. Images that use the same storage of the
 * set at the same time exclude each other as those in one file do: only readers share it. `free_fn` (may be NULL) is
 * called once with `user_data`: when the set and everything that copied it are gone, or at once if this call fails.
 * `flags` must be 0.
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
 * Frees a set; whatever copied it keeps using its storages. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The set is not used afterwards.
 */
void platter_storages_free(struct platter_storages *storages);

/**
 * Sets the callback for progress. `free_fn` (may be NULL) is called once with `user_data`: when the job is freed or
 * another callback is set, or at once if this call fails. `flags` must be 0.
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
 * Sets the callback for messages: the findings of a check, and warnings. `free_fn` is used as by
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
 * Returns the line that announces the job, without newline: `Formatting '…', fmt=…` for a creation; NULL for jobs
 * without one, and for NULL. Lives as long as the job.
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
 * Starts the job on a thread of its own, which blocks all signals. `platter_job_fd()` signals its end,
 * `platter_job_result()` returns how it ended. `flags` must be 0.
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
 * Returns an eventfd (non-blocking, close-on-exec) that becomes readable when the job ends, and stays readable until
 * it is read. It belongs to the job and is closed with it. `flags` must be 0.
 *
 * Statuses: OS, INVALID; `*out` is -1 then. Threads: any. Since 0.1.
 */
int platter_job_fd(int *out,
                   const struct platter_job *job,
                   uint32_t flags,
                   struct platter_error **err);

/**
 * Returns how the job ended. `out` may be NULL; otherwise `*out` is the report, which belongs to the caller, who frees
 * it with `platter_report_free()`. May be called more than once. `flags` is 0 or `PLATTER_JOB_WAIT`.
 *
 * Statuses: BUSY while the job has not ended (with `PLATTER_JOB_WAIT`: has not begun), those of the
 * work, CANCELLED, INVALID. Threads: any. Since 0.1.
 */
int platter_job_result(struct platter_report **out,
                       const struct platter_job *job,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Returns the report of a job that failed, if it left one: a check whose repair was refused ends with CORRUPT, and
 * this is what it found. `*out` belongs to the caller, who frees it with `platter_report_free()`. `flags` is 0 or
 * `PLATTER_JOB_WAIT`.
 *
 * Statuses: NOT_FOUND (the job succeeded, or left no report), BUSY while the job has not ended (with
 * `PLATTER_JOB_WAIT`: has not begun), INVALID. Threads: any. Since 0.1.
 */
int platter_job_failure_report(struct platter_report **out,
                               const struct platter_job *job,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Returns the state of the job: `*out` is a `PLATTER_JOB_STATE_*`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_job_state(uint32_t *out,
                      const struct platter_job *job,
                      uint32_t flags,
                      struct platter_error **err);

/**
 * Returns how far the job has come. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_job_progress(struct platter_progress *out,
                         const struct platter_job *job,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Returns a warning of the job: UTF-8, rarely more than one line. `index` counts from 0 in chronological order; NULL
 * past the last one, and for NULL. The first 1,000 are retained, and a line that says that there were more; a callback
 * (`platter_job_set_message()`) receives them all. Lives as long as the job.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_job_warning(const struct platter_job *job,
                                size_t index);

/**
 * Asks the job to end; it ends with CANCELLED unless it was already done. What it leaves behind is documented at the
 * function that creates the job. This only stores an atomic. NULL does nothing.
 *
 * Threads: any; safe in a signal handler. Since 0.1.
 */
void platter_job_cancel(const struct platter_job *job);

/**
 * Pauses the job at its next step until `platter_job_resume()` or `platter_job_cancel()`. In a signal handler, `err`
 * must be NULL. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any; safe in a signal handler. Since 0.1.
 */
int platter_job_pause(const struct platter_job *job,
                      uint32_t flags,
                      struct platter_error **err);

/**
 * Lets a paused job continue, at once. In a signal handler, `err` must be NULL. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any; safe in a signal handler. Since 0.1.
 */
int platter_job_resume(const struct platter_job *job,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Limits the job to `bytes_per_second` of guest data that it copies, compares or sends; 0 removes the limit. It takes
 * effect at once, even for a job that is already waiting: the wait for what was copied before is then adjusted to the
 * new rate. Jobs that move no guest data (check, create, measure, map, amend, resize and those of snapshots) refuse a
 * limit. In a signal handler, `err` must be NULL. `flags` must be 0.
 *
 * Statuses: UNSUPPORTED, INVALID. Threads: any; safe in a signal handler. Since 0.1.
 */
int platter_job_set_rate(const struct platter_job *job,
                         uint64_t bytes_per_second,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Ends the job with CANCELLED (and `ETIMEDOUT` as the error's errno) at its next step once `milliseconds` from now
 * have passed, whether it is then running, paused or not yet started; 0 removes the deadline. What the job leaves
 * behind is the same as when it is cancelled. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_job_set_deadline(const struct platter_job *job,
                             uint64_t milliseconds,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Frees a job. One that is running is cancelled, and this waits for it to end. NULL does nothing.
 *
 * Threads: one, once. Since 0.1.
 *
 * # Safety
 * The job is not used afterwards.
 */
void platter_job_free(struct platter_job *job);

/**
 * Returns the kind of report, a `PLATTER_REPORT_*`; 0 for NULL.
 *
 * Threads: any. Since 0.1.
 */
uint32_t platter_report_kind(const struct platter_report *report);

/**
 * Returns the report as JSON, with its final newline: for info, check, map and measure what `qemu-img --output=json`
 * prints, key for key; for snapshots the list in info; for an inspection one object; for exports a list. It is UTF-8:
 * in names, anything else is replaced. `*out` lives as long as the report. Names in an image can make it several
 * hundred MiB long: `platter_report_write()` needs little memory. `flags` must be 0.
 *
 * Statuses: OS where there is no memory for it, INVALID. Threads: any. Since 0.1.
 */
int platter_report_json(const char **out,
                        const struct platter_report *report,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Returns the report as text for people, with newlines: what `qemu-img` prints without `--output`, and for exports
 * what `qemu-nbd --list` prints; `""` for a conversion. Names appear in it byte for byte, except that what would
 * control a terminal is escaped, as `\u{1b}`. The JSON is UTF-8: it replaces anything else. `*out` lives as long as
 * the report. If this form cannot show everything, this still returns what it can show; see
 * `platter_report_text_end()`. `flags` must be 0.
 *
 * Statuses: OS where there is no memory for it, INVALID. Threads: any. Since 0.1.
 */
int platter_report_text(const char **out,
                        const struct platter_report *report,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Returns how the text of `platter_report_text()` ends: 0 if it is complete, else the error that ends it: a map with
 * extents that are not plain bytes on the host. `flags` must be 0.
 *
 * Statuses: UNSUPPORTED, INVALID. Threads: any. Since 0.1.
 */
int platter_report_text_end(const struct platter_report *report,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Returns the exit code with which `qemu-img` ends after such a report: for check 0 (consistent), 1 (parts could not
 * be checked), 2 (corruptions) or 3 (only leaks); for compare 0 (identical) or 1; for an inspection 0 (every guard
 * passes) or 2; otherwise 0. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_report_exit_code(int *out,
                             const struct platter_report *report,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Returns the number of entries: layers of an info report (the image, then its backing chain), runs of a map,
 * snapshots, bitmaps, dirty runs, exports, or the file, the guards and the names of an inspection; 1 for every other
 * report. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_report_count(size_t *out,
                         const struct platter_report *report,
                         uint32_t flags,
                         struct platter_error **err);

/**
 * Returns a number of entry `index`, by its JSON key: `virtual-size`, `actual-size`, `leaks`.
 *
 * A header file cannot list all keys of all formats, but has a `PLATTER_KEY_*` for each that stands alone. Nested
 * values in the JSON of info are named by parts separated by dots, and items of lists by numbers:
 * `format-specific.data.refcount-bits`, `snapshots.0.date-sec`, `children.0.info.actual-size`; the number of a list is
 * that of its items: `format-specific.data.bitmaps`.
 *
 * Keys of info: `virtual-size`, `actual-size`, `cluster-size`, `snapshot-count`, `bitmap-count`, `child-count`,
 * `content-count`. Check: `check-errors`, `corruptions`, `leaks`, `corruptions-fixed`, `leaks-fixed`,
 * `image-end-offset`, `total-clusters`, `allocated-clusters`, `fragmented-clusters`, `compressed-clusters`. Map:
 * `start`, `length`, `depth`, `offset`. Snapshots: `vm-state-size`, `date-sec`, `date-nsec`, `vm-clock-sec`,
 * `vm-clock-nsec`, `icount`, `virtual-size`. Bitmaps: `granularity`. Dirty bytes: `start`, `length`. Measure:
 * `required`, `fully-allocated`, `bitmaps` if there are any. Compare: `offset`. Convert: `virtual-size`, `data-bytes`,
 * `offloaded-bytes`, `zero-bytes`, `backed-bytes`, `compressed-units`, `compressed-bytes`. Resize: `virtual-size`.
 * Bench: `requests`, `flushes`, `bytes`. For an inspection see `platter_inspect()`, for exports
 * `platter_export_list()`. `flags` must be 0.
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
 * Returns a number of entry `index` that may be fractional, by its JSON key; whole numbers too. Keys of bench:
 * `seconds`, `requests-per-second`. `flags` must be 0.
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
 * Returns a boolean of entry `index`, by its JSON key: 1 or 0. Keys of info: `encrypted`, `dirty-flag`. Map:
 * `present`, `zero`, `data`, `compressed`, `unknown` (not in the JSON, see `PLATTER_EXTENT_UNKNOWN`). Bitmaps:
 * `enabled`, `inconsistent`. Compare: `identical`, `size-mismatch`. `flags` must be 0.
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
 * Returns a string of entry `index`, by its JSON key. Names are returned byte for byte, whereas the JSON replaces what
 * is not UTF-8, except that NUL bytes become U+FFFD. `*out` lives as long as the report. Keys of info: `filename`,
 * `format`, `backing-filename`, `full-backing-filename`, `backing-filename-format`. None of them contains passwords,
 * even if the name in the image has one. Check: `filename`, `format`. Snapshots: `id`, `name`. Bitmaps: `name`.
 * Compare: `reason` (a `PLATTER_REASON_*`). Create: `summary`. `flags` must be 0.
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
 * Returns what the user should know in addition to an info report, about all its layers: UTF-8, several lines if there
 * is more to say, without the final newline. `index` counts from 0; NULL past the last one, for other reports and for
 * NULL. The string lives as long as the report.
 *
 * Threads: any. Since 0.1.
 */
const char *platter_report_warning(const struct platter_report *report,
                                   size_t index);

/**
 * Returns the run at `index` of a map report, or of a report of dirty bytes. `flags` must be 0.
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
 * Passes a report to `write_fn` piece by piece, in order and on the calling thread: the same bytes as those of
 * `platter_report_text()`, or of `platter_report_json()` with the flag `PLATTER_REPORT_WRITE_JSON`, in little memory
 * however long they are. `platter_report_text_end()` says how the text ends. `flags` is 0 or that flag.
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
 * Creates a job that changes the options of `image`, which is open for writing. `options` are those that
 * `platter_option_describe()` lists for `PLATTER_OPERATION_AMEND`; `secrets` (may be NULL for none) are those that the
 * options name by ID and the one that opened the image. Both are copied. `flags` is 0 or `PLATTER_AMEND_FORCE`.
 * Nothing else may use the image while the job runs. A job that fails or is cancelled leaves a valid image, each
 * option with its old or its new value. The job keeps the image alive. `*out` belongs to the caller, who frees it with
 * `platter_job_free()`.
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
 * Creates a job that sends the requests of `bench` to `image` through a queue of its own and measures the time. With
 * `PLATTER_BENCH_WRITE` it overwrites the guest's data. `flags` are bits of `PLATTER_BENCH_*`. The job's summary
 * announces the test, in one line or two. The report has `requests`, `flushes`, `bytes`, `seconds` and
 * `requests-per-second`; progress counts requests. What a cancelled job has written stays written. The job keeps the
 * image alive. `*out` belongs to the caller, who frees it with `platter_job_free()`.
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
 * Reports the persistent dirty bitmaps of an open image, in the order of its directory; none for a format without
 * them. A bitmap that this image records into is consistent here, although it stays marked as in use on disk until the
 * image is closed. `*out` belongs to the caller, who frees it with `platter_report_free()`. `flags` must be 0.
 *
 * Statuses: CORRUPT, OS, INVALID. Threads: any. Since 0.1.
 */
int platter_bitmap_list(struct platter_report **out,
                        const struct platter_image *image,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Reports which of the `length` guest bytes from `offset` on the bitmap `name` marks as dirty: what has changed since
 * it was added or cleared, rounded out to its granularity, including what was written through this open image. A range
 * past the end of the image is truncated. Each entry of the report is a run, as returned by `platter_report_extent()`
 * or by the keys `start` and `length`; the call fails if there are more than 1,048,576, so query a large image in
 * parts. `*out` belongs to the caller, who frees it with `platter_report_free()`. `flags` must be 0.
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
 * Adds an empty bitmap to `image`, which must be writable; it records every write from now on, including those of
 * later users. `granularity` is the number of guest bytes per bit, a power of 2 from 512 to 2 GiB, or 0 for the
 * format's default. The change is on disk when the call returns. `flags` must be 0.
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
 * Removes a bitmap, even an inconsistent one, from `image`, which must be writable. `flags` must be 0.
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
 * Clears all bits of a bitmap of `image`, which must be writable. A concurrent write is recorded if it completes
 * later. `flags` must be 0.
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
 * Enables a bitmap of `image`, which must be writable, to record what is written from now on. `flags` must be 0.
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
 * Disables a bitmap of `image`, which must be writable, so that it records no more; what it has recorded stays.
 * `flags` must be 0.
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
 * Creates a job that checks the consistency of `image`, which was opened with `PLATTER_OPEN_FOR_CHECK`. Each finding
 * is a message, a `PLATTER_MESSAGE_NOTE`; the report has the numbers. The job keeps the image alive. `*out` belongs to
 * the caller, who frees it with `platter_job_free()`. `flags` is a combination of `PLATTER_CHECK_HOLD_CHANGES` and one
 * of `PLATTER_CHECK_REPAIR_LEAKS` and `PLATTER_CHECK_REPAIR_ALL`, or 0; a repair requires an image that was also
 * opened with `PLATTER_OPEN_WRITE`, and is followed by a second check, whose results the report shows. A check that is
 * cancelled changes nothing from then on.
 *
 * The findings of a check are about one state of the image. Other threads may continue to write to it through the same
 * handle: the job waits for changes in progress, and if a later one changes metadata before the job has ended (a write
 * that allocates, a discard, a snapshot…), it ends with BUSY, has no report, and reports nothing from then on. Earlier
 * messages are true of the state that it began with. Check again at a quieter time, or set
 * `PLATTER_CHECK_HOLD_CHANGES`: writes and all other changes to the image then wait, each in its call, until the job
 * has ended; reads do not. A repair always makes them wait. A change within a callback of such a job, on the thread
 * that runs it, is refused with BUSY. Writes of other processes are kept out by locks, unless the image was opened
 * with `PLATTER_OPEN_FORCE_SHARE`: then they go unnoticed, and the findings may be about no actual state at all.
 *
 * If `PLATTER_CHECK_REPAIR_LEAKS` finds damage that makes leaked clusters look like used ones, or used ones like
 * leaked ones, the job ends with CORRUPT and has changed nothing; `platter_job_failure_report()` then returns the
 * report. `PLATTER_CHECK_REPAIR_ALL` repairs both.
 *
 * Statuses: INVALID; of the job: BUSY where the image was changed meanwhile, UNSUPPORTED where the format has no
 * check, CORRUPT where damage keeps it from being carried out, OS. Threads: any. Since 0.1.
 */
int platter_check_job_new(struct platter_job **out,
                          const struct platter_image *image,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Creates a job that copies the contents of the image at `location` and of the layers below it down into `base`, an
 * image of its backing chain; NULL is the one directly below. `base` is its name as the layer above records or sees
 * it, or any other name of the same file, relative to the current directory. A smaller base is grown first. Once all
 * this is durable, the image is emptied, unless a filter is above it, or `base` or `PLATTER_COMMIT_KEEP` is given. The
 * job opens the images for writing, as `options` (may be NULL for the defaults) specify, and closes them; the policy
 * must allow the chain. `flags` are bits of `PLATTER_COMMIT_*` and at most one `PLATTER_LOCATION_*`. A job that fails
 * or is cancelled leaves part of the data in the base; the image reads as before. `*out` belongs to the caller, who
 * frees it with `platter_job_free()`.
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
 * As `platter_commit_job_new()`, for an image that is open for writing, with its backing chain. If this call succeeds,
 * the job has taken over `image`: it must not be used any more, and the job closes it when the job ends, in whatever
 * way, or is freed. `options` specify how the base is opened once more, for writing: with the policy, the secrets and
 * the storages with which `image` was opened. `flags` are bits of `PLATTER_COMMIT_*`.
 *
 * Statuses: as `platter_commit_job_new()`; BUSY where a job, a queue, an export, a storage or another image uses
 * `image`; of the job: READ_ONLY, INVALID where the backing chain was left closed. Threads: one, once. Since 0.1.
 *
 * # Safety
 * `base` is NULL or NUL-terminated; the image is not used afterwards if this succeeds.
 */
int platter_commit_image_job_new(struct platter_job **out,
                                 struct platter_image *image,
                                 const char *base,
                                 const struct platter_open_options *options,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Creates a job that compares the guest bytes of two images; the excess of a longer one must be zeroes. The job keeps
 * the images alive. `*out` belongs to the caller, who frees it with `platter_job_free()`. `flags` is 0 or
 * `PLATTER_COMPARE_STRICT`. Images that differ are a report, not an error. The job changes nothing, even if it is
 * cancelled.
 *
 * Statuses: INVALID; of the job: OS, CORRUPT. Threads: any. Since 0.1.
 */
int platter_compare_job_new(struct platter_job **out,
                            const struct platter_image *a,
                            const struct platter_image *b,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Creates the description of a conversion, with all defaults of `qemu-img convert`: into a raw image, target cache
 * mode `unsafe`. The caller frees it with `platter_convert_free()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_convert_new(struct platter_convert **out,
                        uint32_t flags,
                        struct platter_error **err);

/**
 * Adds a source; several sources are concatenated in the order of the calls. `flags` are at most one
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
 * Sets a descriptor to read from instead of any source: a pipe, a socket or a file, which is read in order from its
 * current position, as raw bytes or as an image that can be read in order (streamOptimized VMDK). The descriptor is
 * duplicated; the caller keeps its own. `flags` must be 0.
 *
 * Statuses: INVALID, OS. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_source_fd(struct platter_convert *convert,
                                  int fd,
                                  uint32_t flags,
                                  struct platter_error **err);

/**
 * Sets a descriptor to write to instead of the target: raw bytes are written in order from its current position. The
 * descriptor is duplicated; the caller keeps its own. A broken pipe is an error of the job, not a signal. `flags` must
 * be 0.
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
 * Sets the internal snapshot of the source to convert, by ID or name, or as `snapshot.id=…` or `snapshot.name=…`; NULL
 * for the current state. `flags` must be 0.
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
 * Sets the target and its format. If the format is NULL, that of an existing target is guessed, which requires
 * `PLATTER_CONVERT_TARGET_EXISTS` and a policy that allows it. `flags` are at most one `PLATTER_LOCATION_*`, and
 * `PLATTER_NAME_UNCHECKED`.
 *
 * Statuses: INVALID (also an unknown format), UNSUPPORTED (one that another build has). Threads: one at a time. Since
 * 0.1.
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
 * Makes the target an image that a product accepts: `profile` is the name of a profile from
 * `platter_profile_describe()`, which determines the format of the target, sets options that are not set, and rounds
 * the size up to the next one that the product accepts. A disk smaller than `size_least` is grown to that, with a
 * warning from the job; the job refuses one larger than `size_most` with INVALID. `platter_convert_job_new()` refuses
 * an option that was set to another value. NULL means no profile. `flags` must be 0.
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
 * Sets the options of the new image; a copy is kept, which replaces those set before. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_target_options(struct platter_convert *convert,
                                       const struct platter_options *options,
                                       uint32_t flags,
                                       struct platter_error **err);

/**
 * Sets the cache mode of the target, as `platter_open_options_set_cache()` does. `flags` must be 0.
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
 * Sets the policy for opening the target and its backing file; a copy is kept. The policy of the sources is set by
 * `platter_convert_set_source_options()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_target_policy(struct platter_convert *convert,
                                      const struct platter_policy *policy,
                                      uint32_t flags,
                                      struct platter_error **err);

/**
 * Sets the secrets to which options of the target refer by ID; a copy is kept, which replaces those set before. NULL
 * stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_secrets(struct platter_convert *convert,
                                const struct platter_secrets *secrets,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * Sets storages that are used instead of files with the same names, for the target and for what it names. Those of the
 * sources are set by `platter_convert_set_source_options()`. A copy of the set is kept, which replaces the previous
 * one. NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_storages(struct platter_convert *convert,
                                 const struct platter_storages *storages,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Sets the target's backing file and its format; data that it already contains is not copied. Either may be NULL for
 * none, or if the options give it. What the backing file itself names is opened if
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
 * Requests a checksum of the guest data, computed while it is copied, over the whole virtual disk, zeroes included:
 * `algorithm` is `sha256`, or NULL for none. The report has it as the string `sha256`, and the checksum of a
 * compressed file or stream (see `platter_open_options_set_decompress()`) as `container-sha256`, also if the location
 * describes it (`driver=decompress`) or it is a backing file that is copied. For that checksum, a file that is
 * decompressed in parts or into a temporary file is read once more; for several files, it covers all their bytes
 * together. For the checksums alone, set `/dev/null` as the target with `platter_convert_set_target_fd()`. `flags`
 * must be 0.
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
 * Sets a numeric parameter of the conversion, `PLATTER_CONVERT_SPARSE_SIZE` or `PLATTER_CONVERT_PARALLEL`. `flags`
 * must be 0.
 *
 * Statuses: INVALID, also for a value out of range. Threads: one at a time. Since 0.1.
 */
int platter_convert_set_number(struct platter_convert *convert,
                               uint32_t which,
                               uint64_t value,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Checks whether what has been set so far and `flags`, bits of `PLATTER_CONVERT_*`, are compatible. `*out` is
 * `PLATTER_CONVERT_CONFLICT_NONE`, or the first conflict, a `PLATTER_CONVERT_CONFLICT_*`, for which
 * `platter_convert_job_new()` would refuse the job. Neither sources nor a target need to be set yet; no file is
 * touched.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_convert_check(uint32_t *out,
                          const struct platter_convert *convert,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Returns one line for the user that says what is wrong, as the error of `platter_convert_job_new()` does; NULL for
 * none and for an unknown number. The string lives forever.
 *
 * Threads: any; safe in a signal handler. Since 0.1.
 */
const char *platter_convert_conflict_text(uint32_t conflict);

/**
 * Creates the job that converts. `flags` are bits of `PLATTER_CONVERT_*`. Nothing is touched before the job runs;
 * `platter_job_set_rate()` sets the rate limit. `*out` belongs to the caller, who frees it with `platter_job_free()`.
 * A target that the job created is removed if the job fails or is cancelled; an existing target then contains part of
 * the data.
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
 * Creates the description of a new image at `location` in `format`. The caller frees it with `platter_create_free()`.
 * `flags` are at most one `PLATTER_LOCATION_*`, and `PLATTER_NAME_UNCHECKED`.
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
 * Sets the virtual size in bytes; it is rounded up to a multiple of 512. Without this call, the size is the option
 * `size`, or that of the backing file. `flags` must be 0.
 *
 * Statuses: INVALID, also for a size over 2^63 - 1. Threads: one at a time. Since 0.1.
 */
int platter_create_set_size(struct platter_create *create,
                            uint64_t size,
                            uint32_t flags,
                            struct platter_error **err);

/**
 * Sets the options; a copy is kept, which replaces those set before. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_create_set_options(struct platter_create *create,
                               const struct platter_options *options,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Sets the backing file (bytes) and its format as they are to be recorded in the image; either may be NULL for none,
 * or if the options give it. A relative name is relative to the image. What the backing file itself names is opened if
 * `platter_create_set_policy()` allows it. `flags` are bits of `PLATTER_BACKING_UNSAFE` and `PLATTER_NAME_UNCHECKED`.
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
 * Sets the policy for opening the backing file; a copy is kept. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_create_set_policy(struct platter_create *create,
                              const struct platter_policy *policy,
                              uint32_t flags,
                              struct platter_error **err);

/**
 * Sets the secrets to which options such as `key-secret` refer by ID; a copy is kept, which replaces those set before.
 * NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_create_set_secrets(struct platter_create *create,
                               const struct platter_secrets *secrets,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Sets storages that are used instead of files with the same names, for the new image, its data file and its backing
 * file. A copy of the set is kept, which replaces the previous one. NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_create_set_storages(struct platter_create *create,
                                const struct platter_storages *storages,
                                uint32_t flags,
                                struct platter_error **err);

/**
 * Sets a control that cancels the creation, in addition to the job itself; it also cancels `platter_create_job_new()`,
 * which opens the backing file. NULL stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_create_set_control(struct platter_create *create,
                               const struct platter_control *control,
                               uint32_t flags,
                               struct platter_error **err);

/**
 * Creates the job that creates the image. Everything that can be checked without touching the target is checked here,
 * and the backing file is opened to get its size; `platter_job_summary()` then returns the line that announces the
 * creation. `*out` belongs to the caller, who frees it with `platter_job_free()`. `flags` is 0 or
 * `PLATTER_CREATE_EXCLUSIVE`. A job that fails or is cancelled leaves no new file.
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
 * Creates the description of a copy, with all defaults of `qemu-img dd`: into a raw image, in blocks of 512 bytes. The
 * caller frees it with `platter_dd_free()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: any. Since 0.1.
 */
int platter_dd_new(struct platter_dd **out,
                   uint32_t flags,
                   struct platter_error **err);

/**
 * Sets the input: an image, or the path of a pipe or character device, which is read in order, as raw bytes or as an
 * image that can be read in order (streamOptimized VMDK). `flags` are at most one `PLATTER_LOCATION_*`.
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
 * Sets a descriptor as the input: it is read in order from its current position, as described for
 * `platter_dd_set_input()`. It is duplicated; the caller keeps its own. `flags` must be 0.
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
 * Sets the internal snapshot of the input to copy, by ID or name, or as `snapshot.id=…` or `snapshot.name=…`; NULL for
 * the current state. `flags` must be 0.
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
 * Statuses: INVALID (also an unknown format), UNSUPPORTED (one that another build has). Threads: one at a time. Since
 * 0.1.
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
 * Sets a descriptor as the output: raw bytes are written to it in order from its current position. It is duplicated;
 * the caller keeps its own. A broken pipe is an error of the job, not a signal. `flags` must be 0.
 *
 * Statuses: INVALID, OS. Threads: one at a time. Since 0.1.
 */
int platter_dd_set_output_fd(struct platter_dd *dd,
                             int fd,
                             uint32_t flags,
                             struct platter_error **err);

/**
 * Sets the cache mode of the output, as `platter_open_options_set_cache()` does; `writeback` if not set. `flags` must
 * be 0.
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
 * Sets the policy for opening an existing output; a copy is kept. The policy of the input is set by
 * `platter_dd_set_input_options()`. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_dd_set_output_policy(struct platter_dd *dd,
                                 const struct platter_policy *policy,
                                 uint32_t flags,
                                 struct platter_error **err);

/**
 * Sets the secrets to which options of the output refer by ID; a copy is kept, which replaces those set before. NULL
 * stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_dd_set_secrets(struct platter_dd *dd,
                           const struct platter_secrets *secrets,
                           uint32_t flags,
                           struct platter_error **err);

/**
 * Sets storages that are used instead of files with the same names, for the output and for what it names. Those of the
 * input are set by `platter_dd_set_input_options()`. A copy of the set is kept, which replaces the previous one. NULL
 * stands for none. `flags` must be 0.
 *
 * Statuses: INVALID. Threads: one at a time. Since 0.1.
 */
int platter_dd_set_output_storages(struct platter_dd *dd,
                                   const struct platter_storages *storages,
                                   uint32_t flags,
                                   struct platter_error **err);

/**
 * Sets a numeric parameter of the copy, one of `PLATTER_DD_*`. `flags` must be 0.
 *
 * Statuses: INVALID, also for a value out of range. Threads: one at a time. Since 0.1.
 */
int platter_dd_set_number(struct platter_dd *dd,
                          uint32_t which,
                          uint64_t value,
                          uint32_t flags,
                          struct platter_error **err);

/**
 * Creates the job that copies. `flags` are bits of `PLATTER_DD_*` flags. Nothing is touched before the job runs. Its
 * report is of the kind `PLATTER_REPORT_CONVERT`. `*out` belongs to the caller, who frees it with
 * `platter_job_free()`. An output that the job created is removed if the job fails or is cancelled; an existing output
 * then contains part of the data, and what was read from a stream is gone from it.
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
 * Lists the exports of the server at `location`: `nbd://HOST`, `nbd+unix://?socket=PATH`, or with
 * `PLATTER_LOCATION_IMAGE_OPTS` `driver=nbd,host=HOST,tls-creds=ID`. It does not matter which export that names, and
 * none is opened. Of `options`, which may be NULL for the defaults, only the policy, the secrets and the control are
 * used; the control ends every wait for the server. `flags` is 0 or one `PLATTER_LOCATION_*`. `*out` belongs to the
 * caller, who frees it with `platter_report_free()`.
 *
 * The report has an entry for each export, in the server's order: `name`, `description`, `size` in bytes, `read-only`,
 * `flags` (those of the protocol), `features` (the names of the known ones: `readonly`, `flush`, `fua`, `rotational`,
 * `trim`, `zeroes`, `df`, `multi`, `resize`, `cache`, `fast-zero`, `block-status-payload`), `min-block`, `opt-block`
 * and `max-block` in bytes, `transaction-bits` (32 or 64), `contexts` (the metadata contexts). What the server does
 * not report is omitted; if it refuses to describe an export, `error` says why. `features` and `contexts` are lists in
 * the JSON, and strings with one line per item here. The text is that of `qemu-nbd --list`.
 *
 * Statuses: UNSUPPORTED where the protocol or the server has no such list, DENIED where the policy or the server
 * forbids it, LIMIT for more than 16,384 exports or 16 MiB of names, OS, CANCELLED, INVALID. Threads: any. Since 0.1.
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
 * from, and with `PLATTER_INFO_CHAIN` also the images below it that are open with it. If the image is open for
 * writing, what it has cached is written out first. `flags` is 0 or `PLATTER_INFO_CHAIN`. `*out` belongs to the
 * caller, who frees it with `platter_report_free()`.
 *
 * Statuses: OS, NO_SPACE, CORRUPT, CANCELLED, INVALID. Threads: any. Since 0.1.
 */
int platter_image_info(struct platter_report **out,
                       const struct platter_image *image,
                       uint32_t flags,
                       struct platter_error **err);

/**
 * Inspects the file at `location`: what it is, every file that it names, and a verdict per guard on whether it may be
 * used. Opens only that one file, reads a bounded part of it and follows no name, whatever the policy allows; damage
 * is a verdict, not a failure.
 *
 * Of `options`, which may be NULL for the defaults, only the format, the cache mode, the formats that the policy
 * allows and its limits are used. Name the format: then there is a verdict on whether the contents are of that format.
 * `flags` are bits of `PLATTER_OPEN_FORCE_SHARE` and at most one `PLATTER_LOCATION_*`. `*out` belongs to the caller,
 * who frees it with `platter_report_free()`.
 *
 * The report's entry 0 is the file: `filename`, `format`, `signatures` (joined by `,`), `format-named`, `encrypted`,
 * `passed`, `file-size`, `virtual-size`, `cluster-size`, `snapshot-count`, `guard-count`, `reference-count`. It is
 * followed by the guards: `id`, `verdict` (`pass`, `fail`, `unknown` or `not-applicable`), `reason`; and these by the
 * names: `role` (`backing-file`, `data-file`, `extent` or `parent-locator`), `name`, `name-bytes` (in hexadecimal, if
 * the name is not UTF-8), `format`, `protocol`, `offset`, `plain`, `absolute`, `parent`, `json`.
 * `platter_report_exit_code()` is 0 if every guard passes or does not apply, otherwise 2.
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
 * As `platter_inspect()`, and also whether a product would accept the file: that of `profile`, one of
 * `platter_profile_describe()`. If `options` name no format, the file must be in that of the profile. If the product
 * takes packages, what is reported of the image applies to the first one in the file, which is read to its end.
 *
 * In addition to what `platter_inspect()` reports, entry 0 of the report has `profile` and `objection-count`, and
 * after the names there is an entry for each thing that the product would refuse: `reason`, `remedy`. Any of them
 * makes the exit code 2.
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
 * As `platter_inspect()`, for storage that the program supplies; only `size` and `read` are called. `ops` is copied;
 * `name` (may be NULL) stands for the storage in messages and in the report. `free_fn` (may be NULL) is called once
 * with `user_data` before this returns. `flags` must be 0.
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
 * Creates a job that maps `length` guest bytes of `image` and its backing chain from `start`; a length past the end is
 * truncated. Its report has all runs, with adjacent runs of one kind merged; an image of a few kilobytes can have any
 * number of them, so the job fails if there are more than 1,048,576: map parts of such an image, or receive the runs
 * with `platter_map_each_job_new()`. The job keeps the image alive. `*out` belongs to the caller, who frees it with
 * `platter_job_free()`. `flags` must be 0. If other threads write to the image meanwhile, each run is as it was when
 * the job reached it. The job changes nothing, even if it is cancelled.
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
 * As `platter_map_job_new()`, for any number of runs in little memory: each run is passed to `extent_fn` in guest
 * order as soon as its end is known, with adjacent runs of one kind merged. A map of nothing is one run of length 0.
 * The report of the job is a `PLATTER_REPORT_DONE`. If the job fails, the runs so far were right. `free_fn` (may be
 * NULL) is called once with `user_data`: when the job has ended or is freed, or at once if this call fails.
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
 * Creates a job that computes how many bytes a new image in `format` will take: one with the guest contents of `image`
 * and its backing chain, or, if `image` is NULL, an empty one of `size` guest bytes. `options` (may be NULL) are those
 * of creation. Nothing is created, no data is read, and nothing is changed, even if the job is cancelled. The job
 * keeps the image alive. `*out` belongs to the caller, who frees it with `platter_job_free()`. `flags` must be 0. If
 * other threads write to the image meanwhile, each part of it counts as it was when the job reached it.
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
 * Creates a job that gives the image at `location` the backing file `backing`, which is the name to record in the
 * image; NULL or an empty name means none. What the guest sees stays the same: data that the new chain does not
 * provide is first copied into the image. `backing_format` is recorded and must be given with a name; `backing_cache`
 * (may be NULL: `writeback`) is the cache mode of the new backing file. The job opens the images, for writing, as
 * `options` (may be NULL for the defaults) specify, and closes them; the policy must allow the chains. `flags` are
 * bits of `PLATTER_REBASE_*`, `PLATTER_NAME_UNCHECKED` and at most one `PLATTER_LOCATION_*`. A job that fails or is
 * cancelled leaves the image on its current backing file, with part of the data copied. `*out` belongs to the caller,
 * who frees it with `platter_job_free()`.
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
 * As `platter_rebase_job_new()`, for an image that is open for writing, with its backing chain unless
 * `PLATTER_REBASE_NAME_ONLY` is given. If this call succeeds, the job has taken over `image`: it must not be used any
 * more, and the job closes it when it ends, however that happens, or is freed. `options` specify how the new backing
 * file is opened: with which policy, secrets and storages. `flags` are bits of `PLATTER_REBASE_*` and
 * `PLATTER_NAME_UNCHECKED`.
 *
 * Statuses: as `platter_rebase_job_new()`; BUSY where a job, a queue, an export, a storage or another image uses
 * `image`; of the job: READ_ONLY, INVALID where the backing chain was left closed. Threads: one, once. Since 0.1.
 *
 * # Safety
 * The strings are NULL or NUL-terminated; the image is not used afterwards if this succeeds.
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
 * Creates a job that changes the virtual size of `image`, which is open for writing, to `size` bytes, rounded
 * up to 512. `preallocation` (may be NULL: `off`) is `off`, `metadata`, `falloc` or `full` and determines how space
 * for the grown part is reserved. `flags` are bits of `PLATTER_RESIZE_*`. Nothing else may use the image while the job
 * runs. A job that is cancelled, or past its deadline, leaves the size as it was; but while a shrink frees what was
 * beyond the new end, it leaves the new size, and the next resize frees the rest. The report has the new size as
 * `virtual-size`. The job keeps the image alive. `*out` belongs to the caller, who frees it with `platter_job_free()`.
 *
 * Statuses: INVALID, also for a size out of range; of the job: INVALID for a sum out of range and for a size that is
 * smaller without `PLATTER_RESIZE_SHRINK`, UNSUPPORTED, READ_ONLY, LOCKED, LIMIT, NO_SPACE, OS, CORRUPT. Threads: any.
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
 * Shows an internal snapshot instead of the current contents, read-only, until the image is closed. `snapshot` is an
 * ID, or else a name, or `snapshot.id=…,snapshot.name=…`. On failure, the image still shows what it showed before.
 * `flags` must be 0.
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
 * Creates a job that records the current contents of `image`, which must be writable, as an internal snapshot. `name`
 * may be empty or already in use; the new ID is the highest one plus 1. The report of the job lists the snapshots, the
 * new one last. If it is cancelled or its deadline passes, the job leaves the image as it was. The job keeps the image
 * alive. `*out` belongs to the caller, who frees it with `platter_job_free()`. `flags` must be 0.
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
 * Creates a job that reverts `image`, which must be writable, to the contents and the virtual size of the internal
 * snapshot with that ID, or else with that name. Its report lists the snapshots. If it is cancelled or its deadline
 * passes, the job leaves the image as it was, or with the snapshot's contents; in that case the next open for writing
 * recounts its references. The job keeps the image alive. `*out` belongs to the caller, who frees it with
 * `platter_job_free()`. `flags` must be 0.
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
 * Creates a job that deletes the first internal snapshot with that name from `image`, which must be writable. Its
 * report lists the snapshots that remain. If it is cancelled or its deadline passes, the job leaves the image as it
 * was, or without the snapshot; in that case the next open for writing recounts its references. The job keeps the
 * image alive. `*out` belongs to the caller, who frees it with `platter_job_free()`. `flags` must be 0.
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
