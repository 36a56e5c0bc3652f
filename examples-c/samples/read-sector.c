/* Prints the first sector of a disk image: read-sector IMAGE | hexdump -C */
#include <platter.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    unsigned char sector[512];
    platter_image *image = NULL;
    platter_error *error = NULL;

    if (platter_image_open(&image, argc > 1 ? argv[1] : "", NULL, 0, &error) == PLATTER_OK)
        platter_image_read(image, sector, sizeof sector, 0, 0, &error);
    if (error == NULL)
        fwrite(sector, 1, sizeof sector, stdout);
    else
        fprintf(stderr, "%s\n", platter_error_message(error));
    platter_image_close(image, 0, NULL);
    return error != NULL;
}
