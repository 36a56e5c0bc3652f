/* Converts between two storages of the program: here a raw disk in memory becomes a qcow2 image in memory, whose
 * bytes are written to standard output: convert-in-memory > IMAGE */
#include <errno.h>
#include <platter.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Callbacks may run on several threads at once; the lock serializes reads, writes and changes of size. */
struct memory {
    pthread_mutex_t lock;
    unsigned char *bytes;
    uint64_t size, room;
};

static int mem_read(void *buf, size_t len, uint64_t offset, void *user_data)
{
    struct memory *memory = user_data;

    pthread_mutex_lock(&memory->lock);
    memcpy(buf, memory->bytes + offset, len);
    pthread_mutex_unlock(&memory->lock);
    return 0;
}

static int mem_size(uint64_t *size, void *user_data)
{
    *size = ((struct memory *)user_data)->size;
    return 0;
}

static int mem_set_size(uint64_t size, void *user_data)
{
    struct memory *memory = user_data;

    if (size > memory->room)
        return -ENOSPC;
    pthread_mutex_lock(&memory->lock);
    if (size < memory->size)
        memset(memory->bytes + size, 0, memory->size - size);
    memory->size = size;
    pthread_mutex_unlock(&memory->lock);
    return 0;
}

static int mem_write(const void *buf, size_t len, uint64_t offset, void *user_data)
{
    struct memory *memory = user_data;

    if (offset > memory->room || len > memory->room - offset)
        return -ENOSPC;
    pthread_mutex_lock(&memory->lock);
    memcpy(memory->bytes + offset, buf, len);
    if (offset + len > memory->size)
        memory->size = offset + len;
    pthread_mutex_unlock(&memory->lock);
    return 0;
}

static int mem_flush(void *user_data)
{
    (void)user_data;
    return 0;
}

static const platter_storage_ops operations = {
    .read = mem_read,
    .size = mem_size,
    .write = mem_write,
    .flush = mem_flush,
    .set_size = mem_set_size,
};

static int convert(struct memory *from, struct memory *to, platter_error **error)
{
    platter_storages *storages = NULL;
    platter_open_options *options = NULL;
    platter_convert *convert = NULL;
    platter_job *job = NULL;
    int status = platter_storages_new(&storages, 0, error);

    if (status == PLATTER_OK)
        status = platter_storages_add_storage(storages, "from", &operations, from, NULL, 0, error);
    if (status == PLATTER_OK)
        status = platter_storages_add_storage(storages, "to", &operations, to, NULL, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_new(&options, 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_format(options, "raw", 0, error);
    if (status == PLATTER_OK)
        status = platter_open_options_set_storages(options, storages, 0, error);
    if (status == PLATTER_OK)
        status = platter_convert_new(&convert, 0, error);
    if (status == PLATTER_OK)
        status = platter_convert_set_source_options(convert, options, 0, error);
    if (status == PLATTER_OK)
        status = platter_convert_add_source(convert, "from", 0, error);
    if (status == PLATTER_OK)
        status = platter_convert_set_target(convert, "to", "qcow2", 0, error);
    if (status == PLATTER_OK)
        status = platter_convert_set_storages(convert, storages, 0, error);
    if (status == PLATTER_OK)
        status = platter_convert_job_new(&job, convert, 0, error);
    if (status == PLATTER_OK)
        status = platter_job_run(job, 0, error);
    platter_job_free(job);
    platter_convert_free(convert);
    platter_open_options_free(options);
    platter_storages_free(storages);
    return status;
}

int main(void)
{
    struct memory from = {PTHREAD_MUTEX_INITIALIZER, calloc(1, 1 << 20), 1 << 20, 1 << 20};
    struct memory to = {PTHREAD_MUTEX_INITIALIZER, calloc(1, 8 << 20), 0, 8 << 20};
    platter_error *error = NULL;

    if (from.bytes == NULL || to.bytes == NULL)
        return 1;
    strcpy((char *)from.bytes, "the first sector");
    if (convert(&from, &to, &error) == PLATTER_OK)
        fwrite(to.bytes, to.size, 1, stdout);
    else
        fprintf(stderr, "%s\n", platter_error_message(error));
    free(from.bytes);
    free(to.bytes);
    if (error == NULL)
        return 0;
    platter_error_free(error);
    return 1;
}
