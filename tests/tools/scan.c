/* Preloaded into a program: when it exits, looks through all memory that it can write for a text. The text
 * stands in the file that SCAN_FOR names, each of its bytes inverted, so that this very search leaves no
 * copy. Found: a line on stderr, and the exit code 97. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int matches(const unsigned char *at, const unsigned char *inverted, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((at[i] ^ inverted[i]) != 0xff)
            return 0;
    return 1;
}

__attribute__((destructor)) static void scan(void)
{
    static unsigned char inverted[256];
    static char maps[1 << 18];
    const char *path = getenv("SCAN_FOR");
    const int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t length = file < 0 ? -1 : read(file, inverted, sizeof inverted);
    const int list = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    size_t used = 0;

    if (length <= 0 || list < 0)
        _exit(98);
    for (ssize_t n; (n = read(list, maps + used, sizeof maps - 1 - used)) > 0;)
        used += (size_t)n;
    for (char *line = maps; line != NULL && *line != '\0';) {
        char *next = strchr(line, '\n');
        unsigned long start, end;
        char access[5];

        if (next != NULL)
            *next++ = '\0';
        if (sscanf(line, "%lx-%lx %4s", &start, &end, access) == 3 && access[0] == 'r' &&
            access[1] == 'w') {
            const unsigned char *at = (const unsigned char *)start;

            for (; at + length <= (const unsigned char *)end; at++) {
                if (matches(at, inverted, (size_t)length)) {
                    fprintf(stderr, "found at %p in %s\n", (const void *)at, line);
                    _exit(97);
                }
            }
        }
        line = next;
    }
}
