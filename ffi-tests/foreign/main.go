// A program over what cgo makes of the header.
package main

// #cgo LDFLAGS: -lplatter
// #include <stdlib.h>
// #include <platter.h>
import "C"

import (
	"fmt"
	"strings"
	"unsafe"
)

func main() {
	name := C.CString("missing")
	defer C.free(unsafe.Pointer(name))
	var image *C.platter_image
	var failure *C.platter_error
	status := C.platter_image_open(&image, name, nil, 0, &failure)
	if C.platter_version_number() != C.PLATTER_VERSION_NUMBER || status != C.PLATTER_STATUS_NOT_FOUND || image != nil {
		panic(status)
	}
	if !strings.Contains(C.GoString(C.platter_error_message(failure)), "missing") {
		panic("message")
	}
	C.platter_error_free(failure)
	fmt.Println("ok")
}
