// The C header used from C++: a round trip with owning pointers.
#include "check.h"

#include <memory>
#include <string>
#include <vector>

template <typename T, void (*Free)(T *)> struct Deleter {
    void operator()(T *object) const { Free(object); }
};

using Create = std::unique_ptr<platter_create, Deleter<platter_create, platter_create_free>>;
using Convert = std::unique_ptr<platter_convert, Deleter<platter_convert, platter_convert_free>>;
using Job = std::unique_ptr<platter_job, Deleter<platter_job, platter_job_free>>;
using Report = std::unique_ptr<platter_report, Deleter<platter_report, platter_report_free>>;

static int on_progress(const platter_progress *progress, void *user_data)
{
    static_cast<std::vector<uint64_t> *>(user_data)->push_back(progress->done);
    return 0;
}

int main()
{
    platter_create *raw_create;
    OK(platter_create_new(&raw_create, "a.qcow2", "qcow2", 0, &err));
    Create create(raw_create);
    OK(platter_create_set_size(create.get(), 1 << 20, 0, &err));
    platter_job *raw_job;
    OK(platter_create_job_new(&raw_job, create.get(), 0, &err));
    Job job(raw_job);
    OK(platter_job_run(job.get(), 0, &err));

    platter_convert *raw_convert;
    OK(platter_convert_new(&raw_convert, 0, &err));
    Convert convert(raw_convert);
    OK(platter_convert_add_source(convert.get(), "a.qcow2", 0, &err));
    OK(platter_convert_set_target(convert.get(), "b.raw", "raw", 0, &err));
    OK(platter_convert_job_new(&raw_job, convert.get(), 0, &err));
    job.reset(raw_job);
    std::vector<uint64_t> seen;
    OK(platter_job_set_progress(job.get(), on_progress, &seen, nullptr, 0, &err));
    OK(platter_job_run(job.get(), 0, &err));
    CHECK(!seen.empty());

    platter_report *raw_report;
    OK(platter_image_describe(&raw_report, "a.qcow2", nullptr, 0, &err));
    Report report(raw_report);
    const char *format;
    OK(platter_report_string(&format, report.get(), 0, "format", 0, &err));
    CHECK(std::string(format) == "qcow2");
    passed();
    return 0;
}
