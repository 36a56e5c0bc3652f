// Platter for C++17: owning objects and results over the C interface, in this one header.
//
// Every call that can fail gives a platter::result: a value, or a platter::error. A result that is not looked at is
// a warning of the compiler. value() throws the error; in a program without exceptions it ends the program, and
// operator bool, operator* and error() are what is used:
//
//     auto image = platter::image::open("disk.qcow2", platter::open_options().format("qcow2"));
//     if (!image)
//         return report(image.error().message());
//     platter::result<void> read = image->read(buffer, 0);
//
// Objects are moved, not copied, and are freed with their last owner. get() gives the object of the C interface,
// whose manual says the rest: which threads may call, which flags there are.
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

/// Bytes to read from: contiguous memory of the caller.
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

/// Bytes to write to: contiguous memory of the caller, such as a vector, an array or a std::span.
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
    /// Takes what a call of the C interface has stored; without an error object the status alone is known.
    error(int status, platter_error *taken) : status_(status)
    {
        const detail::owner<platter_error, platter_error_free> owned(taken);
        message_ = platter_status_name(status);
        errno_ = platter_status_errno(status);
        if (taken == nullptr)
            return;
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
    /// The errno that fits best; 0 for none.
    int os_errno() const noexcept { return errno_; }
    /// One line that names the file and the reason.
    const std::string &message() const noexcept { return message_; }
    /// Where in the file it is, if that is known.
    std::optional<std::uint64_t> offset() const noexcept { return offset_; }
    /// The file whose reading, writing or syncing failed, if any did.
    const std::optional<std::string> &file() const noexcept { return file_; }
    /// What can be done, a line each.
    const std::vector<std::string> &hints() const noexcept { return hints_; }
#ifdef PLATTER_HPP_EXCEPTIONS
    const char *what() const noexcept override { return message_.c_str(); }
#endif

private:
    int status_;
    int errno_ = 0;
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

/// A value, or why there is none.
template <typename T> class [[nodiscard]] result {
public:
    result(T value) : held_(std::in_place_index<0>, std::move(value)) {}
    result(platter::error failed) : held_(std::in_place_index<1>, std::move(failed)) {}
    bool has_value() const noexcept { return held_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }
    /// The value; throws the error.
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
    /// The error, where there is no value.
    const platter::error &error() const { return *std::get_if<1>(&held_); }

private:
    void check() const
    {
        if (!has_value())
            detail::fail(error());
    }
    std::variant<T, platter::error> held_;
};

/// Nothing, or why it failed.
template <> class [[nodiscard]] result<void> {
public:
    result() = default;
    result(platter::error failed) : failed_(std::move(failed)) {}
    bool has_value() const noexcept { return !failed_; }
    explicit operator bool() const noexcept { return has_value(); }
    /// Throws the error.
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

/// Calls a function whose last parameter is the place of an error.
template <typename... Parameters, typename... Arguments>
result<void> call(int (*function)(Parameters...), Arguments... arguments)
{
    platter_error *failed = nullptr;
    const int status = function(arguments..., &failed);
    if (status != PLATTER_OK)
        return error(status, failed);
    return {};
}

/// As call(), of a function that stores a value first.
template <typename Value, typename... Parameters, typename... Arguments>
result<Value> get(int (*function)(Parameters...), Arguments... arguments)
{
    Value value{};
    if (auto called = call(function, &value, arguments...); !called)
        return called.error();
    return value;
}

/// As get(), of a function that makes an object.
template <typename Owner, typename... Parameters, typename... Arguments>
result<Owner> make(int (*function)(Parameters...), Arguments... arguments)
{
    auto made = get<typename Owner::pointer>(function, arguments...);
    if (!made)
        return made.error();
    return Owner(*made);
}

/// A chain of setters keeps the first failure for the call that ends it.
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
    /// The first call that failed; whoever is given the object fails with it.
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

/// The formats, protocols and filters of the library, which owns what it tells of them for ever.
inline std::vector<const platter_driver_info *> drivers()
{
    std::vector<const platter_driver_info *> all;
    const platter_driver_info *driver = nullptr;
    while (platter_driver_describe(&driver, all.size(), 0, nullptr) == PLATTER_OK)
        all.push_back(driver);
    return all;
}

/// What a driver takes for a PLATTER_OPERATION_*; the library owns it for ever.
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
        /* It ends with the last option, unless there is no such driver. */
        if (option.error().status() != PLATTER_STATUS_NOT_FOUND ||
            platter_driver_find(&known, driver.c_str(), 0, 0, nullptr) != PLATTER_OK)
            return option.error();
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
    /// A list such as "cluster_size=64k,lazy_refcounts=on".
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

/// Secrets by ID.
class secrets : public detail::settings<secrets> {
public:
    secrets() { keep(begin()); }
    secrets &add(const std::string &id, const_bytes secret)
    {
        return set(platter_secrets_add, set_.get(), id.c_str(), secret.data(), secret.size(), 0u);
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
    policy &add_directory(const std::string &directory)
    {
        return set(platter_policy_add_directory, policy_.get(), directory.c_str(), 0u);
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

class image;

/// Storages of the program under names that locations use.
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
    /// An option of the image, keyed as in a `driver=…` string.
    open_options &option(const std::string &key, const std::string &value)
    {
        return set(platter_open_options_set_option, options_.get(), key.c_str(), value.c_str(), 0u);
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

/// What a job or a query found out.
class report {
public:
    explicit report(platter_report *taken) noexcept : report_(taken) {}
    /// What `--output=json` of the tool prints.
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
    /// What the tool would exit with.
    result<int> exit_code() const
    {
        return detail::get<int>(platter_report_exit_code, report_.get(), 0u);
    }
    platter_report *get() const noexcept { return report_.get(); }

private:
    detail::owner<platter_report, platter_report_free> report_;
};

/// Work that takes long.
class job {
public:
    /// Is told how many of how many bytes are done, on the thread that runs the job; false cancels it. It must not
    /// throw.
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
    result<void> set_rate(std::uint64_t bytes_per_second)
    {
        return detail::call(platter_job_set_rate, job_.get(), bytes_per_second, 0u);
    }
    /// Runs it on this thread.
    result<report> run()
    {
        if (auto ran = detail::call(platter_job_run, job_.get(), 0u); !ran)
            return ran.error();
        return result_of(0);
    }
    /// Starts it on a thread of the library.
    result<void> start() { return detail::call(platter_job_start, job_.get(), 0u); }
    /// Waits for its end.
    result<report> wait() { return result_of(PLATTER_JOB_WAIT); }
    /// Becomes readable when it has ended.
    result<int> fd() const { return detail::get<int>(platter_job_fd, job_.get(), 0u); }
    void cancel() const noexcept { platter_job_cancel(job_.get()); }
    result<void> pause() const { return detail::call(platter_job_pause, job_.get(), 0u); }
    result<void> resume() const { return detail::call(platter_job_resume, job_.get(), 0u); }
    platter_job *get() const noexcept { return job_.get(); }

private:
    result<report> result_of(std::uint32_t flags)
    {
        auto made = detail::get<platter_report *>(platter_job_result, job_.get(), flags);
        if (!made)
            return made.error();
        return report(*made);
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

/// An open image. close() tells whether everything was written; the destructor closes too, and tells nobody.
class image {
public:
    explicit image(platter_image *taken) noexcept : image_(taken) {}
    /// Opens by a location. `flags` are bits of PLATTER_OPEN_* and PLATTER_LOCATION_*.
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
    /// Opens by a descriptor, which is duplicated.
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
    /// Fills all of the buffer from an offset.
    result<void> read(bytes buffer, std::uint64_t offset) const
    {
        return detail::call(platter_image_read, image_.get(), buffer.data(), buffer.size(), offset,
                            0u);
    }
    /// Writes all of the buffer at an offset. `flags` is 0 or PLATTER_WRITE_FUA.
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
    /// The run of one kind at an offset.
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
    platter_image *get() const noexcept { return image_.get(); }

private:
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

/// A new image to be made.
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
    result<job> make_job() const
    {
        if (failed_)
            return *failed_;
        return detail::make_job(platter_create_job_new, request_.get(), 0u);
    }
    /// Makes it on this thread.
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
    conversion &source(const open_options &how, std::uint32_t flags = 0)
    {
        failed_ = failed_ ? failed_ : how.failure();
        return set(platter_convert_set_source_options, request_.get(), how.get(), flags);
    }
    conversion &to(const std::string &location, const std::string &format, std::uint32_t flags = 0)
    {
        return set(platter_convert_set_target, request_.get(), location.c_str(), format.c_str(),
                   flags);
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

/// What an image is; `flags` are bits of PLATTER_INFO_CHAIN, PLATTER_OPEN_FORCE_SHARE and PLATTER_LOCATION_*.
inline result<report> describe(const std::string &location, const open_options &how = {},
                               std::uint32_t flags = 0)
{
    if (how.failure())
        return *how.failure();
    auto made = detail::get<platter_report *>(platter_image_describe, location.c_str(), how.get(),
                                              flags);
    if (!made)
        return made.error();
    return report(*made);
}

} // namespace platter

#endif // PLATTER_HPP
