/* The descriptors 0 to 2. */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

/* Fills those that are closed, so that no image is opened in their place and then printed into.
 * Reading and writing them fails as before. Before anything else is opened. */
void descriptors_fill(void);

#endif
