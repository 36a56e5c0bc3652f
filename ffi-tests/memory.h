/* A file in memory, used as a storage of the program. */
#ifndef PLATTER_FFI_MEMORY_H
#define PLATTER_FFI_MEMORY_H

#include "check.h"

/* The owner frees `bytes`. */
struct memory {
    unsigned char *bytes;
    uint64_t size, capacity;
    int frees;
};

static inline struct memory new_memory(uint64_t size, uint64_t capacity)
{
    struct memory m = {.size = size, .capacity = capacity};
    m.bytes = calloc(1, capacity);
    CHECK(m.bytes != NULL);
    return m;
}

/* Allocated on the heap, and freed entirely by `mem_destroy`. */
static inline struct memory *heap_memory(uint64_t size, uint64_t capacity)
{
    struct memory *m = malloc(sizeof *m);
    CHECK(m != NULL);
    *m = new_memory(size, capacity);
    return m;
}

static inline void mem_destroy(void *user_data)
{
    free(((struct memory *)user_data)->bytes);
    free(user_data);
}

static inline int mem_read(void *buf, size_t len, uint64_t offset, void *user_data)
{
    const struct memory *m = user_data;
    CHECK(offset <= m->size && len <= m->size - offset);
    memcpy(buf, m->bytes + offset, len);
    return 0;
}

static inline int mem_size(uint64_t *size, void *user_data)
{
    *size = ((const struct memory *)user_data)->size;
    return 0;
}

static inline int mem_write(const void *buf, size_t len, uint64_t offset, void *user_data)
{
    struct memory *m = user_data;
    if (offset > m->capacity || len > m->capacity - offset)
        return -ENOSPC;
    if (offset > m->size)
        memset(m->bytes + m->size, 0, offset - m->size);
    memcpy(m->bytes + offset, buf, len);
    if (offset + len > m->size)
        m->size = offset + len;
    return 0;
}

static inline int mem_flush(void *user_data)
{
    (void)user_data;
    return 0;
}

static inline int mem_set_size(uint64_t size, void *user_data)
{
    struct memory *m = user_data;
    if (size > m->capacity)
        return PLATTER_STATUS_NO_SPACE;
    if (size > m->size)
        memset(m->bytes + m->size, 0, size - m->size);
    m->size = size;
    return 0;
}

/* Counts how often it is released. */
static inline void mem_free(void *user_data)
{
    ((struct memory *)user_data)->frees++;
}

static const platter_storage_ops mem_ops = {
    .read = mem_read,
    .size = mem_size,
    .write = mem_write,
    .flush = mem_flush,
    .set_size = mem_set_size,
};

#endif
