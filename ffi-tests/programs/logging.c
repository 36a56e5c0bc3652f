/* The log callback. */
#include "check.h"

static int lines, images, frees;

static void on_line(uint32_t level, const char *line, void *user_data)
{
    CHECK(user_data == &lines);
    CHECK(level >= PLATTER_LOG_ERROR && level <= PLATTER_LOG_INFO);
    CHECK(strchr(line, '\n') == NULL);
    lines++;
    if (strstr(line, "'a.raw'") != NULL)
        images++;
}

/* At debug level, each failed call logs the message that its caller gets. */
static char failure[200];
static int failures;

static void on_failure(uint32_t level, const char *line, void *user_data)
{
    CHECK(user_data == &lines);
    if (level != PLATTER_LOG_DEBUG)
        return;
    failures++;
    snprintf(failure, sizeof failure, "%s", line);
}

static void fail(void)
{
    char expected[200];
    platter_error *error = NULL;
    CHECK(platter_image_open(NULL, "missing", NULL, 0, &error) == PLATTER_STATUS_INVALID);
    snprintf(expected, sizeof expected, "a call fails: %s", platter_error_message(error));
    platter_error_free(error);
    CHECK(failures == 0 || strcmp(failure, expected) == 0);
}

/* Warnings of jobs and failed requests of queues, whose messages no caller gets. */
static int warnings, errors;

static void on_trouble(uint32_t level, const char *line, void *user_data)
{
    CHECK(user_data == &lines);
    if (level == PLATTER_LOG_WARNING) {
        CHECK(strstr(line, "instead of 4096") != NULL);
        warnings++;
    } else if (level == PLATTER_LOG_ERROR) {
        CHECK(strstr(line, "a request fails: ") != NULL && strstr(line, "a.raw") != NULL);
        errors++;
    }
}

static void trouble(void)
{
    platter_convert *convert;
    platter_job *job;
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "a.raw", 0, &err));
    OK(platter_convert_set_target(convert, "a.vhd", NULL, 0, &err));
    OK(platter_convert_set_profile(convert, "azure", 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_convert_free(convert);

    platter_queue *queue;
    platter_completion done;
    size_t count;
    platter_image *image = open_image("a.raw", "raw", 0);
    OK(platter_queue_new(&queue, image, 0, 0, &err));
    platter_queue_write(queue, "x", 1, 0, NULL, 0);
    OK(platter_queue_reap(&count, queue, &done, 1, 1, -1, 0, &err));
    CHECK(count == 1 && done.status == PLATTER_STATUS_READ_ONLY);
    platter_queue_free(queue);
    OK(platter_image_close(image, 0, &err));
}

static int events;

static void on_event(uint32_t level, const char *line, void *user_data)
{
    CHECK(user_data == &lines);
    if (level != PLATTER_LOG_TRACE)
        return;
    CHECK_STR(line, "image_open file=\"a.raw\" format=raw writable=false size=4096");
    events++;
}

static void count_free(void *user_data)
{
    CHECK(user_data == &lines);
    frees++;
}

int main(void)
{
    OK(platter_log_set(on_line, &lines, count_free, PLATTER_LOG_INFO, 0, &err));
    make_image("a.raw", "raw", 4096, NULL);
    CHECK(lines > 0);
    OK(platter_image_close(open_image("a.raw", "raw", 0), 0, &err));
    CHECK(images > 0);
    CHECK(frees == 0);
    OK(platter_log_set(on_line, &lines, count_free, PLATTER_LOG_ERROR, 0, &err));
    CHECK(frees == 1);
    OK(platter_log_set(NULL, NULL, NULL, 0, 0, &err));
    CHECK(frees == 2);
    lines = 0;
    OK(platter_image_close(open_image("a.raw", "raw", 0), 0, &err));
    CHECK(lines == 0);

    OK(platter_log_set(on_failure, &lines, count_free, PLATTER_LOG_INFO, 0, &err));
    fail();
    CHECK(failures == 0);
    OK(platter_log_set(on_failure, &lines, count_free, PLATTER_LOG_DEBUG, 0, &err));
    fail();
    CHECK(failures == 1);
    OK(platter_log_set(NULL, NULL, NULL, 0, 0, &err));
    CHECK(frees == 4);

    OK(platter_log_set(on_trouble, &lines, count_free, PLATTER_LOG_ERROR, 0, &err));
    trouble();
    CHECK(warnings == 0 && errors == 1);
    OK(platter_log_set(on_trouble, &lines, count_free, PLATTER_LOG_WARNING, 0, &err));
    trouble();
    CHECK(warnings == 1 && errors == 2);
    OK(platter_log_set(NULL, NULL, NULL, 0, 0, &err));
    CHECK(frees == 6);

    /* Trace events are off until a pattern enables them, and are logged only at their level. */
    const char *name = NULL;
    size_t count = 0, listed = 0;
    while ((name = platter_trace_event(listed)) != NULL)
        listed++;
    CHECK(listed > 5);
    OK(platter_trace_switch(&count, "*", 1, 0, &err));
    CHECK(count == listed);
    OK(platter_trace_switch(&count, "*", 0, 0, &err));
    CHECK(count == listed);
    OK(platter_trace_switch(&count, "no_such_event", 1, 0, &err));
    CHECK(count == 0);
    OK(platter_log_set(on_event, &lines, count_free, PLATTER_LOG_TRACE, 0, &err));
    OK(platter_image_close(open_image("a.raw", "raw", 0), 0, &err));
    CHECK(events == 0);
    OK(platter_trace_switch(&count, "image_?pen", 1, 0, &err));
    CHECK(count == 1);
    OK(platter_image_close(open_image("a.raw", "raw", 0), 0, &err));
    CHECK(events == 1);
    OK(platter_log_set(on_event, &lines, count_free, PLATTER_LOG_DEBUG, 0, &err));
    OK(platter_image_close(open_image("a.raw", "raw", 0), 0, &err));
    CHECK(events == 1);
    OK(platter_log_set(NULL, NULL, NULL, 0, 0, &err));
    CHECK(frees == 8);
    passed();
    return 0;
}
