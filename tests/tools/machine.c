/* The first and only program of a virtual machine that tests devices; it is linked statically. It carries out the
 * lines of /commands one after the other, says on the serial console what each has said and how it ended, and turns
 * the machine off. Each line of it begins with "guest: ". Beside programs there are the commands
 *   load FILE [PARAMETERS]   loads a module of the kernel
 *   vfio ADDRESS             gives a device of the PCI bus to vfio-pci
 *   eject DEVICE             takes the disc out of a drive
 *   held DEVICE PROGRAM...   the same while a program reads it, which is ended then */
#include <errno.h>
#include <fcntl.h>
#include <linux/cdrom.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_WORDS 32

_Noreturn static void off(void)
{
    sync();
    for (;;)
        reboot(RB_POWER_OFF);
}

static int load(const char *name, const char *parameters)
{
    int file = open(name, O_RDONLY | O_CLOEXEC);
    int failed;

    if (file < 0)
        return errno;
    failed = syscall(SYS_finit_module, file, parameters, 0) != 0 && errno != EEXIST ? errno : 0;
    close(file);
    return failed;
}

static int put(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    int failed = 0;

    if (file < 0 || write(file, text, strlen(text)) != (ssize_t)strlen(text))
        failed = errno;
    if (file >= 0)
        close(file);
    return failed;
}

static int vfio(const char *address)
{
    char path[128];
    int failed;

    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/driver_override", address);
    failed = put(path, "vfio-pci");
    if (failed)
        return failed;
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/driver/unbind", address);
    failed = put(path, address);
    /* It may have had no driver. */
    if (failed && failed != ENOENT)
        return failed;
    return put("/sys/bus/pci/drivers_probe", address);
}

static int eject(const char *device)
{
    int file = open(device, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    int failed = file < 0 || ioctl(file, CDROMEJECT) != 0 ? errno : 0;

    if (file >= 0)
        close(file);
    return failed;
}

/* Whether a process has a device open, and no longer without waiting for it. */
static int uses(pid_t pid, const char *device)
{
    char path[64], link[64], line[128];

    for (int fd = 0; fd < 64; fd++) {
        FILE *info;
        unsigned flags = O_NONBLOCK;
        ssize_t len;

        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
        len = readlink(path, link, sizeof link - 1);
        if (len < 0)
            continue;
        link[len] = '\0';
        if (strcmp(link, device) != 0)
            continue;
        snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", (int)pid, fd);
        info = fopen(path, "re");
        while (info != NULL && fgets(line, sizeof line, info) != NULL)
            sscanf(line, "flags: %o", &flags);
        if (info != NULL)
            fclose(info);
        if ((flags & O_NONBLOCK) == 0)
            return 1;
    }
    return 0;
}

/* Takes the disc out while a program reads it, which is ended then. */
static int held(const char *device, char **words)
{
    int failed;
    pid_t child = fork();

    if (child < 0)
        return errno;
    if (child == 0) {
        execv(words[0], words);
        _exit(127);
    }
    while (!uses(child, device))
        usleep(1000);
    failed = eject(device);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return failed;
}

/* Runs a program and says what it says. */
static int run(char **words)
{
    char line[4096];
    int ends[2];
    int status = 0;
    pid_t child;
    FILE *said;

    if (pipe(ends) != 0)
        return errno;
    child = fork();
    if (child < 0)
        return errno;
    if (child == 0) {
        dup2(ends[1], 1);
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        execv(words[0], words);
        _exit(127);
    }
    close(ends[1]);
    said = fdopen(ends[0], "r");
    while (said != NULL && fgets(line, sizeof line, said) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        printf("guest: %s\n", line);
    }
    if (said != NULL)
        fclose(said);
    if (waitpid(child, &status, 0) < 0)
        return errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(void)
{
    char line[4096];
    FILE *commands;

    mkdir("/proc", 0755);
    mkdir("/tmp", 0755);
    if (mount("d", "/dev", "devtmpfs", 0, NULL) != 0 || mount("s", "/sys", "sysfs", 0, NULL) != 0 ||
        mount("p", "/proc", "proc", 0, NULL) != 0 || freopen("/dev/ttyS0", "w", stdout) == NULL)
        off();
    setvbuf(stdout, NULL, _IONBF, 0);
    commands = fopen("/commands", "re");
    while (commands != NULL && fgets(line, sizeof line, commands) != NULL) {
        char *words[MAX_WORDS + 1] = {NULL};
        int ended, count = 0;

        line[strcspn(line, "\n")] = '\0';
        printf("guest: $ %s\n", line);
        for (char *word = strtok(line, " "); word != NULL && count < MAX_WORDS; word = strtok(NULL, " "))
            words[count++] = word;
        if (count < 2)
            continue;
        if (strcmp(words[0], "load") == 0)
            ended = load(words[1], count > 2 ? words[2] : "");
        else if (strcmp(words[0], "vfio") == 0)
            ended = vfio(words[1]);
        else if (strcmp(words[0], "eject") == 0)
            ended = eject(words[1]);
        else if (strcmp(words[0], "held") == 0)
            ended = held(words[1], words + 2);
        else
            ended = run(words);
        printf("guest: = %d\n", ended);
    }
    printf("guest: done\n");
    off();
}
