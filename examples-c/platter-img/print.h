/* Output of the tool; messages go to stderr, prefixed with the program's name. */
#ifndef PRINT_H
#define PRINT_H

#include <platter.h>
#include <stdbool.h>
#include <stddef.h>

#if defined(__GNUC__)
#define PRINTF_LIKE(text, first) __attribute__((format(printf, text, first)))
#else
#define PRINTF_LIKE(text, first)
#endif

/* Records how the tool was invoked; messages begin with the last component of the path. */
void print_set_program(const char *invoked);
/* The program's path as invoked, and its last component. */
const char *print_invoked(void);
const char *print_program(void);
/* Sets the current command, for the line that refers to its help; NULL before it is known. */
void print_set_command(const char *command);

/* Replaces the line that refers to the help; printed after the program's name, with one %s for its path. */
void print_set_hint(const char *format);

/* "PROGRAM: message" */
void print_error(const char *format, ...) PRINTF_LIKE(1, 2);
/* As print_error, then the line that refers to the help. */
void print_usage_error(const char *format, ...) PRINTF_LIKE(1, 2);
/* Prints the line that refers to the help. */
void print_try_help(void);
/* The message of an error in qemu-img's wording. */
const char *print_wording(const platter_error *error);
/* The length of the prefix that qemu-img repeats if a file could not be opened; otherwise 0. */
size_t print_length_said_twice(const platter_error *error);
/* Prints an error of the library with its hints, and frees it. */
void print_platter_error(platter_error *error);
/* As print_platter_error, for a call that was given `snapshot`; a wrong list gets a second line. */
void print_snapshot_error(platter_error *error, const char *snapshot);
/* Whether print_error or print_platter_error has been called. */
bool print_had_error(void);
/* Prints lines of the library; advice is given in qemu-img's wording, which names its commands. */
void print_advice(const char *text);
/* Prints a warning of the library. */
void print_warning(const char *text);
/* Prints the warning about a boolean option given by its name alone; "help" and "?" are not such options. */
void print_short_form_warning(const char *word, size_t length);
/* Prints a report as the library renders it; returns false after printing an error if it is incomplete. */
bool print_report(const platter_report *report, bool json);

/* Sets up stdout; must be called before anything is printed. */
void print_start(void);
/* Prints output that may be long, such as a report. */
void print_bytes(const char *bytes, size_t length);
/* Prints a progress line immediately. A failure to do so is ignored. */
void print_progress(const char *format, ...) PRINTF_LIKE(1, 2);
/* Whether writing to stdout has failed, which is reported when the process ends; call right after printing. */
bool print_failed(void);
/* Flushes stdout; a failure is reported when the process ends. */
void print_flush(void);
/* Declares that stdout gets only progress and the like, so that failing to write it is not an error. */
void print_output_is_optional(void);
/* Flushes stdout and exits with `status`, or with `write_failure` if not everything could be written. */
_Noreturn void print_exit(int status, int write_failure);

#endif
