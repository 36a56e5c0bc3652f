/* File descriptors 0 to 2. */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

/* Occupies those that are closed, so that no image gets such a descriptor and is overwritten by output.
 * Reading and writing them still fails. Must be called before anything else is opened. */
void descriptors_fill(void);

#endif
