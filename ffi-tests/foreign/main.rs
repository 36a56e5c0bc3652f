//! A program over what bindgen makes of the header; `BINDINGS` is the path of that.
#![allow(dead_code, non_camel_case_types, non_snake_case, non_upper_case_globals)]

mod bindings {
    include!(env!("BINDINGS"));
}

use bindings::*;
use std::ffi::{CStr, CString};
use std::ptr;

fn main() {
    let name = CString::new("missing").unwrap();
    let (mut image, mut error) = (ptr::null_mut(), ptr::null_mut());
    unsafe {
        assert_eq!(platter_version_number(), PLATTER_VERSION_NUMBER);
        let status = platter_image_open(&mut image, name.as_ptr(), ptr::null(), 0, &mut error);
        assert_eq!(status, PLATTER_STATUS_NOT_FOUND);
        assert!(image.is_null());
        let message = CStr::from_ptr(platter_error_message(error));
        assert!(message.to_string_lossy().contains("missing"));
        platter_error_free(error);
    }
    println!("ok");
}
