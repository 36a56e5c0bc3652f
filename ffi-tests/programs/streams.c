/* Images through pipes and descriptors: dd and convert. */
#include "check.h"

#include <signal.h>

enum { LEN = 200000 };

static unsigned char content[LEN];
static unsigned char found[LEN + 512];

/* Runs and frees the job; returns its status and, if it failed, stores its message. */
static int outcome(platter_job *job, char *message, size_t room)
{
    platter_error *err = NULL;
    const int status = platter_job_run(job, 0, &err);

    message[0] = '\0';
    if (status != PLATTER_OK)
        snprintf(message, room, "%s", platter_error_message(err));
    platter_error_free(err);
    platter_job_free(job);
    return status;
}

static int file_of(const char *path, const void *bytes, size_t len)
{
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    CHECK(fd >= 0);
    CHECK(write(fd, bytes, len) == (ssize_t)len);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

static size_t read_all(int fd, unsigned char *buf, size_t room)
{
    size_t done = 0;
    ssize_t n;

    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    while (done < room && (n = read(fd, buf + done, room - done)) > 0)
        done += (size_t)n;
    return done;
}

int main(void)
{
    char message[512];
    platter_dd *dd;
    platter_job *job;
    platter_report *report;
    platter_image *image;
    platter_convert *convert;
    uint64_t value;
    int fds[2];

    fill_pattern(content, LEN, 0);
    const int in = file_of("in", content, LEN);
    const int out = file_of("out", "", 0);

    /* From a descriptor, starting at its position, in blocks, to a descriptor. */
    CHECK(lseek(in, 100, SEEK_SET) == 100);
    OK(platter_dd_new(&dd, 0, &err));
    OK(platter_dd_set_input_fd(dd, in, 0, &err));
    OK(platter_dd_set_output_fd(dd, out, 0, &err));
    OK(platter_dd_set_number(dd, PLATTER_DD_BLOCK_SIZE, 1000, 0, &err));
    OK(platter_dd_set_number(dd, PLATTER_DD_SKIP, 2, 0, &err));
    OK(platter_dd_set_number(dd, PLATTER_DD_COUNT, 3, 0, &err));
    OK(platter_dd_job_new(&job, dd, 0, &err));
    platter_dd_free(dd);
    OK(platter_job_run(job, 0, &err));
    OK(platter_job_result(&report, job, 0, &err));
    CHECK(platter_report_kind(report) == PLATTER_REPORT_CONVERT);
    OK(platter_report_u64(&value, report, 0, "virtual-size", 0, &err));
    CHECK_U64(value, 3072);
    platter_report_free(report);
    platter_job_free(job);
    CHECK(read_all(out, found, sizeof found) == 3072);
    CHECK(memcmp(found, content + 2100, 3000) == 0);

    /* From a descriptor into qcow2, with a disk larger than the data. */
    CHECK(lseek(in, 0, SEEK_SET) == 0);
    OK(platter_dd_new(&dd, 0, &err));
    OK(platter_dd_set_input_fd(dd, in, 0, &err));
    OK(platter_dd_set_output(dd, "c.qcow2", "qcow2", 0, &err));
    OK(platter_dd_set_number(dd, PLATTER_DD_OUTPUT_SIZE, 1 << 20, 0, &err));
    OK(platter_dd_job_new(&job, dd, 0, &err));
    CHECK(outcome(job, message, sizeof message) == PLATTER_OK);
    platter_dd_free(dd);
    image = open_image("c.qcow2", "qcow2", 0);
    OK(platter_image_read(image, found, LEN, 0, 0, &err));
    CHECK(memcmp(found, content, LEN) == 0);
    OK(platter_image_read(image, found, 512, (1 << 20) - 512, 0, &err));
    CHECK(found[0] == 0 && found[511] == 0);
    OK(platter_image_close(image, 0, &err));

    /* A pipe without a reader is an error, not a signal. */
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    CHECK(pipe(fds) == 0);
    CHECK(close(fds[0]) == 0);
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "c.qcow2", 0, &err));
    OK(platter_convert_set_target_fd(convert, fds[1], 0, &err));
    {
        platter_open_options *options;
        OK(platter_open_options_new(&options, 0, &err));
        OK(platter_open_options_set_format(options, "qcow2", 0, &err));
        OK(platter_convert_set_source_options(convert, options, 0, &err));
        platter_open_options_free(options);
    }
    OK(platter_convert_job_new(&job, convert, 0, &err));
    CHECK(outcome(job, message, sizeof message) == PLATTER_STATUS_OS);
    CHECK(strstr(message, "Broken pipe") != NULL);
    platter_convert_free(convert);
    CHECK(close(fds[1]) == 0);

    /* A stream that ends prematurely leaves no target. */
    CHECK(lseek(in, 0, SEEK_SET) == 0);
    OK(platter_dd_new(&dd, 0, &err));
    OK(platter_dd_set_input_fd(dd, in, 0, &err));
    OK(platter_dd_set_output(dd, "short.raw", "raw", 0, &err));
    OK(platter_dd_set_number(dd, PLATTER_DD_INPUT_SIZE, LEN + 1, 0, &err));
    OK(platter_dd_job_new(&job, dd, 0, &err));
    CHECK(outcome(job, message, sizeof message) == PLATTER_STATUS_OS);
    CHECK(strstr(message, "ended after 200000 of 200001 bytes") != NULL);
    CHECK(access("short.raw", F_OK) != 0);
    platter_dd_free(dd);

    /* A whole conversion between descriptors, with a platter_convert instead. */
    CHECK(lseek(in, 0, SEEK_SET) == 0);
    CHECK(lseek(out, 0, SEEK_SET) == 0);
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_set_source_fd(convert, in, 0, &err));
    OK(platter_convert_set_target_fd(convert, out, 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    CHECK(outcome(job, message, sizeof message) == PLATTER_OK);
    platter_convert_free(convert);
    CHECK(read_all(out, found, sizeof found) == (LEN + 511) / 512 * 512);
    CHECK(memcmp(found, content, LEN) == 0);
    CHECK(close(in) == 0 && close(out) == 0);
    passed();
    return 0;
}
