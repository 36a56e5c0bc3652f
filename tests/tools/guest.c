/* The first and only program of a virtual machine whose disk is under test; it is linked statically.
 * It says on the serial console what it sees, changes the disk where its argument is "write" or the
 * files on it where that is "files", and turns the machine off. Each line of it begins with "guest: ". */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdint.h>
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

#define DISK "/dev/vda"
#define KIB (1ULL << 10)
#define MIB (1ULL << 20)
/* As the test has them. */
#define STRIPE_AT (32 * MIB)
#define STRIPE (4 * MIB)
#define ZEROED_AT (2 * MIB)
#define DISCARDED_AT (48 * MIB)

static uint8_t *buffer;

_Noreturn static void off(void)
{
    sync();
    for (;;)
        reboot(RB_POWER_OFF);
}

_Noreturn static void failed(const char *what)
{
    printf("guest: failed: %s: %s\n", what, strerror(errno));
    off();
}

static void load(const char *name)
{
    int file = open(name, O_RDONLY | O_CLOEXEC);

    /* What is not there is a part of the kernel. */
    if (file < 0)
        return;
    if (syscall(SYS_finit_module, file, "", 0) != 0 && errno != EEXIST)
        failed(name);
    close(file);
}

static int disk(int flags)
{
    int file = -1;

    for (int tries = 0; tries < 3000; tries++) {
        file = open(DISK, flags | O_DIRECT | O_CLOEXEC);
        if (file >= 0 || errno != ENOENT)
            break;
        usleep(10000);
    }
    return file;
}

/* FNV-1a over words of eight bytes. */
static uint64_t checksum(int file, uint64_t size)
{
    uint64_t sum = 0xcbf29ce484222325ULL;

    for (uint64_t at = 0; at < size; at += MIB) {
        size_t len = (size_t)(size - at < MIB ? size - at : MIB);

        if (pread(file, buffer, len, (off_t)at) != (ssize_t)len)
            failed("read");
        for (size_t place = 0; place < len; place += 8) {
            uint64_t word;

            memcpy(&word, buffer + place, sizeof word);
            sum = (sum ^ word) * 0x100000001b3ULL;
        }
    }
    return sum;
}

static void say(const char *name)
{
    char path[128];
    char line[128] = "";
    FILE *file;

    snprintf(path, sizeof path, "/sys/block/vda/%s", name);
    file = fopen(path, "r");
    if (file == NULL || fgets(line, sizeof line, file) == NULL)
        line[0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    printf("guest: %s %s\n", name, line);
    if (file != NULL)
        fclose(file);
}

static unsigned queues(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/sys/block/vda/mq");
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL)
        count += entry->d_name[0] != '.';
    return count;
}

/* Writes every second page of a stripe from the last to the first, and reads all of it. */
static int work(unsigned number)
{
    cpu_set_t where;
    int file = disk(O_RDWR);
    uint64_t begin = STRIPE_AT + number * STRIPE;

    /* Each processor has a queue of its own. */
    CPU_ZERO(&where);
    CPU_SET(number % 2, &where);
    if (file < 0 || sched_setaffinity(0, sizeof where, &where) != 0)
        return 1;
    for (uint64_t page = STRIPE / (4 * KIB); page-- > 0;) {
        if (page % 2 == 0)
            continue;
        memset(buffer, (int)(number * 50 + page % 50 + 1), 4 * KIB);
        if (pwrite(file, buffer, 4 * KIB, (off_t)(begin + page * 4 * KIB)) != 4 * KIB)
            return 1;
    }
    if (fdatasync(file) != 0)
        return 1;
    for (uint64_t page = 1; page < STRIPE / (4 * KIB); page += 2) {
        if (pread(file, buffer, 4 * KIB, (off_t)(begin + page * 4 * KIB)) != 4 * KIB)
            return 1;
        for (size_t place = 0; place < 4 * KIB; place++)
            if (buffer[place] != (uint8_t)(number * 50 + page % 50 + 1))
                return 1;
    }
    return 0;
}

static void change(void)
{
    uint64_t zeroed[2] = {ZEROED_AT, MIB + 512};
    uint64_t discarded[2] = {DISCARDED_AT, 4 * MIB};
    int file = disk(O_RDWR);

    if (file < 0)
        failed("open");
    for (unsigned number = 0; number < 4; number++) {
        pid_t child = fork();

        if (child < 0)
            failed("fork");
        if (child == 0)
            _exit(work(number));
    }
    for (unsigned number = 0; number < 4; number++) {
        int status = 1;

        errno = 0;
        if (wait(&status) < 0 || status != 0)
            failed("a stripe");
    }
    if (ioctl(file, BLKZEROOUT, zeroed) != 0)
        failed("zeroes");
    if (ioctl(file, BLKDISCARD, discarded) != 0)
        failed("discard");
    if (fsync(file) != 0)
        failed("flush");
    close(file);
}

