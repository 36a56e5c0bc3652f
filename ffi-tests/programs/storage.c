/* Storage of the program: a table of callbacks over a buffer, which counts how often it is freed. */
#include "check.h"

struct memory {
    unsigned char *bytes;
    uint64_t size, capacity;
    int reads, writes, flushes, zeroes, frees;
    int fail_reads, fail_flush;
    int asked; /* calls of the callback that explains a failure */
};

static int mem_read(void *buf, size_t len, uint64_t offset, void *user_data)
{
    struct memory *m = user_data;
    __atomic_add_fetch(&m->reads, 1, __ATOMIC_RELAXED);
    if (m->fail_reads)
        return m->fail_reads;
    CHECK(offset <= m->size && len <= m->size - offset);
    memcpy(buf, m->bytes + offset, len);
    return 0;
}

static int mem_size(uint64_t *size, void *user_data)
{
    const struct memory *m = user_data;
    *size = m->size;
    return 0;
}

static int mem_write(const void *buf, size_t len, uint64_t offset, void *user_data)
{
    struct memory *m = user_data;
    m->writes++;
    if (offset > m->capacity || len > m->capacity - offset)
        return -ENOSPC;
    memcpy(m->bytes + offset, buf, len);
    if (offset + len > m->size)
        m->size = offset + len;
    return 0;
}

static int mem_flush(void *user_data)
{
    struct memory *m = user_data;
    m->flushes++;
    return m->fail_flush;
}

static int mem_set_size(uint64_t size, void *user_data)
{
    struct memory *m = user_data;
    if (size > m->capacity)
        return PLATTER_STATUS_NO_SPACE;
    if (size > m->size)
        memset(m->bytes + m->size, 0, size - m->size);
    m->size = size;
    return 0;
}

static int mem_zero(uint64_t offset, uint64_t len, uint32_t flags, void *user_data)
{
    struct memory *m = user_data;
    CHECK(flags <= (PLATTER_ZERO_MAY_UNMAP | PLATTER_ZERO_NO_FALLBACK));
    m->zeroes++;
    if (offset + len > m->size)
        return PLATTER_STATUS_UNSUPPORTED;
    memset(m->bytes + offset, 0, len);
    return 0;
}

static int mem_discard(uint64_t offset, uint64_t len, void *user_data)
{
    (void)offset, (void)len, (void)user_data;
    return 0;
}

static int mem_extent(uint64_t offset, uint64_t len, uint64_t *run, uint32_t *flags, void *user_data)
{
    (void)offset, (void)user_data;
    *run = len;
    *flags = PLATTER_EXTENT_DATA;
    return 0;
}

static void mem_free(void *user_data)
{
    ((struct memory *)user_data)->frees++;
}

static const char *mem_message(int code, void *user_data)
{
    struct memory *m = user_data;
    m->asked = code;
    return code == PLATTER_STATUS_INTERNAL ? NULL : "the memory of \x01 is worn out";
}

static const platter_storage_ops OPS = {
    .read = mem_read,
    .size = mem_size,
    .write = mem_write,
    .flush = mem_flush,
    .set_size = mem_set_size,
    .write_zeroes = mem_zero,
    .discard = mem_discard,
    .extent = mem_extent,
};

static struct memory load(const char *path)
{
    struct memory m = {0};
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    m.capacity = 8 << 20;
    m.bytes = calloc(1, m.capacity);
    CHECK(m.bytes != NULL);
    m.size = fread(m.bytes, 1, m.capacity, file);
    fclose(file);
    return m;
}

static int open_over(platter_image **image, const platter_storage_ops *ops, struct memory *m,
                     const char *format, uint32_t flags, platter_error **error)
{
    platter_open_options *options;
    OK(platter_open_options_new(&options, 0, &err));
    OK(platter_open_options_set_format(options, format, 0, &err));
    int status = platter_image_open_storage(image, ops, "memory", m, mem_free, options, flags, error);
    platter_open_options_free(options);
    return status;
}

