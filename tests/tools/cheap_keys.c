/* Preloaded into a program that makes images with the encryption of Ceph: to derive one of their keys from a passphrase
 * takes as little as it may, where each use of an image would otherwise take seconds of a processor. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

struct crypt_device;

/* As in libcryptsetup.h. */
int crypt_format(struct crypt_device *device, const char *type, const char *cipher, const char *mode, const char *uuid,
                 const char *key, size_t key_size, void *parameters);

int crypt_format(struct crypt_device *device, const char *type, const char *cipher, const char *mode, const char *uuid,
                 const char *key, size_t key_size, void *parameters)
{
    /* The client library has loaded it where no other object looks for symbols. */
    void *const library = dlopen("libcryptsetup.so.12", RTLD_NOW | RTLD_NOLOAD);
    int (*format)(struct crypt_device *, const char *, const char *, const char *, const char *, const char *, size_t, void *);
    void (*set_iteration_time)(struct crypt_device *, uint64_t milliseconds);

    if (library == NULL)
        return -1;
    *(void **)&format = dlsym(library, "crypt_format");
    *(void **)&set_iteration_time = dlsym(library, "crypt_set_iteration_time");
    if (format == NULL || set_iteration_time == NULL)
        return -1;
    set_iteration_time(device, 1);
    return format(device, type, cipher, mode, uuid, key, key_size, parameters);
}
