#include "exports.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "print.h"

bool exports_print(const char *name, const struct open_request *request, bool json)
{
    platter_report *report = NULL;
    platter_error *error = NULL;
    platter_open_options *how = open_options(request);
    bool printed = false;

    if (how == NULL)
        return false;
    if (platter_export_list(&report, name, how, open_location_flags(name, request->image_opts), &error) ==
        PLATTER_OK)
        printed = print_report(report, json);
    else
        print_platter_error(error);
    platter_report_free(report);
    platter_open_options_free(how);
    return printed;
}

/* Appends ",key=value" to a list of options, doubling the commas in the value. */
static void add(FILE *list, const char *key, const char *value)
{
    if (value == NULL)
        return;
    fprintf(list, ",%s=", key);
    for (; *value != '\0'; value++) {
        if (*value == ',')
            putc(',', list);
        putc(*value, list);
    }
}

/* Describes the server as a list of options, which the caller frees; returns NULL after printing an error. */
static char *described(const struct exports_server *server)
{
    char *text = NULL;
    size_t length = 0;
    FILE *list = open_memstream(&text, &length);

    if (list == NULL) {
        print_error("Out of memory");
        return NULL;
    }
    fputs("driver=nbd", list);
    add(list, "path", server->socket);
    if (server->socket == NULL) {
        add(list, "host", server->host);
        add(list, "port", server->port);
    }
    add(list, "tls-creds", server->tls_creds);
    add(list, "tls-hostname", server->tls_host);
    if (fclose(list) != 0) {
        print_error("Out of memory");
        free(text);
        return NULL;
    }
    return text;
}

/* Whether the error is that the object named by --tls-creds is missing or of the wrong type. */
static bool is_about_credentials(const char *message)
{
    return strncmp(message, "No TLS credentials", strlen("No TLS credentials")) == 0 ||
           strncmp(message, "Expected TLS credentials", strlen("Expected TLS credentials")) == 0;
}

/* Prints the error about the server at `name` without the library's prefix, and frees it. */
static void print_reason(platter_error *error, const char *name)
{
    const char *words = "Could not list the exports of '";
    const char *message = platter_error_message(error);
    const char *hint = NULL;

    if (strncmp(message, words, strlen(words)) == 0 &&
        strncmp(message + strlen(words), name, strlen(name)) == 0 &&
        strncmp(message + strlen(words) + strlen(name), "': ", strlen("': ")) == 0)
        message += strlen(words) + strlen(name) + strlen("': ");
    print_error("%s%s", is_about_credentials(message) ? "Failed to get TLS creds: " : "", message);
    for (size_t i = 0; (hint = platter_error_hint(error, i)) != NULL; i++)
        print_advice(hint);
    platter_error_free(error);
}

/* Whether the server has described all its exports, as qemu-nbd lists all or none; prints an error if not. */
static bool is_complete(const platter_report *report)
{
    size_t count = 0;
    const char *refusal = NULL;

    if (platter_report_count(&count, report, 0, NULL) != PLATTER_OK)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (platter_report_string(&refusal, report, i, "error", 0, NULL) == PLATTER_OK) {
            print_error("%s", refusal);
            return false;
        }
    }
    return true;
}

bool exports_print_as_peer(const struct exports_server *server)
{
    platter_report *report = NULL;
    platter_error *error = NULL;
    const struct open_request request = {.image_opts = true};
    platter_open_options *how = NULL;
    char *name = described(server);
    bool printed = false;

    if (name == NULL)
        return false;
    how = open_options(&request);
    if (how != NULL) {
        if (platter_export_list(&report, name, how, PLATTER_LOCATION_IMAGE_OPTS, &error) == PLATTER_OK)
            printed = is_complete(report) && print_report(report, false);
        else
            print_reason(error, name);
    }
    platter_report_free(report);
    platter_open_options_free(how);
    free(name);
    return printed;
}
