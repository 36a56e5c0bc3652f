/* The progress line: "    (12.34/100%)" and a carriage return. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <platter.h>
#include <stdbool.h>

/* Whether the line is shown; without it, progress is printed only on SIGUSR1. */
void progress_enable(bool shown);
bool progress_is_shown(void);
/* Prints 0 %. */
void progress_start(void);
/* The callback for jobs. */
int progress_callback(const platter_progress *progress, void *user_data);
/* After a job has succeeded: prints 100 % unless that has been printed already. */
void progress_reach_end(void);
/* Prints 100 %. */
void progress_complete(void);
/* Ends the line. */
void progress_end(void);

#endif
