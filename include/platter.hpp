// Platter for C++17: owning objects and results on top of the C interface, in this one header.
//
// Every call that can fail returns a platter::result: a value, or a platter::error. The compiler warns about a result
// that is ignored. value() throws the error; in a program without exceptions it aborts the program, so use
// operator bool, operator* and error() there:
//
//     auto image = platter::image::open("disk.qcow2", platter::open_options().format("qcow2"));
//     if (!image)
//         return report(image.error().message());
//     platter::result<void> read = image->read(buffer, 0);
//
// Objects are moved, not copied, and are freed with their last owner. get() returns the object of the C interface,
// whose manual describes the rest: which threads may call, which flags exist.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef PLATTER_HPP
#define PLATTER_HPP

#include <platter.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#if defined(__cpp_exceptions) || defined(__EXCEPTIONS)
#define PLATTER_HPP_EXCEPTIONS 1
#endif

namespace platter {

namespace detail {

template <typename T, void (*Free)(T *)> struct deleter {
    void operator()(T *object) const noexcept { Free(object); }
};

template <typename T, void (*Free)(T *)> using owner = std::unique_ptr<T, deleter<T, Free>>;

} // namespace detail

/// Bytes to read from: contiguous memory owned by the caller.
class const_bytes {
public:
    const_bytes(const void *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <typename Container,
              typename = std::void_t<decltype(std::data(std::declval<const Container &>())),
                                     decltype(std::size(std::declval<const Container &>()))>>
    const_bytes(const Container &container) noexcept
        : data_(std::data(container)), size_(std::size(container) * sizeof(*std::data(container)))
    {
        static_assert(std::is_trivially_copyable_v<
                          std::remove_reference_t<decltype(*std::data(container))>>,
                      "only bytes of plain values are read");
    }
    const void *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }

private:
    const void *data_;
    std::size_t size_;
};

/// Bytes to write to: contiguous memory owned by the caller, such as a vector, an array or a std::span.
class bytes {
public:
    bytes(void *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <typename Container,
              typename = std::void_t<decltype(std::data(std::declval<Container &>())),
                                     decltype(std::size(std::declval<Container &>()))>>
    bytes(Container &&container) noexcept
        : data_(std::data(container)), size_(std::size(container) * sizeof(*std::data(container)))
    {
        static_assert(std::is_trivially_copyable_v<
                          std::remove_reference_t<decltype(*std::data(container))>>,
                      "only bytes of plain values are written");
    }
    void *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }

private:
    void *data_;
    std::size_t size_;
};

/// Why a call failed.
class error
#ifdef PLATTER_HPP_EXCEPTIONS
    : public std::exception
#endif
{
public:
    /// Takes the error that a call of the C interface has stored; without an error object only the status is known.
    error(int status, platter_error *taken) : status_(status)
    {
        const detail::owner<platter_error, platter_error_free> owned(taken);
        message_ = platter_status_name(status);
        errno_ = platter_status_errno(status);
        if (taken == nullptr)
            return;
        stage_ = platter_error_stage(taken);
        message_ = platter_error_message(taken);
        errno_ = platter_error_errno(taken);
        if (const auto offset = platter_error_offset(taken); offset != PLATTER_OFFSET_UNKNOWN)
            offset_ = offset;
        if (const char *file = platter_error_file(taken))
            file_ = file;
        for (std::size_t n = 0; const char *hint = platter_error_hint(taken, n); n++)
            hints_.emplace_back(hint);
    }
    /// A PLATTER_STATUS_*.
    int status() const noexcept { return status_; }
    /// The best matching errno; 0 for none.
    int os_errno() const noexcept { return errno_; }
    /// A PLATTER_STAGE_*: what was being done.
    std::uint32_t stage() const noexcept { return stage_; }
    /// One line that names the file and the reason.
    const std::string &message() const noexcept { return message_; }
    /// The offset in the file, if it is known.
    std::optional<std::uint64_t> offset() const noexcept { return offset_; }
    /// The file whose reading, writing or syncing failed, if any did.
    const std::optional<std::string> &file() const noexcept { return file_; }
    /// What the user can do, one line each.
    const std::vector<std::string> &hints() const noexcept { return hints_; }
#ifdef PLATTER_HPP_EXCEPTIONS
    const char *what() const noexcept override { return message_.c_str(); }
#endif

private:
    int status_;
    int errno_ = 0;
    std::uint32_t stage_ = 0;
    std::string message_;
    std::optional<std::uint64_t> offset_;
    std::optional<std::string> file_;
    std::vector<std::string> hints_;
};

namespace detail {

[[noreturn]] inline void fail(const error &failed)
{
#ifdef PLATTER_HPP_EXCEPTIONS
    throw failed;
#else
    (void)failed;
    std::abort();
#endif
}

} // namespace detail

/// A value, or the error that prevented it.
template <typename T> class [[nodiscard]] result {
public:
    result(T value) : held_(std::in_place_index<0>, std::move(value)) {}
    result(platter::error failed) : held_(std::in_place_index<1>, std::move(failed)) {}
    bool has_value() const noexcept { return held_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }
    /// Returns the value, or throws the error.
    T &value() &
    {
        check();
        return *std::get_if<0>(&held_);
    }
    const T &value() const &
    {
        check();
        return *std::get_if<0>(&held_);
    }
    T &&value() &&
    {
        check();
        return std::move(*std::get_if<0>(&held_));
    }
    T &operator*() & { return value(); }
    const T &operator*() const & { return value(); }
    T &&operator*() && { return std::move(*this).value(); }
    T *operator->() { return &value(); }
    const T *operator->() const { return &value(); }
    /// The error, if there is no value.
    const platter::error &error() const { return *std::get_if<1>(&held_); }

private:
    void check() const
    {
        if (!has_value())
            detail::fail(error());
    }
    std::variant<T, platter::error> held_;
};

/// Success without a value, or the error.
template <> class [[nodiscard]] result<void> {
public:
    result() = default;
    result(platter::error failed) : failed_(std::move(failed)) {}
    bool has_value() const noexcept { return !failed_; }
    explicit operator bool() const noexcept { return has_value(); }
    /// Throws the error, if there is one.
    void value() const
    {
        if (failed_)
            detail::fail(*failed_);
    }
    const platter::error &error() const { return *failed_; }

private:
    std::optional<platter::error> failed_;
};

namespace detail {

/// Calls a function whose last parameter receives the error.
template <typename... Parameters, typename... Arguments>
result<void> call(int (*function)(Parameters...), Arguments... arguments)
{
    platter_error *failed = nullptr;
    const int status = function(arguments..., &failed);
    if (status != PLATTER_OK)
        return error(status, failed);
    return {};
}

/// As call(), for a function whose first parameter receives a value.
template <typename Value, typename... Parameters, typename... Arguments>
result<Value> get(int (*function)(Parameters...), Arguments... arguments)
{
    Value value{};
    if (auto called = call(function, &value, arguments...); !called)
        return called.error();
    return value;
}

/// As get(), for a function that creates an object.
template <typename Owner, typename... Parameters, typename... Arguments>
result<Owner> make(int (*function)(Parameters...), Arguments... arguments)
{
    auto made = get<typename Owner::pointer>(function, arguments...);
    if (!made)
        return made.error();
    return Owner(*made);
}

/// A chain of setters records its first failure for the call that ends the chain.
template <typename Self> class settings {
protected:
    template <typename... Parameters, typename... Arguments>
    Self &set(int (*function)(Parameters...), Arguments... arguments)
    {
        if (!failed_) {
            if (auto called = call(function, arguments...); !called)
                failed_ = called.error();
        }
        return static_cast<Self &>(*this);
    }
    template <typename T> void keep(const result<T> &made)
    {
        if (!made && !failed_)
            failed_ = made.error();
    }
    std::optional<error> failed_;

public:
    /// The first failure; calls that are given the object fail with it.
    const std::optional<error> &failure() const noexcept { return failed_; }
};

} // namespace detail

/// The version of the library.
inline std::string_view version() { return platter_version_string(); }

/// A size such as "10G", in bytes.
inline result<std::uint64_t> parse_size(const std::string &text)
{
    return detail::get<std::uint64_t>(platter_size_parse, text.c_str(), PLATTER_SIZE_IMAGE);
}

/// The formats, protocols and filters of the library; it owns the descriptions for ever.
inline std::vector<const platter_driver_info *> drivers()
{
    std::vector<const platter_driver_info *> all;
    const platter_driver_info *driver = nullptr;
    while (platter_driver_describe(&driver, all.size(), 0, nullptr) == PLATTER_OK)
        all.push_back(driver);
    return all;
}

/// The options that a driver accepts for a PLATTER_OPERATION_*; the library owns the descriptions for ever.
inline result<std::vector<const platter_option_info *>> describe_options(const std::string &driver,
                                                                         std::uint32_t operation)
{
    std::vector<const platter_option_info *> all;
    for (;;) {
        auto option = detail::get<const platter_option_info *>(
            platter_option_describe, driver.c_str(), operation, all.size(), 0u);
        if (option) {
            all.push_back(*option);
            continue;
        }
        const platter_driver_info *known = nullptr;
        /* This is the end of the options, unless there is no such driver. */
        if (option.error().status() != PLATTER_STATUS_NOT_FOUND ||
            platter_driver_find(&known, driver.c_str(), 0, 0, nullptr) != PLATTER_OK)
            return option.error();
        return all;
    }
}

/// The children of a driver's nodes; the library owns the descriptions for ever.
inline result<std::vector<const platter_child_info *>> describe_children(const std::string &driver)
{
    std::vector<const platter_child_info *> all;
    for (;;) {
        auto child = detail::get<const platter_child_info *>(platter_child_describe, driver.c_str(),
                                                             all.size(), 0u);
        if (child) {
            all.push_back(*child);
            continue;
        }
        const platter_driver_info *known = nullptr;
        /* This is the end of the children, unless there is no such driver. */
        if (child.error().status() != PLATTER_STATUS_NOT_FOUND ||
            platter_driver_find(&known, driver.c_str(), 0, 0, nullptr) != PLATTER_OK)
            return child.error();
        return all;
    }
}

/// Options of a format or protocol, by name.
class options : public detail::settings<options> {
public:
    options() { keep(begin()); }
    options &set_text(const std::string &key, const std::string &value)
    {
        return set(platter_options_set, bag_.get(), key.c_str(), value.c_str(), 0u);
    }
    options &set_number(const std::string &key, std::uint64_t value)
    {
        return set(platter_options_set_u64, bag_.get(), key.c_str(), value, 0u);
    }
    options &set_flag(const std::string &key, bool value)
    {
        return set(platter_options_set_bool, bag_.get(), key.c_str(), value ? 1u : 0u,
                   0u);
    }
    /// An option that is not set has its default.
    options &unset(const std::string &key)
    {
        return set(platter_options_unset, bag_.get(), key.c_str(), 0u);
    }
    /// The value of an option that is set.
    std::optional<std::string> get(const std::string &key) const
    {
        const char *value = platter_options_get(bag_.get(), key.c_str());
        return value == nullptr ? std::nullopt : std::optional<std::string>(value);
    }
    /// The options that are set.
    std::vector<std::string> keys() const
    {
        std::vector<std::string> all;
        while (const auto key = detail::get<const char *>(platter_options_key, bag_.get(), all.size(), 0u))
            all.emplace_back(*key);
        return all;
    }
    /// Sets the options of a list such as "cluster_size=64k,lazy_refcounts=on".
    options &parse(const std::string &list)
    {
        return set(platter_options_parse, bag_.get(), list.c_str(), 0u);
    }
    platter_options *get() const noexcept { return bag_.get(); }

private:
    using owner = detail::owner<platter_options, platter_options_free>;
    result<void> begin()
    {
        auto made = detail::make<owner>(platter_options_new, 0u);
        if (!made)
            return made.error();
        bag_ = *std::move(made);
        return {};
    }
    owner bag_;
};

/// The properties of an object: {{"dir", "/etc/pki/nbd"}, {"endpoint", "server"}}.
using properties = std::vector<std::pair<std::string, std::string>>;

/// Secrets by ID, and the other objects that options name by ID.
class secrets : public detail::settings<secrets> {
public:
    secrets() { keep(begin()); }
    secrets &add(const std::string &id, const_bytes secret)
    {
        return set(platter_secrets_add, set_.get(), id.c_str(), secret.data(), secret.size(), 0u);
    }
    /// Adds a secret by its properties, such as `file` and `format`.
    secrets &define(const std::string &id, const properties &of)
    {
        return object(platter_secrets_define, id, of);
    }
    /// Adds TLS credentials: certificates.
    secrets &add_tls_x509(const std::string &id, const properties &of)
    {
        return object(platter_secrets_add_tls_x509, id, of);
    }
    /// Adds TLS credentials: pre-shared keys.
    secrets &add_tls_psk(const std::string &id, const properties &of)
    {
        return object(platter_secrets_add_tls_psk, id, of);
    }
    /// Adds rules for which clients are admitted.
    secrets &add_authorization(const std::string &id, const properties &of)
    {
        return object(platter_secrets_add_authorization, id, of);
    }
    /// Adds a group of limits for reads and writes.
    secrets &add_throttle_group(const std::string &id, const properties &of)
    {
        return object(platter_secrets_add_throttle_group, id, of);
    }
    /// Sets a function to be called for missing secrets, from any thread. It must not throw.
    secrets &ask(std::function<std::optional<std::string>(std::string_view id)> asked)
    {
        using function = decltype(asked);
        auto kept = std::make_unique<function>(std::move(asked));
        return set(
            platter_secrets_set_callback, set_.get(),
            +[](platter_secret_answer *answer, const char *id, void *user_data) noexcept {
                if (const auto secret = (*static_cast<function *>(user_data))(id))
                    platter_secret_answer_set(answer, secret->data(), secret->size(), 0, nullptr);
            },
            static_cast<void *>(kept.release()),
            +[](void *user_data) noexcept { delete static_cast<function *>(user_data); }, 0u);
    }
    platter_secrets *get() const noexcept { return set_.get(); }

private:
    using owner = detail::owner<platter_secrets, platter_secrets_free>;
    result<void> begin()
    {
        auto made = detail::make<owner>(platter_secrets_new, 0u);
        if (!made)
            return made.error();
        set_ = *std::move(made);
        return {};
    }
    template <typename Function>
    secrets &object(Function function, const std::string &id, const properties &of)
    {
        std::vector<const char *> strings;
        for (const auto &[key, value] : of) {
            strings.push_back(key.c_str());
            strings.push_back(value.c_str());
        }
        strings.push_back(nullptr);
        return set(function, set_.get(), id.c_str(),
                   static_cast<const char *const *>(strings.data()), 0u);
    }
    owner set_;
};

/// What opening an image may do. Strict unless PLATTER_POLICY_PERMISSIVE is given.
class policy : public detail::settings<policy> {
public:
    explicit policy(std::uint32_t preset = PLATTER_POLICY_STRICT) { keep(begin(preset)); }
    policy &allow_format(const std::string &format)
    {
        return set(platter_policy_allow_format, policy_.get(), format.c_str(), 0u);
    }
    policy &allow_protocol(const std::string &protocol)
    {
        return set(platter_policy_allow_protocol, policy_.get(), protocol.c_str(), 0u);
    }
    /// Allows images of a server to be opened.
    policy &allow_host(const std::string &host)
    {
        return set(platter_policy_allow_host, policy_.get(), host.c_str(), 0u);
    }
    /// `mode` is a PLATTER_IMPLICIT_*.
    policy &set_implicit(std::uint32_t mode)
    {
        return set(platter_policy_set_implicit, policy_.get(), mode, 0u);
    }
    /// Sets a function that returns a PLATTER_ANSWER_* for each file that an image names, on the thread that opens.
    /// It must not throw.
    policy &ask(std::function<int(const platter_implicit_file &file, int &fd)> asked)
    {
        using function = decltype(asked);
        auto kept = std::make_unique<function>(std::move(asked));
        return set(
            platter_policy_set_callback, policy_.get(),
            +[](const platter_implicit_file *file, int *fd, void *user_data) noexcept {
                return (*static_cast<function *>(user_data))(*file, *fd);
            },
            static_cast<void *>(kept.release()),
            +[](void *user_data) noexcept { delete static_cast<function *>(user_data); }, 0u);
    }
    /// `probing` is a PLATTER_PROBING_*.
    policy &set_probing(std::uint32_t probing)
    {
        return set(platter_policy_set_probing, policy_.get(), probing, 0u);
    }
    policy &add_directory(const std::string &directory)
    {
        return set(platter_policy_add_directory, policy_.get(), directory.c_str(), 0u);
    }
    /// Whether images may name files on protocols other than that of host files.
    policy &set_implicit_protocols(bool allowed)
    {
        return set(platter_policy_set_implicit_protocols, policy_.get(), allowed ? 1u : 0u, 0u);
    }
    /// Whether the end of a file is also read to detect its format.
    policy &set_probe_footers(bool on)
    {
        return set(platter_policy_set_probe_footers, policy_.get(), on ? 1u : 0u, 0u);
    }
    /// The value of a limit, a PLATTER_LIMIT_*.
    result<std::uint64_t> limit(std::uint32_t limit) const
    {
        return detail::get<std::uint64_t>(platter_policy_get_limit, policy_.get(), limit, 0u);
    }
    policy &set_limit(std::uint32_t limit, std::uint64_t value)
    {
        return set(platter_policy_set_limit, policy_.get(), limit, value, 0u);
    }
    platter_policy *get() const noexcept { return policy_.get(); }

private:
    using owner = detail::owner<platter_policy, platter_policy_free>;
    result<void> begin(std::uint32_t preset)
    {
        auto made = detail::make<owner>(platter_policy_new, preset, 0u);
        if (!made)
            return made.error();
        policy_ = *std::move(made);
        return {};
    }
    owner policy_;
};

/// Named nodes, shared by images that are opened one after the other with it.
class nodes : public detail::settings<nodes> {
public:
    nodes()
    {
        auto made = detail::make<owner>(platter_nodes_new, 0u);
        keep(made);
        if (made)
            set_ = *std::move(made);
    }
    platter_nodes *get() const noexcept { return set_.get(); }

private:
    using owner = detail::owner<platter_nodes, platter_nodes_free>;
    owner set_;
};

class image;

/// Storages of the program, under names that locations can use.
class storages : public detail::settings<storages> {
public:
    storages() { keep(begin()); }
    storages &add(const std::string &name, int fd)
    {
        return set(platter_storages_add_fd, set_.get(), name.c_str(), fd, 0u);
    }
    storages &add(const std::string &name, const platter_storage_ops &ops, void *user_data,
                  platter_free_fn free_fn)
    {
        return set(platter_storages_add_storage, set_.get(), name.c_str(), &ops, user_data, free_fn,
                   0u);
    }
    storages &add(const std::string &name, const image &shown);
    platter_storages *get() const noexcept { return set_.get(); }

private:
    using owner = detail::owner<platter_storages, platter_storages_free>;
    result<void> begin()
    {
        auto made = detail::make<owner>(platter_storages_new, 0u);
        if (!made)
            return made.error();
        set_ = *std::move(made);
        return {};
    }
    owner set_;
};

/// Interrupts, from any thread, the waits of images that are opened or used with it.
class control : public detail::settings<control> {
public:
    control()
    {
        auto made = detail::make<owner>(platter_control_new, 0u);
        keep(made);
        if (made)
            control_ = *std::move(made);
    }
    void cancel() const noexcept { platter_control_cancel(control_.get()); }
    /// Sets the time after which waits are interrupted; 0 for no deadline.
    control &deadline(std::uint64_t milliseconds)
    {
        return set(platter_control_set_deadline, control_.get(), milliseconds, 0u);
    }
    platter_control *get() const noexcept { return control_.get(); }

private:
    using owner = detail::owner<platter_control, platter_control_free>;
    owner control_;
};

/// How an image is opened.
class open_options : public detail::settings<open_options> {
public:
    open_options() { keep(begin()); }
    open_options &format(const std::string &format)
    {
        return set(platter_open_options_set_format, options_.get(), format.c_str(), 0u);
    }
    open_options &cache(const std::string &mode)
    {
        return set(platter_open_options_set_cache, options_.get(), mode.c_str(), 0u);
    }
    /// Sets an option of the image, keyed as in a `driver=…` string.
    open_options &option(const std::string &key, const std::string &value)
    {
        return set(platter_open_options_set_option, options_.get(), key.c_str(), value.c_str(), 0u);
    }
    /// Sets the compression type of the file: `xz`, `gzip`, `bzip2`, `zstd`, `lz4` or `auto`.
    open_options &decompress(const std::string &kind)
    {
        return set(platter_open_options_set_decompress, options_.get(), kind.c_str(), 0u);
    }
    open_options &discard(bool on)
    {
        return set(platter_open_options_set_discard, options_.get(), on ? 1u : 0u, 0u);
    }
    /// `off`, `on` or `unmap`.
    open_options &detect_zeroes(const std::string &mode)
    {
        return set(platter_open_options_set_detect_zeroes, options_.get(), mode.c_str(), 0u);
    }
    open_options &compression_level(std::int32_t level)
    {
        return set(platter_open_options_set_compression_level, options_.get(), level, 0u);
    }
    open_options &use(const platter::nodes &nodes)
    {
        failed_ = failed_ ? failed_ : nodes.failure();
        return set(platter_open_options_set_nodes, options_.get(), nodes.get(), 0u);
    }
    open_options &use(const platter::control &control)
    {
        failed_ = failed_ ? failed_ : control.failure();
        return set(platter_open_options_set_control, options_.get(), control.get(), 0u);
    }
    open_options &use(const platter::policy &policy)
    {
        failed_ = failed_ ? failed_ : policy.failure();
        return set(platter_open_options_set_policy, options_.get(), policy.get(), 0u);
    }
    open_options &use(const platter::secrets &secrets)
    {
        failed_ = failed_ ? failed_ : secrets.failure();
        return set(platter_open_options_set_secrets, options_.get(), secrets.get(), 0u);
    }
    open_options &use(const platter::storages &storages)
    {
        failed_ = failed_ ? failed_ : storages.failure();
        return set(platter_open_options_set_storages, options_.get(), storages.get(), 0u);
    }
    platter_open_options *get() const noexcept { return options_.get(); }

private:
    using owner = detail::owner<platter_open_options, platter_open_options_free>;
    result<void> begin()
    {
        auto made = detail::make<owner>(platter_open_options_new, 0u);
        if (!made)
            return made.error();
        options_ = *std::move(made);
        return {};
    }
    owner options_;
};

namespace detail {

/// The results of a function for every index, up to the first index without one.
template <typename Object>
std::vector<std::string> lines(const char *(*function)(const Object *, std::size_t),
                               const Object *object)
{
    std::vector<std::string> all;
    while (const char *line = function(object, all.size()))
        all.emplace_back(line);
    return all;
}

} // namespace detail

/// The result of a job or a query.
class report {
public:
    explicit report(platter_report *taken) noexcept : report_(taken) {}
    /// The output of the tool with `--output=json`.
    result<std::string> json() const
    {
        auto text = detail::get<const char *>(platter_report_json, report_.get(), 0u);
        if (!text)
            return text.error();
        return std::string(*text);
    }
    result<std::uint64_t> number(const std::string &key, std::size_t index = 0) const
    {
        return detail::get<std::uint64_t>(platter_report_u64, report_.get(), index, key.c_str(), 0u);
    }
    result<bool> flag(const std::string &key, std::size_t index = 0) const
    {
        auto truth = detail::get<std::uint32_t>(platter_report_bool, report_.get(), index,
                                                key.c_str(), 0u);
        if (!truth)
            return truth.error();
        return *truth != 0;
    }
    result<double> real(const std::string &key, std::size_t index = 0) const
    {
        return detail::get<double>(platter_report_double, report_.get(), index, key.c_str(), 0u);
    }
    /// A PLATTER_REPORT_*.
    std::uint32_t kind() const noexcept { return platter_report_kind(report_.get()); }
    result<std::string> text(const std::string &key, std::size_t index = 0) const
    {
        auto text = detail::get<const char *>(platter_report_string, report_.get(), index,
                                              key.c_str(), 0u);
        if (!text)
            return text.error();
        return std::string(*text);
    }
    result<std::size_t> size() const
    {
        return detail::get<std::size_t>(platter_report_count, report_.get(), 0u);
    }
    /// An entry of a report of extents.
    result<platter_extent> extent(std::size_t index) const
    {
        return detail::get<platter_extent>(platter_report_extent, report_.get(), index, 0u);
    }
    /// The text that the tool prints.
    result<std::string> all_text() const
    {
        auto text = detail::get<const char *>(platter_report_text, report_.get(), 0u);
        if (!text)
            return text.error();
        return std::string(*text);
    }
    /// Warnings for the user, one line each.
    std::vector<std::string> warnings() const
    {
        return detail::lines<platter_report>(platter_report_warning, report_.get());
    }
    /// The exit code that the tool would return.
    result<int> exit_code() const
    {
        return detail::get<int>(platter_report_exit_code, report_.get(), 0u);
    }
    platter_report *get() const noexcept { return report_.get(); }

private:
    detail::owner<platter_report, platter_report_free> report_;
};

namespace detail {

template <typename... Parameters, typename... Arguments>
result<report> make_report(int (*function)(Parameters...), Arguments... arguments)
{
    auto made = get<platter_report *>(function, arguments...);
    if (!made)
        return made.error();
    return report(*made);
}

} // namespace detail

/// A long-running operation.
class job {
public:
    /// Receives the number of bytes done and the total, on the thread that runs the job; returning false cancels the
    /// job. It must not throw.
    using progress = std::function<bool(std::uint64_t done, std::uint64_t total)>;

