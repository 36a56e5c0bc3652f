/* Prints the first sector of a disk image: read-sector IMAGE | hexdump -C */
#include <platter.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    unsigned char sector[512];
    platter_image *image = NULL;
    platter_error *error = NULL;
    int failed;

    if (platter_image_open(&image, argc > 1 ? argv[1] : "", NULL, 0, &error) == PLATTER_OK)
        platter_image_read(image, sector, sizeof sector, 0, 0, &error);
    failed = error != NULL;
    if (failed)
        fprintf(stderr, "%s\n", platter_error_message(error));
    else
        fwrite(sector, 1, sizeof sector, stdout);
    platter_error_free(error);
    platter_image_close(image, 0, NULL);
    return failed;
}
