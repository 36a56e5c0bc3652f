/* Storages of the program under names of its own: everything that takes a location accepts them, including whole
 * chains, and they follow the same rules as files. */
#include "memory.h"

#include <sys/mman.h>

#define SIZE ((uint64_t)2 << 20)
#define ROOM ((uint64_t)16 << 20)

static platter_storages *new_storages(void)
{
    platter_storages *storages;
    OK(platter_storages_new(&storages, 0, &err));
    return storages;
}

static void add_memory(platter_storages *storages, const char *name, struct memory *m)
{
    OK(platter_storages_add_storage(storages, name, &mem_ops, m, mem_free, 0, &err));
}

static platter_open_options *opening(const platter_storages *storages, const char *format)
{
    platter_open_options *options;
    platter_policy *policy;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, format, 0, &err));
    OK(platter_open_options_set_storages(options, storages, 0, &err));
    OK(platter_policy_new(&policy, PLATTER_POLICY_PERMISSIVE, 0, &err));
    OK(platter_open_options_set_policy(options, policy, 0, &err));
    platter_policy_free(policy);
    return options;
}

static platter_image *open_named(const platter_storages *storages, const char *name,
                                 const char *format, uint32_t flags)
{
    platter_open_options *options = opening(storages, format);
    platter_image *image;
    OK(platter_image_open(&image, name, options, flags, &err));
    platter_open_options_free(options);
    return image;
}

