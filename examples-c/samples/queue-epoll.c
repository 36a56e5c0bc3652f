/* Reads an image with 16 requests in flight, from the event loop of the program, and adds up its bytes:
 * queue-epoll IMAGE */
#include <platter.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define REQUESTS 16
#define PART 65536

struct request {
    unsigned char bytes[PART];
    size_t len;
};

static uint64_t next, size, sum;

/* Submits a read of the next part of the image into a free buffer; errors are reported in the completion. */
static void submit(platter_queue *queue, struct request *request)
{
    if (next == size)
        return;
    request->len = (size_t)(size - next < PART ? size - next : PART);
    platter_queue_read(queue, request->bytes, request->len, next, request, 0);
    next += request->len;
}

static int read_all(platter_queue *queue, int events, struct request *requests, platter_error **error)
{
    for (int i = 0; i < REQUESTS; i++)
        submit(queue, &requests[i]);
    while (platter_queue_outstanding(queue) > 0) {
        platter_completion done[REQUESTS];
        struct epoll_event event;
        size_t count = 0;

        /* A real loop waits for its other descriptors here as well. */
        epoll_wait(events, &event, 1, -1);
        int status = platter_queue_reap(&count, queue, done, REQUESTS, 0, 0, 0, error);
        if (status != PLATTER_OK)
            return status;
        for (size_t i = 0; i < count; i++) {
            struct request *request = done[i].user_data;

            if (done[i].status != PLATTER_OK) {
                fprintf(stderr, "A read failed: %s\n", platter_status_name(done[i].status));
                return done[i].status;
            }
            for (size_t at = 0; at < request->len; at++)
                sum += request->bytes[at];
            submit(queue, request);
        }
    }
    return PLATTER_OK;
}

int main(int argc, char **argv)
{
    platter_image *image = NULL;
    platter_queue *queue = NULL;
    platter_error *error = NULL;
    struct request *requests = calloc(REQUESTS, sizeof *requests);
    int fd = -1, status, events = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};

    if (argc != 2 || requests == NULL || events < 0)
        return 2;
    status = platter_image_open(&image, argv[1], NULL, 0, &error);
    if (status == PLATTER_OK)
        status = platter_image_size(&size, image, 0, &error);
    if (status == PLATTER_OK)
        status = platter_queue_new(&queue, image, 64, 0, &error);
    if (status == PLATTER_OK)
        status = platter_queue_fd(&fd, queue, 0, &error);
    if (status == PLATTER_OK && epoll_ctl(events, EPOLL_CTL_ADD, fd, &event) == 0)
        status = read_all(queue, events, requests, &error);
    if (status == PLATTER_OK)
        printf("%llu\n", (unsigned long long)sum);
    else if (error != NULL)
        fprintf(stderr, "%s\n", platter_error_message(error));
    platter_error_free(error);
    /* The library is done with every buffer when this returns. */
    platter_queue_free(queue);
    platter_image_close(image, 0, NULL);
    free(requests);
    close(events);
    return status != PLATTER_OK;
}
