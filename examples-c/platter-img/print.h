/* What the tool prints: messages on stderr with the program's name in front. */
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

/* Remembers how the tool was called; messages begin with the last part of the path. */
void print_set_program(const char *invoked);
/* The program's path as it was called, and its last part. */
const char *print_invoked(void);
const char *print_program(void);
/* The command that runs, for the line that leads to its help; NULL before it is known. */
void print_set_command(const char *command);

/* How the line that leads to the help reads instead, after the program's name: with one %s for its path. */
void print_set_hint(const char *format);

/* "PROGRAM: message" */
void print_error(const char *format, ...) PRINTF_LIKE(1, 2);
/* As print_error, then the line that leads to the help. */
void print_usage_error(const char *format, ...) PRINTF_LIKE(1, 2);
/* The line that leads to the help. */
void print_try_help(void);
/* The message of an error in the words of qemu-img. */
const char *print_wording(const platter_error *error);
/* The length of the beginning of the message that qemu-img says twice, of a file that could not be opened; else 0. */
size_t print_length_said_twice(const platter_error *error);
/* An error of the library with its hints; frees it. */
void print_platter_error(platter_error *error);
/* As print_platter_error, of a call that was given `snapshot`: a wrong list has a second line. */
void print_snapshot_error(platter_error *error, const char *snapshot);
/* Whether print_error or print_platter_error has been called. */
bool print_had_error(void);
/* Prints lines of the library; those that advise in the words of qemu-img, which name its commands. */
void print_advice(const char *text);
/* One warning of the library. */
void print_warning(const char *text);
/* The warning of an option that is switched by its name alone; "help" and "?" are none. */
void print_short_form_warning(const char *word, size_t length);
/* What the library rendered of a report, on stdout; false after a message where it is cut short. */
bool print_report(const platter_report *report, bool json);

/* Makes stdout ready, before anything is printed. */
void print_start(void);
/* Prints what may be long, such as a report. */
void print_bytes(const char *bytes, size_t length);
/* A progress line, at once. The work is no worse where it cannot be shown. */
void print_progress(const char *format, ...) PRINTF_LIKE(1, 2);
/* Right after something was printed: whether stdout takes no more, which shows when the process ends. */
bool print_failed(void);
/* Writes out what was printed on stdout; a failure shows when the process ends. */
void print_flush(void);
/* What stands on stdout is progress and the like: that it could not be written is no failure. */
void print_output_is_optional(void);
/* Flushes stdout and ends the process: `status`, or `write_failure` if stdout took not everything. */
_Noreturn void print_exit(int status, int write_failure);

#endif