    explicit job(platter_job *taken) noexcept : job_(taken) {}
    result<void> on_progress(progress told)
    {
        auto kept = std::make_unique<progress>(std::move(told));
        return detail::call(
            platter_job_set_progress, job_.get(),
            +[](const platter_progress *at, void *user_data) noexcept {
                return (*static_cast<progress *>(user_data))(at->done, at->total) ? 0 : 1;
            },
            static_cast<void *>(kept.release()),
            +[](void *user_data) noexcept { delete static_cast<progress *>(user_data); }, 0u);
    }
    /// Sets a function that receives each finding or warning, on the thread that runs the job. It must not throw.
    result<void> on_message(std::function<void(std::string_view line)> told)
    {
        using function = decltype(told);
        auto kept = std::make_unique<function>(std::move(told));
        return detail::call(
            platter_job_set_message, job_.get(),
            +[](const platter_message *message, void *user_data) noexcept {
                (*static_cast<function *>(user_data))(message->text);
            },
            static_cast<void *>(kept.release()),
            +[](void *user_data) noexcept { delete static_cast<function *>(user_data); }, 0u);
    }
    result<void> set_rate(std::uint64_t bytes_per_second)
    {
        return detail::call(platter_job_set_rate, job_.get(), bytes_per_second, 0u);
    }
    /// Sets the time after which the job ends; 0 for no deadline.
    result<void> set_deadline(std::uint64_t milliseconds) const
    {
        return detail::call(platter_job_set_deadline, job_.get(), milliseconds, 0u);
    }
    /// A PLATTER_JOB_STATE_*.
    result<std::uint32_t> state() const
    {
        return detail::get<std::uint32_t>(platter_job_state, job_.get(), 0u);
    }
    result<platter_progress> done() const
    {
        return detail::get<platter_progress>(platter_job_progress, job_.get(), 0u);
    }
    /// The report of a failed job: a check whose repair was refused reports what it found.
    result<report> failure_report() const
    {
        return detail::make_report(platter_job_failure_report, job_.get(), 0u);
    }
    /// The warnings so far, one line each.
    std::vector<std::string> warnings() const
    {
        return detail::lines<platter_job>(platter_job_warning, job_.get());
    }
    /// Runs the job on this thread.
    result<report> run()
    {
        if (auto ran = detail::call(platter_job_run, job_.get(), 0u); !ran)
            return ran.error();
        return result_of(0);
    }
    /// Starts the job on a thread of the library.
    result<void> start() { return detail::call(platter_job_start, job_.get(), 0u); }
    /// Waits for the job to end.
    result<report> wait() { return result_of(PLATTER_JOB_WAIT); }
    /// A descriptor that becomes readable when the job has ended.
    result<int> fd() const { return detail::get<int>(platter_job_fd, job_.get(), 0u); }
    void cancel() const noexcept { platter_job_cancel(job_.get()); }
    result<void> pause() const { return detail::call(platter_job_pause, job_.get(), 0u); }
    result<void> resume() const { return detail::call(platter_job_resume, job_.get(), 0u); }
    platter_job *get() const noexcept { return job_.get(); }

private:
    result<report> result_of(std::uint32_t flags)
    {
        return detail::make_report(platter_job_result, job_.get(), flags);
    }
    detail::owner<platter_job, platter_job_free> job_;
};

namespace detail {

template <typename... Parameters, typename... Arguments>
result<job> make_job(int (*function)(Parameters...), Arguments... arguments)
{
    auto made = get<platter_job *>(function, arguments...);
    if (!made)
        return made.error();
    return job(*made);
}

} // namespace detail

/// An open image. close() reports whether everything was written; the destructor closes it without a report.
class image {
public:
    explicit image(platter_image *taken) noexcept : image_(taken) {}
    /// Opens an image by location. `flags` are bits of PLATTER_OPEN_* and PLATTER_LOCATION_*.
    static result<image> open(const std::string &location, const open_options &how = {},
                              std::uint32_t flags = 0)
    {
        if (how.failure())
            return *how.failure();
        auto made = detail::get<platter_image *>(platter_image_open, location.c_str(), how.get(),
                                                 flags);
        if (!made)
            return made.error();
        return image(*made);
    }
    /// Opens an image by a descriptor, which is duplicated.
    static result<image> open(int fd, const open_options &how = {}, std::uint32_t flags = 0)
    {
        if (how.failure())
            return *how.failure();
        auto made = detail::get<platter_image *>(platter_image_open_fd, fd,
                                                 static_cast<const char *>(nullptr), how.get(),
                                                 flags);
        if (!made)
            return made.error();
        return image(*made);
    }
    /// Opens an image in a storage of the program; `name` is used in messages.
    static result<image> open(const platter_storage_ops &ops, const std::string &name,
                              void *user_data, platter_free_fn free_fn,
                              const open_options &how = {}, std::uint32_t flags = 0)
    {
        if (how.failure())
            return *how.failure();
        auto made = detail::get<platter_image *>(platter_image_open_storage, &ops, name.c_str(),
                                                 user_data, free_fn, how.get(), flags);
        if (!made)
            return made.error();
        return image(*made);
    }
    /// Lets a control interrupt the waits of this image.
    result<void> use(const platter::control &control) const
    {
        if (control.failure())
            return *control.failure();
        return detail::call(platter_image_set_control, image_.get(), control.get(), 0u);
    }
    result<void> close()
    {
        return detail::call(platter_image_close, image_.release(), 0u);
    }
    result<std::uint64_t> size() const
    {
        return detail::get<std::uint64_t>(platter_image_size, image_.get(), 0u);
    }
    std::string_view format() const { return platter_image_format(image_.get()); }
    std::string filename() const { return platter_image_filename(image_.get()); }
    /// Fills the whole buffer from an offset.
    result<void> read(bytes buffer, std::uint64_t offset) const
    {
        return detail::call(platter_image_read, image_.get(), buffer.data(), buffer.size(), offset,
                            0u);
    }
    /// Writes the whole buffer at an offset. `flags` is 0 or PLATTER_WRITE_FUA.
    result<void> write(const_bytes buffer, std::uint64_t offset, std::uint32_t flags = 0) const
    {
        return detail::call(platter_image_write, image_.get(), buffer.data(), buffer.size(), offset,
                            flags);
    }
    result<void> write_zeroes(std::uint64_t offset, std::uint64_t length,
                              std::uint32_t flags = 0) const
    {
        return detail::call(platter_image_write_zeroes, image_.get(), offset, length, flags);
    }
    result<void> discard(std::uint64_t offset, std::uint64_t length) const
    {
        return detail::call(platter_image_discard, image_.get(), offset, length, 0u);
    }
    result<void> prefetch(std::uint64_t offset, std::uint64_t length) const
    {
        return detail::call(platter_image_prefetch, image_.get(), offset, length, 0u);
    }
    result<void> flush() const { return detail::call(platter_image_flush, image_.get(), 0u); }
    /// The extent at an offset: a run of one kind.
    result<platter_extent> extent(std::uint64_t offset, std::uint64_t length) const
    {
        return detail::get<platter_extent>(platter_image_extent, image_.get(), offset, length, 0u);
    }
    /// `flags` are bits of PLATTER_CHECK_*.
    result<job> check(std::uint32_t flags = 0) const
    {
        return detail::make_job(platter_check_job_new, image_.get(), flags);
    }
    /// `flags` are bits of PLATTER_RESIZE_*.
    result<job> resize(std::uint64_t size, std::uint32_t flags = 0) const
    {
        return detail::make_job(platter_resize_job_new, image_.get(), size,
                                static_cast<const char *>(nullptr), flags);
    }
    /// Bits of PLATTER_FEATURE_*.
    result<std::uint32_t> features() const
    {
        return detail::get<std::uint32_t>(platter_image_features, image_.get(), 0u);
    }
    bool is_read_only() const noexcept { return platter_image_is_read_only(image_.get()) != 0; }
    /// Warnings from when it was opened, one line each.
    std::vector<std::string> warnings() const
    {
        return detail::lines<platter_image>(platter_image_warning, image_.get());
    }
    result<report> info() const
    {
        return detail::make_report(platter_image_info, image_.get(), 0u);
    }
    /// The runs of a range.
    result<job> map(std::uint64_t offset, std::uint64_t length) const
    {
        return detail::make_job(platter_map_job_new, image_.get(), offset, length, 0u);
    }
    /// Copies the data of this layer into the image below, or into the one named `base`. The job takes the image over.
    result<job> commit(const std::optional<std::string> &base = {}, const open_options &how = {},
                       std::uint32_t flags = 0) &&
    {
        if (how.failure())
            return *how.failure();
        auto made = detail::make_job(platter_commit_image_job_new, image_.get(),
                                     base ? base->c_str() : nullptr, how.get(), flags);
        return taken_over_by(std::move(made));
    }
    /// Gives this layer another backing file, or none by an empty name. The job takes the image over.
    result<job> rebase(const std::string &backing, const std::string &backing_format,
                       const open_options &how = {}, std::uint32_t flags = 0) &&
    {
        if (how.failure())
            return *how.failure();
        auto made = detail::make_job(platter_rebase_image_job_new, image_.get(), backing.c_str(),
                                     backing_format.empty() ? nullptr : backing_format.c_str(),
                                     static_cast<const char *>(nullptr), how.get(), flags);
        return taken_over_by(std::move(made));
    }
    result<job> amend(const options &of, const secrets &held = {}, std::uint32_t flags = 0) const
    {
        if (of.failure() || held.failure())
            return of.failure() ? *of.failure() : *held.failure();
        return detail::make_job(platter_amend_job_new, image_.get(), of.get(), held.get(), flags);
    }
    /// Times many requests. PLATTER_BENCH_WRITE overwrites the disk.
    result<job> bench(const platter_bench &wanted, std::uint32_t flags = 0) const
    {
        return detail::make_job(platter_bench_job_new, image_.get(), &wanted, flags);
    }
    result<report> snapshots() const
    {
        return detail::make_report(platter_snapshot_list, image_.get(), 0u);
    }
    result<job> create_snapshot(const std::string &name) const
    {
        return detail::make_job(platter_snapshot_create_job_new, image_.get(), name.c_str(), 0u);
    }
    /// Takes an ID or a name, as the functions below do.
    result<job> apply_snapshot(const std::string &snapshot) const
    {
        return detail::make_job(platter_snapshot_apply_job_new, image_.get(), snapshot.c_str(), 0u);
    }
    result<job> delete_snapshot(const std::string &snapshot) const
    {
        return detail::make_job(platter_snapshot_delete_job_new, image_.get(), snapshot.c_str(), 0u);
    }
    /// Shows the snapshot in place of the present disk, read-only, until the image is closed.
    result<void> show_snapshot(const std::string &snapshot)
    {
        return detail::call(platter_snapshot_show, image_.get(), snapshot.c_str(), 0u);
    }
    result<report> bitmaps() const
    {
        return detail::make_report(platter_bitmap_list, image_.get(), 0u);
    }
    /// A granularity of 0 selects the default of the format.
    result<void> add_bitmap(const std::string &name, std::uint64_t granularity = 0) const
    {
        return detail::call(platter_bitmap_add, image_.get(), name.c_str(), granularity, 0u);
    }
    result<void> remove_bitmap(const std::string &name) const
    {
        return detail::call(platter_bitmap_remove, image_.get(), name.c_str(), 0u);
    }
    result<void> clear_bitmap(const std::string &name) const
    {
        return detail::call(platter_bitmap_clear, image_.get(), name.c_str(), 0u);
    }
    result<void> enable_bitmap(const std::string &name) const
    {
        return detail::call(platter_bitmap_enable, image_.get(), name.c_str(), 0u);
    }
    result<void> disable_bitmap(const std::string &name) const
    {
        return detail::call(platter_bitmap_disable, image_.get(), name.c_str(), 0u);
    }
    /// Merges the dirty ranges of a bitmap of another image.
    result<void> merge_bitmap(const std::string &name, const image &from,
                              const std::string &source) const
    {
        return detail::call(platter_bitmap_merge, image_.get(), name.c_str(), from.get(),
                            source.c_str(), 0u);
    }
    /// The runs of a range that are dirty in a bitmap.
    result<report> dirty(const std::string &name, std::uint64_t offset, std::uint64_t length) const
    {
        return detail::make_report(platter_bitmap_dirty, image_.get(), name.c_str(), offset, length, 0u);
    }
    platter_image *get() const noexcept { return image_.get(); }

private:
    /// Once a job exists it owns the image, which must not be freed here.
    result<job> taken_over_by(result<job> made)
    {
        if (made)
            (void)image_.release();
        return made;
    }
    struct closer {
        void operator()(platter_image *object) const noexcept
        {
            platter_image_close(object, 0, nullptr);
        }
    };
    std::unique_ptr<platter_image, closer> image_;
};

inline storages &storages::add(const std::string &name, const image &shown)
{
    return set(platter_storages_add_image, set_.get(), name.c_str(), shown.get(), 0u);
}

/// A new image to be created.
class creation : public detail::settings<creation> {
public:
    creation(const std::string &location, const std::string &format, std::uint32_t flags = 0)
    {
        auto made = detail::make<owner>(platter_create_new, location.c_str(), format.c_str(), flags);
        keep(made);
        if (made)
            request_ = *std::move(made);
    }
    creation &size(std::uint64_t size)
    {
        return set(platter_create_set_size, request_.get(), size, 0u);
    }
    creation &backing(const std::string &file, const std::string &format)
    {
        return set(platter_create_set_backing, request_.get(), file.c_str(), format.c_str(), 0u);
    }
    creation &use(const platter::options &options)
    {
        failed_ = failed_ ? failed_ : options.failure();
        return set(platter_create_set_options, request_.get(), options.get(), 0u);
    }
    creation &use(const platter::control &control)
    {
        failed_ = failed_ ? failed_ : control.failure();
        return set(platter_create_set_control, request_.get(), control.get(), 0u);
    }
    creation &use(const platter::policy &policy)
    {
        failed_ = failed_ ? failed_ : policy.failure();
        return set(platter_create_set_policy, request_.get(), policy.get(), 0u);
    }
    creation &use(const platter::secrets &secrets)
    {
        failed_ = failed_ ? failed_ : secrets.failure();
        return set(platter_create_set_secrets, request_.get(), secrets.get(), 0u);
    }
    creation &use(const platter::storages &storages)
    {
        failed_ = failed_ ? failed_ : storages.failure();
        return set(platter_create_set_storages, request_.get(), storages.get(), 0u);
    }
    /// `flags` is 0 or PLATTER_CREATE_EXCLUSIVE.
    result<job> make_job(std::uint32_t flags = 0) const
    {
        if (failed_)
            return *failed_;
        return detail::make_job(platter_create_job_new, request_.get(), flags);
    }
    /// Creates it on this thread.
    result<report> run() const
    {
        auto made = make_job();
        if (!made)
            return made.error();
        return made->run();
    }

private:
    using owner = detail::owner<platter_create, platter_create_free>;
    owner request_;
};

/// A conversion to be carried out.
class conversion : public detail::settings<conversion> {
public:
    conversion()
    {
        auto made = detail::make<owner>(platter_convert_new, 0u);
        keep(made);
        if (made)
            request_ = *std::move(made);
    }
    /// Several sources are concatenated.
    conversion &from(const std::string &location, std::uint32_t flags = 0)
    {
        return set(platter_convert_add_source, request_.get(), location.c_str(), flags);
    }
    /// Sets a source that is read in order.
    conversion &from(int fd) { return set(platter_convert_set_source_fd, request_.get(), fd, 0u); }
    conversion &snapshot(const std::string &snapshot)
    {
        return set(platter_convert_set_snapshot, request_.get(), snapshot.c_str(), 0u);
    }
    /// Sets a target that is written in order.
    conversion &to(int fd) { return set(platter_convert_set_target_fd, request_.get(), fd, 0u); }
    /// Selects what a product accepts: the name of one of profiles().
    conversion &profile(const std::string &profile)
    {
        return set(platter_convert_set_profile, request_.get(), profile.c_str(), 0u);
    }
    conversion &backing(const std::string &file, const std::string &format)
    {
        return set(platter_convert_set_backing, request_.get(), file.c_str(), format.c_str(), 0u);
    }
    conversion &cache(const std::string &mode)
    {
        return set(platter_convert_set_target_cache, request_.get(), mode.c_str(), 0u);
    }
    /// `sha256`, of the bytes that the guest sees.
    conversion &checksum(const std::string &algorithm)
    {
        return set(platter_convert_set_checksum, request_.get(), algorithm.c_str(), 0u);
    }
    /// A PLATTER_CONVERT_CONFLICT_* between the settings and `flags`, those of the job; 0 for none.
    result<std::uint32_t> check(std::uint32_t flags = 0) const
    {
        if (failed_)
            return *failed_;
        return detail::get<std::uint32_t>(platter_convert_check, request_.get(), flags);
    }
    /// `which` is PLATTER_CONVERT_SPARSE_SIZE or PLATTER_CONVERT_PARALLEL.
    conversion &number(std::uint32_t which, std::uint64_t value)
    {
        return set(platter_convert_set_number, request_.get(), which, value, 0u);
    }
    conversion &use(const platter::policy &policy)
    {
        failed_ = failed_ ? failed_ : policy.failure();
        return set(platter_convert_set_target_policy, request_.get(), policy.get(), 0u);
    }
    conversion &source(const open_options &how, std::uint32_t flags = 0)
    {
        failed_ = failed_ ? failed_ : how.failure();
        return set(platter_convert_set_source_options, request_.get(), how.get(), flags);
    }
    /// An empty format selects that of the profile.
    conversion &to(const std::string &location, const std::string &format, std::uint32_t flags = 0)
    {
        return set(platter_convert_set_target, request_.get(), location.c_str(),
                   format.empty() ? nullptr : format.c_str(), flags);
    }
    conversion &use(const platter::options &options)
    {
        failed_ = failed_ ? failed_ : options.failure();
        return set(platter_convert_set_target_options, request_.get(), options.get(), 0u);
    }
    conversion &use(const platter::secrets &secrets)
    {
        failed_ = failed_ ? failed_ : secrets.failure();
        return set(platter_convert_set_secrets, request_.get(), secrets.get(), 0u);
    }
    conversion &use(const platter::storages &storages)
    {
        failed_ = failed_ ? failed_ : storages.failure();
        return set(platter_convert_set_storages, request_.get(), storages.get(), 0u);
    }
    /// `flags` are bits of PLATTER_CONVERT_*.
    result<job> make_job(std::uint32_t flags = 0) const
    {
        if (failed_)
            return *failed_;
        return detail::make_job(platter_convert_job_new, request_.get(), flags);
    }

private:
    using owner = detail::owner<platter_convert, platter_convert_free>;
    owner request_;
};

/// Compares the guest bytes of two images.
inline result<job> compare(const image &first, const image &second, std::uint32_t flags = 0)
{
    return detail::make_job(platter_compare_job_new, first.get(), second.get(), flags);
}

/// Describes an image; `flags` are bits of PLATTER_INFO_CHAIN, PLATTER_OPEN_FORCE_SHARE and PLATTER_LOCATION_*.
inline result<report> describe(const std::string &location, const open_options &how = {},
                               std::uint32_t flags = 0)
{
    if (how.failure())
        return *how.failure();
    return detail::make_report(platter_image_describe, location.c_str(), how.get(), flags);
}

/// Whether a file from elsewhere is safe to use, and acceptable to the product of a profile, if one is named.
inline result<report> inspect(const std::string &location, const open_options &how = {},
                              const std::optional<std::string> &profile = {},
                              std::uint32_t flags = 0)
{
    if (how.failure())
        return *how.failure();
    if (profile)
        return detail::make_report(platter_inspect_for_profile, location.c_str(), profile->c_str(),
                                   how.get(), flags);
    return detail::make_report(platter_inspect, location.c_str(), how.get(), flags);
}

/// As inspect(), for a descriptor.
inline result<report> inspect(int fd, const open_options &how = {})
{
    if (how.failure())
        return *how.failure();
    return detail::make_report(platter_inspect_fd, fd, static_cast<const char *>(nullptr),
                               how.get(), 0u);
}

/// As inspect(), for a storage of the program.
inline result<report> inspect(const platter_storage_ops &ops, const std::string &name,
                              void *user_data, platter_free_fn free_fn,
                              const open_options &how = {})
{
    if (how.failure())
        return *how.failure();
    return detail::make_report(platter_inspect_storage, &ops, name.c_str(), user_data, free_fn,
                               how.get(), 0u);
}

/// What an NBD server offers. It does not matter which of its exports the location names.
inline result<report> exports(const std::string &location, const open_options &how = {},
                              std::uint32_t flags = 0)
{
    if (how.failure())
        return *how.failure();
    return detail::make_report(platter_export_list, location.c_str(), how.get(), flags);
}

/// The products for which images are created; the library owns the descriptions for ever.
inline std::vector<const platter_profile_info *> profiles()
{
    std::vector<const platter_profile_info *> all;
    const platter_profile_info *profile = nullptr;
    while (platter_profile_describe(&profile, all.size(), 0, nullptr) == PLATTER_OK)
        all.push_back(profile);
    return all;
}

/// Copies the data of an overlay into an image of its chain, the next one if none is named. `flags` are bits of
/// PLATTER_COMMIT_* and PLATTER_LOCATION_*.
inline result<job> commit(const std::string &location, const open_options &how = {},
                          const std::optional<std::string> &base = {}, std::uint32_t flags = 0)
{
    if (how.failure())
        return *how.failure();
    return detail::make_job(platter_commit_job_new, location.c_str(),
                            base ? base->c_str() : nullptr, how.get(), flags);
}

/// Gives an overlay another backing file, or none by an empty name. `flags` are bits of PLATTER_REBASE_* and
/// PLATTER_LOCATION_*.
inline result<job> rebase(const std::string &location, const std::string &backing,
                          const std::string &backing_format, const open_options &how = {},
                          std::uint32_t flags = 0)
{
    if (how.failure())
        return *how.failure();
    return detail::make_job(platter_rebase_job_new, location.c_str(), backing.c_str(),
                            backing_format.empty() ? nullptr : backing_format.c_str(),
                            static_cast<const char *>(nullptr), how.get(), flags);
}

/// How large a new image of a size would be.
inline result<job> measure(std::uint64_t size, const std::string &format,
                           const options &of = {})
{
    if (of.failure())
        return *of.failure();
    return detail::make_job(platter_measure_job_new, static_cast<const platter_image *>(nullptr),
                            size, format.c_str(), of.get(), 0u);
}

/// How large a new image with the content of another would be.
inline result<job> measure(const image &source, const std::string &format, const options &of = {})
{
    if (of.failure())
        return *of.failure();
    return detail::make_job(platter_measure_job_new,
                            static_cast<const platter_image *>(source.get()), std::uint64_t{0},
                            format.c_str(), of.get(), 0u);
}

/// A copy of blocks of an image or of a descriptor.
class copy : public detail::settings<copy> {
public:
    copy()
    {
        auto made = detail::make<owner>(platter_dd_new, 0u);
        keep(made);
        if (made)
            request_ = *std::move(made);
    }
    copy &from(const std::string &location, std::uint32_t flags = 0)
    {
        return set(platter_dd_set_input, request_.get(), location.c_str(), flags);
    }
    /// Sets an input that is read in order.
    copy &from(int fd) { return set(platter_dd_set_input_fd, request_.get(), fd, 0u); }
    copy &source(const open_options &how, std::uint32_t flags = 0)
    {
        failed_ = failed_ ? failed_ : how.failure();
        return set(platter_dd_set_input_options, request_.get(), how.get(), flags);
    }
    copy &snapshot(const std::string &snapshot)
    {
        return set(platter_dd_set_snapshot, request_.get(), snapshot.c_str(), 0u);
    }
    copy &to(const std::string &location, const std::string &format, std::uint32_t flags = 0)
    {
        return set(platter_dd_set_output, request_.get(), location.c_str(), format.c_str(), flags);
    }
    /// Sets an output that is written in order.
    copy &to(int fd) { return set(platter_dd_set_output_fd, request_.get(), fd, 0u); }
    copy &cache(const std::string &mode)
    {
        return set(platter_dd_set_output_cache, request_.get(), mode.c_str(), 0u);
    }
    /// `which` is PLATTER_DD_BLOCK_SIZE, _COUNT, _SKIP, _INPUT_SIZE or _OUTPUT_SIZE.
    copy &number(std::uint32_t which, std::uint64_t value)
    {
        return set(platter_dd_set_number, request_.get(), which, value, 0u);
    }
    copy &use(const platter::policy &policy)
    {
        failed_ = failed_ ? failed_ : policy.failure();
        return set(platter_dd_set_output_policy, request_.get(), policy.get(), 0u);
    }
    copy &use(const platter::secrets &secrets)
    {
        failed_ = failed_ ? failed_ : secrets.failure();
        return set(platter_dd_set_secrets, request_.get(), secrets.get(), 0u);
    }
    copy &use(const platter::storages &storages)
    {
        failed_ = failed_ ? failed_ : storages.failure();
        return set(platter_dd_set_output_storages, request_.get(), storages.get(), 0u);
    }
    /// `flags` are PLATTER_DD_OUTPUT_EXISTS and PLATTER_DD_EXCLUSIVE.
    result<job> make_job(std::uint32_t flags = 0) const
    {
        if (failed_)
            return *failed_;
        return detail::make_job(platter_dd_job_new, request_.get(), flags);
    }

private:
    using owner = detail::owner<platter_dd, platter_dd_free>;
    owner request_;
};

/// What a server offers from an image: all of it, read-only, under the empty name, unless told otherwise.
class offer : public detail::settings<offer> {
public:
    /// `flags` are bits of PLATTER_EXPORT_*.
    explicit offer(const image &shown, std::uint32_t flags = 0)
    {
        auto made = detail::make<owner>(platter_export_new, shown.get(), flags);
        keep(made);
        if (made)
            export_ = *std::move(made);
    }
    offer &name(const std::string &name)
    {
        return set(platter_export_set_name, export_.get(), name.c_str(), 0u);
    }
    offer &description(const std::string &description)
    {
        return set(platter_export_set_description, export_.get(), description.c_str(), 0u);
    }
    offer &window(std::uint64_t offset, std::uint64_t length = PLATTER_EXPORT_REST)
    {
        return set(platter_export_set_window, export_.get(), offset, length, 0u);
    }
    offer &bitmap(const std::string &name)
    {
        return set(platter_export_add_bitmap, export_.get(), name.c_str(), 0u);
    }
    platter_export *get() const noexcept { return export_.get(); }

private:
    using owner = detail::owner<platter_export, platter_export_free>;
    owner export_;
};

/// Serves images until it is stopped, which the destructor also does.
class server {
public:
    explicit server(platter_server *taken) noexcept : server_(taken) {}
    static result<server> make(const std::optional<platter_server_limits> &limits = {})
    {
        auto made = detail::get<platter_server *>(platter_server_new, limits ? &*limits : nullptr, 0u);
        if (!made)
            return made.error();
        return server(*made);
    }
    result<void> set_tls(const secrets &held, const std::string &credentials,
                         const std::optional<std::string> &authorization = {}) const
    {
        if (held.failure())
            return *held.failure();
        return detail::call(platter_server_set_tls, server_.get(), held.get(), credentials.c_str(),
                            authorization ? authorization->c_str() : nullptr, 0u);
    }
    /// Offers an export to NBD clients from now on.
    result<void> add(const offer &offered) const
    {
        if (offered.failure())
            return *offered.failure();
        return detail::call(platter_server_add_export, server_.get(), offered.get(), 0u);
    }
    /// A negative timeout waits for ever.
    result<void> remove(const std::string &name, std::int64_t timeout_ms = -1) const
    {
        return detail::call(platter_server_remove_export, server_.get(), name.c_str(), timeout_ms, 0u);
    }
    result<platter_offered> offered(const std::string &name) const
    {
        return detail::get<platter_offered>(platter_server_get_export, server_.get(), name.c_str(), 0u);
    }
    /// Listens on `unix:PATH`, `inet:HOST:PORT`, `vsock:CID:PORT` or `fd:NUMBER`.
    result<void> listen(const std::string &address) const
    {
        return detail::call(platter_server_listen, server_.get(), address.c_str(), 0u);
    }
    /// Serves a client that is already connected.
    result<void> serve(int input, int output) const
    {
        return detail::call(platter_server_serve_fds, server_.get(), input, output, 0u);
    }
    /// Shows the export as a file, by FUSE. `flags` are bits of PLATTER_MOUNT_*.
    result<void> mount(const offer &offered, const std::string &path, std::uint32_t flags = 0) const
    {
        if (offered.failure())
            return *offered.failure();
        return detail::call(platter_server_mount, server_.get(), offered.get(), path.c_str(), flags);
    }
    /// Offers the export as a block device for virtual machines.
    result<void> listen_vhost_user(const offer &offered, const std::string &path,
                                   std::uint32_t queues = 1) const
    {
        if (offered.failure())
            return *offered.failure();
        return detail::call(platter_server_listen_vhost_user, server_.get(), offered.get(),
                            path.c_str(), queues, 0u);
    }
    std::vector<std::string> addresses() const
    {
        return detail::lines<platter_server>(platter_server_address, server_.get());
    }
    /// A descriptor that is readable when clients have connected or disconnected.
    result<int> fd() const { return detail::get<int>(platter_server_fd, server_.get(), 0u); }
    result<platter_server_statistics> statistics() const
    {
        return detail::get<platter_server_statistics>(platter_server_get_statistics, server_.get(), 0u);
    }
    /// The most recent error for which a request failed or a client was disconnected.
    std::optional<error> last_error() const
    {
        platter_error *failed = platter_server_last_error(server_.get());
        if (failed == nullptr)
            return {};
        return error(platter_error_status(failed), failed);
    }
    /// A negative timeout waits for ever.
    result<void> drain(std::int64_t timeout_ms = -1) const
    {
        return detail::call(platter_server_drain, server_.get(), timeout_ms, 0u);
    }
    result<void> stop() const { return detail::call(platter_server_stop, server_.get(), 0u); }
    platter_server *get() const noexcept { return server_.get(); }

private:
    detail::owner<platter_server, platter_server_free> server_;
};

/// Sends log lines of a PLATTER_LOG_* and more severe ones to a function, on any thread; it must not throw.
inline result<void> set_log(std::uint32_t level,
                            std::function<void(std::uint32_t level, std::string_view line)> log)
{
    using function = decltype(log);
    auto kept = std::make_unique<function>(std::move(log));
    return detail::call(
        platter_log_set,
        +[](std::uint32_t at, const char *line, void *user_data) noexcept {
            (*static_cast<function *>(user_data))(at, line);
        },
        static_cast<void *>(kept.release()),
        +[](void *user_data) noexcept { delete static_cast<function *>(user_data); }, level, 0u);
}

/// Switches trace events by their names (`*` and `?` are wildcards); they are lines of PLATTER_LOG_TRACE. Returns how
/// many match.
inline result<std::size_t> trace(const std::string &pattern, bool on = true)
{
    return detail::get<std::size_t>(platter_trace_switch, pattern.c_str(), on ? 1u : 0u, 0u);
}

/// The names of all trace events.
inline std::vector<std::string> trace_events()
{
    std::vector<std::string> all;
    while (const char *name = platter_trace_event(all.size()))
        all.emplace_back(name);
    return all;
}

/// A human-readable size: "1.5 MiB".
inline result<std::string> format_size(std::uint64_t bytes)
{
    auto text = detail::get<char *>(platter_size_format, bytes, 0u);
    if (!text)
        return text.error();
    std::string copy = *text;
    platter_free(*text);
    return copy;
}

/// Asynchronous requests to an image. It belongs to one thread; the image and the buffers must outlive it.
class queue {
public:
    /// Opens a queue with at most `depth` requests in flight; `flags` are bits of PLATTER_QUEUE_*.
    static result<queue> open(const image &over, std::uint32_t depth, std::uint32_t flags = 0)
    {
        auto made = detail::get<platter_queue *>(platter_queue_new, over.get(), depth, flags);
        if (!made)
            return made.error();
        return queue(*made);
    }
    /// A descriptor that becomes readable when something has completed.
    result<int> fd() { return detail::get<int>(platter_queue_fd, queue_.get(), 0u); }
    /// The number of requests not yet reaped.
    std::size_t outstanding() { return platter_queue_outstanding(queue_.get()); }
    void read(bytes into, std::uint64_t offset, void *user_data, std::uint32_t flags = 0)
    {
        platter_queue_read(queue_.get(), into.data(), into.size(), offset, user_data, flags);
    }
    void write(const_bytes from, std::uint64_t offset, void *user_data, std::uint32_t flags = 0)
    {
        platter_queue_write(queue_.get(), from.data(), from.size(), offset, user_data, flags);
    }
    void write_zeroes(std::uint64_t offset, std::uint64_t length, void *user_data,
                      std::uint32_t flags = 0)
    {
        platter_queue_write_zeroes(queue_.get(), offset, length, user_data, flags);
    }
    void discard(std::uint64_t offset, std::uint64_t length, void *user_data,
                 std::uint32_t flags = 0)
    {
        platter_queue_discard(queue_.get(), offset, length, user_data, flags);
    }
    void flush(void *user_data, std::uint32_t flags = 0)
    {
        platter_queue_flush(queue_.get(), user_data, flags);
    }
    /// Returns at most `most` completions; waits for `least` of them, for up to `timeout_ms` or without limit (-1).
    result<std::vector<platter_completion>> reap(std::size_t most, std::size_t least = 0,
                                                 std::int64_t timeout_ms = -1)
    {
        std::vector<platter_completion> done(most);
        auto count = detail::get<std::size_t>(platter_queue_reap, queue_.get(), done.data(), most,
                                              least, timeout_ms, 0u);
        if (!count)
            return count.error();
        done.resize(*count);
        return done;
    }

private:
    explicit queue(platter_queue *taken) noexcept : queue_(taken) {}
    detail::owner<platter_queue, platter_queue_free> queue_;
};

} // namespace platter

#endif // PLATTER_HPP
