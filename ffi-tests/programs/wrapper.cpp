// The C++ header: owning objects, results, and errors with and without exceptions.
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
    const auto children = platter::describe_children("qcow2").value();
    CHECK(!children.empty() && std::string_view(children[0]->name) == "file");
    CHECK((children[0]->properties & PLATTER_CHILD_REQUIRED) != 0);
    CHECK(platter::describe_children("file")->empty());
    CHECK(platter::describe_children("no-such").error().status() == PLATTER_STATUS_NOT_FOUND);
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

    // The warnings of a job are kept, even if it succeeds.
    platter::creation("tiny.raw", "raw").size(512).run().value();
    auto grown = platter::conversion()
                     .from("tiny.raw")
                     .source(platter::open_options().format("raw"))
                     .to("tiny.vhd", "")
                     .profile("azure")
                     .make_job()
                     .value();
    CHECK(grown.warnings().empty());
    grown.run().value();
    CHECK(grown.warnings().size() == 1 && grown.warnings()[0].find("20 MiB") != std::string::npos);
}

void failures()
{
    const auto missing = platter::image::open("missing.qcow2");
    CHECK(!missing);
    CHECK(missing.error().status() == PLATTER_STATUS_NOT_FOUND);
    CHECK(missing.error().message().find("missing.qcow2") != std::string::npos);
    // The end of a chain reports the first setter that failed.
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
    // An old format, whose key needs no slow derivation.
    platter::creation("vault", "qcow")
        .size(1 << 20)
        .use(platter::options().parse("encrypt.format=aes,encrypt.key-secret=key"))
        .use(secrets)
        .use(storages)
        .run()
        .value();
    platter::open_options how;
    how.format("qcow").option("encrypt.key-secret", "key");
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

const platter::open_options &qcow2()
{
    static const platter::open_options how = [] {
        platter::open_options made;
        made.format("qcow2").use(platter::policy(PLATTER_POLICY_PERMISSIVE));
        return made;
    }();
    return how;
}

void make_disk(const char *name)
{
    platter::creation(name, "qcow2").size(SIZE).run().value();
    auto image = platter::image::open(name, qcow2(), PLATTER_OPEN_WRITE).value();
    image.write(std::string_view("data"), 65536).value();
    image.close().value();
}

void snapshots_and_bitmaps()
{
    make_disk("kept.qcow2");
    auto image = platter::image::open("kept.qcow2", qcow2(), PLATTER_OPEN_WRITE).value();
    image.add_bitmap("one").value();
    image.add_bitmap("two").value();
    image.disable_bitmap("two").value();
    image.create_snapshot("s").value().run().value();
    image.write(std::string_view("late"), 65536).value();
    CHECK(image.dirty("one", 0, SIZE)->number("start").value() == 65536);
    CHECK(image.dirty("two", 0, SIZE)->size().value() == 0);
    image.merge_bitmap("two", image, "one").value();
    image.enable_bitmap("two").value();
    CHECK(image.dirty("two", 0, SIZE)->size().value() == 1);
    image.clear_bitmap("one").value();
    image.remove_bitmap("one").value();
    CHECK(image.bitmaps()->size().value() == 1);
    CHECK(image.snapshots()->size().value() == 1);
    CHECK(image.map(0, SIZE).value().run()->extent(1).value().offset == 65536);
    CHECK(!image.is_read_only() && image.warnings().empty() && image.features().value() != 0);
    auto check = image.check().value();
    check.on_message([](std::string_view line) { std::fprintf(stderr, "%.*s\n", int(line.size()), line.data()); })
        .value();
    CHECK(check.run()->exit_code().value() == 0);
    image.amend(platter::options().parse("lazy_refcounts=on")).value().run().value();
    CHECK(image.info()->text("format").value() == "qcow2");
    platter_bench bench{};
    CHECK(platter_bench_defaults(&bench, 0, nullptr) == PLATTER_OK);
    bench.count = 4;
    CHECK(image.bench(bench).value().run()->number("requests").value() == 4);
    image.close().value();
    auto shown = platter::image::open("kept.qcow2", qcow2()).value();
    shown.show_snapshot("s").value();
    char found[4];
    shown.read(found, 65536).value();
    CHECK(std::memcmp(found, "data", 4) == 0);
    shown.close().value();
    image = platter::image::open("kept.qcow2", qcow2(), PLATTER_OPEN_WRITE).value();
    image.remove_bitmap("two").value();
    image.apply_snapshot("s").value().run().value();
    image.delete_snapshot("s").value().run().value();
    image.close().value();
}

void chains_and_copies()
{
    make_disk("base.qcow2");
    platter::creation("over.qcow2", "qcow2")
        .backing("base.qcow2", "qcow2")
        .use(platter::policy(PLATTER_POLICY_PERMISSIVE))
        .run()
        .value();
    platter::rebase("over.qcow2", "", "", qcow2()).value().run().value();
    platter::rebase("over.qcow2", "base.qcow2", "qcow2", qcow2()).value().run().value();
    platter::commit("over.qcow2", qcow2()).value().run().value();
    CHECK(platter::measure(SIZE, "raw").value().run()->number("required").value() == SIZE);
    const auto base = platter::image::open("base.qcow2", qcow2()).value();
    CHECK(platter::measure(base, "qcow2").value().run()->number("required").value() > 65536);

    platter::copy part;
    part.from("base.qcow2").source(qcow2()).to("part", "raw");
    part.number(PLATTER_DD_BLOCK_SIZE, 65536).number(PLATTER_DD_SKIP, 1).number(PLATTER_DD_COUNT, 1);
    auto job = part.make_job().value();
    job.set_deadline(600000).value();
    CHECK(job.state().value() == PLATTER_JOB_STATE_NEW);
    CHECK(job.run()->number("virtual-size").value() == 65536);
    CHECK(job.done()->done == job.done()->total);
    CHECK(part.make_job(PLATTER_DD_EXCLUSIVE).value().run().error().status() == PLATTER_STATUS_EXISTS);
    CHECK(platter::copy().number(PLATTER_DD_BLOCK_SIZE, 0).make_job().error().status() ==
          PLATTER_STATUS_INVALID);

    std::FILE *from = std::fopen("part", "rb"), *to = std::fopen("again", "w+b");
    CHECK(from != nullptr && to != nullptr);
    platter::conversion piped;
    piped.from(fileno(from)).to(fileno(to)).checksum("sha256").number(PLATTER_CONVERT_PARALLEL, 2);
    CHECK(piped.make_job().value().run()->text("sha256")->size() == 64);
    std::fclose(from);
    std::fclose(to);

    CHECK(!platter::profiles().empty());
    platter::conversion().from("base.qcow2").source(qcow2()).to("made.vhd", "").profile("azure")
        .make_job().value().run().value();
    CHECK(platter::inspect("made.vhd", {}, "azure")->number("objection-count").value() == 0);
    CHECK(platter::inspect("base.qcow2", qcow2())->exit_code().value() == 0);
    std::FILE *file = std::fopen("base.qcow2", "rb");
    CHECK(platter::inspect(fileno(file), qcow2())->all_text()->find("pass") != std::string::npos);
    std::fclose(file);
}

void serving()
{
    make_disk("served.qcow2");
    auto image = platter::image::open("served.qcow2", qcow2(), PLATTER_OPEN_WRITE).value();
    auto server = platter::server::make().value();
    platter::offer offered(image, PLATTER_EXPORT_WRITE);
    server.add(offered.name("disk").description("of a test")).value();
    server.add(platter::offer(image).name("part").window(65536, 4096)).value();
    server.listen("unix:socket").value();
    CHECK(server.addresses() == std::vector<std::string>{"socket"});
    const auto listed = platter::exports("nbd+unix://?socket=socket").value();
    CHECK(listed.size().value() == 2 && listed.text("description").value() == "of a test");
    CHECK(server.offered("part")->size == 4096);
    {
        platter::open_options how;
        how.format("raw").use(platter::policy(PLATTER_POLICY_PERMISSIVE)).discard(true);
        auto client = platter::image::open("nbd+unix:///part?socket=socket", how).value();
        char found[4];
        client.read(found, 0).value();
        CHECK(std::memcmp(found, "data", 4) == 0);
        client.close().value();
    }
    server.remove("part", 60000).value();
    CHECK(server.statistics()->requests > 0 && server.fd().value() > 2 && !server.last_error());
    server.drain(60000).value();
    server.stop().value();
    image.close().value();
}

void objects_and_asked_secrets()
{
    platter::secrets held;
    held.define("key", {{"data", "c2VjcmV0"}, {"format", "base64"}});
    held.add_throttle_group("slow", {{"limits.iops-total", "1000"}});
    held.add_authorization("rules", {{"identity", "someone"}});
    CHECK(!held.failure());
    CHECK(platter::secrets().add_tls_psk("psk", {{"bogus", ""}}).failure());
    CHECK(platter::secrets().add_tls_x509("x509", {{"bogus", ""}}).failure());
    platter::creation("asked.qcow", "qcow")
        .size(SIZE)
        .use(platter::options().parse("encrypt.format=aes,encrypt.key-secret=key"))
        .use(held)
        .run()
        .value();
    std::string asked;
    platter::secrets source;
    source.ask([&](std::string_view id) -> std::optional<std::string> {
        asked = id;
        return "secret";
    });
    platter::open_options how;
    how.format("qcow").option("encrypt.key-secret", "other").use(source).use(platter::nodes());
    how.detect_zeroes("off").compression_level(9);
    platter::image::open("asked.qcow", how).value().close().value();
    CHECK(asked == "other");
    CHECK(platter::open_options().compression_level(99).failure());
}

void a_log()
{
    bool told = false;
    platter::set_log(PLATTER_LOG_DEBUG, [&](std::uint32_t, std::string_view) { told = true; }).value();
    CHECK(!platter::image::open("absent", platter::open_options().format("raw")));
    CHECK(platter_log_set(nullptr, nullptr, nullptr, PLATTER_LOG_ERROR, 0, nullptr) == PLATTER_OK);
    CHECK(told);
}

void names_and_numbers()
{
    const auto events = platter::trace_events();
    CHECK(events.size() > 10 && platter::trace("*").value() == events.size());
    CHECK(platter::trace(events[0], false).value() == 1 && platter::trace("*", false).has_value());
    CHECK(platter::format_size(3 << 19).value() == "1.5 MiB");
    platter::options bag;
    bag.set_text("cluster_size", "64k").set_text("compat", "1.1").unset("compat");
    CHECK(bag.keys() == std::vector<std::string>{"cluster_size"} && bag.get("cluster_size") == "64k");
    CHECK(!bag.get("compat"));
    platter::policy strict;
    strict.set_implicit_protocols(false).set_probe_footers(true).set_limit(PLATTER_LIMIT_CHAIN_DEPTH, 7);
    CHECK(!strict.failure() && strict.limit(PLATTER_LIMIT_CHAIN_DEPTH).value() == 7);
    CHECK(!strict.limit(9999));
    const auto absent = platter::image::open("absent", platter::open_options().format("raw"));
    CHECK(absent.error().stage() == PLATTER_STAGE_OPEN);
}

void a_queue()
{
    platter::creation("queue.raw", "raw").size(SIZE).run().value();
    auto image = platter::image::open("queue.raw", platter::open_options().format("raw"),
                                      PLATTER_OPEN_WRITE).value();
    {
        auto queue = platter::queue::open(image, 8).value();
        char found[4] = "";
        CHECK(queue.fd().value() > 2);
        queue.write("data", 512, found);
        CHECK(queue.outstanding() == 1 && queue.reap(4, 1)->at(0).status == PLATTER_OK);
        queue.read(found, 512, found);
        const auto done = queue.reap(4, 1).value();
        CHECK(done.size() == 1 && done[0].user_data == found && done[0].bytes == 4);
        CHECK(std::memcmp(found, "data", 4) == 0);
        queue.write_zeroes(512, 4, nullptr);
        queue.discard(4096, 4096, nullptr);
        queue.flush(nullptr);
        for (std::size_t left = 3; left > 0;)
            left -= queue.reap(left, 1)->size();
        CHECK(queue.outstanding() == 0 && !queue.reap(0, 1));
    }
    image.close().value();
}

void files_that_images_name()
{
    platter::creation("below.qcow2", "qcow2").size(SIZE).run().value();
    platter::creation("above.qcow2", "qcow2").backing("below.qcow2", "qcow2").run().value();
    std::string asked;
    platter::policy policy;
    policy.ask([&](const platter_implicit_file &file, int &) {
        asked = file.name;
        return PLATTER_ANSWER_OPEN;
    });
    platter::control control;
    control.deadline(600000);
    platter::open_options how;
    how.format("qcow2").use(policy).use(control);
    auto image = platter::image::open("above.qcow2", how, PLATTER_OPEN_WRITE).value();
    CHECK(asked.find("below.qcow2") != std::string::npos);
    image.use(control).value();
    image.write("data", 0).value();
    std::move(image).commit({}, how)->run().value();
    auto again = platter::image::open("above.qcow2", how, PLATTER_OPEN_WRITE).value();
    CHECK(!std::move(again).commit({}, how, 1u << 31));
    again.write("more", 512).value();
    std::move(again).rebase("", "", how)->run().value();
    control.cancel();
    CHECK(!platter::image::open("above.qcow2", how));
    platter::conversion both;
    both.from("above.qcow2");
    CHECK(both.check(PLATTER_CONVERT_CHAIN | PLATTER_CONVERT_TARGET_EXISTS).value() != 0);
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
    snapshots_and_bitmaps();
    chains_and_copies();
    serving();
    objects_and_asked_secrets();
    a_log();
    names_and_numbers();
    a_queue();
    files_that_images_name();
    CHECK(std::puts("ok") >= 0);
    return 0;
}
