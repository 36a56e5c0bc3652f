// The C++ header: owning objects, results, and errors that are thrown or not.
#include <platter.hpp>

#include <array>
#include <cstdio>
#include <cstring>

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            std::exit(1);                                                                         \
        }                                                                                         \
    } while (0)

namespace {

constexpr std::uint64_t SIZE = 4 << 20;

void a_round_trip()
{
    platter::options options;
    options.set_number("cluster_size", 65536).set_flag("lazy_refcounts", true);
    platter::creation("disk.qcow2", "qcow2").size(SIZE).use(options).run().value();

    auto image = platter::image::open("disk.qcow2", platter::open_options().format("qcow2"),
                                      PLATTER_OPEN_WRITE)
                     .value();
    CHECK(image.size().value() == SIZE);
    CHECK(image.format() == "qcow2");
    const std::vector<std::uint32_t> written(4096, 0x01020304);
    image.write(written, 65536).value();
    image.write(std::string_view("tail"), SIZE - 4, PLATTER_WRITE_FUA).value();
    std::array<std::uint32_t, 4096> found{};
    image.read(found, 65536).value();
    CHECK(std::memcmp(found.data(), written.data(), sizeof found) == 0);
    char tail[4];
    image.read(tail, SIZE - 4).value();
    CHECK(std::memcmp(tail, "tail", 4) == 0);
    CHECK(image.extent(0, SIZE).value().length == 65536);
    CHECK(image.check().value().run().value().exit_code().value() == 0);
    image.close().value();

    const auto described = platter::describe("disk.qcow2", platter::open_options().format("qcow2"));
    CHECK(described->number("virtual-size").value() == SIZE);
    CHECK(described->text("format").value() == "qcow2");
    CHECK(described->json().value().find("\"lazy-refcounts\": true") != std::string::npos);
}

void what_drivers_take()
{
    bool found = false;
    for (const platter_driver_info *driver : platter::drivers())
        found = found || (driver->name == std::string_view("nbd") && driver->kind == PLATTER_DRIVER_PROTOCOL);
    CHECK(found);
    const auto options = platter::describe_options("qcow2", PLATTER_OPERATION_OPEN).value();
    found = false;
    for (const platter_option_info *option : options)
        found = found || (option->name == std::string_view(PLATTER_OPEN_OPT_ENCRYPT_KEY_SECRET) &&
                          (option->properties & PLATTER_OPTION_PROPERTY_SECRET));
    CHECK(found);
    CHECK(platter::describe_options("vdi", PLATTER_OPERATION_AMEND)->empty());
    CHECK(platter::describe_options("no-such", PLATTER_OPERATION_OPEN).error().status() ==
          PLATTER_STATUS_NOT_FOUND);
    CHECK(platter::describe_options("qcow2", 99).error().status() == PLATTER_STATUS_INVALID);
}

void a_conversion_with_progress()
{
    auto job = platter::conversion()
                   .from("disk.qcow2")
                   .source(platter::open_options().format("qcow2"))
                   .to("disk.raw", "raw")
                   .make_job()
                   .value();
    std::uint64_t last = 0, total = 1;
    job.on_progress([&](std::uint64_t done, std::uint64_t of) {
           last = done;
           total = of;
           return true;
       })
        .value();
    job.run().value();
    CHECK(last == total);
    const auto raw = platter::image::open("disk.raw", platter::open_options().format("raw")).value();
    const auto disk =
        platter::image::open("disk.qcow2", platter::open_options().format("qcow2")).value();
    CHECK(platter::compare(raw, disk).value().run().value().flag("identical").value());

    auto cancelled = platter::conversion()
                         .from("disk.raw")
                         .source(platter::open_options().format("raw"))
                         .to("other.raw", "raw")
                         .make_job()
                         .value();
    cancelled.on_progress([](std::uint64_t, std::uint64_t) { return false; }).value();
    const auto ended = cancelled.run();
    CHECK(!ended && ended.error().status() == PLATTER_STATUS_CANCELLED);
}

void failures()
{
    const auto missing = platter::image::open("missing.qcow2");
    CHECK(!missing);
    CHECK(missing.error().status() == PLATTER_STATUS_NOT_FOUND);
    CHECK(missing.error().message().find("missing.qcow2") != std::string::npos);
    // The first setter that failed is what the end of the chain tells.
    const auto refused = platter::image::open("disk.raw", platter::open_options().cache("bogus"));
    CHECK(!refused && refused.error().status() == PLATTER_STATUS_INVALID);
    CHECK(!refused.error().hints().empty());
    CHECK(!refused.error().file());
    CHECK(!platter::parse_size("1kb"));
    CHECK(platter::parse_size("1.5k").value() == 1536);
#ifdef PLATTER_HPP_EXCEPTIONS
    bool thrown = false;
    try {
        platter::image::open("missing.qcow2").value();
    } catch (const platter::error &failed) {
        thrown = std::strstr(failed.what(), "missing.qcow2") != nullptr;
    }
    CHECK(thrown);
#endif
}

void storages_and_secrets()
{
    std::FILE *file = std::tmpfile();
    CHECK(file != nullptr);
    platter::storages storages;
    storages.add("vault", fileno(file));
    platter::secrets secrets;
    secrets.add("key", std::string_view("passphrase"));
    platter::creation("vault", "qcow2")
        .size(1 << 20)
        .use(platter::options().parse(
            "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"))
        .use(secrets)
        .use(storages)
        .run()
        .value();
    platter::open_options how;
    how.format("qcow2").option("encrypt.key-secret", "key");
    how.use(secrets).use(storages).use(platter::policy(PLATTER_POLICY_PERMISSIVE));
    auto image = platter::image::open("vault", how, PLATTER_OPEN_WRITE).value();
    image.write(std::string_view("hidden"), 0).value();
    platter::storages shown;
    shown.add("plain", image);
    const auto plain = platter::image::open(
        "plain", platter::open_options().format("raw").use(shown));
    char found[6];
    plain->read(found, 0).value();
    CHECK(std::memcmp(found, "hidden", 6) == 0);
    std::fclose(file);
}

} // namespace

int main()
{
    CHECK(platter::version() == "0.1.0");
    what_drivers_take();
    a_round_trip();
    a_conversion_with_progress();
    failures();
    storages_and_secrets();
    CHECK(std::puts("ok") >= 0);
    return 0;
}
