/* Runs a program under a limit on its time, and writes to a file the largest memory that it used, in KiB,
 * the signal that ended it, and its processor time in milliseconds: limited SECONDS FILE PROGRAM ARGUMENT...
 * LIMITED_DATA_KIB in the environment: the program gets no more memory than that. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t child;

static long milliseconds(struct timeval time)
{
    return (long)time.tv_sec * 1000 + (long)time.tv_usec / 1000;
}

static void on_alarm(int number)
{
    (void)number;
    kill(child, SIGKILL);
}

int main(int argc, char **argv)
{
    struct sigaction action = {0};
    struct rusage usage = {0};
    int status = 0;
    FILE *file = NULL;

    if (argc < 4)
        return 125;
    child = fork();
    if (child < 0)
        return 125;
    if (child == 0) {
        const char *kib = getenv("LIMITED_DATA_KIB");

        if (kib != NULL) {
            struct rlimit limit = {0};

            limit.rlim_cur = limit.rlim_max = (rlim_t)strtoul(kib, NULL, 10) << 10;
            setrlimit(RLIMIT_DATA, &limit);
        }
        execv(argv[3], argv + 3);
        _exit(127);
    }
    action.sa_handler = on_alarm;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    alarm((unsigned)atoi(argv[1]));
    if (wait4(child, &status, 0, &usage) != child)
        return 125;
    file = fopen(argv[2], "w");
    if (file == NULL)
        return 125;
    fprintf(file, "%ld %d %ld\n", usage.ru_maxrss, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
            milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime));
    if (fclose(file) != 0)
        return 125;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 126;
}
