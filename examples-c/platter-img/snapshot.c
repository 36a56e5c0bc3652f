#include "commands.h"
#include "common.h"
#include "jobs.h"
#include "open.h"
#include "print.h"

static const struct option_entry options[] = {
    OPTION_HELP,
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    {'l', "list", NULL, "list the snapshots; so without any of these four"},
    {'a', "apply", "SNAPSHOT", "give the image the contents of this snapshot, named by its ID or name"},
    {'c', "create", "NAME", "record the contents of the image as a snapshot"},
    {'d', "delete", "NAME", "delete the snapshot of this name"},
    {'q', "quiet", NULL, "accepted for compatibility; only a list is ever printed"},
    {'U', "force-share", NULL, "list although another process is writing to the image"},
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_END,
};

static bool list(const platter_image *image)
{
    platter_report *report = NULL;
    platter_error *error = NULL;

    if (platter_snapshot_list(&report, image, 0, &error) != PLATTER_OK) {
        print_platter_error(error);
        return false;
    }
    return common_print(report, false);
}

static bool change(platter_image *image, int action, const char *name)
{
    static const struct job_display display = {.output_optional = true};
    platter_job *job = NULL;
    platter_error *error = NULL;
    int status = PLATTER_OK;

    if (action == 'a')
        status = platter_snapshot_apply_job_new(&job, image, name, 0, &error);
    else if (action == 'c')
        status = platter_snapshot_create_job_new(&job, image, name, 0, &error);
    else
        status = platter_snapshot_delete_job_new(&job, image, name, 0, &error);
    return common_run(status, job, &display, error);
}

static int run(void)
{
    struct common common = {0};
    int action = 0;
    const char *snapshot = NULL;
    const char *name = NULL;
    platter_image *image = NULL;
    bool done = false;

    for (int option; (option = options_next()) != -1;) {
        switch (option) {
        case 'l':
        case 'a':
        case 'c':
        case 'd':
            if (action != 0) {
                print_usage_error("Cannot mix '-l', '-a', '-c', '-d'");
                return 1;
            }
            action = option;
            snapshot = options_argument();
            break;
        default:
            common_option(&common, option);
            break;
        }
    }
    name = options_one_image();
    if (!common_image_is_valid(&common))
        return 1;
    if (action == 0)
        action = 'l';
    image = open_image(name, &common.image, action == 'l' ? 0 : PLATTER_OPEN_WRITE);
    if (image == NULL)
        return 1;
    done = action == 'l' ? list(image) : change(image, action, snapshot);
    return open_close(image) && done ? 0 : 1;
}

const struct command command_snapshot = {
    .name = "snapshot",
    .summary = "List, create, apply or delete the snapshots in an image",
    .synopsis = "[-f FMT | --image-opts] [-l | -a SNAPSHOT | -c NAME | -d NAME] [-q] [-U]\n"
                "[--object OBJDEF] [--untrusted] IMAGE",
    .options = options,
    .operands = "IMAGE\n   the name of the image, or its description with --image-opts",
    .failure = 1,
    .run = run,
};
