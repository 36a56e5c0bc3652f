/* The commands of the tool, each in a file of its own. */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "options.h"

extern const struct command command_amend;
extern const struct command command_bench;
extern const struct command command_bitmap;
extern const struct command command_check;
extern const struct command command_commit;
extern const struct command command_compare;
extern const struct command command_convert;
extern const struct command command_create;
extern const struct command command_dd;
extern const struct command command_info;
extern const struct command command_inspect;
extern const struct command command_map;
extern const struct command command_measure;
extern const struct command command_rebase;
extern const struct command command_resize;
extern const struct command command_serve;
extern const struct command command_snapshot;

#endif
