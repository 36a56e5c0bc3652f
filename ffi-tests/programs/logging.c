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
    passed();
    return 0;
}
