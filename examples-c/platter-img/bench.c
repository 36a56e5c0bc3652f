#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "common.h"
#include "jobs.h"
#include "open.h"
#include "print.h"

enum { OPT_FLUSH_INTERVAL = 512, OPT_NO_DRAIN, OPT_PATTERN };

static const struct option_entry options[] = {
    OPTION_HELP,
    {'q', "quiet", NULL, "taken for compatibility; without effect"},
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    {'t', "cache", "CACHE_MODE", "how the page cache is used (writeback)"},
    {'c', "count", "COUNT", "the number of requests (75000)"},
    {'d', "depth", "DEPTH", "how many requests are under way at a time (64)"},
    {'o', "offset", "OFFSET", "where the first request begins (0)"},
    {'s', "buffer-size", "SIZE", "the size of a request (4k)"},
    {'S', "step-size", "SIZE",
     "from the beginning of one request to that of the next (the size of a\n"
     "request); past the end of the image it begins anew"},
    {'i', "aio", "threads|native|io_uring",
     "what does the requests whose data is not in memory: threads of the tool,\n"
     "or the kernel where it can (the default)"},
    {'n', "native", NULL, "as --aio native"},
    {'w', "write", NULL, "write instead of reading: this destroys what the image holds"},
    {OPT_PATTERN, "pattern", "BYTE", "the value of the bytes to write (0)"},
    {OPT_FLUSH_INTERVAL, "flush-interval", "COUNT", "flush after so many writes"},
    {OPT_NO_DRAIN, "no-drain", NULL, "do not wait for the writes under way before a flush"},
    OPTION_FORCE_SHARE,
    OPTION_UNTRUSTED,
    OPTION_END,
};

/* The parsed command line. */
struct request {
    struct common common;
    platter_bench bench;
    uint32_t flags;
    bool native;
};

/* Whether `number` is in the range; prints an error if not. */
static bool in_range(uint64_t number, uint64_t least, uint64_t most, const char *what)
{
    if (number >= least && number <= most)
        return true;
    print_error("Invalid %s specified. Must be between %" PRIu64 " and %" PRIu64 ".", what, least,
                most);
    return false;
}

/* Parses a number without a suffix; returns false after printing an error. */
static bool read_number(uint64_t *number, const char *text, uint64_t least, uint64_t most,
                        const char *what)
{
    char *end = NULL;

    errno = 0;
    *number = strtoull(text, &end, 0);
    if (end == text || *end != '\0') {
        print_error("Invalid %s specified: '%s'.", what, text);
        return false;
    }
    /* A negative number wraps to a large one. */
    if (errno == ERANGE)
        *number = UINT64_MAX;
    return in_range(*number, least, most, what);
}

/* Parses a size with an optional suffix; returns false after printing an error. */
static bool read_size(uint64_t *number, const char *text, uint64_t least, uint64_t most,
                      const char *what)
{
    switch (platter_size_parse(number, text, 0, NULL)) {
    case PLATTER_OK:
        break;
    case PLATTER_STATUS_LIMIT:
        *number = UINT64_MAX;
        break;
    default:
        if (text[strspn(text, " \t")] == '-') {
            *number = UINT64_MAX;
            break;
        }
        print_error("Invalid %s specified: '%s'.", what, text);
        return false;
    }
    return in_range(*number, least, most, what);
}

static bool read_aio(struct request *request, const char *name)
{
    if (strcmp(name, "threads") == 0) {
        request->flags |= PLATTER_BENCH_THREADS;
    } else if (strcmp(name, "native") == 0) {
        request->native = true;
    } else if (strcmp(name, "io_uring") != 0) {
        print_error("Invalid aio option: %s", name);
        return false;
    }
    return true;
}

