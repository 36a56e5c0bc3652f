// Resets unit 1 of a target, as another initiator does: the arguments are HOST:PORT and the name of the target. The library
// is loaded, so that its headers are not needed.

#include <dlfcn.h>
#include <stdio.h>
#include <stdint.h>

#define NORMAL_SESSION 2

int main(int argc, char **argv)
{
	void *library = dlopen("libiscsi.so.7", RTLD_NOW);
	if (argc != 3 || library == NULL)
		return 2;
	void *(*create)(const char *) = (void *(*)(const char *))dlsym(library, "iscsi_create_context");
	int (*target)(void *, const char *) = (int (*)(void *, const char *))dlsym(library, "iscsi_set_targetname");
	int (*session)(void *, int) = (int (*)(void *, int))dlsym(library, "iscsi_set_session_type");
	int (*connect)(void *, const char *, int) =
		(int (*)(void *, const char *, int))dlsym(library, "iscsi_full_connect_sync");
	int (*reset)(void *, uint32_t) = (int (*)(void *, uint32_t))dlsym(library, "iscsi_task_mgmt_lun_reset_sync");
	const char *(*error)(void *) = (const char *(*)(void *))dlsym(library, "iscsi_get_error");
	if (create == NULL || target == NULL || session == NULL || connect == NULL || reset == NULL || error == NULL)
		return 2;
	void *context = create("iqn.2025-01.test:other");
	if (context == NULL)
		return 2;
	if (target(context, argv[2]) != 0 || session(context, NORMAL_SESSION) != 0 || connect(context, argv[1], 1) != 0 ||
	    reset(context, 1) != 0) {
		fprintf(stderr, "%s\n", error(context));
		return 1;
	}
	return 0;
}