static void create(const platter_storages *storages, const char *name, const char *format,
                   const char *backing, const char *backing_format)
{
    platter_create *create;
    platter_job *job;
    OK(platter_create_new(&create, name, format, 0, &err));
    OK(platter_create_set_storages(create, storages, 0, &err));
    if (backing == NULL)
        OK(platter_create_set_size(create, SIZE, 0, &err));
    else
        OK(platter_create_set_backing(create, backing, backing_format, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
}

/* Converts a source in the set to the raw disk `copy` in the set. */
static void convert_to_copy(const platter_storages *storages, const char *source,
                            const platter_open_options *options)
{
    platter_convert *convert;
    platter_job *job;
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, source, 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_set_target(convert, "copy", "raw", 0, &err));
    OK(platter_convert_set_storages(convert, storages, 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_convert_free(convert);
}

/* A chain in which no layer is a named file: the base is in memory, the overlay in a descriptor. */
static void a_chain(void)
{
    struct memory base = new_memory(0, ROOM);
    int fd = memfd_create("overlay", MFD_CLOEXEC);
    CHECK(fd >= 0);
    platter_storages *storages = new_storages();
    add_memory(storages, "base.vmdk", &base);
    OK(platter_storages_add_fd(storages, "overlay.qcow2", fd, 0, &err));
    close(fd);

    create(storages, "base.vmdk", "vmdk", NULL, NULL);
    platter_image *image = open_named(storages, "base.vmdk", "vmdk", PLATTER_OPEN_WRITE);
    write_part(image, 0);
    OK(platter_image_close(image, 0, &err));

    create(storages, "overlay.qcow2", "qcow2", "base.vmdk", "vmdk");
    image = open_named(storages, "overlay.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    check_part(image, 0);
    write_part(image, SIZE - PART);
    /* The base is in use, so it cannot be opened for writing. */
    platter_open_options *options = opening(storages, "vmdk");
    platter_image *other;
    FAILS(platter_image_open(&other, "base.vmdk", options, PLATTER_OPEN_WRITE, &err),
          PLATTER_STATUS_LOCKED, "lock");
    OK(platter_image_open(&other, "base.vmdk", options, 0, &err));
    OK(platter_image_close(other, 0, &err));
    platter_open_options_free(options);
    /* Nor can the overlay, which already has a writer. */
    options = opening(storages, "qcow2");
    FAILS(platter_image_open(&other, "overlay.qcow2", options, PLATTER_OPEN_WRITE, &err),
          PLATTER_STATUS_LOCKED, "lock");
    platter_open_options *overlay_options = options;

    /* Objects that copied the set continue to work. */
    platter_storages_free(storages);
    CHECK(base.frees == 0);
    check_part(image, SIZE - PART);
    check_part(image, 0);
    OK(platter_image_close(image, 0, &err));
    options = overlay_options;
    platter_job *job;
    OK(platter_commit_job_new(&job, "overlay.qcow2", NULL, options, 0, &err));
    platter_open_options_free(options);
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    CHECK(base.frees == 1);

    storages = new_storages();
    add_memory(storages, "again", &base);
    image = open_named(storages, "again", "vmdk", 0);
    check_part(image, 0);
    check_part(image, SIZE - PART);
    OK(platter_image_close(image, 0, &err));
    platter_storages_free(storages);
    CHECK(base.frees == 2);
    free(base.bytes);
}

/* From memory to memory, from there to a descriptor, and a part of it with dd; no file is touched. */
static void conversions(void)
{
    struct memory source = new_memory(SIZE, ROOM), target = new_memory(0, ROOM), part = new_memory(0, ROOM);
    fill_pattern(source.bytes, SIZE, 0);
    platter_storages *storages = new_storages();
    add_memory(storages, "source", &source);
    add_memory(storages, "target", &target);
    add_memory(storages, "part", &part);

    platter_open_options *options = opening(storages, "raw");
    platter_convert *convert;
    platter_job *job;
    OK(platter_convert_new(&convert, 0, &err));
    OK(platter_convert_add_source(convert, "source", 0, &err));
    OK(platter_convert_set_source_options(convert, options, 0, &err));
    OK(platter_convert_set_target(convert, "target", "qcow2", 0, &err));
    OK(platter_convert_set_storages(convert, storages, 0, &err));
    OK(platter_convert_job_new(&job, convert, PLATTER_CONVERT_COMPRESS, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    CHECK(memcmp(target.bytes, "QFI\xfb", 4) == 0);
    CHECK(access("target", F_OK) != 0);

    /* A source is never its own target. */
    OK(platter_convert_set_target(convert, "source", "raw", 0, &err));
    OK(platter_convert_job_new(&job, convert, 0, &err));
    FAILS(platter_job_run(job, 0, &err), PLATTER_STATUS_LOCKED, "");
    platter_job_free(job);
    CHECK_U64(source.size, SIZE);
    platter_convert_free(convert);
    platter_open_options_free(options);

    platter_dd *dd;
    options = opening(storages, "qcow2");
    OK(platter_dd_new(&dd, 0, &err));
    OK(platter_dd_set_input(dd, "target", 0, &err));
    OK(platter_dd_set_input_options(dd, options, 0, &err));
    OK(platter_dd_set_output(dd, "part", "raw", 0, &err));
    OK(platter_dd_set_output_storages(dd, storages, 0, &err));
    OK(platter_dd_set_number(dd, PLATTER_DD_BLOCK_SIZE, PART, 0, &err));
    OK(platter_dd_set_number(dd, PLATTER_DD_SKIP, 3, 0, &err));
    OK(platter_dd_set_number(dd, PLATTER_DD_COUNT, 2, 0, &err));
    OK(platter_dd_job_new(&job, dd, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_dd_free(dd);
    platter_open_options_free(options);
    CHECK_U64(part.size, 2 * PART);
    CHECK(memcmp(part.bytes, source.bytes + 3 * PART, 2 * PART) == 0);

    platter_storages_free(storages);
    CHECK(source.frees == 1 && target.frees == 1 && part.frees == 1);
    free(source.bytes);
    free(target.bytes);
    free(part.bytes);
}

static void on_secret(platter_secret_answer *answer, const char *id, void *user_data)
{
    CHECK_STR(id, "key");
    ++*(int *)user_data;
    OK(platter_secret_answer_set(answer, "pass", 4, 0, &err));
}

/* An encrypted image in a descriptor, whose passphrase a callback supplies. */
static void an_encrypted_descriptor(void)
{
    int fd = memfd_create("secret", MFD_CLOEXEC);
    CHECK(fd >= 0);
    platter_storages *storages = new_storages();
    OK(platter_storages_add_fd(storages, "vault", fd, 0, &err));
    platter_secrets *secrets;
    int asked = 0;
    OK(platter_secrets_new(&secrets, 0, &err));
    OK(platter_secrets_set_callback(secrets, on_secret, &asked, NULL, 0, &err));

    platter_create *create;
    platter_options *bag;
    platter_job *job;
    OK(platter_create_new(&create, "vault", "qcow2", 0, &err));
    OK(platter_create_set_size(create, SIZE, 0, &err));
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_parse(bag, "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10", 0,
                             &err));
    OK(platter_create_set_options(create, bag, 0, &err));
    OK(platter_create_set_secrets(create, secrets, 0, &err));
    OK(platter_create_set_storages(create, storages, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
    platter_options_free(bag);
    CHECK(asked > 0);

    platter_open_options *options = opening(storages, "qcow2");
    OK(platter_open_options_set_secrets(options, secrets, 0, &err));
    platter_image *image;
    OK(platter_image_open(&image, "driver=qcow2,encrypt.key-secret=key,file.filename=vault", options,
                          PLATTER_OPEN_WRITE | PLATTER_LOCATION_IMAGE_OPTS, &err));
    write_part(image, PART);
    check_part(image, PART);
    OK(platter_image_close(image, 0, &err));
    platter_open_options_free(options);
    platter_secrets_free(secrets);
    platter_storages_free(storages);
    close(fd);
}

/* The disk of an open image is converted, and written to, by its name in the set. */
static void an_open_image(void)
{
    struct memory disk = new_memory(0, ROOM), copy = new_memory(0, ROOM);
    platter_storages *storages = new_storages();
    add_memory(storages, "disk.qcow2", &disk);
    add_memory(storages, "copy", &copy);
    create(storages, "disk.qcow2", "qcow2", NULL, NULL);
    platter_image *image = open_named(storages, "disk.qcow2", "qcow2", PLATTER_OPEN_WRITE);
    write_part(image, SIZE / 2);
    OK(platter_storages_add_image(storages, "disk", image, 0, &err));

    platter_open_options *options = opening(storages, "raw");
    convert_to_copy(storages, "disk", options);
    CHECK_U64(copy.size, SIZE);

    platter_image *raw;
    OK(platter_image_open(&raw, "copy", options, 0, &err));
    check_part(raw, SIZE / 2);
    OK(platter_image_close(raw, 0, &err));

    OK(platter_image_open(&raw, "disk", options, PLATTER_OPEN_WRITE, &err));
    write_part(raw, 0);
    OK(platter_image_close(raw, 0, &err));
    check_part(image, 0);
    platter_open_options_free(options);
    platter_storages_free(storages);
    OK(platter_image_close(image, 0, &err));
    CHECK(disk.frees == 1 && copy.frees == 1);
    free(disk.bytes);
    free(copy.bytes);
}

/* Storages that cannot be written to are rejected before anything is touched. */
static void refusals(void)
{
    struct memory disk = new_memory(SIZE, ROOM);
    platter_storages *storages = new_storages();
    platter_storage_ops reading = {.read = mem_read, .size = mem_size};
    OK(platter_storages_add_storage(storages, "disk", &reading, &disk, mem_free, 0, &err));
    FAILS(platter_storages_add_storage(storages, "disk", &mem_ops, &disk, mem_free, 0, &err),
          PLATTER_STATUS_EXISTS, "'disk'");
    CHECK(disk.frees == 1);
    FAILS(platter_storages_add_fd(storages, "", 0, 0, &err), PLATTER_STATUS_INVALID, "name");
    FAILS(platter_storages_add_fd(storages, "closed", 987, 0, &err), PLATTER_STATUS_OS, "");

    platter_open_options *options = opening(storages, "raw");
    platter_image *image;
    FAILS(platter_image_open(&image, "disk", options, PLATTER_OPEN_WRITE, &err),
          PLATTER_STATUS_READ_ONLY, "'disk'");
    /* A name that is not in the set refers to a file. */
    FAILS(platter_image_open(&image, "no-such", options, 0, &err), PLATTER_STATUS_NOT_FOUND,
          "no-such");
    platter_open_options_free(options);

    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    char path[] = "read-only.raw";
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(file >= 0 && ftruncate(file, (off_t)SIZE) == 0);
    close(file);
    file = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(file >= 0);
    OK(platter_storages_add_fd(storages, "file", file, 0, &err));
    close(file);
    close(fd);
    platter_create *create;
    platter_job *job;
    OK(platter_create_new(&create, "file", "qcow2", 0, &err));
    OK(platter_create_set_size(create, SIZE, 0, &err));
    OK(platter_create_set_storages(create, storages, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    platter_error *error = NULL;
    CHECK(platter_job_run(job, 0, &error) != 0);
    platter_error_free(error);
    platter_job_free(job);
    platter_create_free(create);
    CHECK(lseek(open(path, O_RDONLY), 0, SEEK_END) == (off_t)SIZE);
    platter_storages_free(storages);
    CHECK(disk.frees == 2);
    free(disk.bytes);
}

static void create_with(const platter_storages *storages, const char *name, const char *format,
                        const char *given)
{
    platter_create *create;
    platter_options *bag;
    platter_job *job;
    OK(platter_create_new(&create, name, format, 0, &err));
    OK(platter_create_set_storages(create, storages, 0, &err));
    OK(platter_create_set_size(create, SIZE, 0, &err));
    OK(platter_options_new(&bag, 0, &err));
    OK(platter_options_parse(bag, given, 0, &err));
    OK(platter_create_set_options(create, bag, 0, &err));
    OK(platter_create_job_new(&job, create, 0, &err));
    OK(platter_job_run(job, 0, &err));
    platter_job_free(job);
    platter_create_free(create);
    platter_options_free(bag);
}

static int broken_read(void *buf, size_t len, uint64_t offset, void *user_data)
{
    (void)buf, (void)len, (void)offset, (void)user_data;
    return -EIO;
}

/* Images of several files, each in a storage: data files and extents are found by their names, and an error reports
 * which file it concerns. */
static void images_of_several_files(void)
{
    static const struct {
        const char *format, *options, *name, *part;
    } kinds[] = {
        {"qcow2", "data_file=a.data", "a.qcow2", "a.data"},
        {"vmdk", "subformat=monolithicFlat", "b.vmdk", "b-flat.vmdk"},
        {"vmdk", "subformat=twoGbMaxExtentSparse", "c.vmdk", "c-s001.vmdk"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct memory head = new_memory(0, ROOM), part = new_memory(0, ROOM), copy = new_memory(0, ROOM);
        platter_storages *storages = new_storages();
        add_memory(storages, kinds[i].name, &head);
        add_memory(storages, kinds[i].part, &part);
        add_memory(storages, "copy", &copy);
        create_with(storages, kinds[i].name, kinds[i].format, kinds[i].options);
        platter_image *image = open_named(storages, kinds[i].name, kinds[i].format, PLATTER_OPEN_WRITE);
        write_part(image, PART);
        OK(platter_image_close(image, 0, &err));
        CHECK(part.size >= PART && access(kinds[i].part, F_OK) != 0 && access(kinds[i].name, F_OK) != 0);

        platter_open_options *options = opening(storages, kinds[i].format);
        convert_to_copy(storages, kinds[i].name, options);
        platter_open_options_free(options);
        image = open_named(storages, "copy", "raw", 0);
        check_part(image, PART);
        OK(platter_image_close(image, 0, &err));
        platter_storages_free(storages);

        /* The file that holds the data fails, and the error names it. */
        storages = new_storages();
        platter_storage_ops broken = mem_ops;
        broken.read = broken_read;
        add_memory(storages, kinds[i].name, &head);
        OK(platter_storages_add_storage(storages, kinds[i].part, &broken, &part, mem_free, 0, &err));
        options = opening(storages, kinds[i].format);
        unsigned char byte;
        platter_error *error = NULL;
        int status = platter_image_open(&image, kinds[i].name, options, 0, &error);
        if (status == 0) {
            status = platter_image_read(image, &byte, 1, PART, 0, &error);
            OK(platter_image_close(image, 0, &err));
        }
        CHECK(status != 0 && error != NULL);
        CHECK_STR(platter_error_file(error), kinds[i].part);
        platter_error_free(error);
        platter_open_options_free(options);

        /* If it is not in the set, its name refers to a file, which does not exist. */
        platter_storages *alone = new_storages();
        add_memory(alone, kinds[i].name, &head);
        options = opening(alone, kinds[i].format);
        FAILS(platter_image_open(&image, kinds[i].name, options, 0, &err), PLATTER_STATUS_NOT_FOUND,
              kinds[i].part);
        platter_open_options_free(options);
        platter_storages_free(alone);
        platter_storages_free(storages);
        CHECK(head.frees == 3 && part.frees == 2 && copy.frees == 1);
        free(head.bytes);
        free(part.bytes);
        free(copy.bytes);
    }
}

int main(void)
{
    images_of_several_files();
    a_chain();
    conversions();
    an_encrypted_descriptor();
    an_open_image();
    refusals();
    passed();
    return 0;
}