/* The first line of a file of the disk. */
static void tell(const char *name)
{
    char line[128] = "";
    FILE *file = fopen(name, "r");

    if (file == NULL || fgets(line, sizeof line, file) == NULL)
        failed(name);
    fclose(file);
    line[strcspn(line, "\n")] = '\0';
    printf("guest: %s: %s\n", name, line);
}

static void put(const char *name, const char *text)
{
    FILE *file = fopen(name, "w");

    if (file == NULL || fputs(text, file) == EOF || fclose(file) != 0)
        failed(name);
}

/* A loop device over the first partition of the disk; its number. */
static int loop_over_partition(int file)
{
    uint8_t start[4];
    struct loop_config config = {.fd = (uint32_t)file};
    int control, number, loop;
    char name[32];

    if (pread(file, start, sizeof start, 446 + 8) != sizeof start)
        failed("the table of partitions");
    config.info.lo_offset =
        512 * (start[0] | (uint64_t)start[1] << 8 | (uint64_t)start[2] << 16 | (uint64_t)start[3] << 24);
    control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0)
        failed("a loop device");
    close(control);
    snprintf(name, sizeof name, "/dev/loop%d", number);
    loop = open(name, O_RDWR | O_CLOEXEC);
    if (loop < 0 || ioctl(loop, LOOP_CONFIGURE, &config) != 0)
        failed(name);
    return loop;
}

/* The disk is a directory of the host, with a file system of FAT: its partition is read as the kernel found it, and
 * written through a loop device. */
static void files(void)
{
    static const char *const modules[] = {
        "/fat.ko", "/vfat.ko", "/nls_cp437.ko", "/nls_ascii.ko", "/loop.ko"};
    int file = disk(O_RDONLY);
    int loop;
    char name[32];
    struct loop_info64 told;

    if (file < 0)
        failed("open");
    close(file);
    file = open(DISK, O_RDWR | O_CLOEXEC);
    if (file < 0)
        failed("open");
    for (size_t number = 0; number < sizeof modules / sizeof *modules; number++)
        load(modules[number]);
    if (mkdir("/fat", 0700) != 0 || mount(DISK "1", "/fat", "vfat", MS_RDONLY, NULL) != 0)
        failed("mount");
    tell("/fat/hello.txt");
    if (umount("/fat") != 0)
        failed("umount");
    loop = loop_over_partition(file);
    if (ioctl(loop, LOOP_GET_STATUS64, &told) != 0)
        failed("the loop device");
    snprintf(name, sizeof name, "/dev/loop%u", told.lo_number);
    if (mount(name, "/fat", "vfat", 0, NULL) != 0)
        failed("mount of the loop device");
    printf("guest: mounted by a loop device\n");
    tell("/fat/hello.txt");
    tell("/fat/A long file name.text");
    tell("/fat/sub/x");
    put("/fat/hello.txt", "another text\n");
    if (mkdir("/fat/made by the guest", 0700) != 0)
        failed("mkdir");
    put("/fat/made by the guest/and its file", "new\n");
    if (unlink("/fat/sub/x") != 0)
        failed("unlink");
    if (umount("/fat") != 0)
        failed("umount");
    if (fsync(loop) != 0 || ioctl(loop, LOOP_CLR_FD) != 0 || fsync(file) != 0)
        failed("flush");
    close(loop);
    close(file);
    printf("guest: done\n");
    off();
}

int main(int argc, char **argv)
{
    static const char *const modules[] = {"/virtio_ring.ko", "/virtio.ko",
        "/virtio_pci_legacy_dev.ko", "/virtio_pci_modern_dev.ko", "/virtio_pci.ko",
        "/virtio_blk.ko"};
    uint64_t size = 0;
    int file;

    if (mount("d", "/dev", "devtmpfs", 0, NULL) != 0 || mount("s", "/sys", "sysfs", 0, NULL) != 0 ||
        freopen("/dev/ttyS0", "w", stdout) == NULL)
        off();
    setvbuf(stdout, NULL, _IONBF, 0);
    for (size_t number = 0; number < sizeof modules / sizeof *modules; number++)
        load(modules[number]);
    if (argc > 1 && strcmp(argv[1], "files") == 0)
        files();
    if (posix_memalign((void **)&buffer, 4096, MIB) != 0)
        failed("memory");

    file = disk(O_RDONLY);
    if (file < 0 || ioctl(file, BLKGETSIZE64, &size) != 0)
        failed("open");
    printf("guest: queues %u\n", queues());
    say("ro");
    say("serial");
    say("queue/logical_block_size");
    printf("guest: size %llu\n", (unsigned long long)size);
    printf("guest: sum %016llx\n", (unsigned long long)checksum(file, size));
    if (argc > 1 && strcmp(argv[1], "write") == 0) {
        change();
        printf("guest: changed %016llx\n", (unsigned long long)checksum(file, size));
    } else {
        int writer = disk(O_RDWR);

        if (writer >= 0 && pwrite(writer, buffer, 4 * KIB, 0) >= 0)
            printf("guest: a write is taken\n");
    }
    close(file);
    printf("guest: done\n");
    off();
}