int main(void)
{
    unsigned char data[100000], got[100000];
    platter_image *image;

    /* A qcow2 image that grows inside the program's memory. */
    make_image("m.qcow2", "qcow2", 4 << 20, NULL);
    struct memory m = load("m.qcow2");
    OK(open_over(&image, &OPS, &m, "qcow2", PLATTER_OPEN_WRITE, &err));
    CHECK_STR(platter_image_filename(image), "memory");
    fill_pattern(data, sizeof data, 12345);
    OK(platter_image_write(image, data, sizeof data, 12345, 0, &err));
    OK(platter_image_flush(image, 0, &err));
    CHECK(m.writes > 0 && m.flushes > 0);
    OK(platter_image_write_zeroes(image, 2 << 20, 65536, 0, &err));
    CHECK(m.frees == 0);
    OK(platter_image_close(image, 0, &err));
    CHECK(m.frees == 1);

    /* It is a complete image: written to a file and opened from there, it has the same data. */
    FILE *file = fopen("copy.qcow2", "wb");
    CHECK(file != NULL && fwrite(m.bytes, 1, m.size, file) == m.size && fclose(file) == 0);
    image = open_image("copy.qcow2", "qcow2", 0);
    OK(platter_image_read(image, got, sizeof got, 12345, 0, &err));
    CHECK(memcmp(got, data, sizeof data) == 0);
    OK(platter_image_close(image, 0, &err));

    /* Without `write` it is read-only; without flags too. */
    platter_storage_ops read_only = {.read = mem_read, .size = mem_size};
    FAILS(open_over(&image, &read_only, &m, "qcow2", PLATTER_OPEN_WRITE, &err),
          PLATTER_STATUS_READ_ONLY, "memory");
    CHECK(image == NULL && m.frees == 2);
    OK(open_over(&image, &read_only, &m, "qcow2", 0, &err));
    CHECK(platter_image_is_read_only(image));
    OK(platter_image_read(image, got, sizeof got, 12345, 0, &err));
    CHECK(memcmp(got, data, sizeof data) == 0);

    /* Failures of the callbacks, as -errno and as a status, reach the caller. */
    m.fail_reads = -EIO;
    FAILS(platter_image_read(image, got, sizeof got, 12345, 0, &err), PLATTER_STATUS_OS,
          "read from 'memory'");
    platter_error *error = NULL;
    CHECK(platter_image_read(image, got, 1, 12345, 0, &error) == PLATTER_STATUS_OS);
    CHECK(platter_error_errno(error) == EIO);
    CHECK_STR(platter_error_file(error), "memory");
    platter_error_free(error);
    m.fail_reads = PLATTER_STATUS_DENIED;
    FAILS(platter_image_read(image, got, 1, 12345, 0, &err), PLATTER_STATUS_DENIED, "");
    m.fail_reads = 5;
    FAILS(platter_image_read(image, got, 1, 12345, 0, &err), PLATTER_STATUS_OS, "returned 5");
    m.fail_reads = 0;
    OK(platter_image_close(image, 0, &err));
    CHECK(m.frees == 3);

    /* The program supplies its own message; the status and the errno are still those of the returned code. */
    platter_storage_ops telling = read_only;
    telling.message = mem_message;
    OK(open_over(&image, &telling, &m, "qcow2", 0, &err));
    CHECK(m.asked == 0);
    m.fail_reads = -EIO;
    CHECK(platter_image_read(image, got, 1, 12345, 0, &error) == PLATTER_STATUS_OS);
    CHECK(platter_error_errno(error) == EIO && m.asked == -EIO);
    CHECK(strstr(platter_error_message(error), " is worn out") != NULL);
    CHECK(strchr(platter_error_message(error), 1) == NULL);
    platter_error_free(error);
    m.fail_reads = PLATTER_STATUS_DENIED;
    FAILS(platter_image_read(image, got, 1, 12345, 0, &err), PLATTER_STATUS_DENIED, "worn out");
    m.fail_reads = PLATTER_STATUS_INTERNAL;
    FAILS(platter_image_read(image, got, 1, 12345, 0, &err), PLATTER_STATUS_INTERNAL, "callback failed");
    m.fail_reads = 0;
    OK(platter_image_close(image, 0, &err));
    m.frees--;

    /* A failed open frees exactly once. */
    m.fail_reads = -EIO;
    FAILS(open_over(&image, &OPS, &m, "qcow2", 0, &err), PLATTER_STATUS_OS, "memory");
    m.fail_reads = 0;
    CHECK(m.frees == 4);
    struct memory junk = {.bytes = data, .size = sizeof data, .capacity = sizeof data};
    FAILS(open_over(&image, &OPS, &junk, "qcow2", 0, &err), PLATTER_STATUS_NOT_AN_IMAGE, "memory");
    CHECK(junk.frees == 1);
    platter_storage_ops no_flush = OPS;
    no_flush.flush = NULL;
    FAILS(open_over(&image, &no_flush, &m, "qcow2", PLATTER_OPEN_WRITE, &err),
          PLATTER_STATUS_INVALID, "flush");
    CHECK(m.frees == 5);
    platter_storage_ops reserved = OPS;
    reserved.reserved[6] = &m;
    FAILS(open_over(&image, &reserved, &m, "qcow2", 0, &err), PLATTER_STATUS_INVALID, "reserved");
    CHECK(m.frees == 6);

    /* A failed flush is reported by close, which still closes the image. */
    OK(open_over(&image, &OPS, &m, "qcow2", PLATTER_OPEN_WRITE, &err));
    OK(platter_image_write(image, data, sizeof data, 1 << 20, 0, &err));
    m.fail_flush = -EIO;
    FAILS(platter_image_flush(image, 0, &err), PLATTER_STATUS_OS, "flush 'memory'");
    FAILS(platter_image_close(image, 0, &err), PLATTER_STATUS_OS, "'memory'");
    CHECK(m.frees == 7);

    free(m.bytes);
    passed();
    return 0;
}
