#include <inttypes.h>
#include <platter.h>
#include <stdio.h>

#include "print.h"
#include "profiles.h"

/* Prints each note on a line of its own. */
static void print_notes(const char *notes)
{
    while (*notes != '\0') {
        const char *end = notes;

        while (*end != '\0' && *end != '\n')
            end++;
        printf("    %.*s\n", (int)(end - notes), notes);
        notes = *end == '\n' ? end + 1 : end;
    }
}

bool profiles_print(void)
{
    const platter_profile_info *profile = NULL;
    platter_error *error = NULL;
    int status = PLATTER_OK;

    for (size_t index = 0;
         (status = platter_profile_describe(&profile, index, 0, &error)) == PLATTER_OK; index++) {
        printf("%s: %s\n    format %s", profile->name, profile->product, profile->format);
        if (*profile->options != '\0')
            printf(", options %s", profile->options);
        if (*profile->package != '\0')
            printf(", in a package %s", profile->package);
        printf("\n    sizes %" PRIu64 " to %" PRIu64 " bytes, multiples of %" PRIu64 "\n",
               profile->size_least, profile->size_most, profile->size_multiple);
        print_notes(profile->notes);
    }
    if (status == PLATTER_STATUS_NOT_FOUND) {
        platter_error_free(error);
        return true;
    }
    print_platter_error(error);
    return false;
}