/* Parses the options; returns false after printing an error. */
static bool parse(struct request *request)
{
    platter_bench *bench = &request->bench;
    uint64_t pattern = 0;

    for (int code; (code = options_next()) != -1;) {
        bool valid = true;

        switch (code) {
        case 't':
            request->common.image.cache = options_argument();
            valid = open_cache_is_known(request->common.image.cache);
            if (!valid)
                print_error("Invalid cache mode");
            break;
        case 'c':
            valid = read_number(&bench->count, options_argument(), 1, INT32_MAX, "request count");
            break;
        case 'd':
            valid = read_number(&bench->depth, options_argument(), 1, INT32_MAX, "queue depth");
            break;
        case 'o':
            valid = read_size(&bench->offset, options_argument(), 0, INT64_MAX, "offset");
            break;
        case 's':
            valid = read_size(&bench->buffer_size, options_argument(), 1, INT32_MAX, "buffer size");
            break;
        case 'S':
            valid = read_size(&bench->step, options_argument(), 0, INT32_MAX, "step size");
            break;
        case 'w':
            request->flags |= PLATTER_BENCH_WRITE;
            break;
        case OPT_PATTERN:
            valid = read_number(&pattern, options_argument(), 0, UINT8_MAX, "pattern byte");
            bench->pattern = (uint32_t)pattern;
            break;
        case OPT_FLUSH_INTERVAL:
            valid = read_number(&bench->flush_interval, options_argument(), 0, INT32_MAX,
                                "flush interval");
            break;
        case OPT_NO_DRAIN:
            request->flags |= PLATTER_BENCH_NO_DRAIN;
            break;
        case 'i':
            valid = read_aio(request, options_argument());
            break;
        case 'n':
            request->native = true;
            break;
        default:
            common_option(&request->common, code);
            break;
        }
        if (!valid)
            return false;
    }
    return true;
}

/* Whether the options are consistent; prints an error if not. */
static bool is_consistent(const struct request *request)
{
    const platter_bench *bench = &request->bench;

    if ((request->flags & PLATTER_BENCH_WRITE) == 0 && bench->flush_interval != 0) {
        print_error("--flush-interval is only available in write tests");
        return false;
    }
    if (bench->flush_interval != 0 && bench->flush_interval < bench->depth) {
        print_error("Flush interval can't be smaller than depth");
        return false;
    }
    return common_image_is_valid(&request->common);
}

static bool is_direct(const char *cache)
{
    return cache != NULL && (strcmp(cache, "none") == 0 || strcmp(cache, "off") == 0 ||
                             strcmp(cache, "directsync") == 0);
}

static bool bench(const platter_image *image, const struct request *request)
{
    static const struct job_display display = {0};
    platter_job *job = NULL;
    platter_report *report = NULL;
    platter_error *error = NULL;

    if (platter_bench_job_new(&job, image, &request->bench, request->flags, &error) == PLATTER_OK) {
        puts(platter_job_summary(job));
        report = jobs_run(job, &display, &error);
    }
    if (report != NULL)
        return common_print(report, false);
    print_platter_error(error);
    return false;
}

static int run(void)
{
    struct request request = {0};
    const char *name = NULL;
    platter_image *image = NULL;
    bool done = false;

    if (platter_bench_defaults(&request.bench, 0, NULL) != PLATTER_OK || !parse(&request))
        return 1;
    name = options_one_image();
    if (!is_consistent(&request))
        return 1;
    image = open_image(name, &request.common.image,
                       (request.flags & PLATTER_BENCH_WRITE) != 0 ? PLATTER_OPEN_WRITE : 0);
    if (image == NULL)
        return 1;
    if (request.native && !is_direct(request.common.image.cache))
        print_error("Could not open '%s': aio=native was specified, but it requires "
                    "cache.direct=on, which was not specified.",
                    name);
    else
        done = bench(image, &request);
    return open_close(image) && done ? 0 : 1;
}

const struct command command_bench = {
    .name = "bench",
    .summary = "Send many requests to an image and take the time",
    .synopsis = "[-f FMT | --image-opts] [-t CACHE_MODE] [-c COUNT] [-d DEPTH]\n"
                "[-o OFFSET] [-s SIZE] [-S STEP_SIZE] [-i AIO] [-n] [-q] [-U] [--untrusted]\n"
                "[-w [--pattern BYTE] [--flush-interval COUNT [--no-drain]]] IMAGE",
    .options = options,
    .operands = "IMAGE\n   the name of the image, or its description with --image-opts",
    .failure = 1,
    .run = run,
};
